/*
 * instructions.c - one scan of a fixed workload, for callgrind: what it executes is the same on every machine.
 *
 *     instructions WORKLOAD immutable|mutable cold|rescan
 *
 * Only what runs below measured() is to be counted. Seeds are fixed, and the hash is XXH3 as its header has it for
 * a machine without vectors, for what a library chooses depends on the processor. Prints the merge result, and
 * the bytes hashed and compared within measured().
 */
#include "cffi_prelude.h"

#define XXH_INLINE_ALL
#define XXH_STATIC_LINKING_ONLY
#define XXH_VECTOR 0 /* XXH_SCALAR */
#include <xxhash.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_SIZE 4096
#define PAGE_WORDS (PAGE_SIZE / sizeof(uint64_t))
#define NR_PAGES 4096
#define SEED 1

static uint64_t lent_hash(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	return XXH3_64bits_withSecret(bytes, nr_bytes, secret, secret_size);
}

/* --- pages ----------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15u;
	uint64_t x = *state;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* Content @number: random words, different for every number. */
static void fill(uint64_t *page, uint64_t number)
{
	uint64_t state = number << 32;
	for (size_t i = 0; i < PAGE_WORDS; i++)
		page[i] = next_random(&state);
}

static void make_page(const char *workload, uint64_t *page, uint64_t number)
{
	if (!strcmp(workload, "unique")) {
		fill(page, number);
	} else if (!strcmp(workload, "half")) {
		fill(page, number % 2 ? NR_PAGES + number / 2 % (NR_PAGES / 32) : number);
	} else if (!strcmp(workload, "pairs")) {
		fill(page, number % (NR_PAGES / 2));
	} else if (!strcmp(workload, "zero")) {
		memset(page, 0, PAGE_SIZE);
	} else if (!strcmp(workload, "lastbytes")) {
		fill(page, 0);
		page[PAGE_WORDS - 1] = number;
	} else if (!strcmp(workload, "sparse")) {
		uint64_t state = number << 32;
		memset(page, 0, PAGE_SIZE);
		page[next_random(&state) % PAGE_WORDS] = number + 1;
	} else {
		fprintf(stderr, "no workload is called %s\n", workload);
		exit(2);
	}
}

/* --- one scan -------------------------------------------------------------------------------- */

static void require(int error, const struct engine *engine)
{
	if (error) {
		fprintf(stderr, "error %d: %s\n", error, engine ? lksm_error_text(engine) : "no engine");
		exit(1);
	}
}

static void full(struct engine *engine, struct mm_slot *process)
{
	uint64_t nr_scanned;

	lksm_begin_round(engine, 0);
	lksm_process_join(process);
	lksm_process_register(process);
	lksm_enqueue(process, true);
	while (lksm_has_queue(engine))
		require(lksm_scan(engine, 1000, 0, &nr_scanned), engine);
}

/* A name that callgrind finds. */
__attribute__((noinline)) void measured(struct engine *engine, struct mm_slot *process);
void measured(struct engine *engine, struct mm_slot *process)
{
	full(engine, process);
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: instructions WORKLOAD immutable|mutable cold|rescan\n");
		return 2;
	}
	uint64_t *pages = aligned_alloc(PAGE_SIZE, (size_t)NR_PAGES * PAGE_SIZE);
	for (uint64_t i = 0; i < NR_PAGES; i++)
		make_page(argv[1], pages + i * PAGE_WORDS, i);

	uint8_t secret[XXH3_SECRET_DEFAULT_SIZE];
	XXH3_generateSecret_fromSeed(secret, SEED);
	struct lksm_options options = {
		.page_size = PAGE_SIZE,
		.seed = SEED,
		.max_page_sharing = 256,
		.merge_window = 3,
		.nr_nodes = 1,
		.hash = lent_hash,
		.secret = secret,
		.digest_secret = secret,
		.secret_size = sizeof(secret),
	};
	struct lksm_region region = {
		.pages = (uint8_t *)pages,
		.nr_array_pages = NR_PAGES,
		.nr_pages = NR_PAGES,
		.is_immutable = !strcmp(argv[2], "immutable"),
	};
	struct engine *engine = NULL;
	struct mm_slot *process = NULL;
	require(lksm_engine_create(&options, &engine), engine);
	require(lksm_process_create(engine, 0, &process), engine);
	require(lksm_process_map(process, &region), engine);
	if (!strcmp(argv[3], "rescan")) {
		full(engine, process);
		full(engine, process);
	}

	struct lksm_counters before, after;
	lksm_counters(engine, -1, &before);
	measured(engine, process);
	lksm_counters(engine, -1, &after);
	printf("%d %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", NR_PAGES, after.pages_shared,
	       after.pages_sharing, after.pages_unshared, after.bytes_hashed - before.bytes_hashed,
	       after.bytes_compared - before.bytes_compared);
	lksm_engine_destroy(engine);
	free(pages);
	return 0;
}
