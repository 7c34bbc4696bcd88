/*
 * fork.c - processes that share pages, and what a write to such a page does.
 *
 * A child maps its parent's arrays. Its regions are marked as forked: before anyone of the family writes a
 * page through the engine, whoever must not see it moves to a copy that is ours.
 */
#include "fork.h"

#include "filter.h"
#include "merge.h"
#include "mm_slot.h"
#include "physical.h"
#include "touch.h"
#include "zero.h"

#include <stdio.h>

/*
 * The same pages, advice and copies, and the same pages on the zero frame: their addresses are known, so
 * that cannot fail. @copy's own memory is there already.
 */
static void share_pages(struct region *copy, const struct region *original)
{
	copy->is_forked = true;
	filter_share(copy, original);
	for (uint64_t page = 0; page < copy->nr_pages; page++)
		region_set_flags(copy, page, original->flags[page] & ~PAGE_ZERO);
	for (uint64_t page = 0; copy->copies && page < copy->nr_pages; page++) {
		copy->copies[page] = original->copies[page];
		if (copy->copies[page])
			copy->copies[page]->nr_users++;
	}
	for (uint64_t page = 0; original->nr_zero && page < copy->nr_pages; page++) {
		/* untested: never, the map has room */
		bool ok = !(original->flags[page] & PAGE_ZERO) || zero_add(copy, page);
		assert(ok);
		(void)ok;
	}
}

static bool fork_region(struct mm_slot *child, struct region *original)
{
	struct lksm_region wanted = {
		.address = original->address,
		.pages = original->pages,
		.nr_array_pages = original->nr_array_pages,
		.rows = original->rows,
		.nr_pages = original->nr_pages,
		.node = original->node,
		.is_immutable = original->is_immutable,
		.is_tracked = original->is_tracked,
		.is_excluded = original->is_excluded,
	};
	if (mm_slot_map(child, &wanted))
		return false;
	struct region *copy = child->regions[child->nr_regions - 1];
	if (original->nodes) {
		if (!region_reserve_nodes(copy))
			return false;
		memcpy(copy->nodes, original->nodes, copy->nr_pages);
	}
	if (original->copies) {
		copy->copies = memory_alloc(&child->engine->memory, LKSM_FOR_PROCESSES, copy->nr_pages * sizeof(*copy->copies));
		if (!copy->copies)
			return false;
	}
	share_pages(copy, original);
	return true;
}

struct mm_slot *fork_slot(struct mm_slot *parent)
{
	struct mm_slot *child = mm_slot_create(parent->engine, parent->index->domain);
	if (!child)
		return NULL;
	for (uint64_t i = 0; i < parent->nr_regions; i++) {
		if (!fork_region(child, parent->regions[i])) {
			forget_pages(child);
			mm_slot_destroy(child);
			return NULL;
		}
	}
	child->family_next = parent->family_next;
	parent->family_next = child;
	return child;
}

/* Room to give pages of @region copies, and to enter their items and zero pages under a new address. */
static bool prepare_copy(struct region *region)
{
	if (!region->copies)
		region->copies = memory_alloc(&region->slot->engine->memory, LKSM_FOR_PROCESSES,
					      region->nr_pages * sizeof(*region->copies));
	/* untested: no memory for one part of several */
	return region->copies && region_mark_aliased(region) &&
	       physical_reserve(&region->slot->index->physical, 1) && zero_map_reserve(&region->slot->index->zero, 1);
}

/* The page of @region is at @copy from now on; same bytes, so it stays filed, merged or on the zero frame. */
static void use_copy(struct region *region, uint64_t page, struct page_copy *copy)
{
	struct physical_map *map = &region->slot->index->physical;
	uint32_t ref = item_find(region, page);
	bool was_first = ref && physical_find(map, region_page(region, page)) == ref;
	bool was_zero = region->flags[page] & PAGE_ZERO;

	if (was_first)
		physical_remove(map, ref);
	if (was_zero)
		zero_remove(region, page);
	copy->nr_users++;
	region_drop_copy(region, page);
	region->copies[page] = copy;
	/* untested: the copy is new or was the family's: nobody has entered it */
	if (was_first && !physical_find(map, copy->bytes))
		physical_add(map, ref);
	if (was_zero)
		zero_add(region, page);
}

