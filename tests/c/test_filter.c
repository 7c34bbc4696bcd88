/*
 * test_filter.c - what a filter learns, what a scan leaves out because of it, and what must not be left out.
 *
 * FD-1 to FD-14 are the defects of the original in section 11.8 of the specification.
 */
#include "filter.h"
#include "fixture.h"
#include "smart_scan.h"

#define KEY 7

/* Maps @nr_pages pages at @address, counted in pages, as a region of @key. */
static struct region *map_keyed(struct mm_slot *process, uint64_t address, uint8_t *pages, uint64_t nr_pages,
				uint64_t key, bool is_bss)
{
	struct lksm_region region = {
		.address = address * process->engine->rules.page_size,
		.pages = pages,
		.nr_array_pages = nr_pages,
		.nr_pages = nr_pages,
		.filter_key = key,
		.is_bss = is_bss,
	};
	EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_OK);
	for (uint64_t i = 0; i < process->nr_regions; i++)
		if (process->regions[i]->pages == pages)
			return process->regions[i];
	abort();
}

static struct mm_slot *create_in(struct engine *engine, uint32_t domain)
{
	struct mm_slot *process = NULL;
	EXPECT_EQUAL(lksm_process_create(engine, domain, &process), LKSM_OK);
	return process;
}

/* A process of one region of the key, at address 0. */
static struct mm_slot *make_keyed(struct engine *engine, uint8_t *pages, uint64_t nr_pages, uint64_t key)
{
	struct mm_slot *process = create_in(engine, 0);
	map_keyed(process, 0, pages, nr_pages, key, false);
	return process;
}

static uint64_t serial;

/* Pages of which no two are equal, here or in another such array; the caller frees them. */
static uint8_t *make_unique(const struct engine *engine, uint64_t nr_pages)
{
	uint64_t page_size = engine->rules.page_size;
	uint8_t *pages = malloc(nr_pages * page_size);
	for (uint64_t i = 0; i < nr_pages; i++) {
		fill_page(engine, pages + i * page_size, 'u');
		serial++;
		for (uint64_t at = 0; at < page_size; at += LINE_SIZE)
			memcpy(pages + i * page_size + at, &serial, sizeof(serial));
	}
	return pages;
}

static void set_page(const struct engine *engine, uint8_t *pages, uint64_t page, char letter)
{
	fill_page(engine, pages + page * engine->rules.page_size, letter);
}

/* The filter of a region that has one. */
static struct filter *filter_of(const struct mm_slot *process)
{
	return process->regions[0]->filter;
}

/* Two processes of one key and size: pages with letters are merged, others are unique. Scanned @nr_rounds times. */
struct pair {
	uint8_t *pages[2];
	struct mm_slot *processes[2];
};

static struct pair make_pair(struct engine *engine, uint64_t nr_pages, const uint64_t *offsets, uint64_t nr_offsets,
			     int nr_rounds)
{
	struct pair pair;
	for (int i = 0; i < 2; i++) {
		pair.pages[i] = make_unique(engine, nr_pages);
		for (uint64_t j = 0; j < nr_offsets; j++)
			set_page(engine, pair.pages[i], offsets[j], (char)('a' + j));
		pair.processes[i] = make_keyed(engine, pair.pages[i], nr_pages, KEY);
	}
	while (nr_rounds--)
		full(engine);
	EXPECT_SOUND(engine);
	return pair;
}

static void free_pair(struct pair *pair)
{
	free(pair->pages[0]);
	free(pair->pages[1]);
}

/* --- learning and leaving out ------------------------------------------------------------------ */

