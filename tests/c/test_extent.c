/*
 * test_extent.c - which regions lie over the same bytes, held to comparing all with all.
 */
#include "extent.h"
#include "fixture.h"

#define MAX_PROCESSES 24
#define ARRAY_PAGES 40

/* Processes of one region each, over parts of one array. */
struct world {
	struct engine *engine;
	uint8_t *array;
	struct mm_slot *processes[MAX_PROCESSES];
};

static struct world make_world(void)
{
	struct world world = { .engine = make_engine((struct setup){ .page_size = 64 }) };
	world.array = calloc(ARRAY_PAGES, 64);
	return world;
}

static void destroy_world(struct world *world)
{
	DESTROY(world->engine);
	free(world->array);
}

static struct region *region_of(const struct mm_slot *process)
{
	return process->regions[0];
}

/* Attaches bytes @start to @stop of the array as process @i. */
static struct region *attach(struct world *world, int i, uint64_t start, uint64_t stop)
{
	world->processes[i] = make_process(world->engine, world->array + start, (stop - start) / 64, false);
	return region_of(world->processes[i]);
}

static bool overlap(const struct region *a, const struct region *b)
{
	return a->pages < b->pages + b->nr_array_pages * 64 && b->pages < a->pages + a->nr_array_pages * 64;
}

/* Extents are apart and in order, and have the regions that name them, which lie within. */
static void expect_extents(struct world *world)
{
	struct engine *engine = world->engine;
	uint32_t root = engine->indexes ? engine->indexes->extent_root : 0;
	uint64_t nr_found = 0, nr_regions = 0, before = 0;

	for (uint32_t ref = rb_first(&engine->extents, root); ref; ref = rb_next(&engine->extents, ref)) {
		const struct extent *extent = pool_at(&engine->extents, ref);
		const struct region *previous = NULL;
		EXPECT_EQUAL(extent->ref, ref);
		EXPECT(extent->start >= before && extent->end > extent->start && extent->regions);
		before = extent->end;
		for (const struct region *region = extent->regions; region; region = region->next_in_extent) {
			uint64_t start = (uint64_t)(uintptr_t)region->pages;
			EXPECT(region->extent == extent && region->previous_in_extent == previous);
			EXPECT(start >= extent->start && start + region->nr_array_pages * 64 <= extent->end);
			previous = region;
			nr_found++;
		}
	}
	for (int i = 0; i < MAX_PROCESSES; i++) {
		if (!world->processes[i])
			continue;
		const struct region *region = region_of(world->processes[i]);
		nr_regions++;
		for (int j = 0; j < i; j++) {
			const struct region *other = world->processes[j] ? region_of(world->processes[j]) : NULL;
			if (other && overlap(region, other))
				EXPECT(region->is_aliased && other->is_aliased && region->extent == other->extent);
		}
	}
	EXPECT_EQUAL(nr_found, nr_regions);
	EXPECT_SOUND(engine);
}

/* Regions that only touch are apart; any common byte makes both aliased. */
static void test_kinds_of_overlap(void)
{
	static const struct {
		uint64_t start, stop;
		bool is_aliased;
	} others[] = {
		{ 0, 640, false },	/* ends where the region begins */
		{ 1280, 1920, false },	/* begins where it ends */
		{ 640, 1280, true },	/* the same */
		{ 0, 704, true },	/* over its begin */
		{ 1216, 1920, true },	/* over its end */
		{ 704, 1216, true },	/* inside */
		{ 0, 1920, true },	/* around */
		{ 641, 705, true },	/* at no page boundary of it */
		{ 577, 641, true },	/* one byte */
	};
	for (size_t i = 0; i < NR_TESTS(others); i++) {
		struct world world = make_world();
		struct region *region = attach(&world, 0, 640, 1280);
		EXPECT(!region->is_aliased);
		struct region *other = attach(&world, 1, others[i].start, others[i].stop);
		EXPECT_EQUAL(region->is_aliased, others[i].is_aliased);
		EXPECT_EQUAL(other->is_aliased, others[i].is_aliased);
		expect_extents(&world);
		destroy_world(&world);
	}
}

/* A region over several extents joins them; what leaves does not split them again. */
static void test_bridge(void)
{
	struct world world = make_world();
	struct region *first = attach(&world, 0, 0, 640);
	attach(&world, 1, 1280, 1920);
	attach(&world, 2, 1984, 2048);
	EXPECT(first->extent != region_of(world.processes[1])->extent);
	attach(&world, 3, 576, 2048);
	expect_extents(&world);
	EXPECT(first->extent == region_of(world.processes[2])->extent);
	lksm_process_destroy(world.processes[3]);
	world.processes[3] = NULL;
	expect_extents(&world);
	EXPECT(first->is_aliased);
	destroy_world(&world);
}

/* After any attaching and exiting, overlapping regions know each other. */
static void test_random(void)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct world world = make_world();
		uint64_t random = seed;
		for (int step = 0; step < 300 && !nr_failures; step++) {
			int i = (int)(next_random(&random) % MAX_PROCESSES);
			uint64_t nr_pages = 1 + next_random(&random) % 6;
			uint64_t start = next_random(&random) % ((ARRAY_PAGES - nr_pages) * 64 + 1);
			if (next_random(&random) % 2)
				start = start / 64 * 64;
			if (world.processes[i]) {
				lksm_process_destroy(world.processes[i]);
				world.processes[i] = NULL;
			} else {
				attach(&world, i, start, start + nr_pages * 64);
			}
			expect_extents(&world);
			if (step % 50 == 0)
				full(world.engine);
		}
		destroy_world(&world);
		if (nr_failures) {
			printf("seed %" PRIu64 "\n", seed);
			return;
		}
	}
}

/* A region that is mapped later makes the items of an earlier one known by address. */
static void test_items_become_known(void)
{
	struct world world = make_world();
	attach(&world, 0, 0, 640);
	world.array[100] = 1;
	full(world.engine);
	EXPECT_COUNTERS(world.engine, 1, 8, 1);
	attach(&world, 1, 0, 1280);
	EXPECT_EQUAL(world.engine->indexes->physical.nr_items, 10);
	full(world.engine);
	EXPECT_COUNTERS(world.engine, 1, 18, 1);
	EXPECT_EQUAL(volatile_of(world.engine), 10);
	destroy_world(&world);
}

/* Mapping without memory fails as a whole, whichever allocation it is. */
static void test_map_may_fail(void)
{
	struct world world = make_world();
	struct engine *engine = world.engine;
	struct lksm_region wanted = { .pages = world.array, .nr_array_pages = 20, .nr_pages = 20 };
	attach(&world, 0, 0, 640);
	full(engine);
	for (uint64_t n = 1;; n++) {
		struct mm_slot *process = NULL;
		EXPECT_EQUAL(lksm_process_create(engine, 0, &process), LKSM_OK);
		engine->memory.fail_at = engine->memory.nr_allocations + n;
		int error = lksm_process_map(process, &wanted);
		fail_no_more(engine);
		EXPECT_EQUAL(process->nr_pages, error ? 0 : 20);
		lksm_process_destroy(process);
		expect_extents(&world);
		if (!error) {
			EXPECT(n > 4);
			break;
		}
		EXPECT_EQUAL(error, LKSM_NO_MEMORY);
	}
	destroy_world(&world);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_kinds_of_overlap),
		TEST(test_bridge),
		TEST(test_random),
		TEST(test_items_become_known),
		TEST(test_map_may_fail),
	};
	return run_tests(tests, NR_TESTS(tests));
}
