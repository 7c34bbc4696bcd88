/*
 * test_mm_slot.c - regions, items, fork and copy-on-write of one process and its family.
 */
#include "fixture.h"
#include "fork.h"

/* --- regions --------------------------------------------------------------------------------- */

/* Pages are numbered in address order: a region mapped before others moves their numbers up. */
static void test_map_renumbers(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *ab = make_pages(engine, "ab"), *a = make_pages(engine, "a"), *cdb = make_pages(engine, "cdb");
	struct mm_slot *process = NULL;
	EXPECT_EQUAL(lksm_process_create(engine, 0, &process), LKSM_OK);
	EXPECT_EQUAL(map_pages(process, 100, ab, 2), LKSM_OK);
	full(engine);
	EXPECT_EQUAL(map_pages(process, 200, a, 1), LKSM_OK);
	EXPECT_PICTURE(process, "aba");
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 1);
	int64_t frame = frame_of(process, 0);
	EXPECT_EQUAL(map_pages(process, 10, cdb, 3), LKSM_OK);
	EXPECT_PICTURE(process, "cdbaba");
	EXPECT_EQUAL(frame_of(process, 3), frame);
	EXPECT_EQUAL(frame_of(process, 0), LKSM_ENTRY_PRIVATE);
	EXPECT_COUNTERS(engine, 1, 1, 1);
	full(engine);
	EXPECT_COUNTERS(engine, 2, 2, 2);
	EXPECT_EQUAL(process->nr_pages, 6);
	DESTROY(engine);
	free(ab), free(a), free(cdb);
}

/* A region may lie over absent pages of others: its pages come after theirs, and only they are present. */
static void test_map_over_absent_pages(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "abcd"), *more = make_pages(engine, "ef");
	struct mm_slot *process = NULL, *child = NULL;
	EXPECT_EQUAL(lksm_process_create(engine, 0, &process), LKSM_OK);
	EXPECT_EQUAL(map_pages(process, 10, pages, 4), LKSM_OK);
	full(engine);
	EXPECT_EQUAL(lksm_process_unmap(process, 1, 3), LKSM_OK);
	EXPECT_EQUAL(map_pages(process, 12, more, 2), LKSM_INVALID);
	EXPECT_EQUAL(map_pages(process, 11, more, 2), LKSM_OK);
	EXPECT_PICTURE(process, "a--def");
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 4);
	EXPECT_EQUAL(lksm_process_fork(process, &child), LKSM_OK);
	EXPECT_PICTURE(child, "a--def");
	EXPECT_EQUAL(write_page(child, 4, 'x'), LKSM_OK);
	EXPECT_PICTURE(process, "a--def");
	EXPECT_PICTURE(child, "a--dxf");
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 5);
	DESTROY(engine);
	free(pages), free(more);
}

/* Regions may touch but not overlap; what is no region is refused and nothing is mapped. */
static void test_map_refuses(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "abcd");
	int64_t rows[4] = { 0, -1, 3, 3 };
	struct mm_slot *process = NULL;
	EXPECT_EQUAL(lksm_process_create(engine, 0, &process), LKSM_OK);
	EXPECT_EQUAL(map_pages(process, 10, pages, 4), LKSM_OK);
	EXPECT_EQUAL(map_pages(process, 14, pages, 4), LKSM_OK);
	EXPECT_EQUAL(map_pages(process, 6, pages, 4), LKSM_OK);
	for (uint64_t address = 3; address <= 17; address++)
		EXPECT_EQUAL(map_pages(process, address, pages, 4), LKSM_INVALID);
	EXPECT_EQUAL(map_pages(process, 0, pages, 0), LKSM_INVALID);
	EXPECT_EQUAL(map_pages(process, (UINT64_MAX >> 8) - 2, pages, 4), LKSM_INVALID);
	EXPECT_EQUAL(map_pages(process, (UINT64_MAX >> 8) - 3, pages, 4), LKSM_OK);

	struct lksm_region region = {
		.address = 256 * 100,
		.pages = pages,
		.nr_array_pages = 3,
		.rows = rows,
		.nr_pages = 4,
	};
	EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_INVALID);
	rows[2] = -2;
	region.nr_array_pages = 4;
	EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_INVALID);
	rows[2] = 2;
	region.address++;
	EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_INVALID);
	region.address--;
	EXPECT_EQUAL(process->nr_pages, 16);
	EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_OK);
	EXPECT_PICTURE(process, "abcdabcdabcda-cdabcd");
	EXPECT(strlen(lksm_error_text(engine)) > 10);
	DESTROY(engine);
	free(pages);
}

