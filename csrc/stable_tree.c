/*
 * stable_tree.c - frames, sharers and the ring of nodes that have one content.
 *
 * Usually a content has one node. Only when no frame may have more sharers does a second one arise; the
 * nodes then form a ring of which the head is in the tree:
 *
 *     tree --> head --> node --> full --> full --.
 *               ^--------------------------------'
 *
 * Nodes with room come first, so the head has room if any has, and nobody walks the ring to find out.
 */
#include "stable_tree.h"

#include "mm_slot.h"

uint32_t stable_tree_search(struct index *index, struct look *look, struct place *place_ret)
{
	for (;;) {
		uint32_t ref = 0;
		switch (forest_search(&index->stable, &index->engine->rules, look, place_ret, &ref)) {
		case FOREST_FOUND:
			return ref;
		case FOREST_ABSENT:
			return 0;
		case FOREST_COLLISION:
			index_deepen(index, look);
		}
	}
}

/* --- the ring -------------------------------------------------------------------------------- */

static void set_head(struct index *index, uint32_t old_ref, uint32_t new_ref)
{
	/* Deepening a class gives a new key to what is in the tree, so only the head's is the right one. */
	node_at(index->engine, new_ref)->key = node_at(index->engine, old_ref)->key;
	forest_replace(&index->stable, old_ref, new_ref);
	node_at(index->engine, old_ref)->is_head = 0;
	node_at(index->engine, new_ref)->is_head = 1;
}

/* Puts @ref behind @after, which is in the ring. */
static void ring_insert(struct index *index, uint32_t after, uint32_t ref)
{
	struct stable_node *neighbour = node_at(index->engine, after);
	bool was_alone = neighbour->next_dup == after;
	node_at(index->engine, ref)->next_dup = neighbour->next_dup;
	neighbour->next_dup = ref;
	index->nr_chains += was_alone;
	index->nr_dups += was_alone ? 2 : 1;
}

/* Takes @ref, which is not alone, out of its ring. */
static void ring_remove(struct index *index, uint32_t ref)
{
	uint32_t next = node_at(index->engine, ref)->next_dup;
	uint32_t previous = next;
	while (node_at(index->engine, previous)->next_dup != ref)
		previous = node_at(index->engine, previous)->next_dup;
	node_at(index->engine, previous)->next_dup = next;
	node_at(index->engine, ref)->next_dup = ref;
	bool is_alone = previous == next;
	index->nr_chains -= is_alone;
	index->nr_dups -= is_alone ? 2 : 1;
}

static uint32_t ring_head(const struct engine *engine, uint32_t ref)
{
	while (!node_at(engine, ref)->is_head)
		ref = node_at(engine, ref)->next_dup;
	return ref;
}

/* The engine's copy of these bytes if another node of the ring has it: one content is copied once. */
static const uint8_t *ring_copy(const struct engine *engine, uint32_t ref)
{
	for (uint32_t other = node_at(engine, ref)->next_dup; other != ref; other = node_at(engine, other)->next_dup)
		if (node_at(engine, other)->is_owned)
			return node_at(engine, other)->bytes;
	return NULL;
}

/* The head has become full: the next node with room takes over, and the old head is last. */
static void pass_on_head(struct index *index, uint32_t head)
{
	uint32_t next = node_at(index->engine, head)->next_dup;
	if (next != head && node_has_room(index->engine, node_at(index->engine, next)))
		set_head(index, head, next);
}

/* A full node that is not the head has room again: it goes before all full ones. */
static void move_to_front(struct index *index, uint32_t ref)
{
	uint32_t head = ring_head(index->engine, ref);
	if (head == ref)
		return;
	bool head_has_room = node_has_room(index->engine, node_at(index->engine, head));
	ring_remove(index, ref);
	ring_insert(index, head, ref);
	if (!head_has_room)
		set_head(index, head, ref);
}

/* --- nodes ----------------------------------------------------------------------------------- */

uint32_t stable_tree_insert(struct index *index, const struct look *look, uint32_t head,
			    const struct place *place, const uint8_t *bytes, bool is_owned)
{
	struct engine *engine = index->engine;
	uint32_t ref = pool_create(&engine->nodes);
	if (!ref)
		return 0;
	struct stable_node *node = node_at(engine, ref);
	*node = (struct stable_node){
		.next_dup = ref,
		.key = look->key,
		.bytes = bytes,
		.frame_id = engine->next_frame_id++,
		.is_owned = is_owned,
		.is_head = !head,
	};
	if (head) {
		ring_insert(index, head, ref);
		set_head(index, head, ref);
		const uint8_t *copy = is_owned ? ring_copy(engine, ref) : NULL;
		if (copy) {
			frame_free(&engine->memory, (uint8_t *)bytes, engine->rules.page_size);
			node->bytes = copy;
		}
	} else {
		forest_insert(&index->stable, ref, place);
	}
	return ref;
}

/* The node has no sharers any more. */
static void node_destroy(struct index *index, uint32_t ref)
{
	struct engine *engine = index->engine;
	struct stable_node *node = node_at(engine, ref);
	if (node->is_owned && !ring_copy(engine, ref))
		frame_free(&engine->memory, (uint8_t *)node->bytes, engine->rules.page_size);
	if (node->next_dup != ref) {
		if (node->is_head)
			set_head(index, ref, node->next_dup);
		ring_remove(index, ref);
	} else {
		forest_remove(&index->stable, ref);
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

void stable_tree_dissolve_ring(struct index *index, uint32_t head)
{
	uint32_t next;
	while ((next = node_at(index->engine, head)->next_dup) != head)
		stable_tree_dissolve(index, next);
	stable_tree_dissolve(index, head);
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
	const uint8_t *copy = ring_copy(engine, node_ref);
	if (!copy) {
		uint8_t *fresh = frame_alloc(&engine->memory, engine->rules.page_size);
		if (!fresh)
			return false;
		copy = memcpy(fresh, node->bytes, engine->rules.page_size);
	}
	node->bytes = copy;
	node->is_owned = 1;
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
	if (!node_has_room(engine, node) && node->is_head)
		pass_on_head(index, node_ref);
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
	if (was_full)
		move_to_front(index, node_ref);
}
