/*
 * test_unstable_tree.c - candidates of a round, and pages that rounds leave filed because they cannot change: nobody
 * can tell by results that they are not filed anew.
 */
#include "fixture.h"

/* Two processes over immutable pages, and one that may be written. */
struct trio {
	struct engine *engine;
	uint8_t *arrays[3];
	struct mm_slot *fixed, *other, *mutable;
};

static struct trio make_trio(struct setup setup, const char *fixed, const char *other, const char *mutable)
{
	struct trio trio = { .engine = make_engine(setup) };
	const char *pictures[3] = { fixed, other, mutable };
	struct mm_slot **processes[3] = { &trio.fixed, &trio.other, &trio.mutable };
	for (int i = 0; i < 3; i++) {
		trio.arrays[i] = make_pages(trio.engine, pictures[i]);
		*processes[i] = make_process(trio.engine, trio.arrays[i], strlen(pictures[i]), i < 2);
	}
	return trio;
}

static void destroy_trio(struct trio *trio)
{
	DESTROY(trio->engine);
	for (int i = 0; i < 3; i++)
		free(trio->arrays[i]);
}

/* A round over one process only. */
static void scan_only(struct mm_slot *process)
{
	lksm_begin_round(process->engine, 0);
	enqueue(process, false);
	scan_to_end(process->engine);
}

static uint64_t nr_kept(const struct trio *trio)
{
	return trio->engine->indexes->trees->kept.nr_entries;
}

/* What cannot change is looked at once; what may is read in every round. */
static void test_settled_pages_cost_nothing(void)
{
	struct trio trio = make_trio((struct setup){ 0 }, "abcdd", "e", "xyz");
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 1, 1, 7);
	EXPECT_EQUAL(nr_kept(&trio), 4);
	struct lksm_counters before = counters_of(trio.engine);
	for (int round = 0; round < 5; round++)
		full(trio.engine);
	struct lksm_counters after = counters_of(trio.engine);
	EXPECT_COUNTERS(trio.engine, 1, 1, 7);
	EXPECT_EQUAL(after.pages_scanned - before.pages_scanned, 5 * 9);
	EXPECT_EQUAL(after.bytes_hashed - before.bytes_hashed, 5 * 3 * SAMPLE_SIZE);
	EXPECT_EQUAL(after.bytes_compared - before.bytes_compared, 0);
	destroy_trio(&trio);
}

/* A kept page of an earlier round is no twin: an equal one takes its place, and both merge when it is visited. */
static void test_a_page_of_an_earlier_round_gives_way(void)
{
	for (int is_immutable = 0; is_immutable < 2; is_immutable++) {
		struct trio trio = make_trio((struct setup){ 0 }, "ab", is_immutable ? "a" : "q", is_immutable ? "q" : "a");
		struct mm_slot *late = is_immutable ? trio.other : trio.mutable;
		scan_only(trio.fixed);
		EXPECT_EQUAL(nr_kept(&trio), 2);
		scan_only(late);
		EXPECT_COUNTERS(trio.engine, 0, 0, 3);
		EXPECT_EQUAL(item_of(trio.fixed, 0)->is_settled, 0);
		EXPECT_EQUAL(item_of(trio.fixed, 0)->state, ITEM_UNSTABLE);
		full(trio.engine);
		EXPECT_COUNTERS(trio.engine, 1, 1, 2);
		EXPECT_EQUAL(frame_of(trio.fixed, 0), frame_of(late, 0));
		destroy_trio(&trio);
	}
}

/* One of this round is a twin, whoever comes. */
static void test_a_page_of_this_round_is_a_twin(void)
{
	struct trio trio = make_trio((struct setup){ 0 }, "abc", "b", "c");
	scan_only(trio.fixed);
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 2, 2, 1);
	EXPECT_EQUAL(nr_kept(&trio), 1);
	EXPECT_EQUAL(frame_of(trio.fixed, 1), frame_of(trio.other, 0));
	EXPECT_EQUAL(frame_of(trio.fixed, 2), frame_of(trio.mutable, 0));
	destroy_trio(&trio);
}

/* A page beside full frames is not kept: there may be room at its next visit. */
static void test_not_kept_beside_full_frames(void)
{
	struct trio trio = make_trio((struct setup){ .max_page_sharing = 2 }, "aaa", "b", "c");
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 1, 1, 3);
	EXPECT_EQUAL(item_of(trio.fixed, 2)->is_settled, 0);
	EXPECT_EQUAL(lksm_process_unmap(trio.fixed, 0, 1), LKSM_OK);
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 1, 1, 2);
	EXPECT_EQUAL(frame_of(trio.fixed, 1), frame_of(trio.fixed, 2));
	destroy_trio(&trio);
}