/* Row 100: offsets 3 and 70 were learned; a process that was scanned and runs visits only those. */
static void test_only_learned_offsets(void)
{
	struct engine *engine = make_engine((struct setup){ .filter_maturity = 5 });
	static const uint64_t offsets[] = { 3, 70 };
	struct pair pair = make_pair(engine, 100, offsets, 2, 1);
	EXPECT_EQUAL(filter_of(pair.processes[0])->nr_bits, 2);
	EXPECT(filter_has(filter_of(pair.processes[1]), 3) && filter_has(filter_of(pair.processes[1]), 70));
	uint8_t *more = make_unique(engine, 100);
	struct mm_slot *fourth = make_keyed(engine, more, 100, KEY);
	/* Made before round 1, so 5 is not more than 5 rounds later. */
	for (uint64_t round = 2; round <= 5; round++)
		EXPECT_EQUAL(full(engine), 300);
	EXPECT_EQUAL(full(engine), 6);
	EXPECT_COUNTERS(engine, 2, 2, 2 * 98 + 100);
	EXPECT_EQUAL(full(engine), 6);
	lksm_begin_round(engine, 0);
	enqueue(fourth, true);
	EXPECT_EQUAL(scan_to_end(engine), 100);
	uint8_t *newest = make_unique(engine, 100);
	make_keyed(engine, newest, 100, KEY);
	EXPECT_EQUAL(full(engine), 6 + 100);
	EXPECT_EQUAL(full(engine), 8);
	EXPECT_COUNTERS(engine, 2, 2, 2 * 98 + 2 * 100);
	DESTROY(engine);
	free_pair(&pair);
	free(more);
	free(newest);
}

/* FD-10: a filter that has learned nothing leaves nothing out, however old it is. */
static void test_nothing_learned(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	struct pair pair = make_pair(engine, 70, NULL, 0, 5);
	EXPECT_EQUAL(full(engine), 140);
	EXPECT_COUNTERS(engine, 0, 0, 140);
	DESTROY(engine);
	free_pair(&pair);
}

/* FD-10: nor does it in the walk in which it learns its first offsets, so that it learns all of them. */
static void test_first_offsets_are_learned_together(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	struct pair pair = make_pair(engine, 70, NULL, 0, 5);
	for (int i = 0; i < 2; i++) {
		set_page(engine, pair.pages[i], 3, 'a');
		set_page(engine, pair.pages[i], 69, 'b');
	}
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	for (int i = 0; i < 140; i++)
		EXPECT_EQUAL(scan_pages(engine, 1), 1);
	EXPECT(!lksm_has_queue(engine));
	EXPECT_COUNTERS(engine, 2, 2, 136);
	EXPECT_EQUAL(full(engine), 4);
	DESTROY(engine);
	free_pair(&pair);
}

/* FD-11: what merges at another offset later is found by an unfiltered scan, and learned by it. */
static void test_unfiltered_scan_learns(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 1 };
	struct pair pair = make_pair(engine, 10, offsets, 1, 2);
	set_page(engine, pair.pages[0], 6, 'z');
	set_page(engine, pair.pages[1], 6, 'z');
	EXPECT_EQUAL(full(engine), 2);
	EXPECT_COUNTERS(engine, 1, 1, 18);
	lksm_set_unfiltered(engine, true);
	EXPECT_EQUAL(full(engine), 20);
	EXPECT_COUNTERS(engine, 2, 2, 16);
	lksm_set_unfiltered(engine, false);
	EXPECT_EQUAL(full(engine), 4);
	EXPECT_COUNTERS(engine, 2, 2, 16);
	DESTROY(engine);
	free_pair(&pair);
}

/* Both pages of a pair are learned, each at its own offset and for its own key. */
static void test_pair_of_two_keys(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *one = make_unique(engine, 8), *two = make_unique(engine, 8);
	set_page(engine, one, 2, 'a');
	set_page(engine, two, 5, 'a');
	struct mm_slot *first = make_keyed(engine, one, 8, 1), *second = make_keyed(engine, two, 8, 2);
	full(engine);
	EXPECT_EQUAL(filter_of(first)->first_word, 1 << 2);
	EXPECT_EQUAL(filter_of(second)->first_word, 1 << 5);
	EXPECT_EQUAL(full(engine), 2);
	EXPECT_EQUAL(counters_of(engine).share_data, 2);
	DESTROY(engine);
	free(one);
	free(two);
}

