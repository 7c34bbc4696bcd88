"""Work done ahead of whoever takes its results: in order, not far ahead, and over when it is over."""

from __future__ import annotations

import threading
import time

import pytest

from lksm.sources import _ahead
from lksm.sources._ahead import ahead


@pytest.fixture(autouse=True, params=[1, 3])
def nr_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every test with one thread and with three."""
    number: int = request.param
    monkeypatch.setattr(_ahead, "nr_threads", lambda: number)
    return number


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lksm-read")]


def test_results_come_in_order() -> None:
    """Whichever job is done first, results come in the order of the jobs, each once."""

    def do(job: int) -> int:
        time.sleep(0.003 * (job % 3))
        return job * job

    assert list(ahead(do, range(40))) == [job * job for job in range(40)]
    assert list(ahead(do, [])) == []
    assert readers() == []


def test_it_is_not_far_ahead(nr_threads: int) -> None:
    """Of a result that has been given out, no more than two jobs for each thread are begun beyond."""
    begun: list[int] = []
    results = ahead(begun.append, range(1000))
    for number in range(5):
        next(results)
        time.sleep(0.02)
        assert number < len(begun) <= number + 1 + 2 * nr_threads
    results.close()  # type: ignore[attr-defined]
    assert len(begun) < 100
    assert readers() == []


def test_it_is_ahead() -> None:
    """The second job is begun, without being asked for, before the first result is taken."""
    second = threading.Event()

    def do(job: int) -> int:
        if job == 1:
            second.set()
        return job

    results = ahead(do, range(100))
    assert next(results) == 0
    assert second.wait(10)
    results.close()  # type: ignore[attr-defined]


def test_an_error_comes_in_its_place() -> None:
    """Results before it are given out, what was raised is raised, and no thread is left."""

    def do(job: int) -> int:
        if job == 7:
            raise OSError("seven")
        return job

    results = ahead(do, range(1000))
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(OSError, match="seven"):
        next(results)
    assert readers() == []
