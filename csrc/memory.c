/*
 * memory.c - blocks of malloc's. Every allocation of an engine, an arena's too, passes through memory_may_grow(), where
 * tests can make the Nth one fail.
 */
#include "memory.h"

#include <stdlib.h>
#include <string.h>

bool memory_may_grow(struct memory *memory)
{
	memory->nr_allocations++;
	if (!memory->fail_at || memory->nr_allocations < memory->fail_at)
		return true;
	return memory->nr_allocations > memory->fail_at + memory->fail_count;
}

void *memory_alloc(struct memory *memory, enum lksm_purpose purpose, size_t size)
{
	if (!memory_may_grow(memory))
		return NULL;
	void *bytes = calloc(1, size);
	if (bytes)
		memory->reserved[purpose] += size;
	return bytes;
}

void memory_free(struct memory *memory, enum lksm_purpose purpose, void *bytes, size_t size)
{
	if (!bytes)
		return;
	assert(memory->reserved[purpose] >= size);
	memory->reserved[purpose] -= size;
	free(bytes);
}

void *memory_resize(struct memory *memory, enum lksm_purpose purpose, void *bytes, size_t old_size,
		    size_t new_size)
{
	if (!memory_may_grow(memory))
		return NULL;
	uint8_t *resized = realloc(bytes, new_size);
	if (!resized)
		return NULL;
	if (new_size > old_size)
		memset(resized + old_size, 0, new_size - old_size);
	memory->reserved[purpose] += new_size;
	memory->reserved[purpose] -= old_size;
	return resized;
}

void *memory_alloc_first(size_t size)
{
	void *bytes = aligned_alloc(LINE_SIZE, size);	/* no two threads shall write to one line */
	return bytes ? memset(bytes, 0, size) : NULL;
}

void memory_free_first(void *bytes)
{
	free(bytes);
}
