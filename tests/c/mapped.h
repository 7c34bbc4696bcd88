/*
 * mapped.h - is there memory at an address? Include it first: it asks for more than C and POSIX have.
 */
#ifndef MAPPED_H
#define MAPPED_H

#define _DEFAULT_SOURCE		/* mincore() */
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

static inline bool is_mapped_at(const uint8_t *bytes)
{
	unsigned char is_here;
	return !mincore((void *)((uintptr_t)bytes & ~(uintptr_t)4095), 1, &is_here);
}

#endif
