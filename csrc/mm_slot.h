/*
 * mm_slot.h - one process: its regions, its merge window.
 */
#ifndef MM_SLOT_H
#define MM_SLOT_H

#include "region.h"

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
/* Enters the items it has in the physical map, and its zero pages in theirs; from now on every visit does. */
bool region_mark_aliased(struct region *region);

#endif
