/*
 * forest.c - the order of pages, and how it stays cheap.
 *
 * A sample key is taken from a few cache lines, so unique pages are told apart without being read. Two
 * different pages may have the same sample. When that is seen the class is deepened: the sample goes
 * into the index's set, and from then on its pages are filed under a hash of all their bytes. Objects
 * whose hashes collide too are told apart by their bytes, so the order is right whatever the hash.
 *
 * Objects in the unstable forest may have been written since they were filed. Their key is not computed
 * again, so the order by key always holds; the order by bytes may be off, which can only miss a match.
 */
#include "forest.h"

#define ENTRIES_PER_ROOT 2	/* the forest grows when there are more; sized ahead it has a root for each */
#define MAX_ROOT_BITS 30

void forest_init(struct forest *forest, struct memory *memory, const struct pool *pool,
		 const uint8_t *(*bytes_of)(const struct pool *pool, uint32_t ref))
{
	*forest = (struct forest){ .pool = pool, .bytes_of = bytes_of, .memory = memory, .roots = &forest->first_root };
}

static size_t roots_size(uint32_t root_bits)
{
	return sizeof(uint32_t) << root_bits;
}

/* Has it roots of its own, or only the one that every forest has? */
static bool has_table(const struct forest *forest)
{
	return forest->roots != &forest->first_root;
}

/* --- roots ------------------------------------------------------------------------------------ */

/*
 * While the forest grows the first nr_split roots are spread over four each, and the others are as they were:
 *
 *     next_roots  [ 0 1 2 3 | 4 5 6 7 ]            root numbers: 0 to 7,
 *     roots       [ - | - | 2 | 3 | ... ]          then 8 for roots[2], 9 for roots[3], ...
 */
#define SPLIT_BITS 2
#define SPLIT ((uint64_t)1 << SPLIT_BITS)

uint64_t forest_nr_roots(const struct forest *forest)
{
	return ((uint64_t)1 << forest->root_bits) + (SPLIT - 1) * forest->nr_split;
}

/* The number of the root that has the key when the forest does not grow. No bits: 0. */
static uint64_t old_root_number(const struct forest *forest, uint64_t key)
{
	return key >> 1 >> (63 - forest->root_bits);
}

uint64_t forest_root_number(const struct forest *forest, uint64_t key)
{
	uint64_t old = old_root_number(forest, key);
	if (old >= forest->nr_split)
		return old + (SPLIT - 1) * forest->nr_split;
	return key >> (64 - forest->root_bits - SPLIT_BITS);
}

static uint32_t *root_at(struct forest *forest, uint64_t number)
{
	if (number < SPLIT * forest->nr_split)
		return &forest->next_roots[number];
	return &forest->roots[number - (SPLIT - 1) * forest->nr_split];
}

uint32_t forest_root(const struct forest *forest, uint64_t number)
{
	return *root_at((struct forest *)forest, number);
}

static uint32_t *root_of(struct forest *forest, uint64_t key)
{
	if (!forest->next_roots)
		return &forest->roots[old_root_number(forest, key)];
	return root_at(forest, forest_root_number(forest, key));
}

static void free_table(struct forest *forest)
{
	if (has_table(forest))
		table_free(forest->memory, LKSM_FOR_ROOTS, forest->roots, roots_size(forest->root_bits));
}

static void free_roots(struct forest *forest)
{
	free_table(forest);
	table_free(forest->memory, LKSM_FOR_ROOTS, forest->next_roots, roots_size(forest->root_bits + SPLIT_BITS));
	forest->roots = &forest->first_root;
	forest->next_roots = NULL;
	forest->root_bits = 0;
	forest->first_root = 0;
	forest->nr_split = 0;
}

uint64_t forest_bytes(const struct forest *forest)
{
	return (has_table(forest) ? roots_size(forest->root_bits) : 0) +
	       (forest->next_roots ? roots_size(forest->root_bits + SPLIT_BITS) : 0);
}

void forest_deinit(struct forest *forest)
{
	free_roots(forest);
	forest->nr_entries = 0;
}

static uint32_t bits_for(uint64_t nr_entries)
{
	uint32_t bits = 0;
	/* untested: so many roots */
	while (bits < MAX_ROOT_BITS && nr_entries > (uint64_t)1 << bits)
		bits++;
	return bits;
}

