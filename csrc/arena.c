/*
 * arena.c - slabs, each with a bitmap of its free blocks beside it: so a slab of pages is full of pages. A slab begins at a
 * multiple of the largest slab's size, so a block's address says where its slab begins.
 */
#define _DEFAULT_SOURCE		/* anonymous memory and its huge pages are no part of C or POSIX */
#include "arena.h"

#include "memory.h"

#include <string.h>
#include <sys/mman.h>

#define MAX_SLAB ARENA_HUGE
#define MIN_SLAB ((uint64_t)1 << 16)
#define SMALL ((uint64_t)1 << 19)	/* with less in use slabs are small; to fault more in costs more than a huge page */
#define BITMAP_WORDS (MAX_SLAB / ARENA_UNIT / 64)

struct slab {
	struct slab *next;		/* of those with free blocks */
	struct slab *previous;
	uint8_t *bytes;
	uint64_t size;
	uint32_t nr_blocks;
	uint32_t nr_free;
	uint64_t free[BITMAP_WORDS];	/* by block: a bit if it is free */
};
_Static_assert(ARENA_MAX_BLOCK <= MIN_SLAB / 4, "a few blocks in the smallest slab");

void arena_init(struct arena *arena, struct memory *memory, enum lksm_purpose purpose, uint64_t block_size)
{
	assert(arena_suits(block_size));
	*arena = (struct arena){ .memory = memory, .purpose = purpose, .block_size = block_size };
}

/* --- memory of the system ---------------------------------------------------------------------- */

/* A huge page holds no byte that was not asked for. */
static uint64_t huge_part(uint64_t size)
{
	return size & ~(MAX_SLAB - 1);
}

/* Rounded up to the largest page of any system; not to a huge one, which nobody would have booked. */
static uint64_t mapped_size(uint64_t size)
{
	return (size + MIN_SLAB - 1) & ~(MIN_SLAB - 1);
}

void *arena_map(uint64_t size)
{
	uint64_t mapped = mapped_size(size), wanted = mapped + MAX_SLAB;
	if (mapped < size || wanted < mapped)
		return NULL;
	uint8_t *bytes = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			      0);
	if (bytes == MAP_FAILED)	/* untested: in test_no_memory.py, under a limit of address space */
		return NULL;
	uint64_t before = -(uintptr_t)bytes % MAX_SLAB, after = MAX_SLAB - before;
	if (before)
		munmap(bytes, before);
	if (after)		/* untested: the system decides where a mapping begins */
		munmap(bytes + before + mapped, after);
	if (huge_part(size))
		madvise(bytes + before, huge_part(size), MADV_HUGEPAGE);	/* a wish: without it all is as well */
	return bytes + before;
}

void arena_unmap(void *bytes, uint64_t size)
{
	munmap(bytes, mapped_size(size));
}

/* --- slabs ------------------------------------------------------------------------------------- */

static void link_slab(struct arena *arena, struct slab *slab)
{
	slab->previous = NULL;
	slab->next = arena->slabs;
	if (slab->next)
		slab->next->previous = slab;
	arena->slabs = slab;
}

static void unlink_slab(struct arena *arena, struct slab *slab)
{
	*(slab->previous ? &slab->previous->next : &arena->slabs) = slab->next;
	if (slab->next)
		slab->next->previous = slab->previous;
}

/* How many slabs begin before @bytes. */
static uint32_t place_of(const struct arena *arena, const uint8_t *bytes)
{
	uint32_t first = 0, last = arena->nr_slabs;
	while (first < last) {
		uint32_t middle = first + (last - first) / 2;
		if (arena->by_address[middle]->bytes < bytes)
			first = middle + 1;
		else
			last = middle;
	}
	return first;
}

/* Room to note one more slab. False if there is no memory. */
static bool reserve_place(struct arena *arena)
{
	size_t size = sizeof(*arena->by_address);
	if (arena->nr_slabs < arena->capacity)
		return true;
	uint32_t capacity = arena->capacity ? 2 * arena->capacity : 4;
	struct slab **grown = memory_resize(arena->memory, LKSM_FOR_SPARE, arena->by_address, arena->capacity * size,
					    capacity * size);
	if (!grown)
		return false;
	arena->by_address = grown;
	arena->capacity = capacity;
	return true;
}

