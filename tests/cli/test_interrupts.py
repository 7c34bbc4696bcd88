"""Ctrl-C at every point: a known status, what is known is printed, no traceback, nothing is left behind.

*Every point* is every line of lksm that runs. A fork counts them; then for each one to be tried, another one
runs the same command, and there somebody else is asked to send the signal, which comes some 50 microseconds
later. It must not come inside the function that counts lines: Python looks for signals after calls and before
loops only, and what runs before a line is in between.
"""

from __future__ import annotations

import faulthandler
import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
import rich.progress
from rich.console import Console
from rich.live import Live

import lksm_command
from cgroups import new_group
from helpers import pages
from live_child import Child
from lksm.cli import main
from lksm.cli._progress import Progress
from lksm.cli._status import Status
from run_lksm import NOT_OURS_UNDER_SANITIZER, PROGRAM, start
from small_workload import SMALL

pytestmark = NOT_OURS_UNDER_SANITIZER

_NR_POINTS = int(os.environ.get("LKSM_INTERRUPTS", "60"))  # of all points, chosen at random
_MOST_SECONDS = 30  # for one command; then it says where it hangs
_MARKS = {"scan": "begun", "go_on": "begun", "emit": "said"}  # by the functions that are entered then
_PACKAGE = str(Path(sys.modules["lksm"].__file__ or "").parent)
_BARS = (
    f"{_PACKAGE}/cli/_progress.py",
    f"{_PACKAGE}/cli/_terminal.py",
    f"{Path(rich.__file__).parent}/live.py",
)


class Ran(NamedTuple):
    """How a command ended. points: lines counted; begun, said: before its work began, and its report."""

    status: int
    out: str
    err: str
    points: int
    begun: int
    said: int


def ran(
    tmp_path: Path,
    arguments: list[str],
    point: int,
    before: Callable[[], object] | None = None,
    counted: tuple[str, ...] = (_PACKAGE,),
    terminal: Terminal | None = None,
) -> Ran:
    """Run the program in a fork, interrupted when the line number `point` is about to run (0: never).

    Lines count of files whose paths begin as in `counted`. Standard error is a file, or the terminal.
    """
    files = [tmp_path / name for name in ("out", "err", "points")]
    pid = os.fork()
    if pid == 0:
        try:
            for number, file in enumerate(files[:2], 1):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            if terminal is not None:
                os.dup2(terminal.theirs, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os._exit(_run_traced(arguments, point, files[2], before, counted))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(99)
    _, status = os.waitpid(pid, 0)
    out, err, points = (file.read_text() if file.exists() else "" for file in files)
    assert points, (point, out, err)
    if terminal is not None:
        err = terminal.seen()
    return Ran(os.waitstatus_to_exitcode(status), out, err, *map(int, points.split()))


def _run_traced(
    arguments: list[str],
    point: int,
    points: Path,
    before: Callable[[], object] | None,
    counted: tuple[str, ...],
) -> int:
    seen = {"points": 0, "begun": 0, "said": 0}

    def count(frame: FrameType, event: str, _: Any) -> Any:
        if event == "call":
            if not frame.f_code.co_filename.startswith(counted):
                return None
            name = _MARKS.get(frame.f_code.co_name, "points")
            seen[name] = seen[name] or seen["points"]
        elif event == "line":
            seen["points"] += 1
            if seen["points"] == point:
                os.write(ask, b"!")
                sys.settrace(None)
        return count

    ask = _interrupter()
    faulthandler.dump_traceback_later(_MOST_SECONDS, exit=True, file=sys.stderr)
    sys.argv = ["lksm", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before is not None:
        before()
    sys.settrace(count)
    status = lksm_command.main()
    sys.settrace(None)
    sys.stdout.flush()
    points.write_text(f"{seen['points']} {seen['begun']} {seen['said']}")
    return status


def _interrupter() -> int:
    """A pipe to a process that sends us SIGINT when something is written there, and ends with us."""
    listen, ask = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        os.close(ask)
        if os.read(listen, 1):
            with suppress(ProcessLookupError):  # it was through
                os.kill(parent, signal.SIGINT)
        os._exit(0)
    os.close(listen)
    return ask


class Terminal:
    """A terminal of which we see what is written to it; there must be room for all of it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()

    def seen(self) -> str:
        """What has been written since the last time; as that takes its time, something comes after it."""
        os.write(self.theirs, b"\0")
        text = b""
        while not text.endswith(b"\0"):
            text += os.read(self._ours, 65536)
        return text[:-1].decode()

    def close(self) -> None:
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal that can do what most can."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    yield terminal
    terminal.close()


def left_on(text: str) -> str:
    """The lines that somebody sees who has a terminal on which the text was written."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|.", text, re.DOTALL):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + 1 :]
            column += 1
        else:
            assert part.endswith("m") or part in ("\x1b[?25l", "\x1b[?25h"), part
    return "\n".join(lines).rstrip()


