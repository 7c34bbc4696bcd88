/*
 * test_zero.c - the zero frame: who gets there, who leaves, and that a page is saved once.
 *
 * Rows 32 to 35 of the specification are in test_merge.c.
 */
#include "fixture.h"
#include "zero.h"

static struct engine *make_zero_engine(struct setup setup)
{
	struct engine *engine = make_engine(setup);
	lksm_set_use_zero_pages(engine, true);
	return engine;
}

static void expect_zero_at(const char *place, struct engine *engine, uint64_t zero_pages, uint64_t zero_saved)
{
	struct lksm_counters c = counters_of(engine);
	expect_sound_at(place, engine);
	expect_at(c.zero_pages == zero_pages && c.zero_saved == zero_saved, place,
		  "%" PRIu64 " zero pages save %" PRIu64 ", expected %" PRIu64 " and %" PRIu64, c.zero_pages, c.zero_saved,
		  zero_pages, zero_saved);
}
/* Compares the pages on the zero frame, and what they save, and checks the engine. */
#define EXPECT_ZERO(engine, zero_pages, zero_saved) expect_zero_at(PLACE, engine, zero_pages, zero_saved)

/* --- visits ---------------------------------------------------------------------------------- */

/* A page on the zero frame is passed without item or budget; one that has changed is visited in that pass. */
static void test_looked_at_again(void)
{
	struct engine *engine = make_zero_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "0a00b0");
	struct mm_slot *process = make_process(engine, pages, 6, false);
	EXPECT_EQUAL(full(engine), 6);
	EXPECT_COUNTERS(engine, 0, 0, 2);
	EXPECT_ZERO(engine, 4, 4);
	EXPECT_EQUAL(volatile_of(engine), 4);
	EXPECT_EQUAL(full(engine), 2);
	EXPECT_EQUAL(counters_of(engine).rmap_items, 2);
	pages[3 * 256 + 255] = 1;
	EXPECT_EQUAL(frame_of(process, 3), LKSM_ENTRY_ZERO);	/* what the last look knew */
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	EXPECT_EQUAL(scan_pages(engine, 1), 1);
	EXPECT_ZERO(engine, 3, 3);	/* a batch looks for its next page, so it has come so far */
	EXPECT_EQUAL(scan_pages(engine, 1), 1);
	EXPECT_COUNTERS(engine, 0, 0, 3);
	EXPECT_EQUAL(scan_pages(engine, 5), 1);
	EXPECT_EQUAL(frame_of(process, 3), LKSM_ENTRY_PRIVATE);
	memset(pages + 3 * 256, 0, 256);
	EXPECT_EQUAL(full(engine), 3);
	EXPECT_COUNTERS(engine, 0, 0, 2);
	EXPECT_ZERO(engine, 4, 4);
	DESTROY(engine);
	free(pages);
}

/* A zero page that changes before its item has gone is visited with that item, behind upstream's gate too. */
static void test_changed_at_once(void)
{
	for (int gate_first = 0; gate_first < 2; gate_first++) {
		struct engine *engine = make_zero_engine((struct setup){ .gate_first = gate_first });
		uint8_t *pages = make_pages(engine, "00a");
		struct mm_slot *process = make_process(engine, pages, 3, false);
		full(engine);
		EXPECT_ZERO(engine, gate_first ? 0 : 2, gate_first ? 0 : 2);
		if (gate_first)
			full(engine);
		EXPECT_ZERO(engine, 2, 2);
		fill_page(engine, pages, 'a');
		EXPECT_EQUAL(full(engine), 2);
		EXPECT_COUNTERS(engine, gate_first ? 0 : 1, gate_first ? 0 : 1, gate_first);
		full(engine);
		EXPECT_COUNTERS(engine, 1, 1, 0);
		EXPECT_EQUAL(frame_of(process, 1), LKSM_ENTRY_ZERO);
		DESTROY(engine);
		free(pages);
	}
}

