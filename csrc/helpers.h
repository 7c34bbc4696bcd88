/*
 * helpers.h - what other threads do for the one that scans: compares and hashes of pages that it visits soon.
 *
 * The scanning thread sends for it early (ahead.c): an errand is for a group of neighbouring pages, so that the threads
 * have to agree once a group. Who has time takes one and writes down what came of it; what nobody has begun
 * when it is needed, the scanning thread takes back and does itself. So nobody waits for anybody but for an errand that is
 * being run. Nothing here decides anything, and what it costs is booked when a visit makes use of it: without helpers
 * the results are the same, and so are the counters.
 *
 *     NONE --send--> OPEN --a helper takes it--> TAKEN --it is run--> DONE --settle--> NONE
 *                      \------------------taken back------------------------------------/
 *
 * Helpers look at bytes that stay where they are during a scan, and at frames; helpers_forget_frames() comes before
 * one is freed. Between scans nothing is open, taken or done.
 */
#ifndef HELPERS_H
#define HELPERS_H

#include "types.h"

/* --- the scanning thread ----------------------------------------------------------------------- */

/* So many others may come from now on; and are told to go. */
void helpers_begin(struct engine *engine, uint32_t nr_helpers);
void helpers_end(struct engine *engine);

static inline bool helpers_are_there(const struct engine *engine)
{
	return atomic_load_explicit(&engine->helpers.nr_helpers, memory_order_relaxed);
}

/* The errands of the group that has this place: for hashes, and for what will be read. */
static inline struct errand *helpers_hashes(struct engine *engine, uint64_t group)
{
	return &engine->helpers.errands[group];
}

static inline struct errand *helpers_reads(struct engine *engine, uint64_t group)
{
	return &engine->helpers.errands[AHEAD_GROUPS + group];
}

/* Sends for what is wanted of these pages of its group by their struct foreseen, unless those who help have enough to do. */
void helpers_send(struct engine *engine, struct errand *errand, unsigned pages);
/* If nobody has begun with it nobody will. The pages that others have looked at, or do now. */
unsigned helpers_take_back(struct engine *engine, struct errand *errand);
/* The same, and what came of it is noted: waits if somebody is at it. */
void helpers_settle(struct engine *engine, struct errand *errand);
void helpers_settle_all(struct engine *engine);
/* A stable node or a frame is about to be freed: what was said of such is forgotten. */
void helpers_forget_frames(struct engine *engine);

/* --- the others -------------------------------------------------------------------------------- */

/* Runs the oldest errand that is open. False: none is. For tests. */
bool helpers_do_one(struct engine *engine);
/* Runs one after the other until helpers are told to go. */
void helpers_work(struct engine *engine);

#endif
