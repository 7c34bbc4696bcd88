/*
 * stable_tree.h - merged pages: frames, their lists of sharers, and chains of equal frames.
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

/* Walks the nodes of the content that is filed as @content: start with 0, ends with 0. */
static inline uint32_t content_next(const struct engine *engine, uint32_t content, uint32_t ref)
{
	const struct stable_node *filed = node_at(engine, content);
	if (filed->kind != NODE_CHAIN)
		return ref ? 0 : content;
	uint32_t next = ref ? node_at(engine, ref)->dup.next : filed->first_dup;
	return ref && next == filed->first_dup ? 0 : next;
}

/*
 * A node of the content that equals @look's bytes, with room if any of them has; 0 if no merged page has
 * these bytes. May deepen @look's class. @place_ret is where a new content would be filed, if 0.
 */
uint32_t stable_tree_find(struct index *index, struct look *look, struct place *place_ret);
/*
 * The same for a visited page. A chain that is met collapses if it has one dup; if it is due to be pruned,
 * the fullest node that has room is found.
 */
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
/* Prunes every chain that is due: if it has one dup left it collapses. Costs nothing if none is due. */
void stable_tree_prune(struct index *index);

#endif
