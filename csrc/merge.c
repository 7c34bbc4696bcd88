/*
 * merge.c - one page. Kernel: cmp_and_merge_page(). Differs: the page stays its owner's; merging points
 * its page table entry at a frame that nobody can write.
 *
 * Row numbers are those of the decision table in the specification, section 3.3.
 *
 * Two orders of steps. LKSM's: stable tree, gate, unstable tree. Upstream's (12.2, gate_first): gate, stable
 * tree, unstable tree. There a write breaks a merged page at once, so its next visit is that of an unmerged
 * one. Here the visit finds out: as long as the page equals its frame it counts as merged and stays, else it
 * is detached and goes on to the gate, where its new bytes meet the checksum of its old ones. The case of
 * a merged page that its item does not know of comes from fork; here such pages are aliases.
 *
 * The zero rule (row 8) is the last step before the unstable tree, so that a merged content of zeros wins.
 * Upstream's comes right behind its gate.
 */
#include "merge.h"

#include "ahead.h"
#include "migrate.h"
#include "mm_slot.h"
#include "smart_scan.h"
#include "stable_tree.h"
#include "unstable_tree.h"
#include "zero.h"

static bool is_still_merged(const struct engine *engine, uint32_t item_ref);
static bool is_alias(struct index *index, uint32_t item_ref);
static bool follows_zero(struct engine *engine, uint32_t item_ref);
static bool goes_to_zero(struct engine *engine, uint32_t item_ref, const struct look *look);
static bool is_offered(const struct engine *engine, uint32_t item_ref);
static void look_at(struct index *index, uint32_t item_ref, struct look *look_ret);
static bool has_late_gate(const struct engine *engine, const struct rmap_item *item);
static bool is_gated(struct engine *engine, uint32_t item_ref, struct look *look);
static void merge_pair(struct index *index, uint32_t item_ref, uint32_t twin_ref, const struct look *look);

bool compare_and_merge(struct engine *engine, uint32_t item_ref)
{
	struct rmap_item *item = item_at(&engine->items, item_ref);
	struct index *index = item_region(&engine->items, item_ref)->slot->index;
	uint32_t tree = index_tree(index, item_node(&engine->items, item_ref));
	struct look look;
	struct place place;

	if (is_still_merged(engine, item_ref) && migrate_visited(index, item_ref))
		return true;				/* rows 1 to 3: nothing has changed, but perhaps where it is filed */
	detach(engine, item_ref);			/* row 4: broken, or filed in an earlier round */
	if (engine->smart_scan && smart_scan_skips(item))	/* 12.3: it has been visited often enough */
		return false;
	bool is_one = is_alias(index, item_ref);	/* one page with another item: never a saving */
	if (follows_zero(engine, item_ref) || is_one)
		return true;
	look_at(index, item_ref, &look);
	if (engine->gate_first && is_gated(engine, item_ref, &look))	/* row 7, in upstream's place */
		return true;
	if (engine->gate_first && goes_to_zero(engine, item_ref, &look))	/* row 8, in upstream's place */
		return true;

	uint32_t node = stable_tree_search(index, tree, &look, &place);
	if (node && node_has_room(engine, node_at(engine, node))) {
		stable_tree_attach(index, node, item_ref);	/* row 6: joins a merged content */
		return true;
	}
	if (has_late_gate(engine, item) && is_gated(engine, item_ref, &look))
		return true;				/* row 7: has not held still for a round */
	if (!engine->gate_first && goes_to_zero(engine, item_ref, &look))	/* row 8: all zeros */
		return true;

	uint32_t twin = unstable_tree_search(index, tree, &look, &place);
	if (!twin)
		unstable_tree_insert(index, tree, item_ref, &look, &place);	/* row 10: no twin yet */
	else if (is_offered(engine, twin) && index_tree(index, item_node(&engine->items, twin)) == tree)
		merge_pair(index, item_ref, twin, &look);		/* rows 11 to 15 */
	/* Row 9: the twin is no longer offered for merging, or lies elsewhere. We wait, VOLATILE, until it is gone. */
	return true;
}

/* Immutable memory is not even read. */
static bool is_still_merged(const struct engine *engine, uint32_t item_ref)
{
	const struct rmap_item *item = item_at(&engine->items, item_ref);
	if (item->state != ITEM_STABLE || item->is_private)
		return false;
	return item_region(&engine->items, item_ref)->is_immutable ||
	       !page_compare(&engine->rules, item_bytes(&engine->items, item_ref),
			     node_at(engine, item->sharer.node)->bytes);
}

