/*
 * test_check.c - a checker never seen to fail is no checker: each invariant is broken on purpose.
 *
 * Every test takes a sound engine, changes one field, expects the lines of that invariant and no others,
 * puts the field back and expects no line.
 */
#include "filter.h"
#include "fixture.h"
#include "zero.h"

/* Reaches all corners: pairs, a chain, owned and borrowed frames, aliases, copies, an unfinished scan. */
struct world {
	struct engine *engine;
	uint8_t *arrays[4];
	struct mm_slot *plain;		/* mutable, "aaaabbcd": a chain, a pair, two unshared */
	struct mm_slot *lender;		/* immutable, "eefgx" */
	struct mm_slot *parent;		/* mutable, "hhi" */
	struct mm_slot *child;		/* of the parent, which wrote its last page */
	struct mm_slot *queued;		/* mutable, "jkl": two of three scanned */
	struct index *index;
};

static struct world make_world_with(lksm_hash hash)
{
	struct world world = { .engine = make_engine((struct setup){ .max_page_sharing = 3, .hash = hash }) };
	struct engine *engine = world.engine;
	static const char *const pictures[] = { "aaaaabbcd", "eefgx", "hhi", "jkl" };
	struct mm_slot *processes[4];
	for (int i = 0; i < 4; i++) {
		world.arrays[i] = make_pages(engine, pictures[i]);
		processes[i] = make_process(engine, world.arrays[i], strlen(pictures[i]), i == 1);
	}
	world.plain = processes[0];
	world.lender = processes[1];
	world.parent = processes[2];
	world.queued = processes[3];
	EXPECT_EQUAL(lksm_process_fork(world.parent, &world.child), LKSM_OK);
	full(engine);
	EXPECT_EQUAL(write_page(world.parent, 2, 'y'), LKSM_OK);
	full(engine);
	lksm_begin_round(engine, 0);
	enqueue(world.queued, false);
	enqueue(world.plain, true);
	scan_pages(engine, 2);
	world.index = engine->indexes;
	EXPECT_SOUND(engine);
	return world;
}

static struct world make_world(void)
{
	return make_world_with(strong_hash);
}

static void destroy_world(struct world *world)
{
	DESTROY(world->engine);
	for (int i = 0; i < 4; i++)
		free(world->arrays[i]);
}

/* Does check() report, and only faults of invariant @number? And is @words in some line, unless NULL? */
static void expect_fault_at(const char *place, struct engine *engine, int number, const char *words)
{
	static char text[16384];
	char prefix[8];
	uint64_t nr_faults = check(engine, text, sizeof(text)), nr_lines = 0;
	snprintf(prefix, sizeof(prefix), "I%d ", number);
	expect_at(nr_faults > 0, place, "nothing is wrong, expected a fault of I%d (%s)", number, words ? words : "");
	if (words)
		expect_at(strstr(text, words) != NULL, place, "no line has \"%s\":\n%s", words, text);
	for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, nr_lines++)
		expect_at(!strncmp(line, prefix, strlen(prefix)), place, "expected only I%d: %.*s", number,
			  (int)(end - line), line);
	expect_at(nr_lines == nr_faults, place, "%" PRIu64 " lines for %" PRIu64 " faults", nr_lines, nr_faults);
}

/* Changes @field to @value, expects faults of invariant @number with @words, and changes it back. */
#define EXPECT_FAULT(world, field, value, number, words)                     \
	do {                                                                 \
		__auto_type saved = (field);                                 \
		(field) = (value);                                           \
		expect_fault_at(PLACE, (world)->engine, (number), (words)); \
		(field) = saved;                                             \
		EXPECT_SOUND((world)->engine);                               \
	} while (0)

/* The same for a bit field, whose type cannot be asked for. */
#define EXPECT_BIT_FAULT(world, field, value, number, words)                 \
	do {                                                                 \
		uint64_t saved = (field);                                    \
		(field) = (value);                                           \
		expect_fault_at(PLACE, (world)->engine, (number), (words)); \
		(field) = saved;                                             \
		EXPECT_SOUND((world)->engine);                               \
	} while (0)

