/*
 * test_page.c - comparing, sampling, hashing one page.
 */
#include "fixture.h"
#include "page.h"

static struct work work;	/* of all rules made here */

static struct page_rules make_rules(uint64_t page_size, uint64_t seed)
{
	struct page_rules rules;
	struct lksm_options options = {
		.page_size = page_size,
		.seed = seed,
		.hash = strong_hash,
		.secret = secret_of(seed),
		.digest_secret = secret_of(0),
		.secret_size = XXH3_SECRET_DEFAULT_SIZE,
	};
	static struct soon soon;
	page_rules_init(&rules, &options, &work, &soon);
	return rules;
}

/* Pages are ordered by their bytes without sign, over their whole length. */
static void test_compare(void)
{
	struct page_rules rules = make_rules(256, 1);
	uint8_t a[256] = { 0 }, b[256] = { 0 };
	EXPECT(page_compare(&rules, a, b) == 0);
	b[255] = 1;
	EXPECT(page_compare(&rules, a, b) < 0 && page_compare(&rules, b, a) > 0);
	a[255] = 0x80;
	EXPECT(page_compare(&rules, a, b) > 0);
	b[0] = 1;
	EXPECT(page_compare(&rules, a, b) < 0);
}

/* The order is memcmp's wherever the difference is, whatever is asked for meanwhile; that goes no farther than a page. */
static void test_order_while_others_are_asked_for(void)
{
	static uint8_t a[16384], b[16384], next[2][16384];
	for (uint64_t page_size = 64; page_size <= 16384; page_size *= 2) {
		struct page_rules rules = make_rules(page_size, 1);
		uint64_t usual = page_size < USUAL_PAGE ? page_size : USUAL_PAGE;
		bool is_asked_for = page_size >= 256;	/* smaller ones are compared at once */
		for (uint64_t i = 0; i <= page_size; i += i < 600 ? 1 : 61) {
			uint64_t left = i % 3 ? 512 : 0;
			struct soon soon = { .pages = { next[0], i % 2 ? next[1] : NULL }, .asked = i % 5 ? 0 : 256, .left = left };
			if (i < page_size)
				b[i] = 1 + i % 7;
			int order = memcmp(a, b, page_size);
			EXPECT_EQUAL(page_order(&rules, a, b, &soon) < 0, order < 0);
			if (is_asked_for && order)
				EXPECT_EQUAL(soon.asked, usual);
			else if (is_asked_for && usual > left)
				EXPECT_EQUAL(soon.asked, usual - left);
			struct soon nothing = { .pages = { NULL, NULL } };
			EXPECT_EQUAL(page_order(&rules, b, a, &nothing) > 0, order < 0);
			EXPECT_EQUAL(page_order(&rules, a, a, &nothing), 0);
			b[i < page_size ? i : 0] = 0;
		}
	}
}

/* A compare is booked as far as it had to look: to the first difference, or over the whole page. */
static void test_compared_bytes_are_booked(void)
{
	for (uint64_t page_size = 64; page_size <= 4096; page_size *= 4) {
		struct page_rules rules = make_rules(page_size, 1);
		uint8_t a[4096] = { 0 }, b[4096] = { 0 };
		for (size_t i = 0; i <= page_size; i++) {
			if (i < page_size)
				b[i] = 1;
			if (i + 7 < page_size)
				b[i + 7] = 1;		/* what differs behind it is not looked at */
			work = (struct work){ 0 };
			page_compare(&rules, a, b);
			page_compare(&rules, b, a);
			EXPECT_EQUAL(work.bytes_compared, 2 * (i < page_size ? i + 1 : page_size));
			EXPECT_EQUAL(work.bytes_hashed, 0);
			memset(b, 0, sizeof(b));
		}
		EXPECT_EQUAL(page_difference(&rules, a, b), page_size);	/* made equal after the compare */
	}
}

/* Samples and whole pages are booked by the bytes handed to the hash; digests and zero tests are not. */
static void test_hashed_bytes_are_booked(void)
{
	static const uint8_t page[1024] = { 0 };
	for (uint64_t page_size = 64; page_size <= 1024; page_size *= 2) {
		struct page_rules rules = make_rules(page_size, 1);
		struct look look = { .bytes = page };
		work = (struct work){ 0 };
		page_sample(&rules, page);
		EXPECT_EQUAL(work.bytes_hashed, page_size <= SAMPLE_SIZE ? page_size : SAMPLE_SIZE);
		work = (struct work){ 0 };
		page_hash(&rules, page);
		EXPECT_EQUAL(work.bytes_hashed, page_size);
		page_checksum(&rules, &look);
		page_checksum(&rules, &look);
		EXPECT_EQUAL(work.bytes_hashed, 2 * page_size);
		page_digest(&rules, page);
		page_is_zero(&rules, page);
		EXPECT_EQUAL(work.bytes_hashed, 2 * page_size);
		EXPECT_EQUAL(work.bytes_compared, 0);
	}
}