/* One key has two filters, one for data and one for bss. */
static void test_roles(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *data = make_unique(engine, 4), *bss = make_unique(engine, 4);
	set_page(engine, data, 0, 'a');
	set_page(engine, data, 1, 'a');
	struct mm_slot *process = create_in(engine, 0);
	map_keyed(process, 0, data, 4, KEY, false);
	map_keyed(process, 4, bss, 4, KEY, true);
	full(engine);
	EXPECT_EQUAL(counters_of(engine).nr_regions, 2);
	EXPECT_EQUAL(full(engine), 2 + 4);
	set_page(engine, bss, 3, 'a');
	EXPECT_EQUAL(full(engine), 2 + 4);
	EXPECT_EQUAL(full(engine), 2 + 1);
	EXPECT_EQUAL(counters_of(engine).share_data, 2);
	EXPECT_EQUAL(counters_of(engine).share_bss, 1);
	EXPECT_COUNTERS(engine, 1, 2, 2 + 3);
	DESTROY(engine);
	free(data);
	free(bss);
}

/* What one domain learns is not known in another. */
static void test_domains(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *here = make_unique(engine, 4), *there = make_unique(engine, 4);
	set_page(engine, here, 0, 'a');
	set_page(engine, here, 1, 'a');
	map_keyed(create_in(engine, 1), 0, here, 4, KEY, false);
	map_keyed(create_in(engine, 2), 0, there, 4, KEY, false);
	full(engine);
	EXPECT_EQUAL(counters_of(engine).nr_regions, 2);
	EXPECT_EQUAL(full(engine), 2 + 4);
	struct lksm_counters one;
	lksm_counters(engine, 1, &one);
	EXPECT_EQUAL(one.nr_regions, 1);
	DESTROY(engine);
	free(here);
	free(there);
}

/* A process that goes to another domain leaves its filters behind and has those of its keys there, or new ones. */
static void test_move_to_another_domain(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 1, 70 };
	struct pair pair = make_pair(engine, 80, offsets, 2, 2);
	uint64_t bytes[LKSM_NR_PURPOSES], all[LKSM_NR_PURPOSES];
	lksm_memory(engine, 0, bytes);
	lksm_memory(engine, -1, all);
	EXPECT_EQUAL(bytes[LKSM_FOR_FILTERS], all[LKSM_FOR_FILTERS]);
	EXPECT_EQUAL(lksm_process_set_domain(pair.processes[0], 3), LKSM_OK);
	EXPECT_SOUND(engine);
	EXPECT_EQUAL(counters_of(engine).nr_regions, 2);
	EXPECT_EQUAL(filter_of(pair.processes[0])->nr_bits, 0);
	EXPECT_EQUAL(filter_of(pair.processes[0])->birth, 2);
	EXPECT_EQUAL(filter_of(pair.processes[1])->nr_bits, 2);
	EXPECT_EQUAL(full(engine), 80 + 2);
	EXPECT_EQUAL(lksm_process_set_domain(pair.processes[1], 3), LKSM_OK);
	EXPECT_SOUND(engine);
	EXPECT_EQUAL(counters_of(engine).nr_regions, 1);
	EXPECT(filter_of(pair.processes[0]) == filter_of(pair.processes[1]));
	EXPECT_EQUAL(counters_of(engine).share_data, 4);
	/* A filter that cannot be made there is none. */
	EXPECT_EQUAL(lksm_process_create(engine, 9, &(struct mm_slot *){ NULL }), LKSM_OK);
	engine->memory.fail_at = engine->memory.nr_allocations + 1;
	engine->memory.fail_count = FAIL_FOR_EVER;
	EXPECT_EQUAL(lksm_process_set_domain(pair.processes[0], 9), LKSM_OK);
	fail_no_more(engine);
	EXPECT(!filter_of(pair.processes[0]));
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free_pair(&pair);
}

