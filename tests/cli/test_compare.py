"""`lksm compare`: the kernel's KSM and lksm over the same pages."""

from __future__ import annotations

import json
import os
import signal
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

import lksm
from alone import alone
from cgroups import until
from helpers import pages
from lksm.cli import _contest
from lksm.kernel import Files, KsmUnavailable, driving
from lksm.kernel import driver as ksm_driver
from lksm.sources import synthetic
from run_lksm import WITHOUT_SANITIZER, Lksm, start

pytestmark = WITHOUT_SANITIZER

KEYS = ["version", "kernel", "max_page_sharing", "repeat", "workloads"]
WORKLOAD_KEYS = ["name", "page_size", "pages", "processes", "results"]
RESULT_KEYS = [
    "name", "counters", "passes", "wall_ms", "cpu_ms", "bookkeeping_bytes", "frame_bytes", "slab_bytes",
    "saved_bytes", "returned_bytes",
]  # fmt: skip


@pytest.fixture
def knobs() -> Iterator[dict[str, str]]:
    """The machine's knobs, which must be the same after the test. Skips where KSM cannot be driven."""
    with alone():
        try:
            with driving(patience_seconds=120):
                pass
        except KsmUnavailable as reason:
            pytest.skip(str(reason))
        before = Files().knobs()
        yield before
        assert Files().knobs() == before


def merged(result: dict[str, Any]) -> tuple[int, int, int]:
    counters = result["counters"]
    return counters["pages_shared"], counters["pages_sharing"], counters["pages_unshared"]


def compare(lksm_command: Lksm, *arguments: object) -> list[dict[str, Any]]:
    """The workloads of `lksm compare --json ...`; their form is checked."""
    document = json.loads(lksm_command("compare", "--json", *arguments))
    assert (lksm_command.status, lksm_command.err) == (0, "")
    assert list(document) == KEYS and document["version"] == lksm.__version__
    for workload in document["workloads"]:
        assert list(workload) == WORKLOAD_KEYS
        assert [result["name"] for result in workload["results"]] == ["kernel", "ksm", "lksm"]
        for result in workload["results"]:
            assert list(result) == RESULT_KEYS
            assert result["saved_bytes"] == result["counters"]["pages_sharing"] * 4096
            assert result["wall_ms"] > 0 and result["cpu_ms"] >= 0
    workloads: list[dict[str, Any]] = document["workloads"]
    return workloads


def test_every_page_set(lksm_command: Lksm, knobs: dict[str, str]) -> None:
    """All three merge every set as it is known to merge, in as many passes as the gate takes."""
    found = compare(lksm_command, *synthetic.names(), "--pages", 1001, "--max-page-sharing", 2000)
    assert [workload["name"] for workload in found] == list(synthetic.names())
    for workload in found:
        assert (workload["pages"], workload["processes"]) == (1001, 2)
        for result in workload["results"]:
            assert merged(result) == synthetic.expected(workload["name"], 1001)
        assert [result["passes"] for result in workload["results"]] == [2, 2, 1]


def test_the_limit(lksm_command: Lksm, knobs: dict[str, str]) -> None:
    """The kernel's limit holds unless another is asked for, and kernel and engine have the same frames."""
    for arguments, nr_frames in [((), 4), (("--max-page-sharing", 100), 10)]:
        (workload,) = compare(lksm_command, "zero", "--pages", 1000, *arguments)
        for result in workload["results"]:
            assert merged(result) == (nr_frames, 1000 - nr_frames, 0)


def test_what_the_kernel_gives_back(lksm_command: Lksm, knobs: dict[str, str]) -> None:
    """The children's memory shrinks by what the counters say; lksm gives nothing back."""
    (workload,) = compare(lksm_command, "pairs", "--pages", 4096, "--processes", 3, "--repeat", 3)
    assert workload["processes"] == 3
    kernel, upstream, ours = workload["results"]
    assert kernel["saved_bytes"] * 0.9 <= kernel["returned_bytes"] <= kernel["saved_bytes"] * 1.1
    assert upstream["returned_bytes"] is ours["returned_bytes"] is None
    assert upstream["frame_bytes"] == ours["frame_bytes"] >= 2048 * 4096
    assert kernel["bookkeeping_bytes"] == (4096 + 2048) * 64


def test_files(lksm_command: Lksm, knobs: dict[str, str], tmp_path: Path) -> None:
    """All files are one workload, a process each, after the page sets."""
    pages("a b c a").tofile(tmp_path / "one")
    pages("b d a").tofile(tmp_path / "two")
    first, second = compare(lksm_command, tmp_path / "one", "unique", tmp_path / "two", "--pages", 10)
    assert first["name"] == "unique"
    assert (second["name"], second["pages"], second["processes"]) == ("one, two", 7, 2)
    assert [merged(result) for result in second["results"]] == [(2, 3, 2)] * 3


def test_the_table(lksm_command: Lksm, knobs: dict[str, str]) -> None:
    """Text names the workload and has a line for each of the three."""
    lines = lksm_command("compare", "pairs", "zero", "--pages", 100, "--processes", 1).splitlines()
    assert (lksm_command.status, lksm_command.err) == (0, "")
    assert lines[0] == "pairs: 100 pages of 4096 bytes, 400.0 KiB, in 1 process"
    assert [line.split()[:5] for line in lines[2:5]] == [
        [name, "50", "50", "0", "0"] for name in ("kernel", "ksm", "lksm")
    ]
    assert lines[5] == "" and lines[6].startswith("zero: 100 pages")


