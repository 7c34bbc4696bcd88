/*
 * test_pool.c - memory by purpose, objects by reference, and failures on demand.
 */
#include "mapped.h"

#include "harness.h"
#include "pool.h"

static void expect_nothing_reserved(const struct memory *memory)
{
	for (uint32_t i = 0; i < LKSM_NR_PURPOSES; i++)
		EXPECT_EQUAL(memory->reserved[i], 0);
}

/* Memory is zeroed and booked under its purpose, and what is freed leaves the books. */
static void test_memory_is_booked(void)
{
	struct memory memory = { 0 };
	uint8_t *bytes = memory_alloc(&memory, LKSM_FOR_KEYS, 100);
	EXPECT_EQUAL(memory.reserved[LKSM_FOR_KEYS], 100);
	EXPECT(!bytes[0] && !memcmp(bytes, bytes + 1, 99));
	memory_free(&memory, LKSM_FOR_KEYS, bytes, 100);
	memory_free(&memory, LKSM_FOR_KEYS, NULL, 100);
	expect_nothing_reserved(&memory);
}

/* Resizing keeps the bytes, and what it adds is zero. */
static void test_resize(void)
{
	struct memory memory = { 0 };
	uint8_t *bytes = memory_resize(&memory, LKSM_FOR_ROOTS, NULL, 0, 10);
	memset(bytes, 7, 10);
	bytes = memory_resize(&memory, LKSM_FOR_ROOTS, bytes, 10, 1000);
	EXPECT_EQUAL(memory.reserved[LKSM_FOR_ROOTS], 1000);
	EXPECT(bytes[9] == 7 && !bytes[10] && !memcmp(bytes + 10, bytes + 11, 989));
	bytes = memory_resize(&memory, LKSM_FOR_ROOTS, bytes, 1000, 5);
	EXPECT(bytes[4] == 7);
	EXPECT_EQUAL(memory.reserved[LKSM_FOR_ROOTS], 5);
	memory_free(&memory, LKSM_FOR_ROOTS, bytes, 5);
	expect_nothing_reserved(&memory);
}

/* Large tables lie in huge pages, small ones anywhere; both are zero and booked. */
static void test_tables(void)
{
	struct memory memory = { 0 };
	size_t sizes[] = { 1, ARENA_HUGE - 1, ARENA_HUGE, ARENA_HUGE + 4097, 3 * ARENA_HUGE };
	for (size_t i = 0; i < 5; i++) {
		uint8_t *bytes = table_alloc(&memory, LKSM_FOR_ROOTS, sizes[i]);
		EXPECT_EQUAL(memory.reserved[LKSM_FOR_ROOTS], sizes[i]);
		EXPECT(!bytes[0] && !memcmp(bytes, bytes + 1, sizes[i] - 1));
		if (i >= 2)
			EXPECT_EQUAL((uintptr_t)bytes % ARENA_HUGE, 0);
		memset(bytes, 7, sizes[i]);
		table_free(&memory, LKSM_FOR_ROOTS, bytes, sizes[i]);
		EXPECT(i < 2 || !(is_mapped_at(bytes) || is_mapped_at(bytes + sizes[i] - 1)));
		expect_nothing_reserved(&memory);
	}
	EXPECT(!table_alloc(&memory, LKSM_FOR_KEYS, SIZE_MAX));
	table_free(&memory, LKSM_FOR_KEYS, NULL, 1);
	table_free(&memory, LKSM_FOR_KEYS, NULL, ARENA_HUGE);
	memory.fail_at = memory.nr_allocations + 1;
	EXPECT(!table_alloc(&memory, LKSM_FOR_KEYS, ARENA_HUGE));
	expect_nothing_reserved(&memory);
}

static uint64_t resident_pages(void)
{
	unsigned long size = 0, resident = 0;
	FILE *statm = fopen("/proc/self/statm", "r");
	EXPECT(statm && fscanf(statm, "%lu %lu", &size, &resident) == 2);
	if (statm)
		fclose(statm);
	return resident;
}

/* Frames of any size are given back: of a GiB in all, one after the other, not half is there in the end. */
static void test_large_frames(void)
{
	struct memory memory = { 0 };
	uint64_t before = resident_pages();
	for (int i = 0; i < 512; i++) {
		uint8_t *bytes = frame_alloc(&memory, ARENA_HUGE);
		memset(bytes, 1, ARENA_HUGE);
		frame_free(&memory, bytes, ARENA_HUGE);
	}
	EXPECT(resident_pages() < before + (1 << 29) / 4096);
	expect_nothing_reserved(&memory);
}

