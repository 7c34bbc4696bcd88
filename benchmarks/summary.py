"""Prints what table.py has measured as the tables of README and of benchmarks/README.md.

    python benchmarks/summary.py results.json

Throughput of everybody at the size that is nearest to 1 GiB, and every target beside what was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from suite import report, targets
from suite.turns import Result

COLUMNS = {
    "reading it": ("read", "cold", "", 1),
    "by two threads": ("read", "cold", "", 2),
    "`dict`": ("dict", "cold", "", 1),
    "kernel's KSM": ("kernel", "cold", "", 1),
    "**first look**": ("lksm", "cold", "immutable", 1),
    "**by two threads**": ("lksm", "cold", "immutable", 2),
    "**mutable**": ("lksm", "cold", "mutable", 1),
    "**once more**": ("lksm", "rescan", "immutable", 1),
}
VERDICTS = {True: "met", False: "**missed**", None: "not measured"}


def throughput(results: Sequence[Result]) -> list[str]:
    """GB/s, a row a workload."""
    names = list(dict.fromkeys(result.workload for result in results))
    lines = [f"| GB/s | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name in names:
        own = [result for result in results if result.workload == name]
        size = min({result.nr_pages for result in own}, key=lambda size: abs(size - targets.BASE_PAGES))
        cells = []
        for key in COLUMNS.values():
            found = [
                result.gb_per_s
                for result in own
                if result.nr_pages == size
                and (result.contender, result.phase, result.memory, result.threads) == key
            ]
            cells.append(f"{found[0]:.3g}" if found else "")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def against_targets(rows: Sequence[dict[str, object]]) -> list[str]:
    """A row a target."""
    lines = ["| what | target | measured | |", "|---|---|---|---|"]
    for row in rows:
        sign = "≤" if row["is_limit"] else "≥"
        measured = "" if row["measured"] is None else f"{row['measured']:.2f}"
        verdict = VERDICTS[row["is_met"]]  # type: ignore[index]
        lines.append(f"| {row['what']} | {sign} {row['target']:g} {row['unit']} | {measured} | {verdict} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, metavar="RESULTS", help="what table.py --json has written")
    options = parser.parse_args()
    whole = json.loads(options.results.read_text())
    print(f"{whole['cpu']}, {whole['cores']} cores, Linux {whole['kernel']}, commit {whole['commit'][:7]}")
    print("\n".join(throughput(report.restore(options.results))), end="\n\n")
    print("\n".join(against_targets(whole["table"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
