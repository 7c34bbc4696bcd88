/*
 * unstable_tree.c - candidates of this round.
 */
#include "unstable_tree.h"

#include "mm_slot.h"

uint32_t unstable_tree_search(struct index *index, struct look *look, struct place *place_ret)
{
	return index_search(index, &index->unstable, look, place_ret);
}

void unstable_tree_insert(struct index *index, uint32_t item_ref, const struct look *look,
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
	forest_insert(&index->unstable, item_ref, place);
}

void unstable_tree_detach(struct index *index, uint32_t item_ref)
{
	struct engine *engine = index->engine;
	struct rmap_item *item = item_at(&engine->items, item_ref);
	if (item->round == engine->scan_round)
		forest_remove(&index->unstable, item_ref);
	item->state = ITEM_VOLATILE;
	item->alias.of = 0;
	item_region(&engine->items, item_ref)->slot->nr_unstable--;
	index->pages_unshared--;
}

void unstable_tree_drop(struct index *index, uint64_t nr_expected)
{
	forest_reset(&index->unstable, nr_expected);
}
