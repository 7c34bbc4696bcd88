/*
 * harness.h - named tests, expectations, and nothing else.
 *
 * A test is a function that returns nothing. A failed expectation is printed with its place and the test
 * goes on; main() is one line: return run_tests(tests, NR_TESTS(tests)).
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test {
	const char *name;
	void (*run)(void);
};

#define TEST(function) { #function, function }
#define NR_TESTS(tests) (sizeof(tests) / sizeof((tests)[0]))
#define MAX_REPORTED 20		/* failures printed for one test */

static uint64_t nr_failures;	/* of the test that is running */

__attribute__((format(printf, 3, 4))) static inline bool expect_at(bool is_true, const char *place,
								   const char *format, ...)
{
	if (is_true || nr_failures++ >= MAX_REPORTED)
		return is_true;
	va_list arguments;
	va_start(arguments, format);
	printf("%s: ", place);
	vprintf(format, arguments);
	printf("\n");
	va_end(arguments);
	return false;
}

#define PLACE_TEXT_OF(line) #line
#define PLACE_TEXT(line) PLACE_TEXT_OF(line)
#define PLACE __FILE__ ":" PLACE_TEXT(__LINE__)

/* Both are true or false as an expression, so that a test can stop early. */
#define EXPECT(condition) expect_at((condition), PLACE, "expected %s", #condition)
#define EXPECT_EQUAL(value, wanted) expect_equal_at(PLACE, #value, (int64_t)(value), (int64_t)(wanted))

static inline bool expect_equal_at(const char *place, const char *name, int64_t value, int64_t wanted)
{
	return expect_at(value == wanted, place, "%s is %" PRId64 ", expected %" PRId64, name, value, wanted);
}

static inline int run_tests(const struct test *tests, size_t nr_tests)
{
	size_t nr_failed = 0;
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);	/* what was said before a crash is seen */
	for (size_t i = 0; i < nr_tests; i++) {
		nr_failures = 0;
		tests[i].run();
		if (!nr_failures)
			continue;
		nr_failed++;
		printf("FAILED %s: %" PRIu64 " expectations\n", tests[i].name, nr_failures);
	}
	printf("%zu passed, %zu failed\n", nr_tests - nr_failed, nr_failed);
	return nr_failed != 0;
}

/* A well-mixing counter generator: the same numbers everywhere for the same seed. */
static inline uint64_t next_random(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15u;
	uint64_t x = *state;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

#endif