/*
 * Pages at one address are one page: the first item visited stands for it, the others are aliases of
 * that one. Without memory to remember the address the page waits for its next visit.
 */
static bool is_alias(struct index *index, uint32_t item_ref)
{
	struct engine *engine = index->engine;
	struct rmap_item *item = item_at(&engine->items, item_ref);

	item->is_alias = 0;
	if (!item_region(&engine->items, item_ref)->is_aliased)
		return false;
	uint32_t first = physical_find(&index->physical, item_bytes(&engine->items, item_ref));
	if (!first)
		return !physical_add(&index->physical, item_ref);
	if (first == item_ref)
		return false;
	item->is_alias = 1;
	item->alias.of = first;
	return true;
}

/*
 * A page that another mapping has put on the zero frame is there, whatever the knob says now and before
 * anything is asked of it: it must not be merged as well. Fork leaves pages like that without a visit.
 */
static bool follows_zero(struct engine *engine, uint32_t item_ref)
{
	struct region *region = item_region(&engine->items, item_ref);
	uint64_t page = item_page(&engine->items, item_ref);
	return zero_is_elsewhere(region, page) && zero_add(region, page);
}

/*
 * Row 8. The sample tells nearly all pages from zeros without a look at them. A key that was kept from an
 * earlier visit may be that of the whole page, if the class of zeros has been deepened. Without memory the
 * page goes on.
 */
static bool goes_to_zero(struct engine *engine, uint32_t item_ref, const struct look *look)
{
	struct region *region = item_region(&engine->items, item_ref);
	uint64_t zero_sample = engine->rules.zero_sample;

	if (!engine->use_zero_pages)
		return false;
	if (look->sample != zero_sample && !(item_at(&engine->items, item_ref)->has_key &&
					     keyset_has(&region->slot->index->deepened, zero_sample)))
		return false;
	return zero_is_true(engine, look->bytes) && zero_add(region, item_page(&engine->items, item_ref));
}

/* May the twin be merged? Not if it is no longer mergeable, or has since become one with a zero page. */
static bool is_offered(const struct engine *engine, uint32_t twin_ref)
{
	const struct region *region = item_region(&engine->items, twin_ref);
	uint64_t page = item_page(&engine->items, twin_ref);
	return region->flags[page] & PAGE_MERGEABLE && !zero_is_elsewhere(region, page);
}

/* Computes the page's key, or takes the one from its last visit if the bytes cannot have changed. */
static void look_at(struct index *index, uint32_t item_ref, struct look *look_ret)
{
	struct engine *engine = index->engine;
	struct rmap_item *item = item_at(&engine->items, item_ref);
	const uint8_t *bytes = item_bytes(&engine->items, item_ref);

	if (item->has_key && (item->is_key_deep || !keyset_has(&index->deepened, item->key))) {
		*look_ret = (struct look){
			.bytes = bytes,
			.sample = item->key,
			.hash = item->key,
			.key = item->key,
			.has_hash = item->is_key_deep,
			.is_deep = item->is_key_deep,
		};
		return;
	}
	uint64_t sample;
	if (ahead_sample(engine, item_page(&engine->items, item_ref), bytes, &sample))
		index_look_sampled(index, bytes, sample, look_ret);
	else
		index_look(index, bytes, look_ret);
	item->key = look_ret->key;
	item->is_key_deep = look_ret->has_hash && look_ret->key == look_ret->hash;
	item->has_key = item_region(&engine->items, item_ref)->is_immutable;
}

/* LKSM's gate comes after the stable tree, in the initial rounds only, and lets frozen processes pass. */
static bool has_late_gate(const struct engine *engine, const struct rmap_item *item)
{
	return !engine->gate_first && engine->scan_round < engine->initial_rounds && !item->bypasses_gate;
}

/* The checksum gate: a page must have kept its checksum since its last visit. */
static bool is_gated(struct engine *engine, uint32_t item_ref, struct look *look)
{
	struct rmap_item *item = item_at(&engine->items, item_ref);

	if (item->checksum && item_region(&engine->items, item_ref)->is_immutable)
		return false;	/* it was taken from these very bytes */
	uint32_t checksum = page_checksum(&engine->rules, look);
	if (checksum == item->checksum)
		return false;
	item->checksum = checksum;
	engine->nr_gated++;
	return true;
}

