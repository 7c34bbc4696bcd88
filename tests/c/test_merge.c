/*
 * test_merge.c - the decision for one page: pairs, joins, the checksum gate, aliases, failures between
 * search and merge, and contents that are hard to tell apart.
 */
#include "fixture.h"

/* Two processes of one page each. */
struct pair {
	struct engine *engine;
	uint8_t *pages[2];
	struct mm_slot *processes[2];
};

static struct pair make_pair(struct setup setup, const char *pictures)
{
	struct pair pair = { .engine = make_engine(setup) };
	for (int i = 0; i < 2; i++) {
		char picture[2] = { pictures[i], '\0' };
		pair.pages[i] = make_pages(pair.engine, picture);
		pair.processes[i] = make_process(pair.engine, pair.pages[i], 1, false);
	}
	return pair;
}

static void destroy_pair(struct pair *pair)
{
	DESTROY(pair->engine);
	free(pair->pages[0]);
	free(pair->pages[1]);
}

/* --- pairs and joins ------------------------------------------------------------------------- */

/* Two equal pages become one frame; a third joins it without ever counting as unshared. Rows 1 and 5. */
static void test_pair_and_join(void)
{
	struct pair pair = make_pair((struct setup){ 0 }, "aa");
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 1, 1, 0);
	int64_t frame = frame_of(pair.processes[0], 0);
	EXPECT(frame >= 0 && frame == frame_of(pair.processes[1], 0));
	uint8_t *pages = make_pages(pair.engine, "a");
	struct mm_slot *third = make_process(pair.engine, pages, 1, false);
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 1, 2, 0);
	EXPECT_EQUAL(frame_of(third, 0), frame);
	destroy_pair(&pair);
	free(pages);
}

/* A page written with plain memory is noticed at its next visit. Rows 36 to 38. */
static void test_write_is_noticed(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aaa");
	make_process(engine, pages, 3, false);
	full(engine);
	fill_page(engine, pages + 256, 'b');
	EXPECT_COUNTERS(engine, 1, 2, 0);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 1);
	EXPECT_EQUAL(counters_of(engine).broken, 1);
	fill_page(engine, pages, 'c');
	full(engine);
	EXPECT_COUNTERS(engine, 1, 0, 2);
	EXPECT_EQUAL(counters_of(engine).broken, 2);
	fill_page(engine, pages, 'a');	/* a frame of one page is still joined */
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 1);
	fill_page(engine, pages, 'd');
	fill_page(engine, pages + 512, 'e');
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 3);
	EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 0);
	DESTROY(engine);
	free(pages);
}

/* --- failures between search and merge ------------------------------------------------------- */

static struct pair *hooked;	/* what the hooks below act on */

static void write_second(void *letter)
{
	fill_page(hooked->engine, hooked->pages[1], *(char *)letter);
}

static void write_first(void *letter)
{
	fill_page(hooked->engine, hooked->pages[0], *(char *)letter);
}

static void write_both(void *letter)
{
	write_first(letter);
	write_second(letter);
}

static void fail_allocation(void *nr_after)
{
	hooked->engine->memory.fail_at = hooked->engine->memory.nr_allocations + *(uint64_t *)nr_after;
}

static void set_hook(struct pair *pair, void (*hook)(void *), void *data)
{
	hooked = pair;
	pair->engine->before_merge = hook;
	pair->engine->before_merge_data = data;
}

/* A page rewritten between search and merge is not merged. */
static void test_019_verify_after_write(void)
{
	struct pair pair = make_pair((struct setup){ 0 }, "aa");
	set_hook(&pair, write_second, "b");
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 0, 0, 1);
	EXPECT_EQUAL(volatile_of(pair.engine), 1);
	EXPECT_EQUAL(frame_of(pair.processes[0], 0), LKSM_ENTRY_PRIVATE);
	EXPECT_EQUAL(frame_of(pair.processes[1], 0), LKSM_ENTRY_PRIVATE);
	EXPECT_EQUAL(pair.engine->memory.reserved[LKSM_FOR_FRAMES], 0);
	EXPECT_PICTURE(pair.processes[0], "a");
	EXPECT_PICTURE(pair.processes[1], "b");
	set_hook(&pair, NULL, NULL);
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 0, 0, 2);
	destroy_pair(&pair);
}

/* The twin cannot be mapped: the page is private again and its twin is still unshared. */
static void test_020_second_mapping_fails(void)
{
	struct pair pair = make_pair((struct setup){ 0 }, "aa");
	set_hook(&pair, write_first, "b");
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 0, 0, 1);
	EXPECT_EQUAL(volatile_of(pair.engine), 1);
	EXPECT_EQUAL(item_of(pair.processes[0], 0)->state, ITEM_UNSTABLE);
	EXPECT_EQUAL(item_of(pair.processes[1], 0)->state, ITEM_VOLATILE);
	EXPECT_EQUAL(pair.engine->memory.reserved[LKSM_FOR_FRAMES], 0);
	EXPECT_PICTURE(pair.processes[0], "b");
	EXPECT_PICTURE(pair.processes[1], "a");
	set_hook(&pair, NULL, NULL);
	fill_page(pair.engine, pair.pages[0], 'a');
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 1, 1, 0);
	destroy_pair(&pair);
}

/* The frame cannot be copied: the page is volatile, its twin still unshared. Row 12 of spec 3.3. */
static void test_no_memory_for_frame(void)
{
	struct pair pair = make_pair((struct setup){ 0 }, "aa");
	uint64_t nr_after = 1;
	set_hook(&pair, fail_allocation, &nr_after);
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 0, 0, 1);
	EXPECT_EQUAL(volatile_of(pair.engine), 1);
	set_hook(&pair, NULL, NULL);
	fail_no_more(pair.engine);
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 1, 1, 0);
	destroy_pair(&pair);
}

