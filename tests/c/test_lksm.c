/*
 * test_lksm.c - the boundary: what is refused, with a text, and leaves everything as it was.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L	/* posix_memalign() */
#endif
#include "fixture.h"

/* Options outside their range make no engine. */
static void test_options(void)
{
	static const struct {
		uint64_t page_size, max_page_sharing;
		uint32_t merge_window, nr_nodes;
		bool has_hash;
		int error;
	} cases[] = {
		{ 4096, 256, 3, 1, true, LKSM_OK },
		{ 64, 2, 1, 1, true, LKSM_OK },
		{ 64, 2, 16, 1, true, LKSM_OK },
		{ 0, 256, 3, 1, true, LKSM_INVALID },
		{ 32, 256, 3, 1, true, LKSM_INVALID },
		{ 4095, 256, 3, 1, true, LKSM_INVALID },
		{ 96, 256, 3, 1, true, LKSM_INVALID },
		{ (uint64_t)1 << 31, 256, 3, 1, true, LKSM_INVALID },
		{ 4096, 1, 3, 1, true, LKSM_INVALID },
		{ 4096, 0, 3, 1, true, LKSM_INVALID },
		{ 4096, 256, 0, 1, true, LKSM_INVALID },
		{ 4096, 256, 17, 1, true, LKSM_INVALID },
		{ 4096, 256, 3, 256, true, LKSM_OK },
		{ 4096, 256, 3, 0, true, LKSM_INVALID },
		{ 4096, 256, 3, 257, true, LKSM_INVALID },
		{ 4096, 256, 3, 1, false, LKSM_INVALID },
	};
	for (size_t i = 0; i < NR_TESTS(cases); i++) {
		struct engine *engine = NULL;
		struct lksm_options options = {
			.page_size = cases[i].page_size,
			.max_page_sharing = cases[i].max_page_sharing,
			.merge_window = cases[i].merge_window,
			.nr_nodes = cases[i].nr_nodes,
			.hash = cases[i].has_hash ? strong_hash : NULL,
			.secret = secret_of(0),
			.digest_secret = secret_of(0),
			.secret_size = XXH3_SECRET_DEFAULT_SIZE,
		};
		EXPECT_EQUAL(lksm_engine_create(&options, &engine), cases[i].error);
		EXPECT_EQUAL(engine != NULL, !cases[i].error);
		if (engine)
			lksm_engine_destroy(engine);
	}
}

/* The limit is kept while pages are shared. Row 26. */
static void test_026_limit_is_guarded(void)
{
	struct engine *engine = make_engine((struct setup){ .max_page_sharing = 256 });
	uint8_t *pages = make_pages(engine, "aa");
	make_process(engine, pages, 2, false);
	full(engine);
	EXPECT_EQUAL(lksm_set_max_page_sharing(engine, 5), LKSM_BUSY);
	EXPECT(strstr(lksm_error_text(engine), "1 pages are shared") != NULL);
	EXPECT_EQUAL(lksm_set_max_page_sharing(engine, 256), LKSM_OK);
	lksm_unmerge(engine);
	EXPECT_EQUAL(lksm_set_max_page_sharing(engine, 1), LKSM_INVALID);
	EXPECT_EQUAL(engine->max_page_sharing, 256);
	EXPECT_EQUAL(lksm_set_max_page_sharing(engine, 5), LKSM_OK);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 0);
	DESTROY(engine);
	free(pages);
}

/* Without rows a region has no more pages than its array; with rows its array may even be empty. */
static void test_array_is_long_enough(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "abc");
	int64_t rows[2] = { -1, -1 };
	struct lksm_region region = { .pages = pages, .nr_array_pages = 2, .nr_pages = 3 };
	struct mm_slot *process = make_process(engine, pages, 3, false);
	region.address = 256 * 10;
	EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_INVALID);
	region.rows = rows;
	region.nr_pages = 2;
	region.nr_array_pages = 0;
	for (int i = 0; i < 3; i++) {
		region.address = 256 * (20 + 10 * (uint64_t)i);
		region.pages = pages + 256 * i;
		EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_OK);
	}
	EXPECT_PICTURE(process, "abc------");
	struct mm_slot *second = make_process(engine, pages, 3, false);
	EXPECT(second->regions[0]->is_aliased && process->regions[0]->is_aliased);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 3);
	DESTROY(engine);
	free(pages);
}

