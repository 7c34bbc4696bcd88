/*
 * test_failing.c - one rich life of an engine in which every allocation fails, each by itself and each with all that
 * follow until somebody is told.
 *
 * A step that is refused has changed nothing that a caller sees, and succeeds when there is memory again. Many
 * steps need not be refused: a scan goes on with the pages it can remember, and what it could not do waits for the
 * next visit. In the end everything is unmerged and scanned anew, and then nobody can tell what had failed.
 *
 * Run with a number to make only one allocation in so many fail.
 */
#include "fixture.h"

#define MAX_PAGES 420
#define MAX_PAGE_SIZE 4096
#define NR_PROCESSES 8
#define ABSENT 0xffff
#define COLLIDES 0x8000		/* differs from the content without this bit where no sample looks */

struct process {
	struct mm_slot *slot;
	uint64_t nr_pages;
	uint16_t contents[MAX_PAGES];	/* what each page must read */
};

struct life {
	struct engine *engine;
	struct process processes[NR_PROCESSES];
	uint8_t *arrays[NR_PROCESSES + 1];
	uint64_t now;
	uint64_t nr_refused;		/* steps that were told of no memory */
};

enum { PLAIN, LENT, ROWS, OTHER, MANY, CHILD, GRANDCHILD, LATE };

/* --- contents ---------------------------------------------------------------------------------- */

static void put(const struct engine *engine, uint8_t *page, uint16_t content)
{
	for (uint64_t at = 0; at < engine->rules.page_size; at += 2) {
		page[at] = content & 0xff;
		page[at + 1] = content >> 8 & 0x7f;
	}
	if (content & COLLIDES)
		page[unsampled_byte(engine) + 7] ^= 0x80;
}

static void expect_contents(struct life *life)
{
	uint8_t page[MAX_PAGE_SIZE], wanted[MAX_PAGE_SIZE];
	for (int i = 0; i < NR_PROCESSES; i++) {
		struct process *process = &life->processes[i];
		if (!process->slot)
			continue;
		EXPECT_EQUAL(process->slot->nr_pages, process->nr_pages);
		for (uint64_t at = 0; at < process->nr_pages; at++) {
			int error = lksm_process_read(process->slot, at, 1, page);
			if (!EXPECT_EQUAL(error, process->contents[at] == ABSENT ? LKSM_INVALID : LKSM_OK) || error)
				continue;
			put(life->engine, wanted, process->contents[at]);
			expect_at(!memcmp(page, wanted, life->engine->rules.page_size), PLACE,
				  "page %" PRIu64 " of process %d is wrong", at, i);
		}
	}
}

/* Pages that share a frame have one content, and only zeros are on the zero frame. */
static void expect_frames(struct life *life)
{
	static int64_t entries[NR_PROCESSES][MAX_PAGES + 8];
	for (int i = 0; i < NR_PROCESSES; i++)
		if (life->processes[i].slot)
			lksm_page_table(life->processes[i].slot, entries[i]);
	for (int i = 0; i < NR_PROCESSES; i++)
		for (uint64_t at = 0; life->processes[i].slot && at < life->processes[i].nr_pages; at++) {
			if (entries[i][at] == LKSM_ENTRY_ZERO)
				EXPECT_EQUAL(life->processes[i].contents[at], 0);
			for (int j = 0; entries[i][at] >= 0 && j <= i; j++)
				for (uint64_t other = 0; life->processes[j].slot && other < life->processes[j].nr_pages; other++)
					if (entries[j][other] == entries[i][at])
						EXPECT_EQUAL(life->processes[j].contents[other], life->processes[i].contents[at]);
		}
}

/* --- steps that may be refused ----------------------------------------------------------------- */

/* What a caller sees of the engine: if it is refused, all of it is as it was. */
struct sight {
	struct lksm_counters counters;
	struct lksm_status statuses[NR_PROCESSES];
	int64_t entries[NR_PROCESSES][MAX_PAGES + 8];
};

static void look(const struct life *life, struct sight *sight_ret)
{
	memset(sight_ret, 0, sizeof(*sight_ret));
	lksm_counters(life->engine, -1, &sight_ret->counters);
	for (int i = 0; i < NR_PROCESSES; i++) {
		if (!life->processes[i].slot)
			continue;
		lksm_process_status(life->processes[i].slot, &sight_ret->statuses[i]);
		lksm_page_table(life->processes[i].slot, sight_ret->entries[i]);
	}
}

static void expect_sound(struct life *life)
{
	EXPECT_SOUND(life->engine);
	expect_contents(life);
}

/* Of an engine whose allocations fail from one on: somebody was told, so there is memory again. */
static void be_told(struct life *life)
{
	life->nr_refused++;
	expect_sound(life);
	fail_no_more(life->engine);
}

