/*
 * test_stable_tree.c - frames, sharers, the ring of nodes of one content, and where frames live.
 */
#include "fixture.h"

#define MAX_PROCESSES 64

/* Many processes, each with its own array. */
struct crowd {
	struct engine *engine;
	struct mm_slot *processes[MAX_PROCESSES];
	uint8_t *arrays[MAX_PROCESSES];
	int nr_processes;
};

static struct crowd make_crowd(struct setup setup)
{
	return (struct crowd){ .engine = make_engine(setup) };
}

static struct mm_slot *add(struct crowd *crowd, const char *picture, bool is_immutable)
{
	int i = crowd->nr_processes++;
	crowd->arrays[i] = make_pages(crowd->engine, picture);
	crowd->processes[i] = make_process(crowd->engine, crowd->arrays[i], strlen(picture), is_immutable);
	return crowd->processes[i];
}

/* The process exits, and its array is gone at once. */
static void leave(struct crowd *crowd, int i)
{
	lksm_process_destroy(crowd->processes[i]);
	memset(crowd->arrays[i], 0xee, crowd->engine->rules.page_size);
	free(crowd->arrays[i]);
	crowd->processes[i] = NULL;
	crowd->arrays[i] = NULL;
}

static void destroy_crowd(struct crowd *crowd)
{
	DESTROY(crowd->engine);
	for (int i = 0; i < crowd->nr_processes; i++)
		free(crowd->arrays[i]);
}

static uint64_t frame_bytes(const struct crowd *crowd)
{
	return crowd->engine->memory.reserved[LKSM_FOR_FRAMES];
}

/* --- one node -------------------------------------------------------------------------------- */

/* The newest sharer is first, and every sharer names its node. */
static void test_newest_sharer_is_first(void)
{
	struct crowd crowd = make_crowd((struct setup){ 0 });
	struct mm_slot *process = add(&crowd, "aaaa", false);
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 1, 3, 0);
	const struct stable_node *node = node_of_page(process, 0);
	uint32_t ref = node->sharers;
	for (uint64_t page = 4; page-- > 0;) {
		EXPECT_EQUAL(item_page(&crowd.engine->items, ref), page);
		ref = item_at(&crowd.engine->items, ref)->sharer.next;
	}
	EXPECT_EQUAL(ref, 0);
	destroy_crowd(&crowd);
}

/* A sharer that leaves is one sharing page less and one broken; the last one takes the node along. */
static void test_detach_counts(void)
{
	struct crowd crowd = make_crowd((struct setup){ 0 });
	for (int i = 0; i < 4; i++)
		add(&crowd, "a", false);
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 1, 3, 0);
	EXPECT_EQUAL(counters_of(crowd.engine).merged, 3);
	leave(&crowd, 1);	/* from the middle of the list */
	EXPECT_COUNTERS(crowd.engine, 1, 2, 0);
	leave(&crowd, 0);	/* the oldest */
	EXPECT_COUNTERS(crowd.engine, 1, 1, 0);
	leave(&crowd, 3);	/* the newest */
	EXPECT_COUNTERS(crowd.engine, 1, 0, 0);
	EXPECT_EQUAL(counters_of(crowd.engine).broken, 3);
	EXPECT_EQUAL(frame_bytes(&crowd), 256);
	leave(&crowd, 2);
	EXPECT_COUNTERS(crowd.engine, 0, 0, 0);
	EXPECT_EQUAL(counters_of(crowd.engine).broken, 3);
	EXPECT_EQUAL(frame_bytes(&crowd), 0);
	destroy_crowd(&crowd);
}

/* --- the ring -------------------------------------------------------------------------------- */

/* N equal pages under limit M make the frames of the closed form, spec 3.9.4. */
static void test_closed_form(void)
{
	static char picture[61];
	for (uint64_t m = 2; m <= 9; m++) {
		for (uint64_t n = 2; n <= 60; n += 1 + n / 20) {
			struct crowd crowd = make_crowd((struct setup){ .page_size = 64, .max_page_sharing = m });
			uint64_t nr_frames = n / m + (n % m >= 2), nr_left = n % m == 1;
			memset(picture, 'a', n);
			picture[n] = '\0';
			add(&crowd, picture, n % 2);
			full(crowd.engine);
			EXPECT_COUNTERS(crowd.engine, nr_frames, n - nr_frames - nr_left, nr_left);
			struct lksm_counters c = counters_of(crowd.engine);
			EXPECT_EQUAL(c.stable_node_chains, nr_frames > 1);
			EXPECT_EQUAL(c.stable_node_dups, nr_frames > 1 ? nr_frames : 0);
			destroy_crowd(&crowd);
		}
	}
}

