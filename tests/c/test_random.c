/*
 * test_random.c - long random lives of an engine beside a brute-force model, and a rich scenario in which
 * every single allocation fails once.
 *
 * The model knows for each page of each process which content it should have. At rest, after quiet
 * scans, all pages are compared with all: equal ones share frames as far as the limit allows, different
 * ones never, and the counters are what counting says.
 *
 * Run with a number to make that many steps instead of 100000.
 */
#include "fixture.h"

#define MAX_PROCESSES 10
#define MAX_PAGES 48
#define NR_CONTENTS 14
#define NR_SHARED_ARRAYS 3
#define SHARED_PAGES 20
#define NR_DOMAINS 2
#define PRUNE_DELAY 100
#define NR_KEYS 4

/* Memory that processes and their forks are made of; freed when nobody uses it. */
struct array {
	uint8_t *block;			/* what was allocated */
	uint8_t *pages;			/* at any alignment in it */
	uint64_t nr_pages;
	uint8_t contents[SHARED_PAGES];	/* of arrays that several processes write: by row */
	bool is_immutable;
	uint64_t nr_users;
};

struct process {
	struct mm_slot *slot;		/* NULL: not alive */
	uint32_t domain;
	uint64_t nr_pages;
	bool is_absent[MAX_PAGES];
	bool is_opted_out[MAX_PAGES];
	uint8_t contents[MAX_PAGES];	/* unless @shared */
	struct array *shared;		/* the array has the contents, other processes may see it too */
	uint64_t rows[MAX_PAGES];	/* which page of it each page is */
	struct array *arrays[MAX_PAGES];
	uint64_t nr_arrays;
	uint64_t low, high;		/* addresses in use, in pages */
	bool is_forked;			/* or was: plain writes would reach relatives */
};

struct world {
	struct engine *engine;
	uint64_t random;
	uint64_t now;			/* its clock */
	uint8_t *contents[NR_CONTENTS];
	struct array *shared[NR_SHARED_ARRAYS];
	struct process processes[MAX_PROCESSES];
};

static uint64_t below(struct world *world, uint64_t limit)
{
	return next_random(&world->random) % limit;
}

static uint64_t page_size_of(const struct world *world)
{
	return world->engine->rules.page_size;
}

/* --- contents and arrays --------------------------------------------------------------------- */

/* Zero, and letters of which there are two or three that no sample can tell apart. */
static void make_contents(struct world *world)
{
	uint64_t page_size = page_size_of(world);
	for (uint64_t i = 0; i < NR_CONTENTS; i++) {
		world->contents[i] = malloc(page_size);
		memset(world->contents[i], (int)(i / 3), page_size);
		if (i % 3 == 1)
			world->contents[i][page_size == 64 ? 63 : unsampled_byte(world->engine) + 63] ^= 1;
		if (i % 3 == 2)
			world->contents[i][page_size == 64 ? 1 : unsampled_byte(world->engine) + 1] ^= 0x80;
	}
}

static void put(const struct world *world, uint8_t *page, uint8_t content)
{
	memcpy(page, world->contents[content], page_size_of(world));
}

static struct array *make_array(struct world *world, uint64_t nr_pages, bool is_immutable)
{
	struct array *array = calloc(1, sizeof(*array));
	array->block = malloc(nr_pages * page_size_of(world) + 1);
	array->pages = array->block + below(world, 2);
	array->nr_pages = nr_pages;
	array->is_immutable = is_immutable;
	return array;
}

static void put_array(struct array *array)
{
	if (--array->nr_users)
		return;
	free(array->block);
	free(array);
}

static void use_array(struct process *process, struct array *array)
{
	array->nr_users++;
	process->arrays[process->nr_arrays++] = array;
}

static void forget_process(struct process *process)
{
	for (uint64_t i = 0; i < process->nr_arrays; i++)
		put_array(process->arrays[i]);
	*process = (struct process){ 0 };
}

static uint8_t *content_of(struct process *process, uint64_t page)
{
	return process->shared ? &process->shared->contents[process->rows[page]] : &process->contents[page];
}

/* --- what the model expects ------------------------------------------------------------------ */

