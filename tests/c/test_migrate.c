/*
 * test_migrate.c - memory nodes: pages kept apart by node, frames that are moved, a node that goes offline.
 */
#include "fixture.h"

/* Two memory nodes, kept apart, and a process on each. */
struct machine {
	struct engine *engine;
	uint8_t *arrays[2];
	struct mm_slot *processes[2];	/* by memory node */
};

static struct machine make_machine(struct setup setup, const char *on_0, const char *on_1, bool is_immutable)
{
	setup.nr_nodes = 2;
	struct machine machine = { .engine = make_engine(setup) };
	const char *pictures[2] = { on_0, on_1 };
	EXPECT_EQUAL(lksm_set_merge_across_nodes(machine.engine, false), LKSM_OK);
	for (uint32_t node = 0; node < 2; node++) {
		machine.arrays[node] = make_pages(machine.engine, pictures[node]);
		machine.processes[node] = make_process_at(machine.engine, machine.arrays[node],
							  strlen(pictures[node]), node, 0, is_immutable);
	}
	full(machine.engine);
	return machine;
}

static void destroy_machine(struct machine *machine)
{
	DESTROY(machine->engine);
	free(machine->arrays[0]);
	free(machine->arrays[1]);
}

/* Equal pages merge on one node and not across two; both unstable trees begin anew in each round. Row 89. */
static void test_089_kept_apart(void)
{
	struct machine machine = make_machine((struct setup){ 0 }, "aabcd", "aaabe", false);
	EXPECT_COUNTERS(machine.engine, 2, 3, 5);
	EXPECT(frame_of(machine.processes[0], 0) != frame_of(machine.processes[1], 0));
	EXPECT_EQUAL(lksm_set_merge_across_nodes(machine.engine, true), LKSM_BUSY);
	EXPECT_EQUAL(lksm_set_merge_across_nodes(machine.engine, false), LKSM_OK);
	for (int round = 0; round < 300; round++)
		full(machine.engine);
	EXPECT_COUNTERS(machine.engine, 2, 3, 5);
	lksm_unmerge(machine.engine);
	EXPECT_EQUAL(lksm_set_merge_across_nodes(machine.engine, true), LKSM_OK);
	full(machine.engine);
	EXPECT_COUNTERS(machine.engine, 2, 5, 3);
	destroy_machine(&machine);
}

/* A frame that is moved is filed on its new node at the next visit, and keeps its pages and its number. Row 90. */
static void test_090_refiled(void)
{
	for (int is_immutable = 0; is_immutable < 2; is_immutable++) {
		struct machine machine = make_machine((struct setup){ 0 }, "aa", "b", is_immutable);
		int64_t frame = frame_of(machine.processes[0], 0);
		EXPECT_EQUAL(lksm_process_move(machine.processes[0], 0, 1, 1), LKSM_OK);
		EXPECT_EQUAL(node_of_page(machine.processes[0], 1)->memory_node, 1);
		EXPECT_EQUAL(node_of_page(machine.processes[0], 1)->tree, 0);
		EXPECT_COUNTERS(machine.engine, 1, 1, 1);
		full(machine.engine);
		EXPECT_COUNTERS(machine.engine, 1, 1, 1);
		EXPECT_EQUAL(node_of_page(machine.processes[0], 1)->tree, 1);
		EXPECT_EQUAL(frame_of(machine.processes[0], 1), frame);
		uint8_t *more = make_pages(machine.engine, "a");
		struct mm_slot *late = make_process_at(machine.engine, more, 1, 1, 0, is_immutable);
		full(machine.engine);
		EXPECT_COUNTERS(machine.engine, 1, 2, 1);
		EXPECT_EQUAL(frame_of(late, 0), frame);
		destroy_machine(&machine);
		free(more);
	}
}

