/*
 * report.c - reads the structures. Changes nothing that anybody sees: scratch fields of slots, and to tell
 * whether a content is merged, or where, it may deepen a class, as a visit would.
 *
 * Everything here shows what the last visit knew: bytes that an owner wrote since are seen at the next.
 */
#include "report.h"

#include "filter.h"
#include "mm_slot.h"
#include "physical.h"
#include "smart_scan.h"
#include "stable_tree.h"

#include <string.h>

/* --- page table ------------------------------------------------------------------------------ */

/* The item that stands for the page of an alias in its domain; 0 for what is no alias, and if that one is gone. */
static uint32_t alias_target(const struct index *index, uint32_t ref)
{
	const struct pool *items = &index->engine->items;
	return item_at(items, ref)->is_alias ? physical_find(&index->physical, item_bytes(items, ref)) : 0;
}

/* The node that the page behind an item is merged into, also as an alias; 0 if it is private. */
static uint32_t node_of(const struct index *index, uint32_t ref)
{
	uint32_t target = alias_target(index, ref);
	const struct rmap_item *item = item_at(&index->engine->items, target ? target : ref);
	return item->state == ITEM_STABLE && !item->is_private ? item->sharer.node : 0;
}

/* The public number of a node's frame. */
static int64_t frame_of(const struct index *index, uint32_t node)
{
	return (int64_t)index_frame_id(index, node_at(index->engine, node)->serial);
}

void report_page_table(const struct mm_slot *slot, int64_t *entries_ret)
{
	for (uint64_t i = 0; i < slot->nr_regions; i++) {
		const struct region *region = slot->regions[i];
		for (uint64_t page = 0; page < region->nr_pages; page++) {
			uint32_t ref = page_is_present(region, page) ? item_find(region, page) : 0;
			uint32_t node = ref ? node_of(slot->index, ref) : 0;
			if (!page_is_present(region, page))
				*entries_ret++ = LKSM_ENTRY_ABSENT;
			else if (region->flags[page] & PAGE_ZERO)
				*entries_ret++ = LKSM_ENTRY_ZERO;
			else if (node)
				*entries_ret++ = frame_of(slot->index, node);
			else
				*entries_ret++ = LKSM_ENTRY_PRIVATE;
		}
	}
}

/* --- explain --------------------------------------------------------------------------------- */

static void number_slots(struct engine *engine)
{
	uint64_t position = 0;
	for (struct mm_slot *slot = engine->slots; slot; slot = slot->next) {
		slot->position = position++;
		slot->mark = 0;
	}
}

static int64_t page_number(const struct engine *engine, uint32_t ref)
{
	return (int64_t)(item_region(&engine->items, ref)->first_page + item_page(&engine->items, ref));
}

/* Does @a stand before @b in order of process and page? */
static bool is_before(const struct engine *engine, uint32_t a, uint32_t b)
{
	uint64_t slot_a = item_region(&engine->items, a)->slot->position;
	uint64_t slot_b = item_region(&engine->items, b)->slot->position;
	if (slot_a != slot_b)
		return slot_a < slot_b;
	return page_number(engine, a) < page_number(engine, b);
}

/* The first of the node's sharers other than @not_this, or 0. */
static uint32_t first_sharer(const struct engine *engine, const struct stable_node *node, uint32_t not_this)
{
	uint32_t first = 0;
	for (uint32_t ref = node->sharers; ref; ref = item_at(&engine->items, ref)->sharer.next)
		if (ref != not_this && (!first || is_before(engine, ref, first)))
			first = ref;
	return first;
}

static void name_other(const struct engine *engine, uint32_t ref, struct lksm_explanation *explanation)
{
	if (!ref)
		return;
	explanation->other_process = (int64_t)item_region(&engine->items, ref)->slot->position;
	explanation->other_page = page_number(engine, ref);
}

/* A page that is in no frame, though it was visited: is its content merged, but into full frames? */
static uint32_t find_full_node(struct index *index, uint32_t ref)
{
	struct look look;
	struct place place;
	index_look(index, item_bytes(&index->engine->items, ref), &look);
	uint32_t tree = index_tree(index, item_node(&index->engine->items, ref));
	uint32_t node = stable_tree_find(index, tree, &look, &place);
	return node && !node_has_room(index->engine, node_at(index->engine, node)) ? node : 0;
}

