/*
 * cffi_prelude.h - what stands before the glue that cffi writes from lksm.h: the headers lksm.h asks
 * for, the names of its handles, and lksm.h itself. So the compiler checks the glue against the very
 * text that cffi read.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;
struct mm_slot;

#include "lksm.h"
