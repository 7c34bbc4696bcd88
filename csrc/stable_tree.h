/*
 * stable_tree.h - merged pages: frames, their lists of sharers, and chains of equal frames.
 *
 * A frame's bytes cannot change, so searches are reliable. It is the engine's own copy, or borrowed from
 * a sharer whose memory is immutable; when that sharer leaves, the frame moves to another one.
 */
#ifndef STABLE_TREE_H
#define STABLE_TREE_H

#include "chain.h"

/* The bytes that shall stand for equal pages. */
struct frame {
	const uint8_t *bytes;
	uint32_t memory_node;		/* where they lie */
	bool is_owned;			/* our copy, else borrowed from an immutable page */
};

/*
 * A node of the content that equals @look's bytes, with room if any of them has; 0 if no merged page of the tree
 * has these bytes. May deepen @look's class. @place_ret is where a new content would be filed, if 0.
 */
uint32_t stable_tree_find(struct index *index, uint32_t tree, struct look *look, struct place *place_ret);
/*
 * The same for a visited page, which may collapse or prune a chain that it meets: see chain_choose(). A node it
 * could join, but whose frame has been moved to another memory node, goes to the migrate list instead.
 */
uint32_t stable_tree_search(struct index *index, uint32_t tree, struct look *look, struct place *place_ret);
/*
 * Makes a new node without sharers for @look's bytes: beside @equal, a node that has them, or filed at
 * @place if that is 0, in the tree of the frame's memory node. A frame that is ours is given up if another node
 * of the content has a copy already. 0 if there is no memory. The caller attaches sharers at once.
 */
uint32_t stable_tree_insert(struct index *index, const struct look *look, uint32_t equal,
			    const struct place *place, const struct frame *frame);

/* A walk over all that is merged in a domain, content by content; begins as { 0, 0 }. */
struct content_walk {
	uint32_t tree;			/* that it is in; behind the last one for what is on the migrate list */
	uint32_t content;		/* for content_next() */
};
/* Goes on to the next content. False behind the last one. */
bool stable_tree_next(const struct index *index, struct content_walk *walk);

/* Does its frame lie on another memory node than the pages of the tree it is filed in, or is it in none for that? */
bool stable_tree_is_misplaced(const struct index *index, uint32_t ref);
/* Moves a node from its tree to the migrate list. False if there is no memory to part a dup from its chain. */
bool stable_tree_take_out(struct index *index, uint32_t ref);
/*
 * Moves a node from the migrate list to the tree of its memory node: beside @equal, or at @place if that is 0.
 * False if there is no memory for a chain.
 */
bool stable_tree_file(struct index *index, uint32_t ref, const struct look *look, uint32_t equal,
		      const struct place *place);

/* Makes a VOLATILE item a sharer of the node. */
void stable_tree_attach(struct index *index, uint32_t node_ref, uint32_t item_ref);
/* Makes a sharer VOLATILE again; the node goes with its last one. */
void stable_tree_detach(struct index *index, uint32_t item_ref);
#define ANY_NODE (-1)
/* Makes all sharers of frames on this memory node, or on any, VOLATILE and frees the nodes. Needs no memory. */
void stable_tree_dissolve_all(struct index *index, int64_t memory_node);
/* Frees the frames that are copies. What is filed must not be looked at any more: the engine is being destroyed. */
void stable_tree_free_copies(struct index *index);

#endif