/* The last slab takes the table of them with it. */
static void forget_table(struct arena *arena)
{
	if (arena->nr_slabs)
		return;
	memory_free(arena->memory, LKSM_FOR_SPARE, arena->by_address, arena->capacity * sizeof(*arena->by_address));
	arena->by_address = NULL;
	arena->capacity = 0;
}

/* The slab and its memory; or NULL. */
static struct slab *slab_alloc(struct arena *arena, uint64_t size)
{
	struct slab *slab = memory_alloc(arena->memory, LKSM_FOR_SPARE, sizeof(*slab));
	if (!slab)
		return NULL;
	slab->bytes = memory_may_grow(arena->memory) ? arena_map(size) : NULL;
	if (slab->bytes)
		return slab;
	memory_free(arena->memory, LKSM_FOR_SPARE, slab, sizeof(*slab));
	return NULL;
}

static struct slab *slab_create(struct arena *arena)
{
	uint64_t size = arena->nr_bytes < SMALL ? MIN_SLAB : MAX_SLAB;
	struct slab *slab = reserve_place(arena) ? slab_alloc(arena, size) : NULL;
	if (!slab) {
		forget_table(arena);
		return NULL;
	}
	arena->memory->reserved[LKSM_FOR_SPARE] += size;
	slab->size = size;
	slab->nr_blocks = (uint32_t)(size / arena->block_size);
	slab->nr_free = slab->nr_blocks;
	for (uint32_t i = 0; i < slab->nr_blocks; i++)
		slab->free[i / 64] |= (uint64_t)1 << i % 64;
	uint32_t place = place_of(arena, slab->bytes);
	struct slab **at = arena->by_address + place;
	memmove(at + 1, at, (arena->nr_slabs++ - place) * sizeof(*at));
	*at = slab;
	link_slab(arena, slab);
	return slab;
}

static void slab_destroy(struct arena *arena, struct slab *slab)
{
	uint32_t place = place_of(arena, slab->bytes);
	struct slab **at = arena->by_address + place;
	memmove(at, at + 1, (--arena->nr_slabs - place) * sizeof(*at));
	unlink_slab(arena, slab);
	arena->memory->reserved[LKSM_FOR_SPARE] -= slab->size;
	arena_unmap(slab->bytes, slab->size);
	memory_free(arena->memory, LKSM_FOR_SPARE, slab, sizeof(*slab));
	forget_table(arena);
}

/* --- blocks -------------------------------------------------------------------------------------- */

/* Books a block as in use. */
static void take(struct arena *arena)
{
	arena->nr_bytes += arena->block_size;
	arena->memory->reserved[LKSM_FOR_SPARE] -= arena->block_size;
	arena->memory->reserved[arena->purpose] += arena->block_size;
}

static void give_back(struct arena *arena)
{
	arena->nr_bytes -= arena->block_size;
	arena->memory->reserved[LKSM_FOR_SPARE] += arena->block_size;
	arena->memory->reserved[arena->purpose] -= arena->block_size;
}

void *arena_alloc(struct arena *arena)
{
	struct slab *slab = arena->slabs ? arena->slabs : slab_create(arena);
	if (!slab)
		return NULL;
	uint32_t word = 0;
	while (!slab->free[word])
		word++;
	uint32_t i = word * 64 + (uint32_t)__builtin_ctzll(slab->free[word]);
	slab->free[word] &= slab->free[word] - 1;
	if (!--slab->nr_free)
		unlink_slab(arena, slab);
	take(arena);
	return slab->bytes + i * arena->block_size;
}

void arena_free(struct arena *arena, void *block)
{
	uint64_t offset = (uintptr_t)block & (MAX_SLAB - 1);
	struct slab *slab = arena->by_address[place_of(arena, (uint8_t *)block - offset)];
	uint64_t i = offset / arena->block_size;
	assert(!(slab->free[i / 64] >> i % 64 & 1));
	slab->free[i / 64] |= (uint64_t)1 << i % 64;
	give_back(arena);
	if (!slab->nr_free++)
		link_slab(arena, slab);
	if (slab->nr_free == slab->nr_blocks)
		slab_destroy(arena, slab);
}