/* The frame's only page joins an equal frame that is there already, and its own goes. Row 90. */
static void test_090_single_mapping_merges(void)
{
	struct machine machine = make_machine((struct setup){ 0 }, "aa", "aa", false);
	EXPECT_COUNTERS(machine.engine, 2, 2, 0);
	write_page(machine.processes[0], 1, 'x');
	full(machine.engine);
	EXPECT_COUNTERS(machine.engine, 2, 1, 1);
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 0, 1, 1), LKSM_OK);
	full(machine.engine);
	EXPECT_COUNTERS(machine.engine, 1, 2, 1);
	EXPECT_EQUAL(frame_of(machine.processes[0], 0), frame_of(machine.processes[1], 0));
	EXPECT_EQUAL(machine.engine->memory.reserved[LKSM_FOR_FRAMES], 256);
	destroy_machine(&machine);
}

/* The frame of two pages becomes a dup of an equal frame that is there already; they share one copy. Row 90. */
static void test_090_two_mappings_become_a_dup(void)
{
	struct machine machine = make_machine((struct setup){ 0 }, "aa", "aa", false);
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 0, 1, 1), LKSM_OK);
	EXPECT_EQUAL(machine.engine->nr_gone, 0);
	full(machine.engine);
	EXPECT(machine.engine->nr_gone > 0);	/* one of their frames has gone for that copy */
	EXPECT_COUNTERS(machine.engine, 2, 2, 0);
	struct lksm_counters c = counters_of(machine.engine);
	EXPECT_EQUAL(c.stable_node_chains, 1);
	EXPECT_EQUAL(c.stable_node_dups, 2);
	EXPECT_EQUAL(c.broken, 0);
	EXPECT(frame_of(machine.processes[0], 0) != frame_of(machine.processes[1], 0));
	EXPECT_EQUAL(machine.engine->memory.reserved[LKSM_FOR_FRAMES], 256);
	destroy_machine(&machine);
}

/* Where all equal frames are full the only page of a moved one leaves it, and waits for a twin. */
static void test_only_page_finds_no_room(void)
{
	struct machine machine = make_machine((struct setup){ .max_page_sharing = 2 }, "aa", "aa", false);
	write_page(machine.processes[0], 1, 'x');
	full(machine.engine);
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 0, 1, 1), LKSM_OK);
	full(machine.engine);
	EXPECT_COUNTERS(machine.engine, 1, 1, 2);
	destroy_machine(&machine);
}

/* A dup is moved: it leaves its chain, with a copy of its own; and comes back. */
static void test_a_dup_moves(void)
{
	struct machine machine = make_machine((struct setup){ .max_page_sharing = 2 }, "aaaaaa", "b", false);
	EXPECT_COUNTERS(machine.engine, 3, 3, 1);
	EXPECT_EQUAL(machine.engine->memory.reserved[LKSM_FOR_FRAMES], 256);
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 2, 4, 1), LKSM_OK);
	full(machine.engine);
	EXPECT_COUNTERS(machine.engine, 3, 3, 1);
	EXPECT_EQUAL(counters_of(machine.engine).stable_node_dups, 2);
	EXPECT_EQUAL(node_of_page(machine.processes[0], 3)->tree, 1);
	EXPECT_EQUAL(machine.engine->memory.reserved[LKSM_FOR_FRAMES], 512);
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 2, 4, 0), LKSM_OK);
	full(machine.engine);
	EXPECT_EQUAL(counters_of(machine.engine).stable_node_dups, 3);
	EXPECT_EQUAL(machine.engine->memory.reserved[LKSM_FOR_FRAMES], 256);
	EXPECT_EQUAL(counters_of(machine.engine).broken, 0);
	destroy_machine(&machine);
}

