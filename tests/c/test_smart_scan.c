/*
 * test_smart_scan.c - which visits are left out, what a left-out visit does, and what it does not cost.
 */
#include "fixture.h"

/* The visits that are made of a page that never merges, as far as 50; then every ninth. */
static bool is_made(uint64_t visit)
{
	static const uint64_t made[] = { 1, 2, 3, 4, 6, 9, 14, 23, 32, 41, 50 };
	for (size_t i = 0; i < NR_TESTS(made); i++)
		if (visit == made[i])
			return true;
	return visit > 50 && (visit - 50) % 9 == 0;
}

static struct engine *make_smart_engine(struct setup setup)
{
	struct engine *engine = make_engine(setup);
	lksm_set_smart_scan(engine, true);
	return engine;
}

/* One process of different pages, each equal to none of the letters. */
static struct mm_slot *make_unique(struct engine *engine, uint64_t nr_pages, uint8_t **pages_ret)
{
	uint64_t page_size = engine->rules.page_size;
	*pages_ret = malloc(nr_pages * page_size);
	for (uint64_t i = 0; i < nr_pages; i++)
		memset(*pages_ret + i * page_size, 200 + (int)i, page_size);
	return make_process(engine, *pages_ret, nr_pages, false);
}

/* A unique page is visited at visits 1, 2, 3, 4, 6, 9, 14, 23, 32, 41, 50; the rest is counted. Row 95. */
static void test_095_schedule(void)
{
	for (int gate_first = 0; gate_first < 2; gate_first++) {
		struct engine *engine = make_smart_engine((struct setup){ .gate_first = gate_first });
		uint8_t *pages = make_pages(engine, "u");
		make_process(engine, pages, 1, false);
		uint64_t nr_made = 0;
		for (uint64_t visit = 1; visit <= 600; visit++) {	/* ages end at 255 */
			nr_made += is_made(visit);
			EXPECT_EQUAL(full(engine), is_made(visit));
			EXPECT_EQUAL(counters_of(engine).round_pages, is_made(visit));
			EXPECT_EQUAL(counters_of(engine).pages_scanned, nr_made);
			EXPECT_EQUAL(counters_of(engine).pages_skipped, visit - nr_made);
			/* What is skipped is in no tree. */
			EXPECT_COUNTERS(engine, 0, 0, is_made(visit) && !(gate_first && visit == 1));
			EXPECT_EQUAL(counters_of(engine).rmap_items, 1);
		}
		DESTROY(engine);
		free(pages);
	}
}

/* While the knob is off every visit is made and no page gets older. */
static void test_off(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "u");
	struct mm_slot *process = make_process(engine, pages, 1, false);
	for (int i = 0; i < 20; i++)
		EXPECT_EQUAL(full(engine), 1);
	EXPECT_EQUAL(item_of(process, 0)->age, 0);
	lksm_set_smart_scan(engine, true);
	for (uint64_t visit = 1; visit <= 10; visit++)
		EXPECT_EQUAL(full(engine), is_made(visit));
	/* Off and on again: it goes on where it was. */
	lksm_set_smart_scan(engine, false);
	for (int i = 0; i < 20; i++)
		EXPECT_EQUAL(full(engine), 1);
	EXPECT_EQUAL(item_of(process, 0)->age, 10);
	lksm_set_smart_scan(engine, true);
	for (uint64_t visit = 11; visit <= 25; visit++)
		EXPECT_EQUAL(full(engine), is_made(visit));
	DESTROY(engine);
	free(pages);
}

/* A merged page is never skipped and does not get older; written, it is a page like others again. Row 95. */
static void test_095_merged_pages_are_not_skipped(void)
{
	for (int is_plain = 0; is_plain < 2; is_plain++) {
		struct engine *engine = make_smart_engine((struct setup){ 0 });
		uint8_t *pages = make_pages(engine, "u"), *twins = make_pages(engine, "aaa");
		struct mm_slot *process = make_process(engine, pages, 1, false);
		for (uint64_t visit = 1; visit <= 13; visit++)
			full(engine);
		struct mm_slot *other = make_process(engine, twins, 3, false);
		fill_page(engine, pages, 'a');
		EXPECT_EQUAL(full(engine), 4);		/* visit 14 of the first page is made: it merges */
		EXPECT_COUNTERS(engine, 1, 3, 0);
		EXPECT_EQUAL(item_of(process, 0)->age, 14);
		EXPECT_EQUAL(item_of(process, 0)->remaining_skips, 8);
		uint64_t nr_skipped = counters_of(engine).pages_skipped;
		for (int i = 0; i < 20; i++)
			EXPECT_EQUAL(full(engine), 4);
		EXPECT_EQUAL(counters_of(engine).pages_skipped, nr_skipped);
		EXPECT_EQUAL(item_of(process, 0)->age, 14);
		EXPECT_EQUAL(item_of(other, 0)->age, 1);

		/* Skipped for eight visits, it leaves its frame at the first of them. */
		if (is_plain)
			fill_page(engine, pages, 'b');
		else
			EXPECT_EQUAL(write_page(process, 0, 'b'), LKSM_OK);
		for (int i = 0; i < 8; i++) {
			EXPECT_EQUAL(full(engine), 3);
			EXPECT_COUNTERS(engine, 1, 2, 0);
			EXPECT_EQUAL(volatile_of(engine), 1);
			EXPECT_EQUAL(counters_of(engine).broken, 1);
		}
		EXPECT_EQUAL(full(engine), 4);
		EXPECT_COUNTERS(engine, 1, 2, 1);
		DESTROY(engine);
		free(pages), free(twins);
	}
}

