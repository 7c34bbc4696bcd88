"""A comparison as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence

from .. import __version__
from ._contest import Outcome, Workload
from ._output import human_bytes, printable, valid_text
from ._table import Column, table

_COUNTERS = ("pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")

Comparison = tuple[Workload, Sequence[Outcome]]


def as_text(workload: Workload, outcomes: Sequence[Outcome]) -> str:
    """One workload: the counters, which are the same for all, and what each of them took."""
    nr_bytes = workload.nr_pages * workload.page_size
    head = (
        f"{printable(workload.name)}: {workload.nr_pages} pages of {workload.page_size} bytes, "
        f"{human_bytes(nr_bytes)}, in {workload.nr_processes} "
        f"{'process' if workload.nr_processes == 1 else 'processes'}\n"
    )
    titles = ("shared", "sharing", "unshared", "volatile", "passes")
    columns = [
        Column(""),
        *(Column(title, True) for title in titles),
        *(Column(title, True) for title in ("time", "CPU", "rate", "times faster")),
        *(Column(title, True) for title in ("saved", "given back", "bookkeeping", "copies")),
    ]
    kernel = outcomes[0]
    rows = [
        [
            outcome.name,
            *(outcome.counters[name] for name in _COUNTERS),
            outcome.passes,
            f"{outcome.wall_ms:.1f} ms",
            f"{outcome.cpu_ms:.1f} ms",
            f"{human_bytes(int(nr_bytes / (outcome.wall_ms or 1e-3) * 1000))}/s",
            f"{kernel.wall_ms / (outcome.wall_ms or 1e-3):.1f}" if outcome is not kernel else "",
            human_bytes(outcome.saved_bytes),
            "-" if outcome.returned_bytes is None else human_bytes(outcome.returned_bytes),
            human_bytes(outcome.bookkeeping_bytes),
            human_bytes(outcome.frame_bytes),
        ]
        for outcome in outcomes
    ]
    return head + table(columns, rows)


def as_json(comparisons: Sequence[Comparison], *, max_page_sharing: int, repeat: int) -> str:
    """One object on one line."""
    document = {
        "version": __version__,
        "kernel": platform.release(),
        "max_page_sharing": max_page_sharing,
        "repeat": repeat,
        "workloads": [
            {
                "name": valid_text(workload.name),
                "page_size": workload.page_size,
                "pages": workload.nr_pages,
                "processes": workload.nr_processes,
                "results": [dataclasses.asdict(outcome) for outcome in outcomes],
            }
            for workload, outcomes in comparisons
        ],
    }
    return json.dumps(document) + "\n"
