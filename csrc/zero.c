/*
 * zero.c - the zero frame. Kernel: the knob use_zero_pages and the counter ksm_zero_pages. Differs: counts
 * what is saved, not only what is mapped.
 *
 * Two pages at one address are one page: both are on the zero frame, and both are counted in zero_pages as
 * in the kernel, but only one page is saved. Pages of regions that nobody else maps need no book-keeping for
 * that. For the others the zero map has the address, and how many pages there are on the zero frame.
 */
#include "zero.h"

#include "probing.h"
#include "region.h"

/* --- the zero map ---------------------------------------------------------------------------- */

void zero_map_init(struct zero_map *map, struct memory *memory)
{
	*map = (struct zero_map){ .memory = memory };
}

void zero_map_deinit(struct zero_map *map)
{
	table_free(map->memory, LKSM_FOR_PHYSICAL, map->addresses, map->nr_places * sizeof(*map->addresses));
	zero_map_init(map, map->memory);
}

static struct zero_address *find_place(const struct zero_map *map, const uint8_t *bytes)
{
	uint64_t place = probing_home(bytes, map->nr_places);
	while (map->addresses[place].bytes && map->addresses[place].bytes != bytes)
		place = (place + 1) & (map->nr_places - 1);
	return &map->addresses[place];
}

bool zero_map_reserve(struct zero_map *map, uint64_t nr_more)
{
	uint64_t nr_places = probing_nr_places(map->nr_places, map->nr_addresses + nr_more);
	if (nr_places == map->nr_places || !nr_more)
		return true;
	struct zero_map old = *map;
	struct zero_address *addresses = table_alloc(map->memory, LKSM_FOR_PHYSICAL, nr_places * sizeof(*addresses));
	if (!addresses)
		return false;
	map->addresses = addresses;
	map->nr_places = nr_places;
	for (uint64_t i = 0; i < old.nr_places; i++)
		if (old.addresses[i].bytes)
			*find_place(map, old.addresses[i].bytes) = old.addresses[i];
	table_free(map->memory, LKSM_FOR_PHYSICAL, old.addresses, old.nr_places * sizeof(*addresses));
	return true;
}

uint64_t zero_map_count(const struct zero_map *map, const uint8_t *bytes)
{
	return map->nr_addresses ? find_place(map, bytes)->nr_pages : 0;
}

/* One more page at @bytes; there is room. Is it the first? */
static bool zero_map_add(struct zero_map *map, const uint8_t *bytes)
{
	struct zero_address *address = find_place(map, bytes);
	bool is_first = !address->bytes;
	address->bytes = bytes;
	address->nr_pages++;
	map->nr_addresses += is_first;
	return is_first;
}

/* One page less at @bytes. Was it the last? */
static bool zero_map_remove(struct zero_map *map, const uint8_t *bytes)
{
	struct zero_address *gap = find_place(map, bytes);
	assert(gap->nr_pages);
	if (--gap->nr_pages)
		return false;
	gap->bytes = NULL;
	map->nr_addresses--;
	uint64_t mask = map->nr_places - 1, hole = (uint64_t)(gap - map->addresses);
	for (uint64_t place = (hole + 1) & mask; map->addresses[place].bytes; place = (place + 1) & mask) {
		if (!probing_closes_gap(map->addresses[place].bytes, place, hole, map->nr_places))
			continue;
		map->addresses[hole] = map->addresses[place];
		map->addresses[place] = (struct zero_address){ 0 };
		hole = place;
	}
	return true;
}

/* --- pages ----------------------------------------------------------------------------------- */

bool zero_is_true(struct engine *engine, const uint8_t *bytes)
{
	const struct page_rules *rules = &engine->rules;
	bool is_zero = page_is_zero(rules, bytes);
	rules->work->bytes_compared += is_zero ? rules->page_size : page_zero_bytes(rules, bytes) + 1;
	return is_zero;
}

bool zero_add(struct region *region, uint64_t page)
{
	struct index *index = region->slot->index;
	assert((region->flags[page] & (PAGE_MERGEABLE | PAGE_ZERO)) == PAGE_MERGEABLE);
	if (!region->is_aliased)
		index->zero_saved++;
	else if (zero_map_count(&index->zero, region_page(region, page)) || zero_map_reserve(&index->zero, 1))
		index->zero_saved += zero_map_add(&index->zero, region_page(region, page));
	else
		return false;
	region->flags[page] |= PAGE_ZERO;
	region->nr_zero++;
	index->zero_pages++;
	return true;
}

void zero_remove(struct region *region, uint64_t page)
{
	struct index *index = region->slot->index;
	if (!(region->flags[page] & PAGE_ZERO))
		return;
	region->flags[page] &= (uint8_t)~PAGE_ZERO;
	region->nr_zero--;
	index->zero_pages--;
	if (!region->is_aliased)
		index->zero_saved--;
	else if (index->zero.nr_addresses)	/* untested: none, when the engine goes and nobody asks where a page is */
		index->zero_saved -= zero_map_remove(&index->zero, region_page(region, page));
}

void zero_remove_all(struct region *region)
{
	/* untested: nr_zero says that there is one more, so the pages do not end first */
	for (uint64_t page = 0; region->nr_zero && page < region->nr_pages; page++)
		zero_remove(region, page);
}

bool zero_is_kept(struct region *region, uint64_t page)
{
	if (!(region->flags[page] & PAGE_ZERO))
		return false;
	if (region_holds_still(region) || zero_is_true(region->slot->engine, region_page(region, page)))
		return true;
	zero_remove(region, page);
	return false;
}

bool zero_is_elsewhere(const struct region *region, uint64_t page)
{
	return region->is_aliased && zero_map_count(&region->slot->index->zero, region_page(region, page)) &&
	       zero_is_true(region->slot->engine, region_page(region, page));
}

bool zero_mark_aliased(struct region *region)
{
	struct zero_map *map = &region->slot->index->zero;
	if (!zero_map_reserve(map, region->nr_zero))
		return false;
	/* Nobody else has had these pages so far, so each was counted as saved and is the first at its address. */
	for (uint64_t page = 0; region->nr_zero && page < region->nr_pages; page++)
		if (region->flags[page] & PAGE_ZERO)
			zero_map_add(map, region_page(region, page));
	return true;
}
