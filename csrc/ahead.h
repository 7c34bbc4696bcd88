/*
 * ahead.h - what the next pages will need is asked for early.
 *
 * A visit touches memory in a chain: sampled lines, then the root they choose, the object there, the page
 * behind it. Each link is a cache miss that would be waited for. So the pages soon to be visited are
 * walked through the same chain in steps, each a few pages apart, and every step finds what the one before
 * asked for. Nothing here decides anything: without it the results are the same.
 */
#ifndef AHEAD_H
#define AHEAD_H

#include "types.h"

/* Forgets all samples: bytes may have been written since. Call when a batch begins. */
void ahead_reset(struct engine *engine);
/* Takes the next steps for the pages that follow @page of @region. */
void ahead_of(struct engine *engine, const struct region *region, uint64_t page);
/* The sample of the page at @bytes, a region's page number @page, if it was taken in this batch. */
bool ahead_sample(const struct engine *engine, uint64_t page, const uint8_t *bytes, uint64_t *sample_ret);

#endif
