/*
 * stable_tree.h - merged pages: frames, their lists of sharers, and chains of equal frames.
 *
 * A frame's bytes cannot change, so searches are reliable. It is the engine's own copy, or borrowed from
 * a sharer whose memory is immutable; when that sharer leaves, the frame moves to another one.
 */
#ifndef STABLE_TREE_H
#define STABLE_TREE_H

#include "chain.h"

/*
 * A node of the content that equals @look's bytes, with room if any of them has; 0 if no merged page has
 * these bytes. May deepen @look's class. @place_ret is where a new content would be filed, if 0.
 */
uint32_t stable_tree_find(struct index *index, struct look *look, struct place *place_ret);
/* The same for a visited page, which may collapse or prune a chain that it meets: see chain_choose(). */
uint32_t stable_tree_search(struct index *index, struct look *look, struct place *place_ret);
/*
 * Makes a new node without sharers for @look's bytes: beside @equal, a node that has them, or filed at
 * @place if that is 0. The frame is @bytes: ours if @is_owned, and then given up if another node of the
 * content has a copy already. 0 if there is no memory. The caller attaches sharers at once.
 */
uint32_t stable_tree_insert(struct index *index, const struct look *look, uint32_t equal,
			    const struct place *place, const uint8_t *bytes, bool is_owned);
/* Makes a VOLATILE item a sharer of the node. */
void stable_tree_attach(struct index *index, uint32_t node_ref, uint32_t item_ref);
/* Makes a sharer VOLATILE again; the node goes with its last one. */
void stable_tree_detach(struct index *index, uint32_t item_ref);
/* Makes all its sharers VOLATILE and frees the node. */
void stable_tree_dissolve(struct index *index, uint32_t node_ref);
/* The same for all nodes of the content that is filed as @content. */
void stable_tree_dissolve_content(struct index *index, uint32_t content);

#endif
