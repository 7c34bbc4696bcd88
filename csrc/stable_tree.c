/*
 * stable_tree.c - frames, sharers, and the chain of frames that have one content.
 *
 * Usually a content is one plain node. Only when no frame may have more sharers does a second one arise;
 * a chain then takes the plain node's place in the tree, and both become its dups:
 *
 *     tree --> chain --> dup <--> dup <--> full dup <--> full dup
 *                         ^------------------------------------^
 *
 * Dups with room come first, so nobody walks the ring to find one, and each knows its chain: joining it,
 * leaving it, becoming full and having room again cost the same however many there are.
 *
 * Dups come and go with their sharers. A chain that is left with one stays until a search meets it or
 * it is pruned; its index keeps all chains in the order in which they were pruned, so those that are due
 * come first.
 */
#include "stable_tree.h"

#include "mm_slot.h"

/* --- chains in the order of their prune times -------------------------------------------------- */

/* Puts the chain last in line, as pruned now. A clock that has gone back stands still here. */
static void queue_append(struct index *index, uint32_t chain_ref)
{
	struct engine *engine = index->engine;
	struct stable_node *chain = node_at(engine, chain_ref);
	struct stable_node *last = index->last_chain ? node_at(engine, index->last_chain) : NULL;
	chain->pruned = engine->now;
	if (last && last->pruned > chain->pruned)
		chain->pruned = last->pruned;
	chain->queue.next = 0;
	chain->queue.previous = index->last_chain;
	*(last ? &last->queue.next : &index->first_chain) = chain_ref;
	index->last_chain = chain_ref;
}

static void queue_remove(struct index *index, uint32_t chain_ref)
{
	struct engine *engine = index->engine;
	uint32_t next = node_at(engine, chain_ref)->queue.next, previous = node_at(engine, chain_ref)->queue.previous;
	*(previous ? &node_at(engine, previous)->queue.next : &index->first_chain) = next;
	*(next ? &node_at(engine, next)->queue.previous : &index->last_chain) = previous;
}

static void set_pruned(struct index *index, uint32_t chain_ref)
{
	queue_remove(index, chain_ref);
	queue_append(index, chain_ref);
}

static bool is_due(const struct engine *engine, uint32_t chain_ref)
{
	return engine->now >= node_at(engine, chain_ref)->pruned + (uint64_t)engine->prune_millisecs;
}

/* --- the ring of a chain's dups ---------------------------------------------------------------- */

static void ring_insert_last(struct engine *engine, uint32_t chain_ref, uint32_t ref)
{
	uint32_t first = node_at(engine, chain_ref)->first_dup;
	uint32_t last = first ? node_at(engine, first)->dup.previous : ref;
	struct stable_node *node = node_at(engine, ref);
	node->dup.next = first ? first : ref;
	node->dup.previous = last;
	node->dup.chain = chain_ref;
	node_at(engine, last)->dup.next = ref;
	node_at(engine, node->dup.next)->dup.previous = ref;
	if (!first)
		node_at(engine, chain_ref)->first_dup = ref;
}

static void ring_insert_first(struct engine *engine, uint32_t chain_ref, uint32_t ref)
{
	ring_insert_last(engine, chain_ref, ref);
	node_at(engine, chain_ref)->first_dup = ref;	/* it is a ring */
}

static void ring_remove(struct engine *engine, uint32_t ref)
{
	const struct stable_node *node = node_at(engine, ref);
	struct stable_node *chain = node_at(engine, node->dup.chain);
	node_at(engine, node->dup.previous)->dup.next = node->dup.next;
	node_at(engine, node->dup.next)->dup.previous = node->dup.previous;
	if (chain->first_dup == ref)
		chain->first_dup = node->dup.next == ref ? 0 : node->dup.next;
}

static bool is_alone(const struct engine *engine, uint32_t chain_ref)
{
	uint32_t first = node_at(engine, chain_ref)->first_dup;
	return node_at(engine, first)->dup.next == first;
}

/* The dup has room: it goes before all others. */
static void move_first(struct engine *engine, uint32_t ref)
{
	uint32_t chain_ref = node_at(engine, ref)->dup.chain;
	ring_remove(engine, ref);
	ring_insert_first(engine, chain_ref, ref);
}

/* The dup has become full: it goes behind all others. */
static void move_last(struct engine *engine, uint32_t ref)
{
	uint32_t chain_ref = node_at(engine, ref)->dup.chain;
	ring_remove(engine, ref);
	ring_insert_last(engine, chain_ref, ref);
}

