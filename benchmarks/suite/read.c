/*
 * read.c - reads all bytes and does as little as one can: the sum of all words. Compiled for the machine at hand
 * when the benchmarks start, so that it is vectorised and waits for memory only.
 */
#include <stddef.h>
#include <stdint.h>

uint64_t read_all(const uint64_t *words, size_t nr_words)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < nr_words; i++)
		sum += words[i];
	return sum;
}
