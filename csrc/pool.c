/*
 * pool.c - large tables, page copies, pools of objects.
 */
#include "pool.h"

#include "arena.h"

#include <stdlib.h>
#include <string.h>

void *table_alloc(struct memory *memory, enum lksm_purpose purpose, size_t size)
{
	if (size < ARENA_HUGE)
		return memory_alloc(memory, purpose, size);
	void *bytes = memory_may_grow(memory) ? arena_map(size) : NULL;
	if (bytes)
		memory->reserved[purpose] += size;
	return bytes;
}

void table_free(struct memory *memory, enum lksm_purpose purpose, void *bytes, size_t size)
{
	if (size < ARENA_HUGE) {
		memory_free(memory, purpose, bytes, size);
	} else if (bytes) {
		memory->reserved[purpose] -= size;
		arena_unmap(bytes, size);
	}
}

/* Frames of an engine are of one size, so they have an arena, if their size suits it. */
static bool is_from_arena(const struct memory *memory, uint64_t page_size)
{
	return memory->frames.block_size == page_size;
}

uint8_t *frame_alloc(struct memory *memory, uint64_t page_size)
{
	if (!memory_may_grow(memory))
		return NULL;
	if (!memory->frames.block_size && arena_suits(page_size))
		arena_init(&memory->frames, memory, LKSM_FOR_FRAMES, page_size);
	if (is_from_arena(memory, page_size))
		return arena_alloc(&memory->frames);
	uint8_t *bytes = aligned_alloc(LINE_SIZE, page_size);
	if (bytes)
		memory->reserved[LKSM_FOR_FRAMES] += page_size;
	return bytes;
}

void frame_free(struct memory *memory, uint8_t *bytes, uint64_t page_size)
{
	if (bytes && is_from_arena(memory, page_size))
		arena_free(&memory->frames, bytes);
	else
		memory_free(memory, LKSM_FOR_FRAMES, bytes, page_size);
}

static size_t chunk_size(const struct pool *pool, uint32_t nr_objects)
{
	return (size_t)nr_objects * pool->object_size;
}

void pool_init(struct pool *pool, struct memory *memory, enum lksm_purpose purpose, uint32_t object_size,
	       uint32_t header_size)
{
	*pool = (struct pool){
		.memory = memory,
		.purpose = purpose,
		.object_size = object_size,
		.header_size = header_size,
		.nr_chunks = 1,
	};
	if (arena_suits(chunk_size(pool, POOL_CHUNK_OBJECTS)))
		arena_init(&pool->arena, memory, purpose, chunk_size(pool, POOL_CHUNK_OBJECTS));
}

/* Memory for a chunk, zeroed; or NULL. Small ones would be lost in an arena. */
static uint8_t *chunk_alloc(struct pool *pool, uint32_t nr_objects)
{
	size_t size = chunk_size(pool, nr_objects);
	if (size != pool->arena.block_size)
		return memory_alloc(pool->memory, pool->purpose, size);
	uint8_t *chunk = memory_may_grow(pool->memory) ? arena_alloc(&pool->arena) : NULL;
	return chunk ? memset(chunk, 0, size) : NULL;
}

static void chunk_free(struct pool *pool, uint8_t *chunk, uint32_t nr_objects)
{
	size_t size = chunk_size(pool, nr_objects);
	if (chunk && size == pool->arena.block_size)
		arena_free(&pool->arena, chunk);
	else
		memory_free(pool->memory, pool->purpose, chunk, size);
}

/* Frees the tables. Pools whose chunks were handed out whole must have got them all back. */
void pool_deinit(struct pool *pool)
{
	for (uint32_t id = 1; id < pool->nr_chunks; id++)
		chunk_free(pool, pool->chunks[id], POOL_CHUNK_OBJECTS);
	memory_free(pool->memory, pool->purpose, pool->chunks, pool->capacity * sizeof(*pool->chunks));
	memory_free(pool->memory, pool->purpose, pool->headers, pool->capacity * (size_t)pool->header_size);
	memory_free(pool->memory, pool->purpose, pool->free_ids, pool->capacity * sizeof(*pool->free_ids));
	pool_init(pool, pool->memory, pool->purpose, pool->object_size, pool->header_size);
}

