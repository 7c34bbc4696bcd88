/*
 * checker.h - where faults are reported, and what is added up while everything is walked.
 */
#ifndef CHECKER_H
#define CHECKER_H

#include "types.h"

struct checker {
	struct engine *engine;
	char *text;		/* where lines go */
	size_t room;		/* bytes left there, the final 0 included */
	uint64_t nr_faults;
	uint64_t nr_listed;	/* sharers met in lists of nodes */
	uint64_t nr_stable;	/* STABLE items met in blocks */
	uint64_t nr_frames;	/* frames that are our copies: one a content at most */
	double nr_copies;	/* page copies: each of its users adds its share */
};

/* Unless it is sound: one more fault, and its line if there is room for it. */
__attribute__((format(printf, 3, 4))) void expect(struct checker *checker, bool is_sound, const char *format, ...);

#endif
