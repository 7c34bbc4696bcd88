/*
 * check_trees.c - what is filed, walked: first each tree for itself, then the contents of the stable ones with the
 * frames, lists and chains that hang there. "untested" is explained in check.c.
 */
#include "check_trees.h"

#include "mm_slot.h"
#include "stable_tree.h"

#include <inttypes.h>

/* --- I1, I2: one tree and one forest ----------------------------------------------------------- */

/* Blacks from @ref up to the root. */
static uint32_t black_height(const struct pool *pool, uint32_t ref, uint64_t limit)
{
	uint32_t height = 0;
	/* untested: the bound */
	for (; ref && limit--; ref = rb_at(pool, ref)->parent)
		height += !rb_at(pool, ref)->is_red;
	return height;
}

static void check_tree_node(struct checker *checker, const struct pool *pool, const char *tree, uint32_t root,
			    uint32_t ref, uint64_t limit, uint32_t *height)
{
	const struct rb_node *node = rb_at(pool, ref);
	expect(checker, (ref == root) == !node->parent, "I1 %s tree, object %u: has parent %u under root %u",
	       tree, ref, node->parent, root);
	for (uint32_t side = 0; side < 2; side++) {
		uint32_t child = node->child[side];
		if (!child) {
			uint32_t here = black_height(pool, ref, limit);
			expect(checker, !*height || here == *height,
			       "I1 %s tree, object %u: black height %u, elsewhere %u", tree, ref, here, *height);
			*height = *height ? *height : here;
			continue;
		}
		expect(checker, rb_at(pool, child)->parent == ref,
		       "I1 %s tree, object %u: its child %u has parent %u", tree, ref, child,
		       rb_at(pool, child)->parent);
		expect(checker, !node->is_red || !rb_at(pool, child)->is_red,
		       "I1 %s tree, object %u: red, and so is its child %u", tree, ref, child);
	}
}

uint64_t check_forest(struct checker *checker, const struct forest *forest, const char *name)
{
	const struct pool *pool = forest->pool;
	uint64_t limit = forest->nr_entries + 1;
	uint64_t nr_met = 0;

	for (uint64_t i = 0; i < forest_nr_roots(forest); i++) {
		uint32_t root = forest_root(forest, i);
		uint32_t height = 0;
		uint64_t before = 0;
		/* untested: the bound */
		for (uint32_t ref = rb_first(pool, root); ref && nr_met < limit; ref = rb_next(pool, ref)) {
			uint64_t key = *forest_key(pool, ref);
			nr_met++;
			check_tree_node(checker, pool, name, root, ref, limit, &height);
			expect(checker, key >= before, "I2 %s forest, object %u: its key is less than the one before",
			       name, ref);
			expect(checker, forest_root_number(forest, key) == i,
			       "I2 %s forest, object %u: its key belongs to another root than %" PRIu64, name, ref, i);
			before = key;
		}
	}
	expect(checker, nr_met == forest->nr_entries, "I2 %s forest: %" PRIu64 " objects, count says %" PRIu64, name,
	       nr_met, forest->nr_entries);
	return nr_met;
}

/* --- I3 to I7, I15, I18: stable nodes -------------------------------------------------------------------- */

static void check_frame(struct checker *checker, uint32_t ref)
{
	struct engine *engine = checker->engine;
	const struct stable_node *node = node_at(engine, ref);
	bool has_lender = false;
	uint64_t nr_left = node->nr_sharers;

	/* untested: the bound */
	for (uint32_t item = node->sharers; item && nr_left-- && !node->is_owned && !has_lender;
	     item = item_at(&engine->items, item)->sharer.next)
		has_lender = item_region(&engine->items, item)->is_immutable &&
			     item_bytes(&engine->items, item) == node->bytes;
	/* untested: the last part, in a secure engine */
	expect(checker, node->is_owned || (has_lender && !engine->is_secure),
	       "I4 node %u: borrows bytes that no immutable sharer has", ref);
}

/* The bytes of what is filed as @content. */
static const uint8_t *content_bytes(const struct engine *engine, uint32_t content)
{
	return node_at(engine, content_next(engine, content, 0))->bytes;
}

static void check_key(struct checker *checker, struct index *index, uint32_t content)
{
	struct look look;
	index_look(index, content_bytes(checker->engine, content), &look);
	expect(checker, node_at(checker->engine, content)->key == look.key,
	       "I3 node %u: filed under another key than its frame's", content);
}

