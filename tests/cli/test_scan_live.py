"""`lksm scan` of live processes: what counts, what is left out, and what several rounds are for."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import xxhash

from helpers import pages
from live_child import PAGE, Child, content, needs_frames
from lksm.cli import _session
from lksm.sources import Refused, _pagemap, live
from lksm.sources._left_out import Report
from run_lksm import Lksm

GONE_PID = 2**22 + 1  # beyond any pid_max


def digest(seed: int) -> str:
    return xxhash.xxh3_64_hexdigest(content(seed))


def between_rounds(monkeypatch: pytest.MonkeyPatch, *actions: Callable[[], object]) -> list[float]:
    """Do one thing after another where `lksm scan` would wait; returns how long it would have."""
    waits: list[float] = []
    todo = iter(actions)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        next(todo, lambda: None)()

    monkeypatch.setattr(_session, "time", SimpleNamespace(sleep=sleep))
    return waits


def test_two_processes(lksm_command: Lksm) -> None:
    """Equal pages of two processes are merged; each has its row with name and pid."""
    text = "m = private(12)\nfor page in range(10): fill(m, page, page)\nm[10 * PAGE] = m[11 * PAGE] = 0"
    with Child(text) as one, Child(text) as two:
        address = one.ask("address(m)")
        found = lksm_command.scan("--pid", one.pid, two.pid)
    assert (lksm_command.status, lksm_command.err) == (0, "")
    assert [row["pid"] for row in found["processes"]] == [one.pid, two.pid]
    assert [row["source"] for row in found["processes"]] == [f"pid {one.pid}", f"pid {two.pid}"]
    assert all(row["name"].startswith("python") and row["zero"] >= 2 for row in found["processes"])
    groups = {group["digest"]: group for group in found["groups"]}
    for page in range(10):
        assert (groups[digest(page)]["pages"], groups[digest(page)]["processes"]) == (2, 2)
        assert groups[digest(page)]["first"] == {"process": 0, "address": hex(address + page * PAGE)}
    assert groups[xxhash.xxh3_64_hexdigest(bytes(PAGE))]["zero"] is True


def test_files_and_processes_together(lksm_command: Lksm, tmp_path: Path) -> None:
    """A page of a file and the same page of a process are one group."""
    file = tmp_path / "image"
    file.write_bytes(content(1) + content(2))
    with Child("m = private(1)\nfill(m, 0, 1)") as child:
        found = lksm_command.scan(file, "--pid", child.pid)
    assert [row["pid"] for row in found["processes"]] == [None, child.pid]
    assert digest(1) in [group["digest"] for group in found["groups"] if group["processes"] == 2]


def test_a_process_named_twice(lksm_command: Lksm) -> None:
    """The same pid twice is one process."""
    with Child() as child:
        found = lksm_command.scan("--pid", child.pid, "--pid", child.pid, child.pid)
    assert len(found["processes"]) == 1


def test_forked_processes_share_already(lksm_command: Lksm) -> None:
    """What two processes share after fork is already shared: it counts once and saves nothing."""
    needs_frames()
    with Child("m = private(100)\nfor page in range(100): fill(m, page, page)\nkid, run = fork()") as child:
        child.do("run('for page in range(10): fill(m, page, page)')")
        found = lksm_command.scan("--pid", child.pid, child.ask("kid"))
    assert found["already_shared_bytes"] >= 90 * PAGE
    groups = {group["digest"]: group["pages"] for group in found["groups"]}
    assert all(groups.get(digest(page)) == 2 for page in range(10)), "written by the child: a saving"
    assert not any(digest(page) in groups for page in range(10, 100)), "still one page: no saving"
    parent, kid = found["processes"]
    assert parent["pages"] >= 100 and kid["pages"] >= 100
    assert kid["merged"] + kid["unshared"] <= kid["pages"] - 90


def test_three_copies_of_a_shared_page(lksm_command: Lksm) -> None:
    """A page shared by fork that has twins elsewhere saves as one page, credited to one process."""
    needs_frames()
    with Child("m = private(3)\nfor page in range(3): fill(m, page, 5)\nkid, run = fork()") as child:
        found = lksm_command.scan("--pid", child.pid, child.ask("kid"))
    groups = {group["digest"]: group for group in found["groups"]}
    assert (groups[digest(5)]["pages"], groups[digest(5)]["processes"]) == (3, 1)


def test_already_shared_is_unknown_without_frames(
    lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where frame numbers are hidden, what is already shared is unknown: null, not 0, and said so."""
    monkeypatch.setattr(_pagemap, "frames_are_visible", lambda: False)
    with Child("m = private(4)\nfill(m, 0, 0)") as child:
        assert lksm_command.scan("--pid", child.pid)["already_shared_bytes"] is None
        text = lksm_command("scan", "--pid", child.pid)
    assert "already shared  unknown  " in text
    assert "CAP_SYS_ADMIN" in text