/* The region of a page and the overlap of a range are those that a walk over all regions finds. */
static void test_region_search(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "abcdefgh");
	struct mm_slot *process = NULL;
	EXPECT_EQUAL(lksm_process_create(engine, 0, &process), LKSM_OK);
	uint64_t random = 5;
	for (int i = 0; i < 200; i++) {
		uint64_t address = next_random(&random) % 300, nr_pages = 1 + next_random(&random) % 8;
		const struct region *expected = NULL;
		for (uint64_t r = 0; r < process->nr_regions && !expected; r++) {
			const struct region *region = process->regions[r];
			if (region->address / 256 < address + nr_pages && address < region->address / 256 + region->nr_pages)
				expected = region;
		}
		EXPECT(mm_slot_overlap(process, address * 256, nr_pages) == expected);
		EXPECT_EQUAL(map_pages(process, address, pages, nr_pages), expected ? LKSM_INVALID : LKSM_OK);
	}
	EXPECT_SOUND(engine);
	uint64_t page = 0;
	for (uint64_t r = 0; r < process->nr_regions; r++) {
		for (uint64_t i = 0; i < process->regions[r]->nr_pages; i++, page++) {
			uint64_t place;
			EXPECT(mm_slot_region(process, page, &place) == process->regions[r]);
			EXPECT_EQUAL(place, i);
		}
	}
	EXPECT_EQUAL(page, process->nr_pages);
	DESTROY(engine);
	free(pages);
}

/* Unmapped pages keep their numbers and read as absent; their items go at the next scan. Row 46. */
static void test_046_unmap(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aaaaaaaaaa");
	struct mm_slot *process = make_process(engine, pages, 10, false);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 9, 0);
	EXPECT_EQUAL(lksm_process_unmap(process, 2, 7), LKSM_OK);
	EXPECT_COUNTERS(engine, 1, 9, 0);
	EXPECT_EQUAL(frame_of(process, 2), LKSM_ENTRY_ABSENT);
	EXPECT_PICTURE(process, "aa-----aaa");
	full(engine);
	EXPECT_COUNTERS(engine, 1, 4, 0);
	EXPECT_EQUAL(counters_of(engine).rmap_items, 5);
	EXPECT_EQUAL(lksm_process_unmap(process, 8, 11), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_unmap(process, 3, 2), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_unmap(process, 10, 10), LKSM_OK);
	EXPECT_EQUAL(write_page(process, 2, 'z'), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_advise(process, 0, 10, true), LKSM_OK);
	EXPECT_EQUAL(frame_of(process, 2), LKSM_ENTRY_ABSENT);
	DESTROY(engine);
	free(pages);
}

/* Items come in blocks of 256 pages, and a block goes with its last item. */
static void test_blocks(void)
{
	struct engine *engine = make_engine((struct setup){ .page_size = 64 });
	uint8_t *pages = calloc(700, 64);
	for (int i = 0; i < 700; i++)
		memcpy(pages + i * 64, &i, sizeof(i));
	struct mm_slot *process = make_process(engine, pages, 700, false);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 700);
	uint64_t most = engine->memory.reserved[LKSM_FOR_ITEMS];
	EXPECT_EQUAL(lksm_process_unmap(process, 0, 255), LKSM_OK);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 445);
	EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_ITEMS], most);
	EXPECT_EQUAL(lksm_process_unmap(process, 255, 700), LKSM_OK);
	EXPECT_EQUAL(lksm_process_advise(process, 0, 700, true), LKSM_OK);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 0);
	EXPECT(engine->memory.reserved[LKSM_FOR_ITEMS] <= most - 700 * 32);
	DESTROY(engine);
	free(pages);
}