/* A node that gets room again is used before a new frame is made, wherever it stood in the ring. */
static void test_room_is_found_again(void)
{
	for (int leaver = 0; leaver < 12; leaver++) {
		struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 3 });
		for (int i = 0; i < 12; i++)
			add(&crowd, "a", false);
		full(crowd.engine);
		EXPECT_COUNTERS(crowd.engine, 4, 8, 0);
		leave(&crowd, leaver);
		EXPECT_COUNTERS(crowd.engine, 4, 7, 0);
		add(&crowd, "a", false);
		full(crowd.engine);
		EXPECT_COUNTERS(crowd.engine, 4, 8, 0);
		add(&crowd, "a", false);
		full(crowd.engine);
		EXPECT_COUNTERS(crowd.engine, 4, 8, 1);
		destroy_crowd(&crowd);
	}
}

/* Nodes go in any order; the content is one plain node when one is left, and none when none is. */
static void test_ring_shrinks(void)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 2 + seed % 3 });
		uint64_t random = seed;
		for (int i = 0; i < 20; i++)
			add(&crowd, "a", seed % 2);
		full(crowd.engine);
		for (int left = 20; left > 0;) {
			int i = (int)(next_random(&random) % 20);
			if (!crowd.processes[i])
				continue;
			leave(&crowd, i);
			left--;
			EXPECT_SOUND(crowd.engine);
			struct lksm_counters c = counters_of(crowd.engine);
			EXPECT_EQUAL(c.pages_shared + c.pages_sharing, left);
			EXPECT_EQUAL(c.stable_node_chains, c.pages_shared > 1);
			EXPECT_EQUAL(c.stable_node_dups, c.pages_shared > 1 ? c.pages_shared : 0);
		}
		destroy_crowd(&crowd);
		if (nr_failures) {
			printf("seed %" PRIu64 "\n", seed);
			return;
		}
	}
}

/* A content of several nodes that is deepened is found under its new key whichever node is the head. */
static void test_deepened_ring_changes_head(void)
{
	for (int leaver = 0; leaver < 6; leaver++) {
		struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 2 });
		struct engine *engine = crowd.engine;
		for (int i = 0; i < 6; i++)
			add(&crowd, "a", false);
		full(engine);
		EXPECT_COUNTERS(engine, 3, 3, 0);
		/* Seen by no sample: collides with the content, which is filed deep from then on. */
		add(&crowd, "a", false);
		crowd.arrays[6][unsampled_byte(engine)] ^= 1;
		full(engine);
		EXPECT_EQUAL(engine->indexes->deepened.nr_keys, 1);
		EXPECT_COUNTERS(engine, 3, 3, 1);
		leave(&crowd, leaver);
		EXPECT_COUNTERS(engine, 3, 2, 1);
		leave(&crowd, leaver ^ 1);
		EXPECT_COUNTERS(engine, 2, 2, 1);
		add(&crowd, "a", false);
		add(&crowd, "a", false);
		full(engine);
		EXPECT_COUNTERS(engine, 3, 3, 1);
		destroy_crowd(&crowd);
	}
}

/* --- where frames live ----------------------------------------------------------------------- */

/* Mutable pages are copied once a content; immutable ones never. */
static void test_frame_is_copied_once_or_borrowed(void)
{
	struct crowd crowd = make_crowd((struct setup){ 0 });
	add(&crowd, "aaab", false);
	add(&crowd, "ccd", true);
	struct mm_slot *last = add(&crowd, "bd", true);
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 4, 5, 0);
	EXPECT_EQUAL(frame_bytes(&crowd), 256);
	EXPECT(node_of_page(crowd.processes[0], 0)->is_owned);
	/* The page scanned second lends its bytes. */
	EXPECT(node_of_page(last, 0)->bytes == crowd.arrays[2]);
	EXPECT(node_of_page(last, 1)->bytes == crowd.arrays[2] + 256);
	EXPECT(node_of_page(crowd.processes[1], 0)->bytes == crowd.arrays[1] + 256);
	destroy_crowd(&crowd);
}