/* Turning the knob on or off affects later visits: what is merged stays merged, what is on the zero frame too. */
static void test_knob_affects_later_visits(void)
{
	for (int gate_first = 0; gate_first < 2; gate_first++) {
		struct engine *engine = make_engine((struct setup){ .gate_first = gate_first });
		uint8_t *pages = make_pages(engine, "000000");
		struct mm_slot *merged = make_process(engine, pages, 2, false);
		full(engine);
		full(engine);
		EXPECT_COUNTERS(engine, 1, 1, 0);
		lksm_set_use_zero_pages(engine, true);
		struct mm_slot *process = make_process(engine, pages + 2 * 256, 2, false);
		full(engine);
		full(engine);
		/* LKSM: the merged content of zeros wins. Upstream: the zero frame is asked first. */
		EXPECT_COUNTERS(engine, 1, gate_first ? 1 : 3, 0);
		EXPECT_ZERO(engine, gate_first ? 2 : 0, gate_first ? 2 : 0);
		lksm_set_use_zero_pages(engine, false);
		make_process(engine, pages + 4 * 256, 2, false);
		full(engine);
		full(engine);
		EXPECT_COUNTERS(engine, 1, gate_first ? 3 : 5, 0);
		EXPECT_ZERO(engine, gate_first ? 2 : 0, gate_first ? 2 : 0);
		EXPECT(frame_of(merged, 0) >= 0 && (frame_of(process, 0) == LKSM_ENTRY_ZERO) == gate_first);
		DESTROY(engine);
		free(pages);
	}
}

/* With the knob on, pages of zeros whose merged content has only full frames go to the zero frame. */
static void test_full_frames_of_zeros(void)
{
	struct engine *engine = make_engine((struct setup){ .max_page_sharing = 2 });
	uint8_t *pages = make_pages(engine, "000");
	make_process(engine, pages, 2, false);
	full(engine);
	lksm_set_use_zero_pages(engine, true);
	make_process(engine, pages + 2 * 256, 1, false);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 0);
	EXPECT_ZERO(engine, 1, 1);
	DESTROY(engine);
	free(pages);
}

/* Pages that are not zero are told from it by their keys, immutable ones that have been hashed by their bytes. */
static void test_cost_of_other_pages(void)
{
	for (int is_immutable = 0; is_immutable < 2; is_immutable++) {
		struct engine *engine = make_zero_engine((struct setup){ .page_size = 4096 });
		uint8_t *pages = make_pages(engine, "abcd0");
		make_process(engine, pages, 5, is_immutable);
		full(engine);
		EXPECT_COUNTERS(engine, 0, 0, 4);
		EXPECT_EQUAL(counters_of(engine).bytes_compared, 4096);
		EXPECT_EQUAL(counters_of(engine).bytes_hashed, 5 * SAMPLE_SIZE);
		full(engine);
		EXPECT_EQUAL(counters_of(engine).bytes_compared, is_immutable ? 4096 : 2 * 4096);
		DESTROY(engine);
		free(pages);
	}
}

/* A page on the zero frame is read for zeros in each pass, and no key is taken from it. */
static void test_cost_of_zero_pages(void)
{
	struct engine *engine = make_zero_engine((struct setup){ .page_size = 4096 });
	uint8_t *pages = make_pages(engine, "a0000000000000000000b");
	make_process(engine, pages, 21, false);
	full(engine);
	engine->indexes->tally.work = (struct work){ 0 };
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 2);
	EXPECT_EQUAL(counters_of(engine).bytes_compared, 19 * 4096);
	EXPECT_EQUAL(counters_of(engine).bytes_hashed, 2 * SAMPLE_SIZE);
	/* A write is found as early as it stands. */
	uint32_t at = engine->rules.lines[1] + 5;
	pages[4096 * 7 + at] = 1;
	engine->indexes->tally.work = (struct work){ 0 };
	full(engine);
	EXPECT_EQUAL(counters_of(engine).bytes_compared, 18 * 4096 + at + 1);
	DESTROY(engine);
	free(pages);
}

