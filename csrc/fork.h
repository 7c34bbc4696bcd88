/*
 * fork.h - processes that share pages, and what a write to such a page does.
 */
#ifndef FORK_H
#define FORK_H

#include "types.h"

/* A slot over the same pages, with the same advice and no items; or NULL. */
struct mm_slot *fork_slot(struct mm_slot *parent);
/* Writes to the page, copying first what a fork made common. */
int fork_write(struct mm_slot *slot, uint64_t page, uint64_t offset, const void *bytes, uint64_t nr_bytes);

#endif
