/*
 * test_helpers.c - what other threads find out before a visit changes how long that takes, and nothing else.
 *
 * test_random.c scans with help too; tests/test_crew.py holds scans of several threads to those of one.
 */
#include "fixture.h"

#include "helpers.h"

/* --- a helper that comes whenever a sample is taken --------------------------------------------- */

static struct engine *helped;		/* NULL: nobody is */
static unsigned nr_at_a_time;		/* errands */
static uint64_t nr_done;
static lksm_hash real_hash;

static void help(void)
{
	struct engine *engine = helped;
	helped = NULL;	/* an errand may hash */
	for (unsigned i = 0; engine && i < nr_at_a_time && helpers_do_one(engine); i++)
		nr_done++;
	helped = engine;
}

static uint64_t helping_hash(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	help();
	return real_hash(bytes, nr_bytes, secret, secret_size);
}

static int scan_with_help_at_samples(struct engine *engine, unsigned nr_errands, uint64_t *nr_scanned_ret)
{
	lksm_begin_help(engine, 100);
	helped = engine;
	nr_at_a_time = nr_errands;
	int error = lksm_scan(engine, 1000000, 0, nr_scanned_ret);
	helped = NULL;
	lksm_end_help(engine);
	return error;
}

/* --- two engines with the same pages: one is helped, the other is not ---------------------------- */

#define NR_PAGES 330

struct pair {
	struct engine *engines[2];
	struct mm_slot *processes[2][2];
	uint8_t *pages;
};

static struct pair make_pair(struct setup setup, const char *picture, bool is_immutable)
{
	struct pair pair = { 0 };
	for (int i = 0; i < 2; i++)
		pair.engines[i] = make_engine(setup);
	pair.pages = make_pages(pair.engines[0], picture);
	uint64_t half = strlen(picture) / 2, page_size = pair.engines[0]->rules.page_size;
	for (int i = 0; i < 2; i++)
		for (uint64_t j = 0; j < 2; j++)
			pair.processes[i][j] = make_process(pair.engines[i], pair.pages + j * half * page_size, half, is_immutable);
	return pair;
}

/* The first page that has another frame in the other process, or the number of pages. */
static uint64_t first_elsewhere(const struct mm_slot *one, const struct mm_slot *other)
{
	uint64_t nr_pages = one->nr_pages, page = 0;
	int64_t *entries = malloc(2 * nr_pages * sizeof(*entries));
	lksm_page_table(one, entries);
	lksm_page_table(other, entries + nr_pages);
	while (page < nr_pages && entries[page] == entries[nr_pages + page])
		page++;
	free(entries);
	return page;
}

