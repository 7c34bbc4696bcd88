/*
 * fuzz_core.c - a string of bytes drives two engines over the same arrays, beside a model that knows what every page
 * must read.
 *
 * The first bytes choose the engines' options, then each operation takes a byte and its arguments; when they run out,
 * zeros follow. Arguments are not made valid first: what is refused must be refused with a reason and change nothing
 * that the model knows. After each operation the engine is checked and its counters are counted; in the end all comes
 * to rest, and pages in one frame must have one content. What goes wrong aborts.
 *
 * libFuzzer calls LLVMFuzzerTestOneInput(); without it driver.c does. See docs/testing.md.
 */
#include "fixture.h"

#define MAX_PROCESSES 6
#define MAX_PAGES 40
#define NR_CONTENTS 9
#define NR_SHARED 3		/* arrays that several processes, of both engines, see */
#define SHARED_PAGES 12
#define NR_NODES 2
#define MAX_OPERATIONS 300

#define DEMAND(condition)                                                                        \
	do {                                                                                     \
		if (!(condition)) {                                                              \
			fprintf(stderr, "%s: %s does not hold\n", PLACE, #condition);            \
			abort();                                                                 \
		}                                                                                \
	} while (0)

/* Memory of processes; freed with its last user. */
struct array {
	uint8_t *block;			/* what was allocated */
	uint8_t *pages;			/* in it, at any alignment */
	uint8_t contents[SHARED_PAGES];	/* of a shared one, by row */
	bool is_immutable;
	uint32_t nr_users;
};

struct process {
	struct mm_slot *slot;		/* NULL: not alive */
	uint64_t nr_pages;
	bool is_absent[MAX_PAGES];
	uint8_t contents[MAX_PAGES];	/* unless it sees a shared array */
	struct array *shared;
	uint8_t rows[MAX_PAGES];	/* which page of that each one is */
	struct array *arrays[MAX_PAGES + 2];
	uint32_t nr_arrays;
	uint64_t end;			/* page of the address space behind its last region */
	bool is_forked;			/* or has been: plain writes would reach relatives */
};

struct side {
	struct engine *engine;
	struct process processes[MAX_PROCESSES];
};

struct world {
	const uint8_t *data;		/* not yet consumed */
	size_t size;
	struct side sides[2];
	struct array *shared[NR_SHARED];
	uint8_t page[2][256];		/* scratch */
	uint64_t page_size;
	size_t unsampled;		/* a line of a page that no sample sees, if there is one */
	uint64_t now;
};

static uint8_t next_byte(struct world *world)
{
	if (!world->size)
		return 0;
	world->size--;
	return *world->data++;
}

static uint64_t below(struct world *world, uint64_t limit)
{
	return next_byte(world) % limit;
}

/* Mostly small; sometimes any number at all. */
static uint64_t wild(struct world *world)
{
	uint8_t byte = next_byte(world);
	if (byte < 0xf8)
		return byte & 0x3f;
	uint64_t number = 0;
	for (int i = 0; i < 8; i++)
		number = number << 8 | next_byte(world);
	return number;
}

/* --- contents ---------------------------------------------------------------------------------- */

/*
 * Content 0 is zeros; of three that follow each other no sample tells one from the others, if pages are large
 * enough.
 */
static void fill(const struct world *world, uint8_t *page, uint8_t content)
{
	memset(page, content / 3, world->page_size);
	if (content % 3)
		page[world->unsampled + (content % 3 == 1 ? 63 : 1)] ^= 0x81;
}

static struct array *make_array(const struct world *world, uint64_t nr_pages, uint8_t flags)
{
	struct array *array = calloc(1, sizeof(*array));
	array->block = malloc(nr_pages * world->page_size + 1);
	array->pages = array->block + (flags >> 1 & 1);
	array->is_immutable = flags & 1;
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
	while (process->nr_arrays)
		put_array(process->arrays[--process->nr_arrays]);
	*process = (struct process){ 0 };
}

static uint8_t *content_of(struct process *process, uint64_t page)
{
	return process->shared ? &process->shared->contents[process->rows[page]] : &process->contents[page];
}

/* --- what must hold ------------------------------------------------------------------------------ */

static void demand_contents(struct world *world, struct process *process)
{
	for (uint64_t page = 0; process->slot && page < process->nr_pages; page++) {
		int error = lksm_process_read(process->slot, page, 1, world->page[0]);
		DEMAND(!error == !process->is_absent[page]);
		if (error)
			continue;
		fill(world, world->page[1], *content_of(process, page));
		DEMAND(!memcmp(world->page[0], world->page[1], world->page_size));
	}
}

static void demand_counters(struct side *side)
{
	static char text[4096];
	struct lksm_counters c = counters_of(side->engine), sum = { 0 };
	for (int i = 0; i < MAX_PROCESSES; i++) {
		struct process *process = &side->processes[i];
		if (!process->slot)
			continue;
		struct lksm_status status = status_of(process->slot);
		uint64_t nr_mapped = 0;
		for (uint64_t page = 0; page < process->nr_pages; page++)
			nr_mapped += !process->is_absent[page];
		DEMAND(status.nr_pages == process->nr_pages && status.nr_mapped == nr_mapped);
		sum.rmap_items += status.rmap_items;
		sum.pages_sharing += status.merging_pages;
		sum.pages_unshared += status.unshared;
		sum.zero_pages += status.zero_pages;
		sum.nr_registered += status.is_registered;
	}
	DEMAND(c.rmap_items == sum.rmap_items && c.pages_shared + c.pages_sharing == sum.pages_sharing);
	DEMAND(c.pages_unshared == sum.pages_unshared && c.zero_pages == sum.zero_pages);
	DEMAND(c.zero_saved <= c.zero_pages && c.nr_registered == sum.nr_registered);
	if (check(side->engine, text, sizeof(text))) {
		fprintf(stderr, "%s", text);
		abort();
	}
}

/* Every page is in a frame of its content, if in any. */
static void demand_frames(struct side *side)
{
	static int64_t entries[MAX_PROCESSES][MAX_PAGES];
	for (int i = 0; i < MAX_PROCESSES; i++) {
		struct process *process = &side->processes[i];
		if (!process->slot)
			continue;
		lksm_page_table(process->slot, entries[i]);
		for (uint64_t page = 0; page < process->nr_pages; page++) {
			DEMAND(process->is_absent[page] == (entries[i][page] == LKSM_ENTRY_ABSENT));
			DEMAND(entries[i][page] != LKSM_ENTRY_ZERO || !*content_of(process, page));
			for (int j = 0; entries[i][page] >= 0 && j <= i; j++)
				for (uint64_t k = 0; side->processes[j].slot && k < side->processes[j].nr_pages; k++)
					DEMAND(entries[j][k] != entries[i][page] ||
					       *content_of(&side->processes[j], k) == *content_of(process, page));
		}
	}
}

/* --- operations ---------------------------------------------------------------------------------- */

static struct process *find_process(struct world *world, struct side *side, bool is_alive)
{
	uint64_t first = below(world, MAX_PROCESSES);
	for (uint64_t i = 0; i < MAX_PROCESSES; i++) {
		struct process *process = &side->processes[(first + i) % MAX_PROCESSES];
		if ((process->slot != NULL) == is_alive)
			return process;
	}
	return NULL;
}

/* A region over a new array behind all others of the process. */
static void map_own(struct world *world, struct process *process)
{
	uint8_t flags = next_byte(world);
	uint64_t nr_pages = 1 + below(world, 8), at = process->nr_pages;
	if (process->shared || at + nr_pages > MAX_PAGES)
		return;
	struct array *array = make_array(world, nr_pages, flags);
	use_array(process, array);
	for (uint64_t i = 0; i < nr_pages; i++) {
		process->contents[at + i] = (uint8_t)below(world, NR_CONTENTS);
		process->is_absent[at + i] = false;
		fill(world, array->pages + i * world->page_size, process->contents[at + i]);
	}
	struct lksm_region region = {
		.address = (process->end + (flags >> 2 & 1)) * world->page_size,
		.pages = array->pages,
		.nr_array_pages = nr_pages,
		.nr_pages = nr_pages,
		.node = flags >> 3 & 1,
		.is_immutable = array->is_immutable,
		.is_tracked = flags >> 4 & 1,
		.is_excluded = (flags & 0xe0) == 0xe0,
		.filter_key = flags >> 5 & 1,
		.is_bss = flags >> 6 & 1,
	};
	int error = lksm_process_map(process->slot, &region);
	if (error) {
		DEMAND(error == LKSM_NO_MEMORY);
		put_array(process->arrays[--process->nr_arrays]);
		return;
	}
	process->nr_pages += nr_pages;
	process->end = region.address / world->page_size + nr_pages;
}

static void map_shared(struct world *world, struct process *process)
{
	struct array *array = world->shared[below(world, NR_SHARED)];
	struct array *row_array = calloc(1, sizeof(*row_array));
	uint64_t nr_pages = 1 + below(world, 16);
	int64_t *rows = malloc(nr_pages * sizeof(*rows));
	row_array->block = (uint8_t *)rows;
	use_array(process, row_array);
	use_array(process, array);
	for (uint64_t i = 0; i < nr_pages; i++) {
		rows[i] = (int64_t)below(world, SHARED_PAGES + 1) - 1;
		process->is_absent[i] = rows[i] < 0;
		process->rows[i] = rows[i] < 0 ? 0 : (uint8_t)rows[i];
	}
	struct lksm_region region = {
		.address = process->end * world->page_size,
		.pages = array->pages,
		.nr_array_pages = SHARED_PAGES,
		.rows = rows,
		.nr_pages = nr_pages,
		.is_immutable = array->is_immutable,
	};
	if (lksm_process_map(process->slot, &region))
		return;
	process->shared = array;
	process->nr_pages = nr_pages;
	process->end += nr_pages;
}

static void attach(struct world *world, struct side *side)
{
	struct process *process = find_process(world, side, false);
	uint8_t what = next_byte(world);
	if (!process)
		return;
	*process = (struct process){ .end = what >> 4 };
	int error = lksm_process_create(side->engine, what >> 1 & 1, &process->slot);
	DEMAND(!error || error == LKSM_NO_MEMORY);
	if (error)
		*process = (struct process){ 0 };
	else if (what & 1)
		map_own(world, process);
	else
		map_shared(world, process);
}

/* Regions that cannot be: refused, and nothing has changed. */
static void map_nonsense(struct world *world, struct side *side)
{
	struct process *process = find_process(world, side, true);
	uint8_t flags = next_byte(world);
	int64_t rows[2] = { 0, (int64_t)wild(world) };
	if (!process)
		return;
	struct lksm_region region = {
		.address = process->end * world->page_size,
		.pages = world->shared[0]->pages,
		.nr_array_pages = SHARED_PAGES,
		.nr_pages = 2,
		.is_immutable = world->shared[0]->is_immutable,
	};
	if (flags & 1)
		region.nr_pages = wild(world) & 1 ? 0 : SHARED_PAGES + 1 + (wild(world) >> 1);
	else if (flags & 2)
		region.address += 1 + wild(world) % (world->page_size - 1);
	else if (flags & 4)
		region.node = NR_NODES + (uint32_t)(wild(world) & 0xffff);
	else if (flags & 8)
		region.address = UINT64_MAX / world->page_size * world->page_size;
	else if (rows[1] < -1 || rows[1] >= SHARED_PAGES)
		region.rows = rows;
	else
		region.nr_array_pages = 1;
	DEMAND(lksm_process_map(process->slot, &region) == LKSM_INVALID);
}

static void fork(struct world *world, struct side *side)
{
	struct process *parent = find_process(world, side, true), *child = find_process(world, side, false);
	struct mm_slot *slot;
	if (!parent || !child || (parent->shared && !parent->shared->is_immutable))
		return;
	int error = lksm_process_fork(parent->slot, &slot);
	DEMAND(!error || error == LKSM_NO_MEMORY);
	if (error)
		return;
	parent->is_forked = true;
	*child = *parent;
	child->slot = slot;
	for (uint32_t i = 0; i < child->nr_arrays; i++)
		child->arrays[i]->nr_users++;
}

static bool is_immutable(const struct process *process, uint64_t page)
{
	uint64_t place;
	return mm_slot_region(process->slot, page, &place)->is_immutable;
}

static void touch_in(struct side *side, const uint8_t *bytes)
{
	for (int i = 0; i < MAX_PROCESSES; i++) {
		struct process *process = &side->processes[i];
		for (uint64_t page = 0; process->slot && page < process->nr_pages; page++) {
			uint64_t place;
			struct region *region = mm_slot_region(process->slot, page, &place);
			if (!process->is_absent[page] && region_page(region, place) == bytes)
				DEMAND(!lksm_process_touch(process->slot, page, page + 1));
		}
	}
}

static void write(struct world *world, struct side *side)
{
	struct process *process = find_process(world, side, true);
	uint64_t page = wild(world), offset = wild(world), nr_bytes = wild(world);
	uint8_t content = (uint8_t)below(world, NR_CONTENTS);
	if (!process)
		return;
	if (next_byte(world) & 7)	/* mostly whole pages */
		offset = 0, nr_bytes = world->page_size;
	bool is_whole = !offset && nr_bytes == world->page_size;
	bool is_valid = page < process->nr_pages && !process->is_absent[page] && !is_immutable(process, page) &&
			offset <= world->page_size && nr_bytes <= world->page_size - offset;
	if (is_valid)
		fill(world, world->page[0], is_whole ? content : *content_of(process, page));
	int error = lksm_process_write(process->slot, page, offset, world->page[0] + (is_valid ? offset : 0), nr_bytes);
	DEMAND(is_valid ? !error || error == LKSM_NO_MEMORY : error == LKSM_INVALID);
	if (!error)
		*content_of(process, page) = is_whole ? content : *content_of(process, page);
}

/* The owner writes his array, and tells both engines in case it is tracked. */
static void write_plainly(struct world *world, struct side *side)
{
	struct process *process = find_process(world, side, true);
	uint8_t number = next_byte(world), content = (uint8_t)below(world, NR_CONTENTS);
	if (!process || process->is_forked || !process->nr_pages)
		return;
	uint64_t page = number % process->nr_pages, place;
	if (process->is_absent[page] || is_immutable(process, page))
		return;
	const struct region *region = mm_slot_region(process->slot, page, &place);
	uint8_t *bytes = (uint8_t *)region_page(region, place);
	fill(world, bytes, content);
	*content_of(process, page) = content;
	touch_in(&world->sides[0], bytes);
	touch_in(&world->sides[1], bytes);
}

static void change_range(struct world *world, struct side *side)
{
	struct process *process = find_process(world, side, true);
	uint64_t what = below(world, 8), start = wild(world), stop = wild(world);
	if (!process)
		return;
	bool is_valid = start <= stop && stop <= process->nr_pages;
	uint32_t node = what & 1;
	int error;
	if (what == 0)
		error = lksm_process_unmap(process->slot, start, stop);
	else if (what < 4)
		error = lksm_process_advise(process->slot, start, stop, what & 1);
	else if (what < 7)
		error = lksm_process_move(process->slot, start, stop, node);
	else
		error = lksm_process_touch(process->slot, start, stop);
	DEMAND(is_valid ? !error || (what > 3 && what < 7 && error == LKSM_NO_MEMORY) : error == LKSM_INVALID);
	for (uint64_t page = start; !error && what == 0 && page < stop; page++)
		process->is_absent[page] = true;
}

static void change_domain(struct world *world, struct side *side)
{
	struct process *process = find_process(world, side, true);
	if (!process)
		return;
	int error = lksm_process_set_domain(process->slot, next_byte(world) & 1);
	DEMAND(!error || error == LKSM_NO_MEMORY);
}

static void leave(struct world *world, struct side *side)
{
	struct process *process = find_process(world, side, true);
	if (!process)
		return;
	lksm_process_destroy(process->slot);
	forget_process(process);
}

static void queue(struct world *world, struct side *side)
{
	struct process *process = find_process(world, side, true);
	uint8_t what = next_byte(world);
	if (what & 8)
		lksm_begin_round(side->engine, world->now);
	if (!process)
		return;
	switch (what & 7) {
	case 0:
		lksm_dequeue(process->slot);
		break;
	case 1:
		lksm_move_to_front(process->slot);
		break;
	case 2:
		lksm_requeue_frozen(process->slot, what & 16);
		break;
	case 3:
		lksm_clear_scanned(process->slot);
		break;
	case 4:
	case 5:
		enqueue(process->slot, what & 16);
		break;
	default:
		enqueue_all(side->engine);
	}
	uint64_t nr_queued = 0;
	for (struct mm_slot *slot = NULL; (slot = lksm_next_queued(side->engine, slot)) != NULL;)
		nr_queued++;
	struct lksm_counters c = counters_of(side->engine);
	DEMAND(nr_queued == c.nr_scannable + c.nr_frozen && !nr_queued == !lksm_has_queue(side->engine));
}

static void scan_some(struct world *world, struct side *side)
{
	uint64_t nr_pages = below(world, 80), nr_scanned = 0;
	int error = lksm_scan(side->engine, nr_pages, world->now, &nr_scanned);
	DEMAND(nr_scanned <= nr_pages);
	DEMAND(!error || error == LKSM_NO_MEMORY || (error == LKSM_INVALID && !counters_of(side->engine).crawl_round));
}

static void turn_knob(struct world *world, struct side *side)
{
	struct engine *engine = side->engine;
	uint8_t what = next_byte(world);
	bool is_on = what >> 3 & 1;
	int error;
	switch (what & 7) {
	case 0:
		error = lksm_set_max_page_sharing(engine, what >> 3);
		DEMAND(!error || error == LKSM_BUSY || (error == LKSM_INVALID && what >> 3 < 2));
		break;
	case 1:
		error = lksm_set_merge_across_nodes(engine, is_on);
		DEMAND(!error || (error == LKSM_BUSY && counters_of(engine).pages_shared));
		break;
	case 2:
		lksm_set_smart_scan(engine, is_on);
		break;
	case 3:
		lksm_set_prune_delay(engine, what >> 3);
		break;
	case 4:
		lksm_set_use_zero_pages(engine, is_on);
		break;
	case 5:
		lksm_set_unfiltered(engine, is_on);
		break;
	case 6:
		lksm_prune_chains(engine, world->now);
		break;
	default:
		error = lksm_offline(engine, what >> 3 & 3);
		DEMAND(error == ((what >> 3 & 3) < NR_NODES ? LKSM_OK : LKSM_INVALID));
	}
}

static void report(struct world *world, struct side *side)
{
	static struct lksm_group groups[MAX_PROCESSES * MAX_PAGES];
	static int64_t matrix[MAX_PROCESSES * MAX_PROCESSES];
	struct engine *engine = side->engine;
	struct lksm_counters before = counters_of(engine);
	uint64_t nr_groups = lksm_nr_groups(engine, -1, 1), nr_pages = 0, memory[LKSM_NR_PURPOSES];
	DEMAND(nr_groups <= MAX_PROCESSES * MAX_PAGES);
	lksm_groups(engine, -1, 1, true, groups);
	for (uint64_t i = 0; i < nr_groups; i++)
		nr_pages += (uint64_t)groups[i].pages;
	DEMAND(nr_pages == before.pages_shared + before.pages_sharing);
	int error = lksm_sharing_matrix(engine, matrix);
	DEMAND(!error || error == LKSM_NO_MEMORY);
	lksm_memory(engine, (int64_t)below(world, 3) - 1, memory);
	struct process *process = find_process(world, side, true);
	if (process) {
		struct lksm_explanation explanation;
		uint64_t page = wild(world), digest;
		error = lksm_explain(process->slot, page, page & 1, &explanation);
		DEMAND(error == (page < process->nr_pages ? LKSM_OK : LKSM_INVALID));
		DEMAND(error || (explanation.reason == LKSM_ABSENT) == process->is_absent[page]);
		bool is_there = page < process->nr_pages && !process->is_absent[page];
		DEMAND(lksm_page_digest(process->slot, page, &digest) == (is_there ? LKSM_OK : LKSM_INVALID));
	}
	struct lksm_counters after = counters_of(engine);
	DEMAND(!memcmp(&before, &after, sizeof(before)));
}

static void operate(struct world *world)
{
	uint8_t what = next_byte(world);
	struct side *side = &world->sides[what >> 7];
	struct process *process;
	switch (what & 31) {
	case 0: case 1: case 2:
		attach(world, side);
		break;
	case 3:
		process = find_process(world, side, true);
		if (process)
			map_own(world, process);
		break;
	case 4:
		map_nonsense(world, side);
		break;
	case 5: case 6:
		fork(world, side);
		break;
	case 7: case 8: case 9:
		write(world, side);
		break;
	case 10: case 11:
		write_plainly(world, side);
		break;
	case 12: case 13: case 14:
		change_range(world, side);
		break;
	case 15:
		change_domain(world, side);
		break;
	case 16:
		leave(world, side);
		break;
	case 17: case 18: case 19:
		queue(world, side);
		break;
	case 20: case 21: case 22: case 23:
		scan_some(world, side);
		break;
	case 24: case 25:
		turn_knob(world, side);
		break;
	case 26:
		report(world, side);
		break;
	case 27:
		side->engine->memory.fail_at = side->engine->memory.nr_allocations + 1 + below(world, 8);
		side->engine->memory.fail_count = below(world, 4);
		break;
	case 28:
		lksm_unmerge(side->engine);
		break;
	case 29:
		world->now += next_byte(world);
		break;
	default:	/* a round over all */
		lksm_begin_round(side->engine, world->now);
		enqueue_all(side->engine);
		scan_some(world, side);
	}
	demand_counters(side);
	for (int i = 0; i < MAX_PROCESSES; i++)
		demand_contents(world, &side->processes[i]);
}

/* All pages are visited until nothing changes any more; then everything goes. */
static void come_to_an_end(struct world *world, struct side *side)
{
	struct engine *engine = side->engine;
	engine->memory.fail_at = 0;
	lksm_set_smart_scan(engine, false);
	lksm_set_unfiltered(engine, true);
	for (int i = 0; i < 6; i++)
		full(engine);
	demand_counters(side);
	demand_frames(side);
	for (int i = 0; i < MAX_PROCESSES; i++)
		demand_contents(world, &side->processes[i]);
	DESTROY(engine);
	for (int i = 0; i < MAX_PROCESSES; i++)
		forget_process(&side->processes[i]);
	DEMAND(!nr_failures);	/* DESTROY prints what is wrong */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world world = { .data = data, .size = size };
	uint8_t options = next_byte(&world);
	world.page_size = options & 1 ? 64 : 256;
	for (int i = 0; i < 2; i++) {
		uint8_t more = next_byte(&world);
		world.sides[i].engine = make_engine((struct setup){
			.page_size = world.page_size,
			.initial_rounds = more & 1 ? 3 : 0,
			.max_page_sharing = more & 2 ? 2 + (uint64_t)(more >> 6) : UNLIMITED,
			.merge_window = 1 + (more >> 2 & 3),
			.nr_nodes = NR_NODES,
			.gate_first = more >> 4 & 1,
			.is_secure = more >> 5 & 1,
			.filter_maturity = more >> 7,
			.hash = all_hashes[(options >> 1) % NR_HASHES],
			.seed = 1,
		});
	}
	world.unsampled = world.page_size == 64 ? 0 : unsampled_byte(world.sides[0].engine);
	for (int i = 0; i < NR_SHARED; i++) {
		struct array *array = world.shared[i] = make_array(&world, SHARED_PAGES, options >> (i + 3) & 3);
		array->nr_users = 1;
		for (int row = 0; row < SHARED_PAGES; row++) {
			array->contents[row] = (uint8_t)below(&world, NR_CONTENTS);
			fill(&world, array->pages + (uint64_t)row * world.page_size, array->contents[row]);
		}
	}
	for (int i = 0; i < MAX_OPERATIONS && world.size; i++)
		operate(&world);
	come_to_an_end(&world, &world.sides[0]);
	come_to_an_end(&world, &world.sides[1]);
	for (int i = 0; i < NR_SHARED; i++)
		put_array(world.shared[i]);
	return 0;
}
