/*
 * preview.c - pages are taken in chunks by whichever thread comes next. A chunk is walked in steps, each of which finds
 * what the one before asked the memory for.
 */
#include "preview.h"

#include "chain.h"
#include "filter.h"
#include "index.h"
#include "smart_scan.h"
#include "zero.h"

#define CHUNK 32	/* pages that a thread takes at a time */
#define SAMPLES_AHEAD 8	/* pages whose sampled lines are asked for early; see ahead.c for why no more */

static uint64_t nr_slots_for(uint64_t nr_pages)
{
	uint64_t nr_slots = 1;
	while (nr_slots < 2 * nr_pages)
		nr_slots *= 2;
	return nr_slots;
}

size_t preview_size(uint64_t nr_pages)
{
	return sizeof(struct preview) + nr_pages * sizeof(struct foreseen) + nr_slots_for(nr_pages) * sizeof(uint32_t);
}

void preview_init(struct preview *preview, uint64_t nr_pages)
{
	*preview = (struct preview){ .capacity = nr_pages, .nr_slots = nr_slots_for(nr_pages) };
	preview->slots = (_Atomic uint32_t *)(preview->pages + nr_pages);
}

/* --- collect ----------------------------------------------------------------------------------- */

/* Notes what can be found out about the page, which will be visited, by its item. */
static void note(struct foreseen *foreseen, const struct region *region, uint64_t page, const struct rmap_item *item)
{
	static const struct rmap_item unknown;
	bool is_frozen = region->slot->pending == LKSM_PENDING_FROZEN;

	foreseen->bypasses_gate = is_frozen && (!item || item->state == ITEM_UNSTABLE);
	if (!item)
		item = &unknown;
	if (item->is_settled || item->is_alias)
		return;
	foreseen->is_merged = item->state == ITEM_STABLE;
	if (foreseen->is_merged && (region->is_immutable || item->is_private))
		return;
	foreseen->bytes = region_page(region, page);
	foreseen->has_key = item->has_key;
	foreseen->key = item->has_key ? item->key : 0;
	foreseen->checksum = item->checksum;
}

/* A stretch of the region from @page on. Returns the page after it. */
static uint64_t collect_run(const struct engine *engine, struct preview *preview, const struct region *region,
			    uint64_t page)
{
	const struct filter *filter = filter_in_use(region);
	struct preview_run *run = &preview->runs[preview->nr_runs++];

	*run = (struct preview_run){ .region = region, .first_page = page, .first = preview->nr_pages };
	for (; page < region->nr_pages && preview->nr_pages < preview->capacity; page++) {
		struct foreseen *foreseen = &preview->pages[preview->nr_pages++];
		*foreseen = (struct foreseen){ 0 };
		if ((region->flags[page] & (PAGE_MERGEABLE | PAGE_ZERO)) != PAGE_MERGEABLE ||
		    (filter && !filter_has(filter, page)))
			continue;
		uint32_t ref = item_find(region, page);
		const struct rmap_item *item = ref ? item_at(&engine->items, ref) : NULL;
		if (item && item->state != ITEM_STABLE && engine->smart_scan && smart_scan_will_skip(item))
			continue;
		preview->nr_visits++;
		note(foreseen, region, page, item);
		preview->nr_looks += foreseen->bytes != NULL;
	}
	run->nr_pages = preview->nr_pages - run->first;
	return page;
}