/* Whatever allocation fails, a moved frame keeps its pages and is filed later. */
static void test_moving_may_fail(void)
{
	for (uint64_t nth = 0; nth < 4; nth++) {
		struct machine machine = make_machine((struct setup){ .max_page_sharing = 2 }, "aaaa", "aa", false);
		struct engine *engine = machine.engine;
		fail_next(engine, 0);
		EXPECT_EQUAL(lksm_process_move(machine.processes[0], 0, 2, 1), LKSM_NO_MEMORY);
		fail_no_more(engine);
		EXPECT_EQUAL(node_of_page(machine.processes[0], 0)->memory_node, 0);
		EXPECT_EQUAL(lksm_process_move(machine.processes[0], 0, 2, 1), LKSM_OK);
		engine->memory.fail_at = engine->memory.nr_allocations + 1 + nth;
		engine->memory.fail_count = FAIL_FOR_EVER;
		full(engine);
		fail_no_more(engine);
		EXPECT_COUNTERS(engine, 3, 3, 0);
		EXPECT_EQUAL(counters_of(engine).broken, 0);
		full(engine);
		EXPECT_COUNTERS(engine, 3, 3, 0);
		EXPECT_EQUAL(counters_of(engine).stable_node_dups, 3);
		EXPECT_EQUAL(node_of_page(machine.processes[0], 1)->tree, 1);
		EXPECT_PICTURE(machine.processes[0], "aaaa");
		destroy_machine(&machine);
	}
}

/* A search that would join a moved frame sends it to the migrate list, where its pages, writes and exit find it. */
static void test_found_by_a_search(void)
{
	for (int what = 0; what < 3; what++) {
		struct machine machine = make_machine((struct setup){ 0 }, "baa", "x", false);
		struct engine *engine = machine.engine;
		struct index *index = engine->indexes;
		EXPECT_EQUAL(lksm_process_move(machine.processes[0], 1, 2, 1), LKSM_OK);
		write_page(machine.processes[0], 0, 'a');
		lksm_begin_round(engine, 0);
		enqueue_all(engine);
		EXPECT_EQUAL(scan_pages(engine, 1), 1);
		EXPECT(index->first_migrating != 0);
		EXPECT_COUNTERS(engine, 1, 1, 2);
		EXPECT_EQUAL(lksm_find(engine, 0, machine.arrays[0] + 256), frame_of(machine.processes[0], 1));
		struct lksm_group groups[2];
		EXPECT_EQUAL(lksm_nr_groups(engine, -1, 2), 1);
		lksm_groups(engine, -1, 2, true, groups);
		EXPECT_EQUAL(groups[0].pages, 2);
		int64_t matrix[4];
		EXPECT_EQUAL(lksm_sharing_matrix(engine, matrix), LKSM_OK);
		EXPECT_EQUAL(matrix[0], 2);
		if (what == 0) {
			scan_to_end(engine);
			EXPECT_COUNTERS(engine, 1, 1, 2);
			EXPECT_EQUAL(node_of_page(machine.processes[0], 2)->tree, 1);
		} else if (what == 1) {
			lksm_process_destroy(machine.processes[0]);
			EXPECT_COUNTERS(engine, 0, 0, 1);
		} else {
			EXPECT_EQUAL(lksm_offline(engine, 1), LKSM_OK);
			EXPECT_COUNTERS(engine, 0, 0, 2);
			EXPECT_EQUAL(counters_of(engine).broken, 1);
		}
		EXPECT(!index->first_migrating);
		destroy_machine(&machine);
	}
}

/* A page that left its frame by a write moves alone, before it is visited too. */
static void test_a_written_page_moves(void)
{
	struct machine machine = make_machine((struct setup){ 0 }, "aa", "b", false);
	EXPECT_EQUAL(write_page(machine.processes[0], 1, 'x'), LKSM_OK);
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 1, 2, 1), LKSM_OK);
	EXPECT_EQUAL(node_of_page(machine.processes[0], 0)->memory_node, 0);
	full(machine.engine);
	EXPECT_COUNTERS(machine.engine, 1, 0, 2);
	EXPECT_EQUAL(node_of_page(machine.processes[0], 0)->tree, 0);
	EXPECT_PICTURE(machine.processes[0], "ax");
	destroy_machine(&machine);
}

