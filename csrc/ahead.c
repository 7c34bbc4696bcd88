/*
 * ahead.c - the links of the chain, each for a whole window.
 */
#include "ahead.h"

#include "index.h"
#include "mm_slot.h"
#include "smart_scan.h"

#define TWIN_LINES 6	/* lines asked for of a page and its likely twin; from then on the processor sees where it goes */

void ahead_reset(struct engine *engine)
{
	memset(&engine->ahead, 0, sizeof(engine->ahead));
}

/* Notes where a page is if its visit will need its key, and asks for the lines that this takes. */
static void ask_for_lines(struct engine *engine, const struct region *region, uint64_t page)
{
	struct ahead *ahead = &engine->ahead;
	uint64_t i = page % (2 * AHEAD_PAGES);

	ahead->pages[i].bytes = NULL;
	ahead->pages[i].is_kept = false;
	if ((region->flags[page] & (PAGE_MERGEABLE | PAGE_ZERO)) != PAGE_MERGEABLE)
		return;
	uint32_t ref = item_find(region, page);
	const struct rmap_item *item = ref ? item_at(&engine->items, ref) : NULL;
	if (item && (item->is_settled || item->is_alias || item->state == ITEM_STABLE || (engine->smart_scan && smart_scan_will_skip(item))))
		return;
	ahead->pages[i].bytes = region_page(region, page);
	ahead->pages[i].is_kept = item && item->has_key;
	if (ahead->pages[i].is_kept)
		ahead->pages[i].key = item->key;
	else
		page_prefetch_sample(&engine->rules, ahead->pages[i].bytes);
}

static void ask_for_twin(const struct engine *engine, const struct trees *trees, const uint8_t *bytes, uint64_t key)
{
	const uint8_t *twin = forest_peek(&trees->stable, key);
	if (!twin)
		twin = forest_peek(&trees->unstable, key);
	if (!twin)
		twin = forest_peek(&trees->kept, key);
	if (!twin)
		return;
	uint64_t size = engine->rules.page_size < TWIN_LINES * LINE_SIZE ? engine->rules.page_size
									 : TWIN_LINES * LINE_SIZE;
	for (uint64_t at = 0; at < size; at += LINE_SIZE) {
		__builtin_prefetch(twin + at);
		__builtin_prefetch(bytes + at);
	}
}

void ahead_look(struct engine *engine, const struct region *region, uint64_t page)
{
	struct ahead *ahead = &engine->ahead;
	const struct index *index = region->slot->index;
	const struct trees *trees = &index->trees[index_tree(index, region->node)];	/* of pages that were not moved */
	uint64_t end = page + AHEAD_PAGES < region->nr_pages ? page + AHEAD_PAGES : region->nr_pages;
	bool goes_on = region == ahead->region && page == ahead->end;

	for (uint64_t i = page; !goes_on && i < end; i++)
		ask_for_lines(engine, region, i);
	for (uint64_t i = end; i < end + AHEAD_PAGES && i < region->nr_pages; i++)
		ask_for_lines(engine, region, i);
	ahead->region = region;
	ahead->end = end;

	uint64_t first = page % (2 * AHEAD_PAGES), nr_pages = end - page;
#define EACH_PAGE (uint64_t i = first, n = nr_pages; n--; i = (i + 1) % (2 * AHEAD_PAGES))
	for EACH_PAGE {
		if (!ahead->pages[i].bytes)
			continue;
		if (!ahead->pages[i].is_kept)
			ahead->pages[i].key = page_sample(&engine->rules, ahead->pages[i].bytes);
		forest_prefetch_root(&trees->stable, ahead->pages[i].key);
		forest_prefetch_root(&trees->unstable, ahead->pages[i].key);
		forest_prefetch_root(&trees->kept, ahead->pages[i].key);
	}
	for EACH_PAGE {
		if (!ahead->pages[i].bytes)
			continue;
		forest_prefetch_object(&trees->stable, ahead->pages[i].key);
		forest_prefetch_object(&trees->unstable, ahead->pages[i].key);
		forest_prefetch_object(&trees->kept, ahead->pages[i].key);
	}
	for EACH_PAGE
		if (ahead->pages[i].bytes)
			ask_for_twin(engine, trees, ahead->pages[i].bytes, ahead->pages[i].key);
}