uint64_t preview_collect(const struct engine *engine, struct preview *preview, const struct preview *after)
{
	struct cursor at = after ? after->end : engine->cursor;

	preview->engine = engine;
	preview->before = after;
	preview->nr_pages = preview->nr_runs = 0;
	preview->nr_visits = preview->nr_looks = 0;
	atomic_store(&preview->nr_found, 0);
	atomic_store(&preview->next_key, 0);
	atomic_store(&preview->next_twin, 0);
	atomic_store(&preview->next_compare, 0);
	memset(preview->slots, 0, preview->nr_slots * sizeof(*preview->slots));
	while (at.slot && preview->nr_pages < preview->capacity && preview->nr_runs < PREVIEW_RUNS) {
		const struct region *region = at.region;
		if (!region) {
			at.slot = at.slot->queue_next;
			at.region = at.slot && at.slot->nr_regions ? at.slot->regions[0] : NULL;
			at.page = 0;
			continue;
		}
		if (region->nr_mergeable && at.page < region->nr_pages)
			at.page = collect_run(engine, preview, region, at.page);
		if (region->nr_mergeable && at.page < region->nr_pages)
			break;
		uint64_t next = region->position + 1;
		at.region = next < at.slot->nr_regions ? at.slot->regions[next] : NULL;
		at.page = 0;
	}
	preview->end = at;
	return preview->nr_visits;
}

const struct preview_run *preview_run(const struct preview *preview, const struct region *region)
{
	for (uint32_t i = 0; i < preview->nr_runs; i++)
		if (preview->runs[i].region == region)
			return &preview->runs[i];
	return NULL;
}

/* --- keys -------------------------------------------------------------------------------------- */

/* Takes the next chunk: its first page, or nr_pages if none is left. */
static uint64_t take_chunk(const struct preview *preview, _Atomic uint64_t *next)
{
	uint64_t first = atomic_fetch_add(next, CHUNK);
	return first < preview->nr_pages ? first : preview->nr_pages;
}

static uint64_t end_of_chunk(const struct preview *preview, uint64_t first)
{
	return first + CHUNK < preview->nr_pages ? first + CHUNK : preview->nr_pages;
}

static bool wants_sample(const struct preview *preview, uint64_t i)
{
	const struct foreseen *foreseen = &preview->pages[i];
	return foreseen->bytes && !foreseen->has_key && !foreseen->is_merged;
}

/*
 * Enters the page under its key, unless an earlier one is there. Others do the same at the same time: who loses the race
 * for a place looks again at what is there. Places are never emptied, and only ever change to an earlier page.
 */
static void enter(struct preview *preview, uint64_t i)
{
	uint64_t mask = preview->nr_slots - 1, key = preview->pages[i].key;
	for (uint64_t at = key & mask;; at = (at + 1) & mask) {
		uint32_t seen = atomic_load(&preview->slots[at]);
		while (!seen || preview->pages[seen - 1].key == key) {
			if (seen && seen <= i + 1)
				return;
			if (atomic_compare_exchange_weak(&preview->slots[at], &seen, (uint32_t)i + 1))
				return;
		}
	}
}

/* The first page of the preview that has the key. */
static const struct foreseen *first_with_key(const struct preview *preview, uint64_t key)
{
	uint64_t mask = preview->nr_slots - 1;
	uint64_t at = key & mask;
	uint32_t seen;
	while ((seen = atomic_load(&preview->slots[at])) != 0) {
		if (preview->pages[seen - 1].key == key)
			return &preview->pages[seen - 1];
		at = (at + 1) & mask;
	}
	return NULL;
}

void preview_keys(struct preview *preview)
{
	uint64_t first;

	while ((first = take_chunk(preview, &preview->next_key)) < preview->nr_pages) {
		const struct page_rules *rules = &preview->engine->rules;
		uint64_t end = end_of_chunk(preview, first);
		for (uint64_t i = first; i < end && i < first + SAMPLES_AHEAD; i++)
			if (wants_sample(preview, i))
				page_prefetch_sample(rules, preview->pages[i].bytes);
		for (uint64_t i = first; i < end; i++) {
			struct foreseen *foreseen = &preview->pages[i];
			if (i + SAMPLES_AHEAD < end && wants_sample(preview, i + SAMPLES_AHEAD))
				page_prefetch_sample(rules, preview->pages[i + SAMPLES_AHEAD].bytes);
			if (!foreseen->bytes || foreseen->is_merged)
				continue;
			if (!foreseen->has_key)
				foreseen->key = page_take_sample(rules, foreseen->bytes);
			enter(preview, i);
		}
	}
}

/* --- twins --------------------------------------------------------------------------------------- */

