/*
 * ahead.c - four steps, each so many pages ahead that a miss is hidden behind the visits in between. They must not be
 * many more: the sampled lines of all pages share one set of the first-level cache, and would drive each other out.
 */
#include "ahead.h"

#include "filter.h"
#include "index.h"
#include "mm_slot.h"
#include "preview.h"
#include "smart_scan.h"

#define ASK_FOR_LINES 12	/* pages ahead: sampled lines are asked for */
#define ASK_FOR_ROOTS 9		/* they are here: the key is taken, the roots are asked for */
#define ASK_FOR_OBJECTS 6	/* the objects at the roots are asked for */
#define ASK_FOR_TWIN 3		/* the page of the object with the same key is asked for, and the page itself */
#define TWIN_LINES 6	/* lines asked for of a page and its likely twin; from then on the processor sees where it goes */

void ahead_reset(struct engine *engine)
{
	engine->ahead.region = NULL;
}

/* Will the visit of a mergeable page need its key? */
static bool needs_key(const struct engine *engine, const struct rmap_item *item)
{
	if (item->is_settled || item->is_alias || item->state == ITEM_STABLE)
		return false;
	return !engine->smart_scan || !smart_scan_will_skip(item);
}

/* Notes where a page is if its visit will need its key, and asks for the lines that this takes. */
static void ask_for_lines(struct engine *engine, const struct region *region, const struct filter *filter,
			  uint64_t page)
{
	struct ahead_page *ahead = ahead_page(engine, page);

	*ahead = (struct ahead_page){ .foreseen = preview_of(engine->preview, engine->ahead.run, page) };
	if (ahead->foreseen) {
		if (ahead->foreseen->is_merged)
			return;
		ahead->bytes = ahead->foreseen->bytes;
		ahead->key = preview_filed_key(ahead->foreseen);
		ahead->is_kept = ahead->foreseen->has_key;
		ahead->has_key = true;
		return;
	}
	if ((region->flags[page] & (PAGE_MERGEABLE | PAGE_ZERO)) != PAGE_MERGEABLE || (filter && !filter_has(filter, page)))
		return;
	uint32_t ref = item_find(region, page);
	const struct rmap_item *item = ref ? item_at(&engine->items, ref) : NULL;
	if (item && !needs_key(engine, item))
		return;
	ahead->bytes = region_page(region, page);
	ahead->is_kept = ahead->has_key = item && item->has_key;
	if (ahead->is_kept)
		ahead->key = item->key;
	else
		page_prefetch_sample(&engine->rules, ahead->bytes);
}

static void ask_for_roots(const struct engine *engine, const struct trees *trees, struct ahead_page *ahead)
{
	if (!ahead->has_key)
		ahead->key = page_take_sample(&engine->rules, ahead->bytes);
	ahead->has_key = true;
	forest_prefetch_root(&trees->stable, ahead->key);
	forest_prefetch_root(&trees->unstable, ahead->key);
	forest_prefetch_root(&trees->kept, ahead->key);
}

static void ask_for_objects(const struct trees *trees, const struct ahead_page *ahead)
{
	forest_prefetch_object(&trees->stable, ahead->key);
	forest_prefetch_object(&trees->unstable, ahead->key);
	forest_prefetch_object(&trees->kept, ahead->key);
}

static void ask_for_twin(const struct engine *engine, const struct trees *trees, const struct ahead_page *ahead)
{
	const uint8_t *twin = forest_peek_page(&trees->stable, ahead->key);
	if (!twin)
		twin = forest_peek_page(&trees->unstable, ahead->key);
	if (!twin)
		twin = forest_peek_page(&trees->kept, ahead->key);
	if (!twin)
		return;
	uint64_t size = engine->rules.page_size < TWIN_LINES * LINE_SIZE ? engine->rules.page_size
									 : TWIN_LINES * LINE_SIZE;
	for (uint64_t at = 0; at < size; at += LINE_SIZE) {
		__builtin_prefetch(twin + at);
		__builtin_prefetch(ahead->bytes + at);
	}
}

/* The page that is to be visited was not expected: begins anew there. */
static void begin(struct engine *engine, const struct region *region, const struct filter *filter, uint64_t page)
{
	memset(&engine->ahead, 0, sizeof(engine->ahead));
	engine->ahead.region = region;
	engine->ahead.run = engine->preview ? preview_run(engine->preview, region) : NULL;
	for (uint64_t i = page; i < page + ASK_FOR_LINES && i < region->nr_pages; i++)
		ask_for_lines(engine, region, filter, i);
}

void ahead_of(struct engine *engine, const struct region *region, uint64_t page)
{
	const struct index *index = region->slot->index;
	const struct trees *trees = &index->trees[index_tree(index, region->node)];	/* of pages that were not moved */
	const struct filter *filter = filter_in_use(region);
	struct ahead_page *ahead;

	if (region != engine->ahead.region || page != engine->ahead.next)
		begin(engine, region, filter, page);
	engine->ahead.next = page + 1;
	if (page + ASK_FOR_LINES < region->nr_pages)
		ask_for_lines(engine, region, filter, page + ASK_FOR_LINES);
	else
		*ahead_page(engine, page + ASK_FOR_LINES) = (struct ahead_page){ 0 };
	ahead = ahead_page(engine, page + ASK_FOR_ROOTS);
	if (ahead->bytes)
		ask_for_roots(engine, trees, ahead);
	ahead = ahead_page(engine, page + ASK_FOR_OBJECTS);
	if (ahead->bytes && ahead->has_key)
		ask_for_objects(trees, ahead);
	ahead = ahead_page(engine, page + ASK_FOR_TWIN);
	bool is_compared = ahead->foreseen && ahead->foreseen->is_compared;
	if (ahead->bytes && ahead->has_key && !is_compared)
		ask_for_twin(engine, trees, ahead);
}
