/*
 * test_forest.c - the order of pages: search, growth, collisions, deepening.
 *
 * The objects here are pages with a key and nothing else. A small index is played by hand: a set of
 * deepened samples tells which key a page is filed under, as in index.c.
 */
#include "fixture.h"
#include "forest.h"
#include "keyset.h"

#define PAGE_SIZE 512
#define MAX_PAGES 600

struct filed {
	struct rb_node rb;
	uint32_t number;	/* which page */
	uint64_t key;
};
_Static_assert(offsetof(struct filed, key) == KEY_OFFSET, "forests look here");

static uint8_t pages[MAX_PAGES][PAGE_SIZE];
static struct memory memory;
static struct pool pool;
static struct forest forest;
static struct keyset deepened;
static struct work work;
static struct page_rules rules;

static const uint8_t *bytes_of(const struct pool *objects, uint32_t ref)
{
	return pages[((const struct filed *)pool_at(objects, ref))->number];
}

static struct filed *filed_at(uint32_t ref)
{
	return pool_at(&pool, ref);
}

static void begin(lksm_hash hash)
{
	struct lksm_options options = {
		.page_size = PAGE_SIZE,
		.seed = 3,
		.hash = hash,
		.secret = secret_of(3),
		.digest_secret = secret_of(0),
		.secret_size = XXH3_SECRET_DEFAULT_SIZE,
	};
	memory = (struct memory){ 0 };
	memset(pages, 0, sizeof(pages));
	static struct soon soon;
	page_rules_init(&rules, &options, &work, &soon);
	pool_init(&pool, &memory, LKSM_FOR_NODES, sizeof(struct filed), 0);
	forest_init(&forest, &memory, &pool, bytes_of);
	keyset_init(&deepened, &memory);
}

static void end(void)
{
	forest_deinit(&forest);
	keyset_deinit(&deepened);
	pool_deinit(&pool);
	for (uint32_t i = 0; i < LKSM_NR_PURPOSES; i++)
		EXPECT_EQUAL(memory.reserved[i], 0);
}

static struct look look_at(uint32_t number)
{
	struct look look = { .bytes = pages[number], .sample = page_sample(&rules, pages[number]) };
	look.key = look.sample;
	if (!keyset_has(&deepened, look.sample))
		return look;
	look.key = look.hash = page_hash(&rules, look.bytes);
	look.has_hash = look.is_deep = true;
	return look;
}

/* The object with the page's bytes, or 0 and its place; deepens what collides. */
static uint32_t search(uint32_t number, struct look *look_ret, struct place *place_ret)
{
	*look_ret = look_at(number);
	for (int tries = 0; EXPECT(tries < 2); tries++) {
		uint32_t ref = 0;
		switch (forest_search(&forest, &rules, look_ret, place_ret, &ref)) {
		case FOREST_FOUND:
			return ref;
		case FOREST_ABSENT:
			return 0;
		case FOREST_COLLISION:
			EXPECT(!look_ret->is_deep);
			keyset_add(&deepened, look_ret->sample);
			forest_deepen(&forest, &rules, look_ret->sample);
			*look_ret = look_at(number);
		}
	}
	return 0;
}

static uint32_t insert(uint32_t number)
{
	struct look look;
	struct place place = { 0, 0 };
	EXPECT_EQUAL(search(number, &look, &place), 0);
	uint32_t ref = pool_create(&pool);
	*filed_at(ref) = (struct filed){ .number = number, .key = look.key };
	forest_insert(&forest, ref, &place);
	return ref;
}

/* The forest holds as many objects as that, each after the one before by (key, bytes), and finds them all. */
static void expect_forest(uint64_t nr_entries)
{
	static uint32_t refs[MAX_PAGES];
	uint64_t nr_met = 0;
	/* Collected first: a search may deepen, which moves objects. */
	for (uint32_t ref = 0; (ref = forest_next(&forest, ref)) != 0 && nr_met < MAX_PAGES;)
		refs[nr_met++] = ref;
	for (uint64_t i = 1; i < nr_met; i++) {
		uint64_t key = filed_at(refs[i])->key, key_before = filed_at(refs[i - 1])->key;
		int order = page_compare(&rules, bytes_of(&pool, refs[i]), bytes_of(&pool, refs[i - 1]));
		EXPECT(key > key_before || (key == key_before && order > 0));
	}
	for (uint64_t i = 0; i < nr_met; i++) {
		struct look look;
		struct place place;
		EXPECT_EQUAL(search(filed_at(refs[i])->number, &look, &place), refs[i]);
		EXPECT_EQUAL(look.key, filed_at(refs[i])->key);
	}
	EXPECT_EQUAL(nr_met, nr_entries);
	EXPECT_EQUAL(forest.nr_entries, nr_entries);
}