/* Rows say which array page each page is; two pages of one row are one page. */
static void test_rows(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "abca");
	int64_t rows[6] = { 3, 1, -1, 1, 0, 2 };
	struct lksm_region region = { .pages = pages, .nr_array_pages = 4, .rows = rows, .nr_pages = 6 };
	struct mm_slot *process = NULL;
	EXPECT_EQUAL(lksm_process_create(engine, 0, &process), LKSM_OK);
	EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_OK);
	EXPECT_PICTURE(process, "ab-bac");
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 2);
	EXPECT_EQUAL(volatile_of(engine), 1);
	EXPECT_EQUAL(frame_of(process, 0), frame_of(process, 4));
	EXPECT_EQUAL(frame_of(process, 2), LKSM_ENTRY_ABSENT);
	DESTROY(engine);
	free(pages);
}

/* The window holds the merges of the last three completed scans, and the score is their sum. */
static void test_merge_window(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aaaabb");
	struct mm_slot *process = make_process(engine, pages, 6, false);
	static const uint64_t scores[] = { 4, 5, 5, 1, 0 };
	for (int i = 0; i < 5; i++) {
		struct lksm_status status;
		full(engine);
		lksm_process_status(process, &status);
		EXPECT_EQUAL(status.nr_merged, scores[i]);
		EXPECT_EQUAL(status.window[2], i == 0 ? 4 : i == 1 ? 1 : 0);
		if (i == 0)
			EXPECT_EQUAL(write_page(process, 4, 'a'), LKSM_OK);
		EXPECT_SOUND(engine);
	}
	DESTROY(engine);
	free(pages);
}

/* The window is as long as the engine's, however short or long: oldest first, zeros before the first scan. */
static void test_merge_window_length(void)
{
	static const uint32_t lengths[] = { 1, 3, 16 };
	for (size_t n = 0; n < NR_TESTS(lengths); n++) {
		struct engine *engine = make_engine((struct setup){ .merge_window = lengths[n] });
		uint8_t *pages = calloc(40, 256);
		struct mm_slot *process = make_process(engine, pages, 40, false);
		uint64_t merged[40];		/* by scan */
		uint64_t nr_zero = 0;
		memset(pages, 'u', 40 * 256);
		for (uint64_t i = 0; i < 40; i++)
			pages[256 * i + engine->rules.lines[0]] = (uint8_t)i;
		for (uint64_t scan = 0; scan < 40; scan++) {
			/* Pages become zero: first two, which is one merge; then one in every other scan; then none. */
			uint64_t nr_more = scan == 0 ? 2 : scan < 20 ? scan & 1 : 0;
			memset(pages + 256 * nr_zero, 0, 256 * nr_more);
			nr_zero += nr_more;
			merged[scan] = scan ? nr_more : 1;
			full(engine);

			struct lksm_status status = status_of(process);
			uint64_t score = 0;
			EXPECT_EQUAL(status.nr_window, lengths[n]);
			for (uint32_t i = 0; i < LKSM_MAX_WINDOW; i++) {
				bool is_in = i < lengths[n] && scan + 1 + i >= lengths[n];
				uint64_t wanted = is_in ? merged[scan + 1 + i - lengths[n]] : 0;
				EXPECT_EQUAL(status.window[i], wanted);
				score += wanted;
			}
			EXPECT_EQUAL(status.nr_merged, score);
			EXPECT_SOUND(engine);
		}
		DESTROY(engine);
		free(pages);
	}
}

/* --- writing --------------------------------------------------------------------------------- */

/* A write makes a merged page private at once, even for equal bytes; counters follow at the next visit. */
static void test_write_makes_private(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aaa");
	struct mm_slot *process = make_process(engine, pages, 3, false);
	full(engine);
	EXPECT_EQUAL(lksm_process_write(process, 1, 5, "a", 1), LKSM_OK);
	EXPECT_EQUAL(frame_of(process, 1), LKSM_ENTRY_PRIVATE);
	EXPECT(frame_of(process, 0) >= 0 && frame_of(process, 2) >= 0);
	EXPECT_COUNTERS(engine, 1, 2, 0);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 2, 0);
	EXPECT_EQUAL(counters_of(engine).broken, 1);
	EXPECT(frame_of(process, 1) == frame_of(process, 0));
	DESTROY(engine);
	free(pages);
}

