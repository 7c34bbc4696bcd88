"""The program `lksm`: what runs before lksm itself is there, and after it has done its work.

Importing lksm takes a tenth to a third of a second, most of it numpy. Ctrl-C in that time is no error of
anybody's and ends the program like later on: one line and status 130. This is a module of its own because
importing any module of the package begins with all of it.
"""

from __future__ import annotations

import gc
import os
import signal
from types import FrameType

_INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit status."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's would start, and spin until they see no work
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        signal.signal(signal.SIGINT, _end)
    gc.disable()  # all that is made now stays
    from lksm.cli import main as run

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