/* Is there a merged content or another candidate with the item's bytes, in any tree of the index but one? */
static bool has_twin(struct index *index, uint32_t ref, const struct trees *but)
{
	for (uint32_t i = 0; i < index->engine->nr_nodes; i++) {
		const struct trees *trees = &index->trees[i];
		struct look look;
		struct place place;
		if (trees == but)
			continue;
		index_look(index, item_bytes(&index->engine->items, ref), &look);
		uint32_t candidate = index_search(index, &trees->unstable, &look, &place);
		uint32_t kept = index_search(index, &trees->kept, &look, &place);
		/* The item itself is where it was filed before its page was moved. */
		/* untested: one part of several */
		if (index_search(index, &trees->stable, &look, &place) || (candidate && candidate != ref) ||
		    (kept && kept != ref))
			return true;
	}
	return false;
}

static bool has_twin_elsewhere(struct index *index, uint32_t ref)
{
	for (struct index *other = index->engine->indexes; other; other = other->next)
		if (other != index && has_twin(other, ref, NULL))
			return true;
	return false;
}

/* Why a page that was visited is in no frame. */
static void explain_unmerged(struct index *index, uint32_t ref, bool across_domains,
			     struct lksm_explanation *explanation)
{
	const struct engine *engine = index->engine;
	uint32_t full = find_full_node(index, ref);

	if (full) {
		explanation->reason = LKSM_LIMIT;
		explanation->nr_sharers = node_at(engine, full)->nr_sharers;
	} else if (!engine->merge_across_nodes &&
		   has_twin(index, ref, &index->trees[index_tree(index, item_node(&engine->items, ref))])) {
		explanation->reason = LKSM_OTHER_NODE;
	} else if (across_domains && has_twin_elsewhere(index, ref)) {
		explanation->reason = LKSM_OTHER_DOMAIN;
	} else {
		bool is_unique = item_at(&engine->items, ref)->state == ITEM_UNSTABLE;
		explanation->reason = is_unique ? LKSM_UNIQUE : LKSM_VOLATILE;
	}
}

/* Do scans leave the page out because nothing has merged at its offset? Not if this round has looked at it. */
static bool is_filtered(const struct region *region, uint64_t page)
{
	const struct engine *engine = region->slot->engine;
	const struct filter *filter = filter_in_use(region);
	if (!filter || !filter_leaves_out(filter, region, page))
		return false;
	uint32_t ref = item_find(region, page);
	const struct rmap_item *item = ref ? item_at(&engine->items, ref) : NULL;
	return !item || item->state != ITEM_UNSTABLE || item->round != engine->scan_round;
}

struct lksm_explanation report_explain(struct mm_slot *slot, uint64_t number, bool across_domains)
{
	struct engine *engine = slot->engine;
	struct work unbooked, *booked = engine->rules.work;	/* what explaining costs */
	struct lksm_explanation explanation = { .frame = -1, .other_process = -1, .other_page = -1 };
	uint64_t page;
	const struct region *region = mm_slot_region(slot, number, &page);
	uint32_t ref = item_find(region, page);
	uint32_t node = ref ? node_of(slot->index, ref) : 0;
	const struct rmap_item *item = ref ? item_at(&engine->items, ref) : NULL;

	number_slots(engine);
	engine->rules.work = &unbooked;
	if (node) {
		explanation.frame = frame_of(slot->index, node);
		explanation.nr_sharers = node_at(engine, node)->nr_sharers;
		name_other(engine, first_sharer(engine, node_at(engine, node), ref), &explanation);
	}
	if (!page_is_present(region, page)) {
		explanation.reason = LKSM_ABSENT;
	} else if (region->flags[page] & PAGE_ZERO) {
		explanation.reason = LKSM_ZERO;
	} else if (region->is_excluded) {
		explanation.reason = LKSM_EXCLUDED;
	} else if (region->flags[page] & PAGE_OPTED_OUT) {
		explanation.reason = LKSM_OPTED_OUT;
	} else if (!slot->is_registered || !(region->flags[page] & PAGE_MERGEABLE)) {
		explanation.reason = LKSM_NOT_REGISTERED;
	} else if (item && alias_target(slot->index, ref)) {
		explanation.reason = LKSM_ALREADY_SHARED;
		name_other(engine, alias_target(slot->index, ref), &explanation);
	} else if (is_filtered(region, page)) {
		explanation.reason = LKSM_SKIPPED;
		explanation.is_filtered = true;
	} else if (!item) {
		explanation.reason = LKSM_NOT_VISITED;
	} else if (node) {
		explanation.reason = LKSM_MERGED;
	} else if (item->state == ITEM_STABLE) {
		explanation.reason = LKSM_VOLATILE;
		explanation.is_private = true;
	} else if (engine->smart_scan && item->state == ITEM_VOLATILE && smart_scan_has_skipped(item)) {
		explanation.reason = LKSM_SKIPPED;
	} else {
		explain_unmerged(slot->index, ref, across_domains, &explanation);
	}
	engine->rules.work = booked;
	return explanation;
}