static void expect_same_at(const char *place, const struct pair *pair)
{
	struct lksm_counters one = counters_of(pair->engines[0]), other = counters_of(pair->engines[1]);
	expect_at(!memcmp(&one, &other, sizeof(one)), place, "with help (%" PRIu64 ",%" PRIu64 ",%" PRIu64 "), %" PRIu64
		  " compared, %" PRIu64 " hashed; without (%" PRIu64 ",%" PRIu64 ",%" PRIu64 "), %" PRIu64 ", %" PRIu64,
		  one.pages_shared, one.pages_sharing, one.pages_unshared, one.bytes_compared, one.bytes_hashed,
		  other.pages_shared, other.pages_sharing, other.pages_unshared, other.bytes_compared, other.bytes_hashed);
	for (int j = 0; j < 2; j++) {
		uint64_t page = first_elsewhere(pair->processes[0][j], pair->processes[1][j]);
		expect_at(page == pair->processes[0][j]->nr_pages, place, "page %" PRIu64 " is elsewhere", page);
	}
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

/* --- tests ------------------------------------------------------------------------------------- */

/* The helper of a round: nobody comes, one comes often, now and then, as a thread of its own. */
static void scan_both(struct pair *pair, int round)
{
	uint64_t nr_scanned;
	for (int i = 0; i < 2; i++) {
		lksm_begin_round(pair->engines[i], 0);
		enqueue_all(pair->engines[i]);
	}
	if (round % 4 == 0)	/* ends while errands wait */
		EXPECT_EQUAL(scan_with_help(pair->engines[0], 0, 100, 0, &nr_scanned), LKSM_OK);
	else if (round % 4 == 3)
		EXPECT_EQUAL(scan_with_help(pair->engines[0], 1, 1000000, 0, &nr_scanned), LKSM_OK);
	else
		EXPECT_EQUAL(scan_with_help_at_samples(pair->engines[0], round % 4 == 1 ? 100 : 1, &nr_scanned), LKSM_OK);
	for (int i = 0; i < NR_ERRANDS; i++)
		EXPECT_EQUAL(pair->engines[0]->helpers.errands[i].state, ERRAND_NONE);
	EXPECT_EQUAL(pair->engines[0]->ahead.nr_wanted, 0);
	scan_to_end(pair->engines[0]);
	scan_to_end(pair->engines[1]);
}

/* Counters, also those of bytes looked at, and page tables are those of a scan without help. */
static void test_nothing_changes(void)
{
	uint64_t random = 3;
	nr_done = 0;
	for (unsigned which = 0; which < 3 * 4 * 64; which++) {
		real_hash = all_hashes[which % 3];
		struct setup setup = {
			.hash = helping_hash,
			.page_size = (uint64_t[]){ 64, 256, 4096, 8192 }[which / 3 % 4],
			.gate_first = which / 12 & 1,
			.initial_rounds = which / 12 & 2 ? 4 : 0,
			.max_page_sharing = which / 12 & 4 ? 2 : 0,
			.is_secure = which / 12 & 8,
		};
		bool is_immutable = which / 12 & 16;
		char picture[NR_PAGES + 1] = { 0 };
		for (int i = 0; i < NR_PAGES; i++)
			picture[i] = "0abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ123456789"[next_random(&random) % 62];
		struct pair pair = make_pair(setup, picture, is_immutable);
		for (int i = 0; i < 2; i++) {
			lksm_set_use_zero_pages(pair.engines[i], which / 12 & 32);
			lksm_set_smart_scan(pair.engines[i], which / 12 & 2);
			uint64_t gaps = which;	/* pages that the walk leaves out */
			for (int j = 0; j < 40; j++) {
				struct mm_slot *process = pair.processes[i][j % 2];
				uint64_t page = next_random(&gaps) % process->nr_pages;
				EXPECT_EQUAL(lksm_process_advise(process, page, page + 1, false), LKSM_OK);
				if (j % 8 == 0)
					EXPECT_EQUAL(lksm_process_unmap(process, page, page + 1), LKSM_OK);
			}
		}
		for (int round = 0; round < 6; round++) {
			scan_both(&pair, round);
			EXPECT_SAME(&pair);
			for (int i = 0; i < 100 && !is_immutable; i++)
				fill_page(pair.engines[0], pair.pages + next_random(&random) % NR_PAGES * setup.page_size,
					  (char)('a' + next_random(&random) % 26));
		}
		destroy_pair(&pair);
	}
	EXPECT(nr_done > 20000);
}

/*
 * A frame that a page was compared with goes, and another one comes to its place: what was said of the first is forgotten.
 * The hash tells nothing apart, so that only this compare says what is equal.
 */
static void test_frames_are_forgotten(void)
{
	for (uint64_t gap = 8; gap <= 24; gap += 16) {
		uint64_t last = 2 + gap;
		real_hash = hash_0_bits;
		struct engine *engine = make_engine((struct setup){ .hash = helping_hash, .page_size = 4096 });
		uint8_t *pages = make_pages(engine, gap == 24 ? "aa------------------------b" : "aa--------b");
		struct mm_slot *process = make_process(engine, pages, last + 1, false);
		EXPECT_EQUAL(lksm_process_advise(process, 2, last, false), LKSM_OK);
		full(engine);
		EXPECT_COUNTERS(engine, 1, 1, 1);
		uint32_t node = item_of(process, 0)->sharer.node;
		const uint8_t *frame = node_at(engine, node)->bytes;
		fill_page(engine, pages + 0 * 4096, 'x');
		fill_page(engine, pages + 1 * 4096, 'x');
		fill_page(engine, pages + last * 4096, 'a');
		uint64_t nr_scanned;
		lksm_begin_round(engine, 0);
		enqueue_all(engine);
		nr_done = 0;
		EXPECT_EQUAL(scan_with_help_at_samples(engine, 100, &nr_scanned), LKSM_OK);
		EXPECT_EQUAL(nr_done, 1);	/* of the last page, which is of another group than the first */
		EXPECT_EQUAL(item_of(process, 0)->sharer.node, node);
		EXPECT(node_at(engine, node)->bytes == frame);
		EXPECT_COUNTERS(engine, 1, 1, 1);
		EXPECT_EQUAL(frame_of(process, last), LKSM_ENTRY_PRIVATE);
		DESTROY(engine);
		free(pages);
	}
}

/* The same for a node whose frame is a page of its owner: that page stays, but the reference is another node's. */
static void test_nodes_are_forgotten(void)
{
	real_hash = hash_0_bits;
	struct engine *engine = make_engine((struct setup){ .hash = helping_hash, .page_size = 4096 });
	uint8_t *pages = make_pages(engine, "yaaxx-----a");
	struct mm_slot *process = make_process(engine, pages, 11, true);
	EXPECT_EQUAL(lksm_process_advise(process, 0, 1, false), LKSM_OK);
	EXPECT_EQUAL(lksm_process_advise(process, 3, 11, false), LKSM_OK);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 0);
	uint32_t node = item_of(process, 1)->sharer.node;
	EXPECT_EQUAL(lksm_process_advise(process, 0, 1, true), LKSM_OK);
	EXPECT_EQUAL(lksm_process_advise(process, 1, 3, false), LKSM_OK);
	EXPECT_EQUAL(lksm_process_advise(process, 3, 5, true), LKSM_OK);
	EXPECT_EQUAL(lksm_process_advise(process, 10, 11, true), LKSM_OK);	/* of another group than the first */
	uint64_t nr_scanned;
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	nr_done = 0;
	EXPECT_EQUAL(scan_with_help_at_samples(engine, 100, &nr_scanned), LKSM_OK);
	EXPECT(nr_done > 0);
	EXPECT_EQUAL(item_of(process, 3)->sharer.node, node);
	EXPECT_EQUAL(frame_of(process, 10), LKSM_ENTRY_PRIVATE);
	EXPECT_COUNTERS(engine, 1, 1, 2);
	DESTROY(engine);
	free(pages);
}

