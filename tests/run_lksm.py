"""Running the command line: in this process, or as a program of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from lksm.cli import main

PROGRAM = [sys.executable, "-P", "-c", "import sys; from lksm.cli import main; sys.exit(main())"]

KEYS = [
    "version", "page_size", "elapsed_ms", "scanned_bytes", "saved_bytes", "already_shared_bytes",
    "profit_bytes", "counters", "processes", "groups", "skipped", "gone", "refused",
]  # fmt: skip

WITHOUT_SANITIZER = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="what the kernel's KSM is fed with is compared without a sanitizer in it",
)

NOT_OURS_UNDER_SANITIZER = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="signals, core dumps, files and terabytes of address space are the sanitizer's own there",
)


class Lksm:
    """`lksm ...` in this process; `status`, `out` and `err` are those of the last run."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self.status = 0
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> str:
        """Run it and return what it wrote to standard output."""
        self._capture.readouterr()
        self.status = main([str(argument) for argument in arguments])
        self.out, self.err = self._capture.readouterr()
        assert "Traceback" not in self.err
        return self.out

    def scan(self, *arguments: object) -> dict[str, Any]:
        """`lksm scan --json --top 0 ...` as an object; its sums are checked."""
        document: dict[str, Any] = json.loads(self("scan", "--json", "--top", 0, *arguments))
        check_sums(document)
        return document


def check_sums(document: dict[str, Any]) -> None:
    """What must hold in every report that lists all groups, whatever was scanned."""
    size, processes, counters = document["page_size"], document["processes"], document["counters"]
    assert list(document) == KEYS
    assert sum(row["saved_bytes"] for row in processes) == document["saved_bytes"]
    assert document["saved_bytes"] == counters["pages_sharing"] * size
    assert document["profit_bytes"] == counters["general_profit"]
    merged = counters["pages_shared"] + counters["pages_sharing"]
    assert sum(row["merged"] for row in processes) == merged
    if counters["scan_round"] == 1:  # later, a frame may be left with one page, which is no group
        assert sum(row["pages"] for row in document["groups"]) == merged
    assert sum(row["unshared"] for row in processes) == counters["pages_unshared"]
    if document["already_shared_bytes"] is not None:
        pages = sum(row["pages"] for row in processes)
        assert document["scanned_bytes"] + document["already_shared_bytes"] == pages * size


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """`lksm ...` as a program that Ctrl-C ends, also where our own caller ignores it."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdin=subprocess.DEVNULL, text=True, preexec_fn=_listen_to_interrupts,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
    )  # fmt: skip


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`lksm ...` as a program, run to its end."""
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _listen_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
