/*
 * helpers.h - what other threads do for the one that scans: compares and hashes of pages that it visits soon.
 *
 * The scanning thread asks early (ahead.c). Who has time takes a task and notes in the page's struct foreseen what came
 * of it; what nobody has begun when the visit is near, the scanning thread takes back and does itself. So nobody waits
 * for anybody but for a task that is being done. Nothing here decides anything, and what it costs is booked when a visit
 * makes use of it: without helpers the results are the same, and so are the counters.
 *
 *     NONE --ask--> OPEN --a helper takes it--> TAKEN --it is done--> DONE --settle--> NONE
 *                     \------------------taken back------------------------------------/
 *
 * Helpers look at bytes that stay where they are during a scan, and at frames; helpers_forget_frames() comes before
 * one is freed. Between scans nothing is open, taken or done.
 */
#ifndef HELPERS_H
#define HELPERS_H

#include "types.h"

/* --- the scanning thread ----------------------------------------------------------------------- */

/* Others may come from now on, and are told to go. */
void helpers_begin(struct engine *engine);
void helpers_end(struct engine *engine);

static inline bool helpers_are_there(const struct engine *engine)
{
	return atomic_load_explicit(&engine->helpers.is_open, memory_order_relaxed);
}

/* Asks for the hash of @foreseen's page, or else how it compares with the other. */
void helpers_ask(struct engine *engine, struct foreseen *foreseen, bool is_hash);
/* Is it up to us? Then nobody will begin with it any more. */
bool helpers_take_back(struct foreseen *foreseen);
/* Takes it back, or waits until it is done; then @foreseen says what came of it. */
void helpers_wait(struct foreseen *foreseen);
static inline void helpers_settle(struct foreseen *foreseen)
{
	if (atomic_load_explicit(&foreseen->task, memory_order_relaxed) != TASK_NONE)
		helpers_wait(foreseen);
}
/* A stable node or a frame is about to be freed: what was said of such is forgotten. */
void helpers_forget_frames(struct engine *engine);

/* --- the others -------------------------------------------------------------------------------- */

/* Does the task that was asked for last of those that are open. False: none is. For tests. */
bool helpers_do_one(struct engine *engine);
/* Does one after the other until helpers are told to go. */
void helpers_work(struct engine *engine);

#endif