static void expect_contents(struct world *world, struct process *process)
{
	static uint8_t page[65536];
	for (uint64_t i = 0; i < process->nr_pages; i++) {
		int error = lksm_process_read(process->slot, i, 1, page);
		EXPECT_EQUAL(error, process->is_absent[i] ? LKSM_INVALID : LKSM_OK);
		if (!error)
			EXPECT(!memcmp(page, world->contents[*content_of(process, i)], page_size_of(world)));
	}
}

/* One page that may be merged. */
struct seen {
	uint32_t domain;
	uint8_t content;
	bool is_alias;		/* an earlier one has the same address */
	const uint8_t *address;
	int64_t frame;
};

static uint64_t look_at_all(struct world *world, struct seen *seen)
{
	static int64_t entries[MAX_PAGES];
	uint64_t nr_seen = 0;
	for (int i = 0; i < MAX_PROCESSES; i++) {
		struct process *process = &world->processes[i];
		if (!process->slot)
			continue;
		expect_contents(world, process);
		lksm_page_table(process->slot, entries);
		for (uint64_t page = 0; page < process->nr_pages; page++) {
			uint64_t place;
			const struct region *region = mm_slot_region(process->slot, page, &place);
			if (process->is_absent[page] || process->is_opted_out[page]) {
				EXPECT_EQUAL(entries[page], process->is_absent[page] ? LKSM_ENTRY_ABSENT
										     : LKSM_ENTRY_PRIVATE);
				continue;
			}
			seen[nr_seen++] = (struct seen){
				.domain = process->domain,
				.content = *content_of(process, page),
				.address = region_page(region, place),
				.frame = entries[page],
			};
		}
	}
	for (uint64_t i = 0; i < nr_seen; i++)
		for (uint64_t j = 0; j < i; j++)
			seen[i].is_alias |= seen[i].domain == seen[j].domain && seen[i].address == seen[j].address;
	return nr_seen;
}

/* All pages with all others; counters by counting. */
static void expect_at_rest(struct world *world)
{
	static struct seen seen[MAX_PROCESSES * MAX_PAGES];
	uint64_t nr_seen = look_at_all(world, seen);
	uint64_t shared = 0, sharing = 0, unshared = 0, nr_aliases = 0, limit = world->engine->max_page_sharing;
	uint64_t nr_chains = 0, nr_dups = 0;
	uint64_t nr_zero = 0, nr_zero_saved = 0;

	for (uint64_t i = 0; i < nr_seen; i++) {
		/* Of this frame, and of this content outside any frame, counting each page once. */
		uint64_t nr_in_frame = 0, nr_unmerged = 0, nr_before = 0;
		bool is_first_of_frame = true, is_first_of_content = true, has_other_frame = false, has_room = false;
		for (uint64_t j = 0; j < nr_seen; j++) {
			if (seen[i].domain != seen[j].domain) {
				EXPECT(seen[i].frame < 0 || seen[i].frame != seen[j].frame);
				continue;
			}
			bool is_same_content = seen[i].content == seen[j].content;
			bool is_same_frame = seen[i].frame >= 0 && seen[i].frame == seen[j].frame;
			EXPECT(is_same_content || !is_same_frame);
			if (seen[i].address == seen[j].address)
				EXPECT_EQUAL(seen[i].frame, seen[j].frame);
			if (seen[j].is_alias)
				continue;
			nr_in_frame += is_same_frame;
			nr_unmerged += is_same_content && seen[j].frame == LKSM_ENTRY_PRIVATE;
			nr_before += is_same_frame && j < i;
			is_first_of_frame &= !is_same_frame || j >= i;
			is_first_of_content &= !is_same_content || seen[j].frame < 0 || j >= i;
			has_other_frame |= is_same_content && !is_same_frame && seen[j].frame >= 0;
			if (is_same_content && seen[j].frame >= 0 && seen[i].frame == LKSM_ENTRY_PRIVATE) {
				uint64_t nr_there = 0;
				for (uint64_t k = 0; k < nr_seen; k++)
					nr_there += !seen[k].is_alias && seen[k].frame == seen[j].frame;
				has_room |= nr_there < limit;
			}
		}
		bool is_zero = seen[i].frame == LKSM_ENTRY_ZERO;
		EXPECT(!is_zero || !seen[i].content);
		EXPECT(seen[i].content || !world->engine->use_zero_pages || seen[i].frame != LKSM_ENTRY_PRIVATE);
		nr_zero += is_zero;
		nr_zero_saved += is_zero && !seen[i].is_alias;
		nr_aliases += seen[i].is_alias && !is_zero;
		if (seen[i].is_alias)
			continue;
		EXPECT(nr_in_frame <= limit);
		EXPECT(nr_unmerged <= 1 && !has_room);
		shared += seen[i].frame >= 0 && is_first_of_frame;
		sharing += seen[i].frame >= 0 && !is_first_of_frame;
		unshared += seen[i].frame == LKSM_ENTRY_PRIVATE;
		nr_chains += seen[i].frame >= 0 && has_other_frame && is_first_of_content;
		nr_dups += seen[i].frame >= 0 && has_other_frame && is_first_of_frame;
	}
	EXPECT_COUNTERS(world->engine, shared, sharing, unshared);
	EXPECT_EQUAL(counters_of(world->engine).rmap_items, nr_seen - nr_zero);
	EXPECT_EQUAL(counters_of(world->engine).zero_pages, nr_zero);
	EXPECT_EQUAL(counters_of(world->engine).zero_saved, nr_zero_saved);
	EXPECT_EQUAL(volatile_of(world->engine), nr_aliases);
	/* Every chain was due, so those with one frame have collapsed. */
	EXPECT_EQUAL(counters_of(world->engine).stable_node_chains, nr_chains);
	EXPECT_EQUAL(counters_of(world->engine).stable_node_dups, nr_dups);
}