static void compare_ahead(const struct page_rules *rules, struct foreseen *foreseen)
{
	int order = memcmp(foreseen->bytes, foreseen->other, rules->page_size);
	foreseen->order = (int8_t)((order > 0) - (order < 0));
	foreseen->nr_compared = (uint32_t)(order ? page_difference(rules, foreseen->bytes, foreseen->other)
						 : rules->page_size);
	foreseen->is_compared = true;
}

static const struct trees *trees_of(const struct region *region)
{
	const struct index *index = region->slot->index;
	return &index->trees[index_tree(index, region->node)];	/* of pages that were not moved */
}

/* A page whose class has been deepened is filed under the hash of its bytes, which is not known yet. */
static bool is_deepened(const struct engine *engine, const struct region *region, const struct foreseen *foreseen)
{
	return !foreseen->has_key && !engine->rules.is_sample_whole &&
	       keyset_has(&region->slot->index->deepened, foreseen->key);
}

/* Will the visit come to a gate? Before the stable tree, or behind it. */
static bool meets_gate(const struct engine *engine, const struct region *region, const struct foreseen *foreseen)
{
	bool is_late = engine->scan_round < engine->initial_rounds && !foreseen->bypasses_gate;
	return (engine->gate_first || is_late) && !(foreseen->checksum && region->is_immutable);
}

/* A frame that a visit might free. */
static bool may_go(const struct stable_node *node)
{
	return node->kind == NODE_CHAIN || node->is_owned;
}

/* It will be compared with a merged content, or with its own frame: @ref in @forest, or 0 if that is not filed. */
static void note_node(const struct engine *engine, struct foreseen *foreseen, const struct forest *forest, uint32_t ref,
		      const struct stable_node *node)
{
	foreseen->is_node = true;
	foreseen->forest = forest;
	foreseen->ref = ref;
	foreseen->other = node->kind == NODE_CHAIN ? node_at(engine, node->first_dup)->bytes : node->bytes;
	if (may_go(node))
		compare_ahead(&engine->rules, foreseen);	/* now: pages are visited before the step of compares */
}

/* A page that was merged will be compared with its frame, if it is still. */
static void find_frame(const struct engine *engine, const struct region *region, uint64_t page,
		       struct foreseen *foreseen)
{
	uint32_t ref = item_find(region, page);
	const struct rmap_item *item = ref ? item_at(&engine->items, ref) : NULL;
	if (item && item->state == ITEM_STABLE)
		note_node(engine, foreseen, NULL, 0, node_at(engine, item->sharer.node));
}

/*
 * What the page will be compared with, as it seems now: in the order in which a visit goes through the trees. A page
 * that comes to a gate for the first time will not pass it.
 */
static void find_twin(const struct preview *preview, const struct region *region, const struct trees *trees,
		      struct foreseen *foreseen)
{
	const struct engine *engine = preview->engine;
	bool is_gated = meets_gate(engine, region, foreseen);
	uint64_t key = foreseen->key;

	foreseen->is_deep = is_deepened(engine, region, foreseen);
	foreseen->wants_hash = foreseen->is_deep || (engine->gate_first && is_gated);
	if (foreseen->is_deep || (engine->gate_first && is_gated && !foreseen->checksum))
		return;
	uint32_t ref = forest_peek(&trees->stable, key);
	if (ref) {
		note_node(engine, foreseen, &trees->stable, ref, node_at(engine, ref));
		return;
	}
	foreseen->wants_hash |= is_gated;
	if (is_gated && !foreseen->checksum)
		return;
	foreseen->other = forest_peek_page(&trees->kept, key);
	if (!foreseen->other)
		foreseen->other = forest_peek_page(&trees->unstable, key);
	if (foreseen->other)
		return;
	const struct foreseen *first = preview->before ? first_with_key(preview->before, key) : NULL;
	if (!first)
		first = first_with_key(preview, key);
	if (first && first != foreseen)
		foreseen->other = first->bytes;
}

