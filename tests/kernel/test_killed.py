"""`lksm compare` killed at any moment: the next start puts the kernel's knobs back.

Each kill is real, and so is what it leaves. The knobs are set to something unusual before, so that defaults
would be noticed.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from alone import alone
from cgroups import until
from lksm.kernel import Files, KsmUnavailable, driver, driving

_UNUSUAL = {"pages_to_scan": "137", "sleep_millisecs": "41", "max_page_sharing": "99", "smart_scan": "1"}

_RUNS_LONG = "from lksm.cli import main; main(['compare', 'half', '--repeat', '99'])"

# Kills itself before or after its store number N to a file of the kernel, or right after a write to the note.
_DIES_AT_STORE = """
import os, signal, sys
from lksm.kernel import _files, _reservation
from lksm.cli import main
number, when = int(sys.argv[1]), sys.argv[2]
store, note, seen = _files.Files.write, _reservation._note, [0]
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def counted(files, name, value):
    seen[0] += 1
    if seen[0] == number and when == "before": die()
    store(files, name, value)
    if seen[0] == number and when == "after": die()
def noted(file, knobs):
    note(file, knobs)
    if (when == "noted" and knobs is not None) or (when == "cleared" and knobs is None): die()
def half(file, knobs):
    file.seek(0); file.truncate(); file.write(b'{"run": "0", "pages_to'); die()
_files.Files.write = counted
_reservation._note = half if when == "half" else noted
sys.exit(main(["compare", "half", "--pages", "2000"]))
"""


class Machine(NamedTuple):
    """The kernel's KSM, kept from all others; what is started here has a lock file of its own."""

    knobs: dict[str, str]
    lock: Path

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """A Python program that takes our lock file for everybody's."""
        beginning = f"from lksm.kernel import driver; driver.LOCK = type(driver.LOCK)({str(self.lock)!r})\n"
        return subprocess.Popen(
            [sys.executable, "-P", "-c", beginning + program, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def expect_repaired(self) -> None:
        """The next user finds the knobs as they were before the one that died, and leaves them so."""
        with driving(patience_seconds=60) as ksm:
            assert ksm.counters()["pages_shared"] == 0
        assert Files().knobs() == self.knobs
        assert Files().number("pages_shared") == 0
        assert self.lock.read_bytes() == b""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The machine with unusual knobs, which are as they were after the test. Skips where there is no KSM."""
    files = Files()
    try:
        with driving(patience_seconds=120):
            pass
    except KsmUnavailable as reason:
        pytest.skip(str(reason))
    with alone(), driver.LOCK.open("r+b") as everybodys:
        fcntl.flock(everybodys, fcntl.LOCK_EX)
        found = files.knobs()
        assert found["run"] == "0" and not everybodys.read()
        monkeypatch.setattr(driver, "LOCK", tmp_path / "lock")
        try:
            for name, value in _UNUSUAL.items():
                if name in files:
                    files.write(name, value)
            yield Machine(files.knobs(), tmp_path / "lock")
        finally:
            files.restore(found)


@pytest.mark.parametrize(
    ("number", "when"),
    [(number, when) for number in (1, 2, 4, 7, 11, 14, 17, 20, 24, 28) for when in ("before", "after")]
    + [(0, "noted"), (0, "half"), (0, "cleared")],
)
def test_killed_at_a_store(machine: Machine, number: int, when: str) -> None:
    """Before and after a store to a knob, with the note just written, half written, or just cleared."""
    process = machine.start(_DIES_AT_STORE, str(number), when)
    told = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, told
    assert (machine.lock.read_bytes() == b"") == (when == "cleared")
    assert machine.lock.stat().st_mode & 0o777 == 0o600
    machine.expect_repaired()


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_random(machine: Machine, seed: int) -> None:
    """At any time after the first knob was changed; then again, in the middle of the repair."""
    choose = random.Random(seed)
    for _ in range(2):
        process = machine.start(_RUNS_LONG)
        until(lambda: machine.lock.exists() and machine.lock.read_bytes())
        until(lambda: Files().knobs() != machine.knobs)
        time.sleep(choose.random() * 3)
        process.kill()
        process.communicate(timeout=60)
    machine.expect_repaired()


def test_its_children_die_with_it(machine: Machine) -> None:
    """Whoever holds the pages for the kernel ends soon after, and does not offer them to the next user."""
    process = machine.start(_RUNS_LONG)

    def children() -> list[int]:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return [int(word) for word in text.split()]

    until(lambda: len(children()) == 2)
    found = children()
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in found))
    machine.expect_repaired()
