/*
 * filter.h - at which offsets pages ever merged, for all regions of one key, and which pages a scan may
 * leave out because of it.
 *
 * Regions that are one thing in several processes (a library's data, say) are given one key by the caller.
 * Who is not given one has no filter, and is scanned fully.
 */
#ifndef FILTER_H
#define FILTER_H

#include "region.h"

#define FILTER_MAX_CONFLICTS 2	/* regions of other sizes met: then the key says nothing */

void filter_map_init(struct filter_map *map, struct memory *memory);
/* All filters must be gone. */
void filter_map_deinit(struct filter_map *map);
/* What they cost. */
uint64_t filter_map_bytes(const struct filter_map *map);
/* The filter of @key and @role, or NULL. */
struct filter *filter_find(const struct filter_map *map, uint64_t key, enum filter_role role);

/* Gives the region the filter of its key, made if there is none. Without memory it has none. */
void filter_join(struct region *region, uint64_t key, enum filter_role role);
/* The region of a forked process has its parent's. */
void filter_share(struct region *region, const struct region *original);
/* Its process goes to another domain: the region has the filter that its key has there. */
void filter_move(struct region *region, struct index *index);
/* The region is no longer scanned; a filter goes with its last region. */
void filter_leave(struct region *region);

/* The walk has come to the region, which has a filter: is that one for regions of this size? */
void filter_look_at_size(struct region *region);
/* A page of the region, which has a filter, was merged. Without memory that is not learned. */
void filter_learn(struct region *region, uint64_t page);
/* May the scan leave pages of the region, which has a filter, out now? */
bool filter_is_mature(const struct region *region);

/* Different regions met: it learns no more, and nothing is left out. */
static inline bool filter_is_conflicted(const struct filter *filter)
{
	return filter->nr_conflicts >= FILTER_MAX_CONFLICTS;
}

/* Did a page at this offset ever merge? */
static inline bool filter_has(const struct filter *filter, uint64_t page)
{
	return page / 64 < filter->nr_words && filter->words[page / 64] >> page % 64 & 1;
}

/* The region's filter if it is to be asked now, else NULL: every page is visited. */
static inline const struct filter *filter_in_use(const struct region *region)
{
	return region->filter && filter_is_mature(region) ? region->filter : NULL;
}

/*
 * Is this page of the region left out? Not if it is merged all the same, because that could not be learned:
 * a write to it must be noticed.
 */
static inline bool filter_leaves_out(const struct filter *filter, const struct region *region, uint64_t page)
{
	if (filter_has(filter, page))
		return false;
	uint32_t ref = item_find(region, page);
	return !ref || item_at(&region->slot->engine->items, ref)->state != ITEM_STABLE;
}

#endif