/* An immutable page of zeros whose class was deepened while the knob was off is found when it is on. */
static void test_deep_key(void)
{
	struct engine *engine = make_engine((struct setup){ .gate_first = true });
	uint8_t *pages = make_pages(engine, "00");
	pages[256 + unsampled_byte(engine)] = 1;
	struct mm_slot *process = make_process(engine, pages, 2, true);
	full(engine);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 2);
	EXPECT(item_of(process, 0)->has_key);
	EXPECT(item_of(process, 0)->key != engine->rules.zero_sample);
	lksm_set_use_zero_pages(engine, true);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 1);
	EXPECT_ZERO(engine, 1, 1);
	EXPECT_EQUAL(frame_of(process, 0), LKSM_ENTRY_ZERO);
	DESTROY(engine);
	free(pages);
}

/* Where the hash has been taken it tells other pages from zeros: one pass over the page is enough. */
static void test_hash_is_enough(void)
{
	struct engine *engine = make_zero_engine((struct setup){ .page_size = 4096, .gate_first = true });
	uint8_t *pages = make_pages(engine, "00");
	pages[4096 + unsampled_byte(engine)] = 1;
	make_process(engine, pages, 2, false);
	full(engine);
	engine->indexes->tally.work = (struct work){ 0 };
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 1);
	EXPECT_ZERO(engine, 1, 1);
	EXPECT_EQUAL(counters_of(engine).bytes_compared, 4096);
	EXPECT_EQUAL(counters_of(engine).bytes_hashed, 2 * 4096 + 2 * SAMPLE_SIZE);
	DESTROY(engine);
	free(pages);
}

/* The zeros that a page begins with are counted to the byte, at any alignment. */
static void test_zero_bytes(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *bytes = calloc(1, 257);
	for (uint64_t shift = 0; shift < 2; shift++) {
		EXPECT_EQUAL(page_zero_bytes(&engine->rules, bytes + shift), 256);
		for (uint64_t at = 0; at < 256; at++) {
			bytes[shift + at] = 0x80;
			EXPECT_EQUAL(page_zero_bytes(&engine->rules, bytes + shift), at);
			EXPECT(!page_is_zero(&engine->rules, bytes + shift));
			bytes[shift + at] = 0;
		}
	}
	DESTROY(engine);
	free(bytes);
}

/* --- leaving --------------------------------------------------------------------------------- */

/* Write, unmap, advice, exit and unmerge take pages off the zero frame at once. */
static void test_leaving(void)
{
	struct engine *engine = make_zero_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "00000000");
	struct mm_slot *process = make_process(engine, pages, 8, false);
	struct lksm_explanation explanation;
	full(engine);
	full(engine);
	EXPECT_ZERO(engine, 8, 8);
	EXPECT_EQUAL(status_of(process).zero_pages, 8);
	EXPECT_EQUAL(write_page(process, 0, '0'), LKSM_OK);	/* equal bytes, but a write all the same */
	EXPECT_ZERO(engine, 7, 7);
	EXPECT_EQUAL(frame_of(process, 0), LKSM_ENTRY_PRIVATE);
	EXPECT_EQUAL(lksm_process_unmap(process, 1, 3), LKSM_OK);
	EXPECT_ZERO(engine, 5, 5);
	EXPECT_EQUAL(frame_of(process, 1), LKSM_ENTRY_ABSENT);
	EXPECT_EQUAL(lksm_process_advise(process, 3, 4, false), LKSM_OK);
	EXPECT_ZERO(engine, 4, 4);
	EXPECT_EQUAL(frame_of(process, 3), LKSM_ENTRY_PRIVATE);
	EXPECT_EQUAL(lksm_process_advise(process, 3, 8, true), LKSM_OK);
	EXPECT_ZERO(engine, 4, 4);
	EXPECT_EQUAL(lksm_explain(process, 4, false, &explanation), LKSM_OK);
	EXPECT_EQUAL(explanation.reason, LKSM_ZERO);
	EXPECT_EQUAL(explanation.frame, -1);
	lksm_unmerge(engine);
	EXPECT_ZERO(engine, 0, 0);
	EXPECT_EQUAL(frame_of(process, 4), LKSM_ENTRY_PRIVATE);
	full(engine);
	EXPECT_ZERO(engine, 6, 6);
	EXPECT_PICTURE(process, "0--00000");
	lksm_process_destroy(process);
	EXPECT_EQUAL(counters_of(engine).zero_pages, 0);
	DESTROY(engine);
	free(pages);
}

