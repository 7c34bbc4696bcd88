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
void tally_add(struct tally *sum, const struct tally *tally);

/* The number of the trees in which pages of a memory node are filed. */
static inline uint32_t index_tree(const struct index *index, uint32_t memory_node)
{
	return index->engine->merge_across_nodes ? 0 : memory_node;
}

/* The public number of a frame: no two domains have the same, and none depends on what another domain does. */
uint64_t index_frame_id(const struct index *index, uint64_t serial);

/* Looks at a page for the first time in this visit. */
void index_look(const struct index *index, const uint8_t *bytes, struct look *look_ret);
/* The same if the page's sample is known already, and perhaps more. */
void index_look_foreseen(const struct index *index, const uint8_t *bytes, uint64_t sample,
			 const struct foreseen *foreseen, struct look *look_ret);
/*
 * Two different pages have @look's sample: files that class under hashes of whole pages from now on.
 * If there is no memory for it, @look is compared byte by byte instead. Either way search again.
 */
void index_deepen(struct index *index, struct look *look);
/* index_search() where something is filed. */
uint32_t index_search_filed(struct index *index, const struct forest *forest, struct look *look, struct place *place_ret);

/* The object of @forest, one of the index's, that has @look's bytes, or 0; deepens what collides on the way. */
static inline uint32_t index_search(struct index *index, const struct forest *forest, struct look *look,
				    struct place *place_ret)
{
	*place_ret = (struct place){ 0, 0 };
	return forest->nr_entries ? index_search_filed(index, forest, look, place_ret) : 0;
}

#endif