/* --- groups ---------------------------------------------------------------------------------- */

/* All pages of a content, whatever the number of its nodes. */
static uint64_t nr_pages_of(const struct engine *engine, uint32_t content)
{
	uint64_t nr_pages = 0;
	for (uint32_t ref = 0; (ref = content_next(engine, content, ref)) != 0;)
		nr_pages += node_at(engine, ref)->nr_sharers;
	return nr_pages;
}

uint64_t report_nr_groups(struct engine *engine, int64_t domain, uint64_t min_pages)
{
	uint64_t nr_groups = 0;
	for (struct index *index = engine->indexes; index; index = index->next) {
		if (domain >= 0 && index->domain != domain)
			continue;
		for (struct content_walk walk = { 0, 0 }; stable_tree_next(index, &walk);)
			nr_groups += nr_pages_of(engine, walk.content) >= min_pages;
	}
	return nr_groups;
}

/* Adds what one node contributes; @serial marks the slots that were counted. */
static void add_node(struct engine *engine, const struct stable_node *node, uint64_t serial,
		     struct lksm_group *group, uint32_t *first)
{
	if (!group->pages || (int64_t)node->serial < group->frame)
		group->frame = (int64_t)node->serial;
	group->pages += node->nr_sharers;
	for (uint32_t ref = node->sharers; ref; ref = item_at(&engine->items, ref)->sharer.next) {
		struct mm_slot *slot = item_region(&engine->items, ref)->slot;
		group->processes += slot->mark != serial;
		slot->mark = serial;
		if (!*first || is_before(engine, ref, *first))
			*first = ref;
	}
}

static struct lksm_group make_group(struct engine *engine, uint32_t content, uint64_t serial, bool with_digest)
{
	struct lksm_group group = { 0 };
	const uint8_t *bytes = node_at(engine, content_next(engine, content, 0))->bytes;
	uint32_t first = 0;
	for (uint32_t ref = 0; (ref = content_next(engine, content, ref)) != 0;)
		add_node(engine, node_at(engine, ref), serial, &group, &first);
	group.frame = (int64_t)index_frame_id(item_region(&engine->items, first)->slot->index, (uint64_t)group.frame);
	group.first_process = (int64_t)item_region(&engine->items, first)->slot->position;
	group.first_page = page_number(engine, first);
	group.is_zero = page_is_zero(&engine->rules, bytes);
	if (with_digest)
		group.digest = page_digest(&engine->rules, bytes);
	return group;
}

uint64_t report_groups(struct engine *engine, int64_t domain, uint64_t min_pages, bool with_digests,
		       struct lksm_group *groups_ret)
{
	uint64_t nr_groups = 0;
	number_slots(engine);
	for (struct index *index = engine->indexes; index; index = index->next) {
		if (domain >= 0 && index->domain != domain)
			continue;
		for (struct content_walk walk = { 0, 0 }; stable_tree_next(index, &walk);) {
			if (nr_pages_of(engine, walk.content) < min_pages)
				continue;
			groups_ret[nr_groups] = make_group(engine, walk.content, nr_groups + 1, with_digests);
			nr_groups++;
		}
	}
	return nr_groups;
}

/* The frame of this content on the migrate list, or 0: nothing is filed by key there. */
static uint32_t find_migrating(const struct index *index, const uint8_t *bytes)
{
	const struct engine *engine = index->engine;
	uint32_t ref = index->first_migrating;
	while (ref && page_compare(&engine->rules, node_at(engine, ref)->bytes, bytes))
		ref = node_at(engine, ref)->migrating.next;
	return ref;
}

