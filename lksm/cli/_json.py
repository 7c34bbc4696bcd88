"""Results as one JSON object, for programs.

Keys are a contract. Numbers of bytes and pages are exact integers; digests and addresses need up to 64 bits,
more than many readers keep in a number, so they are text in hexadecimal.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from .. import __version__
from ._output import valid_text
from ._results import Groups, Results

_GROUP = (
    '{"pages": %d, "processes": %d, "digest": "%016x", "zero": %s, '
    '"first": {"process": %d, "address": "%#x"}}'
)


def as_json(results: Results) -> str:
    """One object on one line of ASCII, with its newline."""
    values = {
        "version": __version__,
        "page_size": results.page_size,
        "elapsed_ms": results.elapsed_ms,
        "scanned_bytes": results.scanned_bytes,
        "saved_bytes": results.saved_bytes,
        "already_shared_bytes": results.already_shared_bytes,
        "profit_bytes": results.profit_bytes,
        "counters": dataclasses.asdict(results.counters),
        "processes": _records(results.processes),
        "groups": results.groups,
        "skipped": _records(results.skipped),
        "gone": _records(results.gone),
        "refused": _records(results.refused),
    }
    texts = (
        _groups(value) if isinstance(value, Groups) else json.dumps(value, check_circular=False)
        for value in values.values()
    )
    return "{" + ", ".join(f'"{key}": {text}' for key, text in zip(values, texts, strict=True)) + "}\n"


def _groups(groups: Groups) -> str:
    """An array of objects. All fields are numbers, so a template will do; `json` takes five times as long."""
    pages, processes, digests, zero, first, addresses = groups.columns
    words = ["true" if is_zero else "false" for is_zero in zero]
    rows = zip(pages, processes, digests, words, first, addresses, strict=True)
    return "[" + ", ".join([_GROUP % row for row in rows]) + "]"


def _records(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Dataclasses of plain values as dictionaries, in order of their fields."""
    return [
        {name: valid_text(value) if isinstance(value, str) else value for name, value in vars(row).items()}
        for row in rows
    ]
