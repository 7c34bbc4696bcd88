/*
 * test_scan.c - the queue, the cursor and the budget.
 */
#include "fixture.h"

/* Three processes of five equal pages each, ready to be queued. */
struct trio {
	struct engine *engine;
	uint8_t *pages[3];
	struct mm_slot *processes[3];
};

static struct trio make_trio(void)
{
	struct trio trio = { .engine = make_engine((struct setup){ 0 }) };
	for (int i = 0; i < 3; i++) {
		trio.pages[i] = make_pages(trio.engine, "aaaaa");
		trio.processes[i] = make_process(trio.engine, trio.pages[i], 5, false);
	}
	return trio;
}

static void destroy_trio(struct trio *trio)
{
	DESTROY(trio->engine);
	for (int i = 0; i < 3; i++)
		free(trio->pages[i]);
}

static void begin_round_of(struct trio *trio)
{
	lksm_begin_round(trio->engine, 0);
	for (int i = 0; i < 3; i++)
		if (trio->processes[i])
			enqueue(trio->processes[i], false);
}

static void expect_queue(struct engine *engine, uint64_t nr_scannable, uint64_t nr_frozen)
{
	struct lksm_counters c = counters_of(engine);
	EXPECT_EQUAL(c.nr_scannable, nr_scannable);
	EXPECT_EQUAL(c.nr_frozen, nr_frozen);
	EXPECT_EQUAL(lksm_has_queue(engine), nr_scannable + nr_frozen > 0);
	EXPECT_SOUND(engine);
}

/* --- budget ---------------------------------------------------------------------------------- */

/* A batch visits exactly its budget; the one that visits the last page also wraps up. */
static void test_budget(void)
{
	for (uint64_t budget = 1; budget <= 16; budget++) {
		struct trio trio = make_trio();
		begin_round_of(&trio);
		for (uint64_t left = 15; left;) {
			uint64_t nr_expected = left < budget ? left : budget;
			EXPECT_EQUAL(scan_pages(trio.engine, budget), nr_expected);
			left -= nr_expected;
			EXPECT_EQUAL(counters_of(trio.engine).pages_scanned, 15 - left);
			/* A process is done with its last page, not with the first of the next one. */
			EXPECT_EQUAL(counters_of(trio.engine).nr_scanned_slots, (15 - left) / 5);
			expect_queue(trio.engine, (left + 4) / 5, 0);
			EXPECT_EQUAL(scan_pages(trio.engine, 0), 0);
		}
		EXPECT(!trio.engine->cursor.slot);
		EXPECT_EQUAL(scan_pages(trio.engine, budget), 0);
		EXPECT_COUNTERS(trio.engine, 1, 14, 0);
		destroy_trio(&trio);
	}
}

/* Processes are visited in the order of the queue, their pages in the order of addresses. */
static void test_order(void)
{
	struct trio trio = make_trio();
	static const int order[] = { 2, 0, 1 };
	lksm_begin_round(trio.engine, 0);
	for (int i = 0; i < 3; i++)
		enqueue(trio.processes[order[i]], false);
	for (int i = 0; i < 3; i++) {
		for (uint64_t page = 0; page < 5; page++) {
			EXPECT(!item_of(trio.processes[order[i]], page));
			EXPECT_EQUAL(scan_pages(trio.engine, 1), 1);
			EXPECT(item_of(trio.processes[order[i]], page) != NULL);
			struct lksm_status status;
			lksm_process_status(trio.processes[order[i]], &status);
			EXPECT_EQUAL(status.nr_scans, page + 1);
			EXPECT_EQUAL(status.is_cursor, page < 4);
			EXPECT_EQUAL(status.is_newcomer, page < 4);
			EXPECT_EQUAL(status.is_scanned, page == 4);
		}
	}
	destroy_trio(&trio);
}

/* A scan takes as long as the caller's clock says, from the first page of a process to its last. */
static void test_elapsed(void)
{
	struct trio trio = make_trio();
	uint64_t nr_scanned;
	struct lksm_status status;
	begin_round_of(&trio);
	for (uint64_t now = 100; now < 115; now++)
		EXPECT_EQUAL(lksm_scan(trio.engine, 1, now, &nr_scanned), LKSM_OK);
	for (int i = 0; i < 3; i++) {
		lksm_process_status(trio.processes[i], &status);
		EXPECT_EQUAL(status.elapsed, i ? 5 : 4);
	}
	destroy_trio(&trio);
}