/* The stable node cannot be made: both pages are private, and merge at the next scan. */
static void test_021_stable_insert_fails(void)
{
	for (uint64_t nr_after = 2; nr_after <= 4; nr_after++) {	/* tables, tables, chunk of the node pool */
		struct pair pair = make_pair((struct setup){ 0 }, "aa");
		set_hook(&pair, fail_allocation, &nr_after);
		full(pair.engine);
		EXPECT_COUNTERS(pair.engine, 0, 0, 0);
		EXPECT_EQUAL(volatile_of(pair.engine), 2);
		EXPECT_EQUAL(frame_of(pair.processes[0], 0), LKSM_ENTRY_PRIVATE);
		EXPECT_EQUAL(frame_of(pair.processes[1], 0), LKSM_ENTRY_PRIVATE);
		EXPECT_EQUAL(pair.engine->memory.reserved[LKSM_FOR_FRAMES], 0);
		EXPECT_PICTURE(pair.processes[0], "a");
		set_hook(&pair, NULL, NULL);
		fail_no_more(pair.engine);
		full(pair.engine);
		EXPECT_COUNTERS(pair.engine, 1, 1, 0);
		destroy_pair(&pair);
	}
}

/* Both pages are rewritten to bytes that are merged already: they join that frame, as far as it has room. */
static void test_both_written_to_a_merged_content(void)
{
	for (uint64_t limit = 2; limit <= 4; limit++) {
		struct pair pair = make_pair((struct setup){ .max_page_sharing = limit }, "aa");
		uint8_t *merged = make_pages(pair.engine, "bb");
		struct mm_slot *process = make_process(pair.engine, merged, 2, false);
		lksm_begin_round(pair.engine, 0);
		enqueue(process, false);
		scan_to_end(pair.engine);
		EXPECT_COUNTERS(pair.engine, 1, 1, 0);
		set_hook(&pair, write_both, "b");
		full(pair.engine);
		/* Limit 2: another node with the same bytes. Limit 3: room for the twin alone. Limit 4: for both. */
		EXPECT_COUNTERS(pair.engine, limit == 2 ? 2 : 1, limit == 4 ? 3 : 2, 0);
		EXPECT_EQUAL(volatile_of(pair.engine), limit == 3);
		EXPECT_EQUAL(pair.engine->memory.reserved[LKSM_FOR_FRAMES], 256);
		EXPECT_PICTURE(pair.processes[0], "b");
		EXPECT_PICTURE(pair.processes[1], "b");
		destroy_pair(&pair);
		free(merged);
	}
}

/* Without memory for an item the batch ends, nothing is let go, and the next one resumes at that page. */
static void test_022_no_memory_for_an_item(void)
{
	struct engine *engine = make_engine((struct setup){ .page_size = 64 });
	uint8_t *pages = calloc(300, 64), *more = calloc(10, 64);
	struct mm_slot *process = make_process(engine, pages, 300, false);
	struct mm_slot *other = make_process(engine, more, 10, false);
	uint64_t nr_scanned = 0;
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	EXPECT_EQUAL(scan_pages(engine, 256), 256);
	EXPECT_COUNTERS(engine, 1, 255, 0);

	/* Page 256 begins a block of items. */
	fail_next(engine, FAIL_FOR_EVER);
	for (int i = 0; i < 3; i++) {
		EXPECT_EQUAL(lksm_scan(engine, 100, 0, &nr_scanned), LKSM_NO_MEMORY);
		EXPECT_COUNTERS(engine, 1, 255, 0);
		EXPECT_EQUAL(counters_of(engine).rmap_items, 256);
		EXPECT(engine->cursor.slot == process && engine->cursor.page == 256);
	}
	fail_no_more(engine);
	EXPECT_EQUAL(scan_pages(engine, 1), 1);
	EXPECT(item_of(process, 256) != NULL);
	EXPECT_COUNTERS(engine, 1, 256, 0);

	/* In the middle of a batch: it ends with the last page of the first process. */
	fail_next(engine, FAIL_FOR_EVER);
	EXPECT_EQUAL(scan_pages(engine, 100), 43);
	EXPECT_COUNTERS(engine, 1, 299, 0);
	EXPECT(engine->cursor.slot == other && engine->cursor.page == 0);
	EXPECT(process->is_scanned && !other->is_scanned);
	fail_no_more(engine);
	EXPECT_EQUAL(scan_to_end(engine), 10);
	EXPECT_COUNTERS(engine, 1, 309, 0);
	DESTROY(engine);
	free(pages), free(more);
}

/* Unmerging needs no memory: it succeeds though every allocation fails. */
static void test_044_unmerge_needs_no_memory(void)
{
	struct engine *engine = make_engine((struct setup){ .max_page_sharing = 3 });
	uint8_t *pages = make_pages(engine, "aaaaabbbcc"), *same = make_pages(engine, "abcd");
	struct mm_slot *process = make_process(engine, pages, 10, false);
	struct mm_slot *immutable = make_process(engine, same, 4, true), *child = NULL;
	EXPECT_EQUAL(lksm_process_fork(process, &child), LKSM_OK);
	full(engine);
	EXPECT_COUNTERS(engine, 4, 8, 2);
	fail_next(engine, FAIL_FOR_EVER);
	lksm_unmerge(engine);
	EXPECT_COUNTERS(engine, 0, 0, 0);
	EXPECT_EQUAL(counters_of(engine).rmap_items, 0);
	EXPECT_EQUAL(frame_of(process, 0), LKSM_ENTRY_PRIVATE);
	EXPECT_PICTURE(process, "aaaaabbbcc");
	EXPECT_PICTURE(child, "aaaaabbbcc");
	EXPECT_PICTURE(immutable, "abcd");
	EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 0);
	fail_no_more(engine);
	full(engine);
	EXPECT_COUNTERS(engine, 4, 8, 2);
	DESTROY(engine);
	free(pages), free(same);
}

