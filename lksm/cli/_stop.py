"""Ctrl-C and SIGTERM as a wish: a job that has no end of its own asks when it is convenient to end it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Has somebody asked to end? The second time Ctrl-C is what it always is."""

    def __init__(self) -> None:
        self.is_asked = False

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """A signal handler."""
        self.is_asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def stop_on_signals(wakeup_fd: int) -> Iterator[Stop]:
    """Within the block both signals only ask, and write to `wakeup_fd`, so that no wait goes on.

    A signal that is ignored stays ignored; on a thread that gets no signals nothing is changed.
    """
    stop = Stop()
    handlers = {}
    try:
        before = signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    except ValueError:  # not the main thread
        yield stop
        return
    try:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                handlers[number] = signal.signal(number, stop.ask)
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
