"""The program `lksm`: what runs before lksm itself is there, and after it has done its work.

Importing lksm takes a tenth to a third of a second, most of it numpy. Ctrl-C in that time is no error of
anybody's and ends the program like later on: one line and status 130. Nor is a traceback of any use where
importing fails, for want of memory or of a part of the installation: one line and status 2. This is a module
of its own because importing any module of the package begins with all of it.
"""

from __future__ import annotations

import gc
import os
import signal
from contextlib import suppress
from types import FrameType

_FAILED, _INTERRUPTED = 2, 130
_AMPLE_BYTES = 1 << 30  # several times what importing lksm takes
_MARGIN_BYTES = 1 << 20
_PATIENCE_SECONDS = 30


def main() -> int:
    """Run the command line and return its exit status."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's would start, and spin until they see no work
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        signal.signal(signal.SIGINT, _end)
    gc.disable()  # all that is made now stays
    try:
        if not _can_be_imported():
            return _FAILED
        from lksm.cli import main as run
    except (ImportError, MemoryError, OSError) as error:
        _become_deaf()
        _complain(2, error)
        return _FAILED
    gc.enable()
    status = _INTERRUPTED
    try:
        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = run()
        _become_deaf()
    except KeyboardInterrupt:  # between the lines above
        _become_deaf()
    gc.freeze()  # Python would look for garbage among all that is left, and then let go of it
    return status


def _can_be_imported() -> bool:
    """False if lksm cannot, and that has been told; MemoryError if trying would end the program.

    numpy's OpenBLAS does that if it finds no memory, and Python itself may crash, or wait for a lock that it
    holds. So where there is little, another process tries it, with a bit less, as no two processes need quite
    the same.
    """
    import resource

    limits = {which: resource.getrlimit(which) for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA)}
    little = {which: limit for which, limit in limits.items() if 0 <= limit[0] < _AMPLE_BYTES}
    if not little:
        return True
    stderr = 2
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_PATIENCE_SECONDS)
            nowhere = os.open(os.devnull, os.O_WRONLY)  # which is 2 if that was closed
            stderr = os.dup(2)
            os.dup2(nowhere, 2)  # OpenBLAS has something to say
            for which, (soft, hard) in little.items():
                resource.setrlimit(which, (max(0, soft - _MARGIN_BYTES), hard))
            import lksm.cli  # noqa: F401

            os._exit(0)
        except (ImportError, MemoryError, OSError) as error:
            _complain(stderr, error)
            os._exit(_FAILED)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status not in (0, _FAILED):
        raise MemoryError
    return status == 0


def _complain(stderr: int, error: BaseException) -> None:
    with suppress(OSError):
        os.write(stderr, f"lksm: {_reason(error)}\n".encode(errors="backslashreplace"))


def _reason(error: BaseException) -> str:
    """What is wrong, in one line. Numpy's message is a page of advice, and its cause what it is about."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    lines = str(error).strip().splitlines() or ["out of memory"]
    if len(lines) > 1 and error.__cause__ is not None:
        return _reason(error.__cause__)
    return lines[0]


def _become_deaf() -> None:
    """All is said, and what follows is Python's end, in which Ctrl-C would show.

    It is ignored for the whole process, as there are threads besides ours. Python complains of a signal that
    it has noted and finds ignored, so one that is on its way goes to a handler first.
    """
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(_number: int, _frame: FrameType | None) -> None:
    """Nothing has been done so far, so nothing has to be undone."""
    os.write(2, b"lksm: interrupted\n")
    os._exit(_INTERRUPTED)
