"""docs/privileges.md: what commands need, how they refuse, and that they leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lksm.cli
import lksm.cli.compare
import lksm.cli.explain
import lksm.cli.scan
import lksm.cli.simulate
import lksm.cli.watch
import lksm.sources.events
import lksm.sources.live  # all of it now: nobody may not read where it is installed
from helpers import pages
from live_child import Child, needs_root
from run_lksm import NOT_OURS_UNDER_SANITIZER, PROGRAM

pytestmark = NOT_OURS_UNDER_SANITIZER

_NOBODY = 65534
_NOT_PERMITTED = "not permitted: needs CAP_SYS_PTRACE, or the same user and leave to trace it"


def in_a_fork(directory: Path, do: Callable[[], int]) -> tuple[int, str, str]:
    """Status, output and errors of something done in a fork of this process."""
    files = [directory / "out", directory / "err"]
    descriptors = [os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666) for file in files]
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            for number, descriptor in enumerate(descriptors, 1):
                os.dup2(descriptor, number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            status = do()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    for descriptor in descriptors:
        os.close(descriptor)
    _, waited = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(waited), files[0].read_text(), files[1].read_text()


def as_nobody(directory: Path, *arguments: object) -> tuple[int, str, str]:
    """`lksm ...` as a user without any privilege."""

    def run() -> int:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        return lksm.cli.main([str(argument) for argument in arguments])

    return in_a_fork(directory, run)


@pytest.fixture
def readable(tmp_path: Path) -> Path:
    """A directory that everybody may read, and a file there."""
    needs_root()
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & 0o5 != 0o5 and "pytest" in str(directory):
            directory.chmod(0o755)
    pages("a a b").tofile(tmp_path / "file")
    (tmp_path / "file").chmod(0o644)
    return tmp_path


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process of nobody."""
    needs_root()
    process = subprocess.Popen(["/bin/sleep", "1000"], user=_NOBODY, group=_NOBODY, extra_groups=[], cwd="/")
    yield process.pid
    process.kill()
    process.wait()


def test_files(readable: Path) -> None:
    """A file that may be read needs nothing; one that may not is refused, alone and among others."""
    status, out, err = as_nobody(readable, "scan", readable / "file")
    assert (status, err) == (0, "")
    assert "merging saves 4.0 KiB" in out
    pages("a").tofile(readable / "secret")
    (readable / "secret").chmod(0o600)
    said = f"lksm: {readable / 'secret'}: Permission denied\n"
    assert as_nobody(readable, "scan", readable / "secret") == (2, "", said)
    assert as_nobody(readable, "explain", readable / "secret", "--address", "0") == (2, "", said)
    status, out, err = as_nobody(readable, "scan", readable / "secret", readable / "file")
    assert (status, err) == (1, said)
    assert "merging saves 4.0 KiB" in out
    (readable / "closed").mkdir(mode=0o700)
    pages("a").tofile(readable / "closed" / "file")
    said = f"lksm: {readable / 'closed' / 'file'}: Permission denied\n"
    assert as_nobody(readable, "scan", readable / "closed" / "file") == (2, "", said)


@pytest.mark.parametrize("command", ["scan", "watch", "explain --address 0"])
def test_a_process_of_somebody_else(readable: Path, command: str) -> None:
    """Root's process is refused in one line that says what is needed."""
    with Child() as child:
        done = as_nobody(readable, *command.split(), "--pid", child.pid)
    assert done == (2, "", f"lksm: pid {child.pid}: {_NOT_PERMITTED}\n")


def test_a_process_of_ones_own(readable: Path, sleeper: int) -> None:
    """The same user's process is read; which pages are one already is unknown, and said to be."""
    status, out, err = as_nobody(readable, "scan", "--json", "--pid", sleeper)
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert document["scanned_bytes"] > 0
    assert document["already_shared_bytes"] is None


