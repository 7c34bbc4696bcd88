"""Policies over a script: what is measured is what the page tables and the bytes say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import lksm
from lksm.simulation.events import Event, Exit, Freeze, Start, Thaw
from lksm.simulation.policies import POLICIES
from lksm.simulation.results import PolicyResult, Results, percentile
from lksm.simulation.run import merged_pages, run
from lksm.simulation.script import Script, write_script
from small_workload import small

MERGING = [name for name in POLICIES if name != "none"]


@pytest.fixture(scope="module")
def script() -> Script:
    return write_script(small(), 0)


def plain(result: PolicyResult, *left_out: str) -> dict[str, Any]:
    """All that has to be the same in the next run."""
    values = dataclasses.asdict(result)
    for name in ("cpu_ms", *left_out):
        del values[name]
    return values


@pytest.mark.parametrize("name", POLICIES)
def test_merged_is_what_the_bytes_say(script: Script, name: str) -> None:
    """At every sample the pages of one frame have equal bytes, and the saving is what the tables say."""
    saved: list[int] = []

    def look(engine: lksm.Engine) -> None:
        members: dict[int, set[bytes]] = {}
        nr_merged = 0
        for process in engine.processes:
            table = engine.page_table(process)
            for page in np.flatnonzero(table >= 0):
                members.setdefault(int(table[page]), set()).add(process.read(int(page)).tobytes())
                nr_merged += 1
        assert all(len(contents) == 1 for contents in members.values())
        assert engine.check() == []
        saved.append(nr_merged - len(members))

    result = run(script, POLICIES[name], observe=look)
    assert list(result.merged) == saved
    assert all(merged <= ideal for merged, ideal in zip(result.merged, script.ideal, strict=True))
    assert (sum(saved) > 0) == (name != "none")


@pytest.mark.parametrize("name", POLICIES)
def test_every_run_is_the_same(name: str) -> None:
    """Same workload and seed: the same figures but for CPU time, also from a script written anew."""
    first, second = (run(write_script(small(), 4), POLICIES[name]) for _ in range(2))
    assert plain(first) == plain(second)


@pytest.mark.parametrize("name", MERGING)
def test_the_engines_keys_decide_nothing(script: Script, name: str) -> None:
    """Another seed of the engine's keys moves only what is read to tell pages apart."""
    work = ("bytes_compared", "bytes_hashed")
    first, second = (plain(run(script, POLICIES[name], engine_seed=seed), *work) for seed in (1, 2))
    assert first == second


def test_no_policy_no_merges(script: Script) -> None:
    """Under `none` nothing is visited, merged or read; freezes come and go."""
    result = run(script, POLICIES["none"])
    assert set(result.merged) == {0}
    assert (result.pages_scanned, result.bytes_compared, result.bytes_hashed, result.scans) == (0, 0, 0, 0)
    assert result.freezes > 0 and result.freezes_merged == 0


@pytest.mark.parametrize("name", MERGING)
def test_work_is_counted(script: Script, name: str) -> None:
    """Whoever merges visits, compares and hashes; and what writes part is counted."""
    result = run(script, POLICIES[name])
    assert result.pages_scanned > 0 and result.scans >= 3
    assert result.merges > result.breaks > 0
    assert result.bytes_compared > 0 and result.bytes_hashed > 0


def test_only_ksm_skips(script: Script) -> None:
    """Smart scan is on by default in ksm and off in LKSM; the workload may say otherwise."""
    assert run(script, POLICIES["ksm"]).pages_skipped > 0
    assert run(script, POLICIES["periodic"]).pages_skipped == 0
    without = write_script(small(("[services]", "[engine]\nsmart_scan = 0\n[services]")), 0)
    assert run(without, POLICIES["ksm"]).pages_skipped == 0


@pytest.mark.parametrize("name", POLICIES)
def test_every_freeze_has_one_outcome(script: Script, name: str) -> None:
    """A freeze is merged, never merged, or still waiting at the end; times are not negative."""
    result = run(script, POLICIES[name])
    freezes = sum(len(pages) > 0 for pages in script.mergeable.values())
    assert result.freezes == freezes
    assert 0 <= freezes - result.freezes_merged - result.freezes_never <= 7
    assert (result.freeze_to_merged_ms is None) == (result.freezes_merged == 0)
    if result.freeze_to_merged_ms is not None and result.freeze_to_merged_p95_ms is not None:
        assert 0 <= result.freeze_to_merged_ms <= result.freeze_to_merged_p95_ms <= 30_000


# --- scripts made by hand: processes of the same ten pages, in a world without anything else


