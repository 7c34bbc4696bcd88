"""lksm and its peers on the same bytes, as pytest-benchmark shows it: workload by workload.

    pytest benchmarks/bench_workloads.py [--sizes 256M,1G] [-k "unique and not kernel"]

Each one asserts the merge result in every round. They work one after the other here; benchmarks/table.py has
them take turns, which is fairer where a machine is not quiet.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from suite import ours, peers, workloads
from suite.turns import Contender, Unavailable, Work

PEERS = {
    "read": peers.read(1),
    "memcmp": peers.memcmp(),
    "dict": peers.by_dict(),
    "np.unique": peers.np_unique(),
    "polars": peers.polars(),
    "kernel": peers.kernel(),
}
THREADS = (1, 2) if ours.has_threads() else (1,)
CASES = [
    (memory, threads, phase)
    for memory in ours.kinds_of_memory()
    for threads in THREADS
    for phase in ("cold", "rescan", "changed")
    if (memory, phase) != ("immutable", "changed")
]
ROUNDS = 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "workload" in metafunc.fixturenames:
        sizes = metafunc.config.getoption("--sizes").split(",")
        cases = [(name, size) for size in sizes for name in workloads.NAMES]
        metafunc.parametrize("workload", cases, indirect=True, ids="-".join, scope="module")


@pytest.fixture(scope="module")
def workload(request: pytest.FixtureRequest) -> Iterator[workloads.Workload]:
    name, size = request.param
    nr_pages = workloads.pages_in(size)
    try:
        if name == "dumps":
            with workloads.real(nr_pages) as real:
                yield real
        else:
            yield workloads.make(name, nr_pages)
    except workloads.NoRoom as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("peer", PEERS)
def test_peer(benchmark: BenchmarkFixture, workload: workloads.Workload, peer: str) -> None:
    """A peer counts what merging gives, or is a bandwidth."""
    measure(benchmark, workload, PEERS[peer], "cold")


@pytest.mark.parametrize(("memory", "threads", "phase"), CASES)
def test_lksm(
    benchmark: BenchmarkFixture, workload: workloads.Workload, memory: str, threads: int, phase: str
) -> None:
    """Merges what there is to be merged, and after a change what is left of it."""
    measure(benchmark, workload, ours.engine_of(memory, threads), phase)


def measure(
    benchmark: BenchmarkFixture, workload: workloads.Workload, contender: Contender, phase: str
) -> None:
    """Only the work of that phase is timed: what comes before it is set-up, what comes after it teardown."""
    benchmark.group = f"{workload.name} {workloads.size_text(len(workload.pages))}"
    running: list[Generator[Work, None, None]] = []

    def setup() -> tuple[tuple[Work], dict[str, object]]:
        workloads.check_room(contender.needs(workload), contender.name)
        running.append(contender.run(workload))
        for work in running[-1]:
            if work.phase == phase:
                break
            work.do()
        return (work,), {}

    def teardown(work: Work) -> None:
        for following in running.pop():  # asserts what `work` has merged
            following.do()

    try:
        benchmark.pedantic(lambda work: work.do(), setup=setup, teardown=teardown, rounds=ROUNDS)  # type: ignore[no-untyped-call]
    except (Unavailable, workloads.NoRoom) as error:
        pytest.skip(str(error))
    finally:
        for unfinished in running:
            unfinished.close()
    assert benchmark.stats is not None
    median = benchmark.stats.stats.median
    benchmark.extra_info["gb_per_s"] = workload.pages.nbytes / median / 1e9
    benchmark.extra_info["pages_per_s"] = len(workload.pages) / median