static struct page_copy *copy_create(struct engine *engine, const uint8_t *bytes)
{
	struct page_copy *copy = memory_alloc(&engine->memory, LKSM_FOR_PROCESSES, sizeof(*copy));
	if (!copy)
		return NULL;
	copy->bytes = frame_alloc(&engine->memory, engine->rules.page_size);
	if (!copy->bytes) {
		memory_free(&engine->memory, LKSM_FOR_PROCESSES, copy, sizeof(*copy));
		return NULL;
	}
	page_copy_bytes(&engine->rules, copy->bytes, bytes);
	return copy;
}

/* Gets ready to move the slot's forked pages at @bytes. Returns whether it has any; false in *ok_ret: no memory. */
static bool prepare_move(struct mm_slot *slot, const uint8_t *bytes, bool *ok_ret)
{
	bool has_any = false;
	for (uint64_t i = 0; i < slot->nr_regions; i++) {
		struct region *region = slot->regions[i];
		if (!region->is_forked || region_next_page_at(region, bytes, 0) == region->nr_pages)
			continue;
		has_any = true;
		if (!prepare_copy(region))
			*ok_ret = false;
	}
	return has_any;
}

/* All forked pages of the slot that are at @bytes are at @copy from now on. */
static void move_pages(struct mm_slot *slot, const uint8_t *bytes, struct page_copy *copy)
{
	for (uint64_t i = 0; i < slot->nr_regions; i++) {
		struct region *region = slot->regions[i];
		if (!region->is_forked)
			continue;
		for (uint64_t page = 0; (page = region_next_page_at(region, bytes, page)) < region->nr_pages; page++)
			use_copy(region, page, copy);
	}
}

/*
 * Before a write, whoever must not see it moves to a copy: the writer, if the bytes are its parent's or
 * a relative has them too; else all relatives that have them, to one copy together. A page that a process
 * maps at several places stays one page.
 */
static bool separate(struct region *region, uint64_t page)
{
	struct mm_slot *slot = region->slot;
	const uint8_t *bytes = region_page(region, page);
	bool is_array = !region->copies || !region->copies[page];
	bool is_shared = false, ok = true;

	if (!is_array && region->copies[page]->nr_users == 1)
		return true;		/* the usual case after a first write: nobody else has it */
	for (struct mm_slot *other = slot->family_next; other != slot; other = other->family_next)
		is_shared |= prepare_move(other, bytes, &ok);
	bool writer_moves = region->is_forked && (is_array || is_shared);
	if (writer_moves)
		prepare_move(slot, bytes, &ok);
	else if (!is_shared)
		return true;
	struct page_copy *copy = ok ? copy_create(slot->engine, bytes) : NULL;
	if (!copy)
		return false;
	if (writer_moves)
		move_pages(slot, bytes, copy);
	for (struct mm_slot *other = slot->family_next; !writer_moves && other != slot; other = other->family_next)
		move_pages(other, bytes, copy);
	return true;
}

int fork_write(struct mm_slot *slot, uint64_t page, uint64_t offset, const void *bytes, uint64_t nr_bytes)
{
	uint64_t place;
	struct region *region = mm_slot_region(slot, page, &place);
	if (!separate(region, place)) {
		snprintf(slot->engine->error, sizeof(slot->engine->error),
			 "no memory to copy page %llu before it is written", (unsigned long long)page);
		return LKSM_NO_MEMORY;
	}
	memcpy((uint8_t *)region_page(region, place) + offset, bytes, nr_bytes);
	zero_remove(region, place);
	touch_page(region, place);
	uint32_t ref = item_find(region, place);
	if (ref && item_at(&slot->engine->items, ref)->state == ITEM_STABLE)
		item_at(&slot->engine->items, ref)->is_private = 1;
	return LKSM_OK;
}