/* Pages that are not there cannot be asked about. */
static void test_pages_out_of_range(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "abc");
	struct mm_slot *process = make_process(engine, pages, 3, false);
	struct lksm_explanation explanation = { .frame = 77 };
	uint64_t digest = 77, nr_scanned = 77;
	EXPECT_EQUAL(lksm_explain(process, 3, false, &explanation), LKSM_INVALID);
	EXPECT_EQUAL(explanation.frame, 77);
	EXPECT_EQUAL(lksm_page_digest(process, 3, &digest), LKSM_INVALID);
	EXPECT_EQUAL(digest, 77);
	EXPECT_EQUAL(lksm_page_digest(process, 2, &digest), LKSM_OK);
	EXPECT_EQUAL(digest, XXH3_64bits(pages + 512, 256));
	EXPECT_EQUAL(lksm_process_advise(process, 0, 4, true), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_advise(process, 2, 1, true), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_advise(process, 3, 3, true), LKSM_OK);
	EXPECT_EQUAL(lksm_scan(engine, 10, 0, &nr_scanned), LKSM_INVALID);	/* no round has begun */
	EXPECT_EQUAL(nr_scanned, 77);
	DESTROY(engine);
	free(pages);
}

/* What a content is worth to each process, by groups and by matrix, adds up to the counters. */
static void test_groups_and_matrix(void)
{
	struct engine *engine = make_engine((struct setup){ .max_page_sharing = 3 });
	static const char *const pictures[] = { "aab0", "abbb", "0cad" };
	uint8_t *arrays[3];
	int64_t matrix[9];
	struct lksm_group groups[3];
	for (int i = 0; i < 3; i++) {
		arrays[i] = make_pages(engine, pictures[i]);
		make_process(engine, arrays[i], 4, i == 2);
	}
	full(engine);
	/* Four a: three in a frame, the last alone outside. Four b the same. */
	EXPECT_COUNTERS(engine, 3, 5, 4);
	EXPECT_EQUAL(lksm_nr_groups(engine, -1, 2), 3);
	EXPECT_EQUAL(lksm_nr_groups(engine, -1, 3), 2);
	EXPECT_EQUAL(lksm_nr_groups(engine, 1, 1), 0);
	lksm_groups(engine, -1, 2, true, groups);
	for (int i = 0; i < 3; i++) {
		EXPECT_EQUAL(groups[i].processes, 2);
		EXPECT_EQUAL(groups[i].first_process, 0);
		EXPECT_EQUAL(groups[i].is_zero, groups[i].pages == 2);
		EXPECT_EQUAL(groups[i].digest, XXH3_64bits(arrays[0] + 256 * groups[i].first_page, 256));
	}
	EXPECT_EQUAL(lksm_sharing_matrix(engine, matrix), LKSM_OK);
	static const int64_t expected[9] = { 4, 3, 1, 3, 3, 0, 1, 0, 1 };
	for (int i = 0; i < 9; i++)
		EXPECT_EQUAL(matrix[i], expected[i]);
	DESTROY(engine);
	for (int i = 0; i < 3; i++)
		free(arrays[i]);
}

/* Groups of one domain only, of the size asked for, and without reading their pages. */
static void test_groups_of_a_domain(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aaabbc"), *others = make_pages(engine, "dd");
	char text[100];
	make_process_at(engine, pages, 6, 0, 0, false);
	make_process_at(engine, others, 2, 0, 7, false);
	full(engine);
	full(engine);
	EXPECT_EQUAL(lksm_nr_groups(engine, 7, 1), 1);
	EXPECT_EQUAL(lksm_nr_groups(engine, 0, 3), 1);
	struct lksm_group groups[2] = { { .pages = -1 }, { .pages = -1 } };
	EXPECT_EQUAL(lksm_groups(engine, 7, 2, false, groups), 1);
	int64_t frame_of_seven = groups[0].frame;
	EXPECT(groups[0].pages == 2 && groups[0].digest == 0 && groups[1].pages == -1);
	EXPECT_EQUAL(lksm_groups(engine, 0, 3, false, groups), 1);
	EXPECT(groups[0].pages == 3 && groups[1].pages == -1);
	EXPECT_EQUAL(lksm_find(engine, 7, others), frame_of_seven);
	EXPECT_EQUAL(lksm_find(engine, 8, others), LKSM_ENTRY_ABSENT);
	EXPECT_EQUAL(lksm_check(engine, text, sizeof(text)), 0);
	DESTROY(engine);
	free(pages);
	free(others);
}

