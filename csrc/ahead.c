/*
 * ahead.c - steps, each so many pages ahead that a miss is hidden behind the visits in between. They must not be many more
 * where nobody helps: the sampled lines of all pages share one set of the first-level cache, and would drive each other
 * out. Who helps needs time, so then the steps in front of a task and behind it are LEAD pages apart.
 */
#include "ahead.h"

#include "chain.h"
#include "filter.h"
#include "index.h"
#include "mm_slot.h"
#include "smart_scan.h"

#define ASK_FOR_LINES 12	/* pages ahead: sampled lines are asked for */
#define TAKE_SAMPLE 9		/* they are here; if it has been deepened the whole page is asked for, or its hash */
#define ASK_FOR_ROOTS 8		/* with that the key is known, the roots are asked for */
#define ASK_FOR_OBJECTS 6	/* the objects at the roots are asked for */
#define FETCH_RESULT 5		/* what another thread has written is fetched */
#define FIND_TWIN 3		/* the object with the same key is looked for, and a compare is asked for */
#define ASK_FOR_TWIN 1		/* nobody has begun with it: its page is asked for, and the page itself */
#define LEAD 48			/* tasks that may wait */
#define PAGES_ALONE 16		/* places where nobody helps: fewer, so that they stay in the cache */
#define STRETCH_BYTES (1 << 21)	/* are mapped together */
#define MAPPED_BYTES (1 << 16)	/* of a file, by the kernel, around a byte that is read */
_Static_assert(ASK_FOR_LINES + 2 * LEAD < AHEAD_PAGES, "the farthest step");
_Static_assert(ASK_FOR_LINES < PAGES_ALONE, "the farthest step where nobody helps");

static struct foreseen *foreseen_at(struct engine *engine, uint64_t page)
{
	return &engine->helpers.foreseen[page & engine->ahead.mask];
}

/* The place of the page is free for another one; nobody works for it any more. */
static void forget(struct engine *engine, uint64_t page)
{
	struct ahead_page *ahead = ahead_page(engine, page);
	struct foreseen *foreseen = foreseen_at(engine, page);

	if (!ahead->bytes)
		return;
	helpers_settle(foreseen);
	foreseen->has_hash = foreseen->is_compared = foreseen->is_frame = false;
	*ahead = (struct ahead_page){ 0 };
	engine->ahead.nr_wanted--;
}

void ahead_reset(struct engine *engine)
{
	for (uint64_t i = 0; engine->ahead.region && i <= engine->ahead.mask; i++)
		forget(engine, i);
	engine->ahead.region = NULL;
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
	ahead->node = item->sharer.node;
	prefetch(node_at(engine, ahead->node));
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

static void take_sample(struct engine *engine, uint64_t page)
{
	struct ahead_page *ahead = ahead_page(engine, page);
	struct foreseen *foreseen = foreseen_at(engine, page);

	if (!ahead->bytes || ahead->has_key || ahead->node)
		return;
	ahead->sample = ahead->key = page_take_sample(&engine->rules, ahead->bytes);
	ahead->has_key = true;
	ahead->wants_hash = !engine->rules.is_sample_whole && keyset_has(engine->ahead.deepened, ahead->sample);
	if (!ahead->wants_hash)
		return;
	foreseen->bytes = ahead->bytes;
	if (engine->ahead.lead)
		helpers_ask(engine, foreseen, true);
	else
		page_prefetch(&engine->rules, ahead->bytes);
}

static void ask_for_roots(struct engine *engine, uint64_t page)
{
	const struct trees *trees = engine->ahead.trees;
	struct ahead_page *ahead = ahead_page(engine, page);

	if (!ahead->has_key)
		return;
	if (ahead->wants_hash) {
		struct foreseen *foreseen = foreseen_at(engine, page);
		helpers_settle(foreseen);
		if (!foreseen->has_hash)
			foreseen->hash = page_take_hash(&engine->rules, ahead->bytes);
		foreseen->has_hash = true;
		ahead->key = foreseen->hash;
	}
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

/* Finds what the page will be compared with, as it seems now: in the order in which a visit goes through the trees. */
static void find_twin(struct engine *engine, uint64_t page)
{
	const struct trees *trees = engine->ahead.trees;
	struct ahead_page *ahead = ahead_page(engine, page);
	struct foreseen *foreseen = foreseen_at(engine, page);

	if (!ahead->has_key && !ahead->node)
		return;
	uint32_t ref = ahead->has_key ? forest_peek(&trees->stable, ahead->key) : 0;
	foreseen->bytes = ahead->bytes;
	foreseen->other = NULL;
	foreseen->forest = ref ? &trees->stable : NULL;
	foreseen->ref = ref;
	foreseen->nr_gone = engine->nr_gone;
	if (ref || ahead->node)
		note_node(engine, foreseen, ref ? ref : ahead->node);
	else
		foreseen->other = forest_peek_page(&trees->unstable, ahead->key);
	if (!foreseen->other)
		foreseen->other = forest_peek_page(&trees->kept, ahead->key);
	ahead->twin = foreseen->other;
	ahead->meets_gate &= !foreseen->has_hash && (engine->gate_first || !ref);
	if (engine->ahead.lead && (ahead->meets_gate || ahead->twin))
		helpers_ask(engine, foreseen, ahead->meets_gate);
}

/* What will be read is asked for in full, unless another thread reads it. */
static void ask_for_twin(struct engine *engine, uint64_t page)
{
	const struct ahead_page *ahead = ahead_page(engine, page);

	if (engine->ahead.lead)
		prefetch(foreseen_at(engine, page + FETCH_RESULT - ASK_FOR_TWIN));
	if ((!ahead->twin && !ahead->meets_gate) || !helpers_take_back(foreseen_at(engine, page)))
		return;
	page_prefetch(&engine->rules, ahead->bytes);
	if (ahead->twin)
		page_prefetch(&engine->rules, ahead->twin);
}

/* --- all of it ----------------------------------------------------------------------------------- */

/* Takes the step for pages from @page on, before @end. */
static inline void take(struct engine *engine, void (*step)(struct engine *engine, uint64_t page), uint64_t page,
			uint64_t end)
{
	for (; page < end && page < engine->ahead.region->nr_pages; page++)
		step(engine, page);
}

/* All steps for the pages that they come to when @first is visited: for one each, or for all up to these. */
static inline void take_steps(struct engine *engine, uint64_t first, bool is_beginning)
{
	uint64_t lead = engine->ahead.lead;
#define TAKE(step, distance) take(engine, step, first + (is_beginning ? 0 : (distance)), first + (distance) + 1)
	TAKE(ask_for_lines, ASK_FOR_LINES + 2 * lead);
	if (!engine->ahead.nr_wanted)
		return;
	TAKE(take_sample, TAKE_SAMPLE + 2 * lead);
	TAKE(ask_for_roots, ASK_FOR_ROOTS + lead);
	TAKE(ask_for_objects, ASK_FOR_OBJECTS + lead);
	TAKE(find_twin, FIND_TWIN + lead);
	TAKE(ask_for_twin, ASK_FOR_TWIN);
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
