/*
 * unstable_tree.h - pages that passed the gate this round and have no twin yet.
 *
 * The trees are dropped when a new round starts. Their items keep their state and their share of
 * pages_unshared until they are visited; an item is in a tree only if it carries this round's number.
 */
#ifndef UNSTABLE_TREE_H
#define UNSTABLE_TREE_H

#include "index.h"

/* The item of @tree whose page equals @look's bytes, or 0 and the place for it. May deepen @look's class. */
uint32_t unstable_tree_search(struct index *index, uint32_t tree, struct look *look, struct place *place_ret);
/* Files a VOLATILE item. */
void unstable_tree_insert(struct index *index, uint32_t tree, uint32_t item_ref, const struct look *look,
			  const struct place *place);
/* Makes an UNSTABLE item VOLATILE, whether or not its tree still exists. */
void unstable_tree_detach(struct index *index, uint32_t item_ref);
/* Forgets one tree, and has room for so many pages. */
void unstable_tree_drop(struct index *index, uint32_t tree, uint64_t nr_expected);

#endif
