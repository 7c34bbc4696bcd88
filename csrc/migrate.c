/*
 * migrate.c - a frame that was moved is found out when one of its pages is visited, or when a search would let a page
 * join it. It leaves its tree for the migrate list at once, and is filed where it belongs at the next visit of one
 * of its pages: alone, as a dup of frames that are there already, or, if it has but one page, by letting that page
 * join them. Differs from the kernel: a frame that is filed anew keeps its pages even if it is full.
 */
#include "migrate.h"

#include "mm_slot.h"
#include "stable_tree.h"

bool migrate_visited(struct index *index, uint32_t item_ref)
{
	struct engine *engine = index->engine;
	uint32_t ref = item_at(&engine->items, item_ref)->sharer.node;
	const struct stable_node *node = node_at(engine, ref);
	struct look look;
	struct place place;

	if (engine->merge_across_nodes || !stable_tree_is_misplaced(index, ref))
		return true;
	if (node->kind != NODE_MIGRATING && !stable_tree_take_out(index, ref))
		return true;		/* no memory: it is misplaced until the next visit */
	index_look(index, node->bytes, &look);
	uint32_t equal = stable_tree_search(index, index_tree(index, node->memory_node), &look, &place);
	if (!equal || node->nr_sharers > 1) {
		stable_tree_file(index, ref, &look, equal, &place);	/* without memory it stays on the list */
		return true;
	}
	if (!node_has_room(engine, node_at(engine, equal)))
		return false;
	stable_tree_detach(index, item_ref);	/* the frame goes with its only page */
	stable_tree_attach(index, equal, item_ref);
	return true;
}

/* The item that stands for a page of the process, which is another one's if both have it at one address; or 0. */
static uint32_t item_of_page(const struct region *region, uint64_t page)
{
	uint32_t ref = page_is_present(region, page) ? item_find(region, page) : 0;
	uint32_t first = ref && region->is_aliased ?
		physical_find(&region->slot->index->physical, region_page(region, page)) : 0;
	return first ? first : ref;
}

int migrate_pages(struct mm_slot *slot, uint64_t start, uint64_t stop, uint32_t memory_node)
{
	struct engine *engine = slot->engine;
	uint64_t place;

	for (uint64_t page = start; page < stop; page++) {
		struct region *region = mm_slot_region(slot, page, &place);
		uint32_t ref = item_of_page(region, place);
		if (!region_reserve_nodes(region) || (ref && !region_reserve_nodes(item_region(&engine->items, ref))))
			return LKSM_NO_MEMORY;
	}
	for (uint64_t page = start; page < stop; page++) {
		struct region *region = mm_slot_region(slot, page, &place);
		uint32_t ref = item_of_page(region, place);
		region->nodes[place] = (uint8_t)memory_node;
		if (!ref)
			continue;
		const struct rmap_item *item = item_at(&engine->items, ref);
		item_region(&engine->items, ref)->nodes[item_page(&engine->items, ref)] = (uint8_t)memory_node;
		if (item->state == ITEM_STABLE && !item->is_private)
			node_at(engine, item->sharer.node)->memory_node = memory_node & UINT8_MAX;
	}
	return LKSM_OK;
}
