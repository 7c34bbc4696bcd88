/*
 * filter.c - what was learned of regions that have a key. Kernel: the option LKSM_FILTER. Differs: see
 * docs/kernel-map.md.
 *
 * A filter is a row of bits, one for each page of the largest region that has the key, set when a page
 * at that offset merges. The first 64 are part of the filter; more are allocated when a page behind them
 * merges. A filter that has no bit yet leaves nothing out.
 *
 * Filters are found by key and role in chains of a table that grows with their number.
 */
#include "filter.h"

/* --- the table ------------------------------------------------------------------------------- */

void filter_map_init(struct filter_map *map, struct memory *memory)
{
	*map = (struct filter_map){ .memory = memory };
}

void filter_map_deinit(struct filter_map *map)
{
	assert(!map->nr_filters);
	memory_free(map->memory, LKSM_FOR_FILTERS, map->chains, map->nr_chains * sizeof(*map->chains));
	filter_map_init(map, map->memory);
}

uint64_t filter_map_bytes(const struct filter_map *map)
{
	uint64_t bytes = map->nr_chains * sizeof(*map->chains);
	for (uint64_t i = 0; i < map->nr_chains; i++)
		for (const struct filter *filter = map->chains[i]; filter; filter = filter->next)
			bytes += sizeof(*filter) + (filter->nr_words > 1 ? filter->nr_words * sizeof(*filter->words) : 0);
	return bytes;
}

static struct filter **chain_of(const struct filter_map *map, uint64_t key, enum filter_role role)
{
	uint64_t mixed = (2 * key + role) * 0x9e3779b97f4a7c15u;
	return &map->chains[(mixed >> 32) & (map->nr_chains - 1)];
}

struct filter *filter_find(const struct filter_map *map, uint64_t key, enum filter_role role)
{
	struct filter *filter = map->nr_chains ? *chain_of(map, key, role) : NULL;
	/* untested: the two roles of one key; their chains are 9 or 10 apart */
	while (filter && (filter->key != key || filter->role != role))
		filter = filter->next;
	return filter;
}

static void link_filter(struct filter_map *map, struct filter *filter)
{
	struct filter **chain = chain_of(map, filter->key, filter->role);
	filter->next = *chain;
	*chain = filter;
}

/* Room for one more. A table that cannot grow gets longer chains. */
static bool reserve_place(struct filter_map *map)
{
	if (map->nr_filters < map->nr_chains)
		return true;
	struct filter_map old = *map;
	uint64_t nr_chains = old.nr_chains ? 2 * old.nr_chains : 16;
	struct filter **chains = memory_alloc(map->memory, LKSM_FOR_FILTERS, nr_chains * sizeof(*chains));
	if (!chains)
		return old.nr_chains != 0;
	map->chains = chains;
	map->nr_chains = nr_chains;
	for (uint64_t i = 0; i < old.nr_chains; i++)
		for (struct filter *filter = old.chains[i], *next; filter; filter = next) {
			next = filter->next;
			link_filter(map, filter);
		}
	memory_free(map->memory, LKSM_FOR_FILTERS, old.chains, old.nr_chains * sizeof(*chains));
	return true;
}

/* --- bits ------------------------------------------------------------------------------------ */

static uint64_t nr_words_of(uint64_t nr_pages)
{
	return (nr_pages + 63) / 64;
}

static void free_words(struct filter_map *map, struct filter *filter)
{
	if (filter->words != &filter->first_word)
		memory_free(map->memory, LKSM_FOR_FILTERS, filter->words, filter->nr_words * sizeof(*filter->words));
	filter->words = &filter->first_word;
	filter->nr_words = 1;
}

/* Words as far as @page, and for the largest region met so far. */
static bool reserve_words(struct filter_map *map, struct filter *filter, uint64_t page)
{
	if (page / 64 < filter->nr_words)
		return true;
	uint64_t nr_words = page / 64 + 1 > filter->nr_wanted ? page / 64 + 1 : filter->nr_wanted;
	uint64_t *words = memory_alloc(map->memory, LKSM_FOR_FILTERS, nr_words * sizeof(*words));
	if (!words)
		return false;
	for (uint64_t i = 0; i < filter->nr_words; i++)
		words[i] = filter->words[i];
	free_words(map, filter);
	filter->words = words;
	filter->nr_words = nr_words;
	return true;
}