/* An engine may outlive the arrays and rows of its pages. */
static void test_arrays_go_first(void)
{
	struct engine *engine = make_zero_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "000");
	int64_t *rows = malloc(4 * sizeof(*rows));
	struct mm_slot *process = make_process(engine, pages, 3, false);
	for (int i = 0; i < 4; i++)
		rows[i] = i % 3;
	struct lksm_region view = { .address = 256 * 8, .pages = pages, .nr_array_pages = 3, .rows = rows, .nr_pages = 4 };
	EXPECT_EQUAL(lksm_process_map(process, &view), LKSM_OK);
	full(engine);
	EXPECT_ZERO(engine, 7, 3);
	free(rows);
	free(pages);
	lksm_engine_destroy(engine);
}

/* Domains are apart: each counts its own. */
static void test_domains(void)
{
	struct engine *engine = make_zero_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "00");
	struct mm_slot *other = NULL;
	struct lksm_counters counters;
	make_process(engine, pages, 2, false);
	EXPECT_EQUAL(lksm_process_create(engine, 7, &other), LKSM_OK);
	EXPECT_EQUAL(map_pages(other, 0, pages, 1), LKSM_OK);
	full(engine);
	lksm_counters(engine, 7, &counters);
	EXPECT(counters.zero_pages == 1 && counters.zero_saved == 1);
	lksm_counters(engine, 0, &counters);
	EXPECT(counters.zero_pages == 2 && counters.zero_saved == 2);
	EXPECT_ZERO(engine, 3, 3);
	DESTROY(engine);
	free(pages);
}

/* --- one page, several mappings -------------------------------------------------------------- */

/* Every mapping of a page is on the zero frame, in the same scan; one page is saved. */
static void test_same_array_three_times(void)
{
	struct engine *engine = make_zero_engine((struct setup){ .initial_rounds = 3 });
	uint8_t *pages = make_pages(engine, "00a0");
	struct mm_slot *processes[3];
	for (int i = 0; i < 3; i++)
		processes[i] = make_process(engine, pages, 4, false);
	full(engine);
	EXPECT_ZERO(engine, 0, 0);	/* the gate */
	EXPECT_EQUAL(full(engine), 12);
	EXPECT_ZERO(engine, 9, 3);
	EXPECT_COUNTERS(engine, 0, 0, 1);
	EXPECT_EQUAL(full(engine), 3);
	EXPECT_EQUAL(counters_of(engine).rmap_items, 3);
	EXPECT_ZERO(engine, 9, 3);
	/* The first owner lets go of page 0, then the others. */
	EXPECT_EQUAL(lksm_process_unmap(processes[0], 0, 1), LKSM_OK);
	EXPECT_ZERO(engine, 8, 3);
	lksm_process_destroy(processes[1]);
	EXPECT_ZERO(engine, 5, 3);
	EXPECT_EQUAL(lksm_process_advise(processes[2], 0, 1, false), LKSM_OK);
	EXPECT_ZERO(engine, 4, 2);
	/* A plain write is seen by both, each at its own visit. */
	pages[256] = 1;
	EXPECT_EQUAL(full(engine), 4);
	EXPECT_ZERO(engine, 2, 1);
	EXPECT_COUNTERS(engine, 0, 0, 2);
	DESTROY(engine);
	free(pages);
}