/* A page that came in without a checksum, because it was frozen, is gated when it runs again. */
static void test_the_gate_holds_back_a_kept_page(void)
{
	struct trio trio = make_trio((struct setup){ .initial_rounds = 60 }, "ab", "c", "d");
	lksm_begin_round(trio.engine, 0);
	enqueue(trio.fixed, true);
	scan_to_end(trio.engine);
	EXPECT_COUNTERS(trio.engine, 0, 0, 2);
	scan_only(trio.fixed);
	EXPECT_COUNTERS(trio.engine, 0, 0, 0);
	EXPECT_EQUAL(volatile_of(trio.engine), 2);
	scan_only(trio.fixed);
	scan_only(trio.fixed);
	EXPECT_COUNTERS(trio.engine, 0, 0, 2);
	destroy_trio(&trio);
}

/* Knobs that change what a visit does make every page be visited as if for the first time in a round. */
static void test_knobs_end_it(void)
{
	for (int knob = 0; knob < 3; knob++) {
		struct trio trio = make_trio((struct setup){ .nr_nodes = 2 }, "0bc", "e", "x");
		struct engine *engine = trio.engine;
		full(engine);
		EXPECT_EQUAL(nr_kept(&trio), 4);
		if (knob == 0)
			lksm_set_use_zero_pages(engine, true);
		else if (knob == 1)
			lksm_set_smart_scan(engine, true);
		else
			EXPECT_EQUAL(lksm_set_merge_across_nodes(engine, false), LKSM_OK);
		EXPECT_EQUAL(nr_kept(&trio), 0);
		EXPECT_COUNTERS(engine, 0, 0, 5);
		full(engine);
		EXPECT_COUNTERS(engine, 0, 0, knob == 0 ? 4 : 5);
		EXPECT_EQUAL(nr_kept(&trio), knob == 0 ? 3 : 0);
		EXPECT_EQUAL(counters_of(engine).zero_pages, knob == 0);
		full(engine);
		EXPECT_SOUND(engine);
		destroy_trio(&trio);
	}
}

/* Pages that are taken out, unmapped, or leave with their process leave their tree; so does everything at `run` 2. */
static void test_kept_pages_leave(void)
{
	struct trio trio = make_trio((struct setup){ 0 }, "abcd", "e", "x");
	full(trio.engine);
	EXPECT_EQUAL(nr_kept(&trio), 5);
	EXPECT_EQUAL(lksm_process_advise(trio.fixed, 0, 1, false), LKSM_OK);
	EXPECT_EQUAL(lksm_process_unmap(trio.fixed, 1, 2), LKSM_OK);
	EXPECT_SOUND(trio.engine);
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 0, 0, 4);
	EXPECT_EQUAL(nr_kept(&trio), 3);
	lksm_process_destroy(trio.other);
	EXPECT_COUNTERS(trio.engine, 0, 0, 3);
	lksm_unmerge(trio.engine);
	EXPECT_COUNTERS(trio.engine, 0, 0, 0);
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 0, 0, 3);
	EXPECT_EQUAL(nr_kept(&trio), 2);
	destroy_trio(&trio);
}