/* --- frames that go while somebody is sent -------------------------------------------------------- */

#define NR_FAR 130	/* pages, so that samples are taken after the first visit */

static struct engine *watched;	/* by the hash */
static const uint8_t *old_frame;	/* whose bytes were freed if the node's are others */
static uint32_t old_node;
static uint64_t nr_looks, nr_stale;

/* Is somebody sent to compare a page with it? */
static bool names_old_frame(const struct errand *errand)
{
	unsigned compared = errand->state == ERRAND_NONE ? 0 : errand->pages & ~(unsigned)errand->hashes;
	for (unsigned i = 0; i < GROUP_PAGES; i++)
		if (compared >> i & 1 && errand->others[i] == old_frame)
			return true;
	return false;
}

/* Looks for pages to be compared with a frame which is gone. */
static uint64_t watching_hash(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	if (watched && node_at(watched, old_node)->bytes != old_frame) {
		nr_looks++;
		for (size_t i = 0; i < AHEAD_PAGES; i++)
			nr_stale += watched->ahead.foreseen[i].is_frame &&
				    watched->ahead.foreseen[i].other == old_frame;
		for (size_t i = 0; i < NR_ERRANDS; i++)
			nr_stale += names_old_frame(&watched->helpers.errands[i]);
	}
	return strong_hash(bytes, nr_bytes, secret, secret_size);
}

/* All different, but for those that are named. */
static uint8_t *make_far_pages(struct engine *engine, uint64_t one, uint64_t another)
{
	char picture[NR_FAR + 1] = { 0 };
	memset(picture, '-', NR_FAR);
	uint8_t *pages = make_pages(engine, picture);
	for (uint64_t i = 0; i < NR_FAR; i++)
		memcpy(pages + i * 256, &i, sizeof(i));
	fill_page(engine, pages + one * 256, 'a');
	fill_page(engine, pages + another * 256, 'a');
	return pages;
}

/* Scans one process, with helpers who do nothing; at the first visit the node's frame is another one. */
static void scan_and_watch(struct engine *engine, struct mm_slot *process, uint32_t node)
{
	old_node = node;
	old_frame = node_at(engine, node)->bytes;
	nr_looks = nr_stale = 0;
	lksm_begin_round(engine, 0);
	enqueue(process, false);
	lksm_begin_help(engine, 100);
	watched = engine;
	scan_to_end(engine);
	watched = NULL;
	lksm_end_help(engine);
	EXPECT(nr_looks > 0);
	EXPECT_EQUAL(nr_stale, 0);
}

