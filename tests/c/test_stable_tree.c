/*
 * test_stable_tree.c - frames, sharers, the chain of nodes of one content, and where frames live.
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

/* One full scan at @now, which prunes when it is over. */
static void full_at(const struct crowd *crowd, uint64_t now)
{
	uint64_t nr_scanned;
	lksm_begin_round(crowd->engine, now);
	enqueue_all(crowd->engine);
	while (lksm_has_queue(crowd->engine))
		EXPECT_EQUAL(lksm_scan(crowd->engine, 7, now, &nr_scanned), LKSM_OK);
	lksm_prune_chains(crowd->engine, now);
}

static void expect_chains_at(const char *place, const struct crowd *crowd, uint64_t nr_chains, uint64_t nr_dups)
{
	struct lksm_counters c = counters_of(crowd->engine);
	expect_sound_at(place, crowd->engine);
	expect_at(c.stable_node_chains == nr_chains && c.stable_node_dups == nr_dups, place,
		  "%" PRIu64 " chains and %" PRIu64 " dups, expected %" PRIu64 " and %" PRIu64, c.stable_node_chains,
		  c.stable_node_dups, nr_chains, nr_dups);
}
#define EXPECT_CHAINS(crowd, nr_chains, nr_dups) expect_chains_at(PLACE, crowd, nr_chains, nr_dups)

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

/* --- the chain ------------------------------------------------------------------------------- */

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

/* A node that gets room again is used before a new frame is made, wherever it stood in the chain. */
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

/* N equal pages under limit M, both random: the closed form again, and when all but one frame have gone too. */
static void test_closed_form_of_random_numbers(void)
{
	for (uint64_t seed = 1; seed <= 60 && !nr_failures; seed++) {
		uint64_t random = seed, n = 2 + next_random(&random) % 499, m = 2 + next_random(&random) % 19;
		uint64_t nr_frames = n / m + (n % m >= 2), nr_left = n % m == 1;
		struct crowd crowd = make_crowd((struct setup){ .page_size = 64, .max_page_sharing = m });
		char *picture = malloc(n + 1);
		memset(picture, 'a', n);
		picture[n] = '\0';
		struct mm_slot *process = add(&crowd, picture, next_random(&random) % 2);
		lksm_set_prune_delay(crowd.engine, 100);
		full_at(&crowd, 10);
		EXPECT_COUNTERS(crowd.engine, nr_frames, n - nr_frames - nr_left, nr_left);
		EXPECT_CHAINS(&crowd, nr_frames > 1, nr_frames > 1 ? nr_frames : 0);
		/* The first frame stays. */
		if (n > m)
			EXPECT_EQUAL(lksm_process_unmap(process, m, n), LKSM_OK);
		full_at(&crowd, 10);
		EXPECT_CHAINS(&crowd, nr_frames > 1, nr_frames > 1);
		full_at(&crowd, 110);
		EXPECT_COUNTERS(crowd.engine, 1, (n < m ? n : m) - 1, 0);
		EXPECT_CHAINS(&crowd, 0, 0);
		if (nr_failures)
			printf("seed %" PRIu64 ": %" PRIu64 " pages, limit %" PRIu64 "\n", seed, n, m);
		free(picture);
		destroy_crowd(&crowd);
	}
}

/* Nodes go in any order; the chain stays until the last has gone, and is a plain node when it is pruned. */
static void test_chain_shrinks(void)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 2 + seed % 3 });
		uint64_t random = seed;
		bool is_pruned = seed % 5 == 0;		/* after every step */
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
			if (is_pruned)
				lksm_prune_chains(crowd.engine, 0);
			struct lksm_counters c = counters_of(crowd.engine);
			bool is_chain = c.pages_shared > is_pruned;
			EXPECT_EQUAL(c.pages_shared + c.pages_sharing, left);
			EXPECT_CHAINS(&crowd, is_chain, is_chain ? c.pages_shared : 0);
		}
		destroy_crowd(&crowd);
		if (nr_failures) {
			printf("seed %" PRIu64 "\n", seed);
			return;
		}
	}
}

