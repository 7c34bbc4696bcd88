/*
 * check.c - the invariants of docs/invariants.md, walked: here processes, the queue and the whole, in check_trees.c
 * what is filed.
 *
 * Every stored count is compared with one made during the walk, every link with the one that answers
 * it. A fault is reported and the walk goes on; loops are bounded by the counts, so that a damaged
 * structure cannot hold it. Bytes that an owner changed are never a fault.
 *
 * Where it says "untested": a condition of several parts has a test that breaks it, not one for each part; and
 * bounds of loops are reached in structures that are damaged in ways nobody has thought of.
 */
#include "check.h"

#include "check_trees.h"
#include "filter.h"
#include "mm_slot.h"
#include "physical.h"
#include "zero.h"

#include <inttypes.h>

/* --- I8 to I11: items, regions, slots ---------------------------------------------------------- */

struct counts {
	uint64_t items, stable, unstable, filed, kept;
	uint64_t zero;			/* pages on the zero frame */
	uint64_t zero_aliased;		/* of these, in regions over the same bytes */
	double zero_addresses;		/* of those: each adds its share */
	double filters;			/* that regions have: each of these adds its share */
};

static void check_item(struct checker *checker, const struct region *region, uint64_t page, struct counts *counts)
{
	struct engine *engine = checker->engine;
	uint32_t ref = item_find(region, page);
	if (!ref)
		return;
	const struct rmap_item *item = item_at(&engine->items, ref);
	counts->items++;
	counts->stable += item->state == ITEM_STABLE;
	counts->unstable += item->state == ITEM_UNSTABLE;
	counts->kept += item->state == ITEM_UNSTABLE && item->is_settled;
	counts->filed += item->state == ITEM_UNSTABLE && !item->is_settled && item->round == engine->scan_round;
	expect(checker, !item->is_settled || region_holds_still(region),
	       "I4 item %u: settled, though its bytes may change", ref);
	/* untested: one part of several */
	expect(checker, !item->is_settled || (item->state != ITEM_VOLATILE && !item->is_private),
	       "I8 item %u: settled, but private or in no tree", ref);
	expect(checker, item->state != ITEM_UNSTABLE || item->round <= engine->scan_round,
	       "I8 item %u: filed in round %" PRIu64 ", this is %" PRIu64, ref, (uint64_t)item->round,
	       engine->scan_round);
	expect(checker, !item->is_private || item->state == ITEM_STABLE, "I8 item %u: private but not stable", ref);
	expect(checker, item->remaining_skips <= SMART_SCAN_MAX_SKIPS && (!item->remaining_skips || item->age > 3),
	       "I8 item %u: %u visits to be skipped at age %u", ref, (unsigned)item->remaining_skips,
	       (unsigned)item->age);
	if (!region->is_aliased)
		return;
	uint32_t first = physical_find(&region->slot->index->physical, item_bytes(&engine->items, ref));
	expect(checker, item->state == ITEM_VOLATILE || first == ref,
	       "I9 item %u: in a tree, but its page belongs to item %u", ref, first);
}

/* I16, I17: one page on the zero frame. */
static void check_zero_page(struct checker *checker, const struct region *region, uint64_t page,
			    struct counts *counts)
{
	struct engine *engine = checker->engine;
	uint32_t ref = item_find(region, page);
	bool is_mergeable = region->flags[page] & PAGE_MERGEABLE;
	counts->zero++;
	expect(checker, is_mergeable, "I16 region at %#" PRIx64 ", page %" PRIu64 ": on the zero frame but not mergeable",
	       region->address, page);
	expect(checker, !ref || item_at(&engine->items, ref)->state == ITEM_VOLATILE,
	       "I16 region at %#" PRIx64 ", page %" PRIu64 ": on the zero frame and in a tree", region->address, page);
	expect(checker,
	       !is_mergeable || !region->is_immutable || page_is_zero(&engine->rules, region_page(region, page)),
	       "I16 region at %#" PRIx64 ", page %" PRIu64 ": on the zero frame, immutable and not zeros",
	       region->address, page);
	/* untested: one part of several */
	if (!region->is_aliased || !is_mergeable)
		return;
	uint64_t nr_here = zero_map_count(&region->slot->index->zero, region_page(region, page));
	counts->zero_aliased++;
	counts->zero_addresses += nr_here ? 1.0 / (double)nr_here : 0;
	expect(checker, nr_here != 0, "I17 region at %#" PRIx64 ", page %" PRIu64 ": its address is not in the zero map",
	       region->address, page);
}

