"""Draws what table.py has measured.

    python benchmarks/plot.py results.json [picture.png]

Above: throughput, workload by workload, of lksm and its peers at one size. Below: what a page costs in a
first look at immutable memory, by how many there are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # a file, on machines without a screen too

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from suite import report, targets, workloads
from suite.turns import Result


def throughput(axes: Axes, results: Sequence[Result]) -> None:
    """Bars; the scale is logarithmic, for they are far apart."""
    near = _nearest(results)
    names = list(dict.fromkeys(result.workload for result in near))
    labels = list(dict.fromkeys(result.label for result in near))
    width = 0.85 / len(labels)
    for number, label in enumerate(labels):
        found = {result.workload: result.gb_per_s for result in near if result.label == label}
        places = [names.index(name) + (number - (len(labels) - 1) / 2) * width for name in found]
        axes.bar(places, list(found.values()), width, label=label, color=plt.get_cmap("tab20")(number % 20))
    axes.set_xticks(range(len(names)), names)
    axes.set_yscale("log")
    axes.set_ylabel("GB/s")
    axes.set_title(f"Throughput at {workloads.size_text(near[0].nr_pages)}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")


def growth(axes: Axes, results: Sequence[Result]) -> None:
    """Nanoseconds a page; level lines are what is wanted."""
    for name in targets.SETS:
        found = [
            result
            for result in results
            if (result.workload, result.label) == (name, "lksm immutable cold") and result.seconds
        ]
        found.sort(key=lambda result: result.nr_pages)
        if found:
            costs = [result.median / result.nr_pages * 1e9 for result in found]
            axes.plot([result.nr_pages for result in found], costs, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pages")
    axes.set_ylabel("ns a page")
    axes.set_title("First look at immutable memory, one thread")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")


def _nearest(results: Sequence[Result]) -> list[Result]:
    """Of every workload, the results at the size that is nearest to 1 GiB."""
    near = []
    for name in dict.fromkeys(result.workload for result in results):
        own = [result for result in results if result.workload == name]
        size = min({result.nr_pages for result in own}, key=lambda size: abs(size - targets.BASE_PAGES))
        near += [result for result in own if result.nr_pages == size]
    return near


def draw(results: Sequence[Result], picture: Path) -> None:
    figure, (above, below) = plt.subplots(2, 1, figsize=(12, 9), layout="constrained")
    throughput(above, results)
    growth(below, results)
    figure.savefig(picture, dpi=120)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, metavar="RESULTS", help="what table.py --json has written")
    parser.add_argument("picture", type=Path, nargs="?", metavar="PICTURE", help="default: the same, as .png")
    options = parser.parse_args()
    picture = options.picture or options.results.with_suffix(".png")
    draw(report.restore(options.results), picture)
    print(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