/* A search that finds a chain with one dup collapses it, before its time and even if the dup is full. */
static void test_search_collapses_lone_chain(void)
{
	for (int is_full = 0; is_full < 2; is_full++) {
		struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 2 });
		lksm_set_prune_delay(crowd.engine, 1000);
		for (int i = 0; i < 4; i++)
			add(&crowd, "a", false);
		full_at(&crowd, 5000);
		leave(&crowd, 0);
		leave(&crowd, 1);
		if (!is_full)
			leave(&crowd, 2);
		EXPECT_COUNTERS(crowd.engine, 1, is_full, 0);
		full_at(&crowd, 5000);
		EXPECT_CHAINS(&crowd, 1, 1);		/* nobody has searched for it */
		add(&crowd, "b", false);
		full_at(&crowd, 5000);
		EXPECT_CHAINS(&crowd, 1, 1);
		add(&crowd, "a", false);
		full_at(&crowd, 5000);
		EXPECT_COUNTERS(crowd.engine, 1, 1, 1 + (uint64_t)is_full);
		EXPECT_CHAINS(&crowd, 0, 0);
		/* What is full makes a new chain with the next pair. */
		add(&crowd, "aa", false);
		full_at(&crowd, 5500);
		EXPECT_COUNTERS(crowd.engine, 2, 2, 1 + (uint64_t)is_full);
		EXPECT_CHAINS(&crowd, 1, 2);
		destroy_crowd(&crowd);
	}
}

/* Reports tell of a chain with one dup what they tell of a plain node, and do not collapse it. */
static void test_reports_leave_lone_chain(void)
{
	struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 2 });
	struct lksm_explanation explanation;
	struct lksm_group group;
	int64_t matrix[25];
	uint64_t digest;
	lksm_set_prune_delay(crowd.engine, 1000);
	for (int i = 0; i < 5; i++)
		add(&crowd, "a", false);
	full_at(&crowd, 0);
	EXPECT_COUNTERS(crowd.engine, 2, 2, 1);
	leave(&crowd, 0);
	leave(&crowd, 1);
	EXPECT_CHAINS(&crowd, 1, 1);
	EXPECT_EQUAL(lksm_nr_groups(crowd.engine, -1, 2), 1);
	lksm_groups(crowd.engine, -1, 2, true, &group);
	EXPECT_EQUAL(lksm_page_digest(crowd.processes[2], 0, &digest), LKSM_OK);
	EXPECT(group.pages == 2 && group.processes == 2 && group.first_process == 0 && group.digest == digest);
	EXPECT_EQUAL(group.frame, frame_of(crowd.processes[3], 0));
	EXPECT_EQUAL(lksm_sharing_matrix(crowd.engine, matrix), LKSM_OK);
	EXPECT(matrix[0] == 1 && matrix[1] == 1 && matrix[2] == 0 && matrix[8] == 0);
	EXPECT_EQUAL(lksm_explain(crowd.processes[4], 0, false, &explanation), LKSM_OK);
	EXPECT(explanation.reason == LKSM_LIMIT && explanation.nr_sharers == 2);
	EXPECT_EQUAL(lksm_explain(crowd.processes[3], 0, false, &explanation), LKSM_OK);
	EXPECT(explanation.reason == LKSM_MERGED && explanation.nr_sharers == 2);
	EXPECT_CHAINS(&crowd, 1, 1);
	destroy_crowd(&crowd);
}

/* A chain is pruned when the delay is over since it was made or last pruned, at the end of a scan. */
static void test_prune_times(void)
{
	struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 2 });
	struct engine *engine = crowd.engine;
	lksm_set_prune_delay(engine, 1000);
	for (int i = 0; i < 6; i++)
		add(&crowd, "ab", false);
	full_at(&crowd, 300);
	EXPECT_CHAINS(&crowd, 2, 6);
	full_at(&crowd, 1299);
	EXPECT_EQUAL(node_at(engine, engine->indexes->first_chain)->pruned, 300);
	full_at(&crowd, 1300);		/* nothing collapses, but the delay begins anew */
	EXPECT_EQUAL(node_at(engine, engine->indexes->first_chain)->pruned, 1300);
	EXPECT_EQUAL(node_at(engine, engine->indexes->last_chain)->pruned, 1300);
	for (int i = 0; i < 4; i++)
		leave(&crowd, i);
	EXPECT_CHAINS(&crowd, 2, 2);
	full_at(&crowd, 2299);
	EXPECT_CHAINS(&crowd, 2, 2);
	full_at(&crowd, 2300);
	EXPECT_CHAINS(&crowd, 0, 0);
	EXPECT_COUNTERS(engine, 2, 2, 0);
	destroy_crowd(&crowd);
}