static uint32_t ref_of(const struct mm_slot *process, uint64_t page)
{
	uint64_t place;
	const struct region *region = mm_slot_region(process, page, &place);
	return item_find(region, place);
}

/* I1: every tree is red-black. */
static void test_i01_red_black(void)
{
	/* One key for all: the four contents are one tree, of which the greatest is a red leaf. */
	struct world world = make_world_with(hash_0_bits);
	const struct pool *pool = world.index->trees->stable.pool;
	struct rb_node *leaf = NULL, *black = NULL;
	for (uint32_t ref = 0; (ref = forest_next(&world.index->trees->stable, ref)) != 0;) {
		leaf = rb_at(pool, ref);
		black = !leaf->is_red && leaf->parent ? leaf : black;
	}
	EXPECT(world.index->trees->stable.nr_entries == 4 && !leaf->child[1] && leaf->is_red && black);
	EXPECT_BIT_FAULT(&world, leaf->is_red, 0, 1, "black height");
	EXPECT_BIT_FAULT(&world, black->is_red, 1, 1, "black height");
	EXPECT_BIT_FAULT(&world, rb_at(pool, leaf->parent)->is_red, 1, 1, "red, and so is its child");
	EXPECT_BIT_FAULT(&world, leaf->parent, 0, 1, "its child");
	destroy_world(&world);
}

/* I2: every forest is in the order of (key, bytes), each object under its root, and counted. */
static void test_i02_order(void)
{
	struct world world = make_world();
	struct index *index = world.index;
	EXPECT_FAULT(&world, index->trees->stable.nr_entries, index->trees->stable.nr_entries + 1, 2, "count says");
	EXPECT_FAULT(&world, index->trees->unstable.nr_entries, index->trees->unstable.nr_entries + 1, 2, "count says");
	struct rmap_item *item = item_of(world.queued, 0);
	EXPECT(item->state == ITEM_UNSTABLE && index->trees->unstable.root_bits > 0);
	EXPECT_FAULT(&world, item->key, ~item->key, 2, "another root");
	destroy_world(&world);

	/* One key for all: the first of two objects gets a greater one. */
	world = make_world_with(hash_0_bits);
	item = pool_at(&world.engine->items, forest_next(&world.index->trees->unstable, 0));
	EXPECT_FAULT(&world, item->key, 1, 2, "less than the one before");
	destroy_world(&world);
}

/* I3: a content is filed under the key of its frame. */
static void test_i03_key_of_frame(void)
{
	struct world world = make_world();
	/* A tree of its own, so that the order stays right. */
	const struct forest *forest = &world.index->trees->stable;
	struct stable_node *alone = NULL;
	for (uint32_t ref = 0; (ref = forest_next(forest, ref)) != 0;) {
		struct stable_node *node = node_at(world.engine, ref);
		if (!node->rb.parent && !node->rb.child[0] && !node->rb.child[1])
			alone = node;
	}
	if (EXPECT(alone != NULL))
		EXPECT_FAULT(&world, alone->key, alone->key ^ 1, 3, "another key");
	destroy_world(&world);
}

/* I4: a frame is ours or an immutable sharer's, and immutable sharers equal it. */
static void test_i04_frames(void)
{
	struct world world = make_world();
	struct stable_node *borrowed = node_of_page(world.lender, 0);
	EXPECT(!borrowed->is_owned);
	uint8_t *same = make_pages(world.engine, "e");
	EXPECT_FAULT(&world, borrowed->bytes, same, 4, "no immutable sharer has");
	free(same);
	world.lender->regions[0]->is_immutable = false;
	expect_fault_at(PLACE, world.engine, 4, "no immutable sharer has");
	world.lender->regions[0]->is_immutable = true;
	/* The page that does not lend its bytes changes, though it must not. */
	uint8_t *other = world.arrays[1] + (borrowed->bytes == world.arrays[1] ? 256 : 0);
	EXPECT_FAULT(&world, other[17], (uint8_t)~other[17], 4, "differs from the frame");
	destroy_world(&world);
}

