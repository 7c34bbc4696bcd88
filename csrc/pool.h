/*
 * pool.h - memory for what there is much of, most of it in huge pages.
 *
 * table_*: large blocks. frame_*: the bytes of copied pages. pool_*: objects of one size named by 31-bit
 * references.
 */
#ifndef POOL_H
#define POOL_H

#include "memory.h"

/* As memory_alloc(), for tables that are entered at random: large ones lie in huge pages. */
void *table_alloc(struct memory *memory, enum lksm_purpose purpose, size_t size);
void table_free(struct memory *memory, enum lksm_purpose purpose, void *bytes, size_t size);

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
