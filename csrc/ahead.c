/*
 * ahead.c - steps, each so many pages ahead that a miss is hidden behind the visits in between. One page takes each step
 * before a visit, not many at a time: so memory is busy while the visit computes. Who helps needs time, so then the
 * steps in front of an errand and behind it are LEAD pages farther apart.
 *
 *     lines --> samples, which may send for hashes --> roots --> objects --> twins, which send for compares --> visits
 */
#include "ahead.h"

#include "chain.h"
#include "filter.h"
#include "index.h"
#include "mm_slot.h"
#include "smart_scan.h"

/* Pages ahead: */
#define ASK_FOR_LINES 12	/* sampled lines are asked for */
#define TAKE_SAMPLE 9		/* they are here; if it has been deepened the whole page is asked for */
#define ASK_FOR_ROOTS 8		/* with that, or its hash, the key is known, and the roots are asked for */
#define ASK_FOR_OBJECTS 6	/* the objects at the roots are asked for */
#define FIND_TWIN 4		/* the object with the same key is looked for, and a compare is wanted */
#define ASK_FOR_TWIN 3		/* up to here what will be read is asked for, if nobody else reads it */
#define LEAD 32			/* that an errand may wait */
#define PORTION 1024		/* bytes of a page that are asked for in a visit that reads nothing in full */
#define LAST_PART 1536		/* of two pages that are asked for during a compare: comes between that and the next one */
#define PAGES_ALONE 16		/* places where nobody helps: fewer, so that they stay in the cache */
#define STRETCH_BYTES (1 << 21)	/* are mapped together */
#define MAPPED_BYTES (1 << 16)	/* of a file, by the kernel, around a byte that is read */
_Static_assert(ASK_FOR_LINES + 2 * LEAD < AHEAD_PAGES - GROUP_PAGES, "the farthest step");
_Static_assert(ASK_FOR_LINES < PAGES_ALONE, "the farthest step where nobody helps");
_Static_assert(LEAD % GROUP_PAGES == 0, "whole groups");

static struct foreseen *foreseen_at(struct engine *engine, uint64_t page)
{
	return &engine->ahead.foreseen[page & engine->ahead.mask];
}

/* The place of the page is free for another one. Nobody works for it any more. */
static void forget(struct engine *engine, uint64_t page)
{
	struct ahead_page *ahead = ahead_page(engine, page);
	struct foreseen *foreseen = foreseen_at(engine, page);

	if (!ahead->bytes)
		return;
	foreseen->has_hash = foreseen->is_compared = foreseen->is_frame = false;
	*ahead = (struct ahead_page){ 0 };
	engine->ahead.nr_wanted--;
}

void ahead_reset(struct engine *engine)
{
	struct ahead *ahead = &engine->ahead;
	if (!ahead->region)
		return;
	helpers_settle_all(engine);
	for (uint64_t place = 0; ahead->nr_wanted; place++)
		forget(engine, place);
	engine->soon = (struct soon){ { NULL, NULL }, 0, 0 };
	ahead->region = NULL;
	ahead->lead = 0;
}

/* --- errands: of the pages of one group ---------------------------------------------------------- */

static uint64_t group_place(uint64_t page)
{
	return page % AHEAD_PAGES / GROUP_PAGES;
}

static uint8_t bit_of(uint64_t page)
{
	return (uint8_t)(1 << page % GROUP_PAGES);
}

/* Is it the first or the last of its group to take a step? */
static bool is_first(const struct engine *engine, uint64_t page)
{
	return page % GROUP_PAGES == 0 || page == engine->ahead.first;
}

static bool is_last(const struct engine *engine, uint64_t page)
{
	return page % GROUP_PAGES == GROUP_PAGES - 1 || page + 1 == engine->ahead.region->nr_pages;
}

/* Will the visit of a mergeable page need its key? */
static bool needs_key(const struct engine *engine, const struct rmap_item *item)
{
	if (item->is_settled || item->is_alias || item->state == ITEM_STABLE)
		return false;
	return !engine->smart_scan || !smart_scan_will_skip(item);
}

/* Will the visit come to a gate? It will pass it if its bytes have been there before and cannot have changed. */
static bool meets_gate(const struct engine *engine, const struct region *region, const struct rmap_item *item)
{
	bool is_frozen = region->slot->pending == LKSM_PENDING_FROZEN;
	bool bypasses = is_frozen && (!item || item->state == ITEM_UNSTABLE);
	bool is_late = engine->scan_round < engine->initial_rounds && !bypasses;
	return (engine->gate_first || is_late) && !(item && item->checksum && region->is_immutable);
}

