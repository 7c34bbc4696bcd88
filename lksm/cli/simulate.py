"""`lksm simulate`: what merge policies save of an app workload, and what they cost, on a virtual clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..simulation.events import Start
from ..simulation.policies import POLICIES
from ..simulation.results import Results
from ..simulation.run import run as run_policy
from ..simulation.script import write_script
from ..simulation.workload import SHIPPED, load
from ._options import Parser, count
from ._output import emit
from ._plot import check_plot, plot
from ._progress import Progress
from ._simulated import as_json, as_text

_DESCRIPTION = """\
Plays the lives of apps on a virtual clock, over real pages: they are launched, rewrite pages in the
foreground, are frozen in the background, return and exit. The same events go through every policy. Reported
are the pages each one saves over time, what it reads for that, and how soon a frozen app is merged."""
_EXAMPLES = """\
  lksm simulate                               the shipped workload "phone", all policies
  lksm simulate server --plot server.svg      200 containers, and a plot of merged pages over time
  lksm simulate phone --policy ksm --policy partial --json
  lksm simulate my.toml --seed 7              your own workload; docs/simulation.md says what it may hold
"""


def run(arguments: Sequence[str]) -> int:
    """Simulate and report; returns the exit status."""
    options = _parser().parse_intermixed_args(arguments)
    if options.plot is not None:
        check_plot(options.plot)
    results = _simulate(options.workload, options.policies or list(POLICIES), options.seed)
    emit(as_json(results) if options.json else as_text(results))
    if options.plot is not None:
        plot(results, options.plot)
    return 0


def _simulate(name: str, policies: Sequence[str], seed: int) -> Results:
    workload = load(name)
    with Progress() as progress, progress:
        report = progress.part("writing the script")
        script = write_script(workload, seed)
        if report is not None:
            report(1, 1)  # untested: a terminal
        outcomes = tuple(
            run_policy(script, POLICIES[policy], progress=progress.part(policy))
            for policy in dict.fromkeys(policies)
        )
    return Results(
        title=workload.title,
        page_size=workload.page_size,
        duration_ms=workload.duration_ms,
        seed=seed,
        nr_processes=sum(isinstance(event, Start) for event in script.events),
        sample_times=script.sample_times,
        ideal=script.ideal,
        policies=outcomes,
    )


def _parser() -> Parser:
    parser = Parser("lksm simulate", _DESCRIPTION, _EXAMPLES)
    parser.add_argument(
        "workload",
        nargs="?",
        default="phone",
        metavar="WORKLOAD",
        help=f"{', '.join(SHIPPED)} (default phone), or the path of a TOML file",
    )
    parser.add_argument(
        "--policy",
        choices=tuple(POLICIES),
        action="append",
        dest="policies",
        help="only this policy; may be given again: "
        + "; ".join(f"{name}: {policy.summary}" for name, policy in POLICIES.items()),
    )
    parser.add_argument(
        "--seed", type=count, default=0, metavar="N", help="another course of events (default 0)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with exact numbers")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw merged pages over time to a .png or .svg file (needs matplotlib: lksm[plot])",
    )
    return parser