/* Two frames wait on the migrate list, and the one that came first leaves first. */
static void test_two_wait(void)
{
	struct machine machine = make_machine((struct setup){ 0 }, "xyaadd", "z", false);
	struct engine *engine = machine.engine;
	for (int node = 0; node < 2; node++)
		EXPECT_EQUAL(lksm_find(engine, 0, machine.arrays[node]), LKSM_ENTRY_PRIVATE);
	EXPECT_EQUAL(lksm_find(engine, 0, machine.arrays[0] + 2 * 256), frame_of(machine.processes[0], 2));
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 2, 5, 1), LKSM_OK);
	write_page(machine.processes[0], 0, 'a');
	write_page(machine.processes[0], 1, 'd');
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	EXPECT_EQUAL(scan_pages(engine, 2), 2);
	uint32_t first = item_at(&engine->items, item_find(machine.processes[0]->regions[0], 2))->sharer.node;
	uint32_t second = item_at(&engine->items, item_find(machine.processes[0]->regions[0], 4))->sharer.node;
	EXPECT_EQUAL(engine->indexes->first_migrating, second);
	EXPECT_EQUAL(node_at(engine, second)->migrating.next, first);
	EXPECT_EQUAL(lksm_find(engine, 0, machine.arrays[0] + 2 * 256), frame_of(machine.processes[0], 2));
	EXPECT_EQUAL(scan_pages(engine, 1), 1);
	EXPECT_EQUAL(node_at(engine, second)->migrating.next, 0);
	EXPECT_SOUND(engine);
	scan_to_end(engine);
	EXPECT(!engine->indexes->first_migrating);
	EXPECT_COUNTERS(engine, 2, 2, 3);
	destroy_machine(&machine);
}

/* A moved frame stays on the migrate list while there is no memory for the chain that it would join. */
static void test_no_room_for_a_chain(void)
{
	struct machine machine = make_machine((struct setup){ 0 }, "aa", "aa", false);
	struct engine *engine = machine.engine;
	uint32_t others[POOL_CHUNK_OBJECTS], nr_others = 0;
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 0, 1, 1), LKSM_OK);
	fail_next(engine, FAIL_FOR_EVER);
	while ((others[nr_others] = pool_create(&engine->nodes)) != 0)
		nr_others++;
	full(engine);
	fail_no_more(engine);
	EXPECT(engine->indexes->first_migrating != 0);
	EXPECT_COUNTERS(engine, 2, 2, 0);
	while (nr_others)
		pool_destroy(&engine->nodes, others[--nr_others]);
	full(engine);
	EXPECT(!engine->indexes->first_migrating);
	EXPECT_EQUAL(counters_of(engine).stable_node_dups, 2);
	EXPECT_PICTURE(machine.processes[0], "aa");
	destroy_machine(&machine);
}

/* A candidate that is moved is found where it was filed, and is no twin there. Row 9. */
static void test_a_candidate_moves(void)
{
	struct machine machine = make_machine((struct setup){ 0 }, "ab", "c", false);
	struct engine *engine = machine.engine;
	write_page(machine.processes[0], 1, 'a');
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	EXPECT_EQUAL(scan_pages(engine, 1), 1);
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 0, 1, 1), LKSM_OK);
	EXPECT_SOUND(engine);
	EXPECT_EQUAL(scan_pages(engine, 1), 1);
	EXPECT_COUNTERS(engine, 0, 0, 2);
	EXPECT_EQUAL(item_of(machine.processes[0], 1)->state, ITEM_VOLATILE);
	/* It leaves the tree it was filed in, whatever is compared by then. */
	EXPECT_EQUAL(lksm_set_merge_across_nodes(engine, true), LKSM_OK);
	lksm_process_destroy(machine.processes[0]);
	EXPECT_COUNTERS(engine, 0, 0, 1);
	destroy_machine(&machine);
}