def test_all_processes(readable: Path, sleeper: int) -> None:
    """--all takes those that may be read, says of the others why not, and succeeds."""
    status, out, err = as_nobody(readable, "scan", "--json", "--all")
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert sleeper in [row["pid"] for row in document["processes"]]
    assert {"source": "pid 1", "what": "process", "nbytes": 0, "reason": _NOT_PERMITTED} in document[
        "skipped"
    ]


def test_compare(readable: Path) -> None:
    """Only root; that is said before any page is made or any file opened."""
    done = as_nobody(readable, "compare", "half", "--pages", 10**12, readable / "none")
    assert done == (2, "", "lksm: only root may drive the kernel's KSM\n")


def test_simulate(readable: Path) -> None:
    """Simulating needs nothing."""
    from small_workload import SMALL

    (readable / "w.toml").write_text(SMALL.replace("30_000", "2000"))
    status, out, err = as_nobody(readable, "simulate", "--policy", "ksm", readable / "w.toml")
    assert (status, err) == (0, "")
    assert out.startswith("small\n")


@pytest.mark.parametrize(
    "command",
    [
        "scan FILE --pid PID",
        "scan --json FILE --pid PID",
        "explain FILE --address 0",
        "watch --pid PID",
        "simulate TOML --policy ksm",
    ],
)
def test_nothing_is_written(tmp_path: Path, command: str) -> None:
    """No command opens a file for writing, makes a directory, or changes or removes a name."""
    from small_workload import SMALL

    pages("a a b").tofile(tmp_path / "file")
    (tmp_path / "w.toml").write_text(SMALL.replace("30_000", "2000"))
    with Child("memory = private(3); fill(memory, 0, 1)") as child:
        names = {"FILE": str(tmp_path / "file"), "PID": str(child.pid), "TOML": str(tmp_path / "w.toml")}
        arguments = [names.get(word, word) for word in command.split()]

        def run() -> int:
            written: list[Any] = []
            sys.addaudithook(lambda event, about: written.extend(_writes(event, about)))
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
            signal.alarm(3)
            status = lksm.cli.main(arguments)
            print(f"\nwritten: {written}")
            return status

        status, out, _ = in_a_fork(tmp_path, run)
    assert status == 0
    assert out.endswith("written: []\n")


def _writes(event: str, about: tuple[Any, ...]) -> list[Any]:
    if event == "open":
        path, _, flags = about
        return [about] if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != os.devnull else []
    is_change = event.startswith(("tempfile.", "shutil.")) or event in (
        "os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.truncate", "os.chmod",
    )  # fmt: skip
    return [event, about] if is_change else []


def test_the_hook_sees_writing(tmp_path: Path) -> None:
    """The test above would see a file that is written."""

    def run() -> int:
        written: list[Any] = []
        sys.addaudithook(lambda event, about: written.extend(_writes(event, about)))
        (tmp_path / "new").write_text("x")
        os.close(os.open(tmp_path / "other", os.O_CREAT | os.O_WRONLY))
        (tmp_path / "directory").mkdir()
        return len(written)

    assert in_a_fork(tmp_path, run)[0] == 4


def test_no_core_dump() -> None:
    """A crash while pages of others are held leaves no dump, though the user wants dumps."""
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]

    def want_a_dump() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # whatever our own caller does with it

    with Child() as child:
        process = subprocess.Popen(
            [*PROGRAM, "watch", "--pid", str(child.pid)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd="/", preexec_fn=want_a_dump,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()  # it has scanned
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert re.search(r"^Max core file size +[01] ", limits, re.MULTILINE)
        process.send_signal(signal.SIGQUIT)
        _, status = os.waitpid(process.pid, 0)
        process.returncode = status
        process.stdout.close()
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGQUIT
    assert not os.WCOREDUMP(status)


def test_the_document_names_every_command() -> None:
    """docs/privileges.md has a row for each command, and its messages are those of the program."""
    text = (Path(__file__).parents[2] / "docs" / "privileges.md").read_text()
    for command in lksm.cli.COMMANDS:
        assert f"`lksm {command}" in text or f"`{command} " in text
    assert _NOT_PERMITTED in text
    assert "only root may drive the kernel's KSM" in text