/* A page that goes to the zero frame has not merged; it is looked at again though its offset is left out. */
static void test_zero_pages(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 1 };
	struct pair pair = make_pair(engine, 10, offsets, 1, 0);
	set_page(engine, pair.pages[0], 4, '0');
	lksm_set_use_zero_pages(engine, true);
	EXPECT_EQUAL(full(engine), 20);
	EXPECT_EQUAL(filter_of(pair.processes[0])->first_word, 1 << 1);
	EXPECT_EQUAL(full(engine), 2);
	EXPECT_EQUAL(counters_of(engine).zero_pages, 1);
	set_page(engine, pair.pages[0], 4, 'x');
	EXPECT_EQUAL(full(engine), 2);
	EXPECT_SOUND(engine);
	EXPECT_EQUAL(counters_of(engine).zero_pages, 0);
	DESTROY(engine);
	free_pair(&pair);
}

/* --- what must not be left out ----------------------------------------------------------------- */

/* Row 101, FD-1: where the bits of a region end, the next region begins and no page of it is left out. */
static void test_end_of_region(void)
{
	static const uint64_t sizes[] = { 1, 10, 64, 65, 70, 128, 129 };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct engine *engine = make_engine((struct setup){ 0 });
		uint8_t *pages = make_unique(engine, sizes[i]), *next = make_unique(engine, 200);
		set_page(engine, pages, 0, 'a');
		set_page(engine, next, 0, 'a');
		struct mm_slot *process = create_in(engine, 0);
		map_keyed(process, 0, pages, sizes[i], KEY, false);
		map_keyed(process, sizes[i], next, 200, 0, false);
		EXPECT_EQUAL(full(engine), sizes[i] + 200);
		EXPECT_EQUAL(full(engine), 1 + 200);
		EXPECT_COUNTERS(engine, 1, 1, sizes[i] - 1 + 199);
		DESTROY(engine);
		free(pages);
		free(next);
	}
}

/* Items of pages left out stay as they are, of whatever round; of pages that may not be merged they go. */
static void test_items_of_pages_left_out(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 0 };
	struct pair pair = make_pair(engine, 5, offsets, 1, 4);
	EXPECT_COUNTERS(engine, 1, 1, 8);
	EXPECT_EQUAL(item_of(pair.processes[0], 2)->round, 1);
	EXPECT_EQUAL(lksm_process_unmap(pair.processes[0], 2, 3), LKSM_OK);
	EXPECT_EQUAL(lksm_process_advise(pair.processes[1], 3, 4, false), LKSM_OK);
	EXPECT_EQUAL(full(engine), 2);
	EXPECT_COUNTERS(engine, 1, 1, 6);
	lksm_set_unfiltered(engine, true);
	EXPECT_EQUAL(full(engine), 8);
	EXPECT_EQUAL(item_of(pair.processes[0], 1)->round, 6);
	EXPECT_COUNTERS(engine, 1, 1, 6);
	DESTROY(engine);
	free_pair(&pair);
}

/* A page that merged without being learned, for want of memory, is visited: a write to it is noticed. */
static void test_merged_but_not_learned(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 1, 70 };
	struct pair pair = make_pair(engine, 71, offsets, 2, 0);
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	scan_pages(engine, 71 + 70);
	EXPECT_COUNTERS(engine, 1, 1, 70 + 68 + 1);
	/* The node's pool and the frame's bytes are needed for the merge, the words for learning twice. */
	uint64_t before = engine->memory.nr_allocations;
	engine->memory.fail_at = before + 2;
	engine->memory.fail_count = 1;
	scan_pages(engine, 1);
	fail_no_more(engine);
	EXPECT_EQUAL(engine->memory.nr_allocations, before + 3);
	EXPECT_COUNTERS(engine, 2, 2, 69 + 69);
	EXPECT_EQUAL(filter_of(pair.processes[0])->nr_bits, 1);
	EXPECT_EQUAL(counters_of(engine).share_data, 2);
	scan_to_end(engine);
	EXPECT_EQUAL(full(engine), 4);
	set_page(engine, pair.pages[0], 70, 'x');
	EXPECT_EQUAL(full(engine), 4);
	EXPECT_COUNTERS(engine, 2, 1, 69 + 69 + 1);
	EXPECT_EQUAL(full(engine), 3);
	DESTROY(engine);
	free_pair(&pair);
}