/* A skipped page leaves the unstable tree of this round too, so nothing merges with it. */
static void test_skipped_page_is_no_twin(void)
{
	struct engine *engine = make_smart_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "u"), *late = make_pages(engine, "u");
	make_process(engine, pages, 1, false);
	for (int visit = 1; visit <= 4; visit++)
		full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 1);
	make_process(engine, late, 1, false);
	EXPECT_EQUAL(full(engine), 1);		/* visit 5 is left out */
	EXPECT_COUNTERS(engine, 0, 0, 1);
	EXPECT_EQUAL(volatile_of(engine), 1);
	EXPECT_EQUAL(full(engine), 2);
	EXPECT_COUNTERS(engine, 1, 1, 0);

	/* Visited and skipped in one round: it was filed in this tree. */
	lksm_unmerge(engine);
	fill_page(engine, late, 'v');
	for (int visit = 1; visit <= 3; visit++)
		full(engine);
	full(engine);
	enqueue_all(engine);
	EXPECT_EQUAL(scan_to_end(engine), 0);
	EXPECT_COUNTERS(engine, 0, 0, 0);
	DESTROY(engine);
	free(pages), free(late);
}

/* Skipped pages cost nothing of the budget, and a batch runs through any number of them. */
static void test_budget(void)
{
	struct engine *engine = make_smart_engine((struct setup){ 0 });
	uint8_t *pages, *late = make_pages(engine, "abcdefgh");
	struct mm_slot *old = make_unique(engine, 40, &pages);
	for (int visit = 1; visit <= 4; visit++)
		EXPECT_EQUAL(full(engine), 40);
	struct mm_slot *young = make_process(engine, late, 8, false);
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	EXPECT_EQUAL(scan_pages(engine, 5), 5);
	EXPECT_EQUAL(counters_of(engine).pages_skipped, 40);
	EXPECT_EQUAL(counters_of(engine).round_pages, 5);
	EXPECT_EQUAL(status_of(old).nr_scans, 0);
	EXPECT(old->is_scanned && !young->is_scanned);
	EXPECT_EQUAL(status_of(young).nr_scans, 5);
	EXPECT_EQUAL(scan_pages(engine, 5), 3);
	EXPECT(!lksm_has_queue(engine));
	EXPECT_COUNTERS(engine, 0, 0, 8);

	/* Nothing but skipped pages: the batch visits none and the scan is over. Visits 7 and 3. */
	full(engine);
	lksm_begin_round(engine, 0);
	enqueue(old, false);
	EXPECT_EQUAL(scan_pages(engine, 1), 0);
	EXPECT(!lksm_has_queue(engine));
	EXPECT_EQUAL(counters_of(engine).nr_scanned_slots, 1);
	EXPECT_EQUAL(counters_of(engine).pages_skipped, 80);
	DESTROY(engine);
	free(pages), free(late);
}

/* Skipped pages are not read, not even ahead of their visit. */
static void test_skipped_pages_are_not_read(void)
{
	struct engine *engine = make_smart_engine((struct setup){ 0 });
	uint8_t *pages;
	make_unique(engine, 40, &pages);
	for (uint64_t visit = 1; visit <= 24; visit++) {
		struct lksm_counters before = counters_of(engine), after;
		EXPECT_EQUAL(full(engine), is_made(visit) ? 40 : 0);
		after = counters_of(engine);
		EXPECT_EQUAL(after.bytes_hashed - before.bytes_hashed, is_made(visit) ? 40 * SAMPLE_SIZE : 0);
		EXPECT_EQUAL(after.bytes_compared, 0);
	}
	DESTROY(engine);
	free(pages);
}

/* Memory of the page goes with its item: unmerged, it is young again. */
static void test_unmerge_makes_young(void)
{
	struct engine *engine = make_smart_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "u");
	make_process(engine, pages, 1, false);
	for (uint64_t visit = 1; visit <= 10; visit++)
		full(engine);
	lksm_unmerge(engine);
	for (uint64_t visit = 1; visit <= 10; visit++)
		EXPECT_EQUAL(full(engine), is_made(visit));
	DESTROY(engine);
	free(pages);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_095_schedule),
		TEST(test_off),
		TEST(test_095_merged_pages_are_not_skipped),
		TEST(test_skipped_page_is_no_twin),
		TEST(test_budget),
		TEST(test_skipped_pages_are_not_read),
		TEST(test_unmerge_makes_young),
	};
	return run_tests(tests, NR_TESTS(tests));
}