/* I5: the list of a node has as many stable items as it says, linked both ways, naming it. */
static void test_i05_sharers(void)
{
	struct world world = make_world();
	struct stable_node *node = node_of_page(world.plain, 5);
	struct rmap_item *newest = item_at(&world.engine->items, node->sharers);
	EXPECT_EQUAL(node->nr_sharers, 2);
	EXPECT_FAULT(&world, node->nr_sharers, 1, 5, "list has 2 items, count says 1");
	EXPECT_FAULT(&world, newest->sharer.previous, 7, 5, "wrong link back");
	EXPECT_FAULT(&world, newest->sharer.node, newest->sharer.node + 1, 5, "names node");
	destroy_world(&world);
}

/* I6: a chain's ring closes, its dups name it, have room before full, equal bytes and one copy of them. */
static void test_i06_chains(void)
{
	struct world world = make_world();
	struct engine *engine = world.engine;
	struct stable_node *full_node = node_of_page(world.plain, 0), *roomy = node_of_page(world.plain, 4);
	EXPECT(roomy->kind == NODE_DUP && roomy->nr_sharers == 2 && full_node->nr_sharers == 3);
	uint32_t chain_ref = roomy->dup.chain, roomy_ref = full_node->dup.next, full_ref = roomy->dup.next;
	struct stable_node *chain = node_at(engine, chain_ref);
	EXPECT(chain->kind == NODE_CHAIN && chain->first_dup == roomy_ref && node_at(engine, full_ref) == full_node);
	EXPECT_BIT_FAULT(&world, full_node->kind, NODE_PLAIN, 6, "does not know that it is a dup");
	EXPECT_FAULT(&world, full_node->dup.chain, full_ref, 6, "does not know that it is a dup");
	EXPECT_FAULT(&world, full_node->dup.previous, full_ref, 6, "wrong link back");
	EXPECT_FAULT(&world, roomy->dup.previous, roomy_ref, 6, "wrong link back");
	EXPECT_BIT_FAULT(&world, node_of_page(world.plain, 5)->kind, NODE_DUP, 6, "filed though it is a dup");
	uint8_t *same = make_pages(engine, "aq");
	EXPECT_FAULT(&world, full_node->bytes, same, 6, "a second copy of one content");
	EXPECT_FAULT(&world, full_node->bytes, same + 256, 6, "differs from the first");
	EXPECT_BIT_FAULT(&world, chain->has_copy, 0, 6, "whether it has a copy");
	free(same);
	/* The limit is 1 less than a node has. */
	EXPECT_FAULT(&world, engine->max_page_sharing, 2, 6, "no more than 2 are allowed");
	EXPECT_FAULT(&world, chain->first_dup, full_ref, 6, "stands behind a full one");
	/* From the second dup back to itself: counts are wrong too, but the walk ends. */
	static char text[16384];
	full_node->dup.next = full_ref;
	check(engine, text, sizeof(text));
	EXPECT(strstr(text, "its ring does not close") != NULL);
	full_node->dup.next = roomy_ref;
	chain->first_dup = 0;
	check(engine, text, sizeof(text));
	EXPECT(strstr(text, "a chain of nothing") != NULL);
	chain->first_dup = roomy_ref;
	EXPECT_SOUND(engine);
	destroy_world(&world);
}