/* Bytes outside a page, pages outside the process and immutable pages cannot be written. */
static void test_write_refuses(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "ab");
	uint8_t bytes[300] = { 0 };
	struct mm_slot *process = make_process(engine, pages, 2, false);
	struct mm_slot *immutable = make_process(engine, pages, 2, true);
	EXPECT_EQUAL(lksm_process_write(process, 2, 0, bytes, 1), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_write(process, UINT64_MAX, 0, bytes, 1), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_write(process, 0, 0, bytes, 257), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_write(process, 0, 256, bytes, 1), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_write(process, 0, UINT64_MAX, bytes, 2), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_write(process, 0, 2, bytes, UINT64_MAX), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_write(immutable, 0, 0, bytes, 1), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_write(process, 0, 256, bytes, 0), LKSM_OK);
	EXPECT_EQUAL(lksm_process_read(process, 1, 2, bytes), LKSM_INVALID);
	EXPECT_EQUAL(lksm_process_read(process, 1, UINT64_MAX, bytes), LKSM_INVALID);
	EXPECT_PICTURE(process, "ab");
	DESTROY(engine);
	free(pages);
}

/* --- fork ------------------------------------------------------------------------------------ */

static struct mm_slot *fork_of(struct mm_slot *process)
{
	struct mm_slot *child = NULL;
	EXPECT_EQUAL(lksm_process_fork(process, &child), LKSM_OK);
	return child;
}

/* A child is registered iff its parent is, reads the same, and changes no counter; its pages are aliases. */
static void test_fork_shares(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aab-c");
	struct mm_slot *process = make_process(engine, pages, 5, false);
	EXPECT_EQUAL(lksm_process_unmap(process, 3, 4), LKSM_OK);
	EXPECT(!fork_of(process)->is_registered);
	lksm_process_destroy(engine->last_slot);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 2);
	struct mm_slot *child = fork_of(process);
	EXPECT(child->is_registered);
	EXPECT_COUNTERS(engine, 1, 1, 2);
	EXPECT_PICTURE(child, "aab-c");
	full(engine);
	EXPECT_COUNTERS(engine, 1, 1, 2);
	EXPECT_EQUAL(volatile_of(engine), 4);
	EXPECT_EQUAL(counters_of(engine).rmap_items, 8);
	for (uint64_t page = 0; page < 5; page++)
		EXPECT_EQUAL(frame_of(child, page), frame_of(process, page));
	EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 256);
	DESTROY(engine);
	free(pages);
}

/* Whoever writes, the other keeps what it had; the copies go with those who use them. */
static void test_fork_isolates_writes(void)
{
	for (int who_writes = 0; who_writes < 2; who_writes++) {
		for (int who_exits = 0; who_exits < 2; who_exits++) {
			struct engine *engine = make_engine((struct setup){ 0 });
			uint8_t *pages = make_pages(engine, "abc");
			struct mm_slot *family[2] = { make_process(engine, pages, 3, false), NULL };
			family[1] = fork_of(family[0]);
			EXPECT_EQUAL(write_page(family[who_writes], 1, 'x'), LKSM_OK);
			EXPECT_PICTURE(family[who_writes], "axc");
			EXPECT_PICTURE(family[!who_writes], "abc");
			EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 256);
			EXPECT_SOUND(engine);
			/* Apart already: no second copy. */
			EXPECT_EQUAL(write_page(family[0], 1, 'y'), LKSM_OK);
			EXPECT_EQUAL(write_page(family[1], 1, 'z'), LKSM_OK);
			EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 256);
			EXPECT_PICTURE(family[0], "ayc");
			EXPECT_PICTURE(family[1], "azc");
			/* The child's copy is the one there is. */
			lksm_process_destroy(family[who_exits]);
			EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], who_exits ? 0 : 256);
			EXPECT_PICTURE(family[!who_exits], who_exits ? "ayc" : "azc");
			EXPECT_EQUAL(write_page(family[!who_exits], 0, 'w'), LKSM_OK);
			EXPECT_PICTURE(family[!who_exits], who_exits ? "wyc" : "wzc");
			EXPECT_SOUND(engine);
			DESTROY(engine);
			free(pages);
		}
	}
}