/* Bytes are found where pages that have them are filed: in a frame, alone, kept or not, or as zeros. */
static void test_find(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aab0"), *still = make_pages(engine, "c"), *others = make_pages(engine, "d0");
	struct mm_slot *process = make_process(engine, pages, 4, false);
	EXPECT_EQUAL(lksm_find(engine, 0, pages + 3 * 256), LKSM_ENTRY_ABSENT);
	lksm_set_use_zero_pages(engine, true);
	make_process(engine, still, 1, true);
	full(engine);
	struct lksm_counters before = counters_of(engine);
	EXPECT_EQUAL(lksm_find(engine, 0, pages), frame_of(process, 0));
	EXPECT(frame_of(process, 0) >= 0);
	EXPECT_EQUAL(lksm_find(engine, 0, pages + 2 * 256), LKSM_ENTRY_PRIVATE);
	EXPECT_EQUAL(lksm_find(engine, 0, still), LKSM_ENTRY_PRIVATE);
	EXPECT_EQUAL(lksm_find(engine, 0, others), LKSM_ENTRY_ABSENT);
	EXPECT_EQUAL(lksm_find(engine, 0, others + 256), LKSM_ENTRY_ZERO);
	EXPECT_EQUAL(counters_of(engine).bytes_compared, before.bytes_compared);
	EXPECT_COUNTERS(engine, 1, 1, 2);
	DESTROY(engine);
	free(pages);
	free(still);
	free(others);
}

/*
 * A process that the cursor comes to is counted in its round, and a page that leaves others in its frame for
 * its process.
 */
static void test_what_a_scan_counts(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aaa"), *others = make_pages(engine, "ab");
	struct mm_slot *process = make_process(engine, pages, 3, false);
	make_process(engine, others, 2, false);
	full(engine);
	EXPECT_EQUAL(counters_of(engine).nr_begun_slots, 2);
	EXPECT_EQUAL(write_page(process, 1, 'x'), LKSM_OK);
	lksm_begin_round(engine, 0);
	EXPECT_EQUAL(counters_of(engine).nr_begun_slots, 0);
	enqueue_all(engine);
	EXPECT_EQUAL(scan_pages(engine, 2), 2);
	EXPECT_EQUAL(counters_of(engine).nr_begun_slots, 1);
	EXPECT_EQUAL(process->broken, 1);
	scan_to_end(engine);
	EXPECT_EQUAL(process->broken, 0);	/* since its last scan */
	DESTROY(engine);
	free(pages);
	free(others);
}

/* A process stays in its domain if there is no memory to tell aliases in the other one apart. */
static void test_a_domain_without_memory_for_aliases(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aab");
	struct mm_slot *mover = make_process_at(engine, pages, 3, 0, 1, false);
	make_process_at(engine, pages, 3, 0, 2, false);
	full(engine);
	for (int fails = 1; fails >= 0; fails--) {
		if (fails)
			fail_next(engine, 0);
		EXPECT_EQUAL(lksm_process_set_domain(mover, 2), fails ? LKSM_NO_MEMORY : LKSM_OK);
		EXPECT_EQUAL(mover->index->domain, fails ? 1 : 2);
		EXPECT_SOUND(engine);
		fail_no_more(engine);
	}
	DESTROY(engine);
	free(pages);
}

static bool has_no_memory;

/* In the place of C's: only an engine is asked for in this way. */
void *aligned_alloc(size_t alignment, size_t size)
{
	void *bytes = NULL;
	return has_no_memory || posix_memalign(&bytes, alignment, size) ? NULL : bytes;
}

/* The first allocation of all, before there is an engine that could make it fail. */
static void test_no_memory_for_an_engine(void)
{
	struct lksm_options options = {
		.page_size = 4096,
		.max_page_sharing = UNLIMITED,
		.merge_window = 3,
		.nr_nodes = 1,
		.hash = strong_hash,
		.secret = secret_of(0),
		.digest_secret = secret_of(0),
		.secret_size = XXH3_SECRET_DEFAULT_SIZE,
	};
	struct engine *engine = NULL;
	has_no_memory = true;
	EXPECT_EQUAL(lksm_engine_create(&options, &engine), LKSM_NO_MEMORY);
	EXPECT(!engine);
	has_no_memory = false;
	EXPECT_EQUAL(lksm_engine_create(&options, &engine), LKSM_OK);
	DESTROY(engine);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_options),
		TEST(test_no_memory_for_an_engine),
		TEST(test_026_limit_is_guarded),
		TEST(test_array_is_long_enough),
		TEST(test_pages_out_of_range),
		TEST(test_groups_and_matrix),
		TEST(test_groups_of_a_domain),
		TEST(test_find),
		TEST(test_what_a_scan_counts),
		TEST(test_a_domain_without_memory_for_aliases),
	};
	return run_tests(tests, NR_TESTS(tests));
}
