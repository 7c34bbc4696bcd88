/*
 * stable_tree.c - stable nodes: searching for them, making them, who shares their frame, and who lends it.
 */
#include "stable_tree.h"

#include "filter.h"
#include "helpers.h"
#include "mm_slot.h"

/* --- searching --------------------------------------------------------------------------------- */

/* What is filed for @look's bytes, a plain node or a chain; or 0. */
static uint32_t find_content(struct index *index, uint32_t tree, struct look *look, struct place *place_ret)
{
	return index_search(index, &index->trees[tree].stable, look, place_ret);
}

uint32_t stable_tree_find(struct index *index, uint32_t tree, struct look *look, struct place *place_ret)
{
	uint32_t content = find_content(index, tree, look, place_ret);
	return content ? content_next(index->engine, content, 0) : 0;
}

uint32_t stable_tree_search(struct index *index, uint32_t tree, struct look *look, struct place *place_ret)
{
	for (;;) {
		uint32_t content = find_content(index, tree, look, place_ret);
		uint32_t ref = content ? chain_choose(index, content) : 0;
		bool is_target = ref && node_has_room(index->engine, node_at(index->engine, ref));
		/* untested: the last part: no memory to take it out */
		if (!is_target || !stable_tree_is_misplaced(index, ref) || !stable_tree_take_out(index, ref))
			return ref;
	}
}

bool stable_tree_next(const struct index *index, struct content_walk *walk)
{
	while (walk->tree < index->engine->nr_nodes) {
		walk->content = forest_next(&index->trees[walk->tree].stable, walk->content);
		if (walk->content)
			return true;
		walk->tree++;
	}
	walk->content = walk->content ? node_at(index->engine, walk->content)->migrating.next : index->first_migrating;
	return walk->content;
}

/* --- the migrate list ---------------------------------------------------------------------------- */

bool stable_tree_is_misplaced(const struct index *index, uint32_t ref)
{
	const struct stable_node *node = node_at(index->engine, ref);
	return node->kind == NODE_MIGRATING || index_tree(index, node->memory_node) != node->tree;
}

bool stable_tree_take_out(struct index *index, uint32_t ref)
{
	struct engine *engine = index->engine;
	struct stable_node *node = node_at(engine, ref);

	if (node->kind == NODE_DUP && !chain_release(index, ref))
		return false;
	if (node->kind == NODE_PLAIN)
		forest_remove(&index->trees[node->tree].stable, ref);
	node->kind = NODE_MIGRATING;
	node->migrating.next = index->first_migrating;
	node->migrating.previous = 0;
	if (index->first_migrating)
		node_at(engine, index->first_migrating)->migrating.previous = ref;
	index->first_migrating = ref;
	return true;
}

static void leave_migrate_list(struct index *index, uint32_t ref)
{
	struct engine *engine = index->engine;
	uint32_t next = node_at(engine, ref)->migrating.next, previous = node_at(engine, ref)->migrating.previous;
	*(previous ? &node_at(engine, previous)->migrating.next : &index->first_migrating) = next;
	if (next)
		node_at(engine, next)->migrating.previous = previous;
}

/* --- nodes ----------------------------------------------------------------------------------- */

/* A node that is in no tree becomes a dup. One copy of the bytes is enough for all of them. */
static void join_chain(struct index *index, uint32_t chain_ref, uint32_t ref)
{
	struct engine *engine = index->engine;
	struct stable_node *node = node_at(engine, ref);

	chain_add(index, chain_ref, ref);
	if (!node_has_room(engine, node))
		chain_node_is_full(engine, ref);
	if (!node->is_owned)
		return;
	const uint8_t *copy = chain_copy(engine, node);
	if (copy)
		frame_free(&engine->memory, (uint8_t *)node->bytes, engine->rules.page_size);
	chain_own_copy(engine, node, copy ? copy : node->bytes);
}

