"""Has lksm become grossly slower? A few seconds, for .ci/run.

    python benchmarks/smoke.py [--record]

Every page set at 64 MiB, lksm and the dict of digests in turns: how many times faster than the dict is lksm,
the best of its turns to the best of the dict's? Fails if that is less than half of what
benchmarks/smoke.json records, and stays so when it is measured twice more. What else the machine does hits
both, and their best turns least of all. --record keeps the worst of three.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lksm.sources import synthetic
from suite import ours, peers, workloads
from suite.turns import take_turns

_RECORD = Path(__file__).with_name("smoke.json")
_SIZE = "64M"
_TURNS = 5
_TRIES = 3
_GROSS = 0.5  # of what was recorded

Ratios = dict[str, float]


def measure(name: str) -> Ratios:
    """How many times faster than the dict, by what lksm does."""
    workload = workloads.make(name, workloads.pages_in(_SIZE))
    contenders = [peers.by_dict(), ours.engine_of("immutable"), ours.engine_of("mutable")]
    fastest = {
        result.label: min(result.seconds) for result in take_turns(workload, contenders, _TURNS, _fail)
    }
    peer = fastest.pop("dict")
    return {f"{name}, {label}": round(peer / seconds, 2) for label, seconds in fastest.items()}


def recorded() -> Ratios:
    ratios: Ratios = json.loads(_RECORD.read_text())
    return ratios


def too_slow(before: Ratios, measured: Ratios) -> list[str]:
    """What is less than half of what was recorded. What was not recorded is never too slow."""
    return [what for what, ratio in measured.items() if ratio < _GROSS * before.get(what, 0)]


def best(one: Ratios, other: Ratios) -> Ratios:
    return {what: max(ratio, other[what]) for what, ratio in one.items()}


def worst(one: Ratios, other: Ratios) -> Ratios:
    return {what: min(ratio, other[what]) for what, ratio in one.items()}


def _fail(reason: str) -> None:
    raise SystemExit(f"the smoke benchmark cannot run: {reason}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--record", action="store_true", help=f"write {_RECORD.name} instead of comparing")
    options = parser.parse_args()
    known = {} if options.record else recorded()
    measured: Ratios = {}
    slow: list[str] = []
    for name in synthetic.names():
        ratios = measure(name)
        for _ in range(_TRIES - 1):
            if options.record:  # what can be relied on
                ratios = worst(ratios, measure(name))
            elif too_slow(known, ratios):
                ratios = best(ratios, measure(name))
        measured |= ratios
        slow += too_slow(known, ratios)
    print(f"{'times faster than the dict':35} {'recorded':>9} {'measured':>9}")
    for what, ratio in measured.items():
        before = f"{known[what]:9.2f}" if what in known else f"{'-':>9}"
        print(f"{what:35} {before} {ratio:9.2f}{'   GROSSLY SLOWER' if what in slow else ''}")
    if options.record:
        _RECORD.write_text(json.dumps(measured, indent=1) + "\n")
    if slow:
        print(f"less than {_GROSS:g} of what was recorded: {'; '.join(slow)}", file=sys.stderr)
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
