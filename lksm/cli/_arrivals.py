"""Live processes that are read on a thread of their own while those before them are scanned."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING

from ..sources import SourceProcess
from ._interrupt import held

if TYPE_CHECKING:
    from ..sources.live import Reading

_LOOK_SECONDS = 0.1  # between two looks at Ctrl-C, should waiting not be ended by it


class Arrivals:
    """The processes of a `Reading`, as they come; in its block the thread reads, and after it there is none.

    is_over: all have been given out.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._arrived: SimpleQueue[SourceProcess | BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._read, name="lksm-arrivals", daemon=True)
        self.is_over = False

    def __enter__(self) -> Arrivals:
        try:
            with held():
                self._thread.start()
        except BaseException:  # untested: Ctrl-C, heard at the end of that; tests/cli/test_interrupts.py
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        with held():
            self._reading.abandon()
            if self._thread.is_alive():
                self._thread.join()

    def next(self, *, wait: bool) -> SourceProcess | None:
        """The next process; None if there is none yet, or no more. What reading raised is raised here."""
        while not self.is_over:
            try:
                arrived = self._arrived.get(wait, _LOOK_SECONDS)
            except Empty:
                if not wait:
                    return None
                continue
            if isinstance(arrived, BaseException):
                raise arrived
            self.is_over = arrived is None
            return arrived
        return None

    def _read(self) -> None:
        try:
            for process in self._reading:
                self._arrived.put(process)
            self._arrived.put(None)
        except BaseException as error:  # whoever waits for processes is told
            self._arrived.put(error)
