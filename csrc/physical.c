/*
 * physical.c - an entry is 4 bytes: the item, which is asked for its address.
 */
#include "physical.h"

#include "probing.h"

void physical_init(struct physical_map *map, struct memory *memory, const struct pool *items,
		   const uint8_t *(*bytes_of)(const struct pool *pool, uint32_t ref))
{
	*map = (struct physical_map){ .memory = memory, .items = items, .bytes_of = bytes_of };
}

void physical_deinit(struct physical_map *map)
{
	table_free(map->memory, LKSM_FOR_PHYSICAL, map->refs, map->nr_places * sizeof(*map->refs));
	physical_init(map, map->memory, map->items, map->bytes_of);
}

static uint64_t find_place(const struct physical_map *map, const uint8_t *bytes)
{
	uint64_t place = probing_home(bytes, map->nr_places);
	while (map->refs[place] && map->bytes_of(map->items, map->refs[place]) != bytes)
		place = (place + 1) & (map->nr_places - 1);
	return place;
}

bool physical_reserve(struct physical_map *map, uint64_t nr_more)
{
	uint64_t nr_places = probing_nr_places(map->nr_places, map->nr_items + nr_more);
	if (nr_places == map->nr_places)
		return true;
	uint32_t *refs = table_alloc(map->memory, LKSM_FOR_PHYSICAL, nr_places * sizeof(*refs));
	if (!refs)
		return false;
	struct physical_map old = *map;
	map->refs = refs;
	map->nr_places = nr_places;
	for (uint64_t i = 0; i < old.nr_places; i++)
		if (old.refs[i])
			map->refs[find_place(map, map->bytes_of(map->items, old.refs[i]))] = old.refs[i];
	table_free(map->memory, LKSM_FOR_PHYSICAL, old.refs, old.nr_places * sizeof(*refs));
	return true;
}

uint32_t physical_find(const struct physical_map *map, const uint8_t *bytes)
{
	return map->nr_items ? map->refs[find_place(map, bytes)] : 0;
}

bool physical_add(struct physical_map *map, uint32_t ref)
{
	if (!physical_reserve(map, 1))
		return false;
	uint64_t place = find_place(map, map->bytes_of(map->items, ref));
	assert(!map->refs[place]);
	map->refs[place] = ref;
	map->nr_items++;
	return true;
}

void physical_remove(struct physical_map *map, uint32_t ref)
{
	if (!map->nr_items)
		return;
	const uint8_t *bytes = map->bytes_of(map->items, ref);
	if (physical_find(map, bytes) != ref)
		return;
	uint64_t mask = map->nr_places - 1;
	uint64_t gap = find_place(map, bytes);
	map->refs[gap] = 0;
	map->nr_items--;
	for (uint64_t place = (gap + 1) & mask; map->refs[place]; place = (place + 1) & mask) {
		if (!probing_closes_gap(map->bytes_of(map->items, map->refs[place]), place, gap, map->nr_places))
			continue;
		map->refs[gap] = map->refs[place];
		map->refs[place] = 0;
		gap = place;
	}
}