/* A round that begins restarts the clock of a process that was left half scanned, and of no other. */
static void test_elapsed_does_not_count_a_stop(void)
{
	struct trio trio = make_trio();
	uint64_t nr_scanned;
	lksm_begin_round(trio.engine, 50);
	for (int i = 0; i < 3; i++)
		enqueue(trio.processes[i], false);
	EXPECT_EQUAL(lksm_scan(trio.engine, 2, 100, &nr_scanned), LKSM_OK);
	lksm_begin_round(trio.engine, 90000);
	EXPECT_EQUAL(lksm_scan(trio.engine, 1, 90003, &nr_scanned), LKSM_OK);
	EXPECT_EQUAL(lksm_scan(trio.engine, 4, 90007, &nr_scanned), LKSM_OK);
	EXPECT_EQUAL(status_of(trio.processes[0]).elapsed, 7);
	EXPECT_EQUAL(lksm_scan(trio.engine, 5, 90010, &nr_scanned), LKSM_OK);
	EXPECT_EQUAL(status_of(trio.processes[1]).elapsed, 3);
	EXPECT_EQUAL(lksm_scan(trio.engine, 8, 90020, &nr_scanned), LKSM_OK);
	EXPECT_EQUAL(status_of(trio.processes[2]).elapsed, 10);
	lksm_begin_round(trio.engine, 95000);	/* nothing is half scanned */
	EXPECT_EQUAL(status_of(trio.processes[2]).elapsed, 10);

	/* The next process begins when the one under the cursor goes, which is after the stop too. */
	begin_round_of(&trio);
	EXPECT_EQUAL(lksm_scan(trio.engine, 2, 95010, &nr_scanned), LKSM_OK);
	lksm_begin_round(trio.engine, 99000);
	lksm_process_destroy(trio.processes[0]);
	trio.processes[0] = NULL;
	EXPECT_EQUAL(lksm_scan(trio.engine, 5, 99004, &nr_scanned), LKSM_OK);
	EXPECT_EQUAL(status_of(trio.processes[1]).elapsed, 4);
	EXPECT_SOUND(trio.engine);
	destroy_trio(&trio);
}

/* Completions are numbered over the whole engine, and a process that comes back has none. */
static void test_completion(void)
{
	struct trio trio = make_trio();
	EXPECT_EQUAL(status_of(trio.processes[0]).completion, 0);
	full(trio.engine);
	for (int i = 0; i < 3; i++)
		EXPECT_EQUAL(status_of(trio.processes[i]).completion, i + 1);
	lksm_begin_round(trio.engine, 0);
	enqueue(trio.processes[2], false);
	enqueue(trio.processes[0], true);
	scan_pages(trio.engine, 9);
	EXPECT_EQUAL(status_of(trio.processes[2]).completion, 4);
	EXPECT_EQUAL(status_of(trio.processes[0]).completion, 1);	/* not yet over */
	scan_pages(trio.engine, 1);
	EXPECT_EQUAL(status_of(trio.processes[0]).completion, 5);
	EXPECT_EQUAL(status_of(trio.processes[1]).completion, 2);

	/* Nothing of it may be merged: the scanner forgets it, which is no completion. */
	EXPECT_EQUAL(lksm_process_advise(trio.processes[1], 0, 5, false), LKSM_OK);
	full(trio.engine);
	EXPECT_EQUAL(status_of(trio.processes[1]).completion, 0);
	EXPECT_EQUAL(lksm_process_advise(trio.processes[1], 0, 5, true), LKSM_OK);
	lksm_process_register(trio.processes[1]);
	EXPECT_EQUAL(status_of(trio.processes[1]).completion, 0);
	full(trio.engine);
	EXPECT_EQUAL(status_of(trio.processes[0]).completion, 8);
	EXPECT_EQUAL(status_of(trio.processes[1]).completion, 9);
	EXPECT_EQUAL(status_of(trio.processes[2]).completion, 10);
	EXPECT_SOUND(trio.engine);
	destroy_trio(&trio);
}

