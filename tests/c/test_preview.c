/*
 * test_preview.c - what threads find out before a visit changes how long that takes, and nothing else.
 *
 * test_random.c scans with previews too; tests/test_crew.py holds scans of several threads to those of one.
 */
#include "fixture.h"

#include <pthread.h>

/* Two engines with the same pages: one scans with previews, the other without. */
struct pair {
	struct engine *engines[2];
	struct mm_slot *processes[2];
	uint8_t *pages;
	uint64_t nr_pages;
};

static struct pair make_pair(struct setup setup, const char *picture, bool is_immutable)
{
	struct pair pair = { .nr_pages = strlen(picture) };
	for (int i = 0; i < 2; i++)
		pair.engines[i] = make_engine(setup);
	pair.pages = make_pages(pair.engines[0], picture);
	for (int i = 0; i < 2; i++)
		pair.processes[i] = make_process(pair.engines[i], pair.pages, pair.nr_pages, is_immutable);
	return pair;
}

static void expect_same_at(const char *place, const struct pair *pair)
{
	struct lksm_counters one = counters_of(pair->engines[0]), other = counters_of(pair->engines[1]);
	expect_at(!memcmp(&one, &other, sizeof(one)), place, "with a preview (%" PRIu64 ",%" PRIu64 ",%" PRIu64 "), %" PRIu64
		  " compared, %" PRIu64 " hashed; without (%" PRIu64 ",%" PRIu64 ",%" PRIu64 "), %" PRIu64 ", %" PRIu64,
		  one.pages_shared, one.pages_sharing, one.pages_unshared, one.bytes_compared, one.bytes_hashed,
		  other.pages_shared, other.pages_sharing, other.pages_unshared, other.bytes_compared, other.bytes_hashed);
	for (uint64_t i = 0; i < pair->nr_pages; i++)
		expect_at(frame_of(pair->processes[0], i) == frame_of(pair->processes[1], i), place,
			  "page %" PRIu64 " is elsewhere", i);
	for (int i = 0; i < 2; i++)
		expect_sound_at(place, pair->engines[i]);
}
#define EXPECT_SAME(pair) expect_same_at(PLACE, pair)

static void destroy_pair(struct pair *pair)
{
	for (int i = 0; i < 2; i++)
		DESTROY(pair->engines[i]);
	free(pair->pages);
}

/* Stretches of @capacity pages, with all that may be done before the one in front is visited. */
static void scan_in_stretches(struct engine *engine, uint64_t capacity)
{
	struct preview *previews[3] = { make_preview(capacity), make_preview(capacity), make_preview(capacity) };
	uint64_t nr_looks, nr_scanned, nr_visits, nr_second, nr_third;

	scan_pages(engine, 1);
	nr_visits = lksm_preview_collect(engine, previews[0], NULL, &nr_looks);
	lksm_preview_keys(previews[0]);
	lksm_preview_twins(previews[0]);
	lksm_preview_compares(previews[0]);
	nr_second = lksm_preview_collect(engine, previews[1], previews[0], &nr_looks);
	lksm_preview_keys(previews[1]);
	for (int i = 0; nr_visits; i++) {
		struct preview *second = previews[(i + 1) % 3], *third = previews[(i + 2) % 3];
		lksm_preview_twins(second);
		nr_third = nr_second ? lksm_preview_collect(engine, third, second, &nr_looks) : 0;
		if (i % 2) {
			lksm_preview_compares(second);
			lksm_preview_keys(third);
		}
		EXPECT_EQUAL(lksm_scan_previewed(engine, previews[i % 3], nr_visits, 0, &nr_scanned), LKSM_OK);
		lksm_preview_compares(second);
		lksm_preview_keys(third);
		nr_visits = nr_second;
		nr_second = nr_third;
	}
	scan_to_end(engine);
	for (int i = 0; i < 3; i++)
		free(previews[i]);
}

static void scan_both(struct pair *pair, uint64_t capacity)
{
	for (int i = 0; i < 2; i++) {
		lksm_begin_round(pair->engines[i], 0);
		enqueue_all(pair->engines[i]);
	}
	scan_in_stretches(pair->engines[0], capacity);
	scan_to_end(pair->engines[1]);
}

static const char picture[] = "ab0ac00deabfghiaajkl0lmnopq00aqrstuvvwxyzz0azb";