/* The allocation asked for fails, as many after it as were asked for too, and no other. */
static void test_fail_at(void)
{
	struct memory memory = { .fail_at = 3, .fail_count = 1 };
	for (int i = 1; i <= 6; i++) {
		void *bytes = memory_alloc(&memory, LKSM_FOR_KEYS, 8);
		EXPECT_EQUAL(!bytes, i == 3 || i == 4);
		memory_free(&memory, LKSM_FOR_KEYS, bytes, 8);
	}
	EXPECT_EQUAL(memory.nr_allocations, 6);
	memory.fail_at = 7;
	memory.fail_count = 2;
	uint8_t old = 0;
	EXPECT(!memory_resize(&memory, LKSM_FOR_KEYS, &old, 1, 100));
	EXPECT(!frame_alloc(&memory, 64));
	EXPECT(!memory_alloc(&memory, LKSM_FOR_KEYS, 1));
	expect_nothing_reserved(&memory);
}

/* What the system itself refuses is refused, and not booked. */
static void test_refused_by_the_system(void)
{
	const uint64_t too_much = (uint64_t)1 << 62;
	struct memory memory = { 0 };
	EXPECT(!memory_alloc(&memory, LKSM_FOR_KEYS, too_much));
	EXPECT(!memory_resize(&memory, LKSM_FOR_KEYS, NULL, 0, too_much));
	EXPECT(!frame_alloc(&memory, too_much));
	EXPECT(!memory_alloc(&memory, LKSM_FOR_KEYS, SIZE_MAX));	/* it cannot even be rounded up */
	uint8_t *bytes = memory_alloc(&memory, LKSM_FOR_KEYS, 10);
	EXPECT(!memory_resize(&memory, LKSM_FOR_KEYS, bytes, 10, too_much));
	EXPECT_EQUAL(memory.reserved[LKSM_FOR_KEYS], 10);
	memory_free(&memory, LKSM_FOR_KEYS, bytes, 10);
	expect_nothing_reserved(&memory);
}

/* A frame is aligned to a cache line and booked as a frame. */
static void test_frames(void)
{
	struct memory memory = { 0 };
	for (uint64_t page_size = 64; page_size <= 65536; page_size *= 4) {
		uint8_t *frame = frame_alloc(&memory, page_size);
		EXPECT_EQUAL((uintptr_t)frame % LINE_SIZE, 0);
		EXPECT_EQUAL(memory.reserved[LKSM_FOR_FRAMES], page_size);
		memset(frame, 1, page_size);
		frame_free(&memory, frame, page_size);
	}
	expect_nothing_reserved(&memory);
}

/* Objects are zeroed, distinct, never 0, and given out again once destroyed. */
static void test_objects_are_reused(void)
{
	struct memory memory = { 0 };
	struct pool pool;
	static uint32_t refs[3 * POOL_CHUNK_OBJECTS];
	pool_init(&pool, &memory, LKSM_FOR_NODES, 24, 8);
	for (uint32_t i = 0; i < NR_TESTS(refs); i++) {
		refs[i] = pool_create(&pool);
		EXPECT(refs[i]);
		const uint64_t *object = pool_at(&pool, refs[i]);
		EXPECT(!object[0] && !object[1] && !object[2]);
		memset(pool_at(&pool, refs[i]), (int)i & 0xff, 24);
	}
	for (uint32_t i = 0; i < NR_TESTS(refs); i++) {
		const uint8_t *object = pool_at(&pool, refs[i]);
		EXPECT(object[0] == (i & 0xff) && !memcmp(object, object + 1, 23));
	}
	uint64_t reserved = memory.reserved[LKSM_FOR_NODES];
	for (uint32_t round = 0; round < 3; round++) {
		for (uint32_t i = round; i < NR_TESTS(refs); i += 2)
			pool_destroy(&pool, refs[i]);
		for (uint32_t i = round; i < NR_TESTS(refs); i += 2) {
			refs[i] = pool_create(&pool);
			const uint64_t *object = pool_at(&pool, refs[i]);
			EXPECT(!object[0] && !object[1] && !object[2]);
			memset(pool_at(&pool, refs[i]), 0xff, 24);
		}
	}
	EXPECT_EQUAL(memory.reserved[LKSM_FOR_NODES], reserved);
	pool_deinit(&pool);
	expect_nothing_reserved(&memory);
}