/* --- the front of the queue ------------------------------------------------------------------ */

static void expect_order_at(const char *place, const struct trio *trio, const char *order)
{
	char found[8] = { 0 };
	size_t length = 0;
	for (const struct mm_slot *slot = trio->engine->queue; slot && length < 7; slot = slot->queue_next)
		for (int i = 0; i < 3; i++)
			if (slot == trio->processes[i])
				found[length++] = (char)('0' + i);
	expect_at(!strcmp(found, order), place, "the queue is \"%s\", expected \"%s\"", found, order);
	expect_sound_at(place, trio->engine);
}
#define EXPECT_ORDER(trio, order) expect_order_at(PLACE, trio, order)

/* A process that waits goes to the front, from wherever it is, and keeps its class. */
static void test_move_to_front(void)
{
	struct trio trio = make_trio();
	begin_round_of(&trio);
	EXPECT_ORDER(&trio, "012");
	lksm_move_to_front(trio.processes[0]);
	EXPECT_ORDER(&trio, "012");
	lksm_move_to_front(trio.processes[2]);
	EXPECT_ORDER(&trio, "201");
	lksm_move_to_front(trio.processes[0]);
	EXPECT_ORDER(&trio, "021");
	enqueue(trio.processes[1], true);
	lksm_move_to_front(trio.processes[1]);
	EXPECT_ORDER(&trio, "102");
	expect_queue(trio.engine, 2, 1);
	lksm_dequeue(trio.processes[0]);
	lksm_move_to_front(trio.processes[0]);	/* it does not wait */
	EXPECT_ORDER(&trio, "12");
	lksm_dequeue(trio.processes[1]);
	lksm_move_to_front(trio.processes[2]);	/* alone */
	EXPECT_ORDER(&trio, "2");
	enqueue(trio.processes[0], false);
	EXPECT_ORDER(&trio, "20");
	EXPECT_EQUAL(scan_to_end(trio.engine), 10);
	EXPECT_COUNTERS(trio.engine, 1, 9, 0);
	destroy_trio(&trio);
}

/* Moving disturbs neither who is being scanned nor what was visited of it. */
static void test_move_to_front_of_the_cursor(void)
{
	struct trio trio = make_trio();
	begin_round_of(&trio);
	scan_pages(trio.engine, 5 + 3);
	EXPECT(trio.engine->cursor.slot == trio.processes[1]);
	lksm_move_to_front(trio.processes[1]);
	EXPECT_ORDER(&trio, "12");
	lksm_move_to_front(trio.processes[2]);
	EXPECT_ORDER(&trio, "21");
	lksm_move_to_front(trio.processes[1]);
	EXPECT_ORDER(&trio, "21");
	EXPECT(trio.engine->cursor.slot == trio.processes[1] && trio.engine->cursor.page == 3);
	EXPECT_EQUAL(scan_pages(trio.engine, 2), 2);
	EXPECT(trio.processes[1]->is_scanned && !trio.processes[2]->is_scanned);
	EXPECT(!trio.engine->cursor.slot);	/* the pass is over; the rest waits for the next batch */
	expect_queue(trio.engine, 1, 0);
	EXPECT_EQUAL(scan_pages(trio.engine, 100), 5);
	expect_queue(trio.engine, 0, 0);
	EXPECT_COUNTERS(trio.engine, 1, 14, 0);
	destroy_trio(&trio);
}