/* Tracked pages are looked at again when they were written or touched, wherever they are mapped, and only then. */
static void test_tracked_pages(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aabc0");
	struct mm_slot *processes[3];
	struct lksm_region region = { .pages = pages, .nr_array_pages = 5, .nr_pages = 5, .is_tracked = true };
	lksm_set_use_zero_pages(engine, true);
	for (uint32_t i = 0; i < 3; i++) {	/* the last one in a domain of its own */
		EXPECT_EQUAL(lksm_process_create(engine, i / 2, &processes[i]), LKSM_OK);
		EXPECT_EQUAL(lksm_process_map(processes[i], &region), LKSM_OK);
	}
	full(engine);
	EXPECT_COUNTERS(engine, 2, 2, 4);
	EXPECT_EQUAL(counters_of(engine).zero_pages, 3);
	struct lksm_counters before = counters_of(engine);
	full(engine);
	EXPECT_EQUAL(counters_of(engine).bytes_compared, before.bytes_compared);
	EXPECT_EQUAL(counters_of(engine).bytes_hashed, before.bytes_hashed);
	/* Written behind the engine's back: it does not look, until it is told by any of them. */
	for (int page = 1; page < 5; page++)
		fill_page(engine, pages + page * 256, 'w' + (char)page);
	full(engine);
	EXPECT_COUNTERS(engine, 2, 2, 4);
	EXPECT_EQUAL(lksm_process_touch(processes[1], 1, 6), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_touch(processes[1], 1, 5), LKSM_OK);
	EXPECT_SOUND(engine);
	full(engine);
	EXPECT_COUNTERS(engine, 2, 0, 8);
	EXPECT_EQUAL(counters_of(engine).zero_pages, 0);
	/* Through the engine no telling is needed. */
	write_page(processes[0], 1, 'a');
	full(engine);
	EXPECT_COUNTERS(engine, 2, 2, 6);
	write_page(processes[2], 3, 'a');
	full(engine);
	EXPECT_COUNTERS(engine, 2, 4, 4);
	struct mm_slot *child = NULL;
	EXPECT_EQUAL(lksm_process_fork(processes[0], &child), LKSM_OK);
	full(engine);
	write_page(child, 0, 'q');
	write_page(processes[0], 1, 'q');
	full(engine);
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free(pages);
}

/* Memory of which two promises are made is immutable: its bytes may be lent. */
static void test_immutable_is_not_tracked(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aa");
	struct mm_slot *process;
	struct lksm_region region = {
		.pages = pages, .nr_array_pages = 2, .nr_pages = 2, .is_tracked = true, .is_immutable = true
	};
	EXPECT_EQUAL(lksm_process_create(engine, 0, &process), LKSM_OK);
	EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_OK);
	EXPECT(!process->regions[0]->is_tracked);
	full(engine);
	EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 0);
	DESTROY(engine);
	free(pages);
}

static uint8_t *rewritten[2];

static void rewrite(void *letters)
{
	for (int i = 0; i < 2; i++)
		memset(rewritten[i], *(const char *)letters, 256);
}

/* Two pages that are rewritten between search and merge, to what a kept page has, make that page visit them again. */
static void test_rewritten_to_a_kept_content(void)
{
	struct trio trio = make_trio((struct setup){ 0 }, "ab", "c", "xx");
	scan_only(trio.fixed);
	rewritten[0] = trio.arrays[2];
	rewritten[1] = trio.arrays[2] + 256;
	trio.engine->before_merge = rewrite;
	trio.engine->before_merge_data = "a";
	scan_only(trio.mutable);
	trio.engine->before_merge = NULL;
	EXPECT_COUNTERS(trio.engine, 1, 1, 2);
	scan_only(trio.fixed);
	EXPECT_COUNTERS(trio.engine, 1, 2, 1);
	destroy_trio(&trio);
}

/*
 * A knob that changes what is kept leaves the pages of this round where the others find them. A long soak found that
 * they did not.
 */
static void test_knob_in_the_middle(void)
{
	void (*const knobs[])(struct engine *, bool) = { lksm_set_use_zero_pages, lksm_set_smart_scan };
	for (int which = 0; which < 2; which++) {
		struct engine *engine = make_engine((struct setup){ 0 });
		uint8_t *pages = make_pages(engine, "abcba");
		struct mm_slot *process = make_process(engine, pages, 5, true);
		lksm_begin_round(engine, 0);
		enqueue_all(engine);
		scan_pages(engine, 3);
		EXPECT(item_of(process, 0)->is_settled);
		knobs[which](engine, true);
		EXPECT_SOUND(engine);
		EXPECT(!item_of(process, 0)->is_settled);
		EXPECT_EQUAL(engine->indexes->trees[0].kept.nr_entries, 0);
		EXPECT_EQUAL(engine->indexes->trees[0].unstable.nr_entries, 3);
		scan_to_end(engine);
		EXPECT_COUNTERS(engine, 2, 2, 1);
		DESTROY(engine);
		free(pages);
	}
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_knob_in_the_middle),
		TEST(test_settled_pages_cost_nothing),
		TEST(test_a_page_of_an_earlier_round_gives_way),
		TEST(test_a_page_of_this_round_is_a_twin),
		TEST(test_not_kept_beside_full_frames),
		TEST(test_the_gate_holds_back_a_kept_page),
		TEST(test_knobs_end_it),
		TEST(test_kept_pages_leave),
		TEST(test_tracked_pages),
		TEST(test_immutable_is_not_tracked),
		TEST(test_rewritten_to_a_kept_content),
	};
	return run_tests(tests, NR_TESTS(tests));
}