/* A region mapped while an older round is finished has a filter that is younger than the round. */
static void test_filter_younger_than_the_round(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *old = make_unique(engine, 4), *pages = make_unique(engine, 4);
	set_page(engine, old, 3, 'a');
	set_page(engine, pages, 2, 'a');
	struct mm_slot *process = make_process(engine, old, 4, false);
	full(engine);
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	scan_pages(engine, 1);
	lksm_begin_round(engine, 0);
	map_keyed(process, 10, pages, 4, KEY, false);
	lksm_process_join(process);
	EXPECT(process->regions[1]->filter->birth > engine->scan_round);
	EXPECT_EQUAL(scan_to_end(engine), 3 + 4);
	EXPECT_COUNTERS(engine, 1, 1, 6);
	DESTROY(engine);
	free(old);
	free(pages);
}

/* --- sizes ----------------------------------------------------------------------------------- */

/* The first other size that needs more words makes room for them and keeps the bits; the second ends it. */
static void test_larger_region(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 3, 69 };
	struct pair pair = make_pair(engine, 70, offsets, 2, 1);
	struct filter *filter = filter_of(pair.processes[0]);
	EXPECT_EQUAL(filter->nr_words, 2);
	uint8_t *large = make_unique(engine, 200);
	set_page(engine, large, 199, 'a');
	make_keyed(engine, large, 200, KEY);
	/* The small ones are walked first, and fit; the large one is a conflict, and a newcomer. */
	EXPECT_EQUAL(full(engine), 4 + 200);
	EXPECT_EQUAL(filter->nr_conflicts, 1);
	EXPECT_EQUAL(filter->nr_words, 4);
	EXPECT(filter_has(filter, 3) && filter_has(filter, 69) && filter_has(filter, 199));
	EXPECT_COUNTERS(engine, 2, 3, 2 * 68 + 199);
	EXPECT_EQUAL(full(engine), 70 + 70 + 200);	/* the first one walked does not fit any more */
	EXPECT_EQUAL(filter->nr_bits, 0);
	EXPECT(filter_is_conflicted(filter));
	/* It learns no more, but its merges are counted. */
	EXPECT_EQUAL(counters_of(engine).share_data, 5);
	set_page(engine, large, 100, 'b');
	EXPECT_EQUAL(full(engine), 340);
	EXPECT_EQUAL(full(engine), 340);
	EXPECT_EQUAL(filter->nr_bits, 0);
	EXPECT_EQUAL(filter->nr_merges, 6);
	EXPECT_EQUAL(counters_of(engine).share_conflicted, 1);
	EXPECT_EQUAL(counters_of(engine).nr_regions, 1);
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free_pair(&pair);
	free(large);
}

/* The first other size that needs fewer words is a conflict too, and changes nothing. */
static void test_smaller_region(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 3, 199 };
	struct pair pair = make_pair(engine, 200, offsets, 2, 1);
	struct filter *filter = filter_of(pair.processes[0]);
	uint8_t *small = make_unique(engine, 70);
	make_keyed(engine, small, 70, KEY);
	EXPECT_EQUAL(full(engine), 4 + 70);
	EXPECT_EQUAL(filter->nr_conflicts, 1);
	EXPECT_EQUAL(filter->nr_wanted, 4);
	EXPECT(filter_has(filter, 3) && filter_has(filter, 199));
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free_pair(&pair);
	free(small);
}

/* Regions of up to 64 pages fit any filter; a filter for them grows at the first larger one. */
static void test_sizes_of_one_word(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 3 };
	struct pair pair = make_pair(engine, 10, offsets, 1, 1);
	struct filter *filter = filter_of(pair.processes[0]);
	uint8_t *medium = make_unique(engine, 64), *large = make_unique(engine, 130);
	make_keyed(engine, medium, 64, KEY);
	EXPECT_EQUAL(full(engine), 2 + 64);
	EXPECT_EQUAL(filter->nr_conflicts, 0);
	make_keyed(engine, large, 130, KEY);
	for (int i = 0; i < 5; i++)
		full(engine);
	EXPECT_EQUAL(filter->nr_conflicts, 1);
	EXPECT_EQUAL(filter->nr_wanted, 3);
	EXPECT_EQUAL(filter->nr_words, 1);
	EXPECT_EQUAL(full(engine), 4);
	EXPECT_COUNTERS(engine, 1, 1, 18 + 64 + 130);
	DESTROY(engine);
	free_pair(&pair);
	free(medium);
	free(large);
}

