/*
 * threads.c - real threads for ThreadSanitizer: threads SECONDS.
 *
 * An engine is used as Python uses it: whoever calls into the core holds its lock. A scanner visits pages in batches,
 * hooks attach, fork, write, move, report and exit from threads of their own, and owners store to their arrays with no
 * lock at all. That last race is allowed, because the array is the truth and a page that changed is found out; it is
 * suppressed by the names of the functions that read pages, in suppressions.txt, and nothing else is.
 *
 * In every other round two helpers look at pages before the scanner visits them.
 *
 * A second engine lies over the same arrays and has another lock. In the end both are checked, and every page
 * reads what its owner stored last.
 */
#include "fixture.h"

#include <pthread.h>
#include <time.h>

#define NR_OWNERS 2
#define NR_HOOKS 4
#define NR_ENGINES 2
#define NR_PAGES 64
#define MAX_GUESTS 6		/* processes of a hook thread at a time */

struct place_of_work {
	pthread_mutex_t lock;
	struct engine *engine;
	struct mm_slot *owned[NR_OWNERS];	/* over the owners' arrays */
	uint64_t nr_visits;
};

static struct place_of_work works[NR_ENGINES];
static uint8_t *arrays[NR_OWNERS];
static uint8_t stored[NR_OWNERS][NR_PAGES];	/* what its owner stored to each page; only he looks, until the end */
static bool is_over;				/* under works[0].lock */
static uint64_t page_size;

static bool goes_on(void)
{
	pthread_mutex_lock(&works[0].lock);
	bool result = !is_over;
	pthread_mutex_unlock(&works[0].lock);
	return result;
}

/* Stores without asking anybody. */
static void *owner(void *number)
{
	uint64_t which = (uint64_t)(uintptr_t)number, random = which;
	while (goes_on()) {
		for (int i = 0; i < 50; i++) {
			uint64_t page = next_random(&random) % NR_PAGES;
			stored[which][page] = (uint8_t)(next_random(&random) % 4);
			memset(arrays[which] + page * page_size, stored[which][page], page_size);
		}
		nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	}
	return NULL;
}

static void *scanner(void *argument)
{
	struct place_of_work *work = argument;
	uint64_t now = 0;
	while (goes_on()) {
		pthread_mutex_lock(&work->lock);
		if (!now || !lksm_has_queue(work->engine)) {	/* a hook may have queued somebody before the first round */
			lksm_begin_round(work->engine, ++now);
			enqueue_all(work->engine);
		}
		uint64_t nr_scanned = 0;
		int error = now % 2 ? scan_with_help(work->engine, 2, 40, now, &nr_scanned)
				    : lksm_scan(work->engine, 40, now, &nr_scanned);
		if (error)
			abort();
		work->nr_visits += nr_scanned;
		pthread_mutex_unlock(&work->lock);
	}
	return NULL;
}

/* Processes of its own come, fork, write and go, and somebody looks. */
static void *hook(void *number)
{
	uint64_t random = 100 + (uint64_t)(uintptr_t)number;
	struct place_of_work *work = &works[(uintptr_t)number % NR_ENGINES];
	uint8_t *pages = malloc(NR_PAGES * page_size);
	struct mm_slot *guests[MAX_GUESTS] = { NULL };
	static const char *const letters = "\0\1\2ab";

	for (uint64_t i = 0; i < NR_PAGES * page_size; i++)
		pages[i] = (uint8_t)letters[i / page_size % 5];
	while (goes_on()) {
		struct mm_slot **guest = &guests[next_random(&random) % MAX_GUESTS];
		pthread_mutex_lock(&work->lock);
		if (!*guest && next_random(&random) % 2) {
			struct mm_slot *parent = guests[0] ? guests[0] : work->owned[0];
			if (lksm_process_fork(parent, guest))
				abort();
		} else if (!*guest) {
			*guest = make_process_at(work->engine, pages, NR_PAGES, 1, 0, false);
			enqueue(*guest, next_random(&random) % 2);
		} else if (next_random(&random) % 4 == 0) {
			lksm_process_destroy(*guest);
			*guest = NULL;
		} else {
			/* A write by a child goes to its own copy, never to the array. */
			uint64_t page = next_random(&random) % NR_PAGES, place;
			if (mm_slot_region(*guest, page, &place)->is_forked && write_page(*guest, page, 'w'))
				abort();
			if (lksm_process_move(*guest, page, page + 1, (uint32_t)(next_random(&random) % 2)))
				abort();
			struct lksm_explanation explanation;
			lksm_explain(*guest, page, true, &explanation);
			static _Thread_local int64_t matrix[64 * 64];
			lksm_sharing_matrix(work->engine, matrix);
			struct lksm_counters counters;
			lksm_counters(work->engine, -1, &counters);
		}
		pthread_mutex_unlock(&work->lock);
	}
	pthread_mutex_lock(&work->lock);
	for (int i = 0; i < MAX_GUESTS; i++)
		if (guests[i])
			lksm_process_destroy(guests[i]);
	pthread_mutex_unlock(&work->lock);
	free(pages);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[NR_OWNERS + NR_ENGINES + NR_HOOKS];
	int nr_threads = 0;
	unsigned seconds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 5;

	for (int i = 0; i < NR_ENGINES; i++) {
		pthread_mutex_init(&works[i].lock, NULL);
		works[i].engine = make_engine((struct setup){ .max_page_sharing = 8, .nr_nodes = 2, .seed = 1 });
		lksm_set_use_zero_pages(works[i].engine, i);
	}
	page_size = works[0].engine->rules.page_size;
	for (int i = 0; i < NR_OWNERS; i++) {
		arrays[i] = calloc(NR_PAGES, page_size);
		for (int j = 0; j < NR_ENGINES; j++)
			works[j].owned[i] = make_process(works[j].engine, arrays[i], NR_PAGES, false);
	}
	for (uintptr_t i = 0; i < NR_OWNERS; i++)
		pthread_create(&threads[nr_threads++], NULL, owner, (void *)i);
	for (uintptr_t i = 0; i < NR_ENGINES; i++)
		pthread_create(&threads[nr_threads++], NULL, scanner, &works[i]);
	for (uintptr_t i = 0; i < NR_HOOKS; i++)
		pthread_create(&threads[nr_threads++], NULL, hook, (void *)i);
	nanosleep(&(struct timespec){ .tv_sec = seconds }, NULL);
	pthread_mutex_lock(&works[0].lock);
	is_over = true;
	pthread_mutex_unlock(&works[0].lock);
	while (nr_threads)
		pthread_join(threads[--nr_threads], NULL);

	uint64_t nr_visits = 0;
	uint8_t *page = malloc(page_size);
	for (int i = 0; i < NR_ENGINES; i++) {
		full(works[i].engine);
		full(works[i].engine);
		EXPECT_SOUND(works[i].engine);
		for (int j = 0; j < NR_OWNERS; j++)
			for (uint64_t at = 0; at < NR_PAGES; at++) {
				EXPECT_EQUAL(lksm_process_read(works[i].owned[j], at, 1, page), LKSM_OK);
				EXPECT(page[0] == stored[j][at] && !memcmp(page, page + 1, page_size - 1));
			}
		nr_visits += works[i].nr_visits;
		DESTROY(works[i].engine);
		pthread_mutex_destroy(&works[i].lock);
	}
	EXPECT(nr_visits > 1000);
	printf("%" PRIu64 " visits, %" PRIu64 " expectations failed\n", nr_visits, nr_failures);
	free(page);
	for (int i = 0; i < NR_OWNERS; i++)
		free(arrays[i]);
	return nr_failures != 0;
}