def test_another_result_is_told(
    lksm_command: Lksm, knobs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one of them merges otherwise, that is a line on standard error, and status 1."""
    original = _contest.Engine.attach

    def attach(engine: lksm.Engine, memory: Any, **options: Any) -> lksm.Process:
        (area,) = memory
        area = area.copy()
        area[0, 0] ^= 1  # one byte of a page that has a twin
        return original(engine, area, **options)

    monkeypatch.setattr(_contest.Engine, "attach", attach)
    lksm_command("compare", "pairs", "--pages", 10, "--processes", 1)
    assert lksm_command.status == 1
    assert lksm_command.err == (
        "lksm: pairs: merge results differ (shared, sharing, unshared): "
        "kernel (5, 5, 0), ksm (4, 4, 2), lksm (4, 4, 2), expected (5, 5, 0)\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(knobs: dict[str, str], number: int) -> None:
    """Ctrl-C and SIGTERM end it soon, with every knob as it was, and nothing half written."""
    process = start("compare", "unique", "--pages", 20000, "--repeat", 100000)
    until(lambda: Files().knobs() != knobs)
    process.send_signal(number)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "lksm: interrupted\n")
    assert Files().knobs() == knobs


def test_one_page_set_at_a_time(
    lksm_command: Lksm, knobs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set is made when its turn comes, and gone before the next one is made."""
    make = synthetic.make
    made: list[weakref.ref[Any]] = []

    def noted(*arguments: Any, **options: Any) -> Any:
        assert all(ref() is None for ref in made)
        pages = make(*arguments, **options)
        made.append(weakref.ref(pages))
        return pages

    monkeypatch.setattr(synthetic, "make", noted)
    compare(lksm_command, "pairs", "unique", "half", "--pages", 100)
    assert len(made) == 3


def test_without_root_or_ksm(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is missing is one line, before any page is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(ksm_driver, "Files", lambda: Files(tmp_path))
    assert lksm_command("compare", "half", "--pages", 10**12) == ""
    assert (lksm_command.status, lksm_command.err) == (2, "lksm: only root may drive the kernel's KSM\n")
    monkeypatch.setattr(ksm_driver, "Files", lambda: Files(tmp_path / "none"))
    assert lksm_command("compare") == ""
    assert lksm_command.status == 2
    assert lksm_command.err == f"lksm: the running kernel has no KSM: there is no {tmp_path}/none\n"


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernel's KSM must not even be reserved, nor need it be there."""
    reserved: list[object] = []
    monkeypatch.setattr("lksm.cli.compare.expect_drivable", lambda: None)
    monkeypatch.setattr("lksm.cli.compare.driving", lambda *_, **__: reserved.append(_))
    yield
    assert reserved == []


def test_bad_usage(lksm_command: Lksm, untouched: None, tmp_path: Path) -> None:
    """Every mistake is one line and status 2, before anything is done."""
    (tmp_path / "empty").touch()
    (tmp_path / "core").write_bytes(b"\x7fELF" + bytes(5000))
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 1 << 20)
    for arguments, message in [
        ([tmp_path / "missing"], f"{tmp_path}/missing: No such file or directory"),
        (["uniqe"], "uniqe: No such file or directory"),
        (["unique", "half", "uniqe"], "uniqe: No such file or directory"),
        ([tmp_path], f"{tmp_path}: is a directory"),
        ([tmp_path / "empty"], f"{tmp_path}/empty: is empty"),
        ([tmp_path / "core"], f"{tmp_path}/core: "),
        ([tmp_path / "hole"], f"{tmp_path}/hole: is a hole"),
        (["unique", "--pages", "0"], "--pages"),
        (["unique", "--processes", "x"], "--processes"),
        (["zero", "--max-page-sharing", "1"], "--max-page-sharing"),
        (["zero", "--pages", 10**10], "10000000000 pages need 81920000000000 bytes"),
    ]:
        assert lksm_command("compare", *arguments) == ""
        assert lksm_command.status == 2
        assert message in lksm_command.err and lksm_command.err.count("\n") == 1


def test_files_without_room(
    lksm_command: Lksm, untouched: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of all files together that do not fit twice are refused in one line, before anything is done."""
    pages("a b c a").tofile(tmp_path / "one")
    pages("b d a").tofile(tmp_path / "two")
    available = 2 * 7 * 4096 - 1
    memory = psutil.virtual_memory()._replace(available=available)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert lksm_command("compare", tmp_path / "one", tmp_path / "two") == ""
    assert (lksm_command.status, lksm_command.err) == (
        2,
        "lksm: 7 pages need 57344 bytes, for them and for the kernel's copies; 57343 are available\n",
    )


def test_more_processes_than_pages(lksm_command: Lksm, knobs: dict[str, str]) -> None:
    """A process has a page at least, however many processes are asked for."""
    (workload,) = compare(lksm_command, "pairs", "--pages", 4, "--processes", 10**15)
    assert (workload["pages"], workload["processes"]) == (4, 4)


def test_help(lksm_command: Lksm) -> None:
    """The help names the page sets and says what is measured; examples use nothing else."""
    usage, _, examples = lksm_command("compare", "--help").partition("examples:\n")
    assert all(name in usage for name in synthetic.names())
    assert "ksmd" in usage and "Needs root" in usage
    assert all(word in usage for word in examples.split() if word.startswith("--"))