/* --- steps ----------------------------------------------------------------------------------- */

static struct process *any_process(struct world *world, bool is_alive)
{
	uint64_t first = below(world, MAX_PROCESSES);
	for (uint64_t i = 0; i < MAX_PROCESSES; i++) {
		struct process *process = &world->processes[(first + i) % MAX_PROCESSES];
		if ((process->slot != NULL) == is_alive)
			return process;
	}
	return NULL;
}

/* Pages of its own: mutable, or immutable. */
static struct lksm_region make_own_region(struct world *world, struct process *process, uint64_t address,
					  uint64_t nr_pages, uint8_t *contents)
{
	struct array *array = make_array(world, nr_pages, below(world, 3) == 0);
	for (uint64_t i = 0; i < nr_pages; i++) {
		contents[i] = (uint8_t)below(world, NR_CONTENTS);
		put(world, array->pages + i * page_size_of(world), contents[i]);
	}
	use_array(process, array);
	return (struct lksm_region){
		.address = address * page_size_of(world),
		.pages = array->pages,
		.nr_array_pages = nr_pages,
		.nr_pages = nr_pages,
		.is_immutable = array->is_immutable,
		.filter_key = below(world, NR_KEYS),
		.is_bss = below(world, 2),
	};
}

/* Part of an array that others see too, in order or by rows. */
static struct lksm_region make_shared_region(struct world *world, struct process *process, uint64_t address)
{
	struct array *array = world->shared[below(world, NR_SHARED_ARRAYS)];
	uint64_t nr_pages = 1 + below(world, SHARED_PAGES), first = below(world, SHARED_PAGES - nr_pages + 1);
	bool has_rows = below(world, 2);
	struct array *row_array = calloc(1, sizeof(*row_array));
	int64_t *rows = malloc(nr_pages * sizeof(*rows));
	row_array->block = (uint8_t *)rows;
	use_array(process, row_array);
	use_array(process, array);
	process->shared = array;
	for (uint64_t i = 0; i < nr_pages; i++) {
		rows[i] = has_rows ? (int64_t)below(world, SHARED_PAGES + 1) - 1 : (int64_t)(first + i);
		process->is_absent[i] = rows[i] < 0;
		process->rows[i] = rows[i] < 0 ? 0 : (uint64_t)rows[i];
	}
	return (struct lksm_region){
		.address = address * page_size_of(world),
		.pages = array->pages + (has_rows ? 0 : first * page_size_of(world)),
		.nr_array_pages = has_rows ? SHARED_PAGES : nr_pages,
		.rows = has_rows ? rows : NULL,
		.nr_pages = nr_pages,
		.is_immutable = array->is_immutable,
		.filter_key = below(world, NR_KEYS),
	};
}

