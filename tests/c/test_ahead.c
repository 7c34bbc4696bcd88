/*
 * test_ahead.c - stretches of memory are mapped before their pages are looked at.
 *
 * That nothing else depends on what is done ahead is shown by all other tests.
 */
#include "mapped.h"

#include "fixture.h"

#define STRETCH ((size_t)1 << 21)	/* mapped together */
#define STEP ((size_t)1 << 16)		/* a byte is read every so many bytes */
#define PAGE 4096

/* Memory that nobody has touched, and a page behind it that nobody may touch. */
static uint8_t *untouched(size_t size)
{
	uint8_t *bytes = mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	EXPECT(bytes != MAP_FAILED && !madvise(bytes, size, MADV_NOHUGEPAGE) &&
	       !mprotect(bytes + size, PAGE, PROT_NONE));
	return bytes;
}

static size_t nr_touched(uint8_t *bytes, size_t size)
{
	static unsigned char is_here[2 * STRETCH / PAGE];
	size_t nr = 0;
	EXPECT(size <= 2 * STRETCH && !mincore(bytes, size, is_here));
	for (size_t page = 0; page < size / PAGE; page++)
		nr += is_here[page] & 1;
	return nr;
}

/* How many pages of that memory have been touched when one of its pages has been visited. */
static size_t nr_touched_by_a_visit(size_t size, const int64_t *rows, uint64_t nr_rows)
{
	struct engine *engine = make_engine((struct setup){ .page_size = PAGE });
	uint8_t *bytes = untouched(size);
	struct mm_slot *process;
	struct lksm_region region = {
		.pages = bytes,
		.nr_array_pages = size / PAGE,
		.rows = rows,
		.nr_pages = rows ? nr_rows : size / PAGE,
	};

	EXPECT_EQUAL(lksm_process_create(engine, 0, &process), LKSM_OK);
	EXPECT_EQUAL(lksm_process_map(process, &region), LKSM_OK);
	enqueue(process, false);
	lksm_begin_round(engine, 0);
	EXPECT_EQUAL(scan_pages(engine, 1), 1);
	size_t nr = nr_touched(bytes, size);
	DESTROY(engine);
	munmap(bytes, size + PAGE);
	return nr;
}

/* Here and there where the first stretch is; nothing of the second one. */
static void test_a_stretch_is_mapped(void)
{
	size_t nr = nr_touched_by_a_visit(2 * STRETCH, NULL, 0);
	EXPECT(nr >= STRETCH / STEP && nr < STRETCH / PAGE / 4);
}

static void test_not_beyond_the_end(void)
{
	size_t size = 3 * STEP + PAGE, nr = nr_touched_by_a_visit(size, NULL, 0);
	EXPECT(nr >= 4 && nr < size / PAGE);
}

/* Of pages in any order nobody knows which memory they lie in. */
static void test_only_what_is_in_order(void)
{
	static const int64_t rows[] = { 400, 0, 511 };
	EXPECT(nr_touched_by_a_visit(STRETCH, rows, 3) <= 3);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(test_a_stretch_is_mapped),
		TEST(test_not_beyond_the_end),
		TEST(test_only_what_is_in_order),
	};
	return run_tests(tests, NR_TESTS(tests));
}
