/*
 * preview.h - what several threads can find out about pages before one thread visits them.
 *
 * A visit hashes bytes and compares bytes, and changes the trees. The first two ask for nothing but bytes, so they are
 * done ahead for a stretch of pages, by as many threads as there are. Nothing here decides anything, and what it
 * costs is booked when a visit makes use of it: without it the results are the same, and so are the counters.
 *
 *     collect      one thread     notes which pages will be visited
 *     keys         all threads    their samples, and which of them have the same
 *     twins        all threads    what each will be compared with, by what the trees have now
 *     compares     all threads    compares it with that, and hashes it if that will be asked for
 *     visits       one thread     scan.c
 *
 * Frames that a visit might free are compared with in the step of twins already. Keys and compares ask for nothing but bytes that stay where they are during a scan, so pages in front of these may be
 * visited meanwhile.
 */
#ifndef PREVIEW_H
#define PREVIEW_H

#include "types.h"

/* The bytes that a preview of so many pages takes. */
size_t preview_size(uint64_t nr_pages);
void preview_init(struct preview *preview, uint64_t nr_pages);

/*
 * Begins anew with the pages that will be visited after those of @after, or after the cursor if that is NULL. Returns
 * how many that are.
 */
uint64_t preview_collect(const struct engine *engine, struct preview *preview, const struct preview *after);
/* Each of these may be called by several threads at once, and returns when nothing is left to begin. */
void preview_keys(struct preview *preview);
void preview_twins(struct preview *preview);
void preview_compares(struct preview *preview);

/* The stretch of @region that is previewed, or NULL. */
const struct preview_run *preview_run(const struct preview *preview, const struct region *region);

/* What is known of a page; NULL if nothing is. */
static inline struct foreseen *preview_of(struct preview *preview, const struct preview_run *run, uint64_t page)
{
	if (!run || page - run->first_page >= run->nr_pages)	/* a smaller page number wraps around */
		return NULL;
	struct foreseen *foreseen = &preview->pages[run->first + page - run->first_page];
	return foreseen->bytes ? foreseen : NULL;
}

/* The key that the page will be filed under, as it seems now. */
static inline uint64_t preview_filed_key(const struct foreseen *foreseen)
{
	return foreseen->is_deep && foreseen->has_hash ? foreseen->hash : foreseen->key;
}

#endif
