/*
 * test_physical.c - items by the address of their page, held to an array.
 */
#include "harness.h"
#include "physical.h"

#define NR_ADDRESSES 64

static uint8_t pages[NR_ADDRESSES + 1][64];
static uint64_t page_of[3 * NR_ADDRESSES];	/* by reference; several items may have one page */

static const uint8_t *bytes_of(const struct pool *pool, uint32_t ref)
{
	(void)pool;
	return pages[page_of[ref]];
}

static void expect_map(const struct physical_map *map, const uint32_t *ref_at)
{
	uint64_t nr_items = 0;
	for (uint64_t page = 0; page < NR_ADDRESSES; page++) {
		EXPECT_EQUAL(physical_find(map, pages[page]), ref_at[page]);
		nr_items += ref_at[page] != 0;
	}
	EXPECT_EQUAL(map->nr_items, nr_items);
}

/* Is a run of entries full across the end of the table? */
static bool is_wrapped(const struct physical_map *map)
{
	return map->nr_places && map->refs[map->nr_places - 1] && map->refs[0];
}

/* After any additions and removals, also of runs that wrap, every page finds its first item. */
static void test_random(void)
{
	uint64_t nr_wrapped_removals = 0;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct memory memory = { 0 };
		struct physical_map map;
		uint32_t ref_at[NR_ADDRESSES] = { 0 };
		uint64_t random = seed;
		/* At most 12 items keep the table at 16 places, where runs are long and wrap often. */
		uint64_t most = seed % 2 ? 12 : NR_ADDRESSES;
		physical_init(&map, &memory, NULL, bytes_of);
		EXPECT_EQUAL(physical_find(&map, pages[0]), 0);
		for (int step = 0; step < 500; step++) {
			uint64_t page = next_random(&random) % NR_ADDRESSES;
			uint32_t ref = 1 + (uint32_t)page + NR_ADDRESSES * (uint32_t)(next_random(&random) % 2);
			page_of[ref] = page;
			if (!ref_at[page] && map.nr_items < most) {
				EXPECT(physical_add(&map, ref));
				ref_at[page] = ref;
			} else {
				nr_wrapped_removals += is_wrapped(&map) && ref_at[page] == ref;
				physical_remove(&map, ref);	/* does nothing if another has the page */
				if (ref_at[page] == ref)
					ref_at[page] = 0;
			}
			expect_map(&map, ref_at);
		}
		EXPECT(most != 12 || map.nr_places == 16);
		physical_deinit(&map);
		EXPECT_EQUAL(memory.reserved[LKSM_FOR_PHYSICAL], 0);
		if (nr_failures) {
			printf("seed %" PRIu64 "\n", seed);
			return;
		}
	}
	EXPECT(nr_wrapped_removals > 100);
}

/* Where room has been reserved, adding needs no memory. */
static void test_reserve(void)
{
	struct memory memory = { 0 };
	struct physical_map map;
	physical_init(&map, &memory, NULL, bytes_of);
	EXPECT(physical_reserve(&map, NR_ADDRESSES));
	memory.fail_at = memory.nr_allocations + 1;
	memory.fail_count = 1000;
	for (uint32_t page = 0; page < NR_ADDRESSES; page++) {
		page_of[page + 1] = page;
		EXPECT(physical_add(&map, page + 1));
	}
	EXPECT(!physical_reserve(&map, 1000));
	for (uint32_t page = 0; page < NR_ADDRESSES; page++)
		EXPECT_EQUAL(physical_find(&map, pages[page]), page + 1);
	physical_deinit(&map);
	EXPECT_EQUAL(memory.reserved[LKSM_FOR_PHYSICAL], 0);
}

/* A map that cannot grow says so and stays as it was. */
static void test_add_may_fail(void)
{
	struct memory memory = { .fail_at = 1 };
	struct physical_map map;
	uint32_t ref_at[NR_ADDRESSES] = { 0 };
	physical_init(&map, &memory, NULL, bytes_of);
	for (uint32_t page = 0; page < NR_ADDRESSES; page++) {
		page_of[page + 1] = page;
		if (!physical_add(&map, page + 1)) {
			expect_map(&map, ref_at);
			memory.fail_at = 0;
			EXPECT(physical_add(&map, page + 1));
		}
		ref_at[page] = page + 1;
		memory.fail_at = memory.nr_allocations + 1;
	}
	expect_map(&map, ref_at);
	physical_deinit(&map);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_random),
		TEST(test_reserve),
		TEST(test_add_may_fail),
	};
	return run_tests(tests, NR_TESTS(tests));
}
