/*
 * keyset.c - open addressing with linear probing. Keys are hashes already, so their low bits choose
 * the place. 0 marks an empty place; whether key 0 itself is in the set is kept beside.
 */
#include "keyset.h"

void keyset_init(struct keyset *set, struct memory *memory)
{
	*set = (struct keyset){ .memory = memory };
}

void keyset_deinit(struct keyset *set)
{
	table_free(set->memory, LKSM_FOR_KEYS, set->keys, set->nr_places * sizeof(*set->keys));
	keyset_init(set, set->memory);
}

static uint64_t find_place(const uint64_t *keys, uint64_t nr_places, uint64_t key)
{
	uint64_t place = key & (nr_places - 1);
	while (keys[place] && keys[place] != key)
		place = (place + 1) & (nr_places - 1);
	return place;
}

bool keyset_has(const struct keyset *set, uint64_t key)
{
	if (!key)
		return set->has_zero;
	return set->nr_keys && set->keys[find_place(set->keys, set->nr_places, key)];
}

/* At most half full, so that a probe is short. */
static bool grow(struct keyset *set)
{
	uint64_t nr_places = set->nr_places ? set->nr_places * 2 : 16;
	uint64_t *keys = table_alloc(set->memory, LKSM_FOR_KEYS, nr_places * sizeof(*keys));
	if (!keys)
		return false;
	for (uint64_t i = 0; i < set->nr_places; i++)
		if (set->keys[i])
			keys[find_place(keys, nr_places, set->keys[i])] = set->keys[i];
	table_free(set->memory, LKSM_FOR_KEYS, set->keys, set->nr_places * sizeof(*set->keys));
	set->keys = keys;
	set->nr_places = nr_places;
	return true;
}

bool keyset_add(struct keyset *set, uint64_t key)
{
	if (!key) {
		set->has_zero = true;
		return true;
	}
	if (2 * set->nr_keys >= set->nr_places && !grow(set))
		return false;
	uint64_t place = find_place(set->keys, set->nr_places, key);
	set->nr_keys += !set->keys[place];
	set->keys[place] = key;
	return true;
}
