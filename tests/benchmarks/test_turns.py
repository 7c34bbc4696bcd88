"""Contenders take turns, and what they do is asserted."""

from __future__ import annotations

import pytest

from suite import ours, peers, workloads
from suite.turns import Contender, Unavailable, Work, Works, take_turns


def _workload() -> workloads.Workload:
    return workloads.make("half", 512)


def test_everybody_works_as_often() -> None:
    """Each contender has as many times as there were turns, in the order they were named."""
    done: list[str] = []

    def contender(name: str) -> Contender:
        def run(workload: workloads.Workload) -> Works:
            yield Work(name, "cold", lambda: done.append(name))

        return Contender(name, run)

    results = take_turns(_workload(), [contender(name) for name in "abc"], 4, pytest.fail)
    assert [(result.contender, len(result.seconds)) for result in results] == [("a", 4), ("b", 4), ("c", 4)]
    assert len({tuple(done[turn : turn + 3]) for turn in range(0, 12, 3)}) > 1  # in different orders
    assert all(sorted(done[turn : turn + 3]) == ["a", "b", "c"] for turn in range(0, 12, 3))


def test_who_cannot_work_is_left_out_once() -> None:
    """The reason is told once, and the others go on."""

    def run(workload: workloads.Workload) -> Works:
        raise Unavailable("no such thing here")
        yield

    told: list[str] = []
    results = take_turns(_workload(), [Contender("absent", run), peers.by_dict()], 3, told.append)
    assert [result.contender for result in results] == ["dict"]
    assert told == ["absent, half at 2 MiB: no such thing here"]


def test_who_needs_too_much_memory_is_left_out() -> None:
    """What a contender needs is looked at before it works."""
    told: list[str] = []
    large = Contender("large", lambda workload: pytest.fail("worked"), lambda workload: 2.0**60)
    assert take_turns(_workload(), [large], 3, told.append) == []
    assert len(told) == 1 and told[0].startswith("large, half at 2 MiB needs 1073741824.0 GiB")


@pytest.mark.parametrize("name", ["unique", "half", "pairs", "zero", "lastbytes", "sparse"])
def test_all_agree_on_every_page_set(name: str) -> None:
    """lksm over memory of each kind and the peers find what is expected, and the pages stay as they were."""
    workload = workloads.make(name, 512)
    before = workload.pages.copy()
    contenders = [peers.read(1), peers.read(2), peers.memcmp(), peers.by_dict(), peers.np_unique()]
    contenders += [ours.engine_of(memory) for memory in ours.kinds_of_memory()]
    if ours.has_threads():
        contenders += [ours.engine_of(memory, 2) for memory in ours.kinds_of_memory()]
    results = take_turns(workload, contenders, 1, pytest.fail)
    assert {"read", "memcmp", "dict", "np.unique", "lksm"} == {result.contender for result in results}
    phases = {(result.memory, result.phase) for result in results if result.contender == "lksm"}
    assert {("immutable", "cold"), ("immutable", "rescan"), ("mutable", "changed")} <= phases
    assert (workload.pages == before).all()


@pytest.mark.parametrize("contender", [peers.by_dict(), peers.np_unique(), ours.engine_of("mutable")])
def test_a_wrong_result_is_an_error(contender: Contender) -> None:
    """No time is taken of work that merges something else than what there is to be merged."""
    workload = _workload()
    workload.pages[0] = workload.pages[2]
    with pytest.raises(AssertionError):
        take_turns(workload, [contender], 1, pytest.fail)
