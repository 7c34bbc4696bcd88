/*
 * extent.h - which regions lie over the same bytes.
 *
 * Pages at one address are one page, never merged with each other. Looking each page's address up
 * would cost memory and time for nothing in the usual case, so regions whose arrays overlap are
 * found when they are mapped, and only their pages are entered in the physical map.
 */
#ifndef EXTENT_H
#define EXTENT_H

#include "pool.h"
#include "rbtree.h"

/* Files @region and marks it, and those it overlaps, as aliased. False if there is no memory. */
bool extent_add(struct engine *engine, struct region *region);
void extent_remove(struct engine *engine, struct region *region);

#endif
