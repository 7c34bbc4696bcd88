/*
 * check.h - walks everything, changes nothing, reports every fault.
 */
#ifndef CHECK_H
#define CHECK_H

#include "types.h"

/* Writes one line for each broken invariant, as many as fit, and returns how many there are. */
uint64_t check(struct engine *engine, char *text, size_t size);

#endif