/* --- filters --------------------------------------------------------------------------------- */

static struct filter *filter_create(struct filter_map *map, const struct region *region, uint64_t key,
				    enum filter_role role)
{
	struct filter *filter = reserve_place(map) ? memory_alloc(map->memory, LKSM_FOR_FILTERS, sizeof(*filter)) : NULL;
	if (!filter)
		return NULL;
	*filter = (struct filter){
		.key = key,
		.role = role,
		.birth = region->slot->engine->crawl_round,
		.words = &filter->first_word,
		.nr_words = 1,
		.nr_wanted = nr_words_of(region->nr_pages),
	};
	link_filter(map, filter);
	map->nr_filters++;
	return filter;
}

static void filter_destroy(struct filter_map *map, struct filter *filter)
{
	struct filter **link = chain_of(map, filter->key, filter->role);
	while (*link != filter)
		link = &(*link)->next;
	*link = filter->next;
	map->nr_filters--;
	free_words(map, filter);
	memory_free(map->memory, LKSM_FOR_FILTERS, filter, sizeof(*filter));
}

static void join(struct region *region, struct filter_map *map, uint64_t key, enum filter_role role)
{
	struct filter *filter = filter_find(map, key, role);
	if (!filter)
		filter = filter_create(map, region, key, role);
	if (filter)
		filter->nr_regions++;
	region->filter = filter;
}

void filter_join(struct region *region, uint64_t key, enum filter_role role)
{
	join(region, &region->slot->index->filters, key, role);
}

void filter_share(struct region *region, const struct region *original)
{
	region->filter = original->filter;
	if (region->filter)
		region->filter->nr_regions++;
}

void filter_leave(struct region *region)
{
	struct filter *filter = region->filter;
	region->filter = NULL;
	if (filter && !--filter->nr_regions)
		filter_destroy(&region->slot->index->filters, filter);
}

void filter_move(struct region *region, struct index *index)
{
	if (!region->filter)
		return;
	uint64_t key = region->filter->key;
	enum filter_role role = region->filter->role;
	filter_leave(region);
	join(region, &index->filters, key, role);
}

void filter_look_at_size(struct region *region)
{
	struct filter *filter = region->filter;
	uint64_t nr_words = nr_words_of(region->nr_pages);
	if (nr_words == 1 || nr_words == filter->nr_wanted || filter_is_conflicted(filter))
		return;
	filter->nr_conflicts++;
	if (filter_is_conflicted(filter)) {
		free_words(&region->slot->index->filters, filter);
		filter->first_word = filter->nr_bits = 0;
		filter->nr_wanted = 1;
	} else if (nr_words > filter->nr_wanted) {
		filter->nr_wanted = nr_words;
	}
}

void filter_learn(struct region *region, uint64_t page)
{
	struct filter *filter = region->filter;
	struct index *index = region->slot->index;

	if (filter_is_conflicted(filter)) {
		filter->nr_merges++;
		index->tally.shares.conflicted++;
		return;
	}
	if (!reserve_words(&index->filters, filter, page))
		return;
	filter->nr_bits += !filter_has(filter, page);
	filter->words[page / 64] |= (uint64_t)1 << page % 64;
	filter->nr_merges++;
	*(filter->role == FILTER_DATA ? &index->tally.shares.data : &index->tally.shares.bss) += 1;
}

bool filter_is_mature(const struct region *region)
{
	const struct filter *filter = region->filter;
	const struct mm_slot *slot = region->slot;
	const struct engine *engine = slot->engine;

	return filter->nr_bits && !engine->is_unfiltered && !slot->is_newcomer && slot->pending != LKSM_PENDING_FROZEN &&
	       engine->scan_round > filter->birth && engine->scan_round - filter->birth > engine->filter_maturity;
}
