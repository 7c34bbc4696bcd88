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

static bool is_settled(const struct engine *engine, struct rmap_item *item);
static bool is_still_merged(const struct engine *engine, const struct visit *visit);
static bool is_alias(const struct visit *visit);
static bool follows_zero(const struct visit *visit);
static bool goes_to_zero(struct engine *engine, const struct visit *visit, const struct look *look);
static bool is_offered(const struct engine *engine, uint32_t twin_ref);
static bool may_be_kept(const struct engine *engine, const struct visit *visit);
static void look_at(struct engine *engine, const struct visit *visit, struct look *look_ret);
static bool has_late_gate(const struct engine *engine, const struct rmap_item *item);
static bool is_gated(struct engine *engine, const struct visit *visit, struct look *look);
static void merge_pair(const struct visit *visit, uint32_t twin_ref, const struct look *look);

bool compare_and_merge(struct engine *engine, struct region *region, uint64_t page, uint32_t item_ref)
{
	struct index *index = region->slot->index;
	if (is_settled(engine, item_at(&engine->items, item_ref)))
		return true;
	const struct visit visit = {
		.index = index,
		.region = region,
		.page = page,
		.ref = item_ref,
		.tree = index_tree(index, page_node(region, page)),
		.item = item_at(&engine->items, item_ref),
		.bytes = region_page(region, page),
		.foreseen = ahead_foreseen(engine, page),
	};
	struct look look;
	struct place place, places[2];

	if (is_still_merged(engine, &visit) && migrate_visited(index, item_ref))
		return true;				/* rows 1 to 3: nothing has changed, but perhaps where it is filed */
	detach(engine, item_ref);			/* row 4: broken, or filed in an earlier round */
	if (engine->smart_scan && smart_scan_skips(visit.item))	/* 12.3: it has been visited often enough */
		return false;
	bool is_one = is_alias(&visit);			/* one page with another item: never a saving */
	if (follows_zero(&visit) || is_one)
		return true;
	look_at(engine, &visit, &look);
	if (engine->gate_first && is_gated(engine, &visit, &look))	/* row 7, in upstream's place */
		return true;
	if (engine->gate_first && goes_to_zero(engine, &visit, &look))	/* row 8, in upstream's place */
		return true;

	uint32_t node = stable_tree_search(index, visit.tree, &look, &place);
	if (node && node_has_room(engine, node_at(engine, node))) {
		stable_tree_attach(index, node, item_ref);	/* row 6: joins a merged content */
		return true;
	}
	if (has_late_gate(engine, visit.item) && is_gated(engine, &visit, &look))
		return true;				/* row 7: has not held still for a round */
	if (!engine->gate_first && goes_to_zero(engine, &visit, &look))	/* row 8: all zeros */
		return true;

	uint32_t twin = unstable_tree_search(index, visit.tree, &look, places);
	if (!twin)						/* row 10: no twin yet */
		unstable_tree_insert(&visit, &look, places, !node && may_be_kept(engine, &visit));
	else if (is_offered(engine, twin) && index_tree(index, item_node(&engine->items, twin)) == visit.tree)
		merge_pair(&visit, twin, &look);		/* rows 11 to 15 */
	/* Row 9: the twin is no longer offered for merging, or lies elsewhere. We wait, VOLATILE, until it is gone. */
	return true;
}

/*
 * Of a page whose bytes hold still nothing is looked at: it is merged and stays so, or it is kept in its tree, where
 * rows 4 to 10 would only file it again. But not where frames may have been moved, nor past a gate for which the page
 * has no checksum yet.
 */
static bool is_settled(const struct engine *engine, struct rmap_item *item)
{
	if (!item->is_settled || !engine->merge_across_nodes)
		return false;
	if ((engine->gate_first || has_late_gate(engine, item)) && !item->checksum && item->state == ITEM_UNSTABLE)
		return false;
	item->round = engine->scan_round;	/* a kept one is of this round now; no merged one asks for it */
	return true;
}

static bool is_still_merged(const struct engine *engine, const struct visit *visit)
{
	if (visit->item->state != ITEM_STABLE || visit->item->is_private)
		return false;
	if (visit->region->is_immutable)
		return true;
	const struct stable_node *node = node_at(engine, visit->item->sharer.node);
	bool is_equal = !(is_foreseen(visit->foreseen, node->bytes) ?
				  foreseen_compare(&engine->rules, visit->foreseen) :
				  page_compare(&engine->rules, visit->bytes, node->bytes));
	visit->item->is_settled = is_equal && visit->region->is_tracked;
	return is_equal;
}

/*
 * May a page that finds no twin, also among merged contents, be kept in its tree? If a later visit could only file it
 * there again, because its bytes cannot change. An equal page that comes makes it give way or merges with it, so it
 * will not miss that.
 */
static bool may_be_kept(const struct engine *engine, const struct visit *visit)
{
	return region_holds_still(visit->region) && unstable_tree_keeps(engine);
}

/*
 * Pages at one address are one page: the first item visited stands for it, the others are aliases of
 * that one. Without memory to remember the address the page waits for its next visit.
 */
static bool is_alias(const struct visit *visit)
{
	struct rmap_item *item = visit->item;

	item->is_alias = 0;
	if (!visit->region->is_aliased)
		return false;
	uint32_t first = physical_find(&visit->index->physical, visit->bytes);
	if (!first)
		return !physical_add(&visit->index->physical, visit->ref);
	if (first == visit->ref)
		return false;
	item->is_alias = 1;
	return true;
}