static void attach(struct world *world)
{
	struct process *process = any_process(world, false);
	if (!process)
		return;
	*process = (struct process){ .domain = (uint32_t)(below(world, 4) / (5 - NR_DOMAINS)), .low = 1000 };
	struct lksm_region region;
	if (below(world, 2))
		region = make_own_region(world, process, process->low, 1 + below(world, 16), process->contents);
	else
		region = make_shared_region(world, process, process->low);
	process->nr_pages = region.nr_pages;
	process->high = process->low + region.nr_pages;
	int error = lksm_process_create(world->engine, process->domain, &process->slot);
	if (!error)
		error = lksm_process_map(process->slot, &region);
	if (!error)
		return;
	EXPECT_EQUAL(error, LKSM_NO_MEMORY);
	if (process->slot)
		lksm_process_destroy(process->slot);
	forget_process(process);
}

static void map_more(struct world *world)
{
	struct process *process = any_process(world, true);
	uint64_t nr_pages = 1 + below(world, 5);
	bool is_before = below(world, 2);
	uint8_t contents[5];
	if (!process || process->shared || process->nr_pages + nr_pages > MAX_PAGES)
		return;
	uint64_t address = is_before ? process->low - nr_pages : process->high;
	struct lksm_region region = make_own_region(world, process, address, nr_pages, contents);
	int error = lksm_process_map(process->slot, &region);
	if (error) {
		EXPECT_EQUAL(error, LKSM_NO_MEMORY);
		put_array(process->arrays[--process->nr_arrays]);
		return;
	}
	process->low = is_before ? address : process->low;
	process->high = is_before ? process->high : address + nr_pages;
	uint64_t at = is_before ? 0 : process->nr_pages, nr_after = process->nr_pages - at;
	memmove(process->contents + at + nr_pages, process->contents + at, nr_after);
	memmove(process->is_absent + at + nr_pages, process->is_absent + at, nr_after);
	memmove(process->is_opted_out + at + nr_pages, process->is_opted_out + at, nr_after);
	memcpy(process->contents + at, contents, nr_pages);
	memset(process->is_absent + at, 0, nr_pages);
	memset(process->is_opted_out + at, 0, nr_pages);
	process->nr_pages += nr_pages;
}

static void fork_one(struct world *world)
{
	struct process *parent = any_process(world, true), *child = any_process(world, false);
	if (!parent || !child || (parent->shared && !parent->shared->is_immutable))
		return;
	struct mm_slot *slot = NULL;
	int error = lksm_process_fork(parent->slot, &slot);
	if (error) {
		EXPECT_EQUAL(error, LKSM_NO_MEMORY);
		return;
	}
	parent->is_forked = true;
	*child = *parent;
	child->slot = slot;
	for (uint64_t i = 0; i < child->nr_arrays; i++)
		child->arrays[i]->nr_users++;
}

static bool is_immutable(struct process *process, uint64_t page)
{
	uint64_t place;
	return mm_slot_region(process->slot, page, &place)->is_immutable;
}

static void write_one(struct world *world)
{
	struct process *process = any_process(world, true);
	if (!process)
		return;
	uint64_t page = below(world, process->nr_pages);
	uint8_t content = (uint8_t)below(world, NR_CONTENTS);
	int error = lksm_process_write(process->slot, page, 0, world->contents[content], page_size_of(world));
	if (process->is_absent[page] || is_immutable(process, page))
		EXPECT_EQUAL(error, LKSM_INVALID);
	else
		EXPECT(!error || error == LKSM_NO_MEMORY);
	if (!error)
		*content_of(process, page) = content;
}

