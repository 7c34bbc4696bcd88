/*
 * test_keyset.c - a set of keys, held to an array of booleans.
 */
#include "harness.h"
#include "keyset.h"

#define NR_KEYS 600

/* Keys whose low bits are all alike, so that they crowd at one place; key 0 is among them. */
static uint64_t crowded_key(uint64_t i)
{
	return i << 56 | (i >> 8) << 40;
}

static uint64_t spread_key(uint64_t i)
{
	uint64_t random = i;
	return next_random(&random);
}

/* Whatever the keys, the set holds what was added and nothing else. */
static void test_holds_what_was_added(void)
{
	uint64_t (*const key_of[])(uint64_t) = { crowded_key, spread_key };
	for (int kind = 0; kind < 2; kind++) {
		struct memory memory = { 0 };
		struct keyset set;
		bool is_in[NR_KEYS] = { false };
		uint64_t nr_in = 0, random = 7;
		keyset_init(&set, &memory);
		for (int step = 0; step < 2000; step++) {
			uint64_t i = next_random(&random) % NR_KEYS;
			EXPECT_EQUAL(keyset_has(&set, key_of[kind](i)), is_in[i]);
			if (step % 3)
				continue;
			EXPECT(keyset_add(&set, key_of[kind](i)));
			nr_in += !is_in[i] && key_of[kind](i);
			is_in[i] = true;
			EXPECT_EQUAL(set.nr_keys, nr_in);
		}
		for (uint64_t i = 0; i < NR_KEYS; i++)
			EXPECT_EQUAL(keyset_has(&set, key_of[kind](i)), is_in[i]);
		keyset_deinit(&set);
		EXPECT(!keyset_has(&set, key_of[kind](1)));
		EXPECT_EQUAL(memory.reserved[LKSM_FOR_KEYS], 0);
	}
}

/* Key 0 is a key like any other, and needs no memory. */
static void test_key_zero(void)
{
	struct memory memory = { .fail_at = 1, .fail_count = 100 };
	struct keyset set;
	keyset_init(&set, &memory);
	EXPECT(!keyset_has(&set, 0));
	EXPECT(keyset_add(&set, 0));
	EXPECT(keyset_has(&set, 0));
	EXPECT(!keyset_has(&set, 1));
	keyset_deinit(&set);
	EXPECT(!keyset_has(&set, 0));
}

/* A set that cannot grow says so, holds what it held, and grows later. */
static void test_growth_may_fail(void)
{
	struct memory memory = { 0 };
	struct keyset set;
	uint64_t nr_failed = 0;
	keyset_init(&set, &memory);
	for (uint64_t key = 1; key <= 100; key++) {
		memory.fail_at = memory.nr_allocations + 1;
		if (!keyset_add(&set, key)) {
			nr_failed++;
			EXPECT(!keyset_has(&set, key));
			memory.fail_at = 0;
			EXPECT(keyset_add(&set, key));
		}
		for (uint64_t other = 1; other <= 100; other++)
			EXPECT_EQUAL(keyset_has(&set, other), other <= key);
	}
	EXPECT_EQUAL(nr_failed, 5);	/* 16, 32, 64, 128 and 256 places */
	keyset_deinit(&set);
	EXPECT_EQUAL(memory.reserved[LKSM_FOR_KEYS], 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_holds_what_was_added),
		TEST(test_key_zero),
		TEST(test_growth_may_fail),
	};
	return run_tests(tests, NR_TESTS(tests));
}
