/*
 * helpers.c - helpers take what was asked for last, and what is left is taken back when its visit is near: so the two
 * sides hardly meet, and nobody waits.
 */
#define _POSIX_C_SOURCE 200809L	/* to sleep, and to let others run, is no part of C */
#include "helpers.h"

#include "page.h"

#include <sched.h>
#include <time.h>

#define PATIENCE 1000	/* looks for a task before a helper sleeps */
#define NAP_NS 50000

/* A moment for the other one. */
static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

/* --- the scanning thread ----------------------------------------------------------------------- */

void helpers_begin(struct engine *engine)
{
	atomic_store(&engine->helpers.is_open, true);
}

void helpers_end(struct engine *engine)
{
	atomic_store(&engine->helpers.is_open, false);
}

void helpers_ask(struct engine *engine, struct foreseen *foreseen, bool is_hash)
{
	struct helpers *helpers = &engine->helpers;
	uint64_t number = atomic_load_explicit(&helpers->nr_asked, memory_order_relaxed);
	uint8_t place = (uint8_t)(foreseen - helpers->foreseen);

	foreseen->is_hash = is_hash;
	atomic_store_explicit(&foreseen->task, TASK_OPEN, memory_order_release);
	atomic_store_explicit(&helpers->queue[number % TASK_PLACES], place, memory_order_relaxed);
	atomic_store_explicit(&helpers->nr_asked, number + 1, memory_order_release);
}

bool helpers_take_back(struct foreseen *foreseen)
{
	uint8_t task = atomic_load_explicit(&foreseen->task, memory_order_relaxed);
	if (task != TASK_OPEN)
		return task == TASK_NONE;
	return atomic_compare_exchange_strong(&foreseen->task, &task, TASK_NONE);
}

void helpers_wait(struct foreseen *foreseen)
{
	if (helpers_take_back(foreseen))
		return;
	for (int i = 0; atomic_load_explicit(&foreseen->task, memory_order_acquire) == TASK_TAKEN; i++) {
		if (i < PATIENCE)	/* untested: a helper that is not let run in the middle of a task */
			relax();
		else
			sched_yield();
	}
	if (foreseen->is_hash)
		foreseen->has_hash = true;
	else
		foreseen->is_compared = true;
	atomic_store_explicit(&foreseen->task, TASK_NONE, memory_order_relaxed);
}

void helpers_forget_frames(struct engine *engine)
{
	if (!engine->ahead.lead)
		return;
	for (size_t i = 0; i < AHEAD_PAGES; i++) {
		struct foreseen *foreseen = &engine->helpers.foreseen[i];
		if (!foreseen->is_frame)
			continue;
		helpers_settle(foreseen);
		foreseen->is_compared = foreseen->is_frame = false;
		foreseen->other = NULL;
	}
}

/* --- the others -------------------------------------------------------------------------------- */

/* The task that was asked for last of those that are open; it is ours now. NULL: none is. */
static struct foreseen *take(struct helpers *helpers)
{
	uint64_t nr_asked = atomic_load_explicit(&helpers->nr_asked, memory_order_acquire);
	for (uint64_t i = 1; i <= TASK_PLACES && i <= nr_asked; i++) {
		uint8_t place = atomic_load_explicit(&helpers->queue[(nr_asked - i) % TASK_PLACES], memory_order_relaxed);
		struct foreseen *foreseen = &helpers->foreseen[place];
		uint8_t task = TASK_OPEN;
		if (atomic_load_explicit(&foreseen->task, memory_order_relaxed) == TASK_OPEN &&
		    atomic_compare_exchange_strong(&foreseen->task, &task, TASK_TAKEN))
			return foreseen;
	}
	return NULL;
}

static void ask_for_bytes(const struct page_rules *rules, const struct foreseen *foreseen)
{
	page_prefetch(rules, foreseen->bytes);
	if (!foreseen->is_hash)
		page_prefetch(rules, foreseen->other);
}

static void compare_ahead(const struct page_rules *rules, struct foreseen *foreseen)
{
	int order = memcmp(foreseen->bytes, foreseen->other, rules->page_size);
	foreseen->order = (int8_t)((order > 0) - (order < 0));
	foreseen->nr_compared = (uint32_t)(order ? page_difference(rules, foreseen->bytes, foreseen->other)
						 : rules->page_size);
}

static void do_task(const struct page_rules *rules, struct foreseen *foreseen)
{
	if (foreseen->is_hash)
		foreseen->hash = page_take_hash(rules, foreseen->bytes);
	else
		compare_ahead(rules, foreseen);
	atomic_store_explicit(&foreseen->task, TASK_DONE, memory_order_release);
}

bool helpers_do_one(struct engine *engine)
{
	struct foreseen *foreseen = take(&engine->helpers);
	if (foreseen)
		do_task(&engine->rules, foreseen);
	return foreseen;
}

/* Nothing was open when so many had been asked for: waits for one more. */
static void wait_for_more(const struct helpers *helpers, uint64_t nr_asked)
{
	for (int i = 0; atomic_load_explicit(&helpers->nr_asked, memory_order_relaxed) == nr_asked &&
			atomic_load_explicit(&helpers->is_open, memory_order_relaxed); i++) {
		if (i < PATIENCE)
			relax();
		else
			nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
	}
}

void helpers_work(struct engine *engine)
{
	struct helpers *helpers = &engine->helpers;
	struct foreseen *mine = NULL;

	while (helpers_are_there(engine)) {
		uint64_t nr_asked = atomic_load_explicit(&helpers->nr_asked, memory_order_relaxed);
		struct foreseen *next = take(helpers);
		if (next)
			ask_for_bytes(&engine->rules, next);	/* while the one before is done */
		if (mine)
			do_task(&engine->rules, mine);
		else if (!next)
			wait_for_more(helpers, nr_asked);
		mine = next;
	}
	if (mine)	/* untested: told to go between two tasks, which takes luck */
		do_task(&engine->rules, mine);
}