static void check_sharers(struct checker *checker, uint32_t ref)
{
	struct engine *engine = checker->engine;
	const struct stable_node *node = node_at(engine, ref);
	uint64_t length = 0;
	uint32_t previous = 0;

	/* untested: the bound */
	for (uint32_t item_ref = node->sharers; item_ref && length <= node->nr_sharers;) {
		const struct rmap_item *item = item_at(&engine->items, item_ref);
		length++;
		expect(checker, item->state == ITEM_STABLE, "I5 node %u: item %u in its list is not stable", ref,
		       item_ref);
		expect(checker, item->sharer.node == ref, "I5 node %u: item %u in its list names node %u", ref, item_ref,
		       item->sharer.node);
		expect(checker, item->sharer.previous == previous,
		       "I5 node %u: item %u in its list has a wrong link back", ref, item_ref);
		expect(checker,
		       !item_region(&engine->items, item_ref)->is_immutable ||
			       !page_compare(&engine->rules, item_bytes(&engine->items, item_ref), node->bytes),
		       "I4 node %u: item %u is immutable and differs from the frame", ref, item_ref);
		previous = item_ref;
		item_ref = item->sharer.next;
	}
	/* untested: one part of several */
	expect(checker, length == node->nr_sharers && length, "I5 node %u: list has %" PRIu64 " items, count says %u",
	       ref, length, node->nr_sharers);
	expect(checker, node->nr_sharers <= engine->max_page_sharing,
	       "I6 node %u: %u sharers, no more than %" PRIu64 " are allowed", ref, node->nr_sharers,
	       engine->max_page_sharing);
	checker->nr_listed += length;
}

/* A dup's links, and its place: dups with room come first. @previous: the one before it, 0 for the first. */
static void check_dup(struct checker *checker, uint32_t chain_ref, uint32_t previous, uint32_t ref)
{
	struct engine *engine = checker->engine;
	const struct stable_node *chain = node_at(engine, chain_ref), *node = node_at(engine, ref);
	uint32_t before = previous ? previous : node_at(engine, chain->first_dup)->dup.previous;

	expect(checker, node->kind == NODE_DUP && node->dup.chain == chain_ref,
	       "I6 node %u: does not know that it is a dup of chain %u", ref, chain_ref);
	expect(checker, node->dup.previous == before && node_at(engine, before)->dup.next == ref,
	       "I6 node %u: has a wrong link back", ref);
	expect(checker,
	       !previous || !node_has_room(engine, node) || node_has_room(engine, node_at(engine, previous)),
	       "I6 node %u: has room but stands behind a full one", ref);
	expect(checker, !page_compare(&engine->rules, node->bytes, node_at(engine, chain->first_dup)->bytes),
	       "I6 node %u: differs from the first of its chain", ref);
	expect(checker, !node->is_owned || node->bytes == chain->bytes, "I6 node %u: a second copy of one content", ref);
}

/* What there is in stable trees. */
struct contents {
	uint64_t nodes;			/* chains left out */
	uint64_t chains;
	uint64_t dups;
};

/* One content: a plain node, or a chain and its dups. Returns the number of nodes. */
static uint64_t check_content(struct checker *checker, struct index *index, uint32_t content)
{
	struct engine *engine = checker->engine;
	const struct stable_node *filed = node_at(engine, content);
	bool is_chain = filed->kind == NODE_CHAIN;
	uint64_t length = 0;
	uint32_t previous = 0;

	expect(checker, filed->kind != NODE_DUP, "I6 node %u: filed though it is a dup", content);
	expect(checker, !is_chain || filed->has_copy == (filed->bytes != NULL),
	       "I6 node %u: a chain that does not know whether it has a copy", content);
	/* One more than can be, so that a ring that does not close is seen. */
	for (uint32_t ref = 0; length <= index->pages_shared && (ref = content_next(engine, content, ref)) != 0;) {
		if (is_chain)
			check_dup(checker, content, previous, ref);
		/* untested: one part of several */
		expect(checker, node_at(engine, ref)->memory_node < engine->nr_nodes &&
				(!is_chain || node_at(engine, ref)->tree == filed->chain_tree),
		       "I18 node %u: on memory node %u, in tree %u", ref, (unsigned)node_at(engine, ref)->memory_node,
		       (unsigned)node_at(engine, ref)->tree);
		check_frame(checker, ref);
		check_sharers(checker, ref);
		length++;
		previous = ref;
	}
	expect(checker, length, "I6 node %u: a chain of nothing", content);
	expect(checker, length <= index->pages_shared, "I6 node %u: its ring does not close", content);
	checker->nr_frames += is_chain ? filed->bytes != NULL : filed->is_owned;
	return length;
}

