"""ksmd on a lead: exactly one pass whenever one is asked for.

A batch of ksmd ends where a pass ends, at the latest. So with `pages_to_scan` larger than any memory a batch
is a pass, and between two of them ksmd naps for `sleep_millisecs`: hours, unless the nap is cut short,
which happens when that knob is given another value. Five rules make it exact:

- A value is never used twice: one that equals what ksmd went to sleep with is no change.
- The next value is stored only when ksmd sleeps. It counts the pass before it reads the knob for its nap,
  so a value that is stored in between is what it goes to sleep with, and wakes nobody.
- `run` 1 wakes ksmd only where it waits for that, which it does not before its nap has ended.
- Somebody always offers memory, if only an area without a page: where nobody does, ksmd does not nap but
  waits for a first process, would begin a pass at its first offer, and counts no pass till then.
- Every pass is checked to be one: `full_scans` went up by one.

With `advisor_mode` scan-time the advisor sets `pages_to_scan`, and a batch is a pass only while there are no
more pages than it says: as few as 10 after its first pass (docs/kernel-map.md).
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ._errors import KsmUnavailable
from ._files import Files, in_order
from ._reservation import LOCK, reserved

COUNTERS = (
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "stable_node_chains",
    "stable_node_dups",
    "pages_scanned",
    "pages_skipped",
    "ksm_zero_pages",
)
_SINCE_BOOT = ("pages_scanned", "pages_skipped")

_PROC = Path("/proc")
_NAP_MILLISECS = 3_600_000  # the shortest of all naps
_NAPS = 10**9  # how many naps of different lengths there are
_PAGES_OF_ANY_MEMORY = 2**31
_LOOK_SECONDS = 0.0002
_PASS_SECONDS = 600.0  # nothing takes that long; something is wrong


def expect_drivable() -> Files:
    """The files of the kernel's KSM; KsmUnavailable where it plainly cannot be driven. Nothing is touched."""
    files = Files()
    if not files.is_there():
        raise KsmUnavailable(f"the running kernel has no KSM: there is no {files.directory}")
    if os.geteuid() != 0:
        raise KsmUnavailable("only root may drive the kernel's KSM")
    return files


@contextmanager
def driving(
    knobs: Mapping[str, object] | None = None,
    *,
    patience_seconds: float = 600.0,
    interrupt: Callable[[], object] = lambda: None,
) -> Iterator[Ksm]:
    """Have the kernel's KSM for oneself, with these knobs and nothing merged; put all back at the end.

    KsmUnavailable says why not: no root, no KSM, others use it, or it lacks one of the knobs. `interrupt`
    is called again and again while something is waited for, and may raise.
    """
    files = expect_drivable()
    ksmd = _find_ksmd()
    with (
        reserved(files, lock=LOCK, patience_seconds=patience_seconds, interrupt=interrupt),
        _offer_without_pages(),
    ):
        ksm = Ksm(files, ksmd, interrupt)
        ksm.reset(knobs or {})
        ksm.one_pass()
        strangers = ksm.counters()["pages_volatile"]  # nobody's pages are more than that after one pass
        if strangers:
            raise KsmUnavailable(f"KSM is in use: other processes offer {strangers} pages for merging")
        ksm.reset(knobs or {})
        yield ksm