/* A node that was moved comes to a content that has a frame there, and gives up its own. */
static void test_a_moved_frame_is_forgotten(void)
{
	struct engine *engine = make_engine((struct setup){ .hash = watching_hash, .nr_nodes = 2 });
	EXPECT_EQUAL(lksm_set_merge_across_nodes(engine, false), LKSM_OK);
	uint8_t *near = make_pages(engine, "aa"), *far = make_far_pages(engine, 0, 28);
	make_process(engine, near, 2, false);
	struct mm_slot *process = make_process_at(engine, far, NR_FAR, 1, 0, false);
	full(engine);
	EXPECT_COUNTERS(engine, 2, 2, NR_FAR - 2);
	EXPECT_EQUAL(lksm_process_move(process, 0, NR_FAR, 0), LKSM_OK);
	scan_and_watch(engine, process, item_of(process, 0)->sharer.node);
	EXPECT_COUNTERS(engine, 2, 2, NR_FAR - 2);
	DESTROY(engine);
	free(near);
	free(far);
}

/* A chain's copy of the bytes goes when a moved dup leaves it, and the one that is left has no need of it. */
static void test_a_copy_is_forgotten(void)
{
	struct engine *engine =
		make_engine((struct setup){ .hash = watching_hash, .nr_nodes = 2, .max_page_sharing = 3 });
	EXPECT_EQUAL(lksm_set_merge_across_nodes(engine, false), LKSM_OK);
	uint8_t *lent = make_pages(engine, "aaa"), *far = make_far_pages(engine, 1, 28);
	make_process(engine, lent, 3, true);
	struct mm_slot *process = make_process(engine, far, NR_FAR, false);
	full(engine);
	EXPECT_COUNTERS(engine, 2, 3, NR_FAR - 2);
	EXPECT_EQUAL(lksm_process_move(process, 1, 2, 1), LKSM_OK);
	fill_page(engine, far, 'a');
	scan_and_watch(engine, process, item_of(process, 1)->sharer.node);
	EXPECT_COUNTERS(engine, 2, 3, NR_FAR - 2);
	DESTROY(engine);
	free(lent);
	free(far);
}

/* A page is compared with the first frame of a chain, and when it is visited another one is the first. */
static void test_a_chain_turns(void)
{
	uint64_t nr_compared[2];
	for (int is_helped = 0; is_helped < 2; is_helped++) {
		real_hash = strong_hash;
		struct engine *engine = make_engine((struct setup){ .hash = helping_hash, .max_page_sharing = 3 });
		char picture[NR_FAR + 1] = { 0 };
		memset(picture, 'a', NR_FAR);
		uint8_t *pages = make_pages(engine, picture);
		make_process(engine, pages, NR_FAR, true);
		uint64_t nr_scanned;
		lksm_begin_round(engine, 0);
		enqueue_all(engine);
		nr_done = 0;
		EXPECT_EQUAL(scan_with_help_at_samples(engine, is_helped ? 100 : 0, &nr_scanned), LKSM_OK);
		EXPECT_EQUAL(nr_done > 0, is_helped);
		EXPECT_COUNTERS(engine, NR_FAR / 3, NR_FAR / 3 * 2, 1);
		nr_compared[is_helped] = counters_of(engine).bytes_compared;
		DESTROY(engine);
		free(pages);
	}
	EXPECT_EQUAL(nr_compared[1], nr_compared[0]);
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

/* The same number for all pages of some letters, sampled or whole. */
static uint64_t same_for_some(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	help();
	uint8_t last = ((const uint8_t *)bytes)[nr_bytes - 1];
	return strchr("ayz", last) ? 7 : strong_hash(bytes, nr_bytes, secret, secret_size);
}

static void advise_each(struct mm_slot *process, const uint64_t *pages, bool is_mergeable)
{
	for (int i = 0; i < 4; i++)
		EXPECT_EQUAL(lksm_process_advise(process, pages[i], pages[i] + 1, is_mergeable), LKSM_OK);
}

/*
 * Page 0 is hashed. Then nothing is wanted for so long that its group's place, which is that of page 128, is taken by pages
 * that want nothing. What somebody is sent for when the next ones want something is not page 0, and nothing that is
 * found out then is said of page 256, which comes to its place.
 */
static void test_what_was_wanted_before(void)
{
	static const uint64_t late[4] = { 0, 137, 140, 256 };
	struct engine *engine = make_engine((struct setup){ .hash = same_for_some });
	char picture[331] = { 0 };
	memset(picture, '-', 330);
	uint8_t *pages = make_pages(engine, picture);
	for (uint64_t i = 0; i < 330; i++)
		memcpy(pages + i * 256, &i, sizeof(i));
	fill_page(engine, pages + 300 * 256, 'a');
	fill_page(engine, pages + 320 * 256, 'y');
	struct mm_slot *process = make_process(engine, pages, 330, true);
	advise_each(process, late, false);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 326);
	fill_page(engine, pages, 'z');
	memcpy(pages + 256 * 256, forest_peek_page(&process->index->trees[0].kept, 7), 256);
	advise_each(process, late, true);
	uint64_t nr_scanned;
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	EXPECT_EQUAL(scan_with_help_at_samples(engine, 100, &nr_scanned), LKSM_OK);
	EXPECT_COUNTERS(engine, 1, 1, 328);
	DESTROY(engine);
	free(pages);
}

