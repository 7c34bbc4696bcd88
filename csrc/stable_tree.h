/*
 * stable_tree.h - merged pages: frames and their lists of sharers.
 *
 * A frame's bytes cannot change, so searches are reliable. It is the engine's own copy, or borrowed from
 * a sharer whose memory is immutable; when that sharer leaves, the frame moves to another one.
 */
#ifndef STABLE_TREE_H
#define STABLE_TREE_H

#include "index.h"

static inline struct stable_node *node_at(const struct engine *engine, uint32_t ref)
{
	return pool_at(&engine->nodes, ref);
}

/* May one more page be merged into it? */
static inline bool node_has_room(const struct engine *engine, const struct stable_node *node)
{
	return node->nr_sharers < engine->max_page_sharing;
}

/*
 * The head node of the content that equals @look's bytes, full or not; 0 if no merged page has them.
 * May deepen @look's class. @place_ret is where a new node would be filed, if 0.
 */
uint32_t stable_tree_search(struct index *index, struct look *look, struct place *place_ret);
/*
 * Files a new node without sharers for @look's bytes, under @head if it is not 0, else at @place. The
 * frame is @bytes: ours if @is_owned, and then given up if the ring has a copy already. 0 if there is no memory. The caller attaches sharers at once.
 */
uint32_t stable_tree_insert(struct index *index, const struct look *look, uint32_t head,
			    const struct place *place, const uint8_t *bytes, bool is_owned);
/* Makes a VOLATILE item a sharer of the node. */
void stable_tree_attach(struct index *index, uint32_t node_ref, uint32_t item_ref);
/* Makes a sharer VOLATILE again; the node goes with its last one. */
void stable_tree_detach(struct index *index, uint32_t item_ref);
/* Makes all its sharers VOLATILE and frees the node. */
void stable_tree_dissolve(struct index *index, uint32_t node_ref);
/* The same for all nodes of its content. */
void stable_tree_dissolve_ring(struct index *index, uint32_t head);

#endif
