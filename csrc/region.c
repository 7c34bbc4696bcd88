/*
 * region.c - pages and their items.
 *
 * The items of 256 neighbouring pages are one block, made at the first visit of any of them, so an item
 * needs no pointer to its process and no address: both follow from its reference.
 */
#include "region.h"

#include "physical.h"

#include <string.h>

/* --- items ----------------------------------------------------------------------------------- */

uint32_t item_find(const struct region *region, uint64_t page)
{
	uint32_t id = region->blocks[page >> POOL_CHUNK_SHIFT];
	if (!id)
		return 0;
	uint32_t ref = (id << POOL_CHUNK_SHIFT) + (uint32_t)(page & (POOL_CHUNK_OBJECTS - 1));
	return item_at(&region->slot->engine->items, ref)->state == ITEM_NONE ? 0 : ref;
}

uint32_t item_create(struct region *region, uint64_t page)
{
	struct pool *items = &region->slot->engine->items;
	uint32_t *id = &region->blocks[page >> POOL_CHUNK_SHIFT];
	if (!*id) {
		*id = pool_chunk_create(items, region_block_size(region, page));
		if (!*id)
			return 0;
		struct rmap_block *block = pool_header(items, *id << POOL_CHUNK_SHIFT);
		block->region = region;
		block->first_page = (uint32_t)(page & ~(uint64_t)(POOL_CHUNK_OBJECTS - 1));
	}
	uint32_t ref = (*id << POOL_CHUNK_SHIFT) + (uint32_t)(page & (POOL_CHUNK_OBJECTS - 1));
	*item_at(items, ref) = (struct rmap_item){ .state = ITEM_VOLATILE };
	((struct rmap_block *)pool_header(items, ref))->nr_items++;
	region->nr_items++;
	region->slot->rmap_items++;
	region->slot->index->rmap_items++;
	return ref;
}

void item_destroy(struct region *region, uint64_t page)
{
	struct pool *items = &region->slot->engine->items;
	uint32_t ref = item_find(region, page);
	assert(item_at(items, ref)->state == ITEM_VOLATILE);
	if (region->is_aliased)
		physical_remove(&region->slot->index->physical, ref);
	item_at(items, ref)->state = ITEM_NONE;
	region->nr_items--;
	region->slot->rmap_items--;
	region->slot->index->rmap_items--;
	struct rmap_block *block = pool_header(items, ref);
	if (--block->nr_items)
		return;
	pool_chunk_destroy(items, ref >> POOL_CHUNK_SHIFT, region_block_size(region, page));
	region->blocks[page >> POOL_CHUNK_SHIFT] = 0;
}

/* --- pages ----------------------------------------------------------------------------------- */

void region_join(struct region *region)
{
	uint64_t nr_joined = 0;
	for (uint64_t page = 0; page < region->nr_pages; page++) {
		bool joins = !region->flags[page];
		region->flags[page] |= joins ? PAGE_MERGEABLE : 0;
		nr_joined += joins;
	}
	region->nr_mergeable += nr_joined;
}

bool region_reserve_nodes(struct region *region)
{
	if (!region->nodes) {
		region->nodes = memory_alloc(&region->slot->engine->memory, LKSM_FOR_PROCESSES, region->nr_pages);
		if (!region->nodes)
			return false;
		memset(region->nodes, region->node, region->nr_pages);
	}
	return true;
}

void region_drop_copy(struct region *region, uint64_t page)
{
	struct engine *engine = region->slot->engine;
	struct page_copy *copy = region->copies[page];
	region->copies[page] = NULL;
	if (!copy || --copy->nr_users)
		return;
	frame_free(&engine->memory, copy->bytes, engine->rules.page_size);
	memory_free(&engine->memory, LKSM_FOR_PROCESSES, copy, sizeof(*copy));
}

uint64_t region_bytes(const struct region *region)
{
	uint64_t nr_pages = region->nr_pages, bytes = sizeof(*region) + nr_pages;
	if (region->copies)
		bytes += nr_pages * sizeof(*region->copies);
	if (region->nodes)
		bytes += nr_pages;
	return bytes + region_nr_blocks(nr_pages) * sizeof(*region->blocks);
}

uint64_t region_item_bytes(const struct region *region)
{
	const struct pool *items = &region->slot->engine->items;
	uint64_t bytes = 0;
	for (uint64_t page = 0; page < region->nr_pages; page += POOL_CHUNK_OBJECTS)
		if (region->blocks[page >> POOL_CHUNK_SHIFT])
			bytes += region_block_size(region, page) * (uint64_t)items->object_size + items->header_size;
	return bytes;
}

uint64_t region_next_page_at(const struct region *region, const uint8_t *bytes, uint64_t from)
{
	uint64_t offset = (uint64_t)(uintptr_t)bytes - (uint64_t)(uintptr_t)region->pages;
	uint64_t page = offset >> region->page_shift;
	/* untested: bytes in the middle of a page, of views that overlap */
	bool is_in_array = page < region->nr_array_pages && page << region->page_shift == offset;

	if (!is_in_array && !region->copies)
		return region->nr_pages;
	if (!is_in_array || region->rows) {
		page = from;
		while (page < region->nr_pages &&
		       !(page_is_present(region, page) && region_page(region, page) == bytes))
			page++;
		return page;
	}
	/* untested: a page of the array that is behind the region */
	bool is_there = page >= from && page < region->nr_pages && page_is_present(region, page) &&
			region_page(region, page) == bytes;
	return is_there ? page : region->nr_pages;
}