def has_a_cursor(text: str) -> bool:
    """Is the cursor to be seen on a terminal on which the text was written?"""
    return text.rfind("\x1b[?25l") <= text.rfind("\x1b[?25h")


def _expect_interrupted(done: Ran, point: int) -> None:
    """It came to lksm, or when all had been said."""
    if done.status == 0:
        assert done.out.endswith("\n") and done.err == "", (point, done)
    else:
        assert done.status == 130, (point, done)
        assert done.err in ("lksm: interrupted\n", ""), (point, done)


def points_to_try(total: int) -> list[int]:
    """Some of the points, at random, and always the last few, where everything is being undone."""
    last = range(max(1, total - 10), total + 1)
    return sorted({*random.Random(total).sample(range(1, total + 1), min(_NR_POINTS, total)), *last})


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pages("a a b c c 0").tofile(tmp_path / "image")
    return tmp_path / "image"


def test_scan_of_files(tmp_path: Path, image: Path) -> None:
    """Status 130 wherever it comes; from the first batch on there is a report, whole and only once."""
    whole = ran(tmp_path, ["scan", str(image)], 0)
    assert (whole.status, whole.err) == (0, "")
    assert 0 < whole.begun < whole.said < whole.points
    nr_reports = 0
    for point in points_to_try(whole.points):
        done = ran(tmp_path, ["scan", str(image)], point)
        where = f"at line {point} of {whole.points}: {done}"
        _expect_interrupted(done, point)
        assert done.out.count("merging saves") <= 1, where
        if whole.begun + 30 < point < whole.said:
            assert "merging saves" in done.out, where
            nr_reports += 1
    assert nr_reports > 0


def test_scan_as_json(tmp_path: Path, image: Path) -> None:
    """An object is printed whole or not at all."""
    whole = ran(tmp_path, ["scan", "--json", str(image)], 0)
    for point in points_to_try(whole.points)[::3]:
        done = ran(tmp_path, ["scan", "--json", str(image)], point)
        _expect_interrupted(done, point)
        assert done.out == "" or done.out.endswith("}\n")


@pytest.mark.parametrize("rounds", ["1", "2"])
def test_scan_of_live_processes(tmp_path: Path, rounds: str) -> None:
    """So it is while processes are read, during the scan or before it, and the one that was read goes on."""
    with Child("memory = private(3); fill(memory, 0, 1); fill(memory, 1, 1)") as child:
        command = ["scan", "--rounds", rounds, "--interval", "0", "--pid", str(child.pid)]
        whole = ran(tmp_path, command, 0)
        assert whole.status == 0, whole
        for point in points_to_try(whole.points)[::2]:
            done = ran(tmp_path, command, point)
            _expect_interrupted(done, point)
        assert child.ask("1 + 1") == 2


@pytest.mark.parametrize("command", [["scan", "IMAGE"], ["simulate", "WORKLOAD", "--policy", "ksm"]])
def test_bars_on_a_terminal(tmp_path: Path, image: Path, terminal: Terminal, command: list[str]) -> None:
    """While bars are put up, drawn and wiped: then there is a cursor, and nothing is left of the bars."""
    (tmp_path / "small.toml").write_text(SMALL.replace("30_000", "1_000"))
    names = {"IMAGE": str(image), "WORKLOAD": str(tmp_path / "small.toml")}
    command = [names.get(word, word) for word in command]
    whole = ran(tmp_path, command, 0, counted=_BARS, terminal=terminal)
    assert (whole.status, left_on(whole.err)) == (0, "")
    assert "\x1b[2K" in whole.err
    nr_interrupted = 0
    for point in points_to_try(whole.points):
        done = ran(tmp_path, command, point, counted=_BARS, terminal=terminal)
        where = f"at line {point} of {whole.points}: {done}"
        assert has_a_cursor(done.err), where
        assert (done.status, left_on(done.err)) in [(130, "lksm: interrupted"), (0, "")], where
        nr_interrupted += done.status
    assert nr_interrupted > 0