/* I15: every chain that is filed is in line to be pruned, in the order of the times at which it was. */
static void test_i15_chains_in_line(void)
{
	struct world world = { .engine = make_engine((struct setup){ .max_page_sharing = 2 }) };
	struct engine *engine = world.engine;
	uint8_t *pages = make_pages(engine, "aaaabbbbcccc");
	struct mm_slot *process = make_process(engine, pages, 12, false);
	uint64_t nr_scanned;
	lksm_begin_round(engine, 0);
	enqueue(process, false);
	for (uint64_t now = 10; lksm_has_queue(engine); now += 10)
		EXPECT_EQUAL(lksm_scan(engine, 4, now, &nr_scanned), LKSM_OK);
	EXPECT_EQUAL(counters_of(engine).stable_node_chains, 3);
	struct index *index = engine->indexes;
	uint32_t first = index->first_chain, middle = node_at(engine, first)->queue.next, last = index->last_chain;
	struct stable_node *chain = node_at(engine, middle);
	EXPECT(chain->queue.previous == first && chain->queue.next == last && chain->pruned == 20);
	EXPECT_FAULT(&world, chain->queue.previous, last, 15, "wrong link back");
	EXPECT_FAULT(&world, index->first_chain, middle, 15, "2 are in line to be pruned, 3 are filed");
	EXPECT_FAULT(&world, index->last_chain, middle, 15, "is not the last");
	EXPECT_FAULT(&world, node_at(engine, last)->queue.next, first, 15, "in line to be pruned");
	EXPECT_FAULT(&world, index->last_chain, 0, 15, "is not the last");
	EXPECT_BIT_FAULT(&world, chain->pruned, 31, 15, "was pruned before the one before it");
	/* Nobody's chain in place of the middle one. */
	uint32_t stray = pool_create(&engine->nodes);
	*node_at(engine, stray) = *chain;
	EXPECT_FAULT(&world, node_at(engine, first)->queue.next, stray, 15, "nobody's chain");
	pool_destroy(&engine->nodes, stray);
	DESTROY(engine);
	free(pages);
}

/* I18: what is merged is filed in the tree that it names; moved frames are on the migrate list. */
static void test_i18_memory_nodes(void)
{
	struct engine *engine = make_engine((struct setup){ .nr_nodes = 2 });
	struct world world = { .engine = engine };
	uint8_t *pages = make_pages(engine, "aabbccdd");
	struct mm_slot *process = make_process(engine, pages, 8, false);
	EXPECT_EQUAL(lksm_set_merge_across_nodes(engine, false), LKSM_OK);
	full(engine);
	EXPECT_COUNTERS(engine, 4, 4, 0);
	struct index *index = engine->indexes;
	struct stable_node *node = node_of_page(process, 0);
	EXPECT_BIT_FAULT(&world, node->tree, 1, 18, "is in tree 0, says 1");
	EXPECT_BIT_FAULT(&world, node->memory_node, 2, 18, "on memory node 2");
	/* Three frames are moved, and one page of each is visited where there is no memory to file them. */
	EXPECT_EQUAL(lksm_process_move(process, 2, 8, 1), LKSM_OK);
	uint32_t refs[3];
	for (int i = 0; i < 3; i++) {
		refs[i] = item_of(process, 2 + 2 * i)->sharer.node;
		EXPECT(stable_tree_take_out(index, refs[i]));
	}
	EXPECT_SOUND(engine);
	node = node_at(engine, refs[1]);
	EXPECT_FAULT(&world, node->migrating.previous, refs[0], 18, "wrong link back");
	EXPECT_BIT_FAULT(&world, node->kind, NODE_PLAIN, 18, "on the migrate list, but of kind 0");
	EXPECT_FAULT(&world, engine->merge_across_nodes, true, 18, "but pages merge across nodes");
	DESTROY(engine);
	free(pages);
}

/* I7: pages_shared, pages_sharing, chains and dups are what a recount says. */
static void test_i07_counters_of_nodes(void)
{
	struct world world = make_world();
	struct index *index = world.index;
	EXPECT_FAULT(&world, index->pages_shared, index->pages_shared + 1, 7, "pages_shared");
	EXPECT_FAULT(&world, index->pages_sharing, index->pages_sharing - 1, 7, "pages_sharing");
	EXPECT_FAULT(&world, index->nr_chains, index->nr_chains + 1, 7, "chains and dups");
	EXPECT_FAULT(&world, index->nr_dups, index->nr_dups - 1, 7, "chains and dups");
	destroy_world(&world);
}

/* I8: items are counted by block, region and process, and their marks fit their state. */
static void test_i08_items(void)
{
	struct world world = make_world();
	struct region *region = world.plain->regions[0];
	struct rmap_block *block = pool_header(&world.engine->items, ref_of(world.plain, 0));
	struct rmap_item *item = item_of(world.queued, 0);
	EXPECT_BIT_FAULT(&world, item->is_private, 1, 8, "private but not stable");
	EXPECT_FAULT(&world, region->nr_items, region->nr_items + 1, 8, "items, count says");
	EXPECT_FAULT(&world, world.plain->rmap_items, world.plain->rmap_items + 1, 8, "process 0");
	EXPECT_FAULT(&world, world.plain->nr_stable, world.plain->nr_stable + 1, 8, "stable");
	EXPECT_FAULT(&world, world.plain->nr_unstable, world.plain->nr_unstable - 1, 8, "unstable");
	EXPECT_FAULT(&world, block->nr_items, block->nr_items + 1, 8, "block");
	EXPECT_FAULT(&world, block->first_page, 256, 8, "does not name its region");
	destroy_world(&world);
}