/* A second mapping of a zero page follows it, though the knob is off and zeros are merged too. */
static void test_later_mapping_follows(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "00"), *others = make_pages(engine, "00");
	struct mm_slot *merged = make_process(engine, others, 2, false);
	lksm_set_use_zero_pages(engine, true);
	struct mm_slot *first = make_process(engine, pages, 2, false);
	lksm_begin_round(engine, 0);
	enqueue(first, false);
	scan_to_end(engine);
	lksm_set_use_zero_pages(engine, false);
	lksm_begin_round(engine, 0);
	enqueue(merged, false);
	scan_to_end(engine);
	EXPECT_COUNTERS(engine, 1, 1, 0);
	struct mm_slot *second = make_process(engine, pages, 2, false);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 0);
	EXPECT_ZERO(engine, 4, 2);
	EXPECT_EQUAL(frame_of(second, 0), LKSM_ENTRY_ZERO);
	lksm_process_destroy(first);
	full(engine);
	EXPECT_ZERO(engine, 2, 2);
	/* As soon as nobody keeps it there, the page is one like others. */
	EXPECT_EQUAL(write_page(second, 0, '0'), LKSM_OK);
	full(engine);
	EXPECT_ZERO(engine, 1, 1);
	EXPECT_COUNTERS(engine, 1, 2, 0);
	DESTROY(engine);
	free(pages);
	free(others);
}

/* A candidate that has become one with a zero page since it was filed is no twin for anybody. */
static void test_candidate_becomes_a_zero_page(void)
{
	struct engine *engine = make_zero_engine((struct setup){ 0 });
	uint8_t *page = make_pages(engine, "0"), *other = make_pages(engine, "0");
	struct mm_slot *zero = make_process(engine, page, 1, false);
	full(engine);
	full(engine);	/* its item is gone */
	EXPECT_ZERO(engine, 1, 1);
	lksm_set_use_zero_pages(engine, false);
	struct mm_slot *again = make_process(engine, page, 1, false), *third = make_process(engine, other, 1, false);
	page[unsampled_byte(engine)] = 1;
	lksm_begin_round(engine, 0);
	enqueue(again, false);
	scan_to_end(engine);
	EXPECT_COUNTERS(engine, 0, 0, 1);
	page[unsampled_byte(engine)] = 0;
	enqueue(third, false);
	scan_to_end(engine);
	EXPECT_COUNTERS(engine, 0, 0, 1);
	EXPECT_ZERO(engine, 1, 1);
	full(engine);
	EXPECT_ZERO(engine, 2, 1);
	EXPECT_EQUAL(frame_of(zero, 0), LKSM_ENTRY_ZERO);
	EXPECT_EQUAL(frame_of(again, 0), LKSM_ENTRY_ZERO);
	EXPECT_EQUAL(frame_of(third, 0), LKSM_ENTRY_PRIVATE);
	DESTROY(engine);
	free(page);
	free(other);
}