int64_t report_find(struct index *index, const uint8_t *bytes)
{
	struct engine *engine = index->engine;
	struct work unbooked = { 0 }, *booked = engine->rules.work;	/* what looking costs */
	int64_t found = LKSM_ENTRY_ABSENT;
	engine->rules.work = &unbooked;
	for (uint32_t tree = 0; tree < engine->nr_nodes && found < 0; tree++) {
		const struct trees *trees = &index->trees[tree];
		struct look look;
		struct place place;
		index_look(index, bytes, &look);
		uint32_t node = stable_tree_find(index, tree, &look, &place);
		if (node)
			found = frame_of(index, node);
		else if (index_search(index, &trees->unstable, &look, &place) ||
			 index_search(index, &trees->kept, &look, &place))
			found = LKSM_ENTRY_PRIVATE;
	}
	uint32_t migrating = found < 0 ? find_migrating(index, bytes) : 0;
	if (migrating)
		found = frame_of(index, migrating);
	else if (found < 0 && index->zero_pages && page_is_zero(&engine->rules, bytes))
		found = LKSM_ENTRY_ZERO;
	engine->rules.work = booked;
	return found;
}

/* --- sharing matrix -------------------------------------------------------------------------- */

/* Counts the node's pages by process into @counts, and lists those processes. Returns how many. */
static uint64_t count_sharers(struct engine *engine, const struct stable_node *node, int64_t *counts,
			      uint64_t *present)
{
	uint64_t nr_present = 0;
	for (uint32_t ref = node->sharers; ref; ref = item_at(&engine->items, ref)->sharer.next) {
		uint64_t position = item_region(&engine->items, ref)->slot->position;
		if (!counts[position]++)
			present[nr_present++] = position;
	}
	return nr_present;
}

int report_sharing_matrix(struct engine *engine, int64_t *matrix_ret)
{
	uint64_t nr_slots = 0;
	number_slots(engine);
	for (struct index *index = engine->indexes; index; index = index->next)
		nr_slots += index->nr_slots;
	memset(matrix_ret, 0, nr_slots * nr_slots * sizeof(*matrix_ret));
	if (!nr_slots)
		return LKSM_OK;
	size_t size = nr_slots * (sizeof(int64_t) + sizeof(uint64_t));
	int64_t *counts = memory_alloc(&engine->memory, LKSM_FOR_ENGINE, size);
	if (!counts)
		return LKSM_NO_MEMORY;
	uint64_t *present = (uint64_t *)(counts + nr_slots);
	for (struct index *index = engine->indexes; index; index = index->next) {
		for (struct content_walk walk = { 0, 0 }; stable_tree_next(index, &walk);) {
			for (uint32_t ref = 0; (ref = content_next(engine, walk.content, ref)) != 0;) {
				uint64_t nr_present = count_sharers(engine, node_at(engine, ref), counts,
								    present);
				for (uint64_t i = 0; i < nr_present; i++)
					for (uint64_t j = 0; j < nr_present; j++)
						matrix_ret[present[i] * nr_slots + present[j]] +=
							counts[present[i]];
				for (uint64_t i = 0; i < nr_present; i++)
					counts[present[i]] = 0;
			}
		}
	}
	memory_free(&engine->memory, LKSM_FOR_ENGINE, counts, size);
	return LKSM_OK;
}

/* --- counters -------------------------------------------------------------------------------- */

struct tally report_tally(const struct engine *engine, int64_t domain)
{
	struct tally tally = domain < 0 ? engine->gone : (struct tally){ 0 };
	for (const struct index *index = engine->indexes; index; index = index->next)
		if (domain < 0 || index->domain == domain)
			tally_add(&tally, &index->tally);
	return tally;
}

void report_counters(const struct engine *engine, int64_t domain, struct lksm_counters *counters_ret)
{
	struct tally all = report_tally(engine, -1), tally = report_tally(engine, domain);
	struct lksm_counters counters = {
		.merged = tally.merged,
		.broken = tally.broken,
		.pages_scanned = tally.pages_scanned,
		.scan_round = engine->scan_round,
		.crawl_round = engine->crawl_round,
		.nr_gated = engine->nr_gated,
		.nr_begun_slots = engine->nr_begun_slots,
		.nr_scanned_slots = engine->nr_scanned_slots,
		.round_merged = all.merged - engine->round_start.merged,
		.round_broken = all.broken - engine->round_start.broken,
		.round_pages = all.pages_scanned - engine->round_start.pages_scanned,
		.pages_skipped = tally.pages_skipped,
		.bytes_compared = tally.work.bytes_compared,
		.bytes_hashed = tally.work.bytes_hashed,
		.share_data = tally.shares.data,
		.share_bss = tally.shares.bss,
		.share_conflicted = tally.shares.conflicted,
	};
	for (const struct index *index = engine->indexes; index; index = index->next) {
		if (domain >= 0 && index->domain != domain)
			continue;
		counters.pages_shared += index->pages_shared;
		counters.pages_sharing += index->pages_sharing;
		counters.pages_unshared += index->pages_unshared;
		counters.rmap_items += index->rmap_items;
		counters.stable_node_chains += index->nr_chains;
		counters.stable_node_dups += index->nr_dups;
		counters.zero_pages += index->zero_pages;
		counters.zero_saved += index->zero_saved;
		counters.nr_regions += index->filters.nr_filters;
	}
	for (const struct mm_slot *slot = engine->slots; slot; slot = slot->next) {
		if (domain >= 0 && slot->index->domain != domain)
			continue;
		counters.nr_registered += slot->is_registered;
		counters.nr_scannable += slot->pending == LKSM_PENDING_NORMAL;
		counters.nr_frozen += slot->pending == LKSM_PENDING_FROZEN;
	}
	*counters_ret = counters;
}

