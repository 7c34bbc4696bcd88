/*
 * unstable_tree.h - pages that passed the gate this round and have no twin yet.
 *
 * The tree is dropped when a new round starts. Its items keep their state and their share of
 * pages_unshared until they are visited; an item is in the tree only if it carries this round's number.
 */
#ifndef UNSTABLE_TREE_H
#define UNSTABLE_TREE_H

#include "index.h"

/* The item whose page equals @look's bytes, or 0 and the place for it. May deepen @look's class. */
uint32_t unstable_tree_search(struct index *index, struct look *look, struct place *place_ret);
/* Files a VOLATILE item. */
void unstable_tree_insert(struct index *index, uint32_t item_ref, const struct look *look,
			  const struct place *place);
/* Makes an UNSTABLE item VOLATILE, whether or not its tree still exists. */
void unstable_tree_detach(struct index *index, uint32_t item_ref);
/* Forgets the tree. */
void unstable_tree_drop(struct index *index, uint64_t nr_expected);

#endif