/* A table of the pool made longer, or NULL; then it is as it was. */
static void *grow_table(struct pool *pool, void *table, size_t entry_size, uint32_t capacity)
{
	return memory_resize(pool->memory, pool->purpose, table, pool->capacity * entry_size, capacity * entry_size);
}

/* The table is booked with the pool's capacity again. */
static void forget_growth(struct pool *pool, size_t entry_size, uint32_t capacity)
{
	pool->memory->reserved[pool->purpose] -= (capacity - pool->capacity) * entry_size;
}

/* Room for one more chunk id; freeing an id later never needs any. */
static bool grow_tables(struct pool *pool)
{
	if (pool->nr_chunks == POOL_MAX_CHUNKS)	/* untested: no test has two thousand million objects */
		return false;
	uint32_t capacity = pool->capacity ? pool->capacity * 2 : 16;
	uint8_t **chunks = grow_table(pool, pool->chunks, sizeof(*chunks), capacity);
	if (!chunks)
		return false;
	pool->chunks = chunks;
	uint32_t *free_ids = grow_table(pool, pool->free_ids, sizeof(*free_ids), capacity);
	if (free_ids)
		pool->free_ids = free_ids;
	uint8_t *headers = free_ids && pool->header_size ?
		grow_table(pool, pool->headers, pool->header_size, capacity) : NULL;
	if (headers)
		pool->headers = headers;
	if (!free_ids || (pool->header_size && !headers)) {
		forget_growth(pool, sizeof(*chunks), capacity);
		if (free_ids)
			forget_growth(pool, sizeof(*free_ids), capacity);
		return false;
	}
	pool->capacity = capacity;
	return true;
}

uint32_t pool_chunk_create(struct pool *pool, uint32_t nr_objects)
{
	assert(nr_objects && nr_objects <= POOL_CHUNK_OBJECTS);
	if (!pool->nr_free_ids && pool->nr_chunks >= pool->capacity && !grow_tables(pool))
		return 0;
	uint8_t *chunk = chunk_alloc(pool, nr_objects);
	if (!chunk)
		return 0;
	uint32_t id = pool->nr_free_ids ? pool->free_ids[--pool->nr_free_ids] : pool->nr_chunks++;
	pool->chunks[id] = chunk;
	if (pool->header_size)
		memset(pool_header(pool, id << POOL_CHUNK_SHIFT), 0, pool->header_size);
	return id;
}

void pool_chunk_destroy(struct pool *pool, uint32_t id, uint32_t nr_objects)
{
	chunk_free(pool, pool->chunks[id], nr_objects);
	pool->chunks[id] = NULL;
	pool->free_ids[pool->nr_free_ids++] = id;
}

/*
 * A chunk of free objects. The analyzer of gcc 12 forgets that a free object's first bytes, which are written right
 * after, are not all that knows the chunk: pool_chunk_create() has put it into the table.
 */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
static bool add_objects(struct pool *pool)
{
	uint32_t id = pool_chunk_create(pool, POOL_CHUNK_OBJECTS);
	if (!id)
		return false;
	for (uint32_t place = POOL_CHUNK_OBJECTS; place-- > 0;)
		pool_destroy(pool, (id << POOL_CHUNK_SHIFT) + place);
	return true;
}
#pragma GCC diagnostic pop

bool pool_reserve(struct pool *pool, uint64_t nr_objects)
{
	uint64_t nr_free = 0;
	for (uint32_t ref = pool->free_object; ref && nr_free < nr_objects; ref = *(uint32_t *)pool_at(pool, ref))
		nr_free++;
	for (; nr_free < nr_objects; nr_free += POOL_CHUNK_OBJECTS)
		if (!add_objects(pool))
			return false;
	return true;
}

uint32_t pool_create(struct pool *pool)
{
	if (!pool->free_object && !add_objects(pool))
		return 0;
	uint32_t ref = pool->free_object;
	uint32_t *object = pool_at(pool, ref);
	pool->free_object = *object;
	memset(object, 0, pool->object_size);
	return ref;
}

void pool_destroy(struct pool *pool, uint32_t ref)
{
	uint32_t *object = pool_at(pool, ref);
	*object = pool->free_object;
	pool->free_object = ref;
}