static void write_after_compare(void *pages)
{
	nr_at_a_time = 100;
	help();
	memset((uint8_t *)pages + 10 * 256, 'f', 256);
}

/* What an owner writes between the compare and the visit is found out before the page is merged: row 13. */
static void test_page_changes_meanwhile(void)
{
	real_hash = strong_hash;
	struct engine *engine = make_engine((struct setup){ .hash = helping_hash });
	uint8_t *first = make_pages(engine, "ab"), *second = make_pages(engine, "xxc-------b");
	make_process(engine, first, 2, false);
	struct mm_slot *process = make_process(engine, second, 11, false);
	uint64_t nr_scanned;
	EXPECT_EQUAL(lksm_process_advise(process, 3, 10, false), LKSM_OK);
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	scan_pages(engine, 2);
	engine->before_merge = write_after_compare;
	engine->before_merge_data = second;
	nr_done = 0;
	EXPECT_EQUAL(scan_with_help_at_samples(engine, 0, &nr_scanned), LKSM_OK);
	engine->before_merge = NULL;
	EXPECT_EQUAL(nr_scanned, 4);
	EXPECT(nr_done > 0);
	EXPECT_COUNTERS(engine, 1, 1, 3);
	EXPECT_EQUAL(frame_of(process, 10), LKSM_ENTRY_PRIVATE);
	EXPECT_EQUAL(full(engine), 6);
	EXPECT_COUNTERS(engine, 1, 1, 4);
	DESTROY(engine);
	free(first);
	free(second);
}

/* What a page is wanted for. */
static void note(struct engine *engine, unsigned place, const uint8_t *bytes, const uint8_t *other)
{
	engine->ahead.foreseen[place] = (struct foreseen){ .bytes = bytes, .other = other, .is_hash = !other };
}

/* The first that was sent for is run first; what is taken back is not run, and what was run is settled once. */
static void test_errands(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	const struct foreseen *foreseen = engine->ahead.foreseen;
	uint8_t *pages = make_pages(engine, "abb");
	struct errand *first = helpers_reads(engine, 0), *second = helpers_reads(engine, 1), *third = helpers_hashes(engine, 1);

	lksm_begin_help(engine, 1);
	note(engine, 0, pages, pages + 256);
	note(engine, 2, pages + 512, pages + 256);
	note(engine, 3, pages + 512, NULL);
	note(engine, 8, pages + 256, pages);
	EXPECT(!helpers_do_one(engine));
	helpers_send(engine, first, 1 | 4 | 8);
	helpers_send(engine, second, 1);
	EXPECT_EQUAL(lksm_nr_asked(engine), 4);
	EXPECT(helpers_do_one(engine));
	EXPECT_EQUAL(helpers_take_back(engine, second), 0);
	EXPECT_EQUAL(helpers_take_back(engine, second), 0);
	EXPECT_EQUAL(helpers_take_back(engine, first), 1 | 4 | 8);
	EXPECT(!foreseen[0].is_compared);
	helpers_settle(engine, first);
	helpers_settle(engine, second);
	EXPECT(foreseen[0].is_compared && foreseen[0].order < 0 && foreseen[0].nr_compared == 1);
	EXPECT(foreseen[2].is_compared && !foreseen[2].order && foreseen[2].nr_compared == 256);
	EXPECT(foreseen[3].has_hash && foreseen[3].hash == page_take_hash(&engine->rules, pages + 512));
	EXPECT(!foreseen[3].is_compared && !foreseen[1].is_compared && !foreseen[8].is_compared);
	EXPECT(!helpers_do_one(engine));
	EXPECT_EQUAL(helpers_take_back(engine, first), 0);

	/* Nobody is sent for more than can be done soon, until some of it is done or taken back. */
	note(engine, 9, pages, NULL);
	helpers_send(engine, first, 1);
	helpers_send(engine, second, 1);
	helpers_send(engine, third, 2);
	helpers_send(engine, helpers_hashes(engine, 0), 8);
	EXPECT_EQUAL(helpers_hashes(engine, 0)->state, ERRAND_NONE);
	EXPECT_EQUAL(helpers_take_back(engine, first), 0);
	helpers_send(engine, helpers_hashes(engine, 0), 8);
	EXPECT_EQUAL(helpers_hashes(engine, 0)->state, ERRAND_OPEN);
	for (int i = 0; i < 3; i++)
		EXPECT(helpers_do_one(engine));
	EXPECT(!helpers_do_one(engine));
	helpers_settle(engine, second);
	helpers_settle(engine, third);
	EXPECT(foreseen[8].order > 0 && foreseen[8].nr_compared == 1);
	EXPECT(foreseen[9].has_hash && foreseen[9].hash == page_take_hash(&engine->rules, pages));
	helpers_settle(engine, helpers_hashes(engine, 0));
	lksm_end_help(engine);
	DESTROY(engine);
	free(pages);
}