/* The owner writes its array with plain memory. */
static void write_plainly(struct world *world)
{
	struct process *process = any_process(world, true);
	if (!process || process->is_forked)
		return;
	uint64_t page = below(world, process->nr_pages), place;
	if (is_immutable(process, page))
		return;
	const struct region *region = mm_slot_region(process->slot, page, &place);
	if (process->is_absent[page])
		return;
	*content_of(process, page) = (uint8_t)below(world, NR_CONTENTS);
	put(world, (uint8_t *)region_page(region, place), *content_of(process, page));
}

static void unmap_or_advise(struct world *world)
{
	struct process *process = any_process(world, true);
	if (!process)
		return;
	uint64_t start = below(world, process->nr_pages), stop = start + 1 + below(world, 4);
	uint64_t what = below(world, 4);
	stop = stop < process->nr_pages ? stop : process->nr_pages;
	if (what == 0)
		EXPECT_EQUAL(lksm_process_unmap(process->slot, start, stop), LKSM_OK);
	else
		EXPECT_EQUAL(lksm_process_advise(process->slot, start, stop, what > 1), LKSM_OK);
	for (uint64_t page = start; page < stop; page++) {
		process->is_absent[page] |= what == 0;
		process->is_opted_out[page] = what == 1 || (what == 0 && process->is_opted_out[page]);
	}
}

static void exit_one(struct world *world)
{
	struct process *process = any_process(world, true);
	if (!process)
		return;
	lksm_process_destroy(process->slot);
	forget_process(process);
}

/* Visits some pages, if need be of a new round over some processes. */
static void scan_some(struct world *world)
{
	struct engine *engine = world->engine;
	uint64_t nr_scanned = 0, nr_wanted = 1 + below(world, 60);
	world->now += below(world, 3) ? 0 : below(world, 2 * PRUNE_DELAY);
	if (!lksm_has_queue(engine) || !engine->crawl_round) {
		lksm_begin_round(engine, world->now);
		for (struct mm_slot *slot = engine->slots; slot; slot = slot->next)
			if (below(world, 3))
				enqueue(slot, below(world, 4) == 0);
	}
	int error = below(world, 2) ? lksm_scan(engine, nr_wanted, world->now, &nr_scanned)
				    : scan_with_help(engine, !below(world, 8), nr_wanted, world->now, &nr_scanned);
	EXPECT(!error || error == LKSM_NO_MEMORY);
	EXPECT(nr_scanned <= nr_wanted);
	/* A batch goes on as long as there is something to do; upstream's ends where a pass ends. */
	if (!error && nr_scanned < nr_wanted && !engine->cursor.slot)
		EXPECT(!lksm_has_queue(engine) || engine->gate_first);
}

static void disturb_queue(struct world *world)
{
	struct process *process = any_process(world, true);
	if (!process)
		return;
	switch (below(world, 8)) {
	case 0:
		lksm_dequeue(process->slot);
		break;
	case 1:
		lksm_requeue_frozen(process->slot, true);
		break;
	case 2:
		lksm_begin_round(world->engine, world->now);
		break;
	case 3:
		lksm_move_to_front(process->slot);
		break;
	case 4:
		lksm_set_smart_scan(world->engine, below(world, 2));
		break;
	case 5:
		lksm_set_use_zero_pages(world->engine, below(world, 2));
		break;
	case 6:
		lksm_set_unfiltered(world->engine, below(world, 2));
		break;
	default:
		enqueue(process->slot, below(world, 2));
		break;
	}
}

/* The end of a scan, at any time: what was due is so no more. */
static void prune(struct world *world)
{
	world->now += below(world, PRUNE_DELAY);
	struct lksm_counters before = counters_of(world->engine);
	lksm_prune_chains(world->engine, world->now);
	struct lksm_counters after = counters_of(world->engine);
	EXPECT_EQUAL(before.stable_node_chains - after.stable_node_chains, before.stable_node_dups - after.stable_node_dups);
	for (struct index *index = world->engine->indexes; index; index = index->next)
		EXPECT(!index->first_chain || node_at(world->engine, index->first_chain)->pruned + PRUNE_DELAY > world->now);
}

