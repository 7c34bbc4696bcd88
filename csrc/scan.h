/*
 * scan.h - queue, cursor, budget: next page, close a slot.
 */
#ifndef SCAN_H
#define SCAN_H

#include "types.h"

/* Appends the slot, or only changes the class of one that is queued already. */
void scan_enqueue(struct mm_slot *slot, bool is_frozen);
/* Takes the slot out of the queue; a cursor on it moves to the next one. */
void scan_dequeue(struct mm_slot *slot);
/* Puts a slot that is queued, but not under the cursor, at the front of the queue. */
void scan_move_to_front(struct mm_slot *slot);
/* Unregisters the slot: the scanner knows it no more. */
void scan_remove(struct mm_slot *slot);
/* Visits up to @nr_pages pages; see lksm_scan(). */
int scan(struct engine *engine, uint64_t nr_pages, uint64_t *nr_scanned_ret);

/* Pages of the processes that wait which have not been visited since, counted to @most at most. */
uint64_t scan_nr_waiting(const struct engine *engine, uint64_t most);

#endif
