/*
 * rbtree.h - an intrusive red-black tree over pool references. Knows nothing of pages.
 *
 * The caller searches; rb_insert() hangs an object where the search ended and restores the balance.
 * Side 0 is smaller, side 1 is greater.
 */
#ifndef RBTREE_H
#define RBTREE_H

#include "pool.h"

static inline struct rb_node *rb_at(const struct pool *pool, uint32_t ref)
{
	return pool_at(pool, ref);
}

/* Hangs @ref on @side of @parent, which must be free; @parent 0 means an empty tree. */
void rb_insert(const struct pool *pool, uint32_t *root, uint32_t ref, uint32_t parent, uint32_t side);
void rb_erase(const struct pool *pool, uint32_t *root, uint32_t ref);
/* Puts @new_ref, which is in no tree, in the place of @old_ref. */
void rb_replace(const struct pool *pool, uint32_t *root, uint32_t old_ref, uint32_t new_ref);
/* The smallest object, or 0. */
uint32_t rb_first(const struct pool *pool, uint32_t root);
/* The next greater object, or 0. */
uint32_t rb_next(const struct pool *pool, uint32_t ref);

#endif