/* I19: a region that has a filter is one that is scanned, and the filter is that of a key of its domain. */
static void check_region_filter(struct checker *checker, const struct region *region, struct counts *counts)
{
	const struct filter *filter = region->filter;
	if (!filter)
		return;
	counts->filters += filter->nr_regions ? 1.0 / (double)filter->nr_regions : 0;
	/* untested: one part of several */
	expect(checker, region->nr_present && !region->is_excluded,
	       "I19 region at %#" PRIx64 ": has a filter though nothing of it is scanned", region->address);
	expect(checker, filter_find(&region->slot->index->filters, filter->key, filter->role) == filter,
	       "I19 region at %#" PRIx64 ": its filter is not found by its key", region->address);
}

static void check_region(struct checker *checker, const struct region *region, uint64_t position,
			 uint64_t first_page, struct counts *counts)
{
	struct engine *engine = checker->engine;
	uint64_t nr_mergeable = 0, nr_present = 0, nr_items = counts->items, nr_zero = counts->zero;

	expect(checker, region->position == position && region->first_page == first_page,
	       "I10 region at %#" PRIx64 ": its position or first page is wrong", region->address);
	for (uint64_t page = 0; page < region->nr_pages; page++) {
		uint8_t flags = region->flags[page];
		bool is_mergeable = flags & PAGE_MERGEABLE;
		nr_mergeable += is_mergeable;
		nr_present += page_is_present(region, page);
		expect(checker, !is_mergeable || (!(flags & (PAGE_OPTED_OUT | PAGE_UNMAPPED)) && !region->is_excluded),
		       "I10 region at %#" PRIx64 ", page %" PRIu64 ": mergeable though it may not be", region->address,
		       page);
		if (region->copies && region->copies[page])
			expect(checker, region->copies[page]->nr_users > 0,
			       "I10 region at %#" PRIx64 ", page %" PRIu64 ": uses a copy nobody uses",
			       region->address, page);
		check_item(checker, region, page, counts);
		if (flags & PAGE_ZERO)
			check_zero_page(checker, region, page, counts);
	}
	expect(checker, nr_mergeable == region->nr_mergeable && nr_present == region->nr_present,
	       "I10 region at %#" PRIx64 ": %" PRIu64 " mergeable and %" PRIu64 " present pages, counts say %" PRIu64
	       " and %" PRIu64, region->address, nr_mergeable, nr_present, region->nr_mergeable, region->nr_present);
	expect(checker, counts->items - nr_items == region->nr_items,
	       "I8 region at %#" PRIx64 ": %" PRIu64 " items, count says %" PRIu64, region->address,
	       counts->items - nr_items, region->nr_items);
	expect(checker, counts->zero - nr_zero == region->nr_zero,
	       "I16 region at %#" PRIx64 ": %" PRIu64 " pages on the zero frame, count says %" PRIu64, region->address,
	       counts->zero - nr_zero, region->nr_zero);
	check_region_filter(checker, region, counts);
	for (uint64_t first = 0; first < region->nr_pages; first += POOL_CHUNK_OBJECTS) {
		uint32_t id = region->blocks[first >> POOL_CHUNK_SHIFT];
		if (!id)
			continue;
		const struct rmap_block *block = pool_header(&engine->items, id << POOL_CHUNK_SHIFT);
		uint64_t nr_found = 0;
		for (uint64_t page = first; page < region->nr_pages && page - first < POOL_CHUNK_OBJECTS; page++)
			nr_found += item_find(region, page) != 0;
		/* untested: one part of several */
		expect(checker, block->region == region && block->first_page == first,
		       "I8 block %u: does not name its region and first page", id);
		/* untested: one part of several */
		expect(checker, nr_found == block->nr_items && nr_found,
		       "I8 block %u: %" PRIu64 " items, count says %u", id, nr_found, block->nr_items);
	}
}

