/*
 * fixture.h - engines, processes and pages for tests, said as pictures.
 *
 * A picture is a text with one letter a page: pages of the same letter are equal, '0' is the zero page.
 * Every page is filled with its letter, so different letters differ in every byte.
 */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "check.h"
#include "harness.h"
#include "mm_slot.h"
#include "stable_tree.h"

/* Deriving secrets is not among what libxxhash 0.8 declares unasked. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include <pthread.h>

/* --- hashes: strong, 8 bits, 0 bits ---------------------------------------------------------- */

static inline uint64_t strong_hash(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	return XXH3_64bits_withSecret(bytes, nr_bytes, secret, secret_size);
}

static inline uint64_t hash_8_bits(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	return strong_hash(bytes, nr_bytes, secret, secret_size) & 0xff;
}

static inline uint64_t hash_0_bits(const void *bytes, size_t nr_bytes, const void *secret, size_t secret_size)
{
	(void)bytes, (void)nr_bytes, (void)secret, (void)secret_size;
	return 0;
}

static const lksm_hash all_hashes[] = { strong_hash, hash_8_bits, hash_0_bits };
#define NR_HASHES (sizeof(all_hashes) / sizeof(all_hashes[0]))

/* --- engines --------------------------------------------------------------------------------- */

#define UNLIMITED ((uint64_t)UINT32_MAX)

/* What a test wants of its engine; a zero field means the usual. */
struct setup {
	uint64_t page_size;		/* 256: four cache lines, of which two are sampled */
	uint64_t initial_rounds;	/* 0: no checksum gate */
	uint64_t max_page_sharing;	/* unlimited */
	uint32_t merge_window;		/* 3 */
	uint32_t nr_nodes;		/* 1 */
	bool gate_first;		/* LKSM's order */
	bool is_secure;			/* frames may be borrowed */
	uint64_t filter_maturity;	/* 0 */
	lksm_hash hash;			/* strong */
	uint64_t seed;
};

static inline const void *secret_of(uint64_t seed)
{
	static uint8_t secrets[2][XXH3_SECRET_DEFAULT_SIZE];
	uint8_t *secret = secrets[seed != 0];
	XXH3_generateSecret_fromSeed(secret, seed);
	return secret;
}

/* One engine at a time may have a seed that is not 0: the secrets live here. */
static inline struct engine *make_engine(struct setup setup)
{
	struct engine *engine = NULL;
	struct lksm_options options = {
		.page_size = setup.page_size ? setup.page_size : 256,
		.seed = setup.seed,
		.initial_rounds = setup.initial_rounds,
		.max_page_sharing = setup.max_page_sharing ? setup.max_page_sharing : UNLIMITED,
		.merge_window = setup.merge_window ? setup.merge_window : 3,
		.nr_nodes = setup.nr_nodes ? setup.nr_nodes : 1,
		.gate_first = setup.gate_first,
		.is_secure = setup.is_secure,
		.filter_maturity = setup.filter_maturity,
		.hash = setup.hash ? setup.hash : strong_hash,
		.secret = secret_of(setup.seed),
		.digest_secret = secret_of(0),
		.secret_size = XXH3_SECRET_DEFAULT_SIZE,
	};
	if (lksm_engine_create(&options, &engine)) {
		printf("no engine\n");
		abort();
	}
	return engine;
}

static inline void expect_sound_at(const char *place, struct engine *engine)
{
	static char text[4096];
	uint64_t nr_faults = check(engine, text, sizeof(text));
	expect_at(!nr_faults, place, "%" PRIu64 " faults:\n%s", nr_faults, text);
}
#define EXPECT_SOUND(engine) expect_sound_at(PLACE, engine)

/* Destroys the engine in the steps of lksm_engine_destroy(), looking at the books before the last. */
static inline void destroy_engine_at(const char *place, struct engine *engine)
{
	expect_sound_at(place, engine);
	lksm_unmerge(engine);
	expect_sound_at(place, engine);
	while (engine->slots)
		lksm_process_destroy(engine->slots);
	expect_sound_at(place, engine);
	expect_at(!engine->indexes, place, "an index is left");
	pool_deinit(&engine->items);
	pool_deinit(&engine->nodes);
	pool_deinit(&engine->extents);
	engine->memory.reserved[LKSM_FOR_ENGINE] -= sizeof(*engine);
	for (uint32_t i = 0; i < LKSM_NR_PURPOSES; i++)
		expect_at(!engine->memory.reserved[i], place, "%" PRIu64 " bytes reserved for purpose %u are left",
			  engine->memory.reserved[i], i);
	memory_free_first(engine);
}
#define DESTROY(engine) destroy_engine_at(PLACE, engine)

