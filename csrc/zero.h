/*
 * zero.h - which pages are on the zero frame, and how many different pages those are.
 *
 * A page goes there if it is all zeros at its visit (spec 3.4.2). It then has neither item nor node, only a
 * flag: each pass looks at it again, and a page that is no longer all zeros is visited as any other.
 */
#ifndef ZERO_H
#define ZERO_H

#include "types.h"

void zero_map_init(struct zero_map *map, struct memory *memory);
void zero_map_deinit(struct zero_map *map);
/* Room for @nr_more addresses, so that adding pages at them cannot fail. */
bool zero_map_reserve(struct zero_map *map, uint64_t nr_more);
/* How many pages at @bytes are on the zero frame. */
uint64_t zero_map_count(const struct zero_map *map, const uint8_t *bytes);

/* Is the page all zeros? Books what it looked at. */
bool zero_is_true(struct engine *engine, const uint8_t *bytes);
/* Puts a mergeable page there. False if there is no memory to remember its address. */
bool zero_add(struct region *region, uint64_t page);
/* Takes the page off, if it is there. */
void zero_remove(struct region *region, uint64_t page);
/* The same for all pages of the region. */
void zero_remove_all(struct region *region);
/* Is the page there, and still all zeros? If it is not, it is taken off. */
bool zero_is_kept(struct region *region, uint64_t page);
/* Is another page at its address there, and are the bytes still all zeros? */
bool zero_is_elsewhere(const struct region *region, uint64_t page);
/* The region's pages may lie at the addresses of others from now on. False if there is no memory. */
bool zero_mark_aliased(struct region *region);

#endif