static void check_slot(struct checker *checker, const struct mm_slot *slot, uint64_t position,
		       struct counts *counts)
{
	struct counts before = *counts;
	uint64_t nr_pages = 0, score = 0;

	for (uint64_t i = 0; i < slot->nr_regions; i++) {
		check_region(checker, slot->regions[i], i, nr_pages, counts);
		nr_pages += slot->regions[i]->nr_pages;
	}
	for (uint32_t i = 0; i < LKSM_MAX_WINDOW; i++)
		score += slot->window[i];
	expect(checker, nr_pages == slot->nr_pages, "I10 process %" PRIu64 ": %" PRIu64 " pages, count says %" PRIu64,
	       position, nr_pages, slot->nr_pages);
	expect(checker, counts->items - before.items == slot->rmap_items,
	       "I8 process %" PRIu64 ": %" PRIu64 " items, count says %" PRIu64, position,
	       counts->items - before.items, slot->rmap_items);
	expect(checker,
	       counts->stable - before.stable == slot->nr_stable &&
		       counts->unstable - before.unstable == slot->nr_unstable,
	       "I8 process %" PRIu64 ": %" PRIu64 " stable and %" PRIu64 " unstable items, counts say %" PRIu64
	       " and %" PRIu64,
	       position, counts->stable - before.stable, counts->unstable - before.unstable, slot->nr_stable,
	       slot->nr_unstable);
	expect(checker, score == slot->nr_merged, "I11 process %" PRIu64 ": score %" PRIu64 ", window sums to %" PRIu64,
	       position, slot->nr_merged, score);
	expect(checker, slot->window_index < slot->engine->merge_window,
	       "I11 process %" PRIu64 ": place %u in a window of %u", position, slot->window_index,
	       slot->engine->merge_window);
	expect(checker, slot->pending == LKSM_PENDING_NONE || slot->is_registered,
	       "I11 process %" PRIu64 ": queued but not registered", position);
	expect(checker, !(slot->is_newcomer && slot->is_scanned),
	       "I11 process %" PRIu64 ": newcomer, yet scanned", position);
	expect(checker,
	       slot->completion <= slot->engine->nr_completions &&
		       (slot->completion != 0) == (slot->is_registered && !slot->is_newcomer),
	       "I11 process %" PRIu64 ": completion %" PRIu64 " of %" PRIu64, position, slot->completion,
	       slot->engine->nr_completions);
}

/* A cursor that is on no region is about to leave its process. */
static bool is_cursor_in_its_slot(const struct cursor *cursor)
{
	bool is_in = !cursor->region;
	for (uint64_t i = 0; cursor->slot && i < cursor->slot->nr_regions; i++)
		is_in |= cursor->slot->regions[i] == cursor->region && cursor->page <= cursor->region->nr_pages;
	return is_in;
}

static void check_queue(struct checker *checker)
{
	struct engine *engine = checker->engine;
	const struct mm_slot *previous = NULL;
	uint64_t nr_queued = 0, nr_pending = 0, nr_slots = 0;
	bool has_cursor = !engine->cursor.slot;

	for (const struct mm_slot *slot = engine->slots; slot; slot = slot->next) {
		nr_pending += slot->pending != LKSM_PENDING_NONE;
		nr_slots++;
	}
	/* untested: the bound */
	for (const struct mm_slot *slot = engine->queue; slot && nr_queued <= nr_slots; slot = slot->queue_next) {
		expect(checker, slot->pending != LKSM_PENDING_NONE, "I12 queue: entry %" PRIu64 " waits for nothing",
		       nr_queued);
		expect(checker, slot->queue_previous == previous, "I12 queue: entry %" PRIu64 " has a wrong link back",
		       nr_queued);
		has_cursor |= slot == engine->cursor.slot;
		previous = slot;
		nr_queued++;
	}
	expect(checker, engine->queue_last == previous, "I12 queue: its last entry is not the last");
	expect(checker, nr_queued == nr_pending, "I12 queue: %" PRIu64 " entries, %" PRIu64 " processes wait", nr_queued,
	       nr_pending);
	expect(checker, has_cursor, "I12 cursor: on a process that is not queued");
	expect(checker, is_cursor_in_its_slot(&engine->cursor), "I12 cursor: on no page of its process");
	expect(checker, engine->scan_round <= engine->crawl_round, "I12 round %" PRIu64 " of %" PRIu64,
	       engine->scan_round, engine->crawl_round);
}