/* Counters, also those of bytes looked at, and page tables are those of a scan without previews. */
static void test_nothing_changes(void)
{
	for (unsigned which = 0; which < 3 * 4 * 64; which++) {
		struct setup setup = {
			.hash = all_hashes[which % 3],
			.page_size = (uint64_t[]){ 64, 128, 256, 4096 }[which / 3 % 4],
			.gate_first = which / 12 & 1,
			.initial_rounds = which / 12 & 2 ? 4 : 0,
			.max_page_sharing = which / 12 & 4 ? 2 : 0,
			.is_secure = which / 12 & 8,
		};
		struct pair pair = make_pair(setup, picture, which / 12 & 16);
		for (int i = 0; i < 2; i++) {
			lksm_set_use_zero_pages(pair.engines[i], which / 12 & 32);
			lksm_set_smart_scan(pair.engines[i], which / 12 & 2);
		}
		for (int round = 0; round < 5; round++) {
			scan_both(&pair, (uint64_t[]){ 1, 7, 40, 64, 1000 }[round]);
			EXPECT_SAME(&pair);
			if (!(which / 12 & 16))
				for (uint64_t page = 0; page < 5; page++)
					fill_page(pair.engines[0], pair.pages + (5 * page + (uint64_t)round) * setup.page_size,
						  (char)('a' + round));
		}
		destroy_pair(&pair);
	}
}

/*
 * What was said of a frame is believed, but not any more when a frame has gone: another one may be in its place. Here
 * the preview lies.
 */
static void test_frame_may_be_another(void)
{
	for (int has_gone = 0; has_gone < 2; has_gone++) {
		struct engine *engine = make_engine((struct setup){ 0 });
		uint8_t *pages = make_pages(engine, "aab");
		struct mm_slot *process = make_process(engine, pages, 3, false);
		struct preview *preview = make_preview(3);
		uint64_t nr_looks, nr_scanned;
		full(engine);
		EXPECT_COUNTERS(engine, 1, 1, 1);
		fill_page(engine, pages + 256, 'b');
		lksm_begin_round(engine, 0);
		enqueue_all(engine);
		scan_pages(engine, 1);
		lksm_preview_collect(engine, preview, NULL, &nr_looks);
		lksm_preview_keys(preview);
		lksm_preview_twins(preview);
		lksm_preview_compares(preview);
		EXPECT(preview->pages[0].is_node && preview->pages[0].is_compared && preview->pages[0].order);
		preview->pages[0].order = 0;
		engine->nr_gone += (uint64_t)has_gone;
		EXPECT_EQUAL(lksm_scan_previewed(engine, preview, 2, 0, &nr_scanned), LKSM_OK);
		EXPECT_EQUAL(frame_of(process, 1) == frame_of(process, 0), !has_gone);
		EXPECT_EQUAL(counters_of(engine).pages_shared, 1 + has_gone);
		free(preview);
		DESTROY(engine);
		free(pages);
	}
}

/* A frame goes with its last sharer, and a chain with its last dup but one; both are noticed. */
static void test_what_has_gone(void)
{
	struct engine *engine = make_engine((struct setup){ .max_page_sharing = 2 });
	uint8_t *pages = make_pages(engine, "aaaabb");
	struct mm_slot *process = make_process(engine, pages, 6, false);
	full(engine);
	EXPECT_COUNTERS(engine, 3, 3, 0);
	EXPECT_EQUAL(engine->nr_gone, 0);
	EXPECT_EQUAL(lksm_process_advise(process, 4, 5, false), LKSM_OK);
	full(engine);
	EXPECT_EQUAL(engine->nr_gone, 0);
	EXPECT_EQUAL(lksm_process_advise(process, 5, 6, false), LKSM_OK);
	full(engine);
	EXPECT_EQUAL(engine->nr_gone, 1);
	EXPECT_EQUAL(lksm_process_advise(process, 0, 2, false), LKSM_OK);
	full(engine);
	lksm_prune_chains(engine, 1);
	EXPECT_EQUAL(engine->nr_gone, 3);	/* a dup, and the chain of the other */
	DESTROY(engine);
	free(pages);
}

/* What owners write between the compare and the visit is found out, at the next visit at the latest. */
static void test_pages_change_meanwhile(void)
{
	for (int when = 0; when < 3; when++) {
		struct engine *engine = make_engine((struct setup){ 0 });
		uint8_t *pages = make_pages(engine, "xxabcbade");
		struct mm_slot *process = make_process(engine, pages, 9, false);
		struct preview *preview = make_preview(16);
		uint64_t nr_looks, nr_scanned;
		lksm_begin_round(engine, 0);
		enqueue_all(engine);
		scan_pages(engine, 2);
		EXPECT_EQUAL(lksm_preview_collect(engine, preview, NULL, &nr_looks), 7);
		EXPECT_EQUAL(nr_looks, 7);
		if (when == 0)
			fill_page(engine, pages + 5 * 256, 'f');
		lksm_preview_keys(preview);
		if (when == 1)
			fill_page(engine, pages + 5 * 256, 'f');
		lksm_preview_twins(preview);
		lksm_preview_compares(preview);
		if (when == 2)
			fill_page(engine, pages + 5 * 256, 'f');
		EXPECT_EQUAL(lksm_scan_previewed(engine, preview, 100, 0, &nr_scanned), LKSM_OK);
		EXPECT_EQUAL(nr_scanned, 7);
		EXPECT_COUNTERS(engine, 2, 2, when == 2 ? 4 : 5);	/* in the last case it was to be merged: row 13 */
		EXPECT(frame_of(process, 3) == LKSM_ENTRY_PRIVATE && frame_of(process, 5) == LKSM_ENTRY_PRIVATE);
		EXPECT_EQUAL(full(engine), 9);
		EXPECT_COUNTERS(engine, 2, 2, 5);
		DESTROY(engine);
		free(pages);
		free(preview);
	}
}