static pthread_t scanning;
static _Atomic uint64_t nr_by_others;	/* hashes */

static uint64_t counting_hash(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	nr_by_others += !pthread_equal(pthread_self(), scanning);
	return strong_hash(bytes, nr_bytes, secret, secret_size);
}

/* Four threads help, and it is as if one had scanned. */
static void test_threads(void)
{
	enum { MANY = 5000 };
	scanning = pthread_self();
	nr_by_others = 0;
	struct engine *engines[2] = { make_engine((struct setup){ .hash = counting_hash }), make_engine((struct setup){ 0 }) };
	struct mm_slot *processes[2];
	uint8_t *pages = malloc(MANY * 256);
	uint64_t random = 5, nr_scanned;
	for (uint64_t i = 0; i < MANY; i++) {
		fill_page(engines[0], pages + i * 256, 'a');
		pages[i * 256 + engines[0]->rules.lines[0]] = (uint8_t)(next_random(&random) % 100);
		pages[i * 256 + engines[0]->rules.lines[1]] = (uint8_t)(next_random(&random) % 10);
		pages[i * 256 + unsampled_byte(engines[0])] = next_random(&random) % 4 == 0;
	}
	for (int i = 0; i < 2; i++)
		processes[i] = make_process(engines[i], pages, MANY, false);
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < 2; i++) {
			lksm_begin_round(engines[i], 0);
			enqueue_all(engines[i]);
		}
		EXPECT_EQUAL(scan_with_help(engines[0], 4, MANY, 0, &nr_scanned), LKSM_OK);
		EXPECT_EQUAL(nr_scanned, MANY);
		scan_to_end(engines[1]);
		struct lksm_counters one = counters_of(engines[0]), other = counters_of(engines[1]);
		EXPECT(!memcmp(&one, &other, sizeof(one)));
		EXPECT_EQUAL(first_elsewhere(processes[0], processes[1]), MANY);
		for (int i = 0; i < 500; i++)
			fill_page(engines[0], pages + next_random(&random) % MANY * 256, (char)('a' + i % 50));
	}
	EXPECT(lksm_nr_asked(engines[0]) > 10000);
	EXPECT(nr_by_others > 0);
	EXPECT_EQUAL(lksm_nr_asked(engines[1]), 0);
	for (int i = 0; i < 2; i++)
		DESTROY(engines[i]);
	free(pages);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_nothing_changes),
		TEST(test_frames_are_forgotten),
		TEST(test_nodes_are_forgotten),
		TEST(test_a_chain_turns),
		TEST(test_a_moved_frame_is_forgotten),
		TEST(test_a_copy_is_forgotten),
		TEST(test_what_has_gone),
		TEST(test_what_was_wanted_before),
		TEST(test_page_changes_meanwhile),
		TEST(test_errands),
		TEST(test_threads),
	};
	return run_tests(tests, NR_TESTS(tests));
}
