"""Results as a file and as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .targets import Row
from .turns import Result
from .workloads import PAGE, size_text

_VERDICTS = {True: "met", False: "MISSED", None: "not measured"}


def save(
    path: Path,
    origin: dict[str, Any],
    results: Sequence[Result],
    rows: Sequence[Row],
    left_out: Sequence[str],
) -> None:
    table = [
        {
            "what": row.what,
            "target": row.target,
            "measured": row.measured,
            "unit": row.unit,
            "is_limit": row.is_limit,
            "is_met": row.is_met,
        }
        for row in rows
    ]
    whole = {
        **origin,
        "table": table,
        "left_out": list(left_out),
        "results": [result.as_dict() for result in results],
    }
    path.write_text(json.dumps(whole, indent=1) + "\n")


def restore(path: Path) -> list[Result]:
    return [Result.from_dict(result) for result in json.loads(path.read_text())["results"]]


def throughput(results: Sequence[Result]) -> str:
    """Every result of one workload and size: speed, and how that compares with reading and with the dict."""
    nr_pages = results[0].nr_pages
    peers = {
        name: next(
            (result.gb_per_s for result in results if (result.contender, result.threads) == (name, 1)), None
        )
        for name in ("read", "dict")
    }
    lines = [f"{results[0].workload}, {size_text(nr_pages)}, {nr_pages} pages"]
    lines.append(f"  {'':30} {'ms':>9} {'GB/s':>8} {'Mpages/s':>9} {'x read':>8} {'x dict':>8}")
    for result in results:
        ratios = (
            f"{'':8}" if speed is None else f"{result.gb_per_s / speed:8.2f}" for speed in peers.values()
        )
        lines.append(
            f"  {result.label:30} {result.median * 1000:9.2f} {result.gb_per_s:8.2f} "
            f"{result.nr_bytes / PAGE / result.median / 1e6:9.3f} {' '.join(ratios)}"
        )
    return "\n".join(lines)


def against_targets(rows: Sequence[Row]) -> str:
    lines = [f"{'what':55} {'target':>9}  {'measured':>9}  unit"]
    for row in rows:
        sign = "<=" if row.is_limit else ">="
        measured = "-" if row.measured is None else f"{row.measured:.2f}"
        lines.append(
            f"{row.what:55} {sign} {row.target:6g}  {measured:>9}  {row.unit:16} {_VERDICTS[row.is_met]}"
        )
    met, missed, unknown = (sum(row.is_met is verdict for row in rows) for verdict in _VERDICTS)
    lines.append(f"{met} met, {missed} missed, {unknown} not measured")
    return "\n".join(lines)
