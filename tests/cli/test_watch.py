"""`lksm watch` on real processes, frozen by real freezers."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pty
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cgroups import DEADLINE_SECONDS, Group, new_group, release
from live_child import PAGE, Child
from lksm.cli._output import printable
from lksm.sources import live
from run_lksm import Lksm, run, start

GONE_PID = 2**22 + 1  # beyond any pid_max
_PAIRS = "m = private(64)\nfor page in range(64): fill(m, page, page % 32)"
_QUICK = ("--set", "scan_boost=10000", "pages_to_scan=10000", "sleep_millisecs=1")
_NO_FULL = ("--initial-rounds", 0)  # and 60 s until the first full scan
_HEADER = {"type", "schema", "version", "time", "run", "page_size", "notes"}
_SCAN = {
    "type", "time", "mode", "cause", "round", "processes", "slots", "pages", "merged", "broken", "elapsed_ms",
    "cpu_ms", "read_bytes", "over_limit_bytes", "saved_bytes",
}  # fmt: skip
_END = {
    "type", "time", "elapsed_ms", "cpu_ms", "processes", "partial_scans", "full_scans", "pages", "merged",
    "broken", "read_bytes", "started", "exited", "refused", "saved_bytes", "counters",
}  # fmt: skip


class Watching:
    """`lksm watch ...` as a program of its own; what it writes is read line by line."""

    def __init__(self, *arguments: object) -> None:
        self.process = start("watch", *_QUICK, *arguments)
        self._buffer = b""

    def line(self) -> str:
        """The next line."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while b"\n" not in self._buffer:
            assert select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))[0], self._buffer
            piece = os.read(descriptor, 1 << 16)
            assert piece, f"it has ended: {self._buffer!r} {self.process.stderr}"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def until(self, is_it: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The next JSON line that is so; those before it are dropped."""
        while True:
            found: dict[str, Any] = json.loads(self.line())
            if is_it(found):
                return found

    def event(self, kind: str, pid: int) -> dict[str, Any]:
        return self.until(lambda found: found.get("kind") == kind and found["pid"] == pid)

    def scan(self, **facts: object) -> dict[str, Any]:
        return self.until(
            lambda found: found["type"] == "scan" and all(found[key] == value for key, value in facts.items())
        )

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, list[str], str]:
        """Ask it to end: its status, the lines that were left, its standard error."""
        self.process.send_signal(number)
        return self.rest()

    def rest(self) -> tuple[int, list[str], str]:
        out, err = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, (self._buffer.decode() + out).splitlines(), err


@contextlib.contextmanager
def watching(*arguments: object) -> Iterator[Watching]:
    """The program, gone at the end."""
    watch = Watching(*arguments)
    try:
        yield watch
    finally:
        watch.process.kill()
        watch.process.communicate()


@contextlib.contextmanager
def member(group: Group, text: str = _PAIRS) -> Iterator[Child]:
    """A child in a group, moved out before it is killed: a frozen process would not die."""
    with Child(text) as child:
        group.add(child.pid)
        try:
            yield child
        finally:
            release(child.pid)


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    """A cgroup of either version."""
    with new_group(request.param) as made:
        yield made


# ---- freezing


def test_a_frozen_process_is_scanned(group: Group) -> None:
    """A process that its cgroup freezes is in the partial scan that follows; its equal pages are merged."""
    with member(group) as child, watching("--cgroup", group, "--json", *_NO_FULL) as watch:
        began = json.loads(watch.line())
        assert set(began) == _HEADER
        assert (began["type"], began["schema"], began["run"]) == ("begin", 1, 1)
        assert not watch.event("start", child.pid)["frozen"]
        group.freeze()
        assert watch.event("freeze", child.pid)["frozen"]
        scan = watch.scan()
        assert set(scan) == _SCAN
        assert (scan["mode"], scan["cause"], scan["slots"]) == ("partial", "event", 1)
        assert [(row["pid"], row["why"]) for row in scan["processes"]] == [(child.pid, "frozen")]
        assert scan["pages"] * PAGE == scan["read_bytes"] >= 64 * PAGE
        assert scan["merged"] >= 32 and scan["saved_bytes"] >= 32 * PAGE
        group.thaw()
        assert not watch.event("thaw", child.pid)["frozen"]
        child.do("fill(m, 0, 1000); fill(m, 32, 1000); fill(m, 1, 2000)")
        group.freeze()
        again = watch.scan()
        assert again["broken"] >= 2, "it was read anew: pages 0 and 1 have left their frames"
        status, lines, err = watch.stop()
    assert (status, err) == (0, "")
    end = json.loads(lines[-1])
    assert set(end) == _END
    assert (end["type"], end["processes"], end["partial_scans"], end["full_scans"]) == ("end", 1, 2, 0)
    assert end["pages"] == scan["pages"] + again["pages"]
    assert end["saved_bytes"] == end["counters"]["pages_sharing"] * PAGE == again["saved_bytes"]


def test_one_shot_scans_when_somebody_is_frozen(group: Group) -> None:
    """With --one-shot each freeze asks for a partial scan, and nothing else does."""
    options = ("--one-shot", "--json", *_NO_FULL, "--poll", 0)
    with member(group) as child, watching("--pid", child.pid, *options) as watch:
        assert json.loads(watch.line())["run"] == 8
        for _ in range(3):
            group.freeze()
            scan = watch.scan()
            assert (scan["mode"], scan["cause"]) == ("partial", "request")
            assert [row["pid"] for row in scan["processes"]] == [child.pid]
            group.thaw()
            watch.event("thaw", child.pid)
        status, lines, _ = watch.stop()
    assert status == 0
    assert json.loads(lines[-1])["partial_scans"] == 3


def test_a_process_that_is_frozen_already(group: Group) -> None:
    """Who is frozen when the watch begins is scanned, too."""
    with member(group) as child:
        group.freeze()
        with watching("--pid", child.pid, "--json", "--one-shot", *_NO_FULL) as watch:
            assert child.pid in [row["pid"] for row in watch.scan()["processes"]]


def test_a_stopped_process_is_scanned() -> None:
    """A process that a signal stopped counts as frozen."""
    options = ("--json", "--poll", 0.05, *_NO_FULL)
    with Child(_PAIRS) as child, watching("--pid", child.pid, *options) as watch:
        watch.event("start", child.pid)
        os.kill(child.pid, signal.SIGSTOP)
        watch.event("freeze", child.pid)
        [row] = watch.scan(mode="partial")["processes"]
        assert (row["pid"], row["why"]) == (child.pid, "frozen")
        os.kill(child.pid, signal.SIGCONT)
        watch.event("thaw", child.pid)


def test_full_scans_by_the_clock() -> None:
    """Initial rounds and full scans at an interval see all processes; pages merge once they held still."""
    options = ("--json", "--interval", 0.05, "--initial-rounds", 1)
    with Child(_PAIRS) as child, watching("--pid", child.pid, *options) as watch:
        scan = watch.scan(mode="full", cause="initial")
        assert [(row["pid"], row["why"]) for row in scan["processes"]] == [(child.pid, "new")]
        scan = watch.scan(mode="full", cause="interval")
        assert [(row["pid"], row["why"]) for row in scan["processes"]] == [(child.pid, "full")]
        assert scan["saved_bytes"] >= 32 * PAGE


def test_zero_pages_are_saved() -> None:
    """With the knob use_zero_pages on, what is saved counts pages of zeros, though no frame has them."""
    options = ("--json", "--interval", 0.05, "--initial-rounds", 1, "--set", "use_zero_pages=1")
    with (
        Child("m = private(64)\nm[:] = bytes(len(m))") as child,
        watching("--pid", child.pid, *options) as watch,
    ):
        watch.scan(mode="full", cause="initial")
        scan = watch.scan(mode="full", cause="interval")
        status, lines, _ = watch.stop()
    counters = json.loads(lines[-1])["counters"]
    assert status == 0
    assert counters["zero_pages"] >= 64
    assert scan["saved_bytes"] >= 64 * PAGE


def test_two_processes_share(group: Group) -> None:
    """A process frozen later merges with one that was scanned before and is not read again."""
    one, two = group.below("one"), group.below("two")
    options = ("--json", "--one-shot", *_NO_FULL)
    with member(one) as first, member(two) as second, watching("--cgroup", group, *options) as watch:
        watch.line()
        one.freeze()
        before = watch.scan()
        two.freeze()
        after = watch.until(lambda found: second.pid in [row["pid"] for row in found.get("processes", [])])
        assert first.pid in [row["pid"] for row in before["processes"]]
        assert first.pid not in [row["pid"] for row in after["processes"]]
        assert after["saved_bytes"] >= before["saved_bytes"] + 64 * PAGE


# ---- starting and ending


def test_a_process_comes_and_goes(group: Group) -> None:
    """A process moved into a watched group starts, and exits when it ends, merged or not."""
    with watching("--cgroup", group, "--json", *_NO_FULL) as watch, Child(_PAIRS) as child:
        json.loads(watch.line())
        group.add(child.pid)
        started = watch.event("start", child.pid)
        group.freeze()
        watch.scan()
        group.thaw()
        child.kill()
        gone = watch.event("exit", child.pid)
        assert gone["started"] == started["started"]
        status, lines, _ = watch.stop()
    end = json.loads(lines[-1])
    assert status == 0
    assert (end["started"], end["exited"], end["processes"], end["saved_bytes"]) == (1, 1, 0, 0)


def test_nothing_is_read_before_it_is_scanned(group: Group) -> None:
    """A process that no scan asks for is not read."""
    with member(group) as child, watching("--pid", child.pid, "--one-shot", "--json", *_NO_FULL) as watch:
        watch.event("start", child.pid)
        _, lines, _ = watch.stop()
    end = json.loads(lines[-1])
    assert (end["read_bytes"], end["pages"], end["processes"]) == (0, 0, 1)


def test_it_ends_when_nothing_is_left(lksm_command: Lksm) -> None:
    """When all processes that were named have ended, the watch does, with status 0 and no descriptor left."""
    gc.collect()  # what earlier tests have left is not closed meanwhile
    before = sorted(os.listdir("/proc/self/fd"))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Child() as child:
        timer = threading.Timer(0.3, child.kill)
        timer.start()
        out = lksm_command("watch", "--pid", child.pid)
        timer.join()
    assert (lksm_command.status, lksm_command.err) == (0, "")
    assert "1 process, 1 gone by now" in out.splitlines()[-3]
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end(number: signal.Signals) -> None:
    """Ctrl-C is how a watch ends: with a summary and status 0, as by SIGTERM, and in the midst of a wait."""
    with Child(_PAIRS) as child, watching("--pid", child.pid, "--interval", 1000) as watch:
        assert "full     initial" in watch.line()
        status, lines, err = watch.stop(number)
    assert (status, err) == (0, "")
    assert re.match(r"watched for [0-9.]+ s: 1 process, 0 gone by now$", lines[-3])
    assert re.match(r"0 partial scans and [123] full scans?: [0-9,]+ pages visited", lines[-2])
    assert re.match(r"merging saves [0-9.]+ [KM]?i?B among 1 process: ", lines[-1])


# ---- text


def test_a_line_of_text(group: Group) -> None:
    """A line says when, what kind and why, the numbers, and who."""
    with member(group) as child, watching("--cgroup", group, *_NO_FULL) as watch:
        group.freeze()  # whether it has begun by then does not matter
        line = watch.line()
        watch.stop()
    assert re.match(
        r"\d\d:\d\d:\d\d  partial  event     +[\d,]+ pages  +[\d,]+ merged  +0 broken  +[\d,]+ ms  "
        r"+\d+ ms CPU  "
        rf"frozen: python\S*\({child.pid}\)$",
        line,
    )


def test_hostile_names(group: Group) -> None:
    """A process may call itself anything: exact in JSON, escaped in text."""
    name = "x\n\x1b[2J"
    text = f"{_PAIRS}\nopen('/proc/self/comm', 'w').write('x' + chr(10) + chr(27) + '[2J')"
    with member(group, text) as child:
        group.freeze()
        with watching("--cgroup", group, "--json", *_NO_FULL) as watch:
            assert watch.event("start", child.pid)["name"] == name
            assert watch.scan()["processes"][0]["name"] == name
        with watching("--cgroup", group, *_NO_FULL) as watch:
            line = watch.line()
    assert line.isprintable() and f"frozen: {printable(name)}({child.pid})" in line


def test_the_status_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a line says how things stand; it is gone at the end, and data goes elsewhere."""
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with Child() as child:
        process = start("watch", "--pid", child.pid, *_QUICK, stderr=theirs)
        os.close(theirs)
        seen = b""
        try:
            while b"watching 1 process, 0 frozen" not in seen:
                assert select.select([ours], [], [], DEADLINE_SECONDS)[0]
                seen += os.read(ours, 4096)
        finally:
            process.terminate()
            out, _ = process.communicate(timeout=DEADLINE_SECONDS)
            os.close(ours)
    assert process.returncode == 0
    assert "watching" not in out and "\x1b" not in out
    assert "merging saves" in out.splitlines()[-1]


# ---- limits, options, errors


def test_the_limit() -> None:
    """All copies together take no more than --limit, and what found no room is told."""
    options = ("--json", "--limit", "1M", "--initial-rounds", 1)
    text = "m = private(1000)\nm.write(b'x' * len(m))"
    with Child(text) as child, watching("--pid", child.pid, *options) as watch:
        scan = watch.scan()
    assert scan["read_bytes"] == 1 << 20
    assert scan["over_limit_bytes"] > 900 * PAGE - (1 << 20)


def test_a_reader_who_stops_reading(group: Group) -> None:
    """When nobody reads its output any more it ends quietly."""
    with member(group), watching("--cgroup", group, "--json", *_NO_FULL) as watch:
        watch.line()
        assert watch.process.stdout is not None and watch.process.stderr is not None
        watch.process.stdout.close()
        group.freeze()
        assert watch.process.wait(timeout=DEADLINE_SECONDS) == 0
        assert watch.process.stderr.read() == ""


def test_what_widens_the_scan() -> None:
    """--what all merges pages of shared mappings, too."""
    text = "shared = mmap.mmap(-1, 8 * PAGE)\nfor page in range(8): fill(shared, page, 1)"
    found = {}
    with Child(text) as child:
        for what in ("anon", "all"):
            with watching("--pid", child.pid, "--json", "--interval", 0.05, "--what", what) as watch:
                found[what] = watch.scan(cause="interval")["pages"]
    assert found["all"] >= found["anon"] + 8


def test_a_process_that_is_not_there(lksm_command: Lksm) -> None:
    """A pid without a process: with others status 1, alone status 2; one line of error."""
    message = f"lksm: pid {GONE_PID}: there is no such process\n"
    assert lksm_command("watch", "--pid", GONE_PID) == ""
    assert (lksm_command.status, lksm_command.err) == (2, message)
    with Child() as child, watching("--pid", child.pid, GONE_PID) as watch:
        watch.line()
        status, _, err = watch.stop()
    assert (status, err) == (1, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to watch: name --pid, --cgroup or --all (see lksm watch --help)"),
        (["--cgroup", "/nowhere"], "/nowhere: there is no such cgroup"),
        (
            ["--cgroup", "/proc"],
            "/proc: no cgroup of version 2, nor one of the freezer hierarchy of version 1",
        ),
        (["--pid", "2"], "pid 2: kernel thread has no memory"),
        (["--pid", "x"], "argument --pid: 'x' is no process id"),
        (["--all", "--one-shot", "--interval", "3"], "--interval has no meaning with --one-shot"),
        (["--all", "--set", "run=2"], "argument --set: 'run=2' is no knob and value"),
        (
            ["--all", "--set", "pages_to_scan=many"],
            "argument --set: 'pages_to_scan=many' is no knob and value",
        ),
        (["--all", "--set", "speed=3"], "argument --set: there is no knob 'speed'"),
        (["--all", "--interval", "soon"], "argument --interval: 'soon' is no number of seconds"),
    ],
)
def test_bad_usage(lksm_command: Lksm, arguments: list[str], message: str) -> None:
    """Bad usage is one line and status 2."""
    assert lksm_command("watch", *arguments) == ""
    assert lksm_command.status == 2
    assert lksm_command.err.startswith(f"lksm: {message}") and lksm_command.err.count("\n") == 1


def test_a_process_that_may_not_be_read(lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that refuses is told with the reason; of all it is only counted."""

    class Forbidden:
        def __init__(self, *_: object) -> None:
            raise PermissionError

    monkeypatch.setattr(live._pagemap, "Pagemap", Forbidden)
    with Child() as child:
        lksm_command("watch", "--pid", child.pid)
        assert lksm_command.status == 2
        assert lksm_command.err.startswith(f"lksm: pid {child.pid}: not permitted: needs CAP_SYS_PTRACE")


def test_help(lksm_command: Lksm) -> None:
    """The help has examples, and the list of commands names this one."""
    assert "examples:\n  lksm watch --pid 1234 5678" in lksm_command("watch", "--help")
    assert lksm_command.status == 0
    assert re.search(r"^  watch +follow live processes", lksm_command("--help"), re.MULTILINE)
    assert run("watch", "--help").returncode == 0