/* Does it, if need be a second time. That a refused step changes nothing is looked at here. */
#define INSIST(life, call)                                                               \
	do {                                                                             \
		static struct sight before, after;                                       \
		look(life, &before);                                                     \
		int error = (call);                                                      \
		if (error) {                                                             \
			EXPECT_EQUAL(error, LKSM_NO_MEMORY);                             \
			EXPECT(!strncmp(lksm_error_text((life)->engine), "no memory", 9)); \
			look(life, &after);                                              \
			EXPECT(!memcmp(&before, &after, sizeof(before)));                \
			be_told(life);                                                   \
			EXPECT_EQUAL(call, LKSM_OK);                                     \
		}                                                                        \
		EXPECT_SOUND((life)->engine);                                            \
	} while (0)

static void scan(struct life *life, uint64_t budget)
{
	lksm_begin_round(life->engine, life->now += 10);
	enqueue_all(life->engine);
	while (lksm_has_queue(life->engine) && !nr_failures) {
		uint64_t nr_scanned;
		int error = lksm_scan(life->engine, budget, life->now, &nr_scanned);
		if (error) {
			EXPECT_EQUAL(error, LKSM_NO_MEMORY);
			be_told(life);
			EXPECT_EQUAL(lksm_scan(life->engine, budget, life->now, &nr_scanned), LKSM_OK);
		}
		EXPECT_SOUND(life->engine);
	}
	lksm_prune_chains(life->engine, life->now);
	expect_sound(life);
}

/* A process over an array of its own that @content_of() fills. */
static void attach(struct life *life, int which, uint32_t domain, struct lksm_region region,
		   uint16_t (*content_of)(uint64_t page))
{
	struct process *process = &life->processes[which];
	struct engine *engine = life->engine;
	uint64_t page_size = engine->rules.page_size;

	life->arrays[which] = malloc(region.nr_array_pages * page_size);
	for (uint64_t i = 0; i < region.nr_array_pages; i++)
		put(engine, life->arrays[which] + i * page_size, content_of(i));
	region.pages = life->arrays[which];
	INSIST(life, lksm_process_create(engine, domain, &process->slot));
	INSIST(life, lksm_process_map(process->slot, &region));
	process->nr_pages = region.nr_pages;
	for (uint64_t i = 0; i < region.nr_pages; i++) {
		int64_t row = region.rows ? region.rows[i] : (int64_t)i;
		process->contents[i] = row < 0 ? ABSENT : content_of((uint64_t)row);
	}
}

static void write(struct life *life, int which, uint64_t page, uint16_t content)
{
	uint8_t bytes[MAX_PAGE_SIZE];
	put(life->engine, bytes, content);
	INSIST(life, lksm_process_write(life->processes[which].slot, page, 0, bytes,
					life->engine->rules.page_size));
	life->processes[which].contents[page] = content;
	expect_sound(life);
}

static void fork(struct life *life, int parent, int child)
{
	struct mm_slot *slot = NULL;
	INSIST(life, lksm_process_fork(life->processes[parent].slot, &slot));
	life->processes[child] = life->processes[parent];
	life->processes[child].slot = slot;
	expect_sound(life);
}

static void leave(struct life *life, int which)
{
	lksm_process_destroy(life->processes[which].slot);
	life->processes[which].slot = NULL;
	expect_sound(life);
}

/* Leaves @nr_free objects in the pool of nodes, so that the next after them, a frame or a chain, needs memory. */
static void leave_free_nodes(struct engine *engine, uint32_t nr_free)
{
	uint32_t taken[POOL_CHUNK_OBJECTS], nr_taken = 0;
	while (nr_taken < POOL_CHUNK_OBJECTS && engine->nodes.free_object)
		taken[nr_taken++] = pool_create(&engine->nodes);
	while (nr_taken && nr_free--)
		pool_destroy(&engine->nodes, taken[--nr_taken]);
}

/* --- the life ---------------------------------------------------------------------------------- */

static uint16_t few(uint64_t page)
{
	return (uint16_t)(page % 4);
}

static uint16_t pairs(uint64_t page)
{
	return (uint16_t)(page / 2 * 5);
}

/* Mostly different from each other; some that no sample tells apart, over two blocks of items. */
static uint16_t many(uint64_t page)
{
	return (uint16_t)(page % 40 ? page : page / 2) | (page % 7 ? 0 : COLLIDES);
}

