/*
 * ahead.c - four steps, each so many pages ahead that a miss is hidden behind the visits in between. They must not be
 * many more: the sampled lines of all pages share one set of the first-level cache, and would drive each other out.
 */
#include "ahead.h"

#include "filter.h"
#include "index.h"
#include "mm_slot.h"
#include "preview.h"
#include "smart_scan.h"

#define ASK_FOR_LINES 12	/* pages ahead: sampled lines are asked for */
#define TAKE_SAMPLE 9		/* they are here; if this sample has been deepened the whole page is asked for */
#define ASK_FOR_ROOTS 8		/* its hash is taken; the key is known, the roots are asked for */
#define ASK_FOR_OBJECTS 6	/* the objects at the roots are asked for */
#define FIND_TWIN 3		/* the object with the same key is looked for */
#define ASK_FOR_TWIN 1		/* its page is asked for, and the page itself */

void ahead_reset(struct engine *engine)
{
	engine->ahead.region = NULL;
}

/* Will the visit of a mergeable page need its key? */
static bool needs_key(const struct engine *engine, const struct rmap_item *item)
{
	if (item->is_settled || item->is_alias || item->state == ITEM_STABLE)
		return false;
	return !engine->smart_scan || !smart_scan_will_skip(item);
}

/* Notes where a page is if its visit will need its key, and asks for the lines that this takes. */
static void ask_for_lines(struct engine *engine, const struct region *region, uint64_t page)
{
	const struct filter *filter = engine->ahead.filter;
	struct ahead_page *ahead = ahead_page(engine, page);

	*ahead = (struct ahead_page){ .foreseen = preview_of(engine->preview, engine->ahead.run, page) };
	if (ahead->foreseen) {
		if (ahead->foreseen->is_merged)
			return;
		ahead->bytes = ahead->foreseen->bytes;
		ahead->key = preview_filed_key(ahead->foreseen);
		ahead->is_kept = ahead->foreseen->has_key;
		ahead->has_key = true;
		return;
	}
	if ((region->flags[page] & (PAGE_MERGEABLE | PAGE_ZERO)) != PAGE_MERGEABLE || (filter && !filter_has(filter, page)))
		return;
	uint32_t ref = item_find(region, page);
	const struct rmap_item *item = ref ? item_at(&engine->items, ref) : NULL;
	if (item && !needs_key(engine, item))
		return;
	ahead->bytes = region_page(region, page);
	ahead->is_kept = ahead->has_key = item && item->has_key;
	if (ahead->is_kept)
		ahead->key = item->key;
	else
		page_prefetch_sample(&engine->rules, ahead->bytes);
}

static void take_sample(const struct engine *engine, struct ahead_page *ahead)
{
	ahead->key = page_take_sample(&engine->rules, ahead->bytes);
	ahead->has_key = true;
	ahead->wants_hash = !engine->rules.is_sample_whole && keyset_has(engine->ahead.deepened, ahead->key);
	if (ahead->wants_hash)
		page_prefetch(&engine->rules, ahead->bytes);
}

/* What a preview would say. */
static void take_hash(struct engine *engine, uint64_t page, struct ahead_page *ahead)
{
	struct foreseen *foreseen = &engine->ahead.hashed[page % AHEAD_PAGES];
	*foreseen = (struct foreseen){
		.bytes = ahead->bytes,
		.key = ahead->key,
		.hash = page_take_hash(&engine->rules, ahead->bytes),
		.has_hash = true,
		.is_deep = true,
	};
	ahead->foreseen = foreseen;
	ahead->key = foreseen->hash;
}

static void ask_for_roots(const struct trees *trees, const struct ahead_page *ahead)
{
	forest_prefetch_root(&trees->stable, ahead->key);
	forest_prefetch_root(&trees->unstable, ahead->key);
	forest_prefetch_root(&trees->kept, ahead->key);
}

static void ask_for_objects(const struct trees *trees, const struct ahead_page *ahead)
{
	forest_prefetch_object(&trees->stable, ahead->key);
	forest_prefetch_object(&trees->unstable, ahead->key);
	forest_prefetch_object(&trees->kept, ahead->key);
}

/* Finds what the page will be compared with, as it seems now. */
static void find_twin(const struct trees *trees, struct ahead_page *ahead)
{
	ahead->twin = forest_peek_page(&trees->stable, ahead->key);
	if (!ahead->twin)
		ahead->twin = forest_peek_page(&trees->unstable, ahead->key);
	if (!ahead->twin)
		ahead->twin = forest_peek_page(&trees->kept, ahead->key);
}

/* Both pages in full: of a page that is read from its start the processor would ask for every line too late. */
static void ask_for_twin(const struct engine *engine, const struct ahead_page *ahead)
{
	page_prefetch(&engine->rules, ahead->bytes);
	page_prefetch(&engine->rules, ahead->twin);
}

/* The page that is to be visited was not expected: begins anew there. */
static void begin(struct engine *engine, const struct region *region, uint64_t page)
{
	const struct index *index = region->slot->index;
	struct ahead *ahead = &engine->ahead;

	memset(ahead, 0, sizeof(*ahead));
	ahead->region = region;
	ahead->run = engine->preview ? preview_run(engine->preview, region) : NULL;
	ahead->trees = &index->trees[index_tree(index, region->node)];	/* of pages that were not moved */
	ahead->deepened = &index->deepened;
	ahead->filter = filter_in_use(region);
	for (uint64_t i = page; i < page + ASK_FOR_LINES && i < region->nr_pages; i++)
		ask_for_lines(engine, region, i);
}

void ahead_of(struct engine *engine, const struct region *region, uint64_t page)
{
	struct ahead_page *ahead;

	if (region != engine->ahead.region || page != engine->ahead.next)
		begin(engine, region, page);
	const struct trees *trees = engine->ahead.trees;
	engine->ahead.next = page + 1;
	if (page + ASK_FOR_LINES < region->nr_pages)
		ask_for_lines(engine, region, page + ASK_FOR_LINES);
	else
		*ahead_page(engine, page + ASK_FOR_LINES) = (struct ahead_page){ 0 };
	ahead = ahead_page(engine, page + TAKE_SAMPLE);
	if (ahead->bytes && !ahead->has_key)
		take_sample(engine, ahead);
	ahead = ahead_page(engine, page + ASK_FOR_ROOTS);
	if (ahead->wants_hash)
		take_hash(engine, page + ASK_FOR_ROOTS, ahead);
	if (ahead->has_key)
		ask_for_roots(trees, ahead);
	ahead = ahead_page(engine, page + ASK_FOR_OBJECTS);
	if (ahead->has_key)
		ask_for_objects(trees, ahead);
	ahead = ahead_page(engine, page + FIND_TWIN);
	if (ahead->has_key && !(ahead->foreseen && ahead->foreseen->is_compared))
		find_twin(trees, ahead);
	ahead = ahead_page(engine, page + ASK_FOR_TWIN);
	if (ahead->twin)
		ask_for_twin(engine, ahead);
}