/* A twin that is no longer offered for merging is left alone, and the page waits. Row 9 of spec 3.3. */
static void test_twin_is_no_longer_mergeable(void)
{
	for (int is_unmapped = 0; is_unmapped < 2; is_unmapped++) {
		struct pair pair = make_pair((struct setup){ 0 }, "aa");
		lksm_begin_round(pair.engine, 0);
		enqueue_all(pair.engine);
		scan_pages(pair.engine, 1);
		if (is_unmapped)
			EXPECT_EQUAL(lksm_process_unmap(pair.processes[0], 0, 1), LKSM_OK);
		else
			EXPECT_EQUAL(lksm_process_advise(pair.processes[0], 0, 1, false), LKSM_OK);
		scan_to_end(pair.engine);
		EXPECT_COUNTERS(pair.engine, 0, 0, 1);
		EXPECT_EQUAL(volatile_of(pair.engine), 1);
		full(pair.engine);
		EXPECT_COUNTERS(pair.engine, 0, 0, 1);
		EXPECT_EQUAL(volatile_of(pair.engine), 0);
		destroy_pair(&pair);
	}
}

/* --- the checksum gate, spec 3.4.1 ----------------------------------------------------------- */

static const struct setup gated = { .initial_rounds = 3 };

/* One page of one process under the gate. */
struct gate {
	struct engine *engine;
	uint8_t *page;
	struct mm_slot *process;
};

static struct gate make_gate(void)
{
	struct gate gate = { .engine = make_engine(gated) };
	gate.page = make_pages(gate.engine, "a");
	gate.process = make_process(gate.engine, gate.page, 1, false);
	return gate;
}

static void destroy_gate(struct gate *gate)
{
	DESTROY(gate->engine);
	free(gate->page);
}

/* One round of the process; is the page held back by the gate? */
static bool is_held_back(struct gate *gate, bool is_frozen)
{
	lksm_begin_round(gate->engine, 0);
	enqueue(gate->process, is_frozen);
	scan_to_end(gate->engine);
	EXPECT_SOUND(gate->engine);
	EXPECT_EQUAL(volatile_of(gate->engine), counters_of(gate->engine).nr_gated);
	return counters_of(gate->engine).nr_gated;
}

static void rewrite(struct gate *gate, char letter)
{
	fill_page(gate->engine, gate->page, letter);
}

static uint32_t checksum_of(const struct gate *gate)
{
	return item_of(gate->process, 0)->checksum;
}

/* Rounds 1 and 2, not frozen: a page passes iff its checksum is the stored one, which it stores if not. */
static void test_gate_not_frozen(void)
{
	for (int is_changed = 0; is_changed < 2; is_changed++) {
		struct gate gate = make_gate();
		EXPECT(is_held_back(&gate, false));
		uint32_t first = checksum_of(&gate);
		EXPECT(first && !(first & 1));
		if (is_changed)
			rewrite(&gate, 'b');
		EXPECT_EQUAL(is_held_back(&gate, false), is_changed);
		EXPECT_EQUAL(checksum_of(&gate) != first, is_changed);
		destroy_gate(&gate);
	}
}

/* Round 2, not frozen, new: held back as in round 1. */
static void test_gate_new_in_round_2(void)
{
	struct gate gate = make_gate();
	lksm_begin_round(gate.engine, 0);
	EXPECT(is_held_back(&gate, false));
	EXPECT_EQUAL(counters_of(gate.engine).scan_round, 2);
	destroy_gate(&gate);
}

/* Rounds 1 and 2, frozen, new: passes, and no checksum is computed. */
static void test_gate_frozen_new(void)
{
	for (int round = 1; round <= 2; round++) {
		struct gate gate = make_gate();
		for (int i = 1; i < round; i++)
			lksm_begin_round(gate.engine, 0);
		EXPECT(!is_held_back(&gate, true));
		EXPECT_EQUAL(checksum_of(&gate), 0);
		EXPECT_COUNTERS(gate.engine, 0, 0, 1);
		destroy_gate(&gate);
	}
}

/* Frozen, and it was unstable when located: passes, changed or not, and no checksum is computed. */
static void test_gate_frozen_was_unstable(void)
{
	struct gate gate = make_gate();
	EXPECT(!is_held_back(&gate, true));
	rewrite(&gate, 'b');
	EXPECT(!is_held_back(&gate, true));
	EXPECT_EQUAL(checksum_of(&gate), 0);
	destroy_gate(&gate);
}

/* Not frozen any more: the page that passed while frozen is held back for want of a checksum. */
static void test_gate_thawed(void)
{
	struct gate gate = make_gate();
	EXPECT(!is_held_back(&gate, true));
	EXPECT(is_held_back(&gate, false));
	EXPECT(checksum_of(&gate));
	destroy_gate(&gate);
}

/* Frozen, but it was volatile when located: the checksum decides. */
static void test_gate_frozen_was_volatile(void)
{
	for (int is_changed = 0; is_changed < 2; is_changed++) {
		struct gate gate = make_gate();
		EXPECT(is_held_back(&gate, false));
		if (is_changed)
			rewrite(&gate, 'b');
		EXPECT_EQUAL(is_held_back(&gate, true), is_changed);
		destroy_gate(&gate);
	}
}

/* Frozen, but it was stable when located: the checksum decides. */
static void test_gate_frozen_was_stable(void)
{
	struct gate gate = make_gate();
	uint8_t *twin = make_pages(gate.engine, "a");
	struct mm_slot *process = make_process(gate.engine, twin, 1, false);
	lksm_begin_round(gate.engine, 0);
	enqueue(process, true);
	enqueue(gate.process, true);
	scan_to_end(gate.engine);
	EXPECT_COUNTERS(gate.engine, 1, 1, 0);
	rewrite(&gate, 'b');
	lksm_begin_round(gate.engine, 0);
	enqueue(gate.process, true);
	scan_to_end(gate.engine);
	EXPECT_COUNTERS(gate.engine, 1, 0, 0);
	EXPECT_EQUAL(volatile_of(gate.engine), 1);
	EXPECT(checksum_of(&gate));
	destroy_gate(&gate);
	free(twin);
}