/* Sampled lines lie one in each half, in order, and follow from the seed. */
static void test_lines_follow_from_seed(void)
{
	for (uint64_t page_size = 256; page_size <= 65536; page_size *= 2) {
		bool differ = false;
		for (uint64_t seed = 0; seed < 50; seed++) {
			struct page_rules rules = make_rules(page_size, seed), same = make_rules(page_size, seed);
			struct page_rules other = make_rules(page_size, seed + 1);
			uint64_t nr_lines = page_size / LINE_SIZE;
			EXPECT_EQUAL((uint64_t)1 << rules.page_shift, page_size);
			EXPECT(!rules.is_sample_whole);
			for (uint64_t i = 0; i < SAMPLE_LINES; i++) {
				uint64_t line = rules.lines[i] / LINE_SIZE;
				EXPECT_EQUAL(rules.lines[i] % LINE_SIZE, 0);
				EXPECT(line >= nr_lines * i / SAMPLE_LINES);
				EXPECT(line < nr_lines * (i + 1) / SAMPLE_LINES);
				EXPECT_EQUAL(rules.lines[i], same.lines[i]);
				differ |= rules.lines[i] != other.lines[i];
			}
		}
		EXPECT(differ);
	}
}

/* A sample changes with the sampled lines and with nothing else. */
static void test_sample_sees_sampled_lines(void)
{
	struct page_rules rules = make_rules(1024, 5);
	uint8_t page[1024] = { 0 };
	uint64_t sample = page_sample(&rules, page), hash = page_hash(&rules, page);
	for (size_t i = 0; i < sizeof(page); i++) {
		size_t line = i / LINE_SIZE * LINE_SIZE;
		bool is_in_line = line == rules.lines[0] || line == rules.lines[1];
		bool is_sampled = is_in_line && i - line < SAMPLE_BYTES;
		page[i] = 1;
		EXPECT_EQUAL(page_sample(&rules, page) != sample, is_sampled);
		EXPECT(page_hash(&rules, page) != hash);
		page[i] = 0;
	}
}

/* Pages of two lines or fewer are sampled whole. */
static void test_small_pages_are_sampled_whole(void)
{
	for (uint64_t page_size = 64; page_size <= 128; page_size *= 2) {
		struct page_rules rules = make_rules(page_size, 9);
		uint8_t page[128] = { 3, 1, 4 };
		EXPECT(rules.is_sample_whole);
		EXPECT_EQUAL(page_sample(&rules, page), page_hash(&rules, page));
	}
}

/* Keys depend on the engine's secret, digests do not. */
static void test_digest_is_the_same_everywhere(void)
{
	uint8_t page[256] = { 3, 1, 4 };
	struct page_rules a = make_rules(256, 1);
	uint64_t key = page_hash(&a, page), digest = page_digest(&a, page);
	struct page_rules b = make_rules(256, 2);
	EXPECT(page_hash(&b, page) != key);
	EXPECT_EQUAL(page_digest(&b, page), digest);
	EXPECT_EQUAL(digest, XXH3_64bits(page, sizeof(page)));
}

/* A checksum is 31 bits of the hash, bit 0 clear, and is hashed at most once a look. */
static void test_checksum(void)
{
	struct page_rules rules = make_rules(256, 1);
	uint8_t page[256];
	for (int i = 0; i < 100; i++) {
		memset(page, i, sizeof(page));
		struct look look = { .bytes = page };
		uint32_t checksum = page_checksum(&rules, &look);
		EXPECT_EQUAL(checksum & 1, 0);
		EXPECT_EQUAL(checksum, (uint32_t)page_hash(&rules, page) & ~1u);
		EXPECT(look.has_hash);
		look.hash = 0x1234567890abcdefu;
		EXPECT_EQUAL(page_checksum(&rules, &look), 0x90abcdeeu);
	}
}

/* A page is zero if each of its bytes is. */
static void test_is_zero(void)
{
	struct page_rules rules = make_rules(256, 1);
	uint8_t page[256] = { 0 };
	EXPECT(page_is_zero(&rules, page));
	for (size_t i = 0; i < sizeof(page); i++) {
		page[i] = 0x80;
		EXPECT(!page_is_zero(&rules, page));
		page[i] = 0;
	}
	memset(page, 5, sizeof(page));
	EXPECT(!page_is_zero(&rules, page));
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_compare),
		TEST(test_order_while_others_are_asked_for),
		TEST(test_compared_bytes_are_booked),
		TEST(test_hashed_bytes_are_booked),
		TEST(test_lines_follow_from_seed),
		TEST(test_sample_sees_sampled_lines),
		TEST(test_small_pages_are_sampled_whole),
		TEST(test_digest_is_the_same_everywhere),
		TEST(test_checksum),
		TEST(test_is_zero),
	};
	return run_tests(tests, NR_TESTS(tests));
}