/* The next allocation fails, and @nr_more after it. */
static inline void fail_next(struct engine *engine, uint64_t nr_more)
{
	engine->memory.fail_at = engine->memory.nr_allocations + 1;
	engine->memory.fail_count = nr_more;
}
#define FAIL_FOR_EVER ((uint64_t)UINT32_MAX)

static inline void fail_no_more(struct engine *engine)
{
	engine->memory.fail_at = 0;
}

/* --- helpers --------------------------------------------------------------------------------- */

static inline void *helper(void *engine)
{
	lksm_help(engine);
	return NULL;
}

/* lksm_scan() with so many threads that help; 0: nobody comes, and it does all itself. */
static inline int scan_with_help(struct engine *engine, int nr_threads, uint64_t nr_pages, uint64_t now,
				 uint64_t *nr_scanned_ret)
{
	pthread_t threads[4];
	lksm_begin_help(engine, nr_threads ? (uint32_t)nr_threads : 1);
	for (int i = 0; i < nr_threads; i++)
		if (pthread_create(&threads[i], NULL, helper, engine))
			abort();
	int error = lksm_scan(engine, nr_pages, now, nr_scanned_ret);
	lksm_end_help(engine);
	for (int i = 0; i < nr_threads; i++)
		pthread_join(threads[i], NULL);
	return error;
}

/* --- pages and processes --------------------------------------------------------------------- */

static inline void fill_page(const struct engine *engine, uint8_t *page, char letter)
{
	memset(page, letter == '0' ? 0 : letter, engine->rules.page_size);
}

/* An array of the pages in the picture; the caller frees it. */
static inline uint8_t *make_pages(const struct engine *engine, const char *picture)
{
	size_t nr_pages = strlen(picture);
	uint8_t *pages = malloc(nr_pages * engine->rules.page_size);
	for (size_t i = 0; i < nr_pages; i++)
		fill_page(engine, pages + i * engine->rules.page_size, picture[i]);
	return pages;
}

/* A process in any domain with pages on any memory node, at address 0. */
static inline struct mm_slot *make_process_at(struct engine *engine, uint8_t *pages, uint64_t nr_pages,
					      uint32_t memory_node, uint32_t domain, bool is_immutable)
{
	struct mm_slot *process = NULL;
	struct lksm_region region = {
		.pages = pages,
		.nr_array_pages = nr_pages,
		.nr_pages = nr_pages,
		.node = memory_node,
		.is_immutable = is_immutable,
	};
	if (lksm_process_create(engine, domain, &process) || lksm_process_map(process, &region)) {
		printf("no process: %s\n", lksm_error_text(engine));
		abort();
	}
	return process;
}

/* A process in domain 0 over @pages, at address 0, neither advised nor registered. */
static inline struct mm_slot *make_process(struct engine *engine, uint8_t *pages, uint64_t nr_pages,
					   bool is_immutable)
{
	return make_process_at(engine, pages, nr_pages, 0, 0, is_immutable);
}

/* Maps @pages into a process at @address, counted in pages. */
static inline int map_pages(struct mm_slot *process, uint64_t address, uint8_t *pages, uint64_t nr_pages)
{
	struct lksm_region region = {
		.address = address * process->engine->rules.page_size,
		.pages = pages,
		.nr_array_pages = nr_pages,
		.nr_pages = nr_pages,
	};
	return lksm_process_map(process, &region);
}

static inline void enqueue(struct mm_slot *process, bool is_frozen)
{
	lksm_process_join(process);
	lksm_process_register(process);
	lksm_enqueue(process, is_frozen);
}

static inline void enqueue_all(struct engine *engine)
{
	for (struct mm_slot *slot = engine->slots; slot; slot = slot->next)
		enqueue(slot, false);
}

/* Visits up to @nr_pages pages; an expectation if memory runs out. */
static inline uint64_t scan_pages(struct engine *engine, uint64_t nr_pages)
{
	uint64_t nr_scanned = 0;
	EXPECT_EQUAL(lksm_scan(engine, nr_pages, 0, &nr_scanned), LKSM_OK);
	return nr_scanned;
}

