/*
 * page.h - one page: compare, keys, checksum, is-zero. Pure, but for booking what it cost; knows no trees.
 */
#ifndef PAGE_H
#define PAGE_H

#include "types.h"

#include <string.h>

/* The sampled lines follow from the seed, so pages cannot be crafted to collide without knowing it. */
void page_rules_init(struct page_rules *rules, const struct lksm_options *options, struct work *work,
		     struct soon *soon);

/* Key taken from a few cache lines, and from the whole page. What it cost is not booked. */
uint64_t page_take_sample(const struct page_rules *rules, const uint8_t *bytes);
uint64_t page_take_hash(const struct page_rules *rules, const uint8_t *bytes);
/* The same number for the same bytes in every engine. */
uint64_t page_digest(const struct page_rules *rules, const uint8_t *bytes);
/* One load if the first byte is not zero. */
bool page_is_zero(const struct page_rules *rules, const uint8_t *bytes);
/* Zeros that the page begins with. */
uint64_t page_zero_bytes(const struct page_rules *rules, const uint8_t *bytes);

/* Bytes up to the first that differs, that one included; all of them if none does. */
uint64_t page_difference(const struct page_rules *rules, const uint8_t *a, const uint8_t *b);

/* Asks for the line. A function that does nothing else would be taken for one that does nothing, and left out. */
static inline void prefetch(const void *line)
{
	__builtin_prefetch(line);
	__asm__ volatile("");
}

#define USUAL_PAGE 4096

/*
 * Asks for all of a page: read from its start, the processor would see too late where that goes. Of a larger one
 * for its beginning, which is long enough for that to be seen.
 */
static inline void page_prefetch(const struct page_rules *rules, const uint8_t *bytes)
{
	for (uint64_t at = 0; at < rules->page_size && at < USUAL_PAGE; at += LINE_SIZE)
		prefetch(bytes + at);
}

/* Asks for so many more bytes of them. A page that is longer than is usual is asked for as far as that goes. */
static inline void soon_ask(struct soon *soon, uint64_t nr_bytes, uint64_t page_size)
{
	uint64_t end = soon->asked + nr_bytes, last = page_size < USUAL_PAGE ? page_size : USUAL_PAGE;
	if (end > last)
		end = last;
	for (uint64_t at = soon->asked; soon->pages[0] && at < end; at += LINE_SIZE)
		prefetch(soon->pages[0] + at);
	for (uint64_t at = soon->asked; soon->pages[1] && at < end; at += LINE_SIZE)
		prefetch(soon->pages[1] + at);
	soon->asked = end;
}

static inline void soon_ask_all(struct soon *soon, uint64_t page_size)
{
	soon_ask(soon, page_size, page_size);
}

/* Asks for the lines that page_sample() will read. */
static inline void page_prefetch_sample(const struct page_rules *rules, const uint8_t *bytes)
{
	bool is_split = (uintptr_t)bytes % LINE_SIZE > LINE_SIZE - SAMPLE_BYTES;
	for (uint32_t i = 0; i < SAMPLE_LINES; i++) {
		prefetch(bytes + rules->lines[i]);
		if (is_split)
			prefetch(bytes + rules->lines[i] + SAMPLE_BYTES - 1);
	}
}

static inline void page_copy_bytes(const struct page_rules *rules, uint8_t *to, const uint8_t *from)
{
	memcpy(to, from, rules->page_size);
}

/*
 * Less than, equal to or greater than 0, as memcmp. The only thing that may say "equal". Meanwhile @soon is asked for: all at once would be more lines than the
 * processor can ask for at a time, so it would wait.
 */
int page_order(const struct page_rules *rules, const uint8_t *a, const uint8_t *b, struct soon *soon);

/* The same, booked. */
static inline int page_compare(const struct page_rules *rules, const uint8_t *a, const uint8_t *b)
{
	int order = page_order(rules, a, b, rules->soon);
	rules->work->bytes_compared += order ? page_difference(rules, a, b) : rules->page_size;
	return order;
}

static inline void page_book_sample(const struct page_rules *rules)
{
	rules->work->bytes_hashed += rules->is_sample_whole ? rules->page_size : SAMPLE_SIZE;
}

static inline uint64_t page_sample(const struct page_rules *rules, const uint8_t *bytes)
{
	page_book_sample(rules);
	return page_take_sample(rules, bytes);
}

static inline uint64_t page_hash(const struct page_rules *rules, const uint8_t *bytes)
{
	rules->work->bytes_hashed += rules->page_size;
	return page_take_hash(rules, bytes);
}

/* --- the same for a page that may have been foreseen ------------------------------------------- */

/* Books what it would have cost now, so that nobody can tell when it was found out. */
static inline int foreseen_compare(const struct page_rules *rules, const struct foreseen *foreseen)
{
	rules->work->bytes_compared += foreseen->nr_compared;
	return foreseen->order;
}

/* Was a page compared with the bytes of that frame, or of that other page? */
static inline bool is_foreseen(const struct foreseen *foreseen, const uint8_t *other)
{
	return foreseen && foreseen->is_compared && foreseen->other == other;
}

static inline uint64_t look_hash(const struct page_rules *rules, const struct look *look)
{
	if (!look->foreseen || !look->foreseen->has_hash)
		return page_hash(rules, look->bytes);
	rules->work->bytes_hashed += rules->page_size;
	return look->foreseen->hash;
}

static inline uint32_t hash_checksum(uint64_t hash)
{
	return (uint32_t)hash & ~(uint32_t)1;
}

/* Whether @look's page has changed since its last gated visit is told by these 31 bits. */
static inline uint32_t page_checksum(const struct page_rules *rules, struct look *look)
{
	if (!look->has_hash) {
		look->hash = look_hash(rules, look);
		look->has_hash = true;
	}
	return hash_checksum(look->hash);
}

#endif