class Ksm:
    """The kernel's KSM, while it is ours."""

    def __init__(self, files: Files, ksmd: Path, interrupt: Callable[[], object]) -> None:
        self.files = files
        self._ksmd = ksmd
        self._interrupt = interrupt
        self._nap = time.time_ns() // 1_000_000 % _NAPS  # after others that drove it since boot
        self._names = [name for name in COUNTERS if name in files]
        self._base: dict[str, int] = {}

    def reset(self, knobs: Mapping[str, object]) -> None:
        """Unmerge everything, forget every page, and set knobs; of all others the kernel's defaults hold."""
        self.files.write("run", 2)
        self.files.write("run", 0)
        self._wait_for_sleep()
        wanted = {**_defaults(self.files), **knobs}
        # untested: kernels before 6.8
        if "advisor_mode" in self.files:  # what one of an earlier reset has learnt is forgotten
            self.files.write("advisor_mode", "none")
        for name, value in in_order(wanted):
            try:
                self.files.write(name, value)
            except FileNotFoundError:
                raise KsmUnavailable(f"the running kernel's KSM has no {name}") from None
            except OSError as error:
                raise KsmUnavailable(f"the running kernel's KSM: {name}={value}: {error.strerror}") from None
        self._base = {name: self.files.number(name) for name in _SINCE_BOOT if name in self.files}

    def counters(self) -> dict[str, int]:
        """What KSM counts, as far as this kernel does; what it counts since boot, since `reset`."""
        return {name: self.files.number(name) - self._base.get(name, 0) for name in self._names}

    def one_pass(self) -> dict[str, int]:
        """Exactly one pass over everything; returns the counters after it."""
        before = self.files.number("full_scans")
        self._new_nap()
        if self.files.read("run") != "1":  # now it waits for that, and for no nap
            self.files.write("run", 1)
        self._wait(lambda: self.files.number("full_scans") != before)
        self._wait_for_sleep()
        after = self.files.number("full_scans")
        if after != before + 1:
            # untested: somebody else at the knobs
            raise KsmUnavailable(f"KSM is in use: {after - before} passes ran where one was asked for")
        return self.counters()

    def unmerge(self) -> dict[str, int]:
        """Give every page back to its owner and forget it; passes go on when they are asked for."""
        self.files.write("run", 2)
        return self.counters()

    def cpu_seconds(self) -> float:
        """CPU time of ksmd so far."""
        with suppress(FileNotFoundError):
            return int((self._ksmd / "schedstat").read_text().split()[0]) / 1e9
        # untested: kernels without schedstat
        fields = (self._ksmd / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _new_nap(self) -> None:
        self._nap = (self._nap + 1) % _NAPS
        self.files.write("sleep_millisecs", _NAP_MILLISECS + self._nap)

    def _wait_for_sleep(self) -> None:
        self._wait(lambda: (self._ksmd / "stat").read_text().rpartition(")")[2].split()[0] == "S")

    def _wait(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PASS_SECONDS
        while not is_so():
            self._interrupt()
            if time.monotonic() > deadline:
                # untested: a kernel that hangs
                raise KsmUnavailable(f"ksmd did not finish a pass in {_PASS_SECONDS:g} s: {self.counters()}")
            time.sleep(_LOOK_SECONDS)


@contextmanager
def _offer_without_pages() -> Iterator[None]:
    """An area of ours that is advised mergeable and never touched."""
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_MERGEABLE)
        yield


def _defaults(files: Files) -> dict[str, object]:
    """The kernel's own start values, but one pass a batch; knobs that older kernels lack are left out."""
    defaults = {
        "advisor_mode": "none",
        "advisor_max_cpu": 70,
        "advisor_min_pages_to_scan": 500,
        "advisor_max_pages_to_scan": 30000,
        "advisor_target_scan_time": 200,
        "pages_to_scan": _PAGES_OF_ANY_MEMORY,
        "max_page_sharing": 256,
        "merge_across_nodes": 1,
        "smart_scan": 1,
        "stable_node_chains_prune_millisecs": 2000,
        "use_zero_pages": 0,
    }
    return {name: value for name, value in defaults.items() if name in files}


def _find_ksmd() -> Path:
    for directory in _PROC.iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            if (
                directory.name.isdigit()
                and (directory / "comm").read_text() == "ksmd\n"
                and _is_kernel(directory)
            ):
                return directory
    # untested: a PID namespace
    raise KsmUnavailable("ksmd is not to be seen: this is another PID namespace than the kernel's")


def _is_kernel(directory: Path) -> bool:
    """A kernel thread has no program."""
    return not (directory / "cmdline").read_bytes()