/* From round 3 on nothing is held back and the stored checksum is not refreshed. */
static void test_gate_is_gone_in_round_3(void)
{
	struct gate gate = make_gate();
	EXPECT(is_held_back(&gate, false));
	rewrite(&gate, 'b');
	EXPECT(is_held_back(&gate, false));
	uint32_t stored = checksum_of(&gate);
	for (int round = 3; round < 6; round++) {
		rewrite(&gate, (char)('a' + round));
		EXPECT(!is_held_back(&gate, false));
		EXPECT_COUNTERS(gate.engine, 0, 0, 1);
		EXPECT_EQUAL(checksum_of(&gate), stored);
	}
	/* It never comes back, not even by unmerging. */
	lksm_unmerge(gate.engine);
	EXPECT(!is_held_back(&gate, false));
	destroy_gate(&gate);
}

/* A page that equals a merged one joins it ungated, also in round 1 and when it is new. Row 14. */
static void test_014_stable_merge_is_not_gated(void)
{
	struct pair pair = make_pair(gated, "aa");
	lksm_begin_round(pair.engine, 0);
	enqueue(pair.processes[0], true);
	enqueue(pair.processes[1], true);
	uint8_t *pages = make_pages(pair.engine, "ab");
	enqueue(make_process(pair.engine, pages, 2, false), false);
	scan_to_end(pair.engine);
	EXPECT_COUNTERS(pair.engine, 1, 2, 0);
	EXPECT_EQUAL(volatile_of(pair.engine), 1);
	EXPECT_EQUAL(counters_of(pair.engine).nr_gated, 1);
	destroy_pair(&pair);
	free(pages);
}

/* Pairs form in round 2 if the pages hold still. Rows 9 to 11. */
static void test_010_pair_forms_in_round_2(void)
{
	struct pair pair = make_pair(gated, "aa");
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 0, 0, 0);
	EXPECT_EQUAL(volatile_of(pair.engine), 2);
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 1, 1, 0);
	destroy_pair(&pair);
}

/* The bypass is for pages that passed at their last visit, or are new. Row 15. */
static void test_015_bypass_only_for_pages_that_passed(void)
{
	struct gate gate = make_gate();
	full(gate.engine);
	rewrite(&gate, 'p');
	uint8_t *page = make_pages(gate.engine, "p");
	struct mm_slot *other = make_process(gate.engine, page, 1, false);
	lksm_begin_round(gate.engine, 0);
	enqueue(gate.process, true);
	enqueue(other, true);
	scan_to_end(gate.engine);
	EXPECT_COUNTERS(gate.engine, 0, 0, 1);
	EXPECT_EQUAL(volatile_of(gate.engine), 1);
	full(gate.engine);
	EXPECT_COUNTERS(gate.engine, 1, 1, 0);
	destroy_gate(&gate);
	free(page);
}

/* Immutable pages pass the same gate, in the same rounds. */
static void test_gate_of_immutable_pages(void)
{
	struct engine *engine = make_engine(gated);
	uint8_t *pages = make_pages(engine, "abcabc");
	make_process(engine, pages, 6, true);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 0);
	full(engine);
	EXPECT_COUNTERS(engine, 3, 3, 0);
	DESTROY(engine);
	free(pages);
}

/* --- upstream's order of steps, spec 12.2 ---------------------------------------------------- */

static const struct setup upstream = { .gate_first = true };

/* The gate is closed in every round, and the initial rounds have no say. */
static void test_upstream_gate_never_opens(void)
{
	for (uint64_t initial_rounds = 0; initial_rounds <= 3; initial_rounds += 3) {
		struct engine *engine = make_engine((struct setup){
			.gate_first = true,
			.initial_rounds = initial_rounds,
		});
		uint8_t *pages = make_pages(engine, "ab");
		struct mm_slot *process = NULL;
		for (int i = 0; i < 8; i++)
			lksm_begin_round(engine, 0);
		process = make_process(engine, pages, 2, false);
		full(engine);
		EXPECT_COUNTERS(engine, 0, 0, 0);
		EXPECT_EQUAL(counters_of(engine).nr_gated, 2);
		full(engine);
		EXPECT_COUNTERS(engine, 0, 0, 2);
		EXPECT_EQUAL(counters_of(engine).nr_gated, 0);
		for (int i = 0; i < 5; i++) {	/* one page that never holds still */
			fill_page(engine, pages, (char)('c' + i));
			full(engine);
			EXPECT_COUNTERS(engine, 0, 0, 1);
			EXPECT_EQUAL(item_of(process, 0)->state, ITEM_VOLATILE);
			EXPECT_EQUAL(counters_of(engine).nr_gated, 1);
		}
		DESTROY(engine);
		free(pages);
	}
}

/* Frozen processes wait at the gate like others, whether the page is new or has passed before. */
static void test_upstream_gate_knows_no_frozen(void)
{
	struct gate gate = { .engine = make_engine(upstream) };
	gate.page = make_pages(gate.engine, "a");
	gate.process = make_process(gate.engine, gate.page, 1, false);
	EXPECT(is_held_back(&gate, true));
	EXPECT(!is_held_back(&gate, true));
	EXPECT_COUNTERS(gate.engine, 0, 0, 1);
	rewrite(&gate, 'b');
	EXPECT(is_held_back(&gate, true));
	EXPECT(!is_held_back(&gate, false));
	destroy_gate(&gate);
}