/*
 * The bytes that shall stand for a pair. Borrowed from the page scanned second if that is immutable,
 * else from its twin if that is, else copied. Copied in any case if the engine is secure. False if there is no memory.
 */
static bool choose_frame(struct engine *engine, uint32_t item_ref, uint32_t twin_ref, struct frame *frame_ret)
{
	const uint8_t *bytes = item_bytes(&engine->items, item_ref);
	uint32_t lender = item_region(&engine->items, item_ref)->is_immutable ? item_ref : twin_ref;
	struct frame frame = { .memory_node = item_node(&engine->items, item_ref) };

	if (item_region(&engine->items, lender)->is_immutable && !engine->is_secure) {
		frame.bytes = item_bytes(&engine->items, lender);
	} else {
		uint8_t *copy = frame_alloc(&engine->memory, engine->rules.page_size);
		if (!copy)
			return false;
		frame.bytes = memcpy(copy, bytes, engine->rules.page_size);
		frame.is_owned = true;
	}
	*frame_ret = frame;
	return true;
}

/* Does the item's page equal the frame now? Immutable pages did when they were searched for. */
static bool is_equal(const struct engine *engine, uint32_t item_ref, const struct frame *frame)
{
	if (!frame->is_owned && item_region(&engine->items, item_ref)->is_immutable)
		return true;
	return !page_compare(&engine->rules, item_bytes(&engine->items, item_ref), frame->bytes);
}

static void give_up(struct engine *engine, const struct frame *frame)
{
	if (frame->is_owned)
		frame_free(&engine->memory, (uint8_t *)frame->bytes, engine->rules.page_size);
}

/* Two equal pages become one frame, unless one of them was written since they were compared. */
static void merge_pair(struct index *index, uint32_t item_ref, uint32_t twin_ref, const struct look *look)
{
	struct engine *engine = index->engine;
	struct look frame_look = *look;
	struct frame frame;
	struct place place;

	if (engine->before_merge)
		engine->before_merge(engine->before_merge_data);
	if (!choose_frame(engine, item_ref, twin_ref, &frame))
		return;							/* row 12 */
	if (!is_equal(engine, item_ref, &frame) || !is_equal(engine, twin_ref, &frame)) {
		give_up(engine, &frame);
		return;							/* row 13 */
	}
	if (!item_region(&engine->items, item_ref)->is_immutable)
		index_look(index, frame.bytes, &frame_look);
	detach(engine, twin_ref);
	uint32_t equal = stable_tree_search(index, index_tree(index, frame.memory_node), &frame_look, &place);
	uint32_t node = 0;
	if (equal && node_has_room(engine, node_at(engine, equal)))
		node = equal;	/* both were written since, to bytes that are merged already */
	else
		node = stable_tree_insert(index, &frame_look, equal, &place, &frame);
	if (!node || node == equal)
		give_up(engine, &frame);
	if (!node)
		return;							/* row 14 */
	stable_tree_attach(index, node, twin_ref);
	if (node_has_room(engine, node_at(engine, node)))
		stable_tree_attach(index, node, item_ref);		/* row 15 */
}

void detach(struct engine *engine, uint32_t item_ref)
{
	struct index *index = item_region(&engine->items, item_ref)->slot->index;
	switch ((enum item_state)item_at(&engine->items, item_ref)->state) {
	case ITEM_STABLE:
		stable_tree_detach(index, item_ref);
		break;
	case ITEM_UNSTABLE:
		unstable_tree_detach(index, item_ref);
		break;
	case ITEM_VOLATILE:
	case ITEM_NONE:
		break;
	}
}

void forget_page(struct region *region, uint64_t page)
{
	detach(region->slot->engine, item_find(region, page));
	item_destroy(region, page);
}

void forget_pages(struct mm_slot *slot)
{
	for (uint64_t i = 0; i < slot->nr_regions; i++) {
		struct region *region = slot->regions[i];
		zero_remove_all(region);
		for (uint64_t page = 0; region->nr_items && page < region->nr_pages; page++)
			if (item_find(region, page))
				forget_page(region, page);
	}
}