/* Pages that differ at random, or in one bit that no sample sees. */
static void make_random_page(uint32_t number)
{
	uint64_t random = number;
	for (size_t i = 0; i < PAGE_SIZE; i++)
		pages[number][i] = (uint8_t)next_random(&random);
}

static size_t hidden_byte(void)
{
	size_t line = 0;
	while (line == rules.lines[0] || line == rules.lines[1])
		line += LINE_SIZE;
	return line + 7;
}

static void make_hidden_page(uint32_t number)
{
	pages[number][hidden_byte()] = (uint8_t)number;
	pages[number][hidden_byte() + 1] = (uint8_t)(number >> 8);
}

/* Whatever the hash, different pages are all found, in the one order, while the forest grows. */
static void test_order_and_growth(void)
{
	for (size_t i = 0; i < NR_HASHES; i++) {
		for (int is_hidden = 0; is_hidden < 2; is_hidden++) {
			begin(all_hashes[i]);
			for (uint32_t number = 0; number < MAX_PAGES; number++) {
				if (is_hidden)
					make_hidden_page(number);
				else
					make_random_page(number);
				insert(number);
				if (number % 97 == 0)
					expect_forest(number + 1);
			}
			expect_forest(MAX_PAGES);
			/* Four times it has grown, and is at it again. */
			EXPECT(forest.root_bits == 8 && forest.nr_split && forest.nr_split < 256);
			end();
		}
	}
}

/* Removing in any order leaves a sound forest, and what was removed is not found. */
static void test_remove(void)
{
	for (size_t i = 0; i < NR_HASHES; i++) {
		static uint32_t refs[MAX_PAGES];
		uint64_t random = 11;
		struct look look;
		struct place place;
		begin(all_hashes[i]);
		for (uint32_t number = 0; number < MAX_PAGES; number++) {
			make_random_page(number);
			refs[number] = insert(number);
		}
		for (uint32_t left = MAX_PAGES; left > 0; left--) {
			uint32_t j = (uint32_t)(next_random(&random) % left);
			uint32_t number = filed_at(refs[j])->number;
			forest_remove(&forest, refs[j]);
			EXPECT_EQUAL(search(number, &look, &place), 0);
			pool_destroy(&pool, refs[j]);
			refs[j] = refs[left - 1];
			if (left % 53 == 0)
				expect_forest(left - 1);
		}
		expect_forest(0);
		EXPECT_EQUAL(forest_next(&forest, 0), 0);
		end();
	}
}

/* Two pages with one sample deepen their class: both are filed under hashes, others stay. */
static void test_collision_deepens(void)
{
	begin(strong_hash);
	make_random_page(0);
	uint32_t other = insert(0);
	make_hidden_page(1);
	make_hidden_page(2);
	uint64_t sample = page_sample(&rules, pages[1]);
	uint32_t first = insert(1);
	EXPECT_EQUAL(filed_at(first)->key, sample);
	EXPECT_EQUAL(deepened.nr_keys, 0);
	uint32_t second = insert(2);
	EXPECT_EQUAL(deepened.nr_keys, 1);
	EXPECT_EQUAL(filed_at(first)->key, page_hash(&rules, pages[1]));
	EXPECT_EQUAL(filed_at(second)->key, page_hash(&rules, pages[2]));
	EXPECT_EQUAL(filed_at(other)->key, page_sample(&rules, pages[0]));
	expect_forest(3);
	end();
}

/* An object written since it was filed keeps its key: deepening leaves it where it is. */
static void test_written_objects_stay(void)
{
	begin(strong_hash);
	make_hidden_page(1);
	uint32_t written = insert(1);
	uint64_t sample = filed_at(written)->key;
	pages[1][rules.lines[0]] = 9;
	forest_deepen(&forest, &rules, sample);
	EXPECT_EQUAL(filed_at(written)->key, sample);

	/* It has our key and other bytes, but is no member of our class: no collision. */
	make_hidden_page(2);
	uint32_t other = insert(2);
	EXPECT_EQUAL(filed_at(other)->key, sample);
	EXPECT_EQUAL(deepened.nr_keys, 0);
	forest_remove(&forest, written);
	expect_forest(1);
	end();
}

