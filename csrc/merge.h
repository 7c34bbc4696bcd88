/*
 * merge.h - the whole decision for one visited page, and how pages are let go.
 */
#ifndef MERGE_H
#define MERGE_H

#include "types.h"

/* Decides what becomes of a visited page, whose item is @item_ref. False if smart scan leaves the visit out. */
bool compare_and_merge(struct engine *engine, struct region *region, uint64_t page, uint32_t item_ref);
/* Takes an item out of whichever tree it is in; it is VOLATILE then. */
void detach(struct engine *engine, uint32_t item_ref);
/* Detaches and frees the item of a page that has one. */
void forget_page(struct region *region, uint64_t page);
/* Detaches and frees all items of a process, and takes its pages off the zero frame. */
void forget_pages(struct mm_slot *slot);

#endif