void forest_reset(struct forest *forest, uint64_t nr_expected)
{
	uint32_t bits = bits_for(nr_expected);

	forest->nr_entries = 0;
	forest->first_root = 0;
	if (has_table(forest) && bits == forest->root_bits && !forest->next_roots) {
		memset(forest->roots, 0, roots_size(bits));
		return;
	}
	free_roots(forest);
	if (!bits)
		return;
	uint32_t *roots = table_alloc(forest->memory, LKSM_FOR_ROOTS, roots_size(bits));
	if (!roots)
		return;
	forest->roots = roots;
	forest->root_bits = bits;
}

/* --- searching ---------------------------------------------------------------------------------- */

/* Frames of one chain have the same bytes at several addresses: then it is the reference that tells. */
static int compare(const struct forest *forest, const struct page_rules *rules, const struct look *look, uint32_t ref,
		   const uint8_t *bytes)
{
	const struct foreseen *foreseen = look->foreseen;

	if (is_foreseen(foreseen, bytes) || (foreseen && foreseen->is_compared && foreseen->forest == forest &&
					     foreseen->ref == ref))
		return foreseen_compare(rules, foreseen);
	return page_compare(rules, look->bytes, bytes);
}

enum forest_result forest_search(const struct forest *forest, const struct page_rules *rules,
				 const struct look *look, struct place *place_ret, uint32_t *ref_ret)
{
	struct place place = { 0, 0 };
	uint32_t ref = forest->nr_entries ? *root_of((struct forest *)forest, look->key) : 0;

	while (ref) {
		const uint64_t key = *forest_key(forest->pool, ref);
		int order = (look->key > key) - (look->key < key);
		if (!order) {
			const uint8_t *bytes = forest->bytes_of(forest->pool, ref);
			order = compare(forest, rules, look, ref, bytes);
			if (!order) {
				*ref_ret = ref;
				return FOREST_FOUND;
			}
			/* Written since it was filed, or filed deep: then it is no member of our class. */
			if (!look->is_deep && page_sample(rules, bytes) == look->sample)
				return FOREST_COLLISION;
		}
		place.parent = ref;
		place.side = order > 0;
		ref = rb_at(forest->pool, ref)->child[place.side];
	}
	*place_ret = place;
	return FOREST_ABSENT;
}

void forest_prefetch_root(const struct forest *forest, uint64_t key)
{
	if (forest->nr_entries)
		prefetch(root_of((struct forest *)forest, key));
}

void forest_prefetch_object(const struct forest *forest, uint64_t key)
{
	uint32_t ref = forest->nr_entries ? *root_of((struct forest *)forest, key) : 0;
	if (!ref)
		return;
	prefetch(rb_at(forest->pool, ref));
	prefetch(forest_key(forest->pool, ref));	/* of a node it may be in the next line */
}

uint32_t forest_peek(const struct forest *forest, uint64_t key)
{
	uint32_t ref = forest->nr_entries ? *root_of((struct forest *)forest, key) : 0;
	while (ref) {
		uint64_t ref_key = *forest_key(forest->pool, ref);
		if (ref_key == key)
			break;
		ref = rb_at(forest->pool, ref)->child[ref_key < key];
	}
	return ref;
}

const uint8_t *forest_peek_page(const struct forest *forest, uint64_t key)
{
	uint32_t ref = forest_peek(forest, key);
	return ref ? forest->bytes_of(forest->pool, ref) : NULL;
}

/* Files @ref after every object that is not greater: used where no search has been made. */
static void insert_in_order(struct forest *forest, const struct page_rules *rules, uint32_t ref)
{
	uint64_t key = *forest_key(forest->pool, ref);
	uint32_t *root = root_of(forest, key);
	struct place place = { 0, 0 };

	for (uint32_t next = *root; next; next = rb_at(forest->pool, next)->child[place.side]) {
		uint64_t next_key = *forest_key(forest->pool, next);
		place.parent = next;
		if (key != next_key || !rules)
			place.side = key >= next_key;
		else
			place.side = page_compare(rules, forest->bytes_of(forest->pool, ref),
						  forest->bytes_of(forest->pool, next)) >= 0;
	}
	rb_insert(forest->pool, root, ref, place.parent, place.side);
}

/* --- growing ------------------------------------------------------------------------------------ */

/* Begins to grow. Without memory the trees get deeper, that is all. */
static void begin_growth(struct forest *forest)
{
	forest->next_roots = table_alloc(forest->memory, LKSM_FOR_ROOTS, roots_size(forest->root_bits + SPLIT_BITS));
	forest->nr_split = 0;
}

