/*
 * touch.h - tracked pages that were written.
 */
#ifndef TOUCH_H
#define TOUCH_H

#include "types.h"

/* The bytes of a page were written: wherever tracked regions map them, their pages are looked at again. */
void touch_page(struct region *region, uint64_t page);

#endif
