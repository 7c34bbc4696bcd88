/*
 * unstable_tree.c - candidates of this round: those that may change, and those that hold still.
 */
#include "unstable_tree.h"

#include "mm_slot.h"

enum { OF_ROUND, KEPT };	/* the two places of a page */

/* A kept item leaves its tree: it is UNSTABLE as one of a round whose tree is gone. */
static void leave_kept(struct forest *kept, uint32_t ref)
{
	forest_remove(kept, ref);
	item_at(kept->pool, ref)->is_settled = 0;
	item_at(kept->pool, ref)->round = 0;	/* of no round */
}

void unstable_tree_give_way(struct index *index, uint32_t tree, struct look *look)
{
	struct forest *kept = &index->trees[tree].kept;
	struct place place;
	uint32_t ref = kept->nr_entries ? index_search(index, kept, look, &place) : 0;
	if (ref)
		leave_kept(kept, ref);
}

/* Of this round, or 0; one of an earlier round that has the bytes gives way. */
static uint32_t search_kept(struct index *index, struct forest *kept, struct look *look, struct place *place_ret)
{
	uint32_t ref = index_search(index, kept, look, place_ret);
	if (!ref || item_at(kept->pool, ref)->round == index->engine->scan_round)
		return ref;
	leave_kept(kept, ref);
	return index_search(index, kept, look, place_ret);	/* for the place */
}

uint32_t unstable_tree_search(struct index *index, uint32_t tree, struct look *look, struct place places_ret[2])
{
	struct trees *trees = &index->trees[tree];
	for (;;) {
		bool was_deep = look->is_deep;
		uint32_t ref = search_kept(index, &trees->kept, look, &places_ret[KEPT]);
		if (!ref)
			ref = index_search(index, &trees->unstable, look, &places_ret[OF_ROUND]);
		if (ref || look->is_deep == was_deep)
			return ref;
		/* Its class was deepened on the way, so it is filed under another key: the first place is another, too. */
	}
}

void unstable_tree_insert(const struct visit *visit, const struct look *look, const struct place places[2],
			  bool is_kept)
{
	struct index *index = visit->index;
	struct rmap_item *item = visit->item;
	item->state = ITEM_UNSTABLE;
	item->is_alias = 0;
	item->is_settled = is_kept;
	item->round = index->engine->scan_round;
	item->key = look->key;
	item->is_key_deep = look->has_hash && look->key == look->hash;
	visit->region->slot->nr_unstable++;
	index->pages_unshared++;
	if (is_kept)
		forest_insert(&index->trees[visit->tree].kept, visit->ref, &places[KEPT]);
	else
		forest_insert(&index->trees[visit->tree].unstable, visit->ref, &places[OF_ROUND]);
}

static struct forest *forest_in(struct index *index, uint32_t tree, bool is_kept)
{
	return is_kept ? &index->trees[tree].kept : &index->trees[tree].unstable;
}

/*
 * Where an item is filed that is in a tree. That its page has been moved to another memory node since, or that pages
 * are compared across nodes now and were not then, has left it where it is.
 */
static struct forest *forest_of(struct index *index, uint32_t item_ref)
{
	struct engine *engine = index->engine;
	bool is_kept = item_at(&engine->items, item_ref)->is_settled;
	uint32_t tree = index_tree(index, item_node(&engine->items, item_ref));
	if (engine->nr_nodes == 1 || forest_holds(forest_in(index, tree, is_kept), item_ref))
		return forest_in(index, tree, is_kept);
	tree = 0;
	while (!forest_holds(forest_in(index, tree, is_kept), item_ref))
		tree++;
	assert(tree < engine->nr_nodes);
	return forest_in(index, tree, is_kept);
}

void unstable_tree_leave_kept(struct index *index, uint32_t item_ref)
{
	leave_kept(forest_of(index, item_ref), item_ref);
}

void unstable_tree_detach(struct index *index, uint32_t item_ref)
{
	struct engine *engine = index->engine;
	struct rmap_item *item = item_at(&engine->items, item_ref);
	if (item->is_settled || (item->round && item->round == engine->scan_round))
		forest_remove(forest_of(index, item_ref), item_ref);
	item->state = ITEM_VOLATILE;
	item->is_settled = 0;
	item_region(&engine->items, item_ref)->slot->nr_unstable--;
	index->pages_unshared--;
}

void unstable_tree_drop(struct index *index, uint32_t tree)
{
	struct trees *trees = &index->trees[tree];
	forest_reset(&trees->unstable, trees->nr_others);
	if (!trees->kept.nr_entries)
		forest_reset(&trees->kept, trees->nr_still);
	trees->nr_others = trees->nr_still = 0;
}

void unstable_tree_unkeep(struct index *index, uint32_t tree)
{
	struct trees *trees = &index->trees[tree];
	const struct engine *engine = index->engine;
	uint32_t next;
	for (uint32_t ref = forest_next(&trees->kept, 0); ref; ref = next) {
		struct rmap_item *item = item_at(&engine->items, ref);
		uint64_t round = item->round;
		next = forest_next(&trees->kept, ref);
		leave_kept(&trees->kept, ref);
		if (round == engine->scan_round) {
			item->round = round;
			forest_file(&trees->unstable, &engine->rules, ref);
		}
	}
}

void unstable_tree_drop_kept(struct index *index, uint32_t tree)
{
	struct forest *kept = &index->trees[tree].kept;
	for (uint32_t ref = 0; (ref = forest_next(kept, ref)) != 0;) {
		item_at(kept->pool, ref)->is_settled = 0;
		item_at(kept->pool, ref)->round = 0;
	}
	forest_reset(kept, 0);
}