/* When a class cannot be deepened its pages stay under one key, ordered by their bytes. */
static void test_order_without_deepening(void)
{
	begin(strong_hash);
	for (uint32_t number = 0; number < 40; number++) {
		make_hidden_page(number);
		struct look look = look_at(number);
		struct place place;
		uint32_t ref = 0, found = 0;
		look.is_deep = true;	/* what index_deepen() does without memory */
		EXPECT_EQUAL(forest_search(&forest, &rules, &look, &place, &found), FOREST_ABSENT);
		ref = pool_create(&pool);
		*filed_at(ref) = (struct filed){ .number = number, .key = look.key };
		forest_insert(&forest, ref, &place);
	}
	/* Later there is memory again: the first collision files them all deep. */
	struct look look;
	struct place place;
	make_hidden_page(40);
	EXPECT_EQUAL(search(40, &look, &place), 0);
	EXPECT(look.is_deep);
	expect_forest(40);
	end();
}

/* Replacing puts another object of the same key and bytes in the same place, also at a root. */
static void test_replace(void)
{
	begin(strong_hash);
	static uint32_t refs[100];
	for (uint32_t number = 0; number < 100; number++) {
		make_random_page(number);
		refs[number] = insert(number);
	}
	for (uint32_t number = 0; number < 100; number++) {
		uint32_t ref = pool_create(&pool);
		*filed_at(ref) = *filed_at(refs[number]);
		forest_replace(&forest, refs[number], ref);
		pool_destroy(&pool, refs[number]);
	}
	expect_forest(100);
	end();
}

/* A reset drops everything and makes room for what is expected. */
static void test_reset(void)
{
	begin(strong_hash);
	for (uint32_t number = 0; number < 100; number++) {
		make_random_page(number);
		insert(number);
	}
	forest_reset(&forest, 1000);
	expect_forest(0);
	EXPECT_EQUAL(forest.root_bits, 10);
	EXPECT_EQUAL(memory.reserved[LKSM_FOR_ROOTS], 4 << 10);
	insert(5);
	forest_reset(&forest, 1000);
	expect_forest(0);
	insert(5);
	expect_forest(1);
	forest_reset(&forest, 0);
	expect_forest(0);
	EXPECT_EQUAL(memory.reserved[LKSM_FOR_ROOTS], 0);
	end();
}

/* Without memory for roots the trees get deeper, and that is all. */
static void test_growth_may_fail(void)
{
	static uint32_t refs[MAX_PAGES];
	begin(strong_hash);
	/* The pool has its chunks already, so only roots ask for memory. */
	for (uint32_t number = 0; number < MAX_PAGES; number++)
		refs[number] = pool_create(&pool);
	for (uint32_t number = 0; number < MAX_PAGES; number++)
		pool_destroy(&pool, refs[number]);
	memory.fail_at = memory.nr_allocations + 1;
	memory.fail_count = 100000;
	for (uint32_t number = 0; number < 300; number++) {
		make_random_page(number);
		insert(number);
	}
	EXPECT_EQUAL(forest.root_bits, 0);
	expect_forest(300);
	memory.fail_at = 0;
	for (uint32_t number = 300; number < MAX_PAGES; number++) {
		make_random_page(number);
		insert(number);
	}
	EXPECT(forest.root_bits == 8 && forest.nr_split && forest.nr_split < 256);
	expect_forest(MAX_PAGES);
	memory.fail_at = memory.nr_allocations + 1;
	forest_reset(&forest, 100000);
	EXPECT_EQUAL(forest.root_bits, 0);
	memory.fail_at = 0;
	insert(1);
	expect_forest(1);
	end();
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_order_and_growth),
		TEST(test_remove),
		TEST(test_collision_deepens),
		TEST(test_written_objects_stay),
		TEST(test_order_without_deepening),
		TEST(test_replace),
		TEST(test_reset),
		TEST(test_growth_may_fail),
	};
	return run_tests(tests, NR_TESTS(tests));
}