/* What stands in front of the cursor is scanned after the rest of the old round, in the new one, in one batch. */
static void test_front_is_scanned_in_the_new_round(void)
{
	for (uint64_t budget = 1; budget <= 13; budget++) {
		struct trio trio = make_trio();
		uint64_t nr_left = 12;
		begin_round_of(&trio);
		scan_pages(trio.engine, 3);		/* of the first */
		lksm_begin_round(trio.engine, 0);
		lksm_move_to_front(trio.processes[2]);
		lksm_move_to_front(trio.processes[1]);
		EXPECT_ORDER(&trio, "120");
		while (nr_left) {
			uint64_t nr_expected = nr_left < budget ? nr_left : budget;
			EXPECT_EQUAL(scan_pages(trio.engine, budget), nr_expected);
			nr_left -= nr_expected;
			/* The new round begins with its first page, not with the last of the old one. */
			EXPECT_EQUAL(counters_of(trio.engine).scan_round, nr_left < 10 ? 2 : 1);
			EXPECT_SOUND(trio.engine);
		}
		expect_queue(trio.engine, 0, 0);
		EXPECT_EQUAL(status_of(trio.processes[0]).completion, 1);
		EXPECT_EQUAL(status_of(trio.processes[1]).completion, 2);
		EXPECT_EQUAL(status_of(trio.processes[2]).completion, 3);
		EXPECT_COUNTERS(trio.engine, 1, 14, 0);
		destroy_trio(&trio);
	}
}

/* Without a new round the second pass is in the same tree: late pages meet those of the first. */
static void test_front_in_the_same_round(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages[2] = { make_pages(engine, "abc"), make_pages(engine, "xbc") };
	struct mm_slot *first = make_process(engine, pages[0], 3, false);
	struct mm_slot *late = make_process(engine, pages[1], 3, false);
	lksm_begin_round(engine, 0);
	enqueue(first, false);
	scan_pages(engine, 1);
	enqueue(late, false);
	lksm_move_to_front(late);
	EXPECT_EQUAL(scan_pages(engine, 100), 5);
	EXPECT_COUNTERS(engine, 2, 2, 2);
	EXPECT(!lksm_has_queue(engine));
	DESTROY(engine);
	free(pages[0]), free(pages[1]);
}

/* The process under the cursor leaves, and only some in front of it wait. */
static void test_front_is_left_when_the_cursor_slot_goes(void)
{
	for (int exits = 0; exits < 2; exits++) {
		struct trio trio = make_trio();
		begin_round_of(&trio);
		scan_pages(trio.engine, 11);
		enqueue(trio.processes[0], false);
		lksm_move_to_front(trio.processes[0]);
		EXPECT_ORDER(&trio, "02");
		if (exits) {
			lksm_process_destroy(trio.processes[2]);
			trio.processes[2] = NULL;
		} else {
			lksm_dequeue(trio.processes[2]);
		}
		EXPECT_ORDER(&trio, "0");
		EXPECT(!trio.engine->cursor.slot);
		EXPECT_EQUAL(scan_pages(trio.engine, 100), 5);
		expect_queue(trio.engine, 0, 0);
		destroy_trio(&trio);
	}
}

/* Memory that is short in the second pass of a batch ends it; what was visited counts. */
static void test_no_memory_in_the_second_pass(void)
{
	struct trio trio = make_trio();
	begin_round_of(&trio);
	scan_pages(trio.engine, 11);	/* the others have their items */
	uint8_t *pages = make_pages(trio.engine, "bb");
	struct mm_slot *late = make_process(trio.engine, pages, 2, false);
	enqueue(late, false);
	lksm_move_to_front(late);
	fail_next(trio.engine, FAIL_FOR_EVER);
	EXPECT_EQUAL(scan_pages(trio.engine, 100), 4);
	EXPECT(trio.engine->cursor.slot == late && !trio.engine->cursor.page);
	fail_no_more(trio.engine);
	EXPECT_EQUAL(scan_pages(trio.engine, 100), 2);
	EXPECT_COUNTERS(trio.engine, 2, 15, 0);
	destroy_trio(&trio);
	free(pages);
}

/* In upstream's order of steps a batch ends where a pass ends. */
static void test_gate_first_batch_ends_with_the_pass(void)
{
	struct trio trio = make_trio();
	trio.engine->gate_first = true;
	begin_round_of(&trio);
	scan_pages(trio.engine, 3);
	lksm_move_to_front(trio.processes[2]);
	EXPECT_EQUAL(scan_pages(trio.engine, 100), 7);
	EXPECT(!trio.engine->cursor.slot && lksm_has_queue(trio.engine));
	EXPECT_EQUAL(scan_pages(trio.engine, 100), 5);
	EXPECT(!lksm_has_queue(trio.engine));
	EXPECT_SOUND(trio.engine);
	destroy_trio(&trio);
}

