/*
 * mm_slot.h - one process: its regions, their pages and items, its merge window.
 */
#ifndef MM_SLOT_H
#define MM_SLOT_H

#include "page.h"
#include "pool.h"

struct mm_slot *mm_slot_create(struct engine *engine, uint32_t domain);
/* All items must be gone, and no page on the zero frame. */
void mm_slot_destroy(struct mm_slot *slot);
/* Frees its items, wherever they are linked: for a slot that is destroyed next, as all others are. */
void mm_slot_free_items(struct mm_slot *slot);
int mm_slot_map(struct mm_slot *slot, const struct lksm_region *region);
/* Gets ready for another domain: all that may fail. */
bool mm_slot_prepare_index(struct mm_slot *slot, const struct index *index);
/*
 * Its pages are compared with those of that domain from now on. All items must be gone, and no page on the
 * zero frame.
 */
void mm_slot_set_index(struct mm_slot *slot, struct index *index);
/* Bytes of one of its regions: the region itself and what it keeps for each page, and its items. */
uint64_t region_bytes(const struct region *region);
uint64_t region_item_bytes(const struct region *region);

/* The region that holds @page of the process, and the page's place in it. */
struct region *mm_slot_region(const struct mm_slot *slot, uint64_t page, uint64_t *place_ret);
/* A region that has a present page in this range of addresses, or NULL. Absent pages are no obstacle. */
const struct region *mm_slot_overlap(const struct mm_slot *slot, uint64_t address, uint64_t nr_pages);
/* May any page of it be merged? */
bool mm_slot_is_mergeable(const struct mm_slot *slot);
/* A scan of the slot has been completed: one more number in the merge window. */
void mm_slot_push_window(struct mm_slot *slot);

/* Sets the flags of a page but PAGE_ZERO, keeping the counts of mergeable and present pages. */
void region_set_flags(struct region *region, uint64_t page, uint8_t flags);
/* All pages that nobody has said anything of become mergeable. */
void region_join(struct region *region);
/* Room to note a memory node for each page. False if there is no memory. */
bool region_reserve_nodes(struct region *region);
/* The page is where its array says again; a copy goes with its last user. */
void region_drop_copy(struct region *region, uint64_t page);
/* Enters the items it has in the physical map, and its zero pages in theirs; from now on every visit does. */
bool region_mark_aliased(struct region *region);

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
	return pool_at(items, ref);
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