def by_hand(events: Sequence[Event]) -> Script:
    """The script of some events, sampled every 100 ms for 12 s; ten pages are to be merged at each freeze."""
    workload = small(("30_000", "12_000"), ("sample_ms = 500", "sample_ms = 100"))
    times = tuple(range(100, 12_001, 100))
    mergeable = {i: np.arange(10) for i, event in enumerate(events) if isinstance(event, Freeze)}
    return Script(workload, 0, tuple(events), times, (0,) * len(times), mergeable)


def twin(at: int, process: int) -> Start:
    return Start(at, process, f"p{process}", np.arange(1, 11))


@pytest.mark.parametrize("name", ["periodic", "partial"])
def test_a_freeze_is_served_after_the_grace_delay(name: str) -> None:
    """Two twins frozen after the initial rounds are merged in the batch that comes 100 ms later."""
    events = [twin(5000, 1), twin(5000, 2), Freeze(6000, 1), Freeze(6000, 2)]
    result = run(by_hand(events), POLICIES[name])
    assert result.merged[:60] == (0,) * 60
    assert set(result.merged[62:]) == {10}
    assert (result.freezes, result.freezes_merged, result.freezes_never) == (2, 2, 0)
    assert (result.freeze_to_merged_ms, result.freeze_to_merged_p95_ms) == (100, 100)
    assert (result.pages_scanned, result.merges) == (20, 10)


def test_full_does_not_wait() -> None:
    """A full scan is prepared at once."""
    events = [twin(5000, 1), twin(5000, 2), Freeze(6000, 1), Freeze(6000, 2)]
    result = run(by_hand(events), POLICIES["full"])
    assert result.freeze_to_merged_ms is not None and result.freeze_to_merged_ms <= 20


def test_a_request_that_finds_the_engine_busy_is_repeated() -> None:
    """A freeze while a request is being served is served too."""
    late = 6000 + 100 + 30  # the scan of the first two is over or in its nap
    events = [twin(5000, n) for n in (1, 2, 3)]
    events += [Freeze(6000, 1), Freeze(6000, 2), Freeze(6050, 3), twin(late, 4), Freeze(late, 4)]
    result = run(by_hand(events), POLICIES["partial"])
    assert (result.freezes, result.freezes_merged) == (4, 4)
    assert result.merged[-1] == 30


def test_thawed_or_gone_before_the_scan() -> None:
    """Who runs again or exits before its pages are merged is counted as never merged."""
    events = [twin(5000, n) for n in (1, 2, 3, 4)]
    events += [Freeze(6000, 1), Freeze(6000, 2), Thaw(6050, 1), Exit(6060, 2)]
    result = run(by_hand(events), POLICIES["partial"])
    assert (result.freezes, result.freezes_merged, result.freezes_never) == (2, 0, 2)
    assert result.freeze_to_merged_ms is None


def test_merged_at_the_freeze_already() -> None:
    """A process whose pages are merged when it is frozen waits no time."""
    events = [twin(5000, 1), twin(5000, 2), Freeze(6000, 1), Freeze(6000, 2), Thaw(8000, 1), Freeze(9000, 1)]
    result = run(by_hand(events), POLICIES["partial"])
    assert (result.freezes, result.freezes_merged) == (3, 3)
    assert percentile([0, 100, 100], 50) == result.freeze_to_merged_ms == 100


def test_merged_pages() -> None:
    """Pages in frames less the frames; private and absent pages do not count, zero-mapped ones all do."""
    assert merged_pages([]) == 0
    assert merged_pages([np.array([-1, -3, -1])]) == 0
    assert merged_pages([np.array([5, 5, -1]), np.array([5, 9, -2])]) == 4 - 2 + 1


def test_percentile() -> None:
    """The least value that so many percent do not exceed."""
    assert percentile([], 50) is None
    assert [percentile([4, 1, 3, 2], percent) for percent in (0, 25, 50, 51, 95, 100)] == [1, 1, 2, 3, 4, 4]


def test_ratios_need_something_to_compare_with() -> None:
    """Shares are of the ideal's and of ksm's sums, and none where there is nothing to divide by."""
    base = run(by_hand([]), POLICIES["none"])
    ksm = dataclasses.replace(base, name="ksm", merged=(2, 2), pages_scanned=50)
    partial = dataclasses.replace(base, name="partial", merged=(1, 2), pages_scanned=5)
    results = Results("", 256, 2, 0, 0, (1, 2), (2, 3), (ksm, partial))
    assert results.area_of_ideal(partial) == 0.6
    assert results.area_of_ksm(partial) == 0.75
    assert results.visits_of_ksm(partial) == 0.1
    alone = dataclasses.replace(results, ideal=(0, 0), policies=(partial,))
    assert alone.area_of_ideal(partial) is alone.area_of_ksm(partial) is alone.visits_of_ksm(partial) is None
