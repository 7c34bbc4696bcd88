/*
 * chain.h - several frames of one content, because no frame may have more than max_page_sharing sharers.
 */
#ifndef CHAIN_H
#define CHAIN_H

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

/* The chain of a node, put in its place if it is a plain one; 0 if there is no memory. */
uint32_t chain_get(struct index *index, uint32_t ref);
/* A node of the chain's content that has room becomes its first dup. */
void chain_add(struct index *index, uint32_t chain_ref, uint32_t ref);
/* A dup leaves, and the chain goes with the last one. */
void chain_leave(struct index *index, uint32_t ref);

/*
 * A dup with sharers leaves for another tree. The bytes that it shared with other dups it has copied: false if there
 * is no memory for that. The only dup of a chain becomes a plain node, and is in its tree still.
 */
bool chain_release(struct index *index, uint32_t ref);

/*
 * The node of a content that a page may join: one with room, if any has. A chain of one dup collapses; of one
 * that is due to be pruned the fullest dup that has room is chosen.
 */
uint32_t chain_choose(struct index *index, uint32_t content);
/* Prunes every chain that is due: if it has one dup left it collapses. Costs nothing if none is due. */
void chain_prune(struct index *index);

/* The node, a dup or a plain one, has no room any more; has some again. */
void chain_node_is_full(struct engine *engine, uint32_t ref);
void chain_node_has_room(struct engine *engine, uint32_t ref);

/* The copy that the dups of the node's chain share; NULL if they have none, or if the node is a plain one. */
const uint8_t *chain_copy(const struct engine *engine, const struct stable_node *node);
/* The copy becomes the node's frame, and that of other dups of its chain which come to need one. */
void chain_own_copy(struct engine *engine, struct stable_node *node, const uint8_t *copy);

#endif
