/*
 * memory.h - blocks of any size, booked under a purpose. Only it, arena.c and pool.c ask the system for memory.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include "types.h"

/* Counts an allocation: is it not one that a test wants to fail? */
bool memory_may_grow(struct memory *memory);
/* Zeroed memory, or NULL. */
void *memory_alloc(struct memory *memory, enum lksm_purpose purpose, size_t size);
/* NULL is fine and does nothing. @size is what was asked for. */
void memory_free(struct memory *memory, enum lksm_purpose purpose, void *bytes, size_t size);
/* Grows or shrinks; new bytes are zero. NULL leaves the old block as it was. */
void *memory_resize(struct memory *memory, enum lksm_purpose purpose, void *bytes, size_t old_size,
		    size_t new_size);
/* The struct memory itself lives in the engine, which has to come from somewhere; @size is whole cache lines. */
void *memory_alloc_first(size_t size);
void memory_free_first(void *bytes);

#endif
