"""`lksm compare`: the same pages through the running kernel's KSM and through lksm, side by side."""

from __future__ import annotations

import argparse
import mmap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import psutil

from ..errors import SourceError
from ..kernel import Ksm, driving, expect_drivable
from ..memory import Region
from ..sources import SourceProcess, load, synthetic
from ._compared import Comparison, as_json, as_text
from ._contest import Areas, Outcome, Workload, disagreement, median, run_engine, run_kernel, split
from ._options import Parser, positive, sharing_limit
from ._output import complain, emit
from ._private import keep_out_of_dumps
from ._stop import Stop, stop_on_signals

_PAGES = 32768
_PROCESSES = 2
_PATIENCE_SECONDS = 60.0
_MOST_COPIES = 32  # of a page in any set, but of zero pages

_DESCRIPTION = """\
Has the running kernel's KSM merge some pages, and then lksm the same pages, under policy "ksm" and under
policy "lksm", and prints counters, time, CPU time and memory side by side. The merge results must be equal.

Measured are passes over memory that has been filled and offered before, from the first look until a pass
changes nothing, which is not counted. KSM runs with sleep 0, pass by pass, in child processes with private
memory; its CPU time is ksmd's. Under "lksm" the processes are frozen, as when LKSM scans them in earnest, so
that it needs no second look. smart_scan is off in all three.

Needs root. Every knob of KSM is put back, also after Ctrl-C or SIGTERM; it must not be in use."""
_EXAMPLES = """\
  lksm compare                                half of all pages have copies, 128 MiB in two processes
  lksm compare unique pairs lastbytes --pages 131072 --repeat 5
  lksm compare core.1234 core.1235            the pages of dumps, a process each
  lksm compare --json zero --max-page-sharing 1000000

exit status:
  0  done        1  done, but merge results differ        2  bad usage, no root, no KSM, or KSM is in use
"""


def run(arguments: Sequence[str]) -> int:
    """Compare and report; returns the exit status."""
    options = _parser().parse_intermixed_args(arguments)
    names = list(dict.fromkeys(options.workloads)) or ["half"]
    expect_drivable()
    keep_out_of_dumps()
    workloads = _workloads(names, options)
    for workload in workloads:
        _check_room(workload)
    comparisons: list[Comparison] = []
    is_different = False
    with stop_on_signals(-1) as stop:

        def interrupt() -> None:
            _check(stop)

        knobs = {"smart_scan": 0, "max_page_sharing": options.max_page_sharing}
        with driving(knobs, patience_seconds=_PATIENCE_SECONDS, interrupt=interrupt) as ksm:
            for workload in workloads:
                try:
                    outcomes = _contest(workload, ksm, knobs, options.repeat, stop)
                finally:  # the kernel, which reads for itself, calls pages that are gone a bad address
                    workload.expect_whole()
                different = disagreement(workload, outcomes)
                if different is not None:
                    is_different = True
                    complain(different)
                comparisons.append((workload, outcomes))
                if not options.json:
                    emit(("\n" if len(comparisons) > 1 else "") + as_text(workload, outcomes))
    if options.json:
        emit(as_json(comparisons, max_page_sharing=options.max_page_sharing, repeat=options.repeat))
    return int(is_different)


def _check(stop: Stop) -> None:
    if stop.is_asked:
        raise KeyboardInterrupt


def _contest(workload: Workload, ksm: Ksm, knobs: dict[str, int], repeat: int, stop: Stop) -> list[Outcome]:
    """All three in turns, as often as asked for. The pages are there meanwhile only."""
    _check_room(workload)
    processes, page_size = workload.make(), workload.page_size
    kernel: list[Outcome] = []
    upstream: list[Outcome] = []
    ours: list[Outcome] = []
    for _ in range(repeat):
        ksm.reset(knobs)
        kernel.append(run_kernel(processes, page_size, ksm, lambda: _check(stop)))
        limit = knobs["max_page_sharing"]
        upstream.append(run_engine(processes, page_size, "ksm", limit, lambda: _check(stop)))
        ours.append(run_engine(processes, page_size, "lksm", limit, lambda: _check(stop)))
    return [median(kernel), median(upstream), median(ours)]


def _workloads(names: Sequence[str], options: argparse.Namespace) -> list[Workload]:
    """Each page set is a workload; all files together, which are opened here, are one more."""
    sets = [name for name in names if name in synthetic.names()]
    files = [name for name in names if name not in sets]
    workloads = [_of_set(name, options) for name in sets]
    if files:
        workloads.append(_of_files(files))
    return workloads


def _of_set(name: str, options: argparse.Namespace) -> Workload:
    nr_processes = min(options.processes, options.pages)
    return Workload(
        name=name,
        nr_pages=options.pages,
        nr_processes=nr_processes,
        page_size=mmap.PAGESIZE,
        make=lambda: split(synthetic.make(name, options.pages, page_size=mmap.PAGESIZE), nr_processes),
        expected=_expected(name, options.pages, options.max_page_sharing),
    )


def _of_files(files: Sequence[str]) -> Workload:
    found = [process for file in files for process in load(file, page_size=mmap.PAGESIZE).processes]
    return Workload(
        name=", ".join(process.name for process in found),
        nr_pages=sum(_nr_pages(region) for process in found for region in process.regions),
        nr_processes=len(found),
        page_size=mmap.PAGESIZE,
        make=lambda: [_areas(process) for process in found],
        sources=found,
    )


def _expected(name: str, nr_pages: int, max_page_sharing: int) -> tuple[int, int, int] | None:
    """What merging a set gives; None if the limit has a say in it. But for zero pages, copies are few."""
    most_copies = nr_pages if name == "zero" else _MOST_COPIES
    return synthetic.expected(name, nr_pages) if most_copies <= max_page_sharing else None


def _areas(process: SourceProcess) -> Areas:
    """The pages that are present, each physical page once."""
    return [
        region.array if region.rows is None else region.array[_present(region.rows)]
        for region in process.regions
    ]


def _nr_pages(region: Region) -> int:
    """How many that are."""
    return len(region.array if region.rows is None else _present(region.rows))


def _present(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.unique(rows[rows >= 0])  # untested: what is compared are files, and none of them has rows


def _check_room(workload: Workload) -> None:
    """The kernel's processes hold copies, and what lksm reads stays: refused before anything swaps."""
    needed, available = 2 * workload.nr_pages * workload.page_size, psutil.virtual_memory().available
    if needed > available:
        raise SourceError(
            f"{workload.nr_pages} pages need {needed} bytes, for them and for the kernel's copies; "
            f"{available} are available"
        )


def _parser() -> Parser:
    parser = Parser("lksm compare", _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="PAGES",
        help=f"page sets ({', '.join(synthetic.names())}; default half), or files: dumps and images",
    )
    parser.add_argument(
        "--pages", type=positive, default=_PAGES, metavar="N", help=f"pages of a set (default {_PAGES})"
    )
    parser.add_argument(
        "--processes",
        type=positive,
        default=_PROCESSES,
        metavar="N",
        help=f"processes that a set is dealt out to (default {_PROCESSES})",
    )
    parser.add_argument(
        "--max-page-sharing",
        type=sharing_limit,
        default=256,
        metavar="N",
        help="pages that one frame may stand for, in all three (default 256, as in the kernel)",
    )
    parser.add_argument(
        "--repeat", type=positive, default=1, metavar="N", help="run N times in turns; times are medians"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with exact numbers")
    return parser