/* From the cursor on, and only as many as the caller cares for. */
static void test_pages_that_wait(void)
{
	struct trio trio = make_trio();
	struct engine *engine = trio.engine;
	EXPECT_EQUAL(lksm_nr_waiting(engine, 100), 0);
	EXPECT(!lksm_is_walking(engine));
	begin_round_of(&trio);
	EXPECT_EQUAL(lksm_nr_waiting(engine, 100), 15);
	EXPECT_EQUAL(lksm_nr_waiting(engine, 8), 8);
	EXPECT(!lksm_is_walking(engine));
	scan_pages(engine, 7);
	EXPECT_EQUAL(lksm_nr_waiting(engine, 100), 8);
	EXPECT(lksm_is_walking(engine));
	lksm_move_to_front(trio.processes[2]);	/* for the next walk */
	EXPECT_EQUAL(lksm_nr_waiting(engine, 100), 3);
	scan_pages(engine, 3);
	EXPECT(!lksm_is_walking(engine));
	EXPECT_EQUAL(lksm_nr_waiting(engine, 100), 5);
	scan_pages(engine, 100);
	EXPECT_EQUAL(lksm_nr_waiting(engine, 100), 0);
	destroy_trio(&trio);
}

/* --- rounds ---------------------------------------------------------------------------------- */

/* Each round builds the unstable tree anew. Row 7. */
static void test_007_unstable_tree_is_rebuilt(void)
{
	struct engine *engine = make_engine((struct setup){ .page_size = 64 });
	uint8_t *pages = calloc(50, 64);
	for (int i = 0; i < 50; i++)
		pages[64 * i] = (uint8_t)i;
	make_process(engine, pages, 50, false);
	for (int i = 0; i < 3; i++) {
		full(engine);
		EXPECT_COUNTERS(engine, 0, 0, 50);
		EXPECT_EQUAL(counters_of(engine).rmap_items, 50);
		EXPECT_EQUAL(engine->indexes->trees->unstable.nr_entries, 50);
	}
	DESTROY(engine);
	free(pages);
}

/* A round that is begun while a process is being scanned waits until the cursor is at the head. */
static void test_round_waits_for_head(void)
{
	struct trio trio = make_trio();
	begin_round_of(&trio);
	scan_pages(trio.engine, 2);
	lksm_begin_round(trio.engine, 0);
	EXPECT_EQUAL(counters_of(trio.engine).crawl_round, 2);
	scan_to_end(trio.engine);
	EXPECT_EQUAL(counters_of(trio.engine).scan_round, 1);
	EXPECT_COUNTERS(trio.engine, 1, 14, 0);
	enqueue(trio.processes[0], false);
	scan_pages(trio.engine, 1);
	EXPECT_EQUAL(counters_of(trio.engine).scan_round, 2);
	EXPECT_SOUND(trio.engine);
	destroy_trio(&trio);
}

/* An item that was filed rounds ago counts as unshared until it is visited, in which tree it is not. */
static void test_items_of_old_rounds(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "abc"), *twin = make_pages(engine, "abc");
	struct mm_slot *old = make_process(engine, pages, 3, false);
	full(engine);
	make_process(engine, twin, 3, false);
	for (int i = 0; i < 600; i++) {	/* more than an 8-bit stamp could tell */
		lksm_begin_round(engine, 0);
		enqueue(engine->last_slot, false);
		scan_to_end(engine);
	}
	EXPECT_COUNTERS(engine, 0, 0, 6);
	lksm_begin_round(engine, 0);
	enqueue(old, false);
	scan_to_end(engine);
	EXPECT_COUNTERS(engine, 0, 0, 6);
	lksm_process_destroy(old);
	EXPECT_COUNTERS(engine, 0, 0, 3);
	DESTROY(engine);
	free(pages), free(twin);
}

/* --- what happens meanwhile ------------------------------------------------------------------ */