/* Reports disturb nothing. */
static void report_all(struct world *world)
{
	static struct lksm_group groups[MAX_PROCESSES * MAX_PAGES];
	static int64_t matrix[MAX_PROCESSES * MAX_PROCESSES];
	struct lksm_counters before = counters_of(world->engine);
	uint64_t nr_groups = lksm_nr_groups(world->engine, -1, 1), nr_pages = 0;
	lksm_groups(world->engine, -1, 1, true, groups);
	for (uint64_t i = 0; i < nr_groups; i++)
		nr_pages += (uint64_t)groups[i].pages;
	EXPECT_EQUAL(nr_pages, before.pages_shared + before.pages_sharing);
	int error = lksm_sharing_matrix(world->engine, matrix);
	EXPECT(!error || error == LKSM_NO_MEMORY);
	struct process *process = any_process(world, true);
	for (uint64_t page = 0; process && page < process->nr_pages; page++) {
		struct lksm_explanation explanation;
		EXPECT_EQUAL(lksm_explain(process->slot, page, false, &explanation), LKSM_OK);
		EXPECT_EQUAL(explanation.reason == LKSM_ABSENT, process->is_absent[page]);
	}
	struct lksm_counters after = counters_of(world->engine);
	EXPECT(!memcmp(&before, &after, sizeof(before)));
}

/* Scans until nothing can change any more: every page is visited. */
static void come_to_rest(struct world *world)
{
	lksm_set_smart_scan(world->engine, false);
	lksm_set_unfiltered(world->engine, true);
	/*
	 * The first may only finish what was begun; pages may cease to be aliases in the second; then comes the
	 * gate; and what went to the zero frame leaves its item to the next.
	 */
	int nr_scans = world->engine->gate_first ? 4 : 3;
	for (int i = 0; i < nr_scans || counters_of(world->engine).crawl_round < 5; i++)
		full(world->engine);
	full(world->engine);
	world->now += PRUNE_DELAY;
	lksm_prune_chains(world->engine, world->now);
	expect_at_rest(world);
	lksm_set_unfiltered(world->engine, false);
}

static void step(struct world *world)
{
	static void (*const steps[])(struct world *) = {
		attach, attach, map_more, fork_one, write_one, write_one, write_one, write_one, write_plainly,
		write_plainly, unmap_or_advise, unmap_or_advise, exit_one, scan_some, scan_some, scan_some, scan_some,
		scan_some, disturb_queue, report_all, prune,
	};
	uint64_t what = below(world, 1000);
	if (what < 2) {
		lksm_unmerge(world->engine);
		EXPECT_COUNTERS(world->engine, 0, 0, 0);
		return;
	}
	if (what < 25) {
		come_to_rest(world);
		return;
	}
	if (what < 150) {
		world->engine->memory.fail_at = world->engine->memory.nr_allocations + 1 + below(world, 4);
		world->engine->memory.fail_count = below(world, 3);
	}
	steps[below(world, NR_TESTS(steps))](world);
	fail_no_more(world->engine);
}

/* --- lives ----------------------------------------------------------------------------------- */

static uint64_t nr_steps = 100000;

static void live(struct setup setup, uint64_t nr_steps_now)
{
	struct world world = { .engine = make_engine(setup), .random = setup.seed };
	lksm_set_use_zero_pages(world.engine, setup.seed % 3 == 0);
	make_contents(&world);
	lksm_set_prune_delay(world.engine, PRUNE_DELAY);
	for (uint64_t i = 0; i < NR_SHARED_ARRAYS; i++) {
		struct array *array = world.shared[i] = make_array(&world, SHARED_PAGES, i);
		array->nr_users = 1;
		for (uint64_t row = 0; row < SHARED_PAGES; row++) {
			array->contents[row] = (uint8_t)below(&world, NR_CONTENTS);
			put(&world, array->pages + row * setup.page_size, array->contents[row]);
		}
	}
	for (uint64_t i = 0; i < nr_steps_now && !nr_failures; i++) {
		step(&world);
		EXPECT_SOUND(world.engine);
		struct process *process = any_process(&world, true);
		if (process)
			expect_contents(&world, process);
		if (nr_failures)
			printf("at step %" PRIu64 "\n", i);
	}
	if (!nr_failures)
		come_to_rest(&world);
	DESTROY(world.engine);
	for (int i = 0; i < MAX_PROCESSES; i++)
		forget_process(&world.processes[i]);
	for (uint64_t i = 0; i < NR_SHARED_ARRAYS; i++)
		put_array(world.shared[i]);
	for (uint64_t i = 0; i < NR_CONTENTS; i++)
		free(world.contents[i]);
}