/* What processes of the index cost, and what it costs itself. */
static void add_index_memory(const struct index *index, uint64_t *bytes)
{
	const struct engine *engine = index->engine;
	bytes[LKSM_FOR_ENGINE] += sizeof(*index) + engine->nr_nodes * sizeof(*index->trees);
	bytes[LKSM_FOR_NODES] += (index->pages_shared + index->nr_chains) * sizeof(struct stable_node);
	bytes[LKSM_FOR_KEYS] += index->deepened.nr_places * sizeof(*index->deepened.keys);
	bytes[LKSM_FOR_PHYSICAL] += index->physical.nr_places * sizeof(*index->physical.refs) +
				    index->zero.nr_places * sizeof(*index->zero.addresses);
	bytes[LKSM_FOR_FILTERS] += filter_map_bytes(&index->filters);
	for (uint32_t i = 0; i < engine->nr_nodes; i++)
		bytes[LKSM_FOR_ROOTS] += forest_bytes(&index->trees[i].stable) + forest_bytes(&index->trees[i].unstable) +
					 forest_bytes(&index->trees[i].kept);
	for (struct content_walk walk = { 0, 0 }; stable_tree_next(index, &walk);) {
		const struct stable_node *filed = node_at(engine, walk.content);
		bool has_copy = filed->kind == NODE_CHAIN ? filed->has_copy : filed->is_owned;
		bytes[LKSM_FOR_FRAMES] += has_copy ? engine->rules.page_size : 0;
	}
	for (const struct mm_slot *slot = engine->slots; slot; slot = slot->next) {
		bytes[LKSM_FOR_PROCESSES] += slot->index == index ? sizeof(*slot) : 0;
		for (uint64_t i = 0; slot->index == index && i < slot->nr_regions; i++) {
			bytes[LKSM_FOR_PROCESSES] += region_bytes(slot->regions[i]) + sizeof(*slot->regions);
			bytes[LKSM_FOR_ITEMS] += region_item_bytes(slot->regions[i]);
		}
	}
}

void report_memory(const struct engine *engine, int64_t domain, uint64_t *bytes_ret)
{
	memset(bytes_ret, 0, sizeof(engine->memory.reserved));
	if (domain < 0)
		memcpy(bytes_ret, engine->memory.reserved, sizeof(engine->memory.reserved));
	for (const struct index *index = engine->indexes; domain >= 0 && index; index = index->next)
		if (index->domain == domain)
			add_index_memory(index, bytes_ret);
}

void report_status(const struct mm_slot *slot, struct lksm_status *status_ret)
{
	struct lksm_status status = {
		.nr_pages = slot->nr_pages,
		.rmap_items = slot->rmap_items,
		.merging_pages = slot->nr_stable,
		.unshared = slot->nr_unstable,
		.nr_merged = slot->nr_merged,
		.nr_scans = slot->nr_scans,
		.elapsed = slot->elapsed,
		.completion = slot->completion,
		.nr_window = slot->engine->merge_window,
		.pending = slot->pending,
		.is_registered = slot->is_registered,
		.is_newcomer = slot->is_newcomer,
		.is_scanned = slot->is_scanned,
		.is_cursor = slot->engine->cursor.slot == slot,
		.is_mergeable = mm_slot_is_mergeable(slot),
	};
	for (uint32_t i = 0; i < status.nr_window; i++)
		status.window[i] = slot->window[(slot->window_index + i) % status.nr_window];
	for (uint64_t i = 0; i < slot->nr_regions; i++) {
		status.nr_mapped += slot->regions[i]->nr_present;
		status.zero_pages += slot->regions[i]->nr_zero;
	}
	*status_ret = status;
}
