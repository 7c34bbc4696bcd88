"""Merged pages over time as a picture. matplotlib is imported only when a plot is asked for."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from ..simulation.results import Results
from ._options import UsageError
from ._output import printable

_FORMATS = (".png", ".svg")
_COLORS = {"ksm": "C3", "periodic": "C0", "partial": "C2", "full": "C1", "none": "C7"}


def check_plot(path: Path) -> None:
    """Says now what would stop `plot` after all the work is done."""
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"{str(path)!r} is no plot file, expected one that ends in {' or '.join(_FORMATS)}")
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed: pip install 'lksm[plot]'")
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {str(path.parent)!r} for the plot")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{str(path)!r} cannot be written")


def plot(results: Results, path: Path) -> None:
    """Draw to a PNG or SVG file, by its suffix; the same results give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mib = results.page_size / 2**20
    seconds = [time / 1000 for time in results.sample_times]
    with matplotlib.rc_context({"svg.hashsalt": "lksm", "svg.fonttype": "none", "path.simplify": True}):
        figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        ideal = [pages * mib for pages in results.ideal]
        axes.fill_between(seconds, ideal, color="0.88", linewidth=0, label="ideal")
        for policy in results.policies:
            saved = [pages * mib for pages in policy.merged]
            share = results.area_of_ideal(policy)
            label = policy.name if share is None else f"{policy.name}: {share:.1%} of ideal"
            axes.plot(seconds, saved, color=_COLORS.get(policy.name), linewidth=1, label=label)
        axes.set_title(printable(f"{results.title} (seed {results.seed})"), parse_math=False)
        axes.set(xlabel="virtual seconds", ylabel="merged pages, MiB saved")
        axes.margins(x=0)
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right")
        is_svg = path.suffix.lower() == ".svg"
        figure.savefig(path, metadata={"Date": None} if is_svg else {"Software": None})