@pytest.mark.parametrize("shown", [Progress, Status])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [Live.start, Live.refresh, Live.stop, Console.set_live, Console.clear_live])
def test_a_terminal_at_a_certain_moment(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, shown: type[Progress | Status], when: str, step: Any
) -> None:
    """Right before or after a step of putting up or wiping: all is wiped, and standard error is as it was."""
    theirs = os.fdopen(os.dup(terminal.theirs), "w")
    monkeypatch.setattr(sys, "stderr", theirs)
    times: list[int] = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        times.append(len(times))
        if when == "before" and len(times) == 1:
            signal.raise_signal(signal.SIGINT)
        result = step(*arguments, **options)
        if when == "after" and len(times) == 1:
            signal.raise_signal(signal.SIGINT)
        return result

    def show() -> None:
        with shown() as now, now:
            if isinstance(now, Status):
                now.show("a line")
            else:
                now.part("a bar")

    monkeypatch.setattr(f"{step.__module__}.{step.__qualname__}", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            show()
    finally:
        signal.signal(signal.SIGINT, before)
    assert sys.stderr is theirs
    theirs.close()
    text = terminal.seen()
    assert has_a_cursor(text) and left_on(text) == "", text


@pytest.mark.parametrize("command", ["scan IMAGE", "explain IMAGE --address 0", "simulate WORKLOAD"])
def test_a_terminal_when_the_job_is_done(
    tmp_path: Path,
    image: Path,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    """As `__exit__` is entered, before it has done anything: all is wiped, and a scan prints its report."""
    (tmp_path / "small.toml").write_text(SMALL.replace("30_000", "1_000"))
    names = {"IMAGE": str(image), "WORKLOAD": str(tmp_path / "small.toml")}
    leave, times = Progress.__exit__, []

    def interrupted(*arguments: Any) -> None:
        times.append(len(times))
        if len(times) == 1:
            raise KeyboardInterrupt
        leave(*arguments)

    monkeypatch.setattr(Progress, "__exit__", interrupted)
    with open(os.dup(terminal.theirs), "w") as theirs:
        monkeypatch.setattr(sys, "stderr", theirs)
        assert main([names.get(word, word) for word in command.split()]) == 130
        assert sys.stderr is theirs
    text = terminal.seen()
    assert "\x1b[2K" in text and left_on(text) == "lksm: interrupted"
    assert capsys.readouterr().out.count("merging saves") == command.startswith("scan")


def test_a_terminal_is_left_by_every_signal(terminal: Terminal) -> None:
    """A program that is ended without being asked leaves a cursor too, as it never hides it."""
    with Child("memory = private(2); fill(memory, 0, 1)") as child:
        command = ["scan", "--rounds", "2", "--interval", "600", "--pid", str(child.pid)]
        process = start(*command, stderr=terminal.theirs)
        text = ""
        deadline = time.monotonic() + 60
        while "\x1b[2K" not in text and time.monotonic() < deadline:
            time.sleep(0.01)
            text += terminal.seen()
        process.kill()
        process.communicate(timeout=60)
    text += terminal.seen()
    assert "\x1b[2K" in text and has_a_cursor(text), text


@pytest.mark.parametrize("version", [1, 2])
def test_watch(tmp_path: Path, version: int) -> None:
    """130 before the watch has begun, then 0 with the summary; a cgroup stays as it was."""
    with new_group(version) as group, Child("memory = private(2); fill(memory, 0, 1)") as child:
        group.add(child.pid)
        command = ["watch", "--cgroup", str(group), "--initial-rounds", "1", "--poll", "0"]
        whole = ran(tmp_path, command, 0, before=_end_later)
        assert whole.status == 0, whole
        choose, half = random.Random(version), _NR_POINTS // 6
        points = choose.sample(range(1, whole.begun), half)
        points += choose.sample(range(whole.begun, whole.points), half)
        statuses = set()
        for point in points:
            done = ran(tmp_path, command, point, before=_end_later)
            where = f"at line {point}: {done}"
            assert "Traceback" not in done.err, where
            if done.status == 130:
                assert done.err.endswith("lksm: interrupted\n"), where
            else:  # SIGTERM may come when all is said and it is heard no more
                assert done.status in (0, -signal.SIGTERM), where
                assert done.out.count("watched for") == 1, where
            statuses.add(done.status)
        assert statuses >= {0, 130}
        assert child.ask("1 + 1") == 2  # it runs


def _end_later() -> None:
    """A watch that was interrupted at no line, because it was asleep, ends all the same."""
    watch = os.getpid()
    if os.fork() == 0:
        time.sleep(2)
        if os.getppid() == watch:  # else it has ended, and our parent is somebody who is none of our business
            os.kill(watch, signal.SIGTERM)
        os._exit(0)


@pytest.mark.parametrize("hundredths", range(1, 60, 4))
def test_the_program_from_its_very_start(image: Path, hundredths: int) -> None:
    """While lksm is imported there is one line, and never a traceback; before that Python is on its own."""
    program = "import sys; from lksm_command import main; print(flush=True); sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, "scan", image], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    time.sleep(hundredths / 100)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) in [(130, "lksm: interrupted\n"), (0, "")]


def test_ignored_by_the_caller(image: Path) -> None:
    """Started with Ctrl-C ignored, as by nohup, it stays ignored."""
    process = subprocess.Popen(
        [*PROGRAM, "scan", image], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "merging saves" in out
