/*
 * smart_scan.c - which visits are left out. Kernel: the knob smart_scan, spec 12.3.
 *
 * A page that never merges is visited at its visits 1, 2, 3, 4, 6, 9, 14, 23 and then every ninth:
 *
 *     visit  1 2 3 4 5 6 7 8 9 10  11  12  13  14  15 ...
 *     age    0 1 2 3 4 5 6 7 8  9  10  11  12  13  14 ...
 *     made   x x x x - x - - x  -   -   -   -   x   - ...
 *
 * Age and remaining skips are kept while the page is merged, and while smart scan is off.
 */
#include "smart_scan.h"

#define ALWAYS_VISITED 3	/* below this age no visit is left out */
#define MAX_AGE 255

/* Visits that are left out after one that is made at this age. */
static uint8_t skips_after(uint8_t age)
{
	if (age <= 3)
		return 1;
	if (age <= 5)
		return 2;
	if (age <= 8)
		return 4;
	return SMART_SCAN_MAX_SKIPS;
}

bool smart_scan_skips(struct rmap_item *item)
{
	uint8_t age = (uint8_t)item->age;
	bool is_skipped = smart_scan_will_skip(item);

	if (is_skipped)
		item->remaining_skips--;
	else if (age >= ALWAYS_VISITED)
		item->remaining_skips = skips_after(age);
	if (age < MAX_AGE)
		item->age++;
	return is_skipped;
}

bool smart_scan_has_skipped(const struct rmap_item *item)
{
	/* Right after a visit that was made there are as many left as its age gave it, later there are fewer. */
	return item->age > ALWAYS_VISITED && item->remaining_skips < skips_after((uint8_t)(item->age - 1));
}
