/*
 * touch.c - what was known of a tracked page is forgotten, in every process of every domain that maps its bytes.
 */
#include "touch.h"

#include "extent.h"
#include "mm_slot.h"
#include "unstable_tree.h"
#include "zero.h"

/* The page's key, that it is settled, and that it is all zeros are no longer known. */
static void forget_look(struct region *region, uint64_t page)
{
	struct pool *items = &region->slot->engine->items;
	/* untested: callers ask for pages that are there */
	uint32_t ref = page_is_present(region, page) ? item_find(region, page) : 0;

	zero_remove(region, page);
	if (!ref)
		return;
	struct rmap_item *item = item_at(items, ref);
	item->has_key = 0;
	if (item->state == ITEM_UNSTABLE && item->is_settled)
		unstable_tree_leave_kept(region->slot->index, ref);
	item->is_settled = 0;
}

/* Do the bytes of a page of @region begin within a page of those at @bytes, on either side? */
static bool is_over(const struct region *region, uint64_t page, const uint8_t *bytes)
{
	uint64_t size = (uint64_t)1 << region->page_shift;
	uint64_t distance = (uint64_t)(uintptr_t)region_page(region, page) - (uint64_t)(uintptr_t)bytes;
	/* untested: views of one array that overlap, in tests/regress/test_overlapping_views.py */
	return distance < size || -distance < size;
}

/* Pages of arrays that overlap need not begin at the same bytes: a page may lie over two of another array. */
static void forget_looks(struct region *region, const uint8_t *bytes)
{
	uint64_t first = 0, end = region->nr_pages;

	/* untested: one part of two */
	if (!region->rows && !region->copies) {
		int64_t offset = (int64_t)((uint64_t)(uintptr_t)bytes - (uint64_t)(uintptr_t)region->pages);
		int64_t page = offset >> region->page_shift;
		first = page > 0 ? (uint64_t)page : 0;
		end = page + 2 < (int64_t)end ? (uint64_t)(page + 2 > 0 ? page + 2 : 0) : end;
	}
	for (uint64_t page = first; page < end; page++)
		/* untested: a page that is gone, under one that is written */
		if (page_is_present(region, page) && is_over(region, page, bytes))
			forget_look(region, page);
}

void touch_page(struct region *region, uint64_t page)
{
	const uint8_t *bytes = page_is_present(region, page) ? region_page(region, page) : NULL;
	if (!bytes)
		return;
	if (region->is_tracked)
		forget_look(region, page);
	for (struct index *index = region->slot->engine->indexes; index; index = index->next) {
		struct region *other = NULL;
		while ((other = extent_next_overlap(index, region, other)) != NULL)
			if (other->is_tracked)
				forget_looks(other, bytes);
	}
}