/* A merged page is compared with its frame, unless that is known to be the same. */
static void ask_for_node(struct engine *engine, const struct region *region, uint64_t page,
			 const struct rmap_item *item)
{
	struct ahead_page *ahead = ahead_page(engine, page);
	if (region->is_immutable || item->is_private || item->is_settled)
		return;
	ahead->bytes = region_page(region, page);
	engine->ahead.nr_wanted++;
	ahead->is_merged = true;
	prefetch(node_at(engine, item->sharer.node));
}

/*
 * Has a stretch of the array mapped, if one begins with this page: before that nothing can be asked for. A fault
 * here and there, one after the other, costs half of what the same faults cost between visits.
 */
static void map_stretch(const struct region *region, uint64_t page)
{
	uint64_t first = page << region->page_shift;
	uint64_t end = region->nr_pages << region->page_shift;

	if (region->rows || first % STRETCH_BYTES)
		return;
	for (uint64_t at = first; at < end && at < first + STRETCH_BYTES; at += MAPPED_BYTES)
		(void)*(const volatile uint8_t *)(region->pages + at);
}

/* --- the steps ------------------------------------------------------------------------------------ */

/* Notes where a page is if its visit will need its key, and asks for the lines that this takes. */
static void ask_for_lines(struct engine *engine, uint64_t page)
{
	const struct region *region = engine->ahead.region;
	const struct filter *filter = engine->ahead.filter;
	struct ahead_page *ahead = ahead_page(engine, page);

	forget(engine, page);
	if ((region->flags[page] & (PAGE_MERGEABLE | PAGE_ZERO)) != PAGE_MERGEABLE || (filter && !filter_has(filter, page)))
		return;
	uint32_t ref = item_find(region, page);
	const struct rmap_item *item = ref ? item_at(&engine->items, ref) : NULL;
	if (item && item->state == ITEM_STABLE)
		ask_for_node(engine, region, page, item);
	if (item && !needs_key(engine, item))
		return;
	ahead->bytes = region_page(region, page);
	engine->ahead.nr_wanted++;
	ahead->meets_gate = meets_gate(engine, region, item);
	ahead->is_kept = ahead->has_key = item && item->has_key;
	if (ahead->is_kept) {
		ahead->key = item->key;
		return;
	}
	map_stretch(region, page);
	page_prefetch_sample(&engine->rules, ahead->bytes);
}

/* True if its whole page has to be hashed, because its sample has been deepened. */
static bool take_sample(struct engine *engine, uint64_t page)
{
	struct ahead_page *ahead = ahead_page(engine, page);

	if (!ahead->bytes || ahead->has_key || ahead->is_merged)
		return false;
	ahead->sample = ahead->key = page_take_sample(&engine->rules, ahead->bytes);
	ahead->has_key = true;
	if (engine->rules.is_sample_whole || !keyset_has(engine->ahead.deepened, ahead->sample))
		return false;
	ahead->wants_hash = true;
	return true;
}

static void take_hash(struct engine *engine, uint64_t page)
{
	struct ahead_page *ahead = ahead_page(engine, page);
	struct foreseen *foreseen = foreseen_at(engine, page);

	if (!ahead->wants_hash)
		return;
	if (!foreseen->has_hash)
		foreseen->hash = page_take_hash(&engine->rules, ahead->bytes);
	foreseen->has_hash = true;
	ahead->key = foreseen->hash;
}

static void ask_for_roots(struct engine *engine, uint64_t page)
{
	const struct trees *trees = engine->ahead.trees;
	const struct ahead_page *ahead = ahead_page(engine, page);

	if (!ahead->has_key)
		return;
	forest_prefetch_root(&trees->stable, ahead->key);
	forest_prefetch_root(&trees->unstable, ahead->key);
	forest_prefetch_root(&trees->kept, ahead->key);
}

static void ask_for_objects(struct engine *engine, uint64_t page)
{
	const struct trees *trees = engine->ahead.trees;
	const struct ahead_page *ahead = ahead_page(engine, page);

	if (!ahead->has_key)
		return;
	forest_prefetch_object(&trees->stable, ahead->key);
	forest_prefetch_object(&trees->unstable, ahead->key);
	forest_prefetch_object(&trees->kept, ahead->key);
}

/* It will be compared with this node's frame, or the first of its chain. */
static void note_node(const struct engine *engine, struct foreseen *foreseen, uint32_t ref)
{
	const struct stable_node *node = node_at(engine, ref);

	foreseen->is_frame = node->kind != NODE_PLAIN || node->is_owned;
	foreseen->other = node->kind == NODE_CHAIN ? node_at(engine, node->first_dup)->bytes : node->bytes;
}

/* The node that the page is merged with, which may have gone since it was noted; or 0. */
static uint32_t node_of(const struct engine *engine, uint64_t page)
{
	uint32_t ref = item_find(engine->ahead.region, page);
	/* untested: without memory for a frame that is copied when its lender leaves, all its pages leave it */
	bool is_merged = ref && item_at(&engine->items, ref)->state == ITEM_STABLE;
	/* untested: the same */
	return is_merged ? item_at(&engine->items, ref)->sharer.node : 0;
}