bool stable_tree_file(struct index *index, uint32_t ref, const struct look *look, uint32_t equal,
		      const struct place *place)
{
	struct stable_node *node = node_at(index->engine, ref);
	uint32_t chain = equal ? chain_get(index, equal) : 0;

	if (equal && !chain)
		return false;
	index->engine->nr_gone++;
	helpers_forget_frames(index->engine);	/* its frame may be freed for the chain's copy */
	leave_migrate_list(index, ref);
	node->kind = NODE_PLAIN;
	node->tree = index_tree(index, node->memory_node) & UINT8_MAX;
	node->key = look->key;
	if (chain)
		join_chain(index, chain, ref);
	else
		forest_insert(&index->trees[node->tree].stable, ref, place);
	return true;
}

uint32_t stable_tree_insert(struct index *index, const struct look *look, uint32_t equal,
			    const struct place *place, const struct frame *frame)
{
	struct engine *engine = index->engine;
	uint32_t ref = pool_create(&engine->nodes);
	if (!ref)
		return 0;
	uint32_t chain = equal ? chain_get(index, equal) : 0;
	if (equal && !chain) {
		pool_destroy(&engine->nodes, ref);
		return 0;
	}
	struct stable_node *node = node_at(engine, ref);
	*node = (struct stable_node){
		.key = look->key,
		.bytes = frame->bytes,
		.kind = NODE_PLAIN,
		.is_owned = frame->is_owned,
		.tree = index_tree(index, frame->memory_node) & UINT8_MAX,
		.memory_node = frame->memory_node & UINT8_MAX,
		.serial = index->next_serial++,
	};
	if (chain)
		join_chain(index, chain, ref);
	else
		forest_insert(&index->trees[node->tree].stable, ref, place);
	return ref;
}

/* The node has no sharers any more. */
static void node_destroy(struct index *index, uint32_t ref)
{
	struct engine *engine = index->engine;
	const struct stable_node *node = node_at(engine, ref);

	engine->nr_gone++;
	helpers_forget_frames(engine);
	if (node->kind == NODE_PLAIN)
		forest_remove(&index->trees[node->tree].stable, ref);
	if (node->kind == NODE_MIGRATING)
		leave_migrate_list(index, ref);
	if (node->kind == NODE_DUP)
		chain_leave(index, ref);
	else if (node->is_owned)
		frame_free(&engine->memory, (uint8_t *)node->bytes, engine->rules.page_size);
	pool_destroy(&engine->nodes, ref);
}

static void make_volatile(struct rmap_item *item, struct mm_slot *slot)
{
	item->state = ITEM_VOLATILE;
	item->is_private = 0;
	item->is_settled = 0;
	item->sharer.next = item->sharer.previous = item->sharer.node = 0;
	slot->nr_stable--;
}

/* Makes all its sharers VOLATILE and frees the node. */
static void dissolve(struct index *index, uint32_t node_ref)
{
	struct engine *engine = index->engine;
	struct stable_node *node = node_at(engine, node_ref);

	index->pages_shared--;
	index->pages_sharing -= node->nr_sharers - 1;
	index->tally.broken += node->nr_sharers - 1;
	for (uint32_t ref = node->sharers; ref;) {
		struct rmap_item *item = item_at(&engine->items, ref);
		struct mm_slot *slot = item_region(&engine->items, ref)->slot;
		slot->broken += item->sharer.next != 0;
		ref = item->sharer.next;
		make_volatile(item, slot);
	}
	node->sharers = node->nr_sharers = 0;
	node_destroy(index, node_ref);
}

void stable_tree_dissolve_all(struct index *index, int64_t memory_node)
{
	struct engine *engine = index->engine;
	struct content_walk walk = { 0, 0 };
	bool has_more = stable_tree_next(index, &walk);
	while (has_more) {
		uint32_t content = walk.content;
		has_more = stable_tree_next(index, &walk);
		for (uint32_t ref = content_next(engine, content, 0); ref;) {
			uint32_t next = content_next(engine, content, ref);
			if (memory_node == ANY_NODE || node_at(engine, ref)->memory_node == memory_node)
				dissolve(index, ref);
			ref = next;
		}
	}
}