/* Three that share a page get one copy together when the owner writes, and copies of it of their own. */
static void test_fork_shares_copies(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "a");
	struct mm_slot *process = make_process(engine, pages, 1, false);
	struct mm_slot *children[3] = { fork_of(process), fork_of(process), NULL };
	children[2] = fork_of(children[1]);
	EXPECT_EQUAL(write_page(process, 0, 'b'), LKSM_OK);
	EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 256);
	EXPECT_SOUND(engine);
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 2);
	EXPECT_EQUAL(volatile_of(engine), 2);
	EXPECT_EQUAL(write_page(children[0], 0, 'c'), LKSM_OK);
	EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 512);
	EXPECT_PICTURE(children[1], "a");
	EXPECT_EQUAL(write_page(children[1], 0, 'd'), LKSM_OK);
	EXPECT_EQUAL(write_page(children[2], 0, 'e'), LKSM_OK);
	EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 768);
	EXPECT_PICTURE(process, "b");
	EXPECT_PICTURE(children[0], "c");
	EXPECT_PICTURE(children[1], "d");
	EXPECT_PICTURE(children[2], "e");
	full(engine);
	EXPECT_COUNTERS(engine, 0, 0, 4);
	DESTROY(engine);
	free(pages);
}

/* A merged page that is written by a relative stays merged, with the bytes it had. */
static void test_fork_write_leaves_merged_relative(void)
{
	for (int order = 0; order < 2; order++) {
		struct engine *engine = make_engine((struct setup){ 0 });
		uint8_t *pages = make_pages(engine, "aa");
		struct mm_slot *family[2] = { make_process(engine, pages, 2, false), NULL };
		family[1] = fork_of(family[0]);
		lksm_begin_round(engine, 0);
		enqueue(family[order], false);	/* the first to be visited stands for both */
		scan_to_end(engine);
		EXPECT_COUNTERS(engine, 1, 1, 0);
		EXPECT_EQUAL(write_page(family[!order], 0, 'x'), LKSM_OK);
		EXPECT_COUNTERS(engine, 1, 1, 0);
		EXPECT_PICTURE(family[order], "aa");
		EXPECT_PICTURE(family[!order], "xa");
		full(engine);
		EXPECT_COUNTERS(engine, 1, 1, 1);
		EXPECT_EQUAL(counters_of(engine).broken, 0);
		EXPECT_EQUAL(frame_of(family[order], 0), frame_of(family[!order], 1));
		/* The one that is merged writes: it leaves its frame, its relative's page is another one by now. */
		EXPECT_EQUAL(write_page(family[order], 0, 'x'), LKSM_OK);
		full(engine);
		EXPECT_COUNTERS(engine, 2, 1, 0);
		EXPECT_EQUAL(frame_of(family[0], 0), frame_of(family[1], 0));
		DESTROY(engine);
		free(pages);
	}
}

/* A page unmapped by a relative is not copied for it. */
static void test_fork_write_ignores_unmapped(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "aa");
	struct mm_slot *process = make_process(engine, pages, 2, false);
	struct mm_slot *child = fork_of(process);
	lksm_begin_round(engine, 0);
	enqueue(child, false);
	scan_to_end(engine);
	EXPECT_COUNTERS(engine, 1, 1, 0);
	EXPECT_EQUAL(lksm_process_unmap(child, 0, 1), LKSM_OK);
	EXPECT_EQUAL(write_page(process, 0, 'x'), LKSM_OK);
	EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 256);	/* the merged content's */
	EXPECT_PICTURE(process, "xa");
	EXPECT_PICTURE(child, "-a");
	full(engine);
	full(engine);
	EXPECT_COUNTERS(engine, 1, 0, 1);
	DESTROY(engine);
	free(pages);
}