/* A process that is queued during a scan is scanned in it, last. */
static void test_late_process(void)
{
	struct trio trio = make_trio();
	lksm_begin_round(trio.engine, 0);
	enqueue(trio.processes[0], false);
	scan_pages(trio.engine, 3);
	enqueue(trio.processes[1], true);
	enqueue(trio.processes[2], false);
	expect_queue(trio.engine, 2, 1);
	EXPECT_EQUAL(scan_to_end(trio.engine), 12);
	EXPECT_COUNTERS(trio.engine, 1, 14, 0);
	EXPECT_EQUAL(counters_of(trio.engine).nr_scanned_slots, 3);
	destroy_trio(&trio);
}

/* A region mapped ahead of the cursor is visited in this scan, one behind it in the next. */
static void test_late_region(void)
{
	for (uint64_t address = 40; address <= 60; address += 20) {
		struct engine *engine = make_engine((struct setup){ 0 });
		uint8_t *pages = make_pages(engine, "abcde"), *more = make_pages(engine, "fg");
		struct mm_slot *process = NULL;
		EXPECT_EQUAL(lksm_process_create(engine, 0, &process), LKSM_OK);
		EXPECT_EQUAL(map_pages(process, 50, pages, 5), LKSM_OK);
		lksm_begin_round(engine, 0);
		enqueue(process, false);
		scan_pages(engine, 3);
		EXPECT_EQUAL(map_pages(process, address, more, 2), LKSM_OK);
		lksm_process_join(process);
		EXPECT_EQUAL(scan_to_end(engine), address < 50 ? 2 : 4);
		EXPECT_SOUND(engine);
		full(engine);
		EXPECT_COUNTERS(engine, 0, 0, 7);
		DESTROY(engine);
		free(pages), free(more);
	}
}

/* When the process under the cursor exits, the scan goes on with the next one. Row 49. */
static void test_049_exit_of_the_cursor_slot(void)
{
	for (int who = 0; who < 3; who++) {
		struct trio trio = make_trio();
		begin_round_of(&trio);
		scan_pages(trio.engine, (uint64_t)who * 5 + 3);
		EXPECT(trio.engine->cursor.slot == trio.processes[who]);
		lksm_process_destroy(trio.processes[who]);
		trio.processes[who] = NULL;
		EXPECT_SOUND(trio.engine);
		EXPECT_EQUAL(scan_to_end(trio.engine), (2 - (uint64_t)who) * 5);
		EXPECT_COUNTERS(trio.engine, 1, 9, 0);
		EXPECT_EQUAL(counters_of(trio.engine).rmap_items, 10);
		expect_queue(trio.engine, 0, 0);
		destroy_trio(&trio);
	}
}

/* Processes that exit before they were scanned leave the queue, and nothing is left to do. Row 50. */
static void test_050_all_queued_exit(void)
{
	struct trio trio = make_trio();
	begin_round_of(&trio);
	for (int i = 0; i < 3; i++) {
		lksm_process_destroy(trio.processes[(i + 1) % 3]);
		trio.processes[(i + 1) % 3] = NULL;
		expect_queue(trio.engine, 2 - (uint64_t)i, 0);
	}
	EXPECT_EQUAL(scan_pages(trio.engine, 10), 0);
	EXPECT_EQUAL(counters_of(trio.engine).nr_scanned_slots, 0);
	destroy_trio(&trio);
}

/* Leaving the queue keeps the items; entering it twice only changes the class. */
static void test_enqueue_and_dequeue(void)
{
	struct trio trio = make_trio();
	begin_round_of(&trio);
	enqueue(trio.processes[1], true);
	expect_queue(trio.engine, 2, 1);
	enqueue(trio.processes[1], false);
	expect_queue(trio.engine, 3, 0);
	scan_pages(trio.engine, 7);
	lksm_dequeue(trio.processes[1]);	/* the cursor was on it */
	lksm_dequeue(trio.processes[1]);
	expect_queue(trio.engine, 1, 0);
	EXPECT(trio.engine->cursor.slot == trio.processes[2]);
	EXPECT_COUNTERS(trio.engine, 1, 6, 0);
	lksm_dequeue(trio.processes[2]);
	expect_queue(trio.engine, 0, 0);
	EXPECT(!trio.engine->cursor.slot);
	enqueue(trio.processes[1], false);
	EXPECT_EQUAL(scan_to_end(trio.engine), 5);
	EXPECT_COUNTERS(trio.engine, 1, 9, 0);
	destroy_trio(&trio);
}