/* Moving one of several pages at one address moves the page that stands for them, and its frame. */
static void test_aliases_move_together(void)
{
	struct machine machine = make_machine((struct setup){ 0 }, "aa", "b", false);
	struct mm_slot *child = NULL;
	EXPECT_EQUAL(lksm_process_fork(machine.processes[0], &child), LKSM_OK);
	full(machine.engine);
	EXPECT_COUNTERS(machine.engine, 1, 1, 1);
	for (int nth = 1; nth <= 2; nth++) {	/* room to note nodes, of the page and of the one that stands for it */
		machine.engine->memory.fail_at = machine.engine->memory.nr_allocations + 1;
		EXPECT_EQUAL(lksm_process_move(child, 0, 1, 1), LKSM_NO_MEMORY);
		EXPECT_EQUAL(node_of_page(machine.processes[0], 1)->memory_node, 0);
		machine.engine->memory.fail_at = machine.engine->memory.nr_allocations + 2;
		EXPECT_EQUAL(lksm_process_move(child, 0, 1, 1), nth == 1 ? LKSM_NO_MEMORY : LKSM_OK);
		fail_no_more(machine.engine);
	}
	EXPECT_EQUAL(node_of_page(machine.processes[0], 1)->memory_node, 1);
	full(machine.engine);
	EXPECT_COUNTERS(machine.engine, 1, 1, 1);
	EXPECT_EQUAL(node_of_page(machine.processes[0], 1)->tree, 1);
	struct mm_slot *grandchild = NULL;
	fail_next(machine.engine, FAIL_FOR_EVER);
	EXPECT_EQUAL(lksm_process_fork(child, &grandchild), LKSM_NO_MEMORY);
	fail_no_more(machine.engine);
	EXPECT_EQUAL(lksm_process_fork(child, &grandchild), LKSM_OK);
	lksm_process_destroy(machine.processes[0]);
	lksm_process_destroy(child);
	uint64_t place;
	EXPECT_EQUAL(page_node(mm_slot_region(grandchild, 0, &place), 0), 1);
	EXPECT_EQUAL(page_node(mm_slot_region(grandchild, 1, &place), 1), 0);
	destroy_machine(&machine);
}

/* Offline: the frames of the node are gone, in every domain; others stay. What is asked for wrongly is refused. */
static void test_091_offline(void)
{
	struct machine machine = make_machine((struct setup){ .max_page_sharing = 2 }, "aaaa", "aaab", false);
	struct engine *engine = machine.engine;
	uint8_t *pages = make_pages(engine, "aa");
	make_process_at(engine, pages, 2, 1, 5, false);
	full(engine);
	EXPECT_COUNTERS(engine, 4, 4, 2);
	EXPECT_EQUAL(lksm_offline(engine, 2), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 0, 1, 2), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_move(machine.processes[0], 0, 5, 1), LKSM_INVALID);
	fail_next(engine, FAIL_FOR_EVER);
	EXPECT_EQUAL(lksm_offline(engine, 1), LKSM_OK);
	fail_no_more(engine);
	EXPECT_COUNTERS(engine, 2, 2, 2);
	EXPECT_EQUAL(volatile_of(engine), 4);
	EXPECT_PICTURE(machine.processes[1], "aaab");
	full(engine);
	EXPECT_COUNTERS(engine, 4, 4, 2);
	destroy_machine(&machine);
	free(pages);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_089_kept_apart),
		TEST(test_090_refiled),
		TEST(test_090_single_mapping_merges),
		TEST(test_090_two_mappings_become_a_dup),
		TEST(test_only_page_finds_no_room),
		TEST(test_a_dup_moves),
		TEST(test_moving_may_fail),
		TEST(test_found_by_a_search),
		TEST(test_a_written_page_moves),
		TEST(test_two_wait),
		TEST(test_no_room_for_a_chain),
		TEST(test_a_candidate_moves),
		TEST(test_aliases_move_together),
		TEST(test_091_offline),
	};
	return run_tests(tests, NR_TESTS(tests));
}