/* Finds what the page will be compared with, as it seems now: in the order in which a visit goes through the trees. */
static void find_twin(struct engine *engine, uint64_t page)
{
	const struct trees *trees = engine->ahead.trees;
	struct ahead_page *ahead = ahead_page(engine, page);
	struct foreseen *foreseen = foreseen_at(engine, page);

	if (!ahead->has_key && !ahead->is_merged)
		return;
	uint32_t ref = ahead->has_key ? forest_peek(&trees->stable, ahead->key) : 0;
	uint32_t node = ahead->is_merged ? node_of(engine, page) : ref;
	if (ahead->is_merged && !node)	/* untested: it has left its node since it was noted, see node_of() */
		return;
	foreseen->other = NULL;
	if (node)
		note_node(engine, foreseen, node);
	else
		foreseen->other = forest_peek_page(&trees->unstable, ahead->key);
	if (!foreseen->other)
		foreseen->other = forest_peek_page(&trees->kept, ahead->key);
	foreseen->is_hash = ahead->meets_gate && !foreseen->has_hash && (engine->gate_first || !ref);
	ahead->is_read = foreseen->is_hash || foreseen->other;
	if (!ahead->is_read)
		return;
	foreseen->bytes = ahead->bytes;
	foreseen->forest = ref ? &trees->stable : NULL;
	foreseen->ref = ref;
	foreseen->nr_gone = engine->nr_gone;
}

/*
 * The next page that will be read in full is asked for: while this one is read, if it is; else a portion in each visit.
 * All at once it is more than the processor can ask for at a time, and it would wait.
 */
static void ask_for_twin(struct engine *engine, uint64_t page)
{
	struct ahead *ahead = &engine->ahead;
	struct soon *soon = &engine->soon;
	uint64_t size = engine->rules.page_size, next = page + 1;
	bool is_read = ahead_page(engine, page)->is_read;

	if (is_read)
		soon_ask_all(soon, size);
	while (next < page + ASK_FOR_TWIN && !ahead_page(engine, next)->is_read)
		next++;
	if (next >= ahead->region->nr_pages || !ahead_page(engine, next)->is_read)
		return;
	if (next > ahead->asked) {
		const struct foreseen *foreseen = foreseen_at(engine, next), *now = foreseen_at(engine, page);
		bool is_compared = is_read && !now->is_hash;
		bool is_other_here = foreseen->is_hash || (is_compared && foreseen->other == now->other);
		*soon = (struct soon){ .pages = { foreseen->bytes, is_other_here ? NULL : foreseen->other },
				       .left = is_other_here ? 0 : LAST_PART };
		ahead->asked = next;
	}
	if (!is_read)
		soon_ask(soon, PORTION, size);
}

/* --- with helpers: the pages of a group together -------------------------------------------------- */

/* Of the @pages in the errand those that others do not do are left. What they write is asked for. */
static void leave_to_helpers(struct engine *engine, struct errand *errand, uint8_t *pages)
{
	unsigned others = *pages ? helpers_take_back(engine, errand) : 0;
	if (others)
		prefetch(errand->results);
	*pages &= (uint8_t)~others;
}

static void sample_for_helpers(struct engine *engine, uint64_t page)
{
	uint8_t *to_hash = &engine->ahead.to_hash[group_place(page)];

	if (is_first(engine, page))
		*to_hash = 0;
	if (take_sample(engine, page)) {
		foreseen_at(engine, page)->bytes = ahead_page(engine, page)->bytes;
		foreseen_at(engine, page)->is_hash = true;
		*to_hash |= bit_of(page);
	}
	if (*to_hash && is_last(engine, page))
		helpers_send(engine, helpers_hashes(engine, group_place(page)), *to_hash);
}

/* What others hash, or have hashed, we need not ask for. */
static void ask_for_hash(struct engine *engine, uint64_t page)
{
	uint8_t *to_hash = &engine->ahead.to_hash[group_place(page)];

	if (is_first(engine, page))
		leave_to_helpers(engine, helpers_hashes(engine, group_place(page)), to_hash);
	if (is_last(engine, page))
		prefetch(helpers_hashes(engine, group_place(page + 1)));
	if (*to_hash & bit_of(page))
		page_prefetch(&engine->rules, ahead_page(engine, page)->bytes);
}

static void settle_hash(struct engine *engine, uint64_t page)
{
	if (is_first(engine, page))
		helpers_settle(engine, helpers_hashes(engine, group_place(page)));
	take_hash(engine, page);
}

