/*
 * checker.c - lines of text for faults, whole ones only.
 */
#include "checker.h"

#include <stdarg.h>
#include <stdio.h>

void expect(struct checker *checker, bool is_sound, const char *format, ...)
{
	if (is_sound)
		return;
	checker->nr_faults++;
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(checker->text, checker->room, format, arguments);
	va_end(arguments);
	/* untested: vsnprintf() does not fail with these formats */
	if (length < 0 || (size_t)length + 2 > checker->room) {
		if (checker->room)
			*checker->text = '\0';	/* no half lines */
		checker->room = 0;
		return;
	}
	checker->text += length;
	*checker->text++ = '\n';
	*checker->text = '\0';
	checker->room -= (size_t)length + 1;
}