/* A process that froze while it was scanned is queued once more, as frozen. */
static void test_requeue_frozen(void)
{
	struct trio trio = make_trio();
	lksm_requeue_frozen(trio.processes[0], true);	/* not queued: nothing to wait for */
	begin_round_of(&trio);
	scan_pages(trio.engine, 3);
	lksm_requeue_frozen(trio.processes[0], true);
	lksm_requeue_frozen(trio.processes[1], true);
	lksm_requeue_frozen(trio.processes[1], false);
	scan_pages(trio.engine, 2);
	expect_queue(trio.engine, 2, 1);
	scan_pages(trio.engine, 10);
	expect_queue(trio.engine, 0, 1);
	EXPECT_EQUAL(scan_to_end(trio.engine), 5);
	expect_queue(trio.engine, 0, 0);

	/* It does not outlive the queue. */
	begin_round_of(&trio);
	scan_pages(trio.engine, 3);
	lksm_requeue_frozen(trio.processes[0], true);
	lksm_dequeue(trio.processes[0]);
	enqueue(trio.processes[0], false);
	EXPECT_EQUAL(scan_to_end(trio.engine), 15);
	expect_queue(trio.engine, 0, 0);
	destroy_trio(&trio);
}

/* --- slots without work ---------------------------------------------------------------------- */

/* A process of which nothing may be merged is forgotten by the scanner, with its items. Row 51. */
static void test_051_nothing_mergeable(void)
{
	struct trio trio = make_trio();
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 1, 14, 0);
	EXPECT_EQUAL(lksm_process_advise(trio.processes[1], 0, 5, false), LKSM_OK);
	EXPECT_COUNTERS(trio.engine, 1, 14, 0);
	EXPECT_EQUAL(frame_of(trio.processes[1], 2), LKSM_ENTRY_PRIVATE);
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 1, 9, 0);
	EXPECT_EQUAL(counters_of(trio.engine).nr_registered, 2);
	EXPECT_EQUAL(counters_of(trio.engine).rmap_items, 10);
	EXPECT(!lksm_process_join(trio.processes[1]));	/* the opt-out is sticky */
	EXPECT_EQUAL(lksm_process_advise(trio.processes[1], 0, 5, true), LKSM_OK);
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 1, 14, 0);
	EXPECT_EQUAL(counters_of(trio.engine).nr_registered, 3);
	destroy_trio(&trio);
}

/* Pages advised behind the cursor are let go at the next scan; only then is the process forgotten. */
static void test_advised_behind_the_cursor(void)
{
	struct trio trio = make_trio();
	begin_round_of(&trio);
	scan_pages(trio.engine, 8);
	EXPECT_EQUAL(lksm_process_advise(trio.processes[1], 0, 5, false), LKSM_OK);
	EXPECT_EQUAL(scan_to_end(trio.engine), 5);
	EXPECT_COUNTERS(trio.engine, 1, 12, 0);
	EXPECT(trio.processes[1]->is_registered);
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 1, 9, 0);
	EXPECT(!trio.processes[1]->is_registered);
	EXPECT_EQUAL(counters_of(trio.engine).rmap_items, 10);
	destroy_trio(&trio);
}