void stable_tree_free_copies(struct index *index)
{
	struct engine *engine = index->engine;

	if (!engine->memory.reserved[LKSM_FOR_FRAMES])
		return;
	for (struct content_walk walk = { 0, 0 }; stable_tree_next(index, &walk);) {
		const struct stable_node *filed = node_at(engine, walk.content);
		bool has_copy = filed->kind == NODE_CHAIN ? filed->has_copy : filed->is_owned;
		if (has_copy)
			frame_free(&engine->memory, (uint8_t *)filed->bytes, engine->rules.page_size);
	}
}

/* A sharer, other than those of exiting processes, whose bytes may be borrowed; or 0. */
static uint32_t find_lender(const struct engine *engine, const struct stable_node *node)
{
	for (uint32_t ref = node->sharers; ref; ref = item_at(&engine->items, ref)->sharer.next) {
		const struct region *region = item_region(&engine->items, ref);
		if (region->is_immutable && !region->slot->is_leaving)
			return ref;
	}
	return 0;
}

/* The page that lent its bytes has left: borrow them elsewhere, or copy them; false without memory. */
static bool find_new_home(struct engine *engine, uint32_t node_ref)
{
	struct stable_node *node = node_at(engine, node_ref);
	uint32_t lender = find_lender(engine, node);
	if (lender) {
		node->bytes = item_bytes(&engine->items, lender);
		return true;
	}
	const uint8_t *copy = chain_copy(engine, node);
	if (!copy) {
		uint8_t *fresh = frame_alloc(&engine->memory, engine->rules.page_size);
		if (!fresh)
			return false;
		copy = memcpy(fresh, node->bytes, engine->rules.page_size);
	}
	chain_own_copy(engine, node, copy);
	return true;
}

/* --- sharers --------------------------------------------------------------------------------- */

void stable_tree_attach(struct index *index, uint32_t node_ref, uint32_t item_ref)
{
	struct engine *engine = index->engine;
	struct stable_node *node = node_at(engine, node_ref);
	struct rmap_item *item = item_at(&engine->items, item_ref);
	struct region *region = item_region(&engine->items, item_ref);
	struct mm_slot *slot = region->slot;

	if (node->nr_sharers) {
		index->pages_sharing++;
		slot->merged++;
		index->tally.merged++;
		item_at(&engine->items, node->sharers)->sharer.previous = item_ref;
	} else {
		index->pages_shared++;
	}
	item->state = ITEM_STABLE;
	item->is_alias = 0;
	item->is_settled = region_holds_still(item_region(&engine->items, item_ref));
	item->sharer.next = node->sharers;
	item->sharer.previous = 0;
	item->sharer.node = node_ref;
	slot->nr_stable++;
	node->sharers = item_ref;
	node->nr_sharers++;
	if (region->filter)
		filter_learn(region, item_page(&engine->items, item_ref));
	if (!node_has_room(engine, node))
		chain_node_is_full(engine, node_ref);
}

void stable_tree_detach(struct index *index, uint32_t item_ref)
{
	struct engine *engine = index->engine;
	struct rmap_item *item = item_at(&engine->items, item_ref);
	struct region *region = item_region(&engine->items, item_ref);
	uint32_t node_ref = item->sharer.node;
	struct stable_node *node = node_at(engine, node_ref);
	bool was_full = !node_has_room(engine, node);
	bool was_lender = !node->is_owned && node->bytes == item_bytes(&engine->items, item_ref);

	if (item->sharer.previous)
		item_at(&engine->items, item->sharer.previous)->sharer.next = item->sharer.next;
	else
		node->sharers = item->sharer.next;
	if (item->sharer.next)
		item_at(&engine->items, item->sharer.next)->sharer.previous = item->sharer.previous;
	make_volatile(item, region->slot);

	if (!--node->nr_sharers) {
		index->pages_shared--;
		node_destroy(index, node_ref);
		return;
	}
	index->pages_sharing--;
	region->slot->broken++;
	index->tally.broken++;
	if (was_lender && !find_new_home(engine, node_ref)) {
		dissolve(index, node_ref);
		return;
	}
	if (was_full)
		chain_node_has_room(engine, node_ref);
}
