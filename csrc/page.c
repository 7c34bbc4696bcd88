/*
 * page.c - keys and digests of single pages.
 */
#include "page.h"

/* A step of a well-mixing counter generator: enough to spread a seed over line numbers. */
static uint64_t next_random(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15u;
	uint64_t x = *state;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

void page_rules_init(struct page_rules *rules, const struct lksm_options *options, struct work *work,
		     struct soon *soon)
{
	*rules = (struct page_rules){
		.page_size = options->page_size,
		.hash = options->hash,
		.secret = options->secret,
		.digest_secret = options->digest_secret,
		.secret_size = options->secret_size,
		.work = work,
		.soon = soon,
	};
	while ((uint64_t)1 << rules->page_shift < options->page_size)
		rules->page_shift++;

	uint64_t nr_lines = options->page_size / LINE_SIZE;
	rules->is_sample_whole = nr_lines <= SAMPLE_LINES;
	static const uint8_t zeros[USUAL_PAGE];
	rules->zero_sample = rules->hash(zeros, rules->is_sample_whole ? rules->page_size : SAMPLE_SIZE,
					 rules->secret, rules->secret_size);
	rules->has_zero_hash = rules->page_size <= sizeof(zeros);
	if (rules->has_zero_hash)
		rules->zero_hash = rules->hash(zeros, rules->page_size, rules->secret, rules->secret_size);
	if (rules->is_sample_whole)
		return;
	/* One line from each half: apart from each other, and never the same. */
	uint64_t state = options->seed;
	for (uint64_t i = 0; i < SAMPLE_LINES; i++) {
		uint64_t first = nr_lines * i / SAMPLE_LINES;
		uint64_t after = nr_lines * (i + 1) / SAMPLE_LINES;
		rules->lines[i] = (uint32_t)((first + next_random(&state) % (after - first)) * LINE_SIZE);
	}
}

uint64_t page_take_sample(const struct page_rules *rules, const uint8_t *bytes)
{
	if (rules->is_sample_whole)
		return page_take_hash(rules, bytes);
	uint8_t sample[SAMPLE_SIZE];
	for (uint32_t i = 0; i < SAMPLE_LINES; i++)
		memcpy(sample + i * SAMPLE_BYTES, bytes + rules->lines[i], SAMPLE_BYTES);
	return rules->hash(sample, sizeof(sample), rules->secret, rules->secret_size);
}

uint64_t page_take_hash(const struct page_rules *rules, const uint8_t *bytes)
{
	return rules->hash(bytes, rules->page_size, rules->secret, rules->secret_size);
}

uint64_t page_digest(const struct page_rules *rules, const uint8_t *bytes)
{
	return rules->hash(bytes, rules->page_size, rules->digest_secret, rules->secret_size);
}

#define PIECE 256	/* bytes that are compared before more is asked for */

/* With vectors as wide as the machine at hand has them. TSan is not ready when the loader asks which machine that is. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__) && \
	defined(__OPTIMIZE__)
#define FOR_THIS_MACHINE __attribute__((target_clones("avx2", "default")))
#else
#define FOR_THIS_MACHINE
#endif

static inline bool piece_differs(const uint8_t *a, const uint8_t *b)
{
	uint64_t differences = 0;
	for (size_t at = 0; at < PIECE; at += sizeof(uint64_t)) {
		uint64_t one, other;
		memcpy(&one, a + at, sizeof(one));
		memcpy(&other, b + at, sizeof(other));
		differences |= one ^ other;
	}
	return differences;
}

static inline void ask_for_piece(const uint8_t *bytes)
{
	for (size_t at = 0; at < PIECE; at += LINE_SIZE)
		prefetch(bytes + at);
}

/* Where the first piece that differs begins, or @size. */
FOR_THIS_MACHINE static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t size, struct soon *soon)
{
	const uint8_t *one = soon->pages[0], *other = soon->pages[1];
	uint64_t asked = soon->asked, at = 0;
	uint64_t usual = size < USUAL_PAGE ? size : USUAL_PAGE;
	uint64_t last = one && usual > soon->left ? usual - soon->left : 0;

	for (; at < size && !piece_differs(a + at, b + at); at += PIECE) {
		if (asked >= last)
			continue;
		ask_for_piece(one + asked);
		if (other)
			ask_for_piece(other + asked);
		asked += PIECE;
	}
	soon->asked = asked;
	return at;
}

int page_order(const struct page_rules *rules, const uint8_t *a, const uint8_t *b, struct soon *soon)
{
	uint64_t size = rules->page_size;
	if (size % PIECE)
		return memcmp(a, b, size);
	uint64_t at = first_difference(a, b, size, soon);
	if (at == size)
		return 0;
	soon_ask_all(soon, size);
	return memcmp(a + at, b + at, size - at);	/* of all that is left, for its owner may have changed it since */
}

/* Asked only of pages that a compare has told apart; their owner may have made them equal since. */
uint64_t page_difference(const struct page_rules *rules, const uint8_t *a, const uint8_t *b)
{
	uint64_t at = 0;
	while (at < rules->page_size && !memcmp(a + at, b + at, LINE_SIZE))
		at += LINE_SIZE;
	while (at < rules->page_size && a[at] == b[at])
		at++;
	return at < rules->page_size ? at + 1 : rules->page_size;
}

/* A page is zero if its first byte is, and every other equals the one before it. */
bool page_is_zero(const struct page_rules *rules, const uint8_t *bytes)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, rules->page_size - 1);
}

/* Asked of few pages: of those that are not zero, though their sample is. */
uint64_t page_zero_bytes(const struct page_rules *rules, const uint8_t *bytes)
{
	static const uint8_t zeros[LINE_SIZE];
	uint64_t at = 0;
	while (at < rules->page_size && !memcmp(bytes + at, zeros, LINE_SIZE))
		at += LINE_SIZE;
	while (at < rules->page_size && !bytes[at])
		at++;
	return at;
}