/* A search prunes the chain it meets when the delay is over, and then fills the fullest frame first. */
static void test_due_search_fills_the_fullest(void)
{
	for (int is_due = 0; is_due < 2; is_due++) {
		struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 4 });
		struct engine *engine = crowd.engine;
		lksm_set_prune_delay(engine, 1000);
		for (int i = 0; i < 12; i++)
			add(&crowd, "a", false);
		full_at(&crowd, 0);
		EXPECT_COUNTERS(engine, 3, 9, 0);
		/* Sharers are 2, 3 and 1 now; the frame that was left last comes first. */
		static const int leavers[] = { 4, 0, 1, 8, 9, 10 };
		for (int i = 0; i < 6; i++)
			leave(&crowd, leavers[i]);
		struct stable_node *first = node_of_page(crowd.processes[11], 0), *fullest = node_of_page(crowd.processes[5], 0);
		EXPECT(first->nr_sharers == 1 && fullest->nr_sharers == 3);
		add(&crowd, "a", false);
		uint64_t now = is_due ? 1000 : 999, nr_scanned;
		lksm_begin_round(engine, now);
		enqueue(crowd.processes[12], false);
		EXPECT_EQUAL(lksm_scan(engine, 1, now, &nr_scanned), LKSM_OK);
		EXPECT(node_of_page(crowd.processes[12], 0) == (is_due ? fullest : first));
		EXPECT_EQUAL(node_at(engine, engine->indexes->first_chain)->pruned, is_due ? 1000 : 0);
		EXPECT_CHAINS(&crowd, 1, 3);
		destroy_crowd(&crowd);
	}
}

/* A clock that goes back prunes nothing early, and the order of the chains stays. */
static void test_clock_goes_back(void)
{
	struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 2 });
	lksm_set_prune_delay(crowd.engine, 100);
	add(&crowd, "aaaa", false);
	full_at(&crowd, 1000);
	struct mm_slot *second = add(&crowd, "bbbb", false);
	full_at(&crowd, 400);
	EXPECT_CHAINS(&crowd, 2, 4);
	EXPECT_EQUAL(node_at(crowd.engine, crowd.engine->indexes->last_chain)->pruned, 1000);
	EXPECT_EQUAL(lksm_process_unmap(second, 0, 2), LKSM_OK);
	full_at(&crowd, 600);
	EXPECT_CHAINS(&crowd, 2, 3);
	full_at(&crowd, 1100);
	EXPECT_CHAINS(&crowd, 1, 2);
	destroy_crowd(&crowd);
}

/* Without memory for a chain, or for the node that would be its second, the pair waits and nothing else changes. */
static void test_no_memory_for_chain(void)
{
	for (int nr_free = 0; nr_free < 2; nr_free++) {
		struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 2 });
		struct engine *engine = crowd.engine;
		add(&crowd, "aa", false);
		full(engine);
		int64_t frame = frame_of(crowd.processes[0], 0);
		uint32_t taken[POOL_CHUNK_OBJECTS];
		int nr_taken = 0;
		while (engine->nodes.free_object)
			taken[nr_taken++] = pool_create(&engine->nodes);
		for (int i = 0; i < nr_free; i++)
			pool_destroy(&engine->nodes, taken[--nr_taken]);
		add(&crowd, "aa", false);
		lksm_begin_round(engine, 0);
		enqueue(crowd.processes[1], false);
		scan_pages(engine, 1);
		EXPECT_COUNTERS(engine, 1, 1, 1);
		fail_next(engine, FAIL_FOR_EVER);
		engine->memory.fail_at++;	/* the copy is made, the chunk of nodes is not */
		scan_pages(engine, 1);
		fail_no_more(engine);
		EXPECT_COUNTERS(engine, 1, 1, 0);
		EXPECT_EQUAL(volatile_of(engine), 2);
		EXPECT_CHAINS(&crowd, 0, 0);
		EXPECT_EQUAL(frame_of(crowd.processes[0], 1), frame);
		EXPECT_EQUAL(frame_bytes(&crowd), 256);
		full(engine);
		full(engine);
		EXPECT_COUNTERS(engine, 2, 2, 0);
		EXPECT_CHAINS(&crowd, 1, 2);
		EXPECT_EQUAL(frame_bytes(&crowd), 256);
		while (nr_taken)
			pool_destroy(&engine->nodes, taken[--nr_taken]);
		destroy_crowd(&crowd);
	}
}

