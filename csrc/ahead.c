/*
 * ahead.c - four steps, each so many pages ahead that a miss is hidden behind the visits in between.
 */
#include "ahead.h"

#include "filter.h"
#include "index.h"
#include "mm_slot.h"
#include "smart_scan.h"

#define ASK_FOR_LINES 12	/* pages ahead: sampled lines are asked for */
#define TAKE_SAMPLE 9		/* they are here: the key is taken, the roots are asked for */
#define ASK_FOR_OBJECT 6	/* the object at the root is asked for */
#define ASK_FOR_TWIN 3		/* the page of the object with the same key is asked for, and the page itself */
#define TWIN_LINES 6		/* lines of each; from then on the processor sees where the compare goes */

void ahead_reset(struct engine *engine)
{
	memset(engine->ahead, 0, sizeof(engine->ahead));
}

bool ahead_sample(const struct engine *engine, uint64_t page, const uint8_t *bytes, uint64_t *sample_ret)
{
	const struct ahead *ahead = &engine->ahead[page % AHEAD_PAGES];
	if (ahead->bytes != bytes)
		return false;
	*sample_ret = ahead->sample;
	return true;
}

/* Where a page is if its visit will need its key; else NULL. @filter: what its region asks, or NULL. */
static const uint8_t *bytes_if_looked_at(const struct region *region, const struct filter *filter, uint64_t page)
{
	if (page >= region->nr_pages || (region->flags[page] & (PAGE_MERGEABLE | PAGE_ZERO)) != PAGE_MERGEABLE)
		return NULL;
	if (filter && !filter_has(filter, page))
		return NULL;
	uint32_t ref = item_find(region, page);
	if (ref) {
		const struct rmap_item *item = item_at(&region->slot->engine->items, ref);
		if (item->state == ITEM_STABLE || item->has_key ||
		    (region->slot->engine->smart_scan && smart_scan_will_skip(item)))
			return NULL;
	}
	return region_page(region, page);
}

static void take_sample(struct engine *engine, const struct trees *trees, uint64_t page, const uint8_t *bytes)
{
	struct ahead *ahead = &engine->ahead[page % AHEAD_PAGES];
	ahead->bytes = bytes;
	ahead->sample = page_sample(&engine->rules, bytes);
	forest_prefetch_root(&trees->stable, ahead->sample);
	forest_prefetch_root(&trees->unstable, ahead->sample);
}

static void ask_for_twin(const struct engine *engine, const struct trees *trees, const uint8_t *bytes,
			 uint64_t sample)
{
	const uint8_t *twin = forest_peek(&trees->stable, sample);
	if (!twin)
		twin = forest_peek(&trees->unstable, sample);
	if (!twin)
		return;
	uint64_t size = engine->rules.page_size < TWIN_LINES * LINE_SIZE ? engine->rules.page_size
									 : TWIN_LINES * LINE_SIZE;
	for (uint64_t at = 0; at < size; at += LINE_SIZE) {
		__builtin_prefetch(twin + at);
		__builtin_prefetch(bytes + at);
	}
}

void ahead_of(struct engine *engine, const struct region *region, uint64_t page)
{
	const struct index *index = region->slot->index;
	const struct trees *trees = &index->trees[index_tree(index, region->node)];	/* of pages that were not moved */
	const struct filter *filter = filter_in_use(region);
	const uint8_t *bytes;
	uint64_t sample;

	if ((bytes = bytes_if_looked_at(region, filter, page + ASK_FOR_LINES)) != NULL)
		page_prefetch_sample(&engine->rules, bytes);
	if ((bytes = bytes_if_looked_at(region, filter, page + TAKE_SAMPLE)) != NULL)
		take_sample(engine, trees, page + TAKE_SAMPLE, bytes);
	if ((bytes = bytes_if_looked_at(region, filter, page + ASK_FOR_OBJECT)) != NULL &&
	    ahead_sample(engine, page + ASK_FOR_OBJECT, bytes, &sample)) {
		forest_prefetch_object(&trees->stable, sample);
		forest_prefetch_object(&trees->unstable, sample);
	}
	if ((bytes = bytes_if_looked_at(region, filter, page + ASK_FOR_TWIN)) != NULL &&
	    ahead_sample(engine, page + ASK_FOR_TWIN, bytes, &sample))
		ask_for_twin(engine, trees, bytes, sample);
}
