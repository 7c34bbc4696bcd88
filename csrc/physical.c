/*
 * physical.c - open addressing with linear probing; an entry is 4 bytes, its address is asked of the
 * item. Removal closes the gap, so there are no tombstones.
 */
#include "physical.h"

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

/* Where the search for an address starts. Addresses differ in their middle bits; spread them. */
static uint64_t home_of(const uint8_t *bytes, uint64_t nr_places)
{
	return (((uint64_t)(uintptr_t)bytes * 0x9e3779b97f4a7c15u) >> 20) & (nr_places - 1);
}

static uint64_t find_place(const struct physical_map *map, const uint8_t *bytes)
{
	uint64_t place = home_of(bytes, map->nr_places);
	while (map->refs[place] && map->bytes_of(map->items, map->refs[place]) != bytes)
		place = (place + 1) & (map->nr_places - 1);
	return place;
}

bool physical_reserve(struct physical_map *map, uint64_t nr_more)
{
	uint64_t nr_places = map->nr_places ? map->nr_places : 16;
	while (3 * nr_places < 4 * (map->nr_items + nr_more))
		nr_places *= 2;
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
	/* An entry that was pushed past the gap moves into it. */
	for (uint64_t place = (gap + 1) & mask; map->refs[place]; place = (place + 1) & mask) {
		uint64_t home = home_of(map->bytes_of(map->items, map->refs[place]), map->nr_places);
		if (((place - home) & mask) >= ((place - gap) & mask)) {
			map->refs[gap] = map->refs[place];
			map->refs[place] = 0;
			gap = place;
		}
	}
}