/* Chains that come and go, whichever way they go, leave nothing behind. */
static void test_chains_are_given_back(void)
{
	struct crowd crowd = make_crowd((struct setup){ .max_page_sharing = 2 });
	uint64_t reserved = 0;
	for (int i = 0; i < 3 * (int)POOL_CHUNK_OBJECTS; i++) {
		crowd.nr_processes = 0;
		struct mm_slot *two = add(&crowd, "aa", i % 2), *more = add(&crowd, "aa", i % 4 > 1);
		full(crowd.engine);
		EXPECT_CHAINS(&crowd, 1, 2);
		switch (i % 3) {
		case 0:				/* with its last dup */
			break;
		case 1:				/* pruned */
			leave(&crowd, 0);
			lksm_prune_chains(crowd.engine, 0);
			break;
		default:			/* unmerged */
			lksm_unmerge(crowd.engine);
		}
		for (int j = 0; j < 2; j++)
			if (crowd.processes[j] == (j ? more : two))
				leave(&crowd, j);
		EXPECT_CHAINS(&crowd, 0, 0);
		reserved = i ? reserved : crowd.engine->memory.reserved[LKSM_FOR_NODES];
	}
	EXPECT_EQUAL(crowd.engine->memory.reserved[LKSM_FOR_NODES], reserved);
	EXPECT_EQUAL(frame_bytes(&crowd), 0);
	destroy_crowd(&crowd);
}

/* A content of several nodes that is deepened is found under its new key whichever of them goes. */
static void test_deepened_chain_changes(void)
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
		/* Down to one, older than the new key, which is found again as a plain node. */
		static const int others[][4] = { { 2, 3, 7, 8 }, { 4, 5, 7, 8 }, { 0, 1, 7, 8 } };
		for (int i = 0; i < 4; i++)
			leave(&crowd, others[leaver / 2][i]);
		EXPECT_CHAINS(&crowd, 1, 1);
		lksm_prune_chains(engine, 0);
		EXPECT_CHAINS(&crowd, 0, 0);
		EXPECT_COUNTERS(engine, 1, 1, 1);
		add(&crowd, "aa", false);
		full(engine);
		EXPECT_COUNTERS(engine, 2, 2, 1);
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

/* Under a limit, too, a frame of a chain that cannot be copied dissolves alone. */
static void test_dup_dissolves(void)
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
	EXPECT_CHAINS(&crowd, 1, 1);
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
		TEST(test_closed_form_of_random_numbers),
		TEST(test_chain_shrinks),
		TEST(test_search_collapses_lone_chain),
		TEST(test_reports_leave_lone_chain),
		TEST(test_prune_times),
		TEST(test_due_search_fills_the_fullest),
		TEST(test_clock_goes_back),
		TEST(test_no_memory_for_chain),
		TEST(test_chains_are_given_back),
		TEST(test_deepened_chain_changes),
		TEST(test_frame_is_copied_once_or_borrowed),
		TEST(test_frame_is_borrowed_from_twin),
		TEST(test_lender_leaves_to_lender),
		TEST(test_lender_leaves_to_copy),
		TEST(test_lender_leaves_and_node_dissolves),
		TEST(test_leaving_process_is_no_lender),
		TEST(test_lender_is_unmapped),
		TEST(test_dup_dissolves),
		TEST(test_dups_share_one_copy),
		TEST(test_exit_never_fails),
	};
	return run_tests(tests, NR_TESTS(tests));
}