/* A page that equals a merged one waits at the gate too, and joins at its next visit. */
static void test_upstream_gate_is_before_the_stable_tree(void)
{
	struct pair pair = make_pair(upstream, "aa");
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 0, 0, 0);
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 1, 1, 0);
	uint8_t *pages = make_pages(pair.engine, "a");
	struct mm_slot *third = make_process(pair.engine, pages, 1, false);
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 1, 1, 0);
	EXPECT_EQUAL(volatile_of(pair.engine), 1);
	EXPECT_EQUAL(frame_of(third, 0), LKSM_ENTRY_PRIVATE);
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 1, 2, 0);
	EXPECT_EQUAL(frame_of(third, 0), frame_of(pair.processes[0], 0));
	destroy_pair(&pair);
	free(pages);
}

/* A merged page that was changed is detached and waits at the gate; the others stay without asking. */
static void test_upstream_merged_page_is_changed(void)
{
	for (int is_plain = 0; is_plain < 2; is_plain++) {
		struct engine *engine = make_engine(upstream);
		uint8_t *pages = make_pages(engine, "aaabb");
		struct mm_slot *process = make_process(engine, pages, 5, false);
		full(engine);
		full(engine);
		EXPECT_COUNTERS(engine, 2, 3, 0);
		if (is_plain)
			fill_page(engine, pages, 'b');
		else
			EXPECT_EQUAL(write_page(process, 0, 'b'), LKSM_OK);
		full(engine);
		EXPECT_COUNTERS(engine, 2, 2, 0);
		EXPECT_EQUAL(volatile_of(engine), 1);
		EXPECT_EQUAL(counters_of(engine).nr_gated, 1);
		EXPECT_EQUAL(counters_of(engine).round_broken, 1);
		full(engine);
		EXPECT_COUNTERS(engine, 2, 3, 0);
		EXPECT_EQUAL(frame_of(process, 0), frame_of(process, 4));
		DESTROY(engine);
		free(pages);
	}
}

/* A merged page written with the bytes it has is broken, has its old checksum, and merges in the same visit. */
static void test_upstream_merged_page_is_written_alike(void)
{
	struct pair pair = make_pair(upstream, "aa");
	full(pair.engine);
	full(pair.engine);
	EXPECT_EQUAL(write_page(pair.processes[0], 0, 'a'), LKSM_OK);
	full(pair.engine);
	EXPECT_COUNTERS(pair.engine, 1, 1, 0);
	EXPECT_EQUAL(counters_of(pair.engine).round_broken, 1);
	EXPECT_EQUAL(counters_of(pair.engine).round_merged, 1);
	EXPECT_EQUAL(counters_of(pair.engine).nr_gated, 0);
	destroy_pair(&pair);
}

/* A page whose content is merged into full frames goes on to the unstable tree. */
static void test_upstream_limit(void)
{
	struct engine *engine = make_engine((struct setup){ .gate_first = true, .max_page_sharing = 2 });
	uint8_t *pages = make_pages(engine, "aaaaa");
	make_process(engine, pages, 5, false);
	full(engine);
	EXPECT_EQUAL(counters_of(engine).nr_gated, 5);
	full(engine);
	EXPECT_COUNTERS(engine, 2, 2, 1);
	DESTROY(engine);
	free(pages);
}

/* --- what it costs --------------------------------------------------------------------------- */

static void expect_work_at(const char *place, struct engine *engine, uint64_t bytes_compared, uint64_t bytes_hashed)
{
	struct lksm_counters c = counters_of(engine);
	expect_at(c.bytes_compared == bytes_compared && c.bytes_hashed == bytes_hashed, place,
		  "compared %" PRIu64 " and hashed %" PRIu64 ", expected %" PRIu64 " and %" PRIu64, c.bytes_compared,
		  c.bytes_hashed, bytes_compared, bytes_hashed);
	engine->indexes->tally.work = (struct work){ 0 };
}
/* What was compared and hashed since the last time. */
#define EXPECT_WORK(engine, bytes_compared, bytes_hashed) expect_work_at(PLACE, engine, bytes_compared, bytes_hashed)

/* A pair: two samples and one compare; on mutable memory also the copy's sample and its compares with both. */
static void test_work_of_a_pair(void)
{
	for (int is_immutable = 0; is_immutable < 2; is_immutable++) {
		struct engine *engine = make_engine((struct setup){ .page_size = 4096 });
		uint8_t *pages = make_pages(engine, "aab");
		struct mm_slot *process = make_process(engine, pages, 3, is_immutable);
		EXPECT_WORK(engine, 0, 0);
		full(engine);
		EXPECT_COUNTERS(engine, 1, 1, 1);
		if (is_immutable)
			EXPECT_WORK(engine, 4096, 3 * SAMPLE_SIZE);
		else
			EXPECT_WORK(engine, 3 * 4096, 4 * SAMPLE_SIZE);

		/* At rest: merged pages are compared with their frame, others sampled; immutable ones not read. */
		full(engine);
		if (is_immutable)
			EXPECT_WORK(engine, 0, 0);
		else
			EXPECT_WORK(engine, 2 * 4096, SAMPLE_SIZE);

		/* Looking costs the scan nothing. */
		struct lksm_explanation explanation;
		struct lksm_group group;
		uint64_t digest;
		EXPECT_SOUND(engine);
		EXPECT_EQUAL(lksm_explain(process, 2, false, &explanation), LKSM_OK);
		EXPECT_EQUAL(explanation.reason, LKSM_UNIQUE);
		lksm_groups(engine, -1, 2, true, &group);
		EXPECT_EQUAL(lksm_page_digest(process, 0, &digest), LKSM_OK);
		EXPECT_WORK(engine, 0, 0);
		DESTROY(engine);
		free(pages);
	}
}