static void report(struct life *life)
{
	static int64_t matrix[NR_PROCESSES * NR_PROCESSES];
	static struct lksm_group groups[1000];
	struct lksm_counters c = counters_of(life->engine);
	uint64_t nr_groups = lksm_nr_groups(life->engine, -1, 2), digest;
	int64_t nr_pages = 0;

	expect_frames(life);
	INSIST(life, lksm_sharing_matrix(life->engine, matrix));
	if (!EXPECT(nr_groups <= 1000))
		return;
	lksm_groups(life->engine, -1, 1, true, groups);
	for (uint64_t i = 0; i < lksm_nr_groups(life->engine, -1, 1); i++)
		nr_pages += groups[i].pages;
	EXPECT_EQUAL(nr_pages, c.pages_shared + c.pages_sharing);
	for (int i = 0; i < NR_PROCESSES; i++) {
		struct process *process = &life->processes[i];
		struct lksm_explanation explanation;
		for (uint64_t page = 0; process->slot && page < process->nr_pages; page += 3) {
			EXPECT_EQUAL(lksm_explain(process->slot, page, true, &explanation), LKSM_OK);
			EXPECT_EQUAL(explanation.reason == LKSM_ABSENT, process->contents[page] == ABSENT);
			EXPECT_EQUAL(lksm_page_digest(process->slot, page, &digest),
				     process->contents[page] == ABSENT ? LKSM_INVALID : LKSM_OK);
		}
	}
	expect_sound(life);
}

/* Fills what has been unmapped from another array, at the same addresses. */
static void map_late(struct life *life)
{
	struct process *process = &life->processes[PLAIN];
	uint64_t page_size = life->engine->rules.page_size;
	life->arrays[NR_PROCESSES] = malloc(2 * page_size);
	put(life->engine, life->arrays[NR_PROCESSES], 1);
	put(life->engine, life->arrays[NR_PROCESSES] + page_size, 2);
	EXPECT_EQUAL(lksm_process_unmap(process->slot, 1, 3), LKSM_OK);
	process->contents[1] = process->contents[2] = ABSENT;
	INSIST(life, map_pages(process->slot, 1, life->arrays[NR_PROCESSES], 2));
	process->contents[process->nr_pages++] = 1;
	process->contents[process->nr_pages++] = 2;
	expect_sound(life);
}

static void live(struct life *life, uint32_t nr_free_nodes)
{
	static const int64_t rows[] = { 5, 0, -1, 5, 3, 2, 1 };
	struct engine *engine = life->engine;

	attach(life, PLAIN, 0, (struct lksm_region){ .nr_array_pages = 14, .nr_pages = 14, .filter_key = 9 }, few);
	attach(life, LENT, 0, (struct lksm_region){ .nr_array_pages = 12, .nr_pages = 12, .is_immutable = true }, few);
	attach(life, ROWS, 0, (struct lksm_region){ .nr_array_pages = 6, .nr_pages = 7, .rows = rows, .node = 1 }, pairs);
	attach(life, OTHER, 7, (struct lksm_region){ .nr_array_pages = 12, .nr_pages = 12, .is_tracked = true,
							 .filter_key = 9 },
	       pairs);
	attach(life, MANY, 0, (struct lksm_region){ .nr_array_pages = 270, .nr_pages = 270, .filter_key = 1 }, many);
	leave_free_nodes(engine, nr_free_nodes);
	scan(life, 37);
	scan(life, 64);
	report(life);

	INSIST(life, lksm_process_move(life->processes[PLAIN].slot, 2, 9, 2));
	INSIST(life, lksm_process_move(life->processes[LENT].slot, 0, 12, 1));
	scan(life, 1000);
	INSIST(life, lksm_process_set_domain(life->processes[OTHER].slot, 0));
	write(life, OTHER, 3, 5);
	EXPECT_EQUAL(lksm_process_touch(life->processes[OTHER].slot, 4, 6), LKSM_OK);
	scan(life, 1000);
	INSIST(life, lksm_process_set_domain(life->processes[ROWS].slot, 8));
	scan(life, 1000);
	INSIST(life, lksm_process_set_domain(life->processes[ROWS].slot, 0));

	fork(life, PLAIN, CHILD);
	write(life, CHILD, 0, 40);
	write(life, PLAIN, 1, 41);
	fork(life, CHILD, GRANDCHILD);
	write(life, GRANDCHILD, 0, 42);
	write(life, GRANDCHILD, 5, 40);
	write(life, CHILD, 5, 43);
	scan(life, 50);

	lksm_set_use_zero_pages(engine, true);
	for (uint64_t page = 100; page < 110; page++) {	/* the owner writes, and nobody is told */
		life->processes[MANY].contents[page] = page < 104 ? 0 : 99;
		put(engine, life->arrays[MANY] + page * engine->rules.page_size, life->processes[MANY].contents[page]);
	}
	scan(life, 50);
	fork(life, MANY, LATE);
	write(life, LATE, 101, 6);
	write(life, MANY, 102, 7);
	lksm_set_use_zero_pages(engine, false);
	map_late(life);
	lksm_set_smart_scan(engine, true);
	scan(life, 1000);
	lksm_set_smart_scan(engine, false);
	report(life);

	leave(life, LENT);
	scan(life, 1000);
	EXPECT_EQUAL(lksm_offline(engine, 2), LKSM_OK);
	scan(life, 1000);
	leave(life, CHILD);
	EXPECT_EQUAL(lksm_process_advise(life->processes[MANY].slot, 10, 250, false), LKSM_OK);
	scan(life, 1000);

	lksm_set_unfiltered(engine, true);
	lksm_unmerge(engine);
	EXPECT_COUNTERS(engine, 0, 0, 0);
	fail_no_more(engine);		/* what nobody needed to be told of ends here */
	for (int i = 0; i < 4; i++)
		scan(life, 1000);
	expect_frames(life);
}

