/*
 * probing.h - open addressing by addresses, with linear probing: where a search for one starts, how many places so
 * many take, and what may move into a gap, so that removal leaves no tombstones.
 */
#ifndef PROBING_H
#define PROBING_H

#include <stdbool.h>
#include <stdint.h>

/* Addresses differ in their middle bits; spread them. */
static inline uint64_t probing_home(const uint8_t *bytes, uint64_t nr_places)
{
	return (((uint64_t)(uintptr_t)bytes * 0x9e3779b97f4a7c15u) >> 20) & (nr_places - 1);
}

/* Places for so many entries, at least as many as there are: a power of two, at most three quarters full. */
static inline uint64_t probing_nr_places(uint64_t nr_places, uint64_t nr_entries)
{
	nr_places = nr_places ? nr_places : 16;
	while (3 * nr_places < 4 * nr_entries)
		nr_places *= 2;
	return nr_places;
}

/* Was the entry at @place, whose address is @bytes, pushed past the gap? Then it moves into it. */
static inline bool probing_closes_gap(const uint8_t *bytes, uint64_t place, uint64_t gap, uint64_t nr_places)
{
	uint64_t mask = nr_places - 1;
	return ((place - probing_home(bytes, nr_places)) & mask) >= ((place - gap) & mask);
}

#endif