/* A page that a process maps at several places stays one page there, and is isolated from relatives at all. */
static void test_fork_of_rows(void)
{
	for (int who_writes = 0; who_writes < 2; who_writes++) {
		struct engine *engine = make_engine((struct setup){ 0 });
		uint8_t *pages = make_pages(engine, "ab");
		int64_t rows[4] = { 0, 0, 1, 0 };
		struct lksm_region region = { .pages = pages, .nr_array_pages = 2, .rows = rows, .nr_pages = 4 };
		struct mm_slot *family[2] = { NULL };
		EXPECT_EQUAL(lksm_process_create(engine, 0, &family[0]), LKSM_OK);
		EXPECT_EQUAL(lksm_process_map(family[0], &region), LKSM_OK);
		family[1] = fork_of(family[0]);
		full(engine);
		EXPECT_EQUAL(volatile_of(engine), 6);
		EXPECT_EQUAL(write_page(family[who_writes], 1, 'x'), LKSM_OK);
		EXPECT_PICTURE(family[who_writes], "xxbx");
		EXPECT_PICTURE(family[!who_writes], "aaba");
		EXPECT_SOUND(engine);
		full(engine);
		EXPECT_COUNTERS(engine, 0, 0, 3);
		EXPECT_EQUAL(volatile_of(engine), 5);
		EXPECT_EQUAL(write_page(family[!who_writes], 3, 'y'), LKSM_OK);
		EXPECT_PICTURE(family[who_writes], "xxbx");
		EXPECT_PICTURE(family[!who_writes], "yyby");
		EXPECT_EQUAL(engine->memory.reserved[LKSM_FOR_FRAMES], 256);
		DESTROY(engine);
		free(pages);
	}
}

#define FAMILY 7
#define FAMILY_PAGES 6

/* Families that fork, write and exit in any order read what each of them wrote or inherited. */
static void test_fork_random(void)
{
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct engine *engine = make_engine((struct setup){ .page_size = 64 });
		uint8_t *pages = make_pages(engine, "abcabc");
		struct mm_slot *family[FAMILY] = { make_process(engine, pages, FAMILY_PAGES, false) };
		char pictures[FAMILY][FAMILY_PAGES + 1] = { "abcabc" };
		uint64_t random = seed;
		for (int step = 0; step < 150 && !nr_failures; step++) {
			uint64_t i = next_random(&random) % FAMILY, j = next_random(&random) % FAMILY;
			uint64_t page = next_random(&random) % FAMILY_PAGES;
			char letter = (char)('a' + next_random(&random) % 4);
			uint64_t what = next_random(&random) % 16;
			if (!family[i])
				continue;
			if (what < 8) {
				if (next_random(&random) % 4 == 0)
					fail_next(engine, next_random(&random) % 3);
				int error = write_page(family[i], page, letter);
				fail_no_more(engine);
				EXPECT_EQUAL(error, pictures[i][page] == '-' ? LKSM_INVALID : error ? LKSM_NO_MEMORY : LKSM_OK);
				if (!error)
					pictures[i][page] = letter;
			} else if (what < 12 && !family[j]) {
				if (next_random(&random) % 4 == 0)
					fail_next(engine, next_random(&random) % 3);
				int error = lksm_process_fork(family[i], &family[j]);
				fail_no_more(engine);
				EXPECT_EQUAL(error, family[j] ? LKSM_OK : LKSM_NO_MEMORY);
				memcpy(pictures[j], pictures[i], sizeof(pictures[j]));
			} else if (what == 12 && next_random(&random) % 2) {
				lksm_process_destroy(family[i]);
				family[i] = NULL;
			} else if (what == 13) {
				EXPECT_EQUAL(lksm_process_unmap(family[i], page, page + 1), LKSM_OK);
				pictures[i][page] = '-';
			} else if (what == 14) {
				full(engine);
			}
			EXPECT_SOUND(engine);
			for (int k = 0; k < FAMILY; k++)
				if (family[k])
					EXPECT_PICTURE(family[k], pictures[k]);
		}
		DESTROY(engine);
		free(pages);
		if (nr_failures) {
			printf("seed %" PRIu64 "\n", seed);
			return;
		}
	}
}

