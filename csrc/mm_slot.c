/*
 * mm_slot.c - processes: regions come and go, with all that knows of their pages.
 */
#include "mm_slot.h"

#include "extent.h"
#include "filter.h"
#include "index.h"
#include "zero.h"

#include <string.h>

static void *process_alloc(struct engine *engine, uint64_t size)
{
	return memory_alloc(&engine->memory, LKSM_FOR_PROCESSES, size);
}

static void process_free(struct engine *engine, void *bytes, uint64_t size)
{
	memory_free(&engine->memory, LKSM_FOR_PROCESSES, bytes, size);
}

/* --- regions --------------------------------------------------------------------------------- */

bool region_mark_aliased(struct region *region)
{
	if (region->is_aliased)
		return true;
	struct physical_map *map = &region->slot->index->physical;
	if (!physical_reserve(map, region->nr_items) || !zero_mark_aliased(region))
		return false;
	region->is_aliased = true;
	for (uint64_t page = 0; region->nr_items && page < region->nr_pages; page++) {
		uint32_t ref = item_find(region, page);
		if (ref)
			physical_add(map, ref);
	}
	return true;
}

void region_set_flags(struct region *region, uint64_t page, uint8_t flags)
{
	assert(!((flags ^ region->flags[page]) & PAGE_ZERO));
	region->nr_mergeable += !!(flags & PAGE_MERGEABLE);
	region->nr_mergeable -= !!(region->flags[page] & PAGE_MERGEABLE);
	region->nr_present += !(flags & PAGE_UNMAPPED);
	region->nr_present -= !(region->flags[page] & PAGE_UNMAPPED);
	region->flags[page] = flags;
	if (!region->nr_present)
		filter_leave(region);
}

static void region_destroy(struct region *region)
{
	struct engine *engine = region->slot->engine;
	extent_remove(region);
	filter_leave(region);
	if (region->copies)
		for (uint64_t page = 0; page < region->nr_pages; page++)
			region_drop_copy(region, page);
	process_free(engine, region->copies, region->nr_pages * sizeof(*region->copies));
	process_free(engine, region->nodes, region->nr_pages);
	process_free(engine, region->flags, region->nr_pages);
	process_free(engine, region->blocks, region_nr_blocks(region->nr_pages) * sizeof(*region->blocks));
	process_free(engine, region, sizeof(*region));
}

/* Marks the regions of a domain that lie over the region's bytes. False if there is no memory. */
static bool mark_overlapping(const struct index *index, const struct region *region)
{
	struct region *other = NULL;
	while ((other = extent_next_overlap(index, region, other)) != NULL)
		if (!region_mark_aliased(other))
			return false;
	return true;
}

/*
 * Files the region among those that lie over the same bytes; those are aliased from now on. What may
 * fail comes first; a region marked in vain stays marked.
 */
static bool find_aliases(struct region *region)
{
	return mark_overlapping(region->slot->index, region) && extent_add(region);
}

/* A region of @slot that nothing knows of yet, or NULL. */
static struct region *region_create(struct mm_slot *slot, const struct lksm_region *wanted)
{
	struct engine *engine = slot->engine;
	struct region *region = process_alloc(engine, sizeof(*region));
	if (!region)
		return NULL;
	*region = (struct region){
		.slot = slot,
		.address = wanted->address,
		.pages = wanted->pages,
		.nr_array_pages = wanted->nr_array_pages,
		.rows = wanted->rows,
		.nr_pages = wanted->nr_pages,
		.nr_present = wanted->nr_pages,
		.page_shift = engine->rules.page_shift,
		.node = (uint8_t)wanted->node,
		.is_immutable = wanted->is_immutable,
		.is_tracked = wanted->is_tracked && !wanted->is_immutable,
		.is_excluded = wanted->is_excluded,
		.is_aliased = wanted->rows != NULL,
	};
	region->flags = process_alloc(engine, wanted->nr_pages);
	region->blocks = process_alloc(engine, region_nr_blocks(wanted->nr_pages) * sizeof(*region->blocks));
	if (!region->flags || !region->blocks || !find_aliases(region)) {
		region_destroy(region);
		return NULL;
	}
	for (uint64_t page = 0; region->rows && page < region->nr_pages; page++)
		if (region->rows[page] < 0)
			region_set_flags(region, page, PAGE_UNMAPPED);
	return region;
}

/* Puts @region in its place by address, behind others at the same one; later pages get higher numbers. */
static bool insert_region(struct mm_slot *slot, struct region *region)
{
	size_t size = slot->nr_regions * sizeof(*slot->regions);
	struct region **regions = memory_resize(&slot->engine->memory, LKSM_FOR_PROCESSES, slot->regions, size,
						size + sizeof(*regions));
	if (!regions)
		return false;
	slot->regions = regions;
	uint64_t position = slot->nr_regions++;
	for (; position && regions[position - 1]->address > region->address; position--)
		regions[position] = regions[position - 1];
	regions[position] = region;
	slot->nr_pages += region->nr_pages;
	uint64_t end = (region->address >> region->page_shift) + region->nr_pages;
	slot->end = end > slot->end ? end : slot->end;
	for (; position < slot->nr_regions; position++) {
		const struct region *before = position ? regions[position - 1] : NULL;
		regions[position]->position = position;
		regions[position]->first_page = before ? before->first_page + before->nr_pages : 0;
	}
	return true;
}

