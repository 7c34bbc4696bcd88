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

#define ENTRIES_PER_ROOT 2	/* the forest grows when there are more */
#define MAX_ROOT_BITS 30

void forest_init(struct forest *forest, struct memory *memory, const struct pool *pool,
		 const uint8_t *(*bytes_of)(const struct pool *pool, uint32_t ref))
{
	*forest = (struct forest){ .pool = pool, .bytes_of = bytes_of, .memory = memory };
}

static size_t roots_size(uint32_t root_bits)
{
	return sizeof(uint32_t) << root_bits;
}

static void free_roots(struct forest *forest)
{
	memory_free(forest->memory, LKSM_FOR_ROOTS, forest->roots, roots_size(forest->root_bits));
	forest->roots = NULL;
	forest->root_bits = 0;
	forest->first_root = 0;
}

void forest_deinit(struct forest *forest)
{
	free_roots(forest);
	forest->nr_entries = 0;
}

static uint32_t bits_for(uint64_t nr_entries)
{
	uint32_t bits = 0;
	while (bits < MAX_ROOT_BITS && nr_entries > (uint64_t)ENTRIES_PER_ROOT << bits)
		bits++;
	return bits;
}

void forest_reset(struct forest *forest, uint64_t nr_expected)
{
	uint32_t bits = bits_for(nr_expected);

	forest->nr_entries = 0;
	forest->first_root = 0;
	if (forest->roots && bits == forest->root_bits) {
		memset(forest->roots, 0, roots_size(bits));
		return;
	}
	free_roots(forest);
	if (!bits)
		return;
	forest->roots = memory_alloc(forest->memory, LKSM_FOR_ROOTS, roots_size(bits));
	forest->root_bits = forest->roots ? bits : 0;
}

static uint32_t *root_of(struct forest *forest, uint64_t key)
{
	if (!forest->root_bits)
		return &forest->first_root;
	return &forest->roots[key >> (64 - forest->root_bits)];
}

static uint32_t *root_at(struct forest *forest, uint64_t i)
{
	return forest->root_bits ? &forest->roots[i] : &forest->first_root;
}

enum forest_result forest_search(const struct forest *forest, const struct page_rules *rules,
				 const struct look *look, struct place *place_ret, uint32_t *ref_ret)
{
	struct place place = { 0, 0 };
	uint32_t ref = *root_of((struct forest *)forest, look->key);

	while (ref) {
		const uint64_t key = *forest_key(forest->pool, ref);
		int order = (look->key > key) - (look->key < key);
		if (!order) {
			const uint8_t *bytes = forest->bytes_of(forest->pool, ref);
			order = page_compare(rules, look->bytes, bytes);
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
	__builtin_prefetch(root_of((struct forest *)forest, key));
}

void forest_prefetch_object(const struct forest *forest, uint64_t key)
{
	uint32_t ref = *root_of((struct forest *)forest, key);
	if (ref)
		__builtin_prefetch(pool_at(forest->pool, ref));
}

const uint8_t *forest_peek(const struct forest *forest, uint64_t key)
{
	uint32_t ref = *root_of((struct forest *)forest, key);
	while (ref) {
		uint64_t ref_key = *forest_key(forest->pool, ref);
		if (ref_key == key)
			return forest->bytes_of(forest->pool, ref);
		ref = rb_at(forest->pool, ref)->child[ref_key < key];
	}
	return NULL;
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

/*
 * Four times as many roots. Each old tree holds a stretch of the order, so taking its objects from the
 * smallest on and appending them keeps the order without looking at a byte.
 */
static void grow(struct forest *forest)
{
	struct forest old = *forest;
	uint32_t bits = old.root_bits + 2;
	uint32_t *roots = memory_alloc(forest->memory, LKSM_FOR_ROOTS, roots_size(bits));
	if (!roots)
		return;		/* the trees get deeper, that is all */
	forest->roots = roots;
	forest->root_bits = bits;
	for (uint64_t i = 0; i < (uint64_t)1 << old.root_bits; i++) {
		uint32_t *old_root = root_at(&old, i);
		for (uint32_t ref; (ref = rb_first(forest->pool, *old_root)) != 0;) {
			rb_erase(forest->pool, old_root, ref);
			insert_in_order(forest, NULL, ref);
		}
	}
	free_roots(&old);
}

void forest_insert(struct forest *forest, uint32_t ref, const struct place *place)
{
	rb_insert(forest->pool, root_of(forest, *forest_key(forest->pool, ref)), ref, place->parent,
		  place->side);
	forest->nr_entries++;
	if (forest->nr_entries > (uint64_t)ENTRIES_PER_ROOT << forest->root_bits &&
	    forest->root_bits + 2 <= MAX_ROOT_BITS)
		grow(forest);
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
	struct forest *mutable = (struct forest *)forest;
	uint64_t i = 0;
	if (ref) {
		uint32_t next = rb_next(forest->pool, ref);
		if (next)
			return next;
		i = forest->root_bits ? (*forest_key(forest->pool, ref) >> (64 - forest->root_bits)) + 1 : 1;
	}
	for (; i < (uint64_t)1 << forest->root_bits; i++) {
		uint32_t first = rb_first(forest->pool, *root_at(mutable, i));
		if (first)
			return first;
	}
	return 0;
}