/* FD-13: the region that ends a filter is scanned without one, and so is nothing else. */
static void test_conflict_and_the_region_before(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *before = make_unique(engine, 8), *small = make_unique(engine, 70), *large = make_unique(engine, 140);
	set_page(engine, before, 0, 'a');
	set_page(engine, before, 1, 'a');
	struct mm_slot *process = create_in(engine, 0);
	map_keyed(process, 0, before, 8, 1, false);
	map_keyed(process, 8, small, 70, 2, false);
	map_keyed(process, 78, large, 140, 2, false);
	EXPECT_EQUAL(full(engine), 8 + 70 + 140);
	EXPECT_EQUAL(full(engine), 2 + 70 + 140);
	EXPECT(filter_is_conflicted(process->regions[1]->filter));
	EXPECT_EQUAL(full(engine), 2 + 70 + 140);
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free(before);
	free(small);
	free(large);
}

/* A walk that batches interrupt anywhere counts a region's size once. */
static void test_size_is_looked_at_once_a_walk(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *small = make_unique(engine, 70), *large = make_unique(engine, 140);
	make_keyed(engine, small, 70, KEY);
	struct mm_slot *second = make_keyed(engine, large, 140, KEY);
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	while (lksm_has_queue(engine))
		scan_pages(engine, 1);
	EXPECT_EQUAL(filter_of(second)->nr_conflicts, 1);
	DESTROY(engine);
	free(small);
	free(large);
}

/* FD-2: a page behind all bits makes room for its own, whatever sizes were met. */
static void test_page_behind_the_bits(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *small = make_unique(engine, 10), *large = make_unique(engine, 1000);
	struct mm_slot *first = make_keyed(engine, small, 10, KEY), *second = make_keyed(engine, large, 1000, KEY);
	EXPECT(!filter_has(filter_of(first), 999));
	filter_learn(second->regions[0], 999);
	EXPECT(filter_has(filter_of(first), 999) && !filter_has(filter_of(first), 998));
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free(small);
	free(large);
}

/* --- references ------------------------------------------------------------------------------ */

/* FD-5, FD-6: a filter goes with the last region that has it, however that goes. */
static void test_last_region(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 0 };
	struct pair pair = make_pair(engine, 4, offsets, 1, 1);
	struct mm_slot *child = NULL;
	EXPECT_EQUAL(lksm_process_fork(pair.processes[0], &child), LKSM_OK);
	EXPECT_EQUAL(filter_of(child)->nr_regions, 3);
	EXPECT(filter_of(child) == filter_of(pair.processes[1]));
	lksm_process_destroy(pair.processes[0]);
	EXPECT_EQUAL(filter_of(child)->nr_regions, 2);
	EXPECT_EQUAL(lksm_process_unmap(pair.processes[1], 0, 3), LKSM_OK);
	EXPECT_EQUAL(filter_of(child)->nr_regions, 2);
	EXPECT_EQUAL(lksm_process_unmap(pair.processes[1], 3, 4), LKSM_OK);
	EXPECT(!filter_of(pair.processes[1]));
	EXPECT_EQUAL(counters_of(engine).nr_regions, 1);
	EXPECT_SOUND(engine);
	lksm_process_destroy(child);
	EXPECT_EQUAL(counters_of(engine).nr_regions, 0);
	EXPECT_SOUND(engine);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 0);
	DESTROY(engine);
	free_pair(&pair);
}

