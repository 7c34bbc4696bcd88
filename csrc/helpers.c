/*
 * helpers.c - an errand at a time. Nobody is sent for more than they can do soon, so the two sides hardly meet.
 */
#define _POSIX_C_SOURCE 200809L	/* to sleep, and to let others run, is no part of C */
#include "helpers.h"

#include "page.h"

#include <sched.h>
#include <time.h>

#define ERRANDS_EACH 3	/* sent for and not yet ended, for each helper: one that is run, one that is next, one that waits */
#define PATIENCE 1000	/* looks for an errand before a helper sleeps */
#define NAP_NS 50000

/* A moment for the other one. */
static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

/* By page of the errand's group. */
static struct foreseen *foreseen_of(struct engine *engine, const struct errand *errand)
{
	uint64_t group = (uint64_t)(errand - engine->helpers.errands) % AHEAD_GROUPS;
	return &engine->ahead.foreseen[group * GROUP_PAGES];
}

/* --- the scanning thread ----------------------------------------------------------------------- */

void helpers_begin(struct engine *engine, uint32_t nr_helpers)
{
	atomic_store(&engine->helpers.nr_helpers, nr_helpers);
}

void helpers_end(struct engine *engine)
{
	atomic_store(&engine->helpers.nr_helpers, 0);
}

/* False if nothing is wanted any more, because frames have been forgotten. */
static bool write_down(struct errand *errand, const struct foreseen *foreseen, unsigned pages)
{
	errand->pages = errand->hashes = 0;
	for (; pages; pages &= pages - 1) {
		unsigned i = (unsigned)__builtin_ctz(pages);
		if (!foreseen[i].is_hash && !foreseen[i].other)
			continue;
		errand->bytes[i] = foreseen[i].bytes;
		errand->others[i] = foreseen[i].other;
		errand->pages |= (uint8_t)(1 << i);
		errand->hashes |= (uint8_t)(foreseen[i].is_hash << i);
	}
	return errand->pages;
}

void helpers_send(struct engine *engine, struct errand *errand, unsigned pages)
{
	struct helpers *helpers = &engine->helpers;
	uint64_t nr_sent = atomic_load_explicit(&helpers->nr_sent, memory_order_relaxed);
	uint64_t nr_ended = atomic_load_explicit(&helpers->nr_ended, memory_order_relaxed);
	uint32_t nr_helpers = atomic_load_explicit(&helpers->nr_helpers, memory_order_relaxed);

	helpers->nr_asked += (uint64_t)__builtin_popcount(pages);
	if (nr_sent - nr_ended >= ERRANDS_EACH * nr_helpers)
		return;
	if (!write_down(errand, foreseen_of(engine, errand), pages))
		return;
	atomic_store_explicit(&errand->state, ERRAND_OPEN, memory_order_release);
	atomic_store_explicit(&helpers->queue[nr_sent % NR_ERRANDS], (uint8_t)(errand - helpers->errands),
			      memory_order_relaxed);
	atomic_store_explicit(&helpers->nr_sent, nr_sent + 1, memory_order_release);
}

unsigned helpers_take_back(struct engine *engine, struct errand *errand)
{
	uint8_t state = atomic_load_explicit(&errand->state, memory_order_relaxed);
	if (state == ERRAND_NONE)
		return 0;
	if (state != ERRAND_OPEN || !atomic_compare_exchange_strong(&errand->state, &state, ERRAND_NONE))
		return errand->pages;
	atomic_fetch_add_explicit(&engine->helpers.nr_ended, 1, memory_order_relaxed);
	return 0;
}

static void note_results(const struct errand *errand, struct foreseen *foreseen)
{
	for (unsigned pages = errand->pages; pages; pages &= pages - 1) {
		unsigned i = (unsigned)__builtin_ctz(pages);
		if (errand->hashes >> i & 1) {
			foreseen[i].hash = errand->results[i].hash;
			foreseen[i].has_hash = true;
		} else {
			foreseen[i].order = errand->results[i].order;
			foreseen[i].nr_compared = errand->results[i].nr_compared;
			foreseen[i].is_compared = true;
		}
	}
}

void helpers_settle(struct engine *engine, struct errand *errand)
{
	if (!helpers_take_back(engine, errand))
		return;
	for (int i = 0; atomic_load_explicit(&errand->state, memory_order_acquire) == ERRAND_TAKEN; i++) {
		if (i < PATIENCE)	/* untested: a helper that is not let run in the middle of an errand */
			relax();
		else
			sched_yield();
	}
	note_results(errand, foreseen_of(engine, errand));
	atomic_store_explicit(&errand->state, ERRAND_NONE, memory_order_relaxed);
}

void helpers_settle_all(struct engine *engine)
{
	for (size_t i = 0; engine->ahead.lead && i < NR_ERRANDS; i++)
		helpers_settle(engine, &engine->helpers.errands[i]);
}