/* A preview notes what will be visited, process by process, and whether there is anything to find out. */
static void test_collect(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "abcdefgh");
	struct mm_slot *first = make_process(engine, pages, 4, true), *second = make_process(engine, pages + 4 * 256, 4, false);
	struct preview *preview = make_preview(6), *following = make_preview(6);
	uint64_t nr_looks;

	EXPECT_EQUAL(lksm_preview_collect(engine, preview, NULL, &nr_looks), 0);
	EXPECT(!lksm_is_walking(engine));
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	EXPECT_EQUAL(lksm_preview_collect(engine, preview, NULL, &nr_looks), 0);	/* the walk has not begun */
	scan_pages(engine, 1);
	EXPECT(lksm_is_walking(engine));
	EXPECT_EQUAL(lksm_process_advise(first, 2, 3, false), LKSM_OK);
	EXPECT_EQUAL(lksm_preview_collect(engine, preview, NULL, &nr_looks), 5);
	EXPECT_EQUAL(nr_looks, 5);
	EXPECT_EQUAL(lksm_preview_collect(engine, following, preview, &nr_looks), 1);
	EXPECT_EQUAL(lksm_preview_collect(engine, preview, following, &nr_looks), 0);
	scan_to_end(engine);
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	scan_pages(engine, 1);
	/* Pages of the first hold still: they will be passed, but not looked at. */
	EXPECT_EQUAL(lksm_preview_collect(engine, preview, NULL, &nr_looks), 5);
	EXPECT_EQUAL(nr_looks, 3);
	(void)second;
	DESTROY(engine);
	free(pages);
	free(preview);
	free(following);
}

/* More regions than a preview has room for: the next one goes on there. */
static void test_many_regions(void)
{
	struct pair pair = make_pair((struct setup){ 0 }, "a", false);
	uint64_t nr_regions = 2 * PREVIEW_RUNS + 3;
	uint8_t *pages = malloc(nr_regions * 256);
	for (uint64_t i = 0; i < nr_regions; i++) {
		fill_page(pair.engines[0], pages + i * 256, (char)('a' + i % 20));
		for (int j = 0; j < 2; j++)
			EXPECT_EQUAL(map_pages(pair.processes[j], 2 + 2 * i, pages + i * 256, 1), LKSM_OK);
	}
	scan_both(&pair, 10000);
	EXPECT_SAME(&pair);
	EXPECT_EQUAL(counters_of(pair.engines[0]).pages_shared, 20);
	destroy_pair(&pair);
	free(pages);
}

static void *take_keys(void *preview)
{
	lksm_preview_keys(preview);
	return NULL;
}

static void *find_twins(void *preview)
{
	lksm_preview_twins(preview);
	return NULL;
}

static void *compare_all(void *preview)
{
	lksm_preview_compares(preview);
	return NULL;
}

static void by_threads(void *(*work)(void *), struct preview *preview)
{
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, work, preview);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

/* Four threads find out what one does. */
static void test_threads(void)
{
	enum { NR_PAGES = 3000 };
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = malloc(NR_PAGES * 256);
	uint64_t random = 5, nr_looks;
	for (uint64_t i = 0; i < NR_PAGES; i++) {
		fill_page(engine, pages + i * 256, 'a');
		pages[i * 256 + engine->rules.lines[0]] = (uint8_t)(next_random(&random) % 100);
		pages[i * 256 + engine->rules.lines[1]] = (uint8_t)(next_random(&random) % 10);
	}
	make_process(engine, pages, NR_PAGES, false);
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	scan_pages(engine, 1000);
	struct preview *one = make_preview(4096), *four = make_preview(4096);
	EXPECT_EQUAL(lksm_preview_collect(engine, one, NULL, &nr_looks), 2000);
	EXPECT_EQUAL(lksm_preview_collect(engine, four, NULL, &nr_looks), 2000);
	lksm_preview_keys(one);
	lksm_preview_twins(one);
	lksm_preview_compares(one);
	by_threads(take_keys, four);
	by_threads(find_twins, four);
	by_threads(compare_all, four);
	EXPECT(!memcmp(one->pages, four->pages, 2000 * sizeof(*one->pages)));
	uint64_t nr_found = 0;
	for (uint64_t i = 0; i < 2000; i++)
		nr_found += one->pages[i].other && !one->pages[i].order;
	EXPECT(nr_found > 1000);
	DESTROY(engine);
	free(pages);
	free(one);
	free(four);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_nothing_changes),
		TEST(test_frame_may_be_another),
		TEST(test_what_has_gone),
		TEST(test_pages_change_meanwhile),
		TEST(test_collect),
		TEST(test_many_regions),
		TEST(test_threads),
	};
	return run_tests(tests, NR_TESTS(tests));
}