/* Who comes after the last region learns from the beginning. */
static void test_key_comes_again(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 0 };
	struct pair pair = make_pair(engine, 4, offsets, 1, 3);
	lksm_process_destroy(pair.processes[0]);
	lksm_process_destroy(pair.processes[1]);
	struct mm_slot *again = make_keyed(engine, pair.pages[0], 4, KEY);
	EXPECT_EQUAL(filter_of(again)->birth, 3);
	EXPECT_EQUAL(full(engine), 4);
	EXPECT_EQUAL(full(engine), 4);
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free_pair(&pair);
}

/* Regions that are never scanned have no filter. */
static void test_regions_without(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_unique(engine, 2);
	static const int64_t absent[] = { -1, -1 };
	struct mm_slot *process = create_in(engine, 0);
	struct lksm_region excluded = {
		.pages = pages,
		.nr_array_pages = 2,
		.nr_pages = 2,
		.is_excluded = true,
		.filter_key = KEY,
	};
	struct lksm_region empty = {
		.address = 1 << 20,
		.pages = pages,
		.nr_array_pages = 2,
		.rows = absent,
		.nr_pages = 2,
		.filter_key = KEY,
	};
	EXPECT_EQUAL(lksm_process_map(process, &excluded), LKSM_OK);
	EXPECT_EQUAL(lksm_process_map(process, &empty), LKSM_OK);
	EXPECT_EQUAL(counters_of(engine).nr_regions, 0);
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free(pages);
}

/* An engine may be destroyed while regions have filters. */
static void test_destroyed_with_filters(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	static const uint64_t offsets[] = { 0, 69 };
	struct pair pair = make_pair(engine, 70, offsets, 2, 2);
	lksm_engine_destroy(engine);
	free_pair(&pair);
}

/* Many keys are told apart, and each goes. */
static void test_many_keys(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_unique(engine, 1000);
	struct mm_slot *process = create_in(engine, 0);
	for (uint64_t key = 1; key <= 1000; key++)
		map_keyed(process, key, pages + (key - 1) * 256, 1, key << 40, key % 2);
	EXPECT_EQUAL(counters_of(engine).nr_regions, 1000);
	EXPECT_SOUND(engine);
	for (uint64_t key = 1; key <= 1000; key++)
		EXPECT(filter_find(&engine->indexes->filters, key << 40, key % 2) == process->regions[key - 1]->filter);
	EXPECT_EQUAL(lksm_process_unmap(process, 0, 900), LKSM_OK);
	EXPECT_EQUAL(counters_of(engine).nr_regions, 100);
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free(pages);
}

/* --- no memory ------------------------------------------------------------------------------- */

/* FD-7: whichever allocation of a map fails, it fails or succeeds as a whole; without filter all is visited. */
static void test_every_allocation_of_a_map_fails(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_unique(engine, 40), *other = make_unique(engine, 1);
	uint64_t nr_without = 0;
	make_process(engine, other, 1, false);	/* so that each attempt takes as many allocations */
	for (uint64_t n = 1;; n++) {
		struct mm_slot *process = create_in(engine, 1);
		struct lksm_region region = { .pages = pages, .nr_array_pages = 40, .nr_pages = 40, .filter_key = KEY };
		uint64_t before = engine->memory.nr_allocations;
		engine->memory.fail_at = before + n;
		int error = lksm_process_map(process, &region);
		fail_no_more(engine);
		EXPECT_SOUND(engine);
		bool is_over = engine->memory.nr_allocations < before + n;
		nr_without += !error && !filter_of(process);
		if (!error) {
			EXPECT_EQUAL(full(engine), 40 + 1);
			EXPECT_EQUAL(full(engine), 40 + 1);
		}
		lksm_process_destroy(process);
		if (is_over)
			break;
	}
	EXPECT_EQUAL(nr_without, 2);	/* the table, the filter */
	DESTROY(engine);
	free(pages);
	free(other);
}

