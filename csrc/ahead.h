/*
 * ahead.h - what the next pages will need is asked for early.
 *
 * A visit touches memory in a chain: sampled lines, then the root they choose, the object there, the page
 * behind it. Each link is a cache miss that would be waited for. So pages are taken a window at a time, and the whole
 * window walks the chain link by link before the first of its pages is visited: then its misses are waited for
 * together. Nothing here decides anything: without it the results are the same.
 */
#ifndef AHEAD_H
#define AHEAD_H

#include "types.h"

/* Forgets everything: bytes may have been written since. Call when a batch begins. */
void ahead_reset(struct engine *engine);
/* Looks into a window that begins at @page of @region, and asks for lines of the one behind it. */
void ahead_look(struct engine *engine, const struct region *region, uint64_t page);

static inline struct ahead_page *ahead_page(struct engine *engine, uint64_t page)
{
	return &engine->ahead.pages[page % (2 * AHEAD_PAGES)];
}

/* @page of @region is about to be visited. */
static inline void ahead_of(struct engine *engine, const struct region *region, uint64_t page)
{
	if (page >= engine->ahead.end || region != engine->ahead.region)
		ahead_look(engine, region, page);
}

/* The sample of the page at @bytes, a region's page number @page, if it was taken in this batch. */
static inline bool ahead_sample(struct engine *engine, uint64_t page, const uint8_t *bytes, uint64_t *sample_ret)
{
	const struct ahead_page *ahead = ahead_page(engine, page);
	if (ahead->bytes != bytes || ahead->is_kept)
		return false;
	*sample_ret = ahead->key;
	return true;
}

#endif