/* Many addresses come and go in any order. They lie at random, so that they push each other out of their places. */
static void test_many_addresses(void)
{
	enum { NR_PAGES = 4000, NR_ROWS = 1000 };
	struct engine *engine = make_zero_engine((struct setup){ .page_size = 64 });
	uint8_t *pages = calloc(NR_PAGES, 64);
	int64_t rows[NR_ROWS];
	uint64_t random = 1, nr_zero = NR_PAGES, nr_zero_rows = 0;
	for (int i = 0; i < NR_PAGES; i++)
		if (next_random(&random) % 8) {
			pages[64 * i] = 1;
			nr_zero--;
		}
	struct mm_slot *plain = make_process(engine, pages, NR_PAGES, false), *view = NULL;
	full(engine);
	EXPECT_EQUAL(counters_of(engine).zero_saved, nr_zero);
	EXPECT_EQUAL(engine->indexes->zero.nr_places, 0);	/* nobody else has these pages */
	for (int i = 0; i < NR_ROWS; i++) {
		rows[i] = (int64_t)(next_random(&random) % (NR_PAGES + 1)) - 1;
		nr_zero_rows += rows[i] >= 0 && !pages[64 * rows[i]];
	}
	struct lksm_region region = {
		.pages = pages, .nr_array_pages = NR_PAGES, .rows = rows, .nr_pages = NR_ROWS
	};
	EXPECT_EQUAL(lksm_process_create(engine, 0, &view), LKSM_OK);
	EXPECT_EQUAL(lksm_process_map(view, &region), LKSM_OK);
	EXPECT_ZERO(engine, nr_zero, nr_zero);
	full(engine);
	EXPECT_ZERO(engine, nr_zero + nr_zero_rows, nr_zero);
	for (int i = 0; i < 10000; i++) {
		uint64_t page = next_random(&random) % (NR_PAGES + NR_ROWS);
		if (page < NR_PAGES)
			EXPECT_EQUAL(lksm_process_unmap(plain, page, page + 1), LKSM_OK);
		else
			EXPECT_EQUAL(lksm_process_unmap(view, page - NR_PAGES, page - NR_PAGES + 1), LKSM_OK);
		if (i % 200 == 0)
			EXPECT_SOUND(engine);
	}
	full(engine);
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free(pages);
}

/* --- fork ------------------------------------------------------------------------------------ */

/* A child inherits zero pages at once; they count for both and save one page. Row 12.1 of the specification. */
static void test_fork_inherits(void)
{
	struct engine *engine = make_zero_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "0a00");
	struct mm_slot *parent = make_process(engine, pages, 4, false), *child = NULL;
	full(engine);
	full(engine);
	EXPECT_EQUAL(lksm_process_fork(parent, &child), LKSM_OK);
	EXPECT_ZERO(engine, 6, 3);
	EXPECT_EQUAL(status_of(child).zero_pages, 3);
	EXPECT_EQUAL(frame_of(child, 0), LKSM_ENTRY_ZERO);
	EXPECT_EQUAL(frame_of(child, 1), LKSM_ENTRY_PRIVATE);
	EXPECT_EQUAL(full(engine), 2);
	EXPECT_ZERO(engine, 6, 3);
	/* The child moves to a copy and leaves; the parent stays. */
	EXPECT_EQUAL(write_page(child, 0, 'b'), LKSM_OK);
	EXPECT_ZERO(engine, 5, 3);
	/* The parent leaves; the child stays, on a copy of its own. */
	EXPECT_EQUAL(write_page(parent, 2, 'c'), LKSM_OK);
	EXPECT_ZERO(engine, 4, 3);
	EXPECT_EQUAL(frame_of(child, 2), LKSM_ENTRY_ZERO);
	EXPECT_PICTURE(parent, "0ac0");
	EXPECT_PICTURE(child, "ba00");
	full(engine);
	EXPECT_ZERO(engine, 4, 3);
	/* A grandchild inherits pages of the array and of copies. */
	struct mm_slot *grandchild = NULL;
	EXPECT_EQUAL(lksm_process_fork(child, &grandchild), LKSM_OK);
	EXPECT_ZERO(engine, 6, 3);
	lksm_process_destroy(child);
	lksm_process_destroy(parent);
	EXPECT_ZERO(engine, 2, 2);
	EXPECT_PICTURE(grandchild, "ba00");
	DESTROY(engine);
	free(pages);
}

/* --- no memory ------------------------------------------------------------------------------- */

