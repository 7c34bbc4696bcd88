"""Processes that are read on a thread of their own arrive one by one, however reading goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from helpers import pages
from lksm.cli._arrivals import _LOOK_SECONDS, Arrivals
from lksm.errors import SourceError
from lksm.memory import Region
from lksm.sources import SourceProcess
from lksm.sources.live import Reading

_PROCESSES = [SourceProcess(name, name, None, (Region(0, pages("a b")),)) for name in ("first", "second")]


class _Reads:
    """Two processes, after `seconds` each, and then the failure if there is one."""

    def __init__(self, *, seconds: float = 0, failure: Exception | None = None) -> None:
        self._seconds, self._failure = seconds, failure
        self._is_abandoned = threading.Event()

    def __iter__(self) -> Iterator[SourceProcess]:
        for process in _PROCESSES:
            self._is_abandoned.wait(self._seconds)
            yield process
        if self._failure is not None:
            raise self._failure

    def abandon(self) -> None:
        self._is_abandoned.set()


def _arrivals(reads: _Reads) -> Arrivals:
    return Arrivals(cast("Reading", reads))


def test_all_arrive() -> None:
    """Who waits gets one after the other, however long it takes, and then none for ever."""
    with _arrivals(_Reads(seconds=2.5 * _LOOK_SECONDS)) as arrivals:
        assert arrivals.next(wait=False) is None
        assert not arrivals.is_over
        assert [arrivals.next(wait=True) for _ in range(4)] == [*_PROCESSES, None, None]
        assert arrivals.is_over
        assert arrivals.next(wait=False) is None


def test_failures_arrive() -> None:
    """What reading raises is raised where the next process is asked for."""
    with _arrivals(_Reads(failure=SourceError("is broken"))) as arrivals:
        assert [arrivals.next(wait=True) for _ in range(2)] == _PROCESSES
        with pytest.raises(SourceError, match="is broken"):
            arrivals.next(wait=True)


def test_nobody_wants_the_rest() -> None:
    """At the end of the block a reading that is under way is told, and waited for."""
    nr_threads, began = threading.active_count(), time.monotonic()
    with _arrivals(_Reads(seconds=600)):
        assert threading.active_count() == nr_threads + 1
    assert threading.active_count() == nr_threads
    assert time.monotonic() - began < 60
