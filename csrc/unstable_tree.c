/*
 * unstable_tree.c - candidates of this round.
 */
#include "unstable_tree.h"

#include "mm_slot.h"

uint32_t unstable_tree_search(struct index *index, uint32_t tree, struct look *look, struct place *place_ret)
{
	return index_search(index, &index->trees[tree].unstable, look, place_ret);
}

void unstable_tree_insert(struct index *index, uint32_t tree, uint32_t item_ref, const struct look *look,
			  const struct place *place)
{
	struct engine *engine = index->engine;
	struct rmap_item *item = item_at(&engine->items, item_ref);
	item->state = ITEM_UNSTABLE;
	item->is_alias = 0;
	item->round = engine->scan_round;
	item->key = look->key;
	item->is_key_deep = look->has_hash && look->key == look->hash;
	item_region(&engine->items, item_ref)->slot->nr_unstable++;
	index->pages_unshared++;
	forest_insert(&index->trees[tree].unstable, item_ref, place);
}

/*
 * Where an item of this round is filed. That its page has been moved to another memory node since, or that pages
 * are compared across nodes now and were not then, has left it where it is.
 */
static struct forest *forest_of(struct index *index, uint32_t item_ref)
{
	struct engine *engine = index->engine;
	const struct region *region = item_region(&engine->items, item_ref);
	uint32_t tree = index_tree(index, page_node(region, item_page(&engine->items, item_ref)));
	if (engine->nr_nodes == 1 || forest_holds(&index->trees[tree].unstable, item_ref))
		return &index->trees[tree].unstable;
	tree = 0;
	while (!forest_holds(&index->trees[tree].unstable, item_ref))
		tree++;
	assert(tree < engine->nr_nodes);
	return &index->trees[tree].unstable;
}

void unstable_tree_detach(struct index *index, uint32_t item_ref)
{
	struct engine *engine = index->engine;
	struct rmap_item *item = item_at(&engine->items, item_ref);
	if (item->round == engine->scan_round)
		forest_remove(forest_of(index, item_ref), item_ref);
	item->state = ITEM_VOLATILE;
	item->alias.of = 0;
	item_region(&engine->items, item_ref)->slot->nr_unstable--;
	index->pages_unshared--;
}

void unstable_tree_drop(struct index *index, uint32_t tree, uint64_t nr_expected)
{
	forest_reset(&index->trees[tree].unstable, nr_expected);
}