/* I8 too: no item is filed in a round that has not come. */
static void test_i08_rounds(void)
{
	struct world world = make_world();
	struct rmap_item *item = item_of(world.plain, 7);
	EXPECT(item->state == ITEM_UNSTABLE && item->round < world.engine->scan_round);
	EXPECT_BIT_FAULT(&world, item->round, world.engine->scan_round + 1, 8, "filed in round");
	EXPECT_EQUAL(item->age, 0);
	EXPECT_BIT_FAULT(&world, item->remaining_skips, 1, 8, "skipped at age 0");
	item->age = 20;
	EXPECT_SOUND(world.engine);
	EXPECT_BIT_FAULT(&world, item->remaining_skips, 9, 8, "9 visits to be skipped");
	destroy_world(&world);
}

/* I9: pages of several mappings are entered by address; only the first item is in a tree. */
static void test_i09_addresses(void)
{
	struct world world = make_world();
	struct physical_map *map = &world.index->physical;
	uint64_t place = 0;
	while (!map->refs[place])
		place++;
	EXPECT_FAULT(&world, map->nr_items, map->nr_items + 1, 9, "count says");
	/* An alias in the place of the item it is an alias of. */
	uint32_t first = physical_find(map, item_bytes(&world.engine->items, ref_of(world.parent, 0)));
	EXPECT_EQUAL(first, ref_of(world.parent, 0));
	EXPECT_EQUAL(item_of(world.child, 0)->is_alias, 1);
	while (map->refs[place] != first)
		place++;
	EXPECT_FAULT(&world, map->refs[place], ref_of(world.child, 0), 9, "its page belongs to item");
	destroy_world(&world);
}

/* I10: regions know their place, and count their pages; no page is mergeable that may not be. */
static void test_i10_regions(void)
{
	struct world world = make_world();
	struct region *region = world.plain->regions[0];
	EXPECT_FAULT(&world, region->position, 1, 10, "position");
	EXPECT_FAULT(&world, region->first_page, 1, 10, "first page");
	EXPECT_FAULT(&world, region->nr_mergeable, region->nr_mergeable - 1, 10, "mergeable");
	EXPECT_FAULT(&world, region->nr_present, region->nr_present - 1, 10, "present");
	EXPECT_FAULT(&world, region->flags[2], PAGE_MERGEABLE | PAGE_OPTED_OUT, 10, "may not be");
	EXPECT_FAULT(&world, region->is_excluded, true, 10, "may not be");
	EXPECT_FAULT(&world, world.plain->nr_pages, world.plain->nr_pages + 1, 10, "pages, count says");
	destroy_world(&world);
}

/* I11: a process's score is the sum of its window, and its states fit each other. */
static void test_i11_processes(void)
{
	struct world world = make_world();
	EXPECT_FAULT(&world, world.plain->nr_merged, world.plain->nr_merged + 1, 11, "score");
	EXPECT_FAULT(&world, world.plain->window[1], world.plain->window[1] + 1, 11, "score");
	EXPECT_FAULT(&world, world.queued->is_registered, false, 11, "queued but not registered");
	EXPECT_FAULT(&world, world.plain->window[5], 1, 11, "score");
	EXPECT_FAULT(&world, world.plain->window_index, 3, 11, "place 3 in a window of 3");
	EXPECT_FAULT(&world, world.plain->completion, 0, 11, "completion 0 of");
	EXPECT_FAULT(&world, world.plain->completion, world.engine->nr_completions + 1, 11, "completion");
	EXPECT(world.plain->is_scanned);
	EXPECT_FAULT(&world, world.plain->is_newcomer, true, 11, "yet scanned");
	destroy_world(&world);
}

