/*
 * physical.h - which item first had the page at an address.
 *
 * Only pages that several mappings may name are entered (region->is_aliased), so memory that is
 * attached once costs nothing here.
 */
#ifndef PHYSICAL_H
#define PHYSICAL_H

#include "pool.h"

void physical_init(struct physical_map *map, struct memory *memory, const struct pool *items,
		   const uint8_t *(*bytes_of)(const struct pool *pool, uint32_t ref));
void physical_deinit(struct physical_map *map);
/* Room for @nr_more items, so that adding them cannot fail. */
bool physical_reserve(struct physical_map *map, uint64_t nr_more);
/* The item whose page is at @bytes, or 0. */
uint32_t physical_find(const struct physical_map *map, const uint8_t *bytes);
/* Adds an item whose page nobody has yet. False if there is no memory. */
bool physical_add(struct physical_map *map, uint32_t ref);
/* Removes @ref if it is the one that has its page. */
void physical_remove(struct physical_map *map, uint32_t ref);

#endif
