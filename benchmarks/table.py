"""The targets of speed and memory beside what this machine measures, and how fast everybody is.

    python benchmarks/table.py [WORKLOAD...] [--sizes 256M,1G,4G,16G] [--repeat 5] [--json FILE]

Everybody works on the same bytes, in turns, `--repeat` times; what counts are medians. Up to 1 GiB all take
part, up to 4 GiB the fast ones, beyond that lksm over immutable memory, reading, the dict, polars. What does
not fit in the memory that is available is left out, and the end of the output says so. Takes half an hour;
README.md of this directory says what the numbers mean and how to run quietly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path

from suite import machine, ours, peers, report, targets, workloads
from suite.turns import Contender, Result, take_turns

_MOST_FOR_ALL = workloads.pages_in("1G")  # the kernel and np.unique take their time
_MOST_MUTABLE = workloads.pages_in("4G")


def contenders(nr_pages: int) -> list[Contender]:
    """Who takes part at this size. What this version of lksm does not have is not among them."""
    everybody = [peers.read(1), peers.read(2), peers.by_dict(), peers.polars()]
    if nr_pages <= _MOST_MUTABLE:
        everybody.append(peers.memcmp())
    if nr_pages <= _MOST_FOR_ALL:
        everybody += [peers.np_unique(), peers.kernel()]
    kinds = ours.kinds_of_memory() if nr_pages <= _MOST_MUTABLE else ["immutable"]
    threads = (1, 2) if ours.has_threads() else (1,)
    return everybody + [ours.engine_of(kind, nr_threads) for kind in kinds for nr_threads in threads]


def measure(
    name: str, nr_pages: int, without: Collection[str], repeat: int, say: Callable[[str], None]
) -> list[Result]:
    """One workload at one size, which is gone when this returns."""
    present = [contender for contender in contenders(nr_pages) if contender.name not in without]
    try:
        source = workloads.real(nr_pages) if name == "dumps" else nullcontext(workloads.make(name, nr_pages))
        with source as workload:
            return take_turns(workload, present, repeat, say)
    except workloads.NoRoom as error:
        say(str(error))
        return []


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(workloads.NAMES))
    parser.add_argument("--sizes", default="256M,1G,4G,16G", help="default 256M,1G,4G,16G")
    parser.add_argument("--repeat", type=int, default=5, help="turns of everybody (default 5)")
    parser.add_argument("--without", default="", metavar="PEERS", help="leave these out: kernel,np.unique")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    unknown = set(options.workloads) - set(workloads.NAMES)
    if unknown:
        parser.error(f"no workload is called {', '.join(sorted(unknown))}")
    sizes = [workloads.pages_in(size) for size in options.sizes.split(",")]
    base_pages = min(sizes, key=lambda nr_pages: abs(nr_pages - targets.BASE_PAGES))

    origin = machine.origin()
    print(
        f"{origin['cpu']}, {origin['cores']} cores, load {origin['load'][0]:.1f}, commit {origin['commit']}"
    )
    left_out = ours.absent()

    def say(text: str) -> None:
        left_out.append(text)
        print(f"left out: {text}", flush=True)

    results: list[Result] = []
    for nr_pages in sizes:
        for name in options.workloads or workloads.NAMES:
            if name == "dumps" and nr_pages != base_pages:
                continue  # one size of them is enough
            found = measure(name, nr_pages, options.without.split(","), options.repeat, say)
            if found:
                print(report.throughput(found), flush=True)
            results += found
    rows = targets.rows(results, base_pages)
    print(
        f"\nTargets; ratios are taken at {workloads.size_text(base_pages)}, medians of {options.repeat} turns"
    )
    print(report.against_targets(rows))
    for text in left_out:
        print(f"left out: {text}")
    print("wrong input, failing allocations and the order of threads: the tests show these, not this table")
    if options.json:
        report.save(options.json, origin, results, rows, left_out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