/* I12: the queue is linked both ways and holds who waits, the cursor among them; rounds come in order. */
static void test_i12_queue(void)
{
	struct world world = make_world();
	struct engine *engine = world.engine;
	EXPECT(engine->queue == world.queued && engine->queue_last == world.plain);
	EXPECT_FAULT(&world, world.plain->queue_previous, NULL, 12, "wrong link back");
	EXPECT_FAULT(&world, world.queued->pending, LKSM_PENDING_NONE, 12, "waits for nothing");
	EXPECT_FAULT(&world, world.lender->pending, LKSM_PENDING_FROZEN, 12, "processes wait");
	EXPECT_FAULT(&world, engine->queue_last, world.queued, 12, "is not the last");
	EXPECT_FAULT(&world, engine->cursor.slot, world.lender, 12, "cursor");
	EXPECT_FAULT(&world, engine->cursor.region, world.lender->regions[0], 12, "cursor");
	EXPECT_FAULT(&world, engine->cursor.page, 4, 12, "cursor");
	EXPECT_FAULT(&world, engine->crawl_round, engine->scan_round - 1, 12, "round");
	destroy_world(&world);
}

/* I13: what an index counts is what its processes have. */
static void test_i13_counters_of_items(void)
{
	struct world world = make_world();
	struct index *index = world.index;
	EXPECT_FAULT(&world, index->rmap_items, index->rmap_items + 1, 13, "rmap_items");
	EXPECT_FAULT(&world, index->pages_unshared, index->pages_unshared - 1, 13, "pages_unshared");
	EXPECT_FAULT(&world, index->nr_slots, index->nr_slots + 1, 13, "processes, count says");
	/* An item of an earlier round that claims to be of this one. */
	struct rmap_item *item = item_of(world.plain, 7);
	EXPECT_BIT_FAULT(&world, item->round, world.engine->scan_round, 13, "carry this round");
	destroy_world(&world);
}

/* I14: frames and page copies are what is booked for them. */
static void test_i14_frames_are_booked(void)
{
	struct world world = make_world();
	uint64_t *reserved = &world.engine->memory.reserved[LKSM_FOR_FRAMES];
	struct page_copy *copy = world.child->regions[0]->copies[2];
	EXPECT_FAULT(&world, *reserved, *reserved + 1, 14, "bytes reserved");
	EXPECT_FAULT(&world, *reserved, *reserved - 256, 14, "bytes reserved");
	EXPECT_FAULT(&world, copy->nr_users, copy->nr_users + 1000, 14, "bytes reserved");
	struct stable_node *borrowed = node_of_page(world.lender, 0);
	EXPECT_BIT_FAULT(&world, borrowed->is_owned, 1, 14, "bytes reserved");
	destroy_world(&world);
}

/* Many copies with three users each are counted exactly. */
static void test_i14_shared_copies(void)
{
	struct engine *engine = make_engine((struct setup){ .page_size = 64 });
	uint8_t *pages = calloc(200, 64);
	struct mm_slot *process = make_process(engine, pages, 200, false), *child = NULL;
	for (int i = 0; i < 3; i++)
		EXPECT_EQUAL(lksm_process_fork(process, &child), LKSM_OK);
	for (uint64_t page = 0; page < 200; page++)
		EXPECT_EQUAL(write_page(process, page, 'x'), LKSM_OK);
	EXPECT_SOUND(engine);
	EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 200 * 64);
	DESTROY(engine);
	free(pages);
}

/* Zero pages of two kinds: "00a", mapped twice, and "00", immutable and mapped once. */
struct zero_world {
	struct engine *engine;
	uint8_t *arrays[2];
	struct mm_slot *twice[2];
	struct mm_slot *once;
	struct index *index;
};