/* The chains from the one pruned longest ago on; all that are filed, and no others. */
static void check_chains(struct checker *checker, const struct index *index, uint64_t nr_filed)
{
	struct engine *engine = checker->engine;
	uint64_t nr_met = 0, before = 0;
	uint32_t previous = 0;

	for (uint32_t ref = index->first_chain; ref && nr_met <= nr_filed; ref = node_at(engine, ref)->queue.next) {
		const struct stable_node *chain = node_at(engine, ref);
		nr_met++;
		expect(checker, chain->queue.previous == previous, "I15 chain %u: has a wrong link back", ref);
		/* untested: one part of several */
		expect(checker,
		       chain->kind == NODE_CHAIN && chain->first_dup &&
			       node_at(engine, chain->first_dup)->dup.chain == ref,
		       "I15 chain %u: in line to be pruned, but nobody's chain", ref);
		expect(checker, chain->pruned >= before, "I15 chain %u: was pruned before the one before it", ref);
		before = chain->pruned;
		previous = ref;
	}
	expect(checker, index->last_chain == previous, "I15 chains: the last in line is not the last");
	expect(checker, nr_met == nr_filed, "I15 chains: %" PRIu64 " are in line to be pruned, %" PRIu64 " are filed",
	       nr_met, nr_filed);
}

/* One stable tree; the nodes, chains and dups in it are added up. */
static void check_stable_tree(struct checker *checker, struct index *index, uint32_t tree, struct contents *contents)
{
	struct engine *engine = checker->engine;
	const struct forest *forest = &index->trees[tree].stable;
	uint64_t nr_left = check_forest(checker, forest, "stable");
	uint32_t before = 0;

	/* untested: the bound */
	for (uint32_t content = 0; nr_left-- && (content = forest_next(forest, content)) != 0;) {
		uint64_t length = check_content(checker, index, content);
		bool is_chain = node_at(engine, content)->kind == NODE_CHAIN;
		contents->nodes += length;
		contents->chains += is_chain;
		contents->dups += is_chain ? length : 0;
		expect(checker, node_at(engine, content)->tree == tree, "I18 node %u: is in tree %u, says %u", content, tree,
		       (unsigned)node_at(engine, content)->tree);
		if (!length)
			continue;
		check_key(checker, index, content);
		if (before && node_at(engine, before)->key == node_at(engine, content)->key)
			expect(checker,
			       page_compare(&engine->rules, content_bytes(engine, before),
					    content_bytes(engine, content)) < 0,
			       "I2 stable forest, object %u: not greater than the one before", content);
		before = content;
	}
}

/* Nodes that wait to be filed again. */
static void check_migrating(struct checker *checker, struct index *index, struct contents *contents)
{
	struct engine *engine = checker->engine;
	uint64_t nr_met = 0;
	uint32_t previous = 0;

	/* untested: the bound */
	for (uint32_t ref = index->first_migrating; ref && nr_met <= index->pages_shared;
	     ref = node_at(engine, ref)->migrating.next) {
		expect(checker, node_at(engine, ref)->kind == NODE_MIGRATING, "I18 node %u: on the migrate list, but of kind %u",
		       ref, (unsigned)node_at(engine, ref)->kind);
		expect(checker, node_at(engine, ref)->migrating.previous == previous,
		       "I18 node %u: has a wrong link back on the migrate list", ref);
		check_content(checker, index, ref);
		contents->nodes++;
		nr_met++;
		previous = ref;
	}
	expect(checker, !nr_met || !engine->merge_across_nodes, "I18 %" PRIu64 " nodes migrate, but pages merge across nodes",
	       nr_met);
}

void check_stable(struct checker *checker, struct index *index)
{
	struct contents contents = { 0 };
	uint64_t nr_listed_before = checker->nr_listed;

	for (uint32_t tree = 0; tree < index->engine->nr_nodes; tree++)
		check_stable_tree(checker, index, tree, &contents);
	check_migrating(checker, index, &contents);
	check_chains(checker, index, contents.chains);
	uint64_t nr_listed = checker->nr_listed - nr_listed_before;
	expect(checker, contents.nodes == index->pages_shared, "I7 pages_shared is %" PRIu64 ", recount %" PRIu64,
	       index->pages_shared, contents.nodes);
	expect(checker, nr_listed - contents.nodes == index->pages_sharing,
	       "I7 pages_sharing is %" PRIu64 ", recount %" PRIu64, index->pages_sharing, nr_listed - contents.nodes);
	expect(checker, contents.chains == index->nr_chains && contents.dups == index->nr_dups,
	       "I7 chains and dups are %" PRIu64 " and %" PRIu64 ", recount %" PRIu64 " and %" PRIu64,
	       index->nr_chains, index->nr_dups, contents.chains, contents.dups);
}