def test_what(lksm_command: Lksm) -> None:
    """`--what` widens the scan from anonymous pages to private and to all mappings."""
    text = "m = private(8)\nshared = mmap.mmap(-1, 8 * PAGE)\nfor page in range(8): fill(shared, page, 1)"
    with Child(text) as child:
        options = ("--pid", child.pid, "--what")
        found = {what: lksm_command.scan(*options, what) for what in ("anon", "private", "all")}
    sizes = [found[what]["scanned_bytes"] for what in ("anon", "private", "all")]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]
    assert [group["pages"] for group in found["all"]["groups"] if group["digest"] == digest(1)] == [8]
    assert digest(1) not in [group["digest"] for group in found["private"]["groups"]]
    counters = found["all"]["counters"]
    tracked = sum(counters[f"pages_{kind}"] for kind in ("shared", "sharing", "unshared"))
    assert tracked * PAGE == found["all"]["scanned_bytes"], "every page is compared, whatever its mapping"


def test_the_limit(lksm_command: Lksm) -> None:
    """A snapshot takes no more memory than `--limit`, and what it trims is reported."""
    with Child("m = private(1000)\nm.write(b'x' * len(m))") as child:
        found = lksm_command.scan("--limit", "1M", "--pid", child.pid)
    assert found["scanned_bytes"] == 1 << 20
    [skipped] = [item for item in found["skipped"] if item["what"] == "pages over the limit"]
    assert skipped["nbytes"] > 900 * PAGE - (1 << 20)


def test_a_process_that_is_not_there(lksm_command: Lksm) -> None:
    """A pid without a process is gone: with others status 1, alone status 2."""
    with Child() as child:
        found = lksm_command.scan("--pid", GONE_PID, child.pid)
        assert lksm_command.status == 1
        assert found["gone"] == [{"pid": GONE_PID, "name": None}]
        assert [row["pid"] for row in found["processes"]] == [child.pid]
    assert lksm_command("scan", "--pid", GONE_PID) == ""
    assert lksm_command.status == 2
    assert lksm_command.err == f"lksm: pid {GONE_PID}: there is no such process\n"


