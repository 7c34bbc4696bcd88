/*
 * test_rbtree.c - random insertions, removals and replacements, held to a sorted array.
 */
#include "harness.h"
#include "rbtree.h"

struct number {
	struct rb_node rb;
	uint32_t value;
};

#define NR_VALUES 400

static struct memory memory;
static struct pool pool;
static uint32_t root;
static uint32_t ref_of[NR_VALUES];	/* by value; 0 = not in the tree */

static struct number *number_at(uint32_t ref)
{
	return pool_at(&pool, ref);
}

static uint32_t make_number(uint32_t value)
{
	uint32_t ref = pool_create(&pool);
	number_at(ref)->value = value;
	return ref;
}

static void insert(uint32_t value)
{
	uint32_t parent = 0, side = 0;
	for (uint32_t ref = root; ref; ref = rb_at(&pool, ref)->child[side]) {
		parent = ref;
		side = value > number_at(ref)->value;
	}
	ref_of[value] = make_number(value);
	rb_insert(&pool, &root, ref_of[value], parent, side);
}

static void erase(uint32_t value)
{
	rb_erase(&pool, &root, ref_of[value]);
	pool_destroy(&pool, ref_of[value]);
	ref_of[value] = 0;
}

static void replace(uint32_t value)
{
	uint32_t ref = make_number(value);
	rb_replace(&pool, &root, ref_of[value], ref);
	pool_destroy(&pool, ref_of[value]);
	ref_of[value] = ref;
}

/* Returns the number of black nodes on every path down from @ref, having looked at all of them. */
static uint32_t black_height(uint32_t ref, uint32_t parent)
{
	if (!ref)
		return 0;
	const struct rb_node *node = rb_at(&pool, ref);
	EXPECT_EQUAL(node->parent, parent);
	EXPECT(!node->is_red || (parent && !rb_at(&pool, parent)->is_red));
	uint32_t smaller = black_height(node->child[0], ref);
	uint32_t greater = black_height(node->child[1], ref);
	EXPECT_EQUAL(smaller, greater);
	return smaller + !node->is_red;
}

static void expect_tree(void)
{
	uint32_t ref = rb_first(&pool, root);
	black_height(root, 0);
	for (uint32_t value = 0; value < NR_VALUES; value++) {
		if (!ref_of[value])
			continue;
		if (!EXPECT_EQUAL(ref, ref_of[value]))
			return;
		ref = rb_next(&pool, ref);
	}
	EXPECT_EQUAL(ref, 0);
}

static void begin(void)
{
	memory = (struct memory){ 0 };
	memset(ref_of, 0, sizeof(ref_of));
	root = 0;
	pool_init(&pool, &memory, LKSM_FOR_NODES, sizeof(struct number), 0);
}

static void end(void)
{
	pool_deinit(&pool);
	EXPECT_EQUAL(memory.reserved[LKSM_FOR_NODES], 0);
}

/* A tree without objects has no first one. */
static void test_empty(void)
{
	begin();
	EXPECT_EQUAL(rb_first(&pool, root), 0);
	insert(7);
	EXPECT_EQUAL(rb_next(&pool, root), 0);
	erase(7);
	EXPECT_EQUAL(root, 0);
	end();
}

/* A tree filled in order and emptied from either end is balanced all the time. */
static void test_in_order(void)
{
	for (int is_backwards = 0; is_backwards < 2; is_backwards++) {
		begin();
		for (uint32_t i = 0; i < NR_VALUES; i++) {
			insert(i);
			expect_tree();
		}
		for (uint32_t i = 0; i < NR_VALUES; i++) {
			erase(is_backwards ? NR_VALUES - 1 - i : i);
			expect_tree();
		}
		EXPECT_EQUAL(root, 0);
		end();
	}
}

/* After any sequence of changes the tree holds what the sorted array holds, and is red-black. */
static void test_random(void)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		uint64_t random = seed;
		/* Small ranges empty the tree often, large ones make it deep. */
		uint32_t range = seed < 5 ? (uint32_t)seed * 4 : NR_VALUES;
		begin();
		for (int step = 0; step < 3000; step++) {
			uint32_t value = (uint32_t)(next_random(&random) % range);
			bool is_replacing = next_random(&random) % 4 == 0;
			if (!ref_of[value])
				insert(value);
			else if (is_replacing)
				replace(value);
			else
				erase(value);
			expect_tree();
		}
		end();
		if (nr_failures) {
			printf("seed %" PRIu64 "\n", seed);
			return;
		}
	}
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_empty),
		TEST(test_in_order),
		TEST(test_random),
	};
	return run_tests(tests, NR_TESTS(tests));
}