/* Of the dups that have room the one with most sharers, the first of these; or 0. */
static uint32_t find_fullest_with_room(const struct engine *engine, uint32_t chain_ref)
{
	uint32_t fullest = 0;
	for (uint32_t ref = 0; (ref = content_next(engine, chain_ref, ref)) != 0;) {
		const struct stable_node *node = node_at(engine, ref);
		if (!node_has_room(engine, node))
			break;		/* and so are all behind it */
		if (!fullest || node->nr_sharers > node_at(engine, fullest)->nr_sharers)
			fullest = ref;
		if (node->nr_sharers + 1 == engine->max_page_sharing)
			break;		/* there is no fuller one */
	}
	return fullest;
}

/* --- chains ------------------------------------------------------------------------------------ */

/* Puts a chain in the place of the plain node, which becomes its first dup. 0 if there is no memory. */
static uint32_t chain_create(struct index *index, uint32_t ref)
{
	struct engine *engine = index->engine;
	uint32_t chain_ref = pool_create(&engine->nodes);
	if (!chain_ref)
		return 0;
	struct stable_node *node = node_at(engine, ref);
	struct stable_node *chain = node_at(engine, chain_ref);
	chain->kind = NODE_CHAIN;
	chain->key = node->key;
	chain->has_copy = node->is_owned;
	chain->bytes = node->is_owned ? node->bytes : NULL;
	forest_replace(&index->stable, ref, chain_ref);
	node->kind = NODE_DUP;
	ring_insert_first(engine, chain_ref, ref);
	queue_append(index, chain_ref);
	index->nr_chains++;
	index->nr_dups++;
	return chain_ref;
}

/* The chain is in the tree no more. */
static void chain_destroy(struct index *index, uint32_t chain_ref)
{
	queue_remove(index, chain_ref);
	index->nr_chains--;
	pool_destroy(&index->engine->nodes, chain_ref);
}

static void chain_free_copy(struct engine *engine, const struct stable_node *chain)
{
	frame_free(&engine->memory, (uint8_t *)chain->bytes, engine->rules.page_size);
}

/* The only dup of the chain is a plain node again, in its place. Returns it. */
static uint32_t chain_collapse(struct index *index, uint32_t chain_ref)
{
	struct engine *engine = index->engine;
	const struct stable_node *chain = node_at(engine, chain_ref);
	uint32_t ref = chain->first_dup;
	struct stable_node *node = node_at(engine, ref);
	node->kind = NODE_PLAIN;
	node->key = chain->key;
	if (!node->is_owned)
		chain_free_copy(engine, chain);
	forest_replace(&index->stable, chain_ref, ref);
	index->nr_dups--;
	chain_destroy(index, chain_ref);
	return ref;
}

/* The copy that the dups of the node's chain share, or NULL. */
static const uint8_t *shared_copy(const struct engine *engine, const struct stable_node *node)
{
	return node->kind == NODE_DUP ? node_at(engine, node->dup.chain)->bytes : NULL;
}

/* The copy becomes the node's frame, and that of other dups of its chain which come to need one. */
static void own_copy(struct engine *engine, struct stable_node *node, const uint8_t *copy)
{
	node->bytes = copy;
	node->is_owned = 1;
	if (node->kind != NODE_DUP)
		return;
	struct stable_node *chain = node_at(engine, node->dup.chain);
	chain->bytes = copy;
	chain->has_copy = 1;
}

/* --- searching --------------------------------------------------------------------------------- */

/* What is filed for @look's bytes, a plain node or a chain; or 0. */
static uint32_t find_content(struct index *index, struct look *look, struct place *place_ret)
{
	return index_search(index, &index->stable, look, place_ret);
}

uint32_t stable_tree_find(struct index *index, struct look *look, struct place *place_ret)
{
	uint32_t content = find_content(index, look, place_ret);
	return content ? content_next(index->engine, content, 0) : 0;
}

uint32_t stable_tree_search(struct index *index, struct look *look, struct place *place_ret)
{
	struct engine *engine = index->engine;
	uint32_t content = find_content(index, look, place_ret);

	if (!content || node_at(engine, content)->kind == NODE_PLAIN)
		return content;
	if (is_alone(engine, content))
		return chain_collapse(index, content);
	if (is_due(engine, content)) {
		set_pruned(index, content);
		uint32_t fullest = find_fullest_with_room(engine, content);
		if (fullest)
			move_first(engine, fullest);
	}
	return node_at(engine, content)->first_dup;
}

void stable_tree_prune(struct index *index)
{
	/* What is pruned goes behind all others, so each is met once even if the delay is 0. */
	for (uint64_t nr_left = index->nr_chains; nr_left--;) {
		uint32_t chain_ref = index->first_chain;
		if (!is_due(index->engine, chain_ref))
			return;
		if (is_alone(index->engine, chain_ref))
			chain_collapse(index, chain_ref);
		else
			set_pruned(index, chain_ref);
	}
}

/* --- nodes ----------------------------------------------------------------------------------- */

/* The chain of a node, made if it is a plain one; 0 if there is no memory. */
static uint32_t get_chain(struct index *index, uint32_t ref)
{
	const struct stable_node *node = node_at(index->engine, ref);
	return node->kind == NODE_DUP ? node->dup.chain : chain_create(index, ref);
}

