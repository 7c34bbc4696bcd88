/*
 * arena.h - blocks of one size, out of slabs that the system can back with huge pages.
 *
 * Tables of hundreds of megabytes that are entered at random cost a walk of the page tables at each step, and a page
 * fault for every 4 KiB, unless they lie in huge pages; malloc does not see to that. Slabs are small as long as little
 * is in use, and go when they are empty.
 */
#ifndef ARENA_H
#define ARENA_H

#include "types.h"

/* Zeroed memory at a multiple of ARENA_HUGE, in huge pages as far as it fills them; or NULL. */
void *arena_map(uint64_t size);
void arena_unmap(void *bytes, uint64_t size);

/* @block_size: a multiple of ARENA_UNIT up to ARENA_MAX_BLOCK. */
void arena_init(struct arena *arena, struct memory *memory, enum lksm_purpose purpose, uint64_t block_size);
/* Can blocks of that size be had here at all? */
static inline bool arena_suits(uint64_t block_size)
{
	return block_size && block_size % ARENA_UNIT == 0 && block_size <= ARENA_MAX_BLOCK;
}
/* A block, not zeroed, aligned to a unit; or NULL. */
void *arena_alloc(struct arena *arena);
void arena_free(struct arena *arena, void *block);

#endif
