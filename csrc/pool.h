/*
 * pool.h - where all memory of an engine comes from; with arena.c the only one to ask the system for it.
 *
 * memory_*: blocks of any size, booked under a purpose. pool_*: objects of one size named by 31-bit
 * references. frame_*: the bytes of copied pages.
 */
#ifndef POOL_H
#define POOL_H

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
/* As memory_alloc(), for tables that are entered at random: large ones lie in huge pages. */
void *table_alloc(struct memory *memory, enum lksm_purpose purpose, size_t size);
void table_free(struct memory *memory, enum lksm_purpose purpose, void *bytes, size_t size);
/* The struct memory itself lives in the engine, which has to come from somewhere; @size is whole cache lines. */
void *memory_alloc_first(size_t size);
void memory_free_first(void *bytes);

/* Room for one page, aligned to a cache line, not zeroed; or NULL. */
uint8_t *frame_alloc(struct memory *memory, uint64_t page_size);
void frame_free(struct memory *memory, uint8_t *bytes, uint64_t page_size);

void pool_init(struct pool *pool, struct memory *memory, enum lksm_purpose purpose, uint32_t object_size,
	       uint32_t header_size);
void pool_deinit(struct pool *pool);

/* Free objects for the next so many pool_create(). False if there is no memory. */
bool pool_reserve(struct pool *pool, uint64_t nr_objects);
/* A zeroed object, or 0. */
uint32_t pool_create(struct pool *pool);
void pool_destroy(struct pool *pool, uint32_t ref);

/* A zeroed chunk of up to POOL_CHUNK_OBJECTS objects that the caller hands out; its id, or 0. */
uint32_t pool_chunk_create(struct pool *pool, uint32_t nr_objects);
void pool_chunk_destroy(struct pool *pool, uint32_t id, uint32_t nr_objects);

/* The header of the chunk that holds @ref. */
static inline void *pool_header(const struct pool *pool, uint32_t ref)
{
	return pool->headers + (size_t)(ref >> POOL_CHUNK_SHIFT) * pool->header_size;
}

/* The object that @ref names; @ref must not be 0. */
static inline void *pool_at(const struct pool *pool, uint32_t ref)
{
	return pool->chunks[ref >> POOL_CHUNK_SHIFT] + (size_t)(ref & (POOL_CHUNK_OBJECTS - 1)) * pool->object_size;
}

#endif