static struct zero_world make_zero_world(void)
{
	struct zero_world world = { .engine = make_engine((struct setup){ 0 }) };
	lksm_set_use_zero_pages(world.engine, true);
	world.arrays[0] = make_pages(world.engine, "00a");
	world.arrays[1] = make_pages(world.engine, "00");
	world.twice[0] = make_process(world.engine, world.arrays[0], 3, false);
	world.twice[1] = make_process(world.engine, world.arrays[0], 3, false);
	world.once = make_process(world.engine, world.arrays[1], 2, true);
	full(world.engine);
	world.index = world.engine->indexes;
	EXPECT_EQUAL(world.index->zero_pages, 6);
	EXPECT_EQUAL(world.index->zero_saved, 4);
	EXPECT_SOUND(world.engine);
	return world;
}

static void destroy_zero_world(struct zero_world *world)
{
	DESTROY(world->engine);
	free(world->arrays[0]);
	free(world->arrays[1]);
}

/* I16: pages on the zero frame are mergeable, in no tree, and counted by region and domain. */
static void test_i16_zero_pages(void)
{
	struct zero_world world = make_zero_world();
	struct region *once = world.once->regions[0], *twice = world.twice[0]->regions[0];
	struct index *index = world.index;
	EXPECT_FAULT(&world, once->nr_zero, 1, 16, "2 pages on the zero frame, count says 1");
	EXPECT_FAULT(&world, index->zero_pages, 7, 16, "zero_pages is 7, recount 6");
	EXPECT_FAULT(&world, world.arrays[1][300], 1, 16, "immutable and not zeros");
	/* A page without the advice, counted as such. */
	once->nr_mergeable--;
	once->flags[1] = PAGE_ZERO;
	expect_fault_at(PLACE, world.engine, 16, "on the zero frame but not mergeable");
	once->nr_mergeable++;
	once->flags[1] |= PAGE_MERGEABLE;
	EXPECT_SOUND(world.engine);
	/* A page that is a candidate. */
	EXPECT(item_of(world.twice[0], 2)->state == ITEM_UNSTABLE && zero_add(twice, 2));
	expect_fault_at(PLACE, world.engine, 16, "on the zero frame and in a tree");
	zero_remove(twice, 2);
	EXPECT_SOUND(world.engine);
	destroy_zero_world(&world);
}

/* I17: the zero map has the addresses of pages that others have too, and how many pages; so much is saved. */
static void test_i17_zero_addresses(void)
{
	struct zero_world world = make_zero_world();
	struct index *index = world.index;
	struct zero_map *map = &index->zero;
	struct zero_address *address = map->addresses;
	while (!address->bytes)
		address++;
	EXPECT_FAULT(&world, index->zero_saved, 6, 17, "zero_saved is 6, recount 4");
	EXPECT_FAULT(&world, map->nr_addresses, 3, 17, "count says 3");
	EXPECT_FAULT(&world, address->nr_pages, 3, 17, "pages, recount 4");
	EXPECT_FAULT(&world, address->bytes, address->bytes + 7, 17, "is not in the zero map");
	/* Right sums, wrong numbers: 3 and 1 for 2 and 2. */
	struct zero_address *other = address + 1;
	while (!other->bytes)
		other++;
	address->nr_pages = 3;
	other->nr_pages = 1;
	expect_fault_at(PLACE, world.engine, 17, "2 addresses for 2.7");
	address->nr_pages = other->nr_pages = 2;
	EXPECT_SOUND(world.engine);
	destroy_zero_world(&world);
}