/* A mutable page scanned second borrows from its immutable twin. */
static void test_frame_is_borrowed_from_twin(void)
{
	struct crowd crowd = make_crowd((struct setup){ 0 });
	add(&crowd, "a", true);
	struct mm_slot *second = add(&crowd, "a", false);
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 1, 1, 0);
	EXPECT(node_of_page(second, 0)->bytes == crowd.arrays[0]);
	EXPECT_EQUAL(frame_bytes(&crowd), 0);
	destroy_crowd(&crowd);
}

/* When the lender leaves, another immutable sharer lends: same frame id, no copy, no memory. */
static void test_lender_leaves_to_lender(void)
{
	struct crowd crowd = make_crowd((struct setup){ 0 });
	add(&crowd, "a", true);
	add(&crowd, "a", false);
	add(&crowd, "a", true);
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 1, 2, 0);
	EXPECT(node_of_page(crowd.processes[2], 0)->bytes == crowd.arrays[0]);
	int64_t frame = frame_of(crowd.processes[1], 0);
	fail_next(crowd.engine, FAIL_FOR_EVER);
	leave(&crowd, 0);
	fail_no_more(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 1, 1, 0);
	EXPECT(node_of_page(crowd.processes[1], 0)->bytes == crowd.arrays[2]);
	EXPECT_EQUAL(frame_of(crowd.processes[1], 0), frame);
	EXPECT_EQUAL(frame_bytes(&crowd), 0);
	destroy_crowd(&crowd);
}

/* When the last lender leaves, the frame is copied before it goes. */
static void test_lender_leaves_to_copy(void)
{
	struct crowd crowd = make_crowd((struct setup){ 0 });
	add(&crowd, "a", true);
	add(&crowd, "aa", false);
	full(crowd.engine);
	int64_t frame = frame_of(crowd.processes[1], 0);
	leave(&crowd, 0);
	EXPECT_COUNTERS(crowd.engine, 1, 1, 0);
	EXPECT(node_of_page(crowd.processes[1], 0)->is_owned);
	EXPECT_EQUAL(frame_of(crowd.processes[1], 1), frame);
	EXPECT_EQUAL(frame_bytes(&crowd), 256);
	add(&crowd, "a", false);
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 1, 2, 0);
	destroy_crowd(&crowd);
}

/* Without memory for the copy the node dissolves; its pages are volatile and merge at the next scan. */
static void test_lender_leaves_and_node_dissolves(void)
{
	struct crowd crowd = make_crowd((struct setup){ 0 });
	add(&crowd, "a", true);
	add(&crowd, "aa", false);
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 1, 2, 0);
	fail_next(crowd.engine, FAIL_FOR_EVER);
	leave(&crowd, 0);
	fail_no_more(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 0, 0, 0);
	EXPECT_EQUAL(volatile_of(crowd.engine), 2);
	EXPECT_EQUAL(counters_of(crowd.engine).broken, 2);
	EXPECT_EQUAL(frame_of(crowd.processes[1], 0), LKSM_ENTRY_PRIVATE);
	EXPECT_PICTURE(crowd.processes[1], "aa");
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 1, 1, 0);
	destroy_crowd(&crowd);
}

/* A process that leaves with all lenders of a frame does not lend again on its way out. */
static void test_leaving_process_is_no_lender(void)
{
	struct crowd crowd = make_crowd((struct setup){ 0 });
	add(&crowd, "aaaaa", true);
	add(&crowd, "a", false);
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 1, 5, 0);
	uint64_t nr_allocations = crowd.engine->memory.nr_allocations;
	leave(&crowd, 0);
	EXPECT_EQUAL(crowd.engine->memory.nr_allocations, nr_allocations + 1);
	EXPECT_COUNTERS(crowd.engine, 1, 0, 0);
	EXPECT(node_of_page(crowd.processes[1], 0)->is_owned);
	destroy_crowd(&crowd);
}

/* Unmapping the lender's page moves the frame at the next scan, when its item goes. */
static void test_lender_is_unmapped(void)
{
	for (int can_copy = 0; can_copy < 2; can_copy++) {
		struct crowd crowd = make_crowd((struct setup){ 0 });
		add(&crowd, "ab", true);
		add(&crowd, "aa", false);
		full(crowd.engine);
		EXPECT_EQUAL(lksm_process_unmap(crowd.processes[0], 0, 1), LKSM_OK);
		EXPECT_COUNTERS(crowd.engine, 1, 2, 1);
		lksm_begin_round(crowd.engine, 0);
		enqueue(crowd.processes[0], false);
		if (!can_copy)
			fail_next(crowd.engine, FAIL_FOR_EVER);
		scan_to_end(crowd.engine);
		fail_no_more(crowd.engine);
		EXPECT_COUNTERS(crowd.engine, can_copy, can_copy, 1);
		EXPECT_PICTURE(crowd.processes[0], "-b");
		full(crowd.engine);
		EXPECT_COUNTERS(crowd.engine, 1, 1, 1);
		destroy_crowd(&crowd);
	}
}