static bool wants_twin(const struct foreseen *foreseen)
{
	return foreseen->bytes && !foreseen->is_merged;
}

/* Will it be compared at once, it seems? */
static bool wants_compare_now(const struct engine *engine, const struct trees *trees, const struct foreseen *foreseen)
{
	uint32_t ref = wants_twin(foreseen) ? forest_peek(&trees->stable, foreseen->key) : 0;
	return ref && may_go(node_at(engine, ref));
}

/* Pages from @first on, of one run. */
static void find_twins(struct preview *preview, const struct preview_run *run, uint64_t first, uint64_t end)
{
	const struct engine *engine = preview->engine;
	const struct region *region = run->region;
	const struct trees *trees = trees_of(region);
	struct foreseen *pages = preview->pages;

	for (uint64_t i = first; i < end; i++) {
		if (!wants_twin(&pages[i]))
			continue;
		forest_prefetch_root(&trees->stable, pages[i].key);
		forest_prefetch_root(&trees->kept, pages[i].key);
		forest_prefetch_root(&trees->unstable, pages[i].key);
	}
	for (uint64_t i = first; i < end; i++) {
		if (!wants_twin(&pages[i]))
			continue;
		forest_prefetch_object(&trees->stable, pages[i].key);
		forest_prefetch_object(&trees->kept, pages[i].key);
		forest_prefetch_object(&trees->unstable, pages[i].key);
	}
	uint64_t nr_found = 0;
	for (uint64_t i = first; i < end; i++) {
		if (i + 1 < end && wants_compare_now(engine, trees, &pages[i + 1]))
			page_prefetch(&engine->rules, pages[i + 1].bytes);
		if (wants_twin(&pages[i]))
			find_twin(preview, region, trees, &pages[i]);
		else if (pages[i].bytes)
			find_frame(engine, region, run->first_page + i - run->first, &pages[i]);
		nr_found += pages[i].other || pages[i].wants_hash;
	}
	atomic_fetch_add(&preview->nr_found, nr_found);
}

void preview_twins(struct preview *preview)
{
	uint64_t first;

	if (!preview->nr_pages)	/* nothing was ever noted, perhaps */
		return;
	atomic_store(&preview->nr_gone, preview->engine->nr_gone);
	while ((first = take_chunk(preview, &preview->next_twin)) < preview->nr_pages) {
		uint64_t end = end_of_chunk(preview, first);
		for (uint32_t i = 0; i < preview->nr_runs; i++) {
			const struct preview_run *run = &preview->runs[i];
			uint64_t from = run->first > first ? run->first : first;
			uint64_t to = run->first + run->nr_pages < end ? run->first + run->nr_pages : end;
			if (from < to)
				find_twins(preview, run, from, to);
		}
	}
}

/* --- compares ------------------------------------------------------------------------------------ */

static void take_hash(const struct page_rules *rules, struct foreseen *foreseen)
{
	foreseen->hash = page_take_hash(rules, foreseen->bytes);
	foreseen->has_hash = true;
}

static bool wants_compare(const struct foreseen *foreseen)
{
	return foreseen->other && !foreseen->is_compared;
}

static void ask_for_bytes(const struct page_rules *rules, const struct foreseen *foreseen)
{
	if (wants_compare(foreseen) || foreseen->wants_hash)
		page_prefetch(rules, foreseen->bytes);
	if (wants_compare(foreseen))
		page_prefetch(rules, foreseen->other);
}

void preview_compares(struct preview *preview)
{
	uint64_t first;

	while ((first = take_chunk(preview, &preview->next_compare)) < preview->nr_pages) {
		const struct page_rules *rules = &preview->engine->rules;
		uint64_t end = end_of_chunk(preview, first);
		for (uint64_t i = first; i < end; i++) {
			if (i + 1 < end)
				ask_for_bytes(rules, &preview->pages[i + 1]);
			if (wants_compare(&preview->pages[i]))
				compare_ahead(rules, &preview->pages[i]);
			if (preview->pages[i].wants_hash)
				take_hash(rules, &preview->pages[i]);
		}
	}
}
