/*
 * extent.c - disjoint byte ranges in a tree by address, each with the list of regions in it. A region
 * that touches several extents joins them into one. Extents never split again: a region that has been
 * marked stays marked, which costs memory but is never wrong.
 */
#include "extent.h"

static struct extent *extent_at(struct engine *engine, uint32_t ref)
{
	return pool_at(&engine->extents, ref);
}

static void link_region(struct extent *extent, struct region *region)
{
	region->extent = extent;
	region->previous_in_extent = NULL;
	region->next_in_extent = extent->regions;
	if (extent->regions)
		extent->regions->previous_in_extent = region;
	extent->regions = region;
}

static void unlink_region(struct region *region)
{
	if (region->previous_in_extent)
		region->previous_in_extent->next_in_extent = region->next_in_extent;
	else
		region->extent->regions = region->next_in_extent;
	if (region->next_in_extent)
		region->next_in_extent->previous_in_extent = region->previous_in_extent;
}

/* The lowest extent that ends after @start, or 0. */
static uint32_t first_after(const struct index *index, uint64_t start)
{
	struct engine *engine = index->engine;
	uint32_t found = 0;
	for (uint32_t ref = index->extent_root; ref;) {
		bool is_after = extent_at(engine, ref)->end > start;
		if (is_after)
			found = ref;
		ref = rb_at(&engine->extents, ref)->child[!is_after];
	}
	return found;
}

static void insert(struct index *index, struct extent *extent)
{
	struct engine *engine = index->engine;
	uint32_t parent = 0, side = 0;
	for (uint32_t ref = index->extent_root; ref; ref = rb_at(&engine->extents, ref)->child[side]) {
		parent = ref;
		side = extent->start > extent_at(engine, ref)->start;
	}
	rb_insert(&engine->extents, &index->extent_root, extent->ref, parent, side);
}

static void destroy(struct index *index, struct extent *extent)
{
	rb_erase(&index->engine->extents, &index->extent_root, extent->ref);
	pool_destroy(&index->engine->extents, extent->ref);
}

/* Moves all regions of @from into @into, which grows over it. */
static void join(struct index *index, struct extent *into, struct extent *from)
{
	while (from->regions) {
		struct region *region = from->regions;
		unlink_region(region);
		link_region(into, region);
	}
	if (from->end > into->end)	/* untested: joined in their order, the later one always ends later */
		into->end = from->end;
	destroy(index, from);
}

/* The first region of an extent that begins before @end, or NULL. */
static struct region *first_region(struct engine *engine, uint32_t ref, uint64_t end)
{
	return ref && extent_at(engine, ref)->start < end ? extent_at(engine, ref)->regions : NULL;
}

struct region *extent_next_overlap(const struct index *index, const struct region *region,
				   const struct region *previous)
{
	struct engine *engine = index->engine;
	uint64_t start = (uint64_t)(uintptr_t)region->pages;
	uint64_t end = start + (region->nr_array_pages << region->page_shift);

	if (!region->nr_array_pages)
		return NULL;
	if (!previous)
		return first_region(engine, first_after(index, start), end);
	if (previous->next_in_extent)
		return previous->next_in_extent;
	return first_region(engine, rb_next(&engine->extents, previous->extent->ref), end);
}

bool extent_add(struct region *region)
{
	struct index *index = region->slot->index;
	struct engine *engine = index->engine;
	uint64_t start = (uint64_t)(uintptr_t)region->pages;
	uint64_t end = start + (region->nr_array_pages << region->page_shift);
	uint32_t first = first_after(index, start);

	if (start == end)
		return true;	/* all rows are absent: an extent without bytes would have no place in the order */

	if (!first || extent_at(engine, first)->start >= end) {
		uint32_t ref = pool_create(&engine->extents);
		if (!ref)
			return false;
		struct extent *extent = extent_at(engine, ref);
		*extent = (struct extent){ .ref = ref, .start = start, .end = end };
		insert(index, extent);
		link_region(extent, region);
		return true;
	}

	struct extent *extent = extent_at(engine, first);
	uint32_t next;
	while ((next = rb_next(&engine->extents, first)) != 0 && extent_at(engine, next)->start < end)
		join(index, extent, extent_at(engine, next));
	/* No other extent lies between the two starts, so moving it keeps the order. */
	if (start < extent->start)
		extent->start = start;
	if (end > extent->end)
		extent->end = end;
	region->is_aliased = true;
	link_region(extent, region);
	return true;
}

void extent_remove(struct region *region)
{
	struct extent *extent = region->extent;
	if (!extent)
		return;
	unlink_region(region);
	region->extent = NULL;
	if (!extent->regions)
		destroy(region->slot->index, extent);
}