/* Without memory to remember its address a page goes on, and gets there later. */
static void test_no_memory_for_address(void)
{
	struct engine *engine = make_zero_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "0");
	struct mm_slot *first = make_process(engine, pages, 1, false);
	make_process(engine, pages, 1, false);
	lksm_begin_round(engine, 0);
	enqueue(first, false);
	EXPECT(physical_reserve(&engine->indexes->physical, 1));
	item_create(first->regions[0], 0);
	forest_reset(&engine->indexes->trees->unstable, 1);
	fail_next(engine, FAIL_FOR_EVER);
	scan_to_end(engine);
	fail_no_more(engine);
	EXPECT_COUNTERS(engine, 0, 0, 1);
	EXPECT_ZERO(engine, 0, 0);
	full(engine);
	EXPECT_ZERO(engine, 2, 1);
	DESTROY(engine);
	free(pages);
}

/* Whichever allocation of a fork, a write or an attachment fails, nothing is lost. */
static void test_every_allocation_fails(void)
{
	struct engine *engine = make_zero_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "000000000000000000000000");
	struct mm_slot *parent = make_process(engine, pages, 20, false), *child = NULL, *third = NULL;
	EXPECT_EQUAL(map_pages(parent, 100, pages + 20 * 256, 4), LKSM_OK);
	struct lksm_region region = { .pages = pages, .nr_array_pages = 24, .nr_pages = 24 };
	full(engine);
	for (uint64_t n = 1, error = 1; error; n++) {
		engine->memory.fail_at = engine->memory.nr_allocations + n;
		error = lksm_process_fork(parent, &child) != LKSM_OK;
		fail_no_more(engine);
		EXPECT_ZERO(engine, error ? 24 : 48, 24);
	}
	for (uint64_t n = 1, error = 1; error; n++) {
		engine->memory.fail_at = engine->memory.nr_allocations + n;
		error = write_page(child, 5, 'x') != LKSM_OK;
		fail_no_more(engine);
		EXPECT_ZERO(engine, error ? 48 : 47, 24);
	}
	/* Here it is the child that moves, with its page of zeros. */
	for (uint64_t n = 1, error = 1; error; n++) {
		engine->memory.fail_at = engine->memory.nr_allocations + n;
		error = write_page(parent, 6, 'x') != LKSM_OK;
		fail_no_more(engine);
		EXPECT_ZERO(engine, error ? 47 : 46, 24);
	}
	for (uint64_t n = 1, error = 1; error; n++) {
		EXPECT_EQUAL(lksm_process_create(engine, 0, &third), LKSM_OK);
		engine->memory.fail_at = engine->memory.nr_allocations + n;
		error = lksm_process_map(third, &region) != LKSM_OK;
		fail_no_more(engine);
		EXPECT_ZERO(engine, 46, 24);
		if (error)
			lksm_process_destroy(third);
	}
	full(engine);
	EXPECT_ZERO(engine, 46 + 23, 24);
	DESTROY(engine);
	free(pages);
}

/* Nobody knows the hash of zeros as large as these: they are read. */
static void test_large_zeros(void)
{
	struct engine *engine = make_engine((struct setup){ .page_size = 8192, .gate_first = true });
	uint8_t *pages = make_pages(engine, "0a0");
	make_process(engine, pages, 3, false);
	lksm_set_use_zero_pages(engine, true);
	full(engine);
	full(engine);
	EXPECT_EQUAL(counters_of(engine).zero_pages, 2);
	DESTROY(engine);
	free(pages);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_looked_at_again),
		TEST(test_changed_at_once),
		TEST(test_knob_affects_later_visits),
		TEST(test_full_frames_of_zeros),
		TEST(test_cost_of_other_pages),
		TEST(test_cost_of_zero_pages),
		TEST(test_deep_key),
		TEST(test_hash_is_enough),
		TEST(test_zero_bytes),
		TEST(test_leaving),
		TEST(test_arrays_go_first),
		TEST(test_domains),
		TEST(test_same_array_three_times),
		TEST(test_later_mapping_follows),
		TEST(test_candidate_becomes_a_zero_page),
		TEST(test_many_addresses),
		TEST(test_fork_inherits),
		TEST(test_no_memory_for_address),
		TEST(test_every_allocation_fails),
		TEST(test_large_zeros),
	};
	return run_tests(tests, NR_TESTS(tests));
}
