/*
 * driver.c - runs a fuzz target without libFuzzer.
 *
 *     fuzz_core FILE...                  these inputs
 *     fuzz_core --seeds DIRECTORY        writes the seeds into it
 *     fuzz_core --random SECONDS [SEED]  random inputs; prints how many, and how resident memory drifted
 *                                        from a fifth of the time on: status 1 if by 1 % in a minute or
 *                                        longer. Of that counts what was written to and is not free; what
 *                                        glibc keeps for each thread is to be turned off:
 *                                        GLIBC_TUNABLES=glibc.malloc.tcache_count=0
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define MAX_SIZE 1200
#define NR_SEEDS 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state;

static uint64_t next_random(void)
{
	state += 0x9e3779b97f4a7c15u;
	uint64_t x = state;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static size_t make_input(uint8_t *bytes)
{
	size_t size = 40 + next_random() % (MAX_SIZE - 40);
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)next_random();
	return size;
}

static void write_file(const char *directory, const char *name, const uint8_t *bytes, size_t size)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	FILE *file = fopen(path, "wb");
	if (!file || fwrite(bytes, 1, size, file) != size || fclose(file)) {
		perror(path);
		exit(2);
	}
}

static void run_file(const char *path)
{
	static uint8_t bytes[1 << 20];
	FILE *file = fopen(path, "rb");
	if (!file) {
		perror(path);
		exit(2);
	}
	size_t size = fread(bytes, 1, sizeof(bytes), file);
	fclose(file);
	LLVMFuzzerTestOneInput(bytes, size);
}

/* KiB of memory of its own that the program keeps: not its code, nor what malloc() has free. */
static uint64_t kept_kib(void)
{
	char line[256];
	uint64_t kib = 0;
#ifdef __GLIBC__
	malloc_trim(0);
#endif
	FILE *file = fopen("/proc/self/status", "r");
	while (file && fgets(line, sizeof(line), file) && sscanf(line, "RssAnon: %" SCNu64, &kib) != 1)
		;
	if (file)
		fclose(file);
	return kib;
}

/* What is printed before an input tells how to make it again, should it end the program. */
static int run_random(double seconds, uint64_t seed)
{
	static uint8_t bytes[MAX_SIZE];
	time_t begin = time(NULL);
	uint64_t nr_inputs = 0, warm = 0;
	state = seed;
	while (difftime(time(NULL), begin) < seconds) {
		if (!warm && difftime(time(NULL), begin) >= seconds / 5)
			warm = kept_kib();
		uint64_t state_before = state;
		size_t size = make_input(bytes);
		printf("\rinput %" PRIu64 ", seed %#" PRIx64, nr_inputs, state_before);
		LLVMFuzzerTestOneInput(bytes, size);
		nr_inputs++;
	}
	uint64_t last = kept_kib();
	printf("\n%" PRIu64 " executions, %" PRIu64 " KiB kept after a fifth of the time, %" PRIu64 " in the end\n",
	       nr_inputs, warm, last);
	return seconds >= 60 && 100 * last > 101 * warm;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	if (argc >= 3 && !strcmp(argv[1], "--random")) {
		return run_random(atof(argv[2]), argc > 3 ? strtoull(argv[3], NULL, 0) : 1);
	}
	if (argc == 3 && !strcmp(argv[1], "--seeds")) {
		static uint8_t bytes[MAX_SIZE];
		char name[32];
		for (int i = 0; i < NR_SEEDS; i++) {
			size_t size = make_input(bytes);
			snprintf(name, sizeof(name), "random-%02d", i);
			write_file(argv[2], name, bytes, size / 4 + 16);
		}
		return 0;
	}
	for (int i = 1; i < argc; i++)
		run_file(argv[i]);
	printf("%d inputs\n", argc - 1);
	return 0;
}