/* A merged page that was changed costs as many bytes as its first difference is far. */
static void test_work_of_a_changed_page(void)
{
	struct engine *engine = make_engine((struct setup){ .page_size = 4096 });
	uint8_t *pages = make_pages(engine, "aa");
	make_process(engine, pages, 2, false);
	full(engine);
	engine->indexes->tally.work = (struct work){ 0 };
	uint32_t at = engine->rules.lines[1] + 17;
	pages[at] = 'b';
	pages[4095] = 'b';
	full(engine);
	EXPECT_COUNTERS(engine, 1, 0, 1);
	EXPECT_WORK(engine, at + 1 + 4096, SAMPLE_SIZE);
	DESTROY(engine);
	free(pages);
}

/* The gate hashes the whole page beside its sample; of immutable memory once, and never again. */
static void test_work_of_the_gate(void)
{
	for (int is_immutable = 0; is_immutable < 2; is_immutable++) {
		for (int gate_first = 0; gate_first < 2; gate_first++) {
			struct engine *engine = make_engine((struct setup){
				.page_size = 4096,
				.initial_rounds = 3,
				.gate_first = gate_first,
			});
			uint8_t *pages = make_pages(engine, "ab");
			make_process(engine, pages, 2, is_immutable);
			for (int round = 1; round <= 4; round++) {
				bool has_key = round > 1 && is_immutable;
				bool is_checked = !has_key && (round < 3 || gate_first);
				full(engine);
				EXPECT_COUNTERS(engine, 0, 0, round == 1 ? 0 : 2);
				EXPECT_WORK(engine, 0, (has_key ? 0 : 2 * SAMPLE_SIZE) + (is_checked ? 2 * 4096 : 0));
			}
			DESTROY(engine);
			free(pages);
		}
	}
}

/* Every page is sampled once, whether ahead of its visit or in it. */
static void test_work_of_a_long_scan(void)
{
	struct engine *engine = make_engine((struct setup){ .page_size = 4096 });
	uint8_t *pages = malloc(100 * 4096);
	for (int i = 0; i < 100; i++)
		memset(pages + 4096 * i, i, 4096);
	make_process(engine, pages, 100, false);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 100);
	EXPECT_WORK(engine, 0, 100 * SAMPLE_SIZE);
	DESTROY(engine);
	free(pages);
}

/* --- aliases --------------------------------------------------------------------------------- */

/* Pages at one address are one page: never merged with each other, never a saving. */
static void test_same_array_twice(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aab");
	struct mm_slot *first = make_process(engine, pages, 3, false);
	struct mm_slot *second = make_process(engine, pages, 3, false);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 1);
	EXPECT_EQUAL(counters_of(engine).rmap_items, 6);
	EXPECT_EQUAL(volatile_of(engine), 3);
	for (uint64_t page = 0; page < 3; page++) {
		struct lksm_explanation explanation;
		EXPECT_EQUAL(frame_of(first, page), frame_of(second, page));
		EXPECT_EQUAL(lksm_explain(second, page, false, &explanation), LKSM_OK);
		EXPECT_EQUAL(explanation.reason, LKSM_ALREADY_SHARED);
		EXPECT_EQUAL(explanation.other_process, 0);
		EXPECT_EQUAL(explanation.other_page, page);
	}
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 1);
	EXPECT_EQUAL(counters_of(engine).broken, 0);
	DESTROY(engine);
	free(pages);
}

/* When the process whose item stands for a page exits, an alias takes over at its next visit. */
static void test_alias_takes_over(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aab");
	struct mm_slot *first = make_process(engine, pages, 3, false);
	make_process(engine, pages, 3, false);
	full(engine);
	lksm_process_destroy(first);
	EXPECT_COUNTERS(engine, 0, 0, 0);
	EXPECT_EQUAL(volatile_of(engine), 3);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 1);
	EXPECT_EQUAL(volatile_of(engine), 0);
	DESTROY(engine);
	free(pages);
}

/* Views that overlap in part have some pages in common, and the others to themselves. */
static void test_overlapping_views(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aaaaaa");
	make_process(engine, pages, 4, false);		/* pages 0 to 3 */
	make_process(engine, pages + 512, 4, false);	/* pages 2 to 5 */
	full(engine);
	EXPECT_COUNTERS(engine, 1, 5, 0);
	EXPECT_EQUAL(volatile_of(engine), 2);
	DESTROY(engine);
	free(pages);
}

/* The same array in two domains is two pages; neither is compared with the other. */
static void test_domains_are_apart(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aab");
	struct lksm_region region = { .pages = pages, .nr_array_pages = 3, .nr_pages = 3 };
	struct lksm_counters c;
	for (uint32_t domain = 0; domain < 3; domain++) {
		struct mm_slot *process = NULL;
		EXPECT_EQUAL(lksm_process_create(engine, domain, &process), LKSM_OK);
		EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_OK);
	}
	full(engine);
	EXPECT_COUNTERS(engine, 3, 3, 3);
	lksm_counters(engine, 1, &c);
	EXPECT_EQUAL(c.pages_shared, 1);
	EXPECT_EQUAL(c.rmap_items, 3);
	EXPECT_EQUAL(c.nr_registered, 1);
	lksm_process_destroy(engine->slots->next);
	lksm_counters(engine, 1, &c);
	EXPECT_EQUAL(c.rmap_items, 0);
	EXPECT_COUNTERS(engine, 2, 2, 2);
	DESTROY(engine);
	free(pages);
}

/* Without memory to remember an address the page waits for its next visit. */
static void test_no_memory_for_address(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "ab");
	struct mm_slot *first = make_process(engine, pages, 2, false);
	struct mm_slot *second = make_process(engine, pages, 2, false);
	/* Visited once, so that items are there; then forgotten by address only. */
	full(engine);
	physical_deinit(&engine->indexes->physical);
	lksm_unmerge(engine);
	lksm_begin_round(engine, 0);
	enqueue(first, false);
	EXPECT(item_create(first->regions[0], 0) != 0);
	fail_next(engine, FAIL_FOR_EVER);
	scan_to_end(engine);
	EXPECT_COUNTERS(engine, 0, 0, 0);
	EXPECT_EQUAL(volatile_of(engine), 2);
	fail_no_more(engine);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 2);
	EXPECT_EQUAL(item_of(second, 0)->is_alias, 1);
	DESTROY(engine);
	free(pages);
}

