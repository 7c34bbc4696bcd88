"""Holds csrc/ and lksm/ to their reasons: what no test takes is named by a report, and the code says why.

    untested.py csrc REPORT     of `gcovr --json`, built without asserts: what fails one is no branch
    untested.py lksm REPORT     of `coverage json`, with branches

A line that did not run, or has a branch not taken, has a comment `untested: reason` close to it. In lksm/ the
reason may also be where the branch leads, and is one for the lines after it that do not run either. Exit
status 1 if a reason is missing, or too few lines of lksm/ run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LEAST_PERCENT = 97  # of the lines of lksm/

_Lines = Iterator[tuple[str, int, bool]]  # file, number from 1, has it a reason?


def _has_reason(text: list[str], number: int, nr_above: int) -> bool:
    """On the line, the next one, or so many above."""
    return any("untested: " in line for line in text[max(0, number - 1 - nr_above) : number + 1])


def _of_csrc(report: Mapping[str, Any]) -> _Lines:
    for file in report["files"]:
        text = Path(file["file"]).read_text().splitlines()
        for line in file["lines"]:
            if line["count"] == 0 or any(branch["count"] == 0 for branch in line["branches"]):
                yield file["file"], line["line_number"], _has_reason(text, line["line_number"], 3)


def _of_lksm(report: Mapping[str, Any]) -> _Lines:
    for name, file in report["files"].items():
        text = Path(name).read_text().splitlines()
        missing = set(file["missing_lines"])
        explained: set[int] = set()
        is_explained = False
        for number in sorted(missing.union(file["executed_lines"])):
            is_explained = (is_explained and number in missing) or _has_reason(text, number, 1)
            if is_explained:
                explained.add(number)
        for number in sorted(missing):
            yield name, number, number in explained
        for number, target in file["missing_branches"]:
            if number not in missing:
                yield name, number, number in explained or (target in missing and target in explained)


if __name__ == "__main__":
    room, report = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    found = sorted(set(_of_csrc(report) if room == "csrc" else _of_lksm(report)))
    without = [(name, number) for name, number, has_reason in found if not has_reason]
    for name, number in without:
        print(f"{name}:{number}: {Path(name).read_text().splitlines()[number - 1].strip()}")
    print(f"{room}: {len(found)} lines that no test takes in every way, {len(without)} without a reason")
    totals = report["totals"] if room == "lksm" else None
    if totals and 100 * totals["covered_lines"] < LEAST_PERCENT * totals["num_statements"]:
        print(f"lksm: fewer than {LEAST_PERCENT} % of lines run")
        sys.exit(1)
    sys.exit(bool(without))
