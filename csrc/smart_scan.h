/*
 * smart_scan.h - pages that were visited often and are not merged are visited less and less often.
 *
 * Merged pages are not asked about: a write to one must be noticed at its next visit.
 */
#ifndef SMART_SCAN_H
#define SMART_SCAN_H

#include "types.h"

/* A page that is not merged is about to be visited: may the visit be left out? Counts it either way. */
bool smart_scan_skips(struct rmap_item *item);

/* Will the page's next visit be left out? Changes nothing. */
static inline bool smart_scan_will_skip(const struct rmap_item *item)
{
	return item->remaining_skips;
}

/* Was the last visit of a page that is not merged left out? */
bool smart_scan_has_skipped(const struct rmap_item *item);

#endif
