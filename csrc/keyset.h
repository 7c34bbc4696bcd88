/*
 * keyset.h - a set of 64-bit keys.
 */
#ifndef KEYSET_H
#define KEYSET_H

#include "pool.h"

void keyset_init(struct keyset *set, struct memory *memory);
void keyset_deinit(struct keyset *set);
bool keyset_has(const struct keyset *set, uint64_t key);
/* False if there is no memory for it. Adding a key twice is adding it once. */
bool keyset_add(struct keyset *set, uint64_t key);

#endif