/* --- every allocation fails -------------------------------------------------------------------- */

struct variant {
	struct setup setup;
	bool is_apart;			/* memory nodes are kept apart */
	uint32_t nr_free_nodes;
};

/* The counters at rest of a life in which the @n-th allocation fails, and how many allocations it makes. */
static struct lksm_counters live_with(const struct variant *variant, uint64_t n, uint64_t nr_more, uint64_t *nr_ret,
				      uint64_t *nr_refused_ret)
{
	static struct life life;
	life = (struct life){ .engine = make_engine(variant->setup) };
	EXPECT_EQUAL(lksm_set_merge_across_nodes(life.engine, !variant->is_apart), LKSM_OK);
	life.engine->memory.fail_at = n;
	life.engine->memory.fail_count = nr_more;
	live(&life, variant->nr_free_nodes);
	struct lksm_counters counters = counters_of(life.engine);
	*nr_ret = life.engine->memory.nr_allocations;
	*nr_refused_ret += life.nr_refused;
	DESTROY(life.engine);
	for (int i = 0; i <= NR_PROCESSES; i++)
		free(life.arrays[i]);
	return counters;
}

static uint64_t stride = 1;

/* Whichever allocation fails, alone or with those after it, nothing is lost, leaked, or different in the end. */
static void test_every_allocation_fails(void)
{
	static const struct variant variants[] = {
		{ { .max_page_sharing = 3, .nr_nodes = 3, .seed = 1 }, .is_apart = true, .nr_free_nodes = 3 },
		{ { .page_size = MAX_PAGE_SIZE, .max_page_sharing = 2, .nr_nodes = 3, .initial_rounds = 3, .seed = 2 },
		  .nr_free_nodes = 0 },
		{ { .max_page_sharing = 3, .nr_nodes = 3, .gate_first = true, .seed = 3 }, .is_apart = true, .nr_free_nodes = 2 },
		{ { .nr_nodes = 3, .is_secure = true, .hash = hash_8_bits, .seed = 4 }, .nr_free_nodes = 1 },
	};
	uint64_t nr_lives = 0, nr_refused = 0;
	for (size_t i = 0; i < NR_TESTS(variants) && !nr_failures; i++) {
		uint64_t nr_allocations = 0, nr_needed;
		struct lksm_counters wanted = live_with(&variants[i], 0, 0, &nr_needed, &nr_refused);
		for (uint64_t n = 1; n <= nr_allocations || n == 1; n += stride) {
			for (int is_for_ever = 0; is_for_ever < 2 && !nr_failures; is_for_ever++) {
				struct lksm_counters c = live_with(&variants[i], n, is_for_ever ? FAIL_FOR_EVER : 0,
								   &nr_allocations, &nr_refused);
				EXPECT_EQUAL(c.pages_shared, wanted.pages_shared);
				EXPECT_EQUAL(c.pages_sharing, wanted.pages_sharing);
				EXPECT_EQUAL(c.pages_unshared, wanted.pages_unshared);
				EXPECT_EQUAL(c.rmap_items, wanted.rmap_items);
				EXPECT_EQUAL(c.stable_node_dups, wanted.stable_node_dups);
				EXPECT_EQUAL(c.zero_pages, wanted.zero_pages);
				nr_lives++;
				if (nr_failures)
					printf("variant %zu, allocation %" PRIu64 "%s\n", i, n, is_for_ever ? " and all after it" : "");
			}
			if (nr_failures)
				break;
		}
	}
	printf("%" PRIu64 " lives, %" PRIu64 " steps refused\n", nr_lives, nr_refused);
	EXPECT(nr_refused > nr_lives / 4);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(test_every_allocation_fails),
	};
	if (argc > 1)
		stride = strtoull(argv[1], NULL, 10);
	return run_tests(tests, NR_TESTS(tests));
}