/* --- contents that are hard to tell apart ---------------------------------------------------- */

#define NR_CONTENTS 120

enum adversary {
	ONE_BIT,	/* equal but for one bit */
	LAST_BYTES,	/* equal but for the last two bytes */
	UNSAMPLED,	/* equal in all that a sample sees */
	SPARSE,		/* zero but for one byte somewhere */
	NR_ADVERSARIES
};

static void make_content(const struct engine *engine, enum adversary adversary, uint8_t *page, uint32_t number)
{
	uint64_t page_size = engine->rules.page_size;
	memset(page, adversary == SPARSE ? 0 : 0x5a, page_size);
	switch (adversary) {
	case ONE_BIT:
		page[(number * 37) % page_size] ^= (uint8_t)(1 << (number / page_size));
		break;
	case LAST_BYTES:
		page[page_size - 1] = (uint8_t)number;
		page[page_size - 2] = (uint8_t)(number >> 8);
		break;
	case UNSAMPLED:
		page[page_size == 64 ? 5 : unsampled_byte(engine) + 5] = (uint8_t)number;
		break;
	default:
		page[(number * 53) % page_size] = (uint8_t)(1 + number / page_size);
		break;
	}
}

/* Each content once is all unshared; each twice is all pairs; the third of each joins. Row 3. */
static void expect_adversary(lksm_hash hash, enum adversary adversary, uint64_t page_size, bool is_immutable)
{
	struct engine *engine = make_engine((struct setup){ .page_size = page_size, .hash = hash, .seed = 3 });
	uint8_t *arrays[4];
	for (int i = 0; i < 4; i++) {
		arrays[i] = malloc(NR_CONTENTS * page_size);
		for (uint32_t number = 0; number < NR_CONTENTS; number++)
			make_content(engine, adversary, arrays[i] + number * page_size,
				     i % 2 ? NR_CONTENTS - 1 - number : number);
		make_process(engine, arrays[i], NR_CONTENTS, is_immutable);
		full(engine);
		if (i == 0)
			EXPECT_COUNTERS(engine, 0, 0, NR_CONTENTS);
		else
			EXPECT_COUNTERS(engine, NR_CONTENTS, (uint64_t)i * NR_CONTENTS, 0);
	}
	int64_t first[NR_CONTENTS], last[NR_CONTENTS];
	lksm_page_table(engine->slots, first);
	lksm_page_table(engine->last_slot, last);
	for (int page = 0; page < NR_CONTENTS; page++) {
		EXPECT_EQUAL(first[page], last[NR_CONTENTS - 1 - page]);
		for (int other = 0; other < page; other++)
			EXPECT(first[page] != first[other]);
	}
	DESTROY(engine);
	for (int i = 0; i < 4; i++)
		free(arrays[i]);
}

/* Contents built to be confused are told apart and found again, whatever the hash. */
static void test_003_adversaries(void)
{
	for (size_t i = 0; i < NR_HASHES; i++)
		for (enum adversary adversary = 0; adversary < NR_ADVERSARIES; adversary++)
			for (int kind = 0; kind < 4; kind++)
				expect_adversary(all_hashes[i], adversary, kind & 1 ? 64 : 512, kind & 2);
}

/* A hundred zero pages on the zero frame, and one that is nearly zero; the items go in the next pass. Row 32. */
static void test_032_zero_frame(void)
{
	for (size_t i = 0; i < NR_HASHES; i++) {
		for (int kind = 0; kind < 4; kind++) {
			bool gate_first = kind & 1, is_immutable = kind & 2;
			struct setup setup = { .hash = all_hashes[i], .gate_first = gate_first };
			struct engine *engine = make_engine(setup);
			uint8_t *pages = calloc(101, 256);
			pages[100 * 256 + 255] = 1;
			struct mm_slot *process = make_process(engine, pages, 101, is_immutable);
			lksm_set_use_zero_pages(engine, true);
			if (gate_first && all_hashes[i] != hash_0_bits)	/* a checksum of 0 passes at once */
				full(engine);
			EXPECT_EQUAL(full(engine), 101);
			EXPECT_COUNTERS(engine, 0, 0, 1);
			EXPECT_EQUAL(counters_of(engine).zero_pages, 100);
			EXPECT_EQUAL(volatile_of(engine), 100);
			for (uint64_t page = 0; page < 101; page++)
				EXPECT_EQUAL(frame_of(process, page), page < 100 ? LKSM_ENTRY_ZERO : LKSM_ENTRY_PRIVATE);
			EXPECT_EQUAL(full(engine), 1);
			EXPECT_COUNTERS(engine, 0, 0, 1);
			EXPECT_EQUAL(counters_of(engine).zero_pages, 100);
			EXPECT_EQUAL(counters_of(engine).rmap_items, 1);
			EXPECT_EQUAL(lksm_nr_groups(engine, -1, 1), 0);
			DESTROY(engine);
			free(pages);
		}
	}
}

/* A write takes one page off the zero frame: at once through the process, at the next visit a plain one. Row 34. */
static void test_034_zero_page_is_written(void)
{
	for (int is_plain = 0; is_plain < 2; is_plain++) {
		struct engine *engine = make_engine((struct setup){ 0 });
		uint8_t *pages = calloc(100, 256), byte = 1;
		struct mm_slot *process = make_process(engine, pages, 100, false);
		lksm_set_use_zero_pages(engine, true);
		full(engine);
		full(engine);
		if (is_plain)
			pages[40 * 256 + 200] = byte;
		else
			EXPECT_EQUAL(lksm_process_write(process, 40, 200, &byte, 1), LKSM_OK);
		EXPECT_EQUAL(counters_of(engine).zero_pages, is_plain ? 100 : 99);
		EXPECT_EQUAL(full(engine), 1);
		EXPECT_COUNTERS(engine, 0, 0, 1);
		EXPECT_EQUAL(counters_of(engine).zero_pages, 99);
		for (uint64_t page = 0; page < 100; page++)
			EXPECT_EQUAL(frame_of(process, page), page == 40 ? LKSM_ENTRY_PRIVATE : LKSM_ENTRY_ZERO);
		DESTROY(engine);
		free(pages);
	}
}