/* Whatever happens, every process reads its contents, and at rest what is equal is shared. */
static void test_random_lives(void)
{
	static const uint64_t page_sizes[] = { 64, 256, 4096 }, limits[] = { 2, 3, UNLIMITED };
	uint64_t nr_lives = NR_TESTS(page_sizes) * NR_TESTS(limits) * NR_HASHES;
	for (uint64_t i = 0; i < nr_lives && !nr_failures; i++) {
		struct setup setup = {
			.page_size = page_sizes[i % 3],
			.max_page_sharing = limits[i / 3 % 3],
			.hash = all_hashes[i / 9],
			.initial_rounds = i % 2 ? 3 : 0,
			.merge_window = 1 + (uint32_t)i % LKSM_MAX_WINDOW,
			.gate_first = i % 4 > 1,
			.filter_maturity = i % 5,
			.seed = 1 + i,
		};
		live(setup, nr_steps / nr_lives + 1);
		if (nr_failures)
			printf("seed %" PRIu64 ", pages of %" PRIu64 " bytes, limit %" PRIu64 ", hash %" PRIu64 "\n", setup.seed,
			       setup.page_size, setup.max_page_sharing, i / 9);
	}
}

/* --- every allocation fails once ------------------------------------------------------------- */

/* Does something until there is memory for it; each failure must leave the engine sound. */
#define INSIST(engine, call)                                           \
	do {                                                           \
		int error;                                             \
		while ((error = (call)) == LKSM_NO_MEMORY) {           \
			has_failed = true;                             \
			EXPECT_SOUND(engine);                          \
		}                                                      \
		EXPECT_EQUAL(error, LKSM_OK);                          \
		EXPECT_SOUND(engine);                                  \
	} while (0)

static bool has_failed;		/* in this run of the scenario */

static void scan_all(struct engine *engine, uint64_t budget)
{
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	while (lksm_has_queue(engine)) {
		uint64_t nr_scanned;
		INSIST(engine, lksm_scan(engine, budget, 0, &nr_scanned));
	}
}

/* Leaves @nr_free nodes in the pool, so that the next after them, a frame or a chain, needs memory. */
static void leave_free_nodes(struct engine *engine, uint32_t nr_free)
{
	uint32_t taken[POOL_CHUNK_OBJECTS], nr_taken = 0;
	do
		taken[nr_taken] = pool_create(&engine->nodes);
	while (taken[nr_taken] && ++nr_taken < POOL_CHUNK_OBJECTS && engine->nodes.free_object);
	while (nr_taken && nr_free--)
		pool_destroy(&engine->nodes, taken[--nr_taken]);
}

/*
 * Attach, scan, pairs, chains that grow, shrink and are pruned, deepening, fork, writes, unmap, reports, exit,
 * unmerge; with a filter that learns and leaves nothing out.
 */
