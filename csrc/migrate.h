/*
 * migrate.h - frames that have been moved to another memory node while pages are kept apart by node.
 */
#ifndef MIGRATE_H
#define MIGRATE_H

#include "types.h"

/*
 * A page that is still merged is visited: if its frame lies on another node than the tree it is filed in, it is filed
 * anew (spec 3.3 rows 1 and 3, 9.2). False if the page must leave the frame: its content is there already, in frames
 * that are full.
 */
bool migrate_visited(struct index *index, uint32_t item_ref);
/* The pages lie on that node from now on, and frames with them; see lksm_process_move(). LKSM_NO_MEMORY: none does. */
int migrate_pages(struct mm_slot *slot, uint64_t start, uint64_t stop, uint32_t memory_node);

#endif
