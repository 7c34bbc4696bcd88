/*
 * rbtree.c - insertion and removal as in any textbook; both sides are one code, told by @side.
 *
 *        up                     node
 *       /  \    rotate(up, 0)   /  \
 *      a   node     --->      up    c
 *          /  \              /  \
 *         b    c            a    b
 */
#include "rbtree.h"

static bool is_red(const struct pool *pool, uint32_t ref)
{
	return ref && rb_at(pool, ref)->is_red;
}

/* Whatever pointed at @old_ref below @parent points at @new_ref. */
static void replace_child(const struct pool *pool, uint32_t *root, uint32_t parent, uint32_t old_ref,
			  uint32_t new_ref)
{
	if (!parent) {
		*root = new_ref;
		return;
	}
	struct rb_node *node = rb_at(pool, parent);
	node->child[node->child[1] == old_ref] = new_ref;
}

/* @ref sinks to @side; its child on the other side rises into its place. */
static void rotate(const struct pool *pool, uint32_t *root, uint32_t ref, uint32_t side)
{
	struct rb_node *node = rb_at(pool, ref);
	uint32_t riser_ref = node->child[!side];
	struct rb_node *riser = rb_at(pool, riser_ref);
	uint32_t inner = riser->child[side];

	node->child[!side] = inner;
	if (inner)
		rb_at(pool, inner)->parent = ref;
	riser->parent = node->parent;
	replace_child(pool, root, node->parent, ref, riser_ref);
	riser->child[side] = ref;
	node->parent = riser_ref;
}

void rb_insert(const struct pool *pool, uint32_t *root, uint32_t ref, uint32_t parent, uint32_t side)
{
	*rb_at(pool, ref) = (struct rb_node){ .parent = parent, .is_red = 1 };
	if (parent)
		rb_at(pool, parent)->child[side] = ref;
	else
		*root = ref;

	/* Invariant: @ref is red, and the only fault is that @parent may be red too. */
	while (is_red(pool, parent)) {
		uint32_t grand = rb_at(pool, parent)->parent;
		uint32_t parent_side = rb_at(pool, grand)->child[1] == parent;
		uint32_t uncle = rb_at(pool, grand)->child[!parent_side];
		if (is_red(pool, uncle)) {
			rb_at(pool, parent)->is_red = 0;
			rb_at(pool, uncle)->is_red = 0;
			rb_at(pool, grand)->is_red = 1;
			ref = grand;
			parent = rb_at(pool, ref)->parent;
			continue;
		}
		if (rb_at(pool, parent)->child[!parent_side] == ref) {
			rotate(pool, root, parent, parent_side);
			parent = ref;
		}
		rb_at(pool, parent)->is_red = 0;
		rb_at(pool, grand)->is_red = 1;
		rotate(pool, root, grand, !parent_side);
		break;
	}
	rb_at(pool, *root)->is_red = 0;
}

/* Paths through @ref, a child of @parent that may be 0, are one black short. */
static void restore_black(const struct pool *pool, uint32_t *root, uint32_t ref, uint32_t parent)
{
	while (ref != *root && !is_red(pool, ref)) {
		uint32_t side = rb_at(pool, parent)->child[1] == ref;
		uint32_t sibling = rb_at(pool, parent)->child[!side];
		if (is_red(pool, sibling)) {
			rb_at(pool, sibling)->is_red = 0;
			rb_at(pool, parent)->is_red = 1;
			rotate(pool, root, parent, side);
			sibling = rb_at(pool, parent)->child[!side];
		}
		uint32_t near = rb_at(pool, sibling)->child[side];
		uint32_t far = rb_at(pool, sibling)->child[!side];
		if (!is_red(pool, near) && !is_red(pool, far)) {
			rb_at(pool, sibling)->is_red = 1;
			ref = parent;
			parent = rb_at(pool, ref)->parent;
			continue;
		}
		if (!is_red(pool, far)) {
			rb_at(pool, near)->is_red = 0;
			rb_at(pool, sibling)->is_red = 1;
			rotate(pool, root, sibling, !side);
			far = sibling;
			sibling = near;
		}
		rb_at(pool, sibling)->is_red = rb_at(pool, parent)->is_red;
		rb_at(pool, parent)->is_red = 0;
		rb_at(pool, far)->is_red = 0;
		rotate(pool, root, parent, side);
		ref = *root;
	}
	if (ref)
		rb_at(pool, ref)->is_red = 0;
}

void rb_erase(const struct pool *pool, uint32_t *root, uint32_t ref)
{
	struct rb_node *node = rb_at(pool, ref);
	uint32_t child, parent;
	bool was_black;

	if (node->child[0] && node->child[1]) {
		/* Two children: the next greater object takes its place. */
		uint32_t heir_ref = node->child[1];
		while (rb_at(pool, heir_ref)->child[0])
			heir_ref = rb_at(pool, heir_ref)->child[0];
		struct rb_node *heir = rb_at(pool, heir_ref);
		child = heir->child[1];
		parent = heir->parent;
		was_black = !heir->is_red;
		if (parent == ref) {
			parent = heir_ref;
		} else {
			rb_at(pool, parent)->child[0] = child;
			if (child)
				rb_at(pool, child)->parent = parent;
			heir->child[1] = node->child[1];
			rb_at(pool, heir->child[1])->parent = heir_ref;
		}
		heir->child[0] = node->child[0];
		rb_at(pool, heir->child[0])->parent = heir_ref;
		heir->parent = node->parent;
		heir->is_red = node->is_red;
		replace_child(pool, root, node->parent, ref, heir_ref);
	} else {
		child = node->child[0] ? node->child[0] : node->child[1];
		parent = node->parent;
		was_black = !node->is_red;
		if (child)
			rb_at(pool, child)->parent = parent;
		replace_child(pool, root, parent, ref, child);
	}
	if (was_black)
		restore_black(pool, root, child, parent);
}

void rb_replace(const struct pool *pool, uint32_t *root, uint32_t old_ref, uint32_t new_ref)
{
	struct rb_node *node = rb_at(pool, old_ref);

	*rb_at(pool, new_ref) = *node;
	replace_child(pool, root, node->parent, old_ref, new_ref);
	for (uint32_t side = 0; side < 2; side++)
		if (node->child[side])
			rb_at(pool, node->child[side])->parent = new_ref;
}

uint32_t rb_first(const struct pool *pool, uint32_t root)
{
	uint32_t ref = root;
	while (ref && rb_at(pool, ref)->child[0])
		ref = rb_at(pool, ref)->child[0];
	return ref;
}

uint32_t rb_next(const struct pool *pool, uint32_t ref)
{
	if (rb_at(pool, ref)->child[1])
		return rb_first(pool, rb_at(pool, ref)->child[1]);
	uint32_t parent = rb_at(pool, ref)->parent;
	while (parent && rb_at(pool, parent)->child[1] == ref) {
		ref = parent;
		parent = rb_at(pool, ref)->parent;
	}
	return parent;
}
