/*
 * forest.h - an array of red-black trees that together order objects by (key, page bytes).
 *
 * The key's high bits choose the tree, so the roots in sequence are one long order. With one root it is
 * the kernel's tree. Keys say "different"; only a byte compare says "equal".
 */
#ifndef FOREST_H
#define FOREST_H

#include "page.h"
#include "rbtree.h"

enum forest_result {
	FOREST_ABSENT,		/* no object has these bytes; the place is where one would be filed */
	FOREST_FOUND,		/* this object has */
	FOREST_COLLISION	/* an object with other bytes has the same sample key: deepen the class */
};

void forest_init(struct forest *forest, struct memory *memory, const struct pool *pool,
		 const uint8_t *(*bytes_of)(const struct pool *pool, uint32_t ref));
/* Drops all objects at once, and then has roots for @nr_expected, or fewer if memory is short. */
void forest_reset(struct forest *forest, uint64_t nr_expected);
void forest_deinit(struct forest *forest);

enum forest_result forest_search(const struct forest *forest, const struct page_rules *rules,
				 const struct look *look, struct place *place_ret, uint32_t *ref_ret);
/* Files @ref, whose key must be set, where a search for that key and its bytes ended. */
void forest_insert(struct forest *forest, uint32_t ref, const struct place *place);
/* The same for one that no search has been made for. The forest does not grow by it. */
void forest_file(struct forest *forest, const struct page_rules *rules, uint32_t ref);
void forest_remove(struct forest *forest, uint32_t ref);
/* @new_ref, with the same key and bytes, takes the place of @old_ref. */
void forest_replace(struct forest *forest, uint32_t old_ref, uint32_t new_ref);
/* Takes out and files again, under the key of their whole page, the objects of a deepened class. */
void forest_deepen(struct forest *forest, const struct page_rules *rules, uint64_t sample);

/* Hints that pages with this key will be searched for: the root first, when that is here its object. */
void forest_prefetch_root(const struct forest *forest, uint64_t key);
void forest_prefetch_object(const struct forest *forest, uint64_t key);
/* An object filed under @key, or 0, and its page, or NULL. Says nothing about its bytes. */
uint32_t forest_peek(const struct forest *forest, uint64_t key);
const uint8_t *forest_peek_page(const struct forest *forest, uint64_t key);

/* Is @ref, which is filed in this forest or in another one of its kind, filed here? Climbs to its root. */
bool forest_holds(const struct forest *forest, uint32_t ref);

/* The roots in order, by number, while it grows too; and the number of the one that has a key. */
uint64_t forest_nr_roots(const struct forest *forest);
uint32_t forest_root(const struct forest *forest, uint64_t number);
uint64_t forest_root_number(const struct forest *forest, uint64_t key);
/* What its roots take. */
uint64_t forest_bytes(const struct forest *forest);

/* Walks all objects in order: start with 0, ends with 0. */
uint32_t forest_next(const struct forest *forest, uint32_t ref);

static inline uint64_t *forest_key(const struct pool *pool, uint32_t ref)
{
	return (uint64_t *)((char *)pool_at(pool, ref) + KEY_OFFSET);
}

#endif
