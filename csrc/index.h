/*
 * index.h - everything that the pages of one domain are compared with.
 */
#ifndef INDEX_H
#define INDEX_H

#include "forest.h"
#include "keyset.h"
#include "physical.h"

/* The index of @domain, made if there is none; or NULL. */
struct index *index_get(struct engine *engine, uint32_t domain);
/* Frees the index if no process is left in its domain. */
void index_put(struct index *index);

/* Looks at a page for the first time in this visit. */
void index_look(const struct index *index, const uint8_t *bytes, struct look *look_ret);
/* The same if the page's sample is known already. */
void index_look_sampled(const struct index *index, const uint8_t *bytes, uint64_t sample, struct look *look_ret);
/*
 * Two different pages have @look's sample: files that class under hashes of whole pages from now on.
 * If there is no memory for it, @look is compared byte by byte instead. Either way search again.
 */
void index_deepen(struct index *index, struct look *look);
/* The object of @forest, one of the index's two, that has @look's bytes, or 0; deepens what collides on the way. */
uint32_t index_search(struct index *index, const struct forest *forest, struct look *look, struct place *place_ret);

#endif
