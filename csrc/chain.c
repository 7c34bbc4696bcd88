/*
 * chain.c - the ring of dups, and the line in which chains wait to be pruned.
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
#include "chain.h"

#include "helpers.h"

/* --- chains in the order of their prune times -------------------------------------------------- */

/* Puts the chain last in line, as pruned now. A clock that has gone back stands still here. */
static void queue_append(struct index *index, uint32_t chain_ref)
{
	struct engine *engine = index->engine;
	struct stable_node *chain = node_at(engine, chain_ref);
	struct stable_node *last = index->last_chain ? node_at(engine, index->last_chain) : NULL;
	chain->pruned = engine->now < MAX_PRUNED ? engine->now : MAX_PRUNED;
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
	chain->chain_tree = node->tree;
	chain->has_copy = node->is_owned;
	chain->bytes = node->is_owned ? node->bytes : NULL;
	forest_replace(&index->trees[node->tree].stable, ref, chain_ref);
	node->kind = NODE_DUP;
	ring_insert_first(engine, chain_ref, ref);
	queue_append(index, chain_ref);
	index->nr_chains++;
	index->nr_dups++;
	return chain_ref;
}

/* The chain is in the tree no more. Its @copy of the bytes goes with it; NULL: it has none, or a dup keeps that. */
static void chain_destroy(struct index *index, uint32_t chain_ref, const uint8_t *copy)
{
	struct engine *engine = index->engine;

	queue_remove(index, chain_ref);
	index->nr_chains--;
	engine->nr_gone++;
	helpers_forget_frames(engine);
	frame_free(&engine->memory, (uint8_t *)copy, engine->rules.page_size);
	pool_destroy(&engine->nodes, chain_ref);
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
	forest_replace(&index->trees[chain->chain_tree].stable, chain_ref, ref);
	index->nr_dups--;
	chain_destroy(index, chain_ref, node->is_owned ? NULL : chain->bytes);
	return ref;
}

uint32_t chain_get(struct index *index, uint32_t ref)
{
	const struct stable_node *node = node_at(index->engine, ref);
	return node->kind == NODE_DUP ? node->dup.chain : chain_create(index, ref);
}

void chain_add(struct index *index, uint32_t chain_ref, uint32_t ref)
{
	node_at(index->engine, ref)->kind = NODE_DUP;
	ring_insert_first(index->engine, chain_ref, ref);
	index->nr_dups++;
}

void chain_leave(struct index *index, uint32_t ref)
{
	struct engine *engine = index->engine;
	uint32_t chain_ref = node_at(engine, ref)->dup.chain;

	ring_remove(engine, ref);
	index->nr_dups--;
	if (node_at(engine, chain_ref)->first_dup)
		return;
	forest_remove(&index->trees[node_at(engine, chain_ref)->chain_tree].stable, chain_ref);
	chain_destroy(index, chain_ref, node_at(engine, chain_ref)->bytes);
}

bool chain_release(struct index *index, uint32_t ref)
{
	struct engine *engine = index->engine;
	struct stable_node *node = node_at(engine, ref);

	if (is_alone(engine, node->dup.chain)) {
		chain_collapse(index, node->dup.chain);
		return true;
	}
	if (node->is_owned) {
		uint8_t *copy = frame_alloc(&engine->memory, engine->rules.page_size);
		if (!copy)
			return false;
		node->bytes = memcpy(copy, node->bytes, engine->rules.page_size);
	}
	chain_leave(index, ref);
	return true;
}

uint32_t chain_choose(struct index *index, uint32_t content)
{
	struct engine *engine = index->engine;

	if (node_at(engine, content)->kind != NODE_CHAIN)
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

void chain_prune(struct index *index)
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

/* --- room -------------------------------------------------------------------------------------- */

void chain_node_is_full(struct engine *engine, uint32_t ref)
{
	const struct stable_node *node = node_at(engine, ref);
	if (node->kind != NODE_DUP)
		return;
	ring_remove(engine, ref);
	ring_insert_last(engine, node->dup.chain, ref);
}

void chain_node_has_room(struct engine *engine, uint32_t ref)
{
	if (node_at(engine, ref)->kind == NODE_DUP)
		move_first(engine, ref);
}

/* --- the copy of the bytes that dups share ------------------------------------------------------- */

const uint8_t *chain_copy(const struct engine *engine, const struct stable_node *node)
{
	return node->kind == NODE_DUP ? node_at(engine, node->dup.chain)->bytes : NULL;
}

void chain_own_copy(struct engine *engine, struct stable_node *node, const uint8_t *copy)
{
	node->bytes = copy;
	node->is_owned = 1;
	if (node->kind != NODE_DUP)
		return;
	struct stable_node *chain = node_at(engine, node->dup.chain);
	chain->bytes = copy;
	chain->has_copy = 1;
}
