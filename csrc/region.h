/*
 * region.h - a run of pages of one process, and their items.
 */
#ifndef REGION_H
#define REGION_H

#include "page.h"
#include "pool.h"

/* Blocks of so many pages. */
static inline uint64_t region_nr_blocks(uint64_t nr_pages)
{
	return (nr_pages + POOL_CHUNK_OBJECTS - 1) >> POOL_CHUNK_SHIFT;
}

/* Items in the block that holds @page's. */
static inline uint32_t region_block_size(const struct region *region, uint64_t page)
{
	uint64_t left = region->nr_pages - (page & ~(uint64_t)(POOL_CHUNK_OBJECTS - 1));
	return left < POOL_CHUNK_OBJECTS ? (uint32_t)left : POOL_CHUNK_OBJECTS;
}

/* Bytes of a region: the region itself and what it keeps for each page, and its items. */
uint64_t region_bytes(const struct region *region);
uint64_t region_item_bytes(const struct region *region);

/* All pages that nobody has said anything of become mergeable. */
void region_join(struct region *region);
/* Room to note a memory node for each page. False if there is no memory. */
bool region_reserve_nodes(struct region *region);
/* The page is where its array says again; a copy goes with its last user. */
void region_drop_copy(struct region *region, uint64_t page);
/* The first page of @region from @from on whose bytes are at @bytes, or nr_pages. */
uint64_t region_next_page_at(const struct region *region, const uint8_t *bytes, uint64_t from);

/* The item of a page, or 0 if it has none. */
uint32_t item_find(const struct region *region, uint64_t page);
/* A new VOLATILE item for a page that has none, or 0. */
uint32_t item_create(struct region *region, uint64_t page);
/* The item must be VOLATILE. */
void item_destroy(struct region *region, uint64_t page);

/* Does a page of it stay as it was looked at, unless we are told? */
static inline bool region_holds_still(const struct region *region)
{
	return region->is_immutable || region->is_tracked;
}

static inline bool page_is_present(const struct region *region, uint64_t page)
{
	return !(region->flags[page] & PAGE_UNMAPPED);
}

/* The memory node that a page's own bytes lie on. */
static inline uint32_t page_node(const struct region *region, uint64_t page)
{
	return region->nodes ? region->nodes[page] : region->node;
}

/* Where the bytes of a page are. Not for rows that are absent. */
static inline const uint8_t *region_page(const struct region *region, uint64_t page)
{
	if (region->copies && region->copies[page])
		return region->copies[page]->bytes;
	uint64_t row = region->rows ? (uint64_t)region->rows[page] : page;
	return region->pages + (row << region->page_shift);
}

static inline struct rmap_item *item_at(const struct pool *items, uint32_t ref)
{
	/* pool_at(), but for a size that the compiler knows. */
	return (struct rmap_item *)items->chunks[ref >> POOL_CHUNK_SHIFT] + (ref & (POOL_CHUNK_OBJECTS - 1));
}

static inline struct region *item_region(const struct pool *items, uint32_t ref)
{
	return ((const struct rmap_block *)pool_header(items, ref))->region;
}

/* The item's page in its region. */
static inline uint64_t item_page(const struct pool *items, uint32_t ref)
{
	const struct rmap_block *block = pool_header(items, ref);
	return block->first_page + (ref & (POOL_CHUNK_OBJECTS - 1));
}

/* The memory node that the item's page lies on, unless it is merged. */
static inline uint32_t item_node(const struct pool *items, uint32_t ref)
{
	return page_node(item_region(items, ref), item_page(items, ref));
}

/* Where the bytes of the item's page are. */
static inline const uint8_t *item_bytes(const struct pool *items, uint32_t ref)
{
	const struct rmap_block *block = pool_header(items, ref);
	return region_page(block->region, block->first_page + (ref & (POOL_CHUNK_OBJECTS - 1)));
}

#endif