/* Visits what is queued; returns the number of pages. */
static inline uint64_t scan_to_end(struct engine *engine)
{
	uint64_t nr_scanned = 0, nr_now = 0;
	while (lksm_has_queue(engine) && EXPECT_EQUAL(lksm_scan(engine, 1000, 0, &nr_now), LKSM_OK))
		nr_scanned += nr_now;
	return nr_scanned;
}

/* One full scan of every process. */
static inline uint64_t full(struct engine *engine)
{
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	return scan_to_end(engine);
}

/* --- looking --------------------------------------------------------------------------------- */

static inline struct lksm_counters counters_of(const struct engine *engine)
{
	struct lksm_counters counters;
	lksm_counters(engine, -1, &counters);
	return counters;
}

/* Items in no tree. */
static inline uint64_t volatile_of(const struct engine *engine)
{
	struct lksm_counters c = counters_of(engine);
	return c.rmap_items - c.pages_shared - c.pages_sharing - c.pages_unshared;
}

static inline bool expect_counters_at(const char *place, struct engine *engine, uint64_t shared,
				      uint64_t sharing, uint64_t unshared)
{
	struct lksm_counters c = counters_of(engine);
	expect_sound_at(place, engine);
	return expect_at(c.pages_shared == shared && c.pages_sharing == sharing && c.pages_unshared == unshared, place,
			 "counters are (%" PRIu64 ",%" PRIu64 ",%" PRIu64 "), expected (%" PRIu64 ",%" PRIu64
			 ",%" PRIu64 ")",
			 c.pages_shared, c.pages_sharing, c.pages_unshared, shared, sharing, unshared);
}
/* Compares (shared, sharing, unshared) and checks the engine. */
#define EXPECT_COUNTERS(engine, shared, sharing, unshared) \
	expect_counters_at(PLACE, engine, shared, sharing, unshared)

static inline struct lksm_status status_of(const struct mm_slot *process)
{
	struct lksm_status status;
	lksm_process_status(process, &status);
	return status;
}

/* The frame id, or enum lksm_entry, of one page. */
static inline int64_t frame_of(const struct mm_slot *process, uint64_t page)
{
	int64_t *entries = malloc(process->nr_pages * sizeof(*entries));
	lksm_page_table(process, entries);
	int64_t entry = entries[page];
	free(entries);
	return entry;
}

/* The item of a page of the process, or NULL. */
static inline struct rmap_item *item_of(const struct mm_slot *process, uint64_t page)
{
	uint64_t place;
	const struct region *region = mm_slot_region(process, page, &place);
	uint32_t ref = item_find(region, place);
	return ref ? item_at(&process->engine->items, ref) : NULL;
}

/* The stable node that a page is merged into, or NULL. */
static inline struct stable_node *node_of_page(const struct mm_slot *process, uint64_t page)
{
	const struct rmap_item *item = item_of(process, page);
	return item && item->state == ITEM_STABLE ? node_at(process->engine, item->sharer.node) : NULL;
}

/* Do the pages of the process read as the picture says? '-' is absent. */
static inline void expect_picture_at(const char *place, struct mm_slot *process, const char *picture)
{
	const struct engine *engine = process->engine;
	uint64_t page_size = engine->rules.page_size;
	uint8_t *page = malloc(2 * page_size);
	expect_at(strlen(picture) == process->nr_pages, place, "process has %" PRIu64 " pages, picture %s",
		  process->nr_pages, picture);
	for (size_t i = 0; picture[i]; i++) {
		int error = lksm_process_read(process, i, 1, page);
		expect_at(!error == (picture[i] != '-'), place, "page %zu: reading says %d, picture %s", i, error,
			  picture);
		fill_page(engine, page + page_size, picture[i]);
		if (!error)
			expect_at(!memcmp(page, page + page_size, page_size), place,
				  "page %zu begins with %c, picture %s", i, page[0], picture);
	}
	free(page);
}
#define EXPECT_PICTURE(process, picture) expect_picture_at(PLACE, process, picture)

/* Fills a page through the process. */
static inline int write_page(struct mm_slot *process, uint64_t page, char letter)
{
	uint64_t page_size = process->engine->rules.page_size;
	uint8_t *bytes = malloc(page_size);
	fill_page(process->engine, bytes, letter);
	int error = lksm_process_write(process, page, 0, bytes, page_size);
	free(bytes);
	return error;
}

/* A byte of a page that its sample key does not see; needs pages of three lines or more. */
static inline size_t unsampled_byte(const struct engine *engine)
{
	size_t line = 0;
	while (line == engine->rules.lines[0] || line == engine->rules.lines[1])
		line += LINE_SIZE;
	return line;
}

#endif