/* The zero rule holds behind the gate and past it: in round 2, in round 3, for frozen processes. Row 35. */
static void test_035_zero_rule_without_gate(void)
{
	for (int is_frozen = 0; is_frozen < 2; is_frozen++) {
		struct engine *engine = make_engine((struct setup){ .initial_rounds = 3 });
		uint8_t *pages = calloc(5, 256);
		make_process(engine, pages, 3, false);
		lksm_set_use_zero_pages(engine, true);
		lksm_begin_round(engine, 0);
		enqueue(engine->slots, is_frozen);
		scan_to_end(engine);
		EXPECT_EQUAL(counters_of(engine).zero_pages, is_frozen ? 3 : 0);
		full(engine);
		EXPECT_EQUAL(counters_of(engine).zero_pages, 3);
		make_process(engine, pages + 3 * 256, 2, false);
		full(engine);
		EXPECT_EQUAL(counters_of(engine).zero_pages, 5);
		EXPECT_COUNTERS(engine, 0, 0, 0);
		DESTROY(engine);
		free(pages);
	}
}

/* A hundred zero pages and one that is nearly zero. Row 33. */
static void test_033_zero_pages(void)
{
	for (size_t i = 0; i < NR_HASHES; i++) {
		struct engine *engine = make_engine((struct setup){ .hash = all_hashes[i] });
		uint8_t *pages = calloc(101, 256);
		pages[100 * 256 + 255] = 1;
		make_process(engine, pages, 101, false);
		full(engine);
		EXPECT_COUNTERS(engine, 1, 99, 1);
		struct lksm_group group;
		EXPECT_EQUAL(lksm_nr_groups(engine, -1, 2), 1);
		lksm_groups(engine, -1, 2, true, &group);
		EXPECT(group.is_zero && group.pages == 100 && group.processes == 1);
		DESTROY(engine);
		free(pages);
	}
}

/* Deepening may run out of memory: the pages are told apart by their bytes all the same. */
static void test_deepening_without_memory(void)
{
	for (int can_deepen_later = 0; can_deepen_later < 2; can_deepen_later++) {
		struct engine *engine = make_engine((struct setup){ 0 });
		uint8_t *pages = malloc(100 * 256);
		for (uint32_t number = 0; number < 100; number++)
			make_content(engine, UNSAMPLED, pages + number * 256, number % 50);
		make_process(engine, pages, 100, true);
		lksm_begin_round(engine, 0);
		enqueue_all(engine);
		scan_pages(engine, 1);
		/* The node pool has room before, so that only keys and roots are wanted. */
		pool_destroy(&engine->nodes, pool_create(&engine->nodes));
		fail_next(engine, FAIL_FOR_EVER);
		scan_pages(engine, can_deepen_later ? 60 : 99);
		fail_no_more(engine);
		EXPECT_EQUAL(engine->indexes->deepened.nr_keys, 0);
		scan_to_end(engine);
		EXPECT_COUNTERS(engine, 50, 50, 0);
		EXPECT_EQUAL(engine->indexes->deepened.nr_keys, can_deepen_later);
		full(engine);
		EXPECT_COUNTERS(engine, 50, 50, 0);
		DESTROY(engine);
		free(pages);
	}
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_pair_and_join),
		TEST(test_write_is_noticed),
		TEST(test_019_verify_after_write),
		TEST(test_020_second_mapping_fails),
		TEST(test_no_memory_for_frame),
		TEST(test_021_stable_insert_fails),
		TEST(test_both_written_to_a_merged_content),
		TEST(test_022_no_memory_for_an_item),
		TEST(test_044_unmerge_needs_no_memory),
		TEST(test_twin_is_no_longer_mergeable),
		TEST(test_gate_not_frozen),
		TEST(test_gate_new_in_round_2),
		TEST(test_gate_frozen_new),
		TEST(test_gate_frozen_was_unstable),
		TEST(test_gate_thawed),
		TEST(test_gate_frozen_was_volatile),
		TEST(test_gate_frozen_was_stable),
		TEST(test_gate_is_gone_in_round_3),
		TEST(test_014_stable_merge_is_not_gated),
		TEST(test_010_pair_forms_in_round_2),
		TEST(test_015_bypass_only_for_pages_that_passed),
		TEST(test_gate_of_immutable_pages),
		TEST(test_upstream_gate_never_opens),
		TEST(test_upstream_gate_knows_no_frozen),
		TEST(test_upstream_gate_is_before_the_stable_tree),
		TEST(test_upstream_merged_page_is_changed),
		TEST(test_upstream_merged_page_is_written_alike),
		TEST(test_upstream_limit),
		TEST(test_work_of_a_pair),
		TEST(test_work_of_a_changed_page),
		TEST(test_work_of_the_gate),
		TEST(test_work_of_a_long_scan),
		TEST(test_same_array_twice),
		TEST(test_alias_takes_over),
		TEST(test_overlapping_views),
		TEST(test_domains_are_apart),
		TEST(test_no_memory_for_address),
		TEST(test_003_adversaries),
		TEST(test_032_zero_frame),
		TEST(test_033_zero_pages),
		TEST(test_034_zero_page_is_written),
		TEST(test_035_zero_rule_without_gate),
		TEST(test_deepening_without_memory),
	};
	return run_tests(tests, NR_TESTS(tests));
}