static void end_growth(struct forest *forest)
{
	uint32_t *roots = forest->next_roots;
	uint32_t bits = forest->root_bits + SPLIT_BITS;
	uint64_t nr_entries = forest->nr_entries;
	forest->next_roots = NULL;
	free_table(forest);
	*forest = (struct forest){ .pool = forest->pool, .bytes_of = forest->bytes_of, .memory = forest->memory,
				   .roots = roots, .root_bits = bits, .nr_entries = nr_entries };
}

/*
 * Spreads one more root over four. Its tree holds a stretch of the order, so taking its objects from the smallest on
 * and appending them keeps the order without looking at a byte. A step at each insertion is done long before there
 * are enough objects to grow again, and nobody ever waits for a whole table.
 */
static void grow_on(struct forest *forest)
{
	uint32_t *old_root = &forest->roots[forest->nr_split];
	uint32_t root = *old_root;
	*old_root = 0;
	forest->nr_split++;
	if (forest->nr_split + 1 < (uint64_t)1 << forest->root_bits && old_root[2])
		prefetch(rb_at(forest->pool, old_root[2]));	/* the step after the next one will ask for it */
	for (uint32_t ref; (ref = rb_first(forest->pool, root)) != 0;) {
		rb_erase(forest->pool, &root, ref);
		insert_in_order(forest, NULL, ref);
	}
	if (forest->nr_split == (uint64_t)1 << forest->root_bits)
		end_growth(forest);
}

void forest_insert(struct forest *forest, uint32_t ref, const struct place *place)
{
	rb_insert(forest->pool, root_of(forest, *forest_key(forest->pool, ref)), ref, place->parent,
		  place->side);
	forest->nr_entries++;
	if (forest->next_roots)
		grow_on(forest);
	else if (forest->nr_entries > (uint64_t)ENTRIES_PER_ROOT << forest->root_bits &&
		 forest->root_bits + SPLIT_BITS <= MAX_ROOT_BITS)	/* untested: so many roots */
		begin_growth(forest);
}

void forest_file(struct forest *forest, const struct page_rules *rules, uint32_t ref)
{
	insert_in_order(forest, rules, ref);
	forest->nr_entries++;
}

void forest_remove(struct forest *forest, uint32_t ref)
{
	rb_erase(forest->pool, root_of(forest, *forest_key(forest->pool, ref)), ref);
	forest->nr_entries--;
}

void forest_replace(struct forest *forest, uint32_t old_ref, uint32_t new_ref)
{
	rb_replace(forest->pool, root_of(forest, *forest_key(forest->pool, old_ref)), old_ref, new_ref);
}

/* The smallest object filed under @key, or 0. */
static uint32_t first_with_key(struct forest *forest, uint64_t key)
{
	uint32_t found = 0;
	for (uint32_t ref = *root_of(forest, key); ref;) {
		uint64_t ref_key = *forest_key(forest->pool, ref);
		if (ref_key == key)
			found = ref;
		ref = rb_at(forest->pool, ref)->child[ref_key < key];
	}
	return found;
}

void forest_deepen(struct forest *forest, const struct page_rules *rules, uint64_t sample)
{
	uint32_t ref = first_with_key(forest, sample);
	while (ref && *forest_key(forest->pool, ref) == sample) {
		uint32_t next = rb_next(forest->pool, ref);
		const uint8_t *bytes = forest->bytes_of(forest->pool, ref);
		uint64_t key = page_hash(rules, bytes);
		/* Same key: a weak hash; it may stay. Other sample: not of this class, or written since. */
		if (key != sample && page_sample(rules, bytes) == sample) {
			rb_erase(forest->pool, root_of(forest, sample), ref);
			*forest_key(forest->pool, ref) = key;
			insert_in_order(forest, rules, ref);
		}
		ref = next;
	}
}

bool forest_holds(const struct forest *forest, uint32_t ref)
{
	uint32_t root = *root_of((struct forest *)forest, *forest_key(forest->pool, ref));
	while (rb_at(forest->pool, ref)->parent)
		ref = rb_at(forest->pool, ref)->parent;
	return ref == root;
}

uint32_t forest_next(const struct forest *forest, uint32_t ref)
{
	uint64_t number = 0;
	if (ref) {
		uint32_t next = rb_next(forest->pool, ref);
		if (next)
			return next;
		number = forest_root_number(forest, *forest_key(forest->pool, ref)) + 1;
	}
	for (; number < forest_nr_roots(forest); number++) {
		uint32_t first = rb_first(forest->pool, forest_root(forest, number));
		if (first)
			return first;
	}
	return 0;
}