/* --- I13, I14: the whole ----------------------------------------------------------------------- */

static void check_physical(struct checker *checker, const struct index *index)
{
	const struct physical_map *map = &index->physical;
	uint64_t nr_items = 0;
	for (uint64_t i = 0; i < map->nr_places; i++) {
		uint32_t ref = map->refs[i];
		if (!ref)
			continue;
		nr_items++;
		/* untested: one part of several */
		expect(checker,
		       item_at(map->items, ref)->state != ITEM_NONE &&
			       physical_find(map, item_bytes(map->items, ref)) == ref,
		       "I9 physical map: item %u is gone or not found by its address", ref);
	}
	expect(checker, nr_items == map->nr_items, "I9 physical map: %" PRIu64 " items, count says %" PRIu64, nr_items,
	       map->nr_items);
}

/* The zero map has the addresses that were met, with the right counts; so much is saved. */
static void check_zero(struct checker *checker, const struct index *index, const struct counts *counts)
{
	const struct zero_map *map = &index->zero;
	uint64_t nr_addresses = 0, nr_pages = 0, nr_alone = counts->zero - counts->zero_aliased;
	for (uint64_t i = 0; i < map->nr_places; i++) {
		const struct zero_address *address = &map->addresses[i];
		if (!address->bytes)
			continue;
		nr_addresses++;
		nr_pages += address->nr_pages;
		expect(checker, zero_map_count(map, address->bytes) == address->nr_pages,
		       "I17 zero map: place %" PRIu64 " is not found by its address", i);
	}
	expect(checker, counts->zero == index->zero_pages, "I16 zero_pages is %" PRIu64 ", recount %" PRIu64,
	       index->zero_pages, counts->zero);
	expect(checker, nr_addresses == map->nr_addresses && nr_addresses == (uint64_t)(counts->zero_addresses + 0.5),
	       "I17 zero map: %" PRIu64 " addresses for %.1f, count says %" PRIu64, nr_addresses,
	       counts->zero_addresses, map->nr_addresses);
	expect(checker, nr_pages == counts->zero_aliased, "I17 zero map: %" PRIu64 " pages, recount %" PRIu64, nr_pages,
	       counts->zero_aliased);
	expect(checker, index->zero_saved == nr_alone + nr_addresses, "I17 zero_saved is %" PRIu64 ", recount %" PRIu64,
	       index->zero_saved, nr_alone + nr_addresses);
}

static void check_filter(struct checker *checker, const struct filter *filter)
{
	const struct engine *engine = checker->engine;
	uint64_t nr_bits = 0;
	for (uint64_t i = 0; i < filter->nr_words; i++)
		nr_bits += (uint64_t)__builtin_popcountll(filter->words[i]);
	expect(checker, nr_bits == filter->nr_bits && nr_bits <= filter->nr_merges,
	       "I19 filter of key %" PRIu64 ": %" PRIu64 " bits, count says %" PRIu64 " of %" PRIu64 " merges", filter->key,
	       nr_bits, filter->nr_bits, filter->nr_merges);
	expect(checker, !nr_bits || !filter_is_conflicted(filter), "I19 filter of key %" PRIu64 ": given up but has bits",
	       filter->key);
	expect(checker, (filter->words == &filter->first_word) == (filter->nr_words == 1),
	       "I19 filter of key %" PRIu64 ": %" PRIu64 " words are not where they belong", filter->key, filter->nr_words);
	expect(checker, filter->birth <= engine->crawl_round,
	       "I19 filter of key %" PRIu64 ": made in round %" PRIu64 " of %" PRIu64, filter->key, filter->birth,
	       engine->crawl_round);
}

