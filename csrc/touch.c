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
			for (uint64_t at = 0; other->is_tracked &&
			     (at = region_next_page_at(other, bytes, at)) < other->nr_pages; at++)
				forget_look(other, at);
	}
}