/* I19: filters are those that regions have, and are found by their keys; their bits are counted. */
static void test_i19_filters(void)
{
	struct world world = { .engine = make_engine((struct setup){ 0 }) };
	struct engine *engine = world.engine;
	uint8_t *pages[3] = { make_pages(engine, "aab"), make_pages(engine, "cca"), malloc(70 * 256) };
	for (int i = 0; i < 70; i++)
		memset(pages[2] + i * 256, 100 + i / 2, 256);
	struct region *regions[3];
	for (int i = 0; i < 3; i++) {
		struct mm_slot *process = make_process(engine, pages[i], i == 2 ? 70 : 3, false);
		regions[i] = process->regions[0];
		filter_join(regions[i], i == 2 ? 2 : 1, FILTER_DATA);
	}
	full(engine);
	EXPECT_SOUND(engine);
	struct filter *filter = regions[0]->filter, *large = regions[2]->filter;
	struct filter_map *map = &engine->indexes->filters;
	EXPECT(filter == regions[1]->filter && filter->nr_bits == 3 && large->nr_words == 2 && large->nr_bits == 70);
	EXPECT_FAULT(&world, filter->nr_regions, 3, 19, "2 filters for 1.7");
	EXPECT_FAULT(&world, filter->nr_regions, 0, 19, "2 filters for 1.0");
	EXPECT_FAULT(&world, regions[1]->filter, NULL, 19, "2 filters for 1.5");
	EXPECT_FAULT(&world, map->nr_filters, 1, 19, "count says 1");
	EXPECT_FAULT(&world, filter->nr_bits, 2, 19, "3 bits, count says 2");
	EXPECT_FAULT(&world, filter->nr_merges, 2, 19, "of 2 merges");
	EXPECT_FAULT(&world, large->words[1], 0, 19, "64 bits, count says 70");
	EXPECT_FAULT(&world, filter->nr_conflicts, 2, 19, "given up but has bits");
	EXPECT_FAULT(&world, filter->nr_words, 0, 19, "0 words are not where they belong");
	EXPECT_FAULT(&world, filter->birth, 2, 19, "made in round 2 of 1");
	EXPECT_FAULT(&world, filter->key, 3, 19, "not found by its key");
	EXPECT_FAULT(&world, filter->role, FILTER_BSS, 19, "not found by its key");
	EXPECT_EQUAL(lksm_process_unmap(regions[1]->slot, 0, 3), LKSM_OK);
	EXPECT_SOUND(engine);
	EXPECT_FAULT(&world, regions[1]->filter, filter, 19, "nothing of it is scanned");
	DESTROY(engine);
	for (int i = 0; i < 3; i++)
		free(pages[i]);
}

/* Lines that do not fit are left out whole; all faults are counted, also without any room. */
static void test_text_has_whole_lines(void)
{
	struct world world = make_world();
	static char text[4096], part[4096];
	world.index->pages_shared++;
	world.index->rmap_items++;
	world.plain->nr_merged++;
	EXPECT_EQUAL(check(world.engine, text, sizeof(text)), 3);
	size_t length = strlen(text);
	for (size_t size = 0; size <= length + 2; size++) {
		memset(part, 'x', sizeof(part));
		EXPECT_EQUAL(check(world.engine, part, size), 3);
		EXPECT_EQUAL(part[size], 'x');
		if (!size)
			continue;
		size_t part_length = strlen(part);
		EXPECT(part_length < size && !strncmp(part, text, part_length));
		EXPECT(!part_length || part[part_length - 1] == '\n');
		EXPECT(size <= length || part_length == length);
	}
	world.index->pages_shared--;
	world.index->rmap_items--;
	world.plain->nr_merged--;
	EXPECT_SOUND(world.engine);
	destroy_world(&world);
}

/* Bytes that an owner changed are no fault. */
static void test_owners_may_write(void)
{
	struct world world = make_world();
	memset(world.arrays[0], 'q', 9 * 256);
	memset(world.arrays[2], 'r', 3 * 256);
	memset(world.arrays[3], 's', 3 * 256);
	EXPECT_SOUND(world.engine);
	destroy_world(&world);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_i01_red_black),
		TEST(test_i02_order),
		TEST(test_i03_key_of_frame),
		TEST(test_i04_frames),
		TEST(test_i05_sharers),
		TEST(test_i06_chains),
		TEST(test_i07_counters_of_nodes),
		TEST(test_i08_items),
		TEST(test_i08_rounds),
		TEST(test_i09_addresses),
		TEST(test_i10_regions),
		TEST(test_i11_processes),
		TEST(test_i12_queue),
		TEST(test_i13_counters_of_items),
		TEST(test_i14_frames_are_booked),
		TEST(test_i14_shared_copies),
		TEST(test_i15_chains_in_line),
		TEST(test_i18_memory_nodes),
		TEST(test_i16_zero_pages),
		TEST(test_i17_zero_addresses),
		TEST(test_i19_filters),
		TEST(test_text_has_whole_lines),
		TEST(test_owners_may_write),
	};
	return run_tests(tests, NR_TESTS(tests));
}