int mm_slot_map(struct mm_slot *slot, const struct lksm_region *wanted)
{
	struct region *region = region_create(slot, wanted);
	if (!region)
		return LKSM_NO_MEMORY;
	if (!insert_region(slot, region)) {
		region_destroy(region);
		return LKSM_NO_MEMORY;
	}
	if (wanted->filter_key && region->nr_present && !region->is_excluded)
		filter_join(region, wanted->filter_key, wanted->is_bss ? FILTER_BSS : FILTER_DATA);
	return LKSM_OK;
}

struct region *mm_slot_region(const struct mm_slot *slot, uint64_t page, uint64_t *place_ret)
{
	uint64_t low = 0, high = slot->nr_regions;
	while (high - low > 1) {
		uint64_t middle = (low + high) / 2;
		if (slot->regions[middle]->first_page <= page)
			low = middle;
		else
			high = middle;
	}
	*place_ret = page - slot->regions[low]->first_page;
	return slot->regions[low];
}

const struct region *mm_slot_overlap(const struct mm_slot *slot, uint64_t address, uint64_t nr_pages)
{
	/* Counted in pages, so that the end of the address space is no special case. */
	uint32_t shift = slot->engine->rules.page_shift;
	uint64_t start = address >> shift, end = start + nr_pages;

	if (start >= slot->end)
		return NULL;		/* the usual case: regions are mapped in address order */
	for (uint64_t i = 0; i < slot->nr_regions; i++) {
		const struct region *region = slot->regions[i];
		uint64_t first = region->address >> shift;
		for (uint64_t page = start > first ? start - first : 0;
		     page < region->nr_pages && first + page < end; page++)
			if (page_is_present(region, page))
				return region;
	}
	return NULL;
}

/* --- slots ----------------------------------------------------------------------------------- */

struct mm_slot *mm_slot_create(struct engine *engine, uint32_t domain)
{
	struct mm_slot *slot = process_alloc(engine, sizeof(*slot));
	if (!slot)
		return NULL;
	struct index *index = index_get(engine, domain);
	if (!index) {
		process_free(engine, slot, sizeof(*slot));
		return NULL;
	}
	*slot = (struct mm_slot){ .engine = engine, .index = index, .family_next = slot };
	index->nr_slots++;
	slot->previous = engine->last_slot;
	*(slot->previous ? &slot->previous->next : &engine->slots) = slot;
	engine->last_slot = slot;
	return slot;
}

void mm_slot_destroy(struct mm_slot *slot)
{
	struct engine *engine = slot->engine;
	assert(!slot->rmap_items);
	struct mm_slot *relative = slot;
	while (relative->family_next != slot)
		relative = relative->family_next;
	relative->family_next = slot->family_next;
	*(slot->previous ? &slot->previous->next : &engine->slots) = slot->next;
	*(slot->next ? &slot->next->previous : &engine->last_slot) = slot->previous;
	for (uint64_t i = 0; i < slot->nr_regions; i++)
		region_destroy(slot->regions[i]);
	process_free(engine, slot->regions, slot->nr_regions * sizeof(*slot->regions));
	slot->index->nr_slots--;
	index_put(slot->index);
	process_free(engine, slot, sizeof(*slot));
}

void mm_slot_free_items(struct mm_slot *slot)
{
	for (uint64_t i = 0; i < slot->nr_regions; i++) {
		struct region *region = slot->regions[i];
		for (uint64_t page = 0; page < region->nr_pages; page += POOL_CHUNK_OBJECTS) {
			uint32_t *id = &region->blocks[page >> POOL_CHUNK_SHIFT];
			if (*id)
				pool_chunk_destroy(&slot->engine->items, *id, region_block_size(region, page));
			*id = 0;
		}
	}
	slot->rmap_items = 0;
}

bool mm_slot_prepare_index(struct mm_slot *slot, const struct index *index)
{
	for (uint64_t i = 0; i < slot->nr_regions; i++)
		if (!mark_overlapping(index, slot->regions[i]))
			return false;
	return pool_reserve(&slot->engine->extents, slot->nr_regions);
}

void mm_slot_set_index(struct mm_slot *slot, struct index *index)
{
	assert(!slot->rmap_items);
	struct index *old = slot->index;
	for (uint64_t i = 0; i < slot->nr_regions; i++) {
		extent_remove(slot->regions[i]);
		filter_move(slot->regions[i], index);
	}
	slot->index = index;
	for (uint64_t i = 0; i < slot->nr_regions; i++)
		extent_add(slot->regions[i]);
	index->nr_slots++;
	old->nr_slots--;
	index_put(old);
}

bool mm_slot_is_mergeable(const struct mm_slot *slot)
{
	for (uint64_t i = 0; i < slot->nr_regions; i++)
		if (slot->regions[i]->nr_mergeable)
			return true;
	return false;
}

void mm_slot_push_window(struct mm_slot *slot)
{
	slot->nr_merged -= slot->window[slot->window_index];
	slot->nr_merged += slot->merged;
	slot->window[slot->window_index] = slot->merged;
	slot->window_index = (slot->window_index + 1) % slot->engine->merge_window;
}
