"""The plot of the benchmarks' results."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

import plot
from suite import ours, peers, workloads
from suite.turns import take_turns


def test_what_was_measured_can_be_drawn(tmp_path: Path) -> None:
    """One bar for each contender and workload, and one line for each page set that has two sizes."""
    contenders = [peers.by_dict(), ours.engine_of("immutable")]
    made = [workloads.make(name, nr_pages) for name in ("unique", "pairs") for nr_pages in (64, 128)]
    results = [result for workload in made for result in take_turns(workload, contenders, 1, print)]
    axes = plt.figure().add_subplot()
    plot.throughput(axes, results)
    assert len(axes.patches) == 2 * 3
    axes = plt.figure().add_subplot()
    plot.growth(axes, results)
    assert [list(line.get_xdata()) for line in axes.lines] == [[64, 128], [64, 128]]
    plt.close("all")
    plot.draw(results, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
