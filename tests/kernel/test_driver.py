"""Driving the kernel's KSM leaves no trace: not after an error, nor a signal, nor a sudden death."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest

from cgroups import until
from helpers import pages
from lksm.kernel import Child, Files, KsmUnavailable, driver, driving
from lksm.kernel._reservation import LOCK, reserved
from side_by_side import Referee

FOUND = {
    "advisor_mode": "none [scan-time]",
    "max_page_sharing": "256",
    "pages_to_scan": "100",
    "run": "0",
    "sleep_millisecs": "20",
}

STAY = """
import sys
from lksm.kernel import driving
with driving({"smart_scan": 0}, patience_seconds=120) as ksm:
    ksm.one_pass()
    print("driving", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Plain files that look like KSM's."""
    directory = tmp_path / "ksm"
    directory.mkdir()
    for name, value in FOUND.items():
        (directory / name).write_text(f"{value}\n")
    (directory / "pages_shared").write_text("0\n")
    (directory / "pages_shared").chmod(0o444)
    return Files(directory)


def lock_of(files: Files) -> Path:
    return files.directory.with_name("lock")


def reserve(files: Files, patience_seconds: float = 1.0) -> AbstractContextManager[None]:
    return reserved(files, lock=lock_of(files), patience_seconds=patience_seconds, interrupt=lambda: None)


def texts(files: Files) -> dict[str, str]:
    return {name: (files.directory / name).read_text().strip() for name in FOUND}


def restored() -> dict[str, str]:
    """FOUND, where a plain file has no list of words to choose from."""
    return FOUND | {"advisor_mode": "scan-time"}


# --- without the kernel: plain files


def test_knobs_are_put_back(files: Files) -> None:
    """Whatever was changed within the block, and whatever ended it, is as it was; the note is gone."""

    def change_and_fail() -> None:
        with reserve(files):
            noted = json.loads(lock_of(files).read_text())
            assert noted == files.knobs() and "pages_shared" not in noted
            for name in FOUND:
                files.write(name, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    assert texts(files) == restored()
    assert lock_of(files).read_text() == ""


def test_knobs_of_a_dead_user_are_put_back_first(files: Files) -> None:
    """A note in the lock file is what to restore, before anything else is looked at."""
    lock_of(files).write_text(json.dumps(restored()))
    for name in FOUND:
        files.write(name, 1)
    with reserve(files):
        assert texts(files) == restored()


def test_half_a_note(files: Files) -> None:
    """A note that was never finished stands for knobs that were never changed."""
    lock_of(files).write_text('{"run": "1", "sleep')
    with reserve(files):
        pass
    assert texts(files)["sleep_millisecs"] == "20"


@pytest.mark.parametrize(("name", "value"), [("run", "1"), ("pages_shared", "7")])
def test_in_use(files: Files, name: str, value: str) -> None:
    """Where KSM runs, or has merged pages for somebody, nothing is touched."""
    (files.directory / name).chmod(0o644)
    files.write(name, value)
    (files.directory / "pages_shared").chmod(0o444)
    before = texts(files)
    with pytest.raises(KsmUnavailable, match=r"^KSM is in use: "), reserve(files):
        pass
    assert texts(files) == before


def test_knobs_that_cannot_be_written(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a store is refused, as in a file system that is read-only, one line says so; no note stays."""
    opened = os.open

    def read_only(path: Path, flags: int, *mode: int) -> int:
        if flags & os.O_WRONLY and Path(path).parent == files.directory:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(KsmUnavailable, match=r"/ksm/run: Read-only file system$"), reserve(files):
        pass
    assert lock_of(files).read_text() == ""


def test_a_store_that_fails(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file."""

    def fail(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match="Cannot allocate memory") as caught:
        files.write("run", 2)
    assert caught.value.filename == str(files.directory / "run")


def test_one_at_a_time(files: Files) -> None:
    """Who comes second waits for the first, as long as it has patience."""
    with (
        reserve(files),
        pytest.raises(KsmUnavailable, match="in use by another program of lksm"),
        reserve(files, patience_seconds=0),
    ):
        pass


def test_the_second_has_its_turn(files: Files) -> None:
    """Who waits is interrupted now and then, and goes on when the first has ended."""
    first = ExitStack()
    first.enter_context(reserve(files))
    with reserved(files, lock=lock_of(files), patience_seconds=600, interrupt=first.close):
        assert texts(files)["run"] == "0"


def test_all_knobs_are_tried(files: Files) -> None:
    """A knob that cannot be put back does not keep the others from it, and the failure is told."""
    (files.directory / "max_page_sharing").unlink()
    (files.directory / "max_page_sharing").mkdir()
    for name in ("pages_to_scan", "sleep_millisecs"):
        files.write(name, 1)
    with pytest.raises(OSError, match="max_page_sharing"):
        files.restore(FOUND)
    assert texts_of(files, "pages_to_scan", "sleep_millisecs") == ["100", "20"]


def texts_of(files: Files, *names: str) -> list[str]:
    return [files.read(name) for name in names]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_wait_until_all_is_put_back(
    files: Files, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that arrives while knobs are put back is handled after that, and not lost."""
    arrived: list[int] = []
    before = signal.signal(number, lambda number, _: arrived.append(number))
    restore = files.restore

    def interrupted(knobs: dict[str, str]) -> None:
        signal.raise_signal(number)
        assert arrived == []
        restore(knobs)

    monkeypatch.setattr(files, "restore", interrupted)
    try:
        with reserve(files):
            pass
    finally:
        signal.signal(number, before)
    assert arrived == [number]
    assert texts(files) == restored()


def test_without_ksm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without KSM, a user that is not root: one line each."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(driver, "Files", lambda: Files(tmp_path / "none"))
    with pytest.raises(KsmUnavailable, match="has no KSM"), driving():
        pass
    monkeypatch.setattr(driver, "Files", lambda: Files(tmp_path))
    with pytest.raises(KsmUnavailable, match="only root"), driving():
        pass


# --- with the kernel


@pytest.fixture
def knobs(referee: Referee) -> Iterator[dict[str, str]]:
    """The machine's knobs; after the test they must be the same. Skips where KSM cannot be driven."""
    with referee():
        pass
    before = Files().knobs()
    yield before
    assert Files().knobs() == before
    assert LOCK.read_text() == ""


def test_the_machine_is_as_it_was(knobs: dict[str, str]) -> None:
    """After passes with other knobs, and an error, every knob has its value and nothing is merged."""

    def drive_and_fail() -> None:
        with driving({"max_page_sharing": 5}) as ksm, Child() as child:
            child.map(pages("a a b"))
            for _ in range(3):
                ksm.one_pass()
            assert ksm.counters()["pages_sharing"] == 1
            assert Files().knobs() != knobs
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drive_and_fail()
    assert Files().number("pages_shared") == 0


def test_the_advisor_is_put_back(knobs: dict[str, str]) -> None:
    """Every file that can be written is saved, and those of the advisor come back too, after it has run."""
    writable = {path.name for path in Files().directory.iterdir() if path.stat().st_mode & 0o200}
    assert set(knobs) == writable
    changed = {name: int(value) + 1 for name, value in knobs.items() if value.isdigit() and "advisor" in name}
    if not changed:
        pytest.skip("this kernel's KSM has no advisor")
    with driving({**changed, "advisor_mode": "scan-time"}, patience_seconds=120) as ksm:
        ksm.one_pass()
        there = ksm.files.knobs()
        assert {name: int(there[name]) for name in changed} == changed
        assert there["advisor_mode"] == "scan-time"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_dies(knobs: dict[str, str], number: int) -> None:
    """After Ctrl-C the knobs are back at once, after SIGKILL when KSM is driven the next time."""
    command = [sys.executable, "-P", "-c", STAY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"driving\n"
        assert Files().knobs() != knobs
        process.send_signal(number)
        process.wait()
    if number == signal.SIGKILL:
        assert Files().knobs() != knobs
        with driving() as ksm:
            ksm.one_pass()
    assert Files().knobs() == knobs


def test_memory_of_strangers(knobs: dict[str, str]) -> None:
    """Where another process offers pages, its pages would be counted: refused."""
    with Child() as stranger:
        stranger.map(pages("a b"))
        with pytest.raises(KsmUnavailable, match="other processes offer 2 pages"), driving():
            pass


def test_every_pass_is_one(referee: Referee) -> None:
    """A hundred passes are a hundred, also with nothing to scan, and after unmerging."""
    with referee() as both:
        for number in range(1, 101):
            both.one_pass()
            assert both.ksm.files.number("full_scans") == number
        both.unmerge()
        both.one_pass()
        assert both.ksm.files.number("full_scans") == 1


def test_waiting_may_be_interrupted(knobs: dict[str, str]) -> None:
    """The function that is called while something is waited for may raise, and all is put back."""
    asked = threading.Event()

    def interrupt() -> None:
        if asked.is_set():
            raise KeyboardInterrupt

    def drive() -> None:
        with driving(interrupt=interrupt) as ksm, Child() as child:
            child.map(np.zeros((4096, 4096), np.uint8))
            asked.set()
            for _ in range(1000):
                ksm.one_pass()

    with pytest.raises(KeyboardInterrupt):
        drive()


def test_a_child_that_is_killed(knobs: dict[str, str]) -> None:
    """A child may die before it is told to: ending it then is no error."""
    with Child() as child:
        child.map(pages("a"))
        os.kill(child.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            until(lambda: Path(f"/proc/{child.pid}/stat").read_text().split()[2] == "Z")


def test_a_knob_that_the_kernel_lacks(knobs: dict[str, str]) -> None:
    """The name is told, and nothing is left changed."""
    with pytest.raises(KsmUnavailable, match="has no colour"), driving({"colour": 1}):
        pass
    with pytest.raises(KsmUnavailable, match="max_page_sharing=1: "), driving({"max_page_sharing": 1}):
        pass


def test_a_lock_that_cannot_be_opened(files: Files) -> None:
    """One line says which file it is, and no knob has been touched."""
    lock_of(files).mkdir()
    with pytest.raises(KsmUnavailable, match=r"/lock: Is a directory$"), reserve(files):
        pass
    assert texts(files)["sleep_millisecs"] == "20"
