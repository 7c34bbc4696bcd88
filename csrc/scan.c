/*
 * scan.c - the queue of processes and the walk over their pages. Kernel: ksm_do_scan(), scan_get_next_rmap_item().
 * Differs: a process that exits leaves the queue at once, and a failed allocation is never mistaken for
 * the end of a process.
 */
#include "scan.h"

#include "ahead.h"
#include "filter.h"
#include "merge.h"
#include "mm_slot.h"
#include "unstable_tree.h"
#include "zero.h"

static void begin_slot(struct engine *engine, struct mm_slot *slot)
{
	engine->cursor = (struct cursor){
		.slot = slot,
		.region = slot && slot->nr_regions ? slot->regions[0] : NULL,
	};
	engine->rules.work = slot ? &slot->index->tally.work : &engine->gone.work;
	if (!slot)
		return;
	slot->started = engine->now;
	engine->nr_begun_slots++;
}

/* --- the queue ------------------------------------------------------------------------------- */

/* Puts the slot behind @previous, or first if that is NULL. */
static void link_slot(struct engine *engine, struct mm_slot *slot, struct mm_slot *previous)
{
	slot->queue_previous = previous;
	slot->queue_next = previous ? previous->queue_next : engine->queue;
	*(previous ? &previous->queue_next : &engine->queue) = slot;
	*(slot->queue_next ? &slot->queue_next->queue_previous : &engine->queue_last) = slot;
}

static void unlink_slot(struct engine *engine, struct mm_slot *slot)
{
	*(slot->queue_previous ? &slot->queue_previous->queue_next : &engine->queue) = slot->queue_next;
	*(slot->queue_next ? &slot->queue_next->queue_previous : &engine->queue_last) = slot->queue_previous;
	slot->queue_next = slot->queue_previous = NULL;
}

void scan_enqueue(struct mm_slot *slot, bool is_frozen)
{
	struct engine *engine = slot->engine;
	bool is_queued = slot->pending != LKSM_PENDING_NONE;

	slot->pending = is_frozen ? LKSM_PENDING_FROZEN : LKSM_PENDING_NORMAL;
	if (is_queued)
		return;
	slot->nr_scans = 0;
	link_slot(engine, slot, engine->queue_last);
}

void scan_dequeue(struct mm_slot *slot)
{
	struct engine *engine = slot->engine;

	slot->requeue_frozen = false;
	if (slot->pending == LKSM_PENDING_NONE)
		return;
	if (engine->cursor.slot == slot)
		begin_slot(engine, slot->queue_next);
	unlink_slot(engine, slot);
	slot->pending = LKSM_PENDING_NONE;
}

void scan_move_to_front(struct mm_slot *slot)
{
	struct engine *engine = slot->engine;

	if (slot->pending == LKSM_PENDING_NONE || engine->cursor.slot == slot)
		return;
	unlink_slot(engine, slot);
	link_slot(engine, slot, NULL);
}

uint64_t scan_nr_waiting(const struct engine *engine, uint64_t most)
{
	const struct mm_slot *slot = engine->cursor.slot ? engine->cursor.slot : engine->queue;
	uint64_t nr_pages = 0;
	for (; slot && nr_pages < most; slot = slot->queue_next) {
		assert(slot->nr_scans <= slot->nr_pages);
		nr_pages += slot->nr_pages - slot->nr_scans;
	}
	return nr_pages < most ? nr_pages : most;
}

void scan_remove(struct mm_slot *slot)
{
	scan_dequeue(slot);
	slot->is_registered = false;
	slot->is_newcomer = slot->is_scanned = false;
	/* Should it come back, it comes as a new one. */
	memset(slot->window, 0, sizeof(slot->window));
	slot->window_index = 0;
	slot->nr_merged = slot->merged = slot->broken = slot->nr_scans = slot->elapsed = slot->completion = 0;
}

/* --- the walk -------------------------------------------------------------------------------- */

/* How many pages that wait to be scanned will be filed in each tree, unless they have been moved. */
static void count_queued_pages(struct engine *engine)
{
	for (const struct mm_slot *slot = engine->queue; slot; slot = slot->queue_next)
		for (uint64_t i = 0; i < slot->nr_regions; i++) {
			const struct region *region = slot->regions[i];
			struct trees *trees = &slot->index->trees[index_tree(slot->index, region->node)];
			bool is_kept = region_holds_still(region) && unstable_tree_keeps(engine);
			*(is_kept ? &trees->nr_still : &trees->nr_others) += region->nr_pages;
		}
}

/* A new round: the unstable trees are dropped, and sized for what is queued. */
static void begin_round(struct engine *engine)
{
	engine->scan_round = engine->crawl_round;
	assert(!(engine->scan_round >> ROUND_BITS));
	count_queued_pages(engine);
	for (struct index *index = engine->indexes; index; index = index->next)
		for (uint32_t tree = 0; tree < engine->nr_nodes; tree++)
			unstable_tree_drop(index, tree);
}

