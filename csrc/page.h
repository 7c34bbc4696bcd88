/*
 * page.h - one page: compare, keys, checksum, is-zero. Pure, but for booking what it cost; knows no trees.
 */
#ifndef PAGE_H
#define PAGE_H

#include "types.h"

#include <string.h>

/* The sampled lines follow from the seed, so pages cannot be crafted to collide without knowing it. */
void page_rules_init(struct page_rules *rules, const struct lksm_options *options, struct work *work);

/* Key taken from a few cache lines. */
uint64_t page_sample(const struct page_rules *rules, const uint8_t *bytes);
/* Key taken from the whole page. */
uint64_t page_hash(const struct page_rules *rules, const uint8_t *bytes);
/* The same number for the same bytes in every engine. */
uint64_t page_digest(const struct page_rules *rules, const uint8_t *bytes);
/* One load if the first byte is not zero. */
bool page_is_zero(const struct page_rules *rules, const uint8_t *bytes);
/* Zeros that the page begins with. */
uint64_t page_zero_bytes(const struct page_rules *rules, const uint8_t *bytes);

/* Bytes up to the first that differs, that one included; all of them if none does. */
uint64_t page_difference(const struct page_rules *rules, const uint8_t *a, const uint8_t *b);

/* Asks for the lines that page_sample() will read. */
static inline void page_prefetch_sample(const struct page_rules *rules, const uint8_t *bytes)
{
	bool is_split = (uintptr_t)bytes % LINE_SIZE > LINE_SIZE - SAMPLE_BYTES;
	for (uint32_t i = 0; i < SAMPLE_LINES; i++) {
		__builtin_prefetch(bytes + rules->lines[i]);
		if (is_split)
			__builtin_prefetch(bytes + rules->lines[i] + SAMPLE_BYTES - 1);
	}
}

/* Less than, equal to or greater than 0, as memcmp. The only thing that may say "equal". */
static inline int page_compare(const struct page_rules *rules, const uint8_t *a, const uint8_t *b)
{
	int order = memcmp(a, b, rules->page_size);
	rules->work->bytes_compared += order ? page_difference(rules, a, b) : rules->page_size;
	return order;
}

/* Whether @look's page has changed since its last gated visit is told by these 31 bits. */
static inline uint32_t page_checksum(const struct page_rules *rules, struct look *look)
{
	if (!look->has_hash) {
		look->hash = page_hash(rules, look->bytes);
		look->has_hash = true;
	}
	return (uint32_t)look->hash & ~(uint32_t)1;
}

#endif