/*
 * A page that another mapping has put on the zero frame is there, whatever the knob says now and before
 * anything is asked of it: it must not be merged as well. Fork leaves pages like that without a visit.
 */
static bool follows_zero(const struct visit *visit)
{
	/* untested: its address is entered, so adding needs no memory */
	return zero_is_elsewhere(visit->region, visit->page) && zero_add(visit->region, visit->page);
}

/*
 * Row 8. The sample tells nearly all pages from zeros without a look at them, and the hash, where it has been taken, all
 * the others. A key that was kept from an earlier visit may be that of the whole page, if the class of zeros has
 * been deepened. Without memory the page goes on.
 */
static bool goes_to_zero(struct engine *engine, const struct visit *visit, const struct look *look)
{
	uint64_t zero_sample = engine->rules.zero_sample;

	if (!engine->use_zero_pages)
		return false;
	if (look->sample != zero_sample &&
	    !(visit->item->has_key && keyset_has(&visit->index->deepened, zero_sample)))
		return false;
	if (look->has_hash && engine->rules.has_zero_hash && look->hash != engine->rules.zero_hash)
		return false;
	return zero_is_true(engine, look->bytes) && zero_add(visit->region, visit->page);
}

/* May the twin be merged? Not if it is no longer mergeable, or has since become one with a zero page. */
static bool is_offered(const struct engine *engine, uint32_t twin_ref)
{
	const struct region *region = item_region(&engine->items, twin_ref);
	uint64_t page = item_page(&engine->items, twin_ref);
	return region->flags[page] & PAGE_MERGEABLE && !zero_is_elsewhere(region, page);
}

/* Computes the page's key, or takes the one from its last visit if the bytes cannot have changed. */
static void look_at(struct engine *engine, const struct visit *visit, struct look *look_ret)
{
	struct rmap_item *item = visit->item;

	if (item->has_key && (item->is_key_deep || !keyset_has(&visit->index->deepened, item->key))) {
		*look_ret = (struct look){
			.bytes = visit->bytes,
			.sample = item->key,
			.hash = item->key,
			.key = item->key,
			.foreseen = visit->foreseen,
			.has_hash = item->is_key_deep,
			.is_deep = item->is_key_deep,
		};
		return;
	}
	uint64_t sample;
	if (!ahead_sample(engine, visit->page, visit->bytes, &sample))
		sample = page_take_sample(&engine->rules, visit->bytes);
	index_look_foreseen(visit->index, visit->bytes, sample, visit->foreseen, look_ret);
	item->key = look_ret->key;
	/* untested: two parts that exclude each other so far */
	item->is_key_deep = look_ret->has_hash && look_ret->key == look_ret->hash;
	item->has_key = region_holds_still(visit->region);
}

/* LKSM's gate comes after the stable tree, in the initial rounds only, and lets frozen processes pass. */
static bool has_late_gate(const struct engine *engine, const struct rmap_item *item)
{
	return !engine->gate_first && engine->scan_round < engine->initial_rounds && !item->bypasses_gate;
}

/* The checksum gate: a page must have kept its checksum since its last visit. */
static bool is_gated(struct engine *engine, const struct visit *visit, struct look *look)
{
	struct rmap_item *item = visit->item;

	if (item->checksum && visit->region->is_immutable)
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
static bool choose_frame(struct engine *engine, const struct visit *visit, uint32_t twin_ref, struct frame *frame_ret)
{
	uint32_t lender = visit->region->is_immutable ? visit->ref : twin_ref;
	struct frame frame = { .memory_node = page_node(visit->region, visit->page) };

	if (item_region(&engine->items, lender)->is_immutable && !engine->is_secure) {
		frame.bytes = item_bytes(&engine->items, lender);
	} else {
		uint8_t *copy = frame_alloc(&engine->memory, engine->rules.page_size);
		if (!copy)
			return false;
		page_copy_bytes(&engine->rules, copy, visit->bytes);
		frame.bytes = copy;
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
static void merge_pair(const struct visit *visit, uint32_t twin_ref, const struct look *look)
{
	struct index *index = visit->index;
	struct engine *engine = index->engine;
	struct look frame_look = *look;
	struct frame frame;
	struct place place;

	if (engine->before_merge)
		engine->before_merge(engine->before_merge_data);
	if (!choose_frame(engine, visit, twin_ref, &frame))
		return;							/* row 12 */
	/* untested: only the visited page was written */
	if (!is_equal(engine, visit->ref, &frame) || !is_equal(engine, twin_ref, &frame)) {
		give_up(engine, &frame);
		return;							/* row 13 */
	}
	detach(engine, twin_ref);
	frame_look.foreseen = NULL;	/* that was said of the page, not of the frame */
	if (!visit->region->is_immutable) {
		index_look(index, frame.bytes, &frame_look);
		if (frame_look.key != look->key)	/* written since, to bytes that nobody has looked for */
			unstable_tree_give_way(index, visit->tree, &frame_look);
	}
	uint32_t equal = stable_tree_search(index, visit->tree, &frame_look, &place);
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
		stable_tree_attach(index, node, visit->ref);		/* row 15 */
}

void detach(struct engine *engine, uint32_t item_ref)
{
	struct index *index = item_region(&engine->items, item_ref)->slot->index;
	/* untested: a switch has a way for no value of the enum */
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
		/* untested: nr_items says that there is one more, so the pages do not end first */
		for (uint64_t page = 0; region->nr_items && page < region->nr_pages; page++)
			if (item_find(region, page))
				forget_page(region, page);
	}
}