/* A fork or a write without memory changes nothing, whichever allocation it is. */
static void test_fork_may_fail(void)
{
	struct engine *engine = make_engine((struct setup){ 0 });
	uint8_t *pages = make_pages(engine, "abab"), *more = make_pages(engine, "aa");
	struct mm_slot *process = make_process(engine, pages, 4, false);
	struct mm_slot *child = NULL;
	EXPECT_EQUAL(map_pages(process, 50, more, 2), LKSM_OK);
	full(engine);
	uint64_t reserved[LKSM_NR_PURPOSES];
	lksm_memory(engine, -1, reserved);
	int error = LKSM_NO_MEMORY;
	for (uint64_t n = 1; error; n++) {
		engine->memory.fail_at = engine->memory.nr_allocations + n;
		error = lksm_process_fork(process, &child);
		fail_no_more(engine);
		EXPECT_EQUAL(error, child ? LKSM_OK : LKSM_NO_MEMORY);
		EXPECT_SOUND(engine);
		EXPECT_EQUAL(process->family_next == process, error != 0);
		/* Extents and the map of addresses may have grown in vain; processes have not. */
		EXPECT(!error || engine->last_slot == process);
	}
	error = LKSM_NO_MEMORY;
	for (uint64_t n = 1; error; n++) {
		engine->memory.fail_at = engine->memory.nr_allocations + n;
		error = write_page(process, 2, 'x');
		fail_no_more(engine);
		EXPECT_SOUND(engine);
		EXPECT_PICTURE(process, error ? "ababaa" : "abxbaa");
		EXPECT_PICTURE(child, "ababaa");
	}
	DESTROY(engine);
	free(pages), free(more);
}

/* Destroying an engine touches none of its callers' memory: arrays and rows may be gone. */
static void test_engine_outlives_arrays(void)
{
	struct engine *engine = make_engine((struct setup){ .max_page_sharing = 3 });
	uint8_t *pages = make_pages(engine, "aaaabbc"), *lent = make_pages(engine, "bbcdd");
	int64_t *rows = malloc(4 * sizeof(*rows));
	memcpy(rows, (int64_t[]){ 3, 3, -1, 5 }, 4 * sizeof(*rows));
	struct lksm_region region = {
		.address = 256 * 100,
		.pages = pages,
		.nr_array_pages = 7,
		.rows = rows,
		.nr_pages = 4,
	};
	struct mm_slot *process = make_process(engine, pages, 7, false);
	make_process(engine, lent, 5, true);
	EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_OK);
	EXPECT_EQUAL(write_page(fork_of(process), 0, 'x'), LKSM_OK);
	full(engine);
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	scan_pages(engine, 5);
	EXPECT_SOUND(engine);
	free(pages), free(lent), free(rows);
	lksm_engine_destroy(engine);
}

/* An engine goes with chains, and with blocks of pages that were never visited. */
static void test_destroy_before_all_is_visited(void)
{
	struct engine *engine = make_engine((struct setup){ .max_page_sharing = 2 });
	uint64_t nr_pages = 2 * POOL_CHUNK_OBJECTS;
	uint8_t *pages = malloc(nr_pages * 256);
	for (uint64_t i = 0; i < nr_pages; i++)
		fill_page(engine, pages + i * 256, 'a');
	struct mm_slot *process = make_process(engine, pages, nr_pages, false);
	lksm_begin_round(engine, 0);
	enqueue_all(engine);
	EXPECT_EQUAL(scan_pages(engine, 4), 4);
	EXPECT_COUNTERS(engine, 2, 2, 0);
	EXPECT_EQUAL(counters_of(engine).stable_node_chains, 1);
	EXPECT(process->regions[0]->blocks[0] && !process->regions[0]->blocks[1]);
	lksm_engine_destroy(engine);
	free(pages);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_map_renumbers),
		TEST(test_map_over_absent_pages),
		TEST(test_map_refuses),
		TEST(test_region_search),
		TEST(test_046_unmap),
		TEST(test_blocks),
		TEST(test_rows),
		TEST(test_merge_window),
		TEST(test_merge_window_length),
		TEST(test_write_makes_private),
		TEST(test_write_refuses),
		TEST(test_fork_shares),
		TEST(test_fork_isolates_writes),
		TEST(test_fork_shares_copies),
		TEST(test_fork_write_leaves_merged_relative),
		TEST(test_fork_write_ignores_unmapped),
		TEST(test_fork_of_rows),
		TEST(test_fork_random),
		TEST(test_fork_may_fail),
		TEST(test_engine_outlives_arrays),
		TEST(test_destroy_before_all_is_visited),
	};
	return run_tests(tests, NR_TESTS(tests));
}
