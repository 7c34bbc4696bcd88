/*
 * check_trees.h - the invariants of what is filed: trees, frames, chains.
 */
#ifndef CHECK_TREES_H
#define CHECK_TREES_H

#include "checker.h"

/* I1, I2: walks the forest in order and returns how many objects it has. */
uint64_t check_forest(struct checker *checker, const struct forest *forest, const char *name);
/* I3 to I7, I15, I18: the stable trees of a domain, and what they hold. */
void check_stable(struct checker *checker, struct index *index);

#endif