static void live_through(struct engine *engine, uint32_t nr_free_nodes, bool use_zero_pages)
{
	static const char *const pictures[] = { "aaaaabbc", "abcdeeff", "gghh0", "hi0" };
	struct mm_slot *processes[5] = { NULL };
	uint8_t *arrays[5];
	int64_t rows[] = { 2, 0, -1, 2 };

	for (int i = 0; i < 4; i++) {
		uint64_t nr_pages = strlen(pictures[i]);
		arrays[i] = make_pages(engine, pictures[i]);
		struct lksm_region region = {
			.pages = arrays[i],
			.nr_array_pages = nr_pages,
			.nr_pages = nr_pages,
			.is_immutable = i == 1,
			.filter_key = 1,
		};
		INSIST(engine, lksm_process_create(engine, 0, &processes[i]));
		INSIST(engine, lksm_process_map(processes[i], &region));
	}
	/* Contents that collide, over two blocks of items. */
	arrays[4] = malloc(300 * 256);
	for (int i = 0; i < 300; i++) {
		memset(arrays[4] + i * 256, i % 7, 256);
		arrays[4][i * 256 + (int)unsampled_byte(engine)] = (uint8_t)(i % 31);
	}
	struct lksm_region collisions = {
		.address = 256 * 1000,
		.pages = arrays[4],
		.nr_array_pages = 300,
		.nr_pages = 300,
		.filter_key = 1,
	};
	INSIST(engine, lksm_process_map(processes[3], &collisions));
	leave_free_nodes(engine, nr_free_nodes);
	scan_all(engine, 50);
	lksm_set_use_zero_pages(engine, use_zero_pages);
	INSIST(engine, lksm_process_fork(processes[2], &processes[4]));
	INSIST(engine, write_page(processes[2], 0, 'x'));
	INSIST(engine, write_page(processes[4], 1, 'y'));
	INSIST(engine, write_page(processes[0], 2, 'd'));
	struct lksm_region view = {
		.address = 256 * 90,
		.pages = arrays[0],
		.nr_array_pages = 3,
		.rows = rows,
		.nr_pages = 4,
	};
	INSIST(engine, lksm_process_map(processes[4], &view));
	scan_all(engine, 40);
	EXPECT_PICTURE(processes[2], "xghh0");
	EXPECT_PICTURE(processes[4], "gyhh0da-d");
	INSIST(engine, lksm_process_unmap(processes[1], 1, 3));
	scan_all(engine, 1000);
	int64_t matrix[25];
	struct lksm_group groups[100];
	INSIST(engine, lksm_sharing_matrix(engine, matrix));
	EXPECT(lksm_nr_groups(engine, -1, 1) <= 100);
	lksm_groups(engine, -1, 1, true, groups);
	lksm_process_destroy(processes[1]);	/* a lender */
	EXPECT_SOUND(engine);
	lksm_prune_chains(engine, 0);
	EXPECT_SOUND(engine);
	scan_all(engine, 1000);
	lksm_unmerge(engine);
	EXPECT_COUNTERS(engine, 0, 0, 0);
	scan_all(engine, 1000);
	lksm_process_destroy(processes[2]);
	EXPECT_SOUND(engine);
	scan_all(engine, 1000);
	scan_all(engine, 1000);
	EXPECT_PICTURE(processes[0], "aadaabbc");
	EXPECT_PICTURE(processes[4], "gyhh0da-d");
	/* All present pages are remembered; three of them are the view's, of pages that are seen already. */
	struct lksm_counters c = counters_of(engine);
	EXPECT_EQUAL(c.rmap_items + c.zero_pages, 8 + 8 + 303);
	EXPECT_EQUAL(c.zero_pages != 0, use_zero_pages);
	EXPECT_EQUAL(volatile_of(engine), 3);
	DESTROY(engine);
	for (int i = 0; i < 5; i++)
		free(arrays[i]);
}

/* Whichever allocation fails, alone or with those after it, contents and structures stay right. */
static void test_every_allocation_fails(void)
{
	struct setup setup = { .max_page_sharing = 4, .filter_maturity = 1000, .seed = 1 };
	for (uint32_t i = 0; i < 8; i++) {
		uint32_t nr_free_nodes = i / 2;
		uint64_t n = 0, nr_more = i % 2 ? 3 : 0;
		do {
			struct engine *engine = make_engine(setup);
			engine->memory.fail_at = ++n / 2;	/* each with the knob off and on */
			engine->memory.fail_count = nr_more;
			has_failed = false;
			uint64_t nr_before = nr_failures;
			live_through(engine, nr_free_nodes, n % 2);
			if (nr_failures > nr_before)
				printf("allocation %" PRIu64 " and %" PRIu64 " more, %u nodes free\n", n / 2, nr_more, nr_free_nodes);
		} while (n < 600 && !nr_failures);
	}
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(test_random_lives),
		TEST(test_every_allocation_fails),
	};
	if (argc > 1)
		nr_steps = strtoull(argv[1], NULL, 10);
	return run_tests(tests, NR_TESTS(tests));
}
