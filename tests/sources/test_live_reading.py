"""Live processes that are given out while the next ones are read, by any number of threads."""

from __future__ import annotations

import threading

import pytest

from live_child import (
    PAGE,
    Child,
    content,
    pages_at,
    present_pages,
)
from lksm.sources import _ahead, live

_FILLED = "m = private(40)\nfor page in range(20): fill(m, page, page)"


def test_processes_come_while_others_are_read() -> None:
    """A process is given out, whole, when the last one has not been read; all of them are the snapshot."""
    big = "m = private(40000)\nm.write(b'x' * len(m))"
    with Child(_FILLED) as small, Child(big) as large:
        address = small.ask("address(m)")
        read: list[int] = []
        reading = live.Reading([small.pid, large.pid], progress=lambda done, total: read.append(done))
        processes = iter(reading)
        first = next(processes)
        assert first.pid == small.pid
        assert pages_at(first, address, 40) == {page: content(page) for page in range(20)}
        assert read[-1] < 40000 * PAGE
        assert [process.pid for process in processes] == [large.pid]
        assert reading.snapshot().processes[0] is first


def test_an_abandoned_reading_ends_early() -> None:
    """Nothing more comes, no thread goes on, and what had come is the snapshot."""
    big = "m = private(40000)\nm.write(b'x' * len(m))"
    with Child(_FILLED) as small, Child(big) as large:
        reading = live.Reading([small.pid, large.pid])
        processes = iter(reading)
        first = next(processes)
        reading.abandon()
        assert list(processes) == []
        assert reading.snapshot().processes == (first,)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lksm-read")]


@pytest.mark.parametrize("number", [1, 4])
def test_any_number_of_readers_reads_the_same(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages, regions and what is left out do not depend on the number of threads."""
    with Child(_FILLED) as one, Child("m = private(20000)\nm.write(b'x' * len(m))\nfill(m, 7, 7)") as two:
        expected = live.snapshot([one.pid, two.pid])
        monkeypatch.setattr(_ahead, "nr_threads", lambda: number)
        found = live.snapshot([one.pid, two.pid])
        assert found.skipped == expected.skipped
        for process, other in zip(found.processes, expected.processes, strict=True):
            one_way, other_way = (
                {(address, page) for address, _, page in present_pages(taken)} for taken in (process, other)
            )
            assert one_way == other_way
            assert process.already_shared_pages == other.already_shared_pages
