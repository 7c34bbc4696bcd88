"""One user of the kernel's KSM at a time, who finds and leaves every knob as it was.

The lock file is empty, or holds the knobs as they were found: they are written there before any of them
is changed, and removed when all have been put back. If its user dies in between, even of SIGKILL, the next
one finds them and puts them back first. The file lies in /run, which only root may write and no reboot
survives, as no knob does.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ._errors import KsmUnavailable
from ._files import Files

LOCK = Path("/run/lksm-ksm.lock")
_LOOK_SECONDS = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def reserved(
    files: Files, *, lock: Path = LOCK, patience_seconds: float = 600.0, interrupt: Callable[[], object]
) -> Iterator[None]:
    """Within the block nobody else who asks drives KSM; afterwards the knobs are as they were.

    KsmUnavailable: another user of the lock did not end in time, KSM merges for somebody who does not know
    of it, or its knobs cannot be written. `interrupt` is called again and again while this waits, and may
    raise.
    """
    with _opened(lock) as file:
        _take(file, patience_seconds, interrupt)
        try:
            files.expect_writable()
        except OSError as error:
            raise KsmUnavailable(f"{error.filename}: {error.strerror}") from None
        _repair(file, files)
        found = files.knobs()
        if found["run"] == "1" or files.number("pages_shared"):
            raise KsmUnavailable(
                f"KSM is in use: run is {found['run']}, {files.read('pages_shared')} pages are shared"
            )
        _note(file, found)
        try:
            yield
        finally:
            with _signals_held():
                files.restore(found)
                _note(file, None)


def _opened(lock: Path) -> io.FileIO:
    try:
        return io.FileIO(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+")
    except OSError as error:
        raise KsmUnavailable(f"{lock}: {error.strerror}") from None


def _take(file: io.FileIO, patience_seconds: float, interrupt: Callable[[], object]) -> None:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise KsmUnavailable(
                    f"KSM is in use by another program of lksm for {patience_seconds:g} s"
                ) from None
            interrupt()
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _repair(file: io.FileIO, files: Files) -> None:
    """Put back what a user that died has left. Half a note was written before anything was changed."""
    file.seek(0)
    try:
        knobs = json.loads(file.readall())
    except ValueError:
        return
    files.restore(knobs)
    _note(file, None)


def _note(file: io.FileIO, knobs: Mapping[str, str] | None) -> None:
    """Write the knobs to the lock file, or that there are none to be put back."""
    file.seek(0)
    file.truncate()
    if knobs is not None:
        file.write(json.dumps(knobs).encode())


@contextmanager
def _signals_held() -> Iterator[None]:
    """Within the block Ctrl-C and SIGTERM wait, so that nothing is half put back."""
    if threading.current_thread() is not threading.main_thread():
        # untested: tests drive on the main thread
        yield  # signals are handled elsewhere
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    handlers = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])