/* Whole chunks have a header and as many objects as were asked for; their ids come back. */
static void test_chunks(void)
{
	struct memory memory = { 0 };
	struct pool pool;
	uint32_t ids[100];
	pool_init(&pool, &memory, LKSM_FOR_ITEMS, 32, 16);
	for (uint32_t i = 0; i < 100; i++) {
		ids[i] = pool_chunk_create(&pool, i + 1);
		EXPECT(ids[i]);
		uint32_t last = (ids[i] << POOL_CHUNK_SHIFT) + i;
		memset(pool_header(&pool, last), 1, 16);
		memset(pool_at(&pool, last), 2, 32);
		EXPECT(pool_header(&pool, last) == pool_header(&pool, ids[i] << POOL_CHUNK_SHIFT));
	}
	EXPECT_EQUAL(pool.nr_chunks, 101);
	for (uint32_t i = 0; i < 100; i++)
		pool_chunk_destroy(&pool, ids[i], i + 1);
	for (uint32_t i = 0; i < 100; i++)
		ids[i] = pool_chunk_create(&pool, 1);
	EXPECT_EQUAL(pool.nr_chunks, 101);
	for (uint32_t i = 0; i < 100; i++)
		pool_chunk_destroy(&pool, ids[i], 1);
	pool_deinit(&pool);
	expect_nothing_reserved(&memory);
}

/* Whichever allocation of a growing pool fails, the pool is as it was and the books are right. */
static void test_growth_may_fail(void)
{
	bool has_failed = true;
	for (uint64_t n = 1; has_failed; n++) {
		struct memory memory = { .fail_at = n };
		struct pool pool;
		uint32_t ids[70];
		has_failed = false;
		pool_init(&pool, &memory, LKSM_FOR_ITEMS, 32, 16);
		for (uint32_t i = 0; i < 70; i++) {
			ids[i] = pool_chunk_create(&pool, 2);
			if (!ids[i]) {
				has_failed = true;
				ids[i] = pool_chunk_create(&pool, 2);
			}
			EXPECT(ids[i]);
		}
		for (uint32_t i = 0; i < 70; i++)
			pool_chunk_destroy(&pool, ids[i], 2);
		pool_deinit(&pool);
		expect_nothing_reserved(&memory);
	}
}

/* A pool that cannot grow says 0, and goes on when it can. */
static void test_create_may_fail(void)
{
	struct memory memory = { .fail_at = 1, .fail_count = 2 };
	struct pool pool;
	pool_init(&pool, &memory, LKSM_FOR_NODES, 16, 0);
	for (int i = 0; i < 3; i++)
		EXPECT_EQUAL(pool_create(&pool), 0);
	EXPECT(pool_create(&pool));
	pool_deinit(&pool);
	expect_nothing_reserved(&memory);
}

/* What was reserved is made without memory; a reservation that fails can be made again. */
static void test_reserve(void)
{
	struct memory memory = { 0 };
	struct pool pool;
	pool_init(&pool, &memory, LKSM_FOR_NODES, 16, 0);
	memory.fail_at = 4;		/* two tables and a chunk; then the second chunk */
	EXPECT(!pool_reserve(&pool, 2 * POOL_CHUNK_OBJECTS));
	memory.fail_at = 0;
	EXPECT(pool_reserve(&pool, 2 * POOL_CHUNK_OBJECTS));
	memory.fail_at = memory.nr_allocations + 1;
	memory.fail_count = 1000;
	for (uint32_t i = 0; i < 2 * POOL_CHUNK_OBJECTS; i++)
		EXPECT(pool_create(&pool));
	pool_deinit(&pool);
	expect_nothing_reserved(&memory);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_memory_is_booked),
		TEST(test_resize),
		TEST(test_tables),
		TEST(test_large_frames),
		TEST(test_fail_at),
		TEST(test_refused_by_the_system),
		TEST(test_frames),
		TEST(test_objects_are_reused),
		TEST(test_chunks),
		TEST(test_growth_may_fail),
		TEST(test_create_may_fail),
		TEST(test_reserve),
	};
	return run_tests(tests, NR_TESTS(tests));
}