static void complete_slot(struct mm_slot *slot)
{
	bool is_wanted_again = slot->requeue_frozen;

	slot->is_newcomer = false;
	slot->is_scanned = true;
	mm_slot_push_window(slot);
	slot->elapsed = slot->engine->now - slot->started;
	slot->completion = ++slot->engine->nr_completions;
	slot->merged = slot->broken = 0;
	slot->engine->nr_scanned_slots++;
	scan_dequeue(slot);
	if (is_wanted_again)
		scan_enqueue(slot, true);
}

/*
 * The walk over @slot is over. If nothing of it may be merged, the scanner need not know it; but items
 * of pages that were advised behind the cursor go at the next scan.
 */
static void close_slot(struct mm_slot *slot)
{
	if (mm_slot_is_mergeable(slot) || slot->rmap_items)
		complete_slot(slot);
	else
		scan_remove(slot);
}

/* From the head: over the queue once more, in a new round if one has been prepared since. */
static void begin_pass(struct engine *engine)
{
	if (engine->scan_round < engine->crawl_round)
		begin_round(engine);
	begin_slot(engine, engine->queue);
}

/* What the walk asks about the pages of the region under the cursor; NULL: visit them all. */
static const struct filter *filter_under_cursor(struct cursor *cursor)
{
	struct region *region = cursor->region;
	if (!region->filter)
		return NULL;
	if (!cursor->has_met_filter) {
		if (region->nr_mergeable)
			filter_look_at_size(region);
		cursor->is_learning = !region->filter->nr_bits;
		cursor->has_met_filter = true;
	}
	return cursor->is_learning ? NULL : filter_in_use(region);
}

/*
 * Moves the cursor to the next page to visit. Items of pages that may no longer be merged, or need not be
 * because they still are on the zero frame, go as it passes; those of pages that a filter leaves out stay.
 * Slots are closed as they end. False if the cursor reaches the head.
 */
static bool find_page(struct engine *engine)
{
	struct cursor *cursor = &engine->cursor;

	while (cursor->slot) {
		while (cursor->region) {
			struct region *region = cursor->region;
			const struct filter *filter = filter_under_cursor(cursor);
			bool is_idle = !region->nr_mergeable && !region->nr_items;
			for (; !is_idle && cursor->page < region->nr_pages; cursor->page++) {
				if (region->flags[cursor->page] & PAGE_MERGEABLE && !zero_is_kept(region, cursor->page)) {
					if (!filter || !filter_leaves_out(filter, region, cursor->page))
						return true;
				} else if (item_find(region, cursor->page)) {
					forget_page(region, cursor->page);
				}
			}
			uint64_t next = region->position + 1;
			cursor->region = next < cursor->slot->nr_regions ? cursor->slot->regions[next] : NULL;
			cursor->page = 0;
			cursor->has_met_filter = false;
		}
		close_slot(cursor->slot);
	}
	return false;
}

/* The item of the page under the cursor, made if there is none; 0 if there is no memory. */
static uint32_t locate_item(struct engine *engine)
{
	struct region *region = engine->cursor.region;
	bool is_frozen = region->slot->pending == LKSM_PENDING_FROZEN;
	uint32_t ref = item_find(region, engine->cursor.page);

	if (ref) {
		struct rmap_item *item = item_at(&engine->items, ref);
		item->bypasses_gate = is_frozen && item->state == ITEM_UNSTABLE;
		return ref;
	}
	ref = item_create(region, engine->cursor.page);
	if (ref)
		item_at(&engine->items, ref)->bypasses_gate = is_frozen;
	return ref;
}

/*
 * Visits up to @nr_pages pages from the cursor on and returns how many. Ends at the head; the cursor is on
 * a slot afterwards only if the pages were enough, or memory was not.
 */
static uint64_t scan_pass(struct engine *engine, uint64_t nr_pages)
{
	uint64_t nr_scanned = 0;

	ahead_reset(engine);
	if (!engine->cursor.slot)
		begin_pass(engine);
	while (find_page(engine) && nr_scanned < nr_pages) {
		uint32_t ref = locate_item(engine);
		if (!ref)
			break;
		struct region *region = engine->cursor.region;
		uint64_t page = engine->cursor.page++;
		ahead_of(engine, region, page);
		if (!compare_and_merge(engine, region, page, ref)) {
			engine->cursor.slot->index->tally.pages_skipped++;	/* costs nothing of the budget */
			continue;
		}
		engine->cursor.slot->nr_scans++;
		engine->cursor.slot->index->tally.pages_scanned++;
		nr_scanned++;
	}
	ahead_reset(engine);
	return nr_scanned;
}

int scan(struct engine *engine, uint64_t nr_pages, uint64_t *nr_scanned_ret)
{
	uint64_t nr_scanned = 0;

	/* Slots that were moved to the front, or queued once more, are left when the cursor reaches the head. */
	while (nr_scanned < nr_pages && engine->queue) {
		nr_scanned += scan_pass(engine, nr_pages - nr_scanned);
		if (engine->cursor.slot || engine->gate_first)
			break;
	}
	if (nr_pages && !nr_scanned && engine->cursor.slot)
		return LKSM_NO_MEMORY;
	*nr_scanned_ret = nr_scanned;
	return LKSM_OK;
}
