/*
 * test_arena.c - blocks out of slabs: apart, booked, given back to the system.
 */
#include "mapped.h"

#include "arena.h"
#include "harness.h"

#include <string.h>

#define NR_BLOCKS 3000

static uint64_t spare(const struct memory *memory)
{
	return memory->reserved[LKSM_FOR_SPARE];
}

/* Blocks do not overlap, are aligned to units, and are booked; little lies spare; all of it goes again. */
static void test_blocks(void)
{
	for (uint64_t units = 1; units <= 4; units++) {
		struct memory memory = { 0 };
		struct arena arena;
		static uint8_t *blocks[NR_BLOCKS];
		arena_init(&arena, &memory, LKSM_FOR_ITEMS, units * ARENA_UNIT);
		for (uint32_t i = 0; i < NR_BLOCKS; i++) {
			blocks[i] = arena_alloc(&arena);
			EXPECT((uintptr_t)blocks[i] % ARENA_UNIT == 0);
			memset(blocks[i], (int)i & 0xff, units * ARENA_UNIT);
			EXPECT_EQUAL(memory.reserved[LKSM_FOR_ITEMS], (i + 1) * units * ARENA_UNIT);
			uint64_t used = memory.reserved[LKSM_FOR_ITEMS];
			EXPECT(spare(&memory) <= used / 2 + (used <= 1 << 19 ? 65536 : ARENA_HUGE));
		}
		for (uint32_t i = 0; i < NR_BLOCKS; i++)
			EXPECT(blocks[i][0] == (i & 0xff) && !memcmp(blocks[i], blocks[i] + 1, units * ARENA_UNIT - 1));
		for (uint32_t i = 0; i < NR_BLOCKS; i += 2)
			arena_free(&arena, blocks[i]);
		uint64_t held = spare(&memory) + memory.reserved[LKSM_FOR_ITEMS];
		for (uint32_t i = 0; i < NR_BLOCKS; i += 2)
			blocks[i] = arena_alloc(&arena);
		EXPECT_EQUAL(spare(&memory) + memory.reserved[LKSM_FOR_ITEMS], held);
		for (uint32_t i = 0; i < NR_BLOCKS; i++)
			arena_free(&arena, blocks[NR_BLOCKS - 1 - i]);
		EXPECT(!spare(&memory) && !memory.reserved[LKSM_FOR_ITEMS] && !arena.slabs);
		EXPECT(!is_mapped_at(blocks[0]) && !is_mapped_at(blocks[NR_BLOCKS - 1]));
	}
}

/* A slab that cannot be had is no block, and leaves everything as it was: its note, its memory, or the table of them. */
static void test_no_memory(void)
{
	for (uint64_t fail_at = 1; fail_at <= 3; fail_at++) {
		struct memory memory = { .fail_at = fail_at };
		struct arena arena;
		arena_init(&arena, &memory, LKSM_FOR_ITEMS, ARENA_UNIT);
		EXPECT(!arena_alloc(&arena));
		EXPECT(!spare(&memory) && !arena.slabs && !arena.by_address);
		void *block = arena_alloc(&arena);
		EXPECT(block != NULL);
		arena_free(&arena, block);
		EXPECT(!spare(&memory));
	}
}

/* Nothing of a slab is lost: what lies spare beside full ones is a note of each. */
static void test_full_slabs(void)
{
	enum { MANY = 8 * 16 + 19 * 512 };	/* small slabs, then large ones */
	struct memory memory = { 0 };
	struct arena arena;
	static void *blocks[MANY];
	arena_init(&arena, &memory, LKSM_FOR_FRAMES, ARENA_UNIT);
	for (uint32_t i = 0; i < MANY; i++)
		blocks[i] = arena_alloc(&arena);
	EXPECT(spare(&memory) < 32 * 256);
	for (uint32_t i = 0; i < MANY; i++)
		arena_free(&arena, blocks[(i * 7919u) % MANY]);
	EXPECT(!spare(&memory) && !arena.nr_slabs);
}

/* Blocks of other sizes are not for an arena. */
static void test_sizes(void)
{
	EXPECT(arena_suits(4096) && arena_suits(16384));
	EXPECT(!arena_suits(0) && !arena_suits(64) && !arena_suits(4097) && !arena_suits(20480));
}

/* Memory of the system is zero, aligned, as long as was asked for, and all of it goes again. */
static void test_map(void)
{
	static const uint64_t sizes[] = { 1, 65536, ARENA_HUGE - 1, ARENA_HUGE, ARENA_HUGE + 1, 3 * ARENA_HUGE - 4096, 4 * ARENA_HUGE };
	for (uint32_t i = 0; i < NR_TESTS(sizes); i++) {
		uint64_t size = sizes[i], end = (size + 65535) & ~(uint64_t)65535;
		uint8_t *bytes = arena_map(size), *other = arena_map(size);
		EXPECT((uintptr_t)bytes % ARENA_HUGE == 0 && (uintptr_t)other % ARENA_HUGE == 0);
		EXPECT(!bytes[0] && !memcmp(bytes, bytes + 1, size - 1));
		memset(bytes, 1, size);
		memset(other, 2, size);
		EXPECT(bytes[0] == 1 && !memcmp(bytes, bytes + 1, size - 1));
		arena_unmap(bytes, size);
		EXPECT(other[0] == 2 && !memcmp(other, other + 1, size - 1));
		EXPECT(!is_mapped_at(bytes) && !is_mapped_at(bytes + size - 1) && !is_mapped_at(bytes + end - 1));
		arena_unmap(other, size);
	}
	EXPECT(!arena_map(UINT64_MAX) && !arena_map(UINT64_MAX - ARENA_HUGE + 65536) && !arena_map((uint64_t)1 << 63));
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_blocks),
		TEST(test_no_memory),
		TEST(test_full_slabs),
		TEST(test_sizes),
		TEST(test_map),
	};
	return run_tests(tests, NR_TESTS(tests));
}