void helpers_forget_frames(struct engine *engine)
{
	if (!engine->ahead.lead)
		return;
	for (size_t i = 0; i < AHEAD_PAGES; i++) {
		struct foreseen *foreseen = &engine->ahead.foreseen[i];
		if (!foreseen->is_frame)
			continue;
		helpers_settle(engine, helpers_reads(engine, i / GROUP_PAGES));
		foreseen->is_compared = foreseen->is_frame = false;
		foreseen->other = NULL;
	}
}

/* --- the others -------------------------------------------------------------------------------- */

/* What it says comes from another processor. */
static struct errand *ask_for(struct errand *errand)
{
	prefetch(errand->bytes);
	prefetch(errand->others);
	return errand;
}

/*
 * The oldest of the errands that are open; it is ours now. NULL: none is. As many are looked at as have not ended: if a newer
 * one ended first the oldest may be passed over, and will be taken back.
 */
static struct errand *take(struct helpers *helpers)
{
	uint64_t nr_sent = atomic_load_explicit(&helpers->nr_sent, memory_order_acquire);
	uint64_t nr_open = nr_sent - atomic_load_explicit(&helpers->nr_ended, memory_order_relaxed);
	uint64_t back = nr_open < NR_ERRANDS ? nr_open : NR_ERRANDS;
	for (uint64_t number = nr_sent - back; number < nr_sent; number++) {
		uint8_t which = atomic_load_explicit(&helpers->queue[number % NR_ERRANDS], memory_order_relaxed);
		struct errand *errand = &helpers->errands[which];
		uint8_t state = ERRAND_OPEN;
		/* untested: somebody else is quicker */
		if (atomic_load_explicit(&errand->state, memory_order_relaxed) == ERRAND_OPEN &&
		    atomic_compare_exchange_strong(&errand->state, &state, ERRAND_TAKEN))
			return ask_for(errand);
	}
	return NULL;
}

/* What page @i of @errand will read, while something is compared with @other. */
static struct soon soon_of(const struct errand *errand, unsigned i, const uint8_t *other)
{
	bool is_other_here = errand->hashes >> i & 1 || errand->others[i] == other;
	return (struct soon){ .pages = { errand->bytes[i], is_other_here ? NULL : errand->others[i] } };
}

static void look_at(const struct page_rules *rules, struct errand *errand, unsigned i, struct soon *soon)
{
	const uint8_t *bytes = errand->bytes[i], *other = errand->others[i];
	if (errand->hashes >> i & 1) {
		soon_ask_all(soon, rules->page_size);
		errand->results[i].hash = page_take_hash(rules, bytes);
	} else {
		int order = page_order(rules, bytes, other, soon);
		errand->results[i].order = (int8_t)((order > 0) - (order < 0));
		errand->results[i].nr_compared =
			(uint32_t)(order ? page_difference(rules, bytes, other) : rules->page_size);
	}
}

/* Each page is asked for while the one before is read, and the first one of @next while the last one is. */
static void run(struct engine *engine, struct errand *errand, const struct errand *next)
{
	for (unsigned pages = errand->pages; pages; pages &= pages - 1) {
		unsigned i = (unsigned)__builtin_ctz(pages), later = pages & (pages - 1);
		const uint8_t *other = errand->hashes >> i & 1 ? NULL : errand->others[i];
		struct soon soon = { .pages = { NULL, NULL } };
		if (later)
			soon = soon_of(errand, (unsigned)__builtin_ctz(later), other);
		else if (next)
			soon = soon_of(next, (unsigned)__builtin_ctz(next->pages), other);
		look_at(&engine->rules, errand, i, &soon);
	}
	atomic_store_explicit(&errand->state, ERRAND_DONE, memory_order_release);
	atomic_fetch_add_explicit(&engine->helpers.nr_ended, 1, memory_order_relaxed);
}

bool helpers_do_one(struct engine *engine)
{
	struct errand *errand = take(&engine->helpers);
	if (errand)
		run(engine, errand, NULL);
	return errand;
}

/* Nothing was open when so many had been sent for: waits for one more. */
static void wait_for_more(const struct helpers *helpers, uint64_t nr_sent)
{
	for (int i = 0; atomic_load_explicit(&helpers->nr_sent, memory_order_relaxed) == nr_sent &&
			atomic_load_explicit(&helpers->nr_helpers, memory_order_relaxed); i++) {
		if (i < PATIENCE)
			relax();
		else
			nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
	}
}

void helpers_work(struct engine *engine)
{
	struct errand *mine = NULL;

	while (mine || helpers_are_there(engine)) {
		uint64_t nr_sent = atomic_load_explicit(&engine->helpers.nr_sent, memory_order_relaxed);
		struct errand *next = take(&engine->helpers);
		if (mine)
			run(engine, mine, next);
		else if (!next)
			wait_for_more(&engine->helpers, nr_sent);
		mine = next;
	}
}