/* A process without regions, one of excluded regions, one of absent pages: each is passed over. */
static void test_empty_processes(void)
{
	struct trio trio = make_trio();
	struct engine *engine = trio.engine;
	int64_t rows[2] = { -1, -1 };
	struct lksm_region excluded = {
		.pages = trio.pages[0],
		.nr_array_pages = 5,
		.nr_pages = 5,
		.is_excluded = true,
	};
	struct lksm_region absent = { .pages = trio.pages[0], .nr_array_pages = 5, .nr_pages = 2, .rows = rows };
	struct mm_slot *processes[3];
	for (int i = 0; i < 3; i++)
		EXPECT_EQUAL(lksm_process_create(engine, 0, &processes[i]), LKSM_OK);
	EXPECT_EQUAL(lksm_process_map(processes[1], &excluded), LKSM_OK);
	EXPECT_EQUAL(lksm_process_map(processes[2], &absent), LKSM_OK);
	for (int i = 0; i < 3; i++) {
		EXPECT(!lksm_process_join(processes[i]));
		EXPECT_EQUAL(lksm_process_advise(processes[i], 0, processes[i]->nr_pages, true), LKSM_OK);
	}
	EXPECT_EQUAL(full(engine), 15);
	EXPECT_COUNTERS(engine, 1, 14, 0);
	EXPECT_EQUAL(counters_of(engine).nr_registered, 3);
	destroy_trio(&trio);
}

/* --- memory ---------------------------------------------------------------------------------- */

/* Without memory for an item the batch ends, the cursor stays, and the scan goes on when there is some. */
static void test_no_memory_for_an_item(void)
{
	struct trio trio = make_trio();
	uint64_t nr_scanned = 77;
	begin_round_of(&trio);
	fail_next(trio.engine, FAIL_FOR_EVER);
	EXPECT_EQUAL(lksm_scan(trio.engine, 10, 0, &nr_scanned), LKSM_NO_MEMORY);
	EXPECT_EQUAL(nr_scanned, 77);
	EXPECT(trio.engine->cursor.slot == trio.processes[0] && !trio.engine->cursor.page);
	EXPECT_COUNTERS(trio.engine, 0, 0, 0);
	EXPECT_EQUAL(counters_of(trio.engine).pages_scanned, 0);
	fail_no_more(trio.engine);
	EXPECT_EQUAL(scan_to_end(trio.engine), 15);
	EXPECT_COUNTERS(trio.engine, 1, 14, 0);
	destroy_trio(&trio);
}

/* Unmerge during a scan empties the queue; the next round works as the first. Rows 42 and 43. */
static void test_043_unmerge_during_a_scan(void)
{
	struct trio trio = make_trio();
	begin_round_of(&trio);
	scan_pages(trio.engine, 8);
	lksm_requeue_frozen(trio.processes[1], true);
	lksm_unmerge(trio.engine);
	EXPECT_COUNTERS(trio.engine, 0, 0, 0);
	EXPECT_EQUAL(counters_of(trio.engine).rmap_items, 0);
	EXPECT_EQUAL(counters_of(trio.engine).scan_round, 0);
	EXPECT_EQUAL(counters_of(trio.engine).nr_registered, 3);
	expect_queue(trio.engine, 0, 0);
	EXPECT(!trio.engine->cursor.slot);
	full(trio.engine);
	EXPECT_COUNTERS(trio.engine, 1, 14, 0);
	EXPECT_EQUAL(counters_of(trio.engine).scan_round, 2);
	destroy_trio(&trio);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_budget),
		TEST(test_order),
		TEST(test_elapsed),
		TEST(test_elapsed_does_not_count_a_stop),
		TEST(test_completion),
		TEST(test_move_to_front),
		TEST(test_move_to_front_of_the_cursor),
		TEST(test_front_is_scanned_in_the_new_round),
		TEST(test_front_in_the_same_round),
		TEST(test_front_is_left_when_the_cursor_slot_goes),
		TEST(test_no_memory_in_the_second_pass),
		TEST(test_gate_first_batch_ends_with_the_pass),
		TEST(test_pages_that_wait),
		TEST(test_007_unstable_tree_is_rebuilt),
		TEST(test_round_waits_for_head),
		TEST(test_items_of_old_rounds),
		TEST(test_late_process),
		TEST(test_late_region),
		TEST(test_049_exit_of_the_cursor_slot),
		TEST(test_050_all_queued_exit),
		TEST(test_enqueue_and_dequeue),
		TEST(test_requeue_frozen),
		TEST(test_051_nothing_mergeable),
		TEST(test_advised_behind_the_cursor),
		TEST(test_empty_processes),
		TEST(test_no_memory_for_an_item),
		TEST(test_043_unmerge_during_a_scan),
	};
	return run_tests(tests, NR_TESTS(tests));
}