static void find_twin_for_helpers(struct engine *engine, uint64_t page)
{
	uint8_t *to_read = &engine->ahead.to_read[group_place(page)];

	if (is_first(engine, page))
		*to_read = 0;
	find_twin(engine, page);
	if (ahead_page(engine, page)->is_read)
		*to_read |= bit_of(page);
	if (*to_read && is_last(engine, page))
		helpers_send(engine, helpers_reads(engine, group_place(page)), *to_read);
}

/* What others have read, or read now, we need not. */
static void divide_reads(struct engine *engine, uint64_t page)
{
	uint8_t *to_read = &engine->ahead.to_read[group_place(page)];

	if (is_first(engine, page))
		leave_to_helpers(engine, helpers_reads(engine, group_place(page)), to_read);
	if (is_last(engine, page))
		prefetch(helpers_reads(engine, group_place(page + 1)));
	ahead_page(engine, page)->is_read = *to_read & bit_of(page);
}

static void settle_read(struct engine *engine, uint64_t page)
{
	if (is_first(engine, page))
		helpers_settle(engine, helpers_reads(engine, group_place(page)));
}

/* --- all of it ----------------------------------------------------------------------------------- */

/* If its hash is wanted, that is taken one visit later: take_hash(). */
static void sample_alone(struct engine *engine, uint64_t page)
{
	if (take_sample(engine, page))
		page_prefetch(&engine->rules, ahead_page(engine, page)->bytes);
}

typedef void (*step_function)(struct engine *engine, uint64_t page);

/* The page that is @distance ahead of @first takes the step; when that is where it begins all before it do too. */
static inline void take(struct engine *engine, step_function step, uint64_t first, uint64_t distance, bool is_beginning)
{
	for (uint64_t page = is_beginning ? first : first + distance; page <= first + distance; page++)
		if (page < engine->ahead.region->nr_pages)
			step(engine, page);
}

/* All steps that are due when @first is visited. Inlined where it begins and where it goes on: no loops are left there. */
__attribute__((always_inline)) static inline void take_steps(struct engine *engine, uint64_t first, bool is_beginning)
{
#define TAKE(step, distance) take(engine, step, first, distance, is_beginning)
	bool is_helped = engine->ahead.lead;
	TAKE(ask_for_lines, is_helped ? ASK_FOR_LINES + 2 * LEAD : ASK_FOR_LINES);
	if (is_helped) {	/* also if nothing is wanted: of each group the first page begins anew */
		TAKE(sample_for_helpers, TAKE_SAMPLE + 2 * LEAD);
		TAKE(ask_for_hash, TAKE_SAMPLE + LEAD);
		TAKE(settle_hash, ASK_FOR_ROOTS + LEAD);
		TAKE(ask_for_roots, ASK_FOR_ROOTS + LEAD);
		TAKE(ask_for_objects, ASK_FOR_OBJECTS + LEAD);
		TAKE(find_twin_for_helpers, FIND_TWIN + LEAD);
		TAKE(divide_reads, FIND_TWIN);
		settle_read(engine, first);
		ask_for_twin(engine, first);
	} else if (engine->ahead.nr_wanted) {
		TAKE(sample_alone, TAKE_SAMPLE);
		TAKE(take_hash, ASK_FOR_ROOTS);
		TAKE(ask_for_roots, ASK_FOR_ROOTS);
		TAKE(ask_for_objects, ASK_FOR_OBJECTS);
		TAKE(find_twin, FIND_TWIN);
		ask_for_twin(engine, first);
	}
#undef TAKE
}

/* The page that is to be visited was not expected: begins anew there. */
static void begin(struct engine *engine, const struct region *region, uint64_t page)
{
	const struct index *index = region->slot->index;
	struct ahead *ahead = &engine->ahead;

	ahead_reset(engine);
	ahead->region = region;
	ahead->trees = &index->trees[index_tree(index, region->node)];	/* of pages that were not moved */
	ahead->deepened = &index->deepened;
	ahead->filter = filter_in_use(region);
	ahead->lead = helpers_are_there(engine) ? LEAD : 0;
	ahead->mask = ahead->lead ? AHEAD_PAGES - 1 : PAGES_ALONE - 1;
	ahead->first = ahead->asked = page;
	take_steps(engine, page, true);
}

void ahead_of(struct engine *engine, const struct region *region, uint64_t page)
{
	struct ahead *ahead = &engine->ahead;

	/* Pages that are left out in between have been asked for as well. */
	bool is_near = region == ahead->region && page >= ahead->next &&
		       page - ahead->next <= ASK_FOR_LINES + 2 * ahead->lead;
	if (!is_near)
		begin(engine, region, page);
	for (uint64_t next = ahead->next; is_near && next <= page; next++)
		take_steps(engine, next, false);
	ahead->next = page + 1;
}
