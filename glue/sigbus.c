/*
 * Files that shrink while they are mapped: the program goes on, and can ask.
 *
 * A page that lies behind the end of its file, or that the disk does not give, is SIGBUS for whoever looks at
 * it. For a mapping that is guarded here, the handler puts zeros in the place of that page and of all behind
 * it, notes that the mapping is torn, and returns; what was looking goes on over zeros. So the core
 * finishes its batch, knows nothing of it and is never left half done, and whoever mapped the file asks
 * afterwards, and throws away what was found. Zeros up to the end: a mapping is cut in two at most, however
 * many of its pages are gone, for the number of mappings is limited.
 *
 * A signal has one handler for the whole process, hence the only variables of this project that are global.
 * Guards are added and removed under the GIL; the handler runs on any thread at any time. It reads each guard
 * between two looks at its version, which is odd while the guard is being changed: such a guard is not of
 * the page that was looked at, for nobody looks at a mapping before it is guarded, nor after. Guards are
 * used again, never freed.
 *
 * SIGBUS for any other reason is what it would be without us.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* One mapping. */
struct guard {
	struct guard *next;       /* the one made before it; never changes */
	atomic_uint version;      /* odd while start and stop are being changed */
	_Atomic uintptr_t start;  /* first byte, and the first one behind: whole pages; both 0 while unused */
	_Atomic uintptr_t stop;
	atomic_bool is_torn;      /* pages of it have been replaced by zeros */
};

static struct guard *_Atomic guards;   /* all that were ever made, the last one first */
static struct sigaction previous;      /* what SIGBUS was before it was ours */
static atomic_bool is_passed_on;       /* a signal that was none of ours was given back to that */
static uintptr_t page_size;

static struct guard *guard_of(uintptr_t address, uintptr_t *stop_ret)
{
	for (struct guard *guard = atomic_load(&guards); guard; guard = guard->next) {
		unsigned int version;
		uintptr_t start, stop;

		do {
			version = atomic_load(&guard->version);
			start = atomic_load(&guard->start);
			stop = atomic_load(&guard->stop);
		} while (!(version & 1) && version != atomic_load(&guard->version));
		if (!(version & 1) && start <= address && address < stop) {
			*stop_ret = stop;
			return guard;
		}
	}
	return NULL;
}

/*
 * None of ours: as if we were not here. A fault comes again by itself, a signal that was sent has to be sent
 * again. A handler that gives it back to us, because it has found us there before it, gets no second one.
 */
static void pass_on(int number, const siginfo_t *info)
{
	struct sigaction by_default = { .sa_handler = SIG_DFL };

	sigaction(number, atomic_exchange(&is_passed_on, true) ? &by_default : &previous, NULL);
	if (info->si_code <= 0)
		raise(number);
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	uintptr_t page = (uintptr_t)info->si_addr & ~(page_size - 1), stop;
	struct guard *guard = info->si_code > 0 ? guard_of(page, &stop) : NULL;
	int error = errno;

	(void)context;
	if (guard)
		atomic_store(&guard->is_torn, true);
	if (!guard || mmap((void *)page, stop - page, PROT_READ,
	                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
		pass_on(number, info);
	errno = error;
}

/* Somebody may have taken the signal since the last file was mapped: ask for it each time. */
static int take_signal(void)
{
	struct sigaction ours = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK }, now;

	sigemptyset(&ours.sa_mask);
	if (sigaction(SIGBUS, NULL, &now))
		return -1;
	if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_sigbus)
		return 0;
	previous = now;
	atomic_store(&is_passed_on, false);
	return sigaction(SIGBUS, &ours, NULL);
}

static struct guard *unused_guard(void)
{
	struct guard *guard;

	for (guard = atomic_load(&guards); guard; guard = guard->next)
		if (!atomic_load(&guard->stop))
			return guard;
	guard = calloc(1, sizeof(*guard));
	if (guard) {
		guard->next = atomic_load(&guards);
		atomic_store(&guards, guard);
	}
	return guard;
}

static void set(struct guard *guard, uintptr_t start, uintptr_t stop)
{
	atomic_fetch_add(&guard->version, 1);
	atomic_store(&guard->start, start);
	atomic_store(&guard->stop, stop);
	atomic_store(&guard->is_torn, false);
	atomic_fetch_add(&guard->version, 1);
}

static PyObject *add(PyObject *module, PyObject *arguments)
{
	Py_buffer mapping;
	struct guard *guard;
	PyObject *number;

	(void)module;
	if (!PyArg_ParseTuple(arguments, "y*", &mapping))
		return NULL;
	uintptr_t start = (uintptr_t)mapping.buf, nr_bytes = (uintptr_t)mapping.len;
	PyBuffer_Release(&mapping);
	guard = unused_guard();
	if (!guard)
		return PyErr_NoMemory();
	if (take_signal())
		return PyErr_SetFromErrno(PyExc_OSError);
	number = PyLong_FromVoidPtr(guard);
	if (number)
		set(guard, start, start + ((nr_bytes + page_size - 1) & ~(page_size - 1)));
	return number;
}

static PyObject *is_torn(PyObject *module, PyObject *number)
{
	const struct guard *guard = PyLong_AsVoidPtr(number);

	(void)module;
	return guard ? PyBool_FromLong(atomic_load(&guard->is_torn)) : NULL;
}

static PyObject *removed(PyObject *module, PyObject *number)
{
	struct guard *guard = PyLong_AsVoidPtr(number);

	(void)module;
	if (!guard)
		return NULL;
	set(guard, 0, 0);
	Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
	{ "add", add, METH_VARARGS, "Guard a mapping, while it lasts; returns the guard's number." },
	{ "is_torn", is_torn, METH_O, "Have pages of it been replaced by zeros?" },
	{ "remove", removed, METH_O, "Guard it no longer: before it is unmapped." },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "_sigbus",
	.m_doc = "Mapped files that shrink tear, and do not end the program (glue/sigbus.c).",
	.m_size = -1,
	.m_methods = functions,
};

PyMODINIT_FUNC PyInit__sigbus(void)
{
	page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
	return PyModule_Create(&definition);
}