/* The filters of a domain are those that its regions have. */
static void check_filters(struct checker *checker, const struct index *index, const struct counts *counts)
{
	const struct filter_map *map = &index->filters;
	uint64_t nr_filters = 0;
	for (uint64_t i = 0; i < map->nr_chains; i++)
		/* untested: the bound */
		for (const struct filter *filter = map->chains[i]; filter && nr_filters <= map->nr_filters;
		     filter = filter->next) {
			nr_filters++;
			check_filter(checker, filter);
		}
	double nr_wrong = counts->filters - (double)nr_filters;
	expect(checker, nr_filters == map->nr_filters && nr_wrong > -1e-6 && nr_wrong < 1e-6,
	       "I19 domain %u: %" PRIu64 " filters for %.1f, count says %" PRIu64, index->domain, nr_filters,
	       counts->filters, map->nr_filters);
}

/* Copies made for forked pages; one with several users is counted once, as their shares add up. */
static void count_copies(struct checker *checker)
{
	for (const struct mm_slot *slot = checker->engine->slots; slot; slot = slot->next)
		for (uint64_t i = 0; i < slot->nr_regions; i++) {
			const struct region *region = slot->regions[i];
			for (uint64_t page = 0; region->copies && page < region->nr_pages; page++)
				/* untested: one part of several */
				if (region->copies[page] && region->copies[page]->nr_users)
					checker->nr_copies += 1.0 / (double)region->copies[page]->nr_users;
		}
}

uint64_t check(struct engine *engine, char *text, size_t size)
{
	struct checker checker = { .engine = engine, .text = text, .room = size };
	struct work unbooked, *booked = engine->rules.work;	/* what checking costs */
	if (size)
		*text = '\0';
	engine->rules.work = &unbooked;
	for (struct index *index = engine->indexes; index; index = index->next) {
		struct counts counts = { 0 };
		uint64_t nr_slots = 0, position = 0;
		check_stable(&checker, index);
		uint64_t nr_filed = 0, nr_kept = 0;
		for (uint32_t tree = 0; tree < engine->nr_nodes; tree++) {
			nr_filed += check_forest(&checker, &index->trees[tree].unstable, "unstable");
			nr_kept += check_forest(&checker, &index->trees[tree].kept, "kept");
		}
		check_physical(&checker, index);
		for (const struct mm_slot *slot = engine->slots; slot; slot = slot->next, position++) {
			if (slot->index != index)
				continue;
			check_slot(&checker, slot, position, &counts);
			nr_slots++;
		}
		check_zero(&checker, index, &counts);
		check_filters(&checker, index, &counts);
		checker.nr_stable += counts.stable;
		expect(&checker, nr_slots == index->nr_slots, "I13 domain %u: %" PRIu64 " processes, count says %" PRIu64,
		       index->domain, nr_slots, index->nr_slots);
		expect(&checker, counts.items == index->rmap_items, "I13 rmap_items is %" PRIu64 ", recount %" PRIu64,
		       index->rmap_items, counts.items);
		expect(&checker, counts.unstable == index->pages_unshared,
		       "I13 pages_unshared is %" PRIu64 ", recount %" PRIu64, index->pages_unshared, counts.unstable);
		expect(&checker, counts.filed == nr_filed,
		       "I13 %" PRIu64 " items carry this round, %" PRIu64 " are in the unstable tree", counts.filed,
		       nr_filed);
		expect(&checker, counts.kept == nr_kept, "I13 %" PRIu64 " items are kept, %" PRIu64 " are in the kept tree",
		       counts.kept, nr_kept);
	}
	expect(&checker, checker.nr_listed == checker.nr_stable,
	       "I13 %" PRIu64 " items are stable, %" PRIu64 " are in lists of nodes", checker.nr_stable,
	       checker.nr_listed);
	check_queue(&checker);
	count_copies(&checker);
	uint64_t reserved = engine->memory.reserved[LKSM_FOR_FRAMES];
	uint64_t nr_bytes = (checker.nr_frames + (uint64_t)(checker.nr_copies + 0.5)) << engine->rules.page_shift;
	expect(&checker, nr_bytes == reserved, "I14 frames: %" PRIu64 " bytes reserved, recount %" PRIu64, reserved,
	       nr_bytes);
	engine->rules.work = booked;
	return checker.nr_faults;
}
