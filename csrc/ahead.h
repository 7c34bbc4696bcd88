/*
 * ahead.h - what the next pages will need is asked for early.
 *
 * A visit touches memory in a chain: sampled lines, then the root they choose, the object there, the page
 * behind it. Each link is a cache miss that would be waited for. So the pages soon to be visited are
 * walked through the same chain in steps, a group of neighbours at a time, each step some groups ahead, and
 * finds what the one before asked for. Nothing here decides anything: without it the results are the same.
 */
#ifndef AHEAD_H
#define AHEAD_H

#include "helpers.h"

/* Forgets everything: bytes may have been written since. Call when a batch begins, and when it ends: no errand is left then. */
void ahead_reset(struct engine *engine);
/* @page of @region is about to be visited: takes the next steps for the pages that follow it. */
void ahead_of(struct engine *engine, const struct region *region, uint64_t page);

static inline struct ahead_page *ahead_page(struct engine *engine, uint64_t page)
{
	return &engine->ahead.pages[page & engine->ahead.mask];
}

/* What was found out about the bytes of a page that is visited; NULL: nothing. */
static inline const struct foreseen *ahead_foreseen(struct engine *engine, uint64_t page)
{
	struct foreseen *foreseen = &engine->ahead.foreseen[page & engine->ahead.mask];
	if (!foreseen->has_hash && !foreseen->is_compared)
		return NULL;
	if (foreseen->nr_gone != engine->nr_gone)
		foreseen->forest = NULL;	/* its reference may be another node's now */
	return foreseen;
}

/* The sample of the page at @bytes, which is visited, if it was taken in this batch. */
static inline bool ahead_sample(struct engine *engine, uint64_t page, const uint8_t *bytes, uint64_t *sample_ret)
{
	const struct ahead_page *ahead = ahead_page(engine, page);
	if (ahead->bytes != bytes || ahead->is_kept || !ahead->has_key)
		return false;
	*sample_ret = ahead->sample;
	return true;
}

#endif