def test_all_skips_what_may_not_be_read(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --all a process that refuses is skipped with the reason and status 0; named, it is refused."""
    look = live._admit

    def admit(pid: int, *others: Any) -> Any:
        if pid != 1:
            return look(pid, *others)
        report: Report = others[-1]
        report.refused.append(Refused("pid 1", "not permitted"))
        return None

    monkeypatch.setattr(live, "_admit", admit)
    with Child() as child:
        monkeypatch.setattr(live, "all_pids", lambda: [child.pid, 1])
        found = lksm_command.scan("--all")
        assert (lksm_command.status, lksm_command.err, found["refused"]) == (0, "", [])
        assert found["skipped"][0] == {
            "source": "pid 1", "what": "process", "nbytes": 0, "reason": "not permitted",
        }  # fmt: skip
        found = lksm_command.scan("--pid", child.pid, 1)
        assert (lksm_command.status, found["refused"]) == (
            1,
            [{"source": "pid 1", "reason": "not permitted"}],
        )


def test_all_of_nothing(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch) -> None:
    """If --all may read no process at all the status is 2, and one line says why."""

    def admit(pid: int, *others: Any) -> None:
        report: Report = others[-1]
        report.refused.append(Refused(f"pid {pid}", "not permitted"))

    monkeypatch.setattr(live, "_admit", admit)
    monkeypatch.setattr(live, "all_pids", lambda: [1, 2])
    assert lksm_command("scan", "--all") == ""
    expected = "lksm: nothing to scan, no source has a page that can be used (pid 1: not permitted)\n"
    assert (lksm_command.status, lksm_command.err) == (2, expected)


def test_all(lksm_command: Lksm) -> None:
    """`--all` finds a process that nobody named, and leaves out this very one."""
    with Child("m = private(4)\nfill(m, 0, 0)") as child:
        found = json.loads(lksm_command("scan", "--all", "--json", "--limit", "64M"))
    assert lksm_command.status == 0
    pids = {row["pid"] for row in found["processes"]} | {
        int(item["source"].split()[1]) for item in found["skipped"] if item["source"].startswith("pid ")
    }
    assert child.pid in pids


# ---- rounds

_PAIRS = "m = private(64)\nfor page in range(64): fill(m, page, page % 32)"
_CHANGE = "for page in (0, 1, 32, 33): fill(m, page, {round} * 1000 + page % 32)"


def test_rounds_leave_out_changing_pages(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that change from round to round are merged with none, though always equal."""
    with Child(_PAIRS) as child:
        once = {group["digest"] for group in lksm_command.scan("--pid", child.pid)["groups"]}
        assert {digest(0), digest(1), digest(2)} <= once
        changes = [partial(child.do, _CHANGE.format(round=number)) for number in (1, 2, 3)]
        waits = between_rounds(monkeypatch, *changes)
        found = lksm_command.scan("--pid", child.pid, "--rounds", 4, "--interval", 2.5)
    groups = {group["digest"]: group["pages"] for group in found["groups"]}
    assert waits == [2.5] * 3
    assert found["counters"]["scan_round"] == 4
    assert not {digest(seed + page) for seed in (0, 1000, 2000, 3000) for page in (0, 1)} & groups.keys()
    assert all(groups[digest(page)] == 2 for page in range(2, 32))
    [row] = found["processes"]
    assert row["pages"] - row["merged"] - row["unshared"] >= 4


def test_pages_that_settle_are_merged(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that stops changing is merged once it has held still for a round."""
    with Child(_PAIRS) as child:
        between_rounds(monkeypatch, lambda: child.do(_CHANGE.format(round=1)))
        found = lksm_command.scan("--pid", child.pid, "--rounds", 3, "--interval", 0)
    assert digest(1000) in [group["digest"] for group in found["groups"]]


def test_one_round_of_files_needs_no_gate(lksm_command: Lksm, tmp_path: Path) -> None:
    """Files hold still: with --rounds they are merged all the same, and nobody waits."""
    pages("a a b").tofile(tmp_path / "a")
    found = lksm_command.scan(tmp_path / "a", "--rounds", 5, "--interval", 1000)
    assert (found["saved_bytes"], found["counters"]["scan_round"]) == (4096, 1)


def test_files_among_rounds(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files bypass the gate; they merge with pages of live processes that hold still."""
    (tmp_path / "image").write_bytes(content(0) + content(5) + content(5))
    with Child(_PAIRS) as child:
        between_rounds(monkeypatch, lambda: child.do(_CHANGE.format(round=1)))
        found = lksm_command.scan(tmp_path / "image", "--pid", child.pid, "--rounds", 2)
    groups = {group["digest"]: group["pages"] for group in found["groups"]}
    assert groups[digest(5)] == 4
    assert digest(0) not in groups


def test_a_process_that_is_stopped_between_rounds(
    lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a process is stopped its pages hold still; when it goes on, they need not any more."""
    with Child(_PAIRS) as child:
        between_rounds(
            monkeypatch,
            partial(os.kill, child.pid, signal.SIGSTOP),
            lambda: None,
            partial(os.kill, child.pid, signal.SIGCONT),
            lambda: child.do(_CHANGE.format(round=1)),
        )
        found = lksm_command.scan("--pid", child.pid, "--rounds", 5, "--interval", 0)
        assert child.ask("1 + 1") == 2
    groups = {group["digest"]: group["pages"] for group in found["groups"]}
    assert digest(0) not in groups and digest(1000) not in groups
    assert all(groups[digest(page)] == 2 for page in range(2, 32))


def test_a_process_that_vanishes_between_rounds(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends meanwhile is gone: it leaves the report, and what it shared is no saving."""
    with (
        Child(_PAIRS) as child,
        Child("m = private(64)\nfor page in range(64): fill(m, page, 100 + page)") as other,
    ):
        other.do("fill(m, 0, 7)")
        between_rounds(monkeypatch, lambda: None, other.kill)
        found = lksm_command.scan("--pid", child.pid, other.pid, "--rounds", 3)
    assert lksm_command.status == 0
    assert [gone["pid"] for gone in found["gone"]] == [other.pid]
    assert found["gone"][0]["name"].startswith("python")
    assert [row["pid"] for row in found["processes"]] == [child.pid]
    assert {group["digest"]: group["pages"] for group in found["groups"]}[digest(7)] == 2


def test_the_last_page_of_zeros(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A page of zeros that is left alone in its frame, because its twin has gone, still counts as zero."""
    (tmp_path / "image").write_bytes(bytes(PAGE) + content(1))
    with Child("m = private(2)\nfor page in (0, 1): m[page * PAGE] = 0") as child:
        between_rounds(monkeypatch, lambda: None, child.kill)
        found = lksm_command.scan(tmp_path / "image", "--pid", child.pid, "--rounds", 3)
    [row] = found["processes"]
    assert [row[key] for key in ("pages", "merged", "zero", "saved_bytes")] == [2, 1, 1, 0]
    assert found["groups"] == []


def test_all_processes_vanish(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch) -> None:
    """If every process ends meanwhile the report is empty, in text too."""
    for as_json in (True, False):
        with Child(_PAIRS) as child:
            between_rounds(monkeypatch, child.kill)
            options = ("--pid", child.pid, "--rounds", 3)
            if as_json:
                found = lksm_command.scan(*options)
                assert (found["processes"], found["groups"], found["scanned_bytes"]) == ([], [], 0)
            else:
                assert re.search(rf"pid {child.pid} +gone", lksm_command("scan", *options))


def test_memory_that_moves_between_rounds(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that go, come back or are new between rounds are counted as they are at the end."""
    more = "n = private(4)\nfor page in range(4): fill(n, page, 40 + page % 2)"
    with Child(_PAIRS) as child:
        between_rounds(
            monkeypatch,
            lambda: child.do(f"drop(m, 8, 16)\n{more}"),
            lambda: child.do("for page in range(8, 12): fill(m, page, page)"),
        )
        found = lksm_command.scan("--pid", child.pid, "--rounds", 5, "--interval", 0)
    groups = {group["digest"]: group["pages"] for group in found["groups"]}
    assert [page for page in range(32) if digest(page) in groups] == [*range(12), *range(16, 32)]
    assert groups[digest(40)] == groups[digest(41)] == groups[digest(8)] == 2
