/*
 * extent.h - which regions of a domain lie over the same bytes.
 *
 * Pages at one address are one page, never merged with each other. Looking each page's address up
 * would cost memory and time for nothing in the usual case, so regions whose arrays overlap are
 * found when they are mapped, and only their pages are entered in the physical map.
 */
#ifndef EXTENT_H
#define EXTENT_H

#include "pool.h"
#include "rbtree.h"

/* Walks the regions of a domain that may lie over bytes of @region's array: start with NULL, ends with NULL. */
struct region *extent_next_overlap(const struct index *index, const struct region *region,
				   const struct region *previous);
/* Files @region in its domain, and marks it as aliased if it overlaps others. False if there is no memory. */
bool extent_add(struct region *region);
void extent_remove(struct region *region);

#endif