/* Under a limit, too, a frame of a ring that cannot be copied dissolves alone. */
static void test_node_of_ring_dissolves(void)
{
	struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 3 });
	add(&crowd, "a", true);
	add(&crowd, "aa", false);
	add(&crowd, "a", true);
	add(&crowd, "aa", false);
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 2, 4, 0);
	EXPECT_EQUAL(frame_bytes(&crowd), 0);
	fail_next(crowd.engine, FAIL_FOR_EVER);
	leave(&crowd, 0);
	fail_no_more(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 1, 2, 0);
	EXPECT_EQUAL(volatile_of(crowd.engine), 2);
	EXPECT_EQUAL(counters_of(crowd.engine).stable_node_dups, 0);
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 2, 3, 0);
	destroy_crowd(&crowd);
}

/* The nodes of one content share one copy of its bytes, until the last of those that use it goes. */
static void test_dups_share_one_copy(void)
{
	struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 2 });
	for (int i = 0; i < 8; i++)
		add(&crowd, "a", i == 0);	/* the first two pages borrow, the others need a copy */
	full(crowd.engine);
	EXPECT_COUNTERS(crowd.engine, 4, 4, 0);
	EXPECT_EQUAL(frame_bytes(&crowd), 256);
	fail_next(crowd.engine, FAIL_FOR_EVER);
	leave(&crowd, 0);			/* the lender: the others' copy will do, without memory */
	EXPECT_COUNTERS(crowd.engine, 4, 3, 0);
	for (int i = 7; i > 0; i--) {
		EXPECT_EQUAL(frame_bytes(&crowd), 256);
		leave(&crowd, i);
		EXPECT_SOUND(crowd.engine);
	}
	EXPECT_EQUAL(frame_bytes(&crowd), 0);
	destroy_crowd(&crowd);
}

/* Exit frees everything, whoever leaves first, though every allocation fails. */
static void test_exit_never_fails(void)
{
	for (uint64_t seed = 1; seed <= 40; seed++) {
		uint64_t random = seed;
		struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = seed % 2 ? 3 : UNLIMITED });
		for (int i = 0; i < 10; i++)
			add(&crowd, i % 3 ? "abcab" : "aacc", next_random(&random) % 2);
		full(crowd.engine);
		fail_next(crowd.engine, FAIL_FOR_EVER);
		for (int left = 10; left > 0;) {
			int i = (int)(next_random(&random) % 10);
			if (!crowd.processes[i])
				continue;
			leave(&crowd, i);
			left--;
			EXPECT_SOUND(crowd.engine);
			for (int j = 0; j < 10; j++)
				if (crowd.processes[j])
					EXPECT_PICTURE(crowd.processes[j], j % 3 ? "abcab" : "aacc");
		}
		EXPECT_COUNTERS(crowd.engine, 0, 0, 0);
		EXPECT_EQUAL(counters_of(crowd.engine).rmap_items, 0);
		destroy_crowd(&crowd);
		if (nr_failures) {
			printf("seed %" PRIu64 "\n", seed);
			return;
		}
	}
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_newest_sharer_is_first),
		TEST(test_detach_counts),
		TEST(test_closed_form),
		TEST(test_room_is_found_again),
		TEST(test_ring_shrinks),
		TEST(test_deepened_ring_changes_head),
		TEST(test_frame_is_copied_once_or_borrowed),
		TEST(test_frame_is_borrowed_from_twin),
		TEST(test_lender_leaves_to_lender),
		TEST(test_lender_leaves_to_copy),
		TEST(test_lender_leaves_and_node_dissolves),
		TEST(test_leaving_process_is_no_lender),
		TEST(test_lender_is_unmapped),
		TEST(test_node_of_ring_dissolves),
		TEST(test_dups_share_one_copy),
		TEST(test_exit_never_fails),
	};
	return run_tests(tests, NR_TESTS(tests));
}