/* A table that cannot grow holds all filters nevertheless. */
static void test_table_cannot_grow(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_unique(engine, 17);
	struct mm_slot *process = create_in(engine, 0);
	for (uint64_t key = 1; key <= 16; key++)
		map_keyed(process, key, pages + (key - 1) * 256, 1, key, false);
	struct region *last = map_keyed(process, 17, pages + 16 * 256, 1, 0, false);
	fail_next(engine, 0);
	filter_join(last, 17, FILTER_DATA);
	fail_no_more(engine);
	EXPECT_EQUAL(engine->indexes->filters.nr_chains, 16);
	EXPECT_EQUAL(counters_of(engine).nr_regions, 17);
	EXPECT(filter_find(&engine->indexes->filters, 17, FILTER_DATA) == last->filter);
	EXPECT_SOUND(engine);
	DESTROY(engine);
	free(pages);
}

/* --- explain --------------------------------------------------------------------------------- */

static uint32_t reason_of(struct mm_slot *process, uint64_t page, bool *is_filtered_ret)
{
	struct lksm_explanation explanation;
	EXPECT_EQUAL(lksm_explain(process, page, false, &explanation), LKSM_OK);
	*is_filtered_ret = explanation.is_filtered;
	return explanation.reason;
}

/* A page that the filter leaves out is explained as skipped, unless this round has visited it. */
static void test_explain_filtered(void)
{
	struct engine *engine = make_engine((struct setup){ .filter_maturity = 1 });
	static const uint64_t offsets[] = { 0 };
	struct pair pair = make_pair(engine, 4, offsets, 1, 1);
	bool is_filtered;
	EXPECT_EQUAL(reason_of(pair.processes[0], 2, &is_filtered), LKSM_UNIQUE);
	full(engine);
	EXPECT_EQUAL(reason_of(pair.processes[0], 2, &is_filtered), LKSM_SKIPPED);
	EXPECT(is_filtered);
	EXPECT_EQUAL(reason_of(pair.processes[0], 0, &is_filtered), LKSM_MERGED);
	lksm_begin_round(engine, 0);
	enqueue(pair.processes[0], true);
	EXPECT_EQUAL(scan_to_end(engine), 4);
	EXPECT_EQUAL(reason_of(pair.processes[0], 2, &is_filtered), LKSM_UNIQUE);
	EXPECT_EQUAL(reason_of(pair.processes[1], 2, &is_filtered), LKSM_SKIPPED);
	DESTROY(engine);
	free_pair(&pair);
}

/* A page whose last visit smart scan left out is explained as skipped; one whose visit was made is not. */
static void test_explain_smart_scan(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_unique(engine, 1);
	struct mm_slot *process = make_process(engine, pages, 1, false);
	lksm_set_smart_scan(engine, true);
	for (int visit = 1; visit <= 600; visit++) {
		bool is_filtered, is_made = full(engine) == 1;
		EXPECT_EQUAL(reason_of(process, 0, &is_filtered), is_made ? LKSM_UNIQUE : LKSM_SKIPPED);
		EXPECT(!is_filtered);
		EXPECT_EQUAL(smart_scan_has_skipped(item_of(process, 0)), !is_made);
	}
	DESTROY(engine);
	free(pages);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_only_learned_offsets),
		TEST(test_nothing_learned),
		TEST(test_first_offsets_are_learned_together),
		TEST(test_unfiltered_scan_learns),
		TEST(test_pair_of_two_keys),
		TEST(test_roles),
		TEST(test_domains),
		TEST(test_move_to_another_domain),
		TEST(test_zero_pages),
		TEST(test_end_of_region),
		TEST(test_items_of_pages_left_out),
		TEST(test_merged_but_not_learned),
		TEST(test_filter_younger_than_the_round),
		TEST(test_larger_region),
		TEST(test_smaller_region),
		TEST(test_sizes_of_one_word),
		TEST(test_conflict_and_the_region_before),
		TEST(test_size_is_looked_at_once_a_walk),
		TEST(test_page_behind_the_bits),
		TEST(test_last_region),
		TEST(test_key_comes_again),
		TEST(test_regions_without),
		TEST(test_destroyed_with_filters),
		TEST(test_many_keys),
		TEST(test_every_allocation_of_a_map_fails),
		TEST(test_table_cannot_grow),
		TEST(test_explain_filtered),
		TEST(test_explain_smart_scan),
	};
	return run_tests(tests, NR_TESTS(tests));
}