uint32_t stable_tree_insert(struct index *index, const struct look *look, uint32_t equal,
			    const struct place *place, const uint8_t *bytes, bool is_owned)
{
	struct engine *engine = index->engine;
	uint32_t ref = pool_create(&engine->nodes);
	if (!ref)
		return 0;
	uint32_t chain = equal ? get_chain(index, equal) : 0;
	if (equal && !chain) {
		pool_destroy(&engine->nodes, ref);
		return 0;
	}
	struct stable_node *node = node_at(engine, ref);
	*node = (struct stable_node){
		.key = look->key,
		.bytes = bytes,
		.kind = chain ? NODE_DUP : NODE_PLAIN,
		.is_owned = is_owned,
		.frame_id = engine->next_frame_id++,
	};
	if (!chain) {
		forest_insert(&index->stable, ref, place);
		return ref;
	}
	ring_insert_first(engine, chain, ref);
	index->nr_dups++;
	if (is_owned) {
		const uint8_t *copy = shared_copy(engine, node);
		if (copy)
			frame_free(&engine->memory, (uint8_t *)bytes, engine->rules.page_size);
		own_copy(engine, node, copy ? copy : bytes);
	}
	return ref;
}

/* A dup without sharers goes, and its chain with the last one. */
static void leave_chain(struct index *index, uint32_t ref)
{
	struct engine *engine = index->engine;
	uint32_t chain_ref = node_at(engine, ref)->dup.chain;

	ring_remove(engine, ref);
	index->nr_dups--;
	if (node_at(engine, chain_ref)->first_dup)
		return;
	forest_remove(&index->stable, chain_ref);
	chain_free_copy(engine, node_at(engine, chain_ref));
	chain_destroy(index, chain_ref);
}

/* The node has no sharers any more. */
static void node_destroy(struct index *index, uint32_t ref)
{
	struct engine *engine = index->engine;
	const struct stable_node *node = node_at(engine, ref);
	if (node->kind == NODE_DUP) {
		leave_chain(index, ref);
	} else {
		forest_remove(&index->stable, ref);
		if (node->is_owned)
			frame_free(&engine->memory, (uint8_t *)node->bytes, engine->rules.page_size);
	}
	pool_destroy(&engine->nodes, ref);
}

static void make_volatile(struct rmap_item *item, struct mm_slot *slot)
{
	item->state = ITEM_VOLATILE;
	item->is_private = 0;
	item->sharer.next = item->sharer.previous = item->sharer.node = 0;
	slot->nr_stable--;
}

void stable_tree_dissolve(struct index *index, uint32_t node_ref)
{
	struct engine *engine = index->engine;
	struct stable_node *node = node_at(engine, node_ref);

	index->pages_shared--;
	index->pages_sharing -= node->nr_sharers - 1;
	engine->broken += node->nr_sharers - 1;
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

void stable_tree_dissolve_content(struct index *index, uint32_t content)
{
	for (uint32_t ref = content_next(index->engine, content, 0); ref;) {
		uint32_t next = content_next(index->engine, content, ref);
		stable_tree_dissolve(index, ref);
		ref = next;
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
	const uint8_t *copy = shared_copy(engine, node);
	if (!copy) {
		uint8_t *fresh = frame_alloc(&engine->memory, engine->rules.page_size);
		if (!fresh)
			return false;
		copy = memcpy(fresh, node->bytes, engine->rules.page_size);
	}
	own_copy(engine, node, copy);
	return true;
}

/* --- sharers --------------------------------------------------------------------------------- */

void stable_tree_attach(struct index *index, uint32_t node_ref, uint32_t item_ref)
{
	struct engine *engine = index->engine;
	struct stable_node *node = node_at(engine, node_ref);
	struct rmap_item *item = item_at(&engine->items, item_ref);
	struct mm_slot *slot = item_region(&engine->items, item_ref)->slot;

	if (node->nr_sharers) {
		index->pages_sharing++;
		slot->merged++;
		engine->merged++;
		item_at(&engine->items, node->sharers)->sharer.previous = item_ref;
	} else {
		index->pages_shared++;
	}
	item->state = ITEM_STABLE;
	item->is_alias = 0;
	item->sharer.next = node->sharers;
	item->sharer.previous = 0;
	item->sharer.node = node_ref;
	slot->nr_stable++;
	node->sharers = item_ref;
	node->nr_sharers++;
	if (node->kind == NODE_DUP && !node_has_room(engine, node))
		move_last(engine, node_ref);
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
	engine->broken++;
	if (was_lender && !find_new_home(engine, node_ref)) {
		stable_tree_dissolve(index, node_ref);
		return;
	}
	if (node->kind == NODE_DUP && was_full)
		move_first(engine, node_ref);
}
