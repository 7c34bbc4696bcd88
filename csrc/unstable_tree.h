/*
 * unstable_tree.h - pages that passed the gate this round and have no twin yet.
 *
 * The trees are dropped when a new round starts. Their items keep their state and their share of
 * pages_unshared until they are visited; an item is in a tree only if it carries this round's number.
 *
 * Pages whose bytes hold still need not be filed anew in each round, which is all that a later visit of them would
 * do. They are kept in trees that no round drops. One that does not carry this round's number is there in
 * memory only: whoever meets it takes its place, as if the tree had been built anew.
 */
#ifndef UNSTABLE_TREE_H
#define UNSTABLE_TREE_H

#include "index.h"

/* Are pages kept at all? Not where they may be skipped, or may come to lie in another tree. */
static inline bool unstable_tree_keeps(const struct engine *engine)
{
	return engine->merge_across_nodes && !engine->smart_scan;
}

/*
 * The item of this round whose page equals @look's bytes, or 0 and the place for a page that is filed in
 * either way. May deepen @look's class, and make kept items of earlier rounds give way.
 */
uint32_t unstable_tree_search(struct index *index, uint32_t tree, struct look *look, struct place places_ret[2]);
/* Files a VOLATILE item. @is_kept: until it is detached, else for this round. */
void unstable_tree_insert(const struct visit *visit, const struct look *look, const struct place places[2],
			  bool is_kept);
/* Makes an UNSTABLE item VOLATILE, whether or not its tree still exists. */
void unstable_tree_detach(struct index *index, uint32_t item_ref);
/* A kept item is as if of an earlier round: its bytes may have changed. */
void unstable_tree_leave_kept(struct index *index, uint32_t item_ref);
/* A content has been merged without a search here: a kept item that equals @look's bytes gives way. */
void unstable_tree_give_way(struct index *index, uint32_t tree, struct look *look);
/*
 * Forgets one tree but for what is kept, and has room for as many pages as its two scratch counts say; they
 * are 0 then.
 */
void unstable_tree_drop(struct index *index, uint32_t tree);
/* Nothing of this tree is kept any more: its items are those of their round only. */
void unstable_tree_unkeep(struct index *index, uint32_t tree);
/* Its items are as if of an earlier round. */
void unstable_tree_drop_kept(struct index *index, uint32_t tree);

#endif
