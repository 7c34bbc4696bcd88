"""Snapshots of real child processes."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from live_child import (
    PAGE,
    Child,
    content,
    entries,
    frame,
    is_present,
    needs_frames,
    needs_root,
    pages_at,
    present_pages,
    storage_at,
)
from lksm.errors import SourceError
from lksm.memory import RegionFlag, as_page_runs
from lksm.sources import _pagemap, _procfs, _vmread, live
from lksm.sources._types import Gone, Snapshot

_FILLED = "m = private(40)\nfor page in range(20): fill(m, page, page)"


def skipped_bytes(snapshot: Snapshot, what: str) -> int:
    return sum(item.nbytes for item in snapshot.skipped if item.what == what)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited for 10 s"
        time.sleep(0.01)


# --- bytes and presence


def test_anonymous_pages_are_copied_byte_for_byte() -> None:
    """Every touched page of a private anonymous mapping is there with its bytes, and no other one."""
    with Child(_FILLED) as child:
        [process] = live.snapshot([child.pid]).processes
        pages = pages_at(process, child.ask("address(m)"), 40)
    assert pages == {page: content(page) for page in range(20)}
    assert process.pid == child.pid
    assert process.source == f"pid {child.pid}"


def test_untouched_pages_stay_untouched() -> None:
    """A snapshot makes no page of the target present and reports those that are not."""
    with Child("m = private(1000)\nfor page in range(0, 1000, 100): fill(m, page, page)") as child:
        address = child.ask("address(m)")
        before = [is_present(entry) for entry in entries(child.pid, address, 1000)]
        snapshot = live.snapshot([child.pid])
        after = [is_present(entry) for entry in entries(child.pid, address, 1000)]
        assert set(pages_at(snapshot.processes[0], address, 1000)) == set(range(0, 1000, 100))
    assert before == after
    assert sum(before) == 10
    assert skipped_bytes(snapshot, "untouched pages") >= 990 * PAGE


@pytest.mark.parametrize("advice", ["MADV_NOHUGEPAGE", "MADV_HUGEPAGE"])
@pytest.mark.parametrize("scans", [True, False])
def test_the_shared_page_of_zeros_is_no_memory_of_the_process(
    advice: str, scans: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that were only read map the kernel's page of zeros, small or huge: skipped, and said so."""
    if not scans:
        needs_frames()
        monkeypatch.setattr(_pagemap, "scan_mask_of_kernel", lambda: 0)
    with Child(f"m = private(1024, mmap.{advice})") as child:
        child.do("for page in range(1024): m[page * PAGE]")
        fresh = live.snapshot([child.pid])
        child.do("m[600 * PAGE] = 1")
        address = child.ask("address(m)")
        [process] = live.snapshot([child.pid]).processes
        present = sum(is_present(entry) for entry in entries(child.pid, address, 1024))
    if scans:
        assert skipped_bytes(fresh, "zero page mappings") >= 1024 * PAGE
    assert pages_at(fresh.processes[0], address, 1024) == {}
    pages = pages_at(process, address, 1024)
    assert 600 in pages
    assert present == 1024
    assert len(pages) == (1 if advice == "MADV_NOHUGEPAGE" else len(pages)) <= 512


def test_protected_pages_are_read() -> None:
    """Pages that their own process may not read (PROT_NONE) have bytes all the same."""
    protect = "ctypes.CDLL(None).mprotect(ctypes.c_void_p(address(m) + 5 * PAGE), 3 * PAGE, 0)"
    with Child(_FILLED + "\n" + protect) as child:
        [process] = live.snapshot([child.pid]).processes
        pages = pages_at(process, child.ask("address(m)"), 40)
    assert pages == {page: content(page) for page in range(20)}


def test_a_page_that_vanishes_meanwhile_is_absent_and_stays_so() -> None:
    """Pages dropped between look and read are absent, reported, and not faulted in by reading."""
    with Child("m = private(40000)\nm.write(b'x' * len(m))") as child:
        address = child.ask("address(m)")
        dropped: list[int] = []

        def drop_once(done: int, total: int) -> None:
            if not dropped:
                child.do("drop(m, 39000, 40000)")
                dropped.append(done)

        snapshot = live.snapshot([child.pid], progress=drop_once)
        assert dropped[0] < 20000 * PAGE  # and readers are not that far ahead
        assert not any(is_present(entry) for entry in entries(child.pid, address + 39000 * PAGE, 1000))
        assert set(pages_at(snapshot.processes[0], address, 40000)) == set(range(39000))
    assert skipped_bytes(snapshot, "vanished pages") >= 1000 * PAGE


def test_a_process_in_shreds_gets_few_regions() -> None:
    """Thousands of separate pages do not become thousands of regions, and keep address and bytes."""
    with Child("m = private(10000)\nfor page in range(0, 10000, 2): fill(m, page, page % 50)") as child:
        [process] = live.snapshot([child.pid]).processes
        pages = pages_at(process, child.ask("address(m)"), 10000)
    assert pages == {page: content(page % 50) for page in range(0, 10000, 2)}
    assert len(process.regions) < 1500
    assert len(as_page_runs(process.regions, page_size=PAGE)) == len(process.regions)
    assert process.nbytes == len(list(present_pages(process))) * PAGE


# --- other ways of looking and reading


def test_plain_pagemap_entries_tell_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PAGEMAP_SCAN (before Linux 6.7) a stopped process yields the very same pages."""
    with Child(_FILLED) as child:
        os.kill(child.pid, signal.SIGSTOP)
        wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
        [scanned] = live.snapshot([child.pid]).processes
        monkeypatch.setattr(_pagemap, "scan_mask_of_kernel", lambda: 0)
        [plain] = live.snapshot([child.pid]).processes
    assert [(at, data) for at, _, data in present_pages(plain)] == [
        (at, data) for at, _, data in present_pages(scanned)
    ]


@pytest.mark.parametrize("code", [None, errno.ENOSYS, errno.EPERM])
def test_proc_mem_serves_where_process_vm_readv_does_not(
    code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing or refused, process_vm_readv is replaced by /proc/PID/mem."""

    def refuse(*arguments: object) -> int:
        ctypes.set_errno(code or 0)
        return -1

    libc = SimpleNamespace() if code is None else SimpleNamespace(process_vm_readv=refuse)
    monkeypatch.setattr(_vmread, "_libc", libc)
    with Child(_FILLED) as child:
        [process] = live.snapshot([child.pid]).processes
        assert pages_at(process, child.ask("address(m)"), 40) == {page: content(page) for page in range(20)}


def test_maps_serve_where_smaps_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without smaps the pages are found by maps, and a note says how exclusions were told."""
    read_text = Path.read_text

    def no_smaps(path: Path, *arguments: object, **options: object) -> str:
        if path.name == "smaps":
            raise PermissionError(errno.EACCES, "no smaps")
        return read_text(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", no_smaps)
    with Child(_FILLED) as child:
        [process] = live.snapshot([child.pid], what="all").processes
        assert pages_at(process, child.ask("address(m)"), 40) == {page: content(page) for page in range(20)}
    assert any("smaps could not be read" in note for note in process.notes)


# --- pages that are one already


def test_forked_pages_are_stored_once_and_stay_shared() -> None:
    """Pages in one frame have one storage, are counted exactly, and reading does not tear them apart."""
    needs_frames()
    with Child(_FILLED + "\nkid, tell = fork()") as child:
        pids, address = [child.pid, child.ask("kid")], child.ask("address(m)")
        before = [entries(pid, address, 20) for pid in pids]
        first, second = live.snapshot(pids).processes
        after = [entries(pid, address, 20) for pid in pids]
        seen = [
            frame(entries(pid, at, 1)[0])
            for pid, process in zip(pids, (first, second), strict=True)
            for at, _, _ in present_pages(process)
        ]
    assert [frame(entry) for entry in before[0]] == [frame(entry) for entry in before[1]]
    assert before == after
    assert storage_at(first, address, 40) == storage_at(second, address, 40)
    assert pages_at(second, address, 40) == {page: content(page) for page in range(20)}
    assert first.already_shared_pages == 0
    assert second.already_shared_pages == len(seen) - len(set(seen)) > 20
    stored = {here for process in (first, second) for _, here, _ in present_pages(process)}
    assert len(stored) == len(set(seen))


def test_written_pages_are_not_shared_any_more() -> None:
    """Pages that the forked child wrote have storage and bytes of their own; the others are still one."""
    needs_frames()
    with Child(_FILLED + "\nkid, tell = fork()") as child:
        child.do("tell('for page in (3, 4, 11): fill(m, page, 100 + page)')")
        pids, address = [child.pid, child.ask("kid")], child.ask("address(m)")
        first, second = live.snapshot(pids).processes
        apart = {3, 4, 11}
        own, other = storage_at(first, address, 20), storage_at(second, address, 20)
        assert {page for page in range(20) if own[page] != other[page]} == apart
        assert pages_at(first, address, 40) == {page: content(page) for page in range(20)}
        assert pages_at(second, address, 40) == {
            page: content(100 + page if page in apart else page) for page in range(20)
        }


def test_a_page_that_is_written_while_it_is_read_is_taken_by_itself() -> None:
    """When the first holder writes between look and read, the other one still gets its own bytes."""
    needs_frames()
    setup = "big = private(4200)\nbig.write(b'b' * len(big))\nm = private(20)\n"
    with Child(setup + "for page in range(20): fill(m, page, page)\nkid, tell = fork()") as child:
        pids, address = [child.pid, child.ask("kid")], child.ask("address(m)")
        written: list[int] = []

        def write_once(done: int, total: int) -> None:
            if not written:
                child.do("for page in range(20): fill(m, page, 200 + page)")
                child.do("big.seek(0); big.write(b'c' * len(big))")
                written.append(done)

        first, second = live.snapshot(pids, progress=write_once).processes
        assert written[0] < 4200 * PAGE
        assert pages_at(second, address, 20) == {page: content(page) for page in range(20)}
        own, other = storage_at(first, address, 20), storage_at(second, address, 20)
        assert not set(own.values()) & set(other.values())
        big = child.ask("address(big)")
        assert set(pages_at(second, big, 4200).values()) == {b"b" * PAGE}


def test_one_process_may_map_a_page_twice() -> None:
    """A page that is mapped twice in one process is stored once and counted as already shared once."""
    needs_frames()
    setup = """
fd = os.memfd_create("twice")
os.ftruncate(fd, 8 * PAGE)
one, two = mmap.mmap(fd, 8 * PAGE), mmap.mmap(fd, 8 * PAGE)
for page in range(8): fill(one, page, page)
for page in range(8): two[page * PAGE]
"""
    with Child(setup) as child:
        [process] = live.snapshot([child.pid], what="all").processes
        one = storage_at(process, child.ask("address(one)"), 8)
        two = storage_at(process, child.ask("address(two)"), 8)
    assert one == two
    assert len(one) == 8
    assert process.already_shared_pages is not None
    assert process.already_shared_pages >= 8


# --- which mappings


def test_what_chooses_the_mappings(tmp_path: Path) -> None:
    """ "anon": copied pages only; "private": file pages too; "all": shared mappings too, marked as such."""
    file = tmp_path / "file"
    file.write_bytes(b"".join(content(page) for page in range(8)))
    setup = f"""
file = open({str(file)!r}, "r+b")
m = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
for page in range(8): m[page * PAGE]
for page in (1, 2, 5): fill(m, page, 50 + page)
shared = mmap.mmap(-1, 4 * PAGE)
for page in range(4): fill(shared, page, page)
"""
    copied = {page: content(50 + page) for page in (1, 2, 5)}
    every = {page: content(page) for page in range(8)} | copied
    with Child(setup) as child:
        address, shared = child.ask("address(m)"), child.ask("address(shared)")
        [anon] = live.snapshot([child.pid]).processes
        [private] = live.snapshot([child.pid], what="private").processes
        [all_] = live.snapshot([child.pid], what="all").processes
    assert pages_at(anon, address, 8) == copied
    assert pages_at(private, address, 8) == every
    assert pages_at(all_, address, 8) == every
    assert pages_at(anon, shared, 4) == pages_at(private, shared, 4) == {}
    assert pages_at(all_, shared, 4) == {page: content(page) for page in range(4)}
    assert all(region.flags == RegionFlag.NONE for region in anon.regions)
    [marked] = [region for region in all_.regions if pages_at(replace(all_, regions=(region,)), shared, 1)]
    assert marked.flags & RegionFlag.SHARED


def test_mappings_that_ksm_excludes_are_marked() -> None:
    """The vdso must not be expanded, so "anon" has none of it and "private" has it with that flag."""
    with Child() as child:
        lines = Path(f"/proc/{child.pid}/maps").read_text().splitlines()
        ranges = {line.split()[-1]: [int(edge, 16) for edge in line.split()[0].split("-")] for line in lines}
        if "[vdso]" not in ranges:
            pytest.skip("this machine has no vdso")
        start, stop = ranges["[vdso]"]
        [anon] = live.snapshot([child.pid]).processes
        [private] = live.snapshot([child.pid], what="private").processes
    assert pages_at(anon, start, (stop - start) // PAGE) == {}
    flags = {region.flags for region in private.regions if start <= region.address < stop}
    assert flags in ({RegionFlag.DONTEXPAND}, set())  # not present unless it was used
    assert not any(region.flags & (RegionFlag.IO | RegionFlag.PFNMAP) for region in private.regions)


# --- who cannot be used


def test_a_pid_that_is_gone_is_reported_and_the_others_go_on() -> None:
    """A pid without a process is Gone; the process next to it is taken."""
    with Child() as dead:
        pass
    with Child() as child:
        snapshot = live.snapshot([dead.pid, child.pid])
    assert snapshot.gone == (Gone(dead.pid, None),)
    assert [process.pid for process in snapshot.processes] == [child.pid]


@pytest.mark.parametrize("is_reaped", [True, False])
def test_a_process_that_dies_while_it_is_read_is_gone(is_reaped: bool) -> None:
    """A process killed in the middle is Gone with its name, and whoever shared its pages is complete."""
    needs_frames()
    setup = "m = private(6000)\nm.write(b'y' * len(m))\nkid, tell = fork()"
    with Child(setup) as child, Child() as other:
        kid, address = child.ask("kid"), child.ask("address(m)")

        def kill_once(done: int, total: int) -> None:
            if psutil.pid_exists(kid):
                os.kill(kid, signal.SIGKILL)
                child.do(f"os.waitid(os.P_PID, kid, os.WEXITED | (0 if {is_reaped} else os.WNOWAIT))")

        snapshot = live.snapshot([kid, child.pid, other.pid], progress=kill_once)
    assert [(gone.pid, gone.name is None) for gone in snapshot.gone] == [(kid, False)]
    assert [process.pid for process in snapshot.processes] == [child.pid, other.pid]
    assert set(pages_at(snapshot.processes[0], address, 6000).values()) == {b"y" * PAGE}
    assert len(pages_at(snapshot.processes[0], address, 6000)) == 6000
    assert snapshot.processes[0].already_shared_pages == 0


def test_a_pid_that_is_given_away_meanwhile_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process has the pid after reading, its pages are not passed off as the first one's."""
    read_status = _procfs.read_status
    started = iter(range(9))

    def reused(pid: int) -> _procfs.Status:
        return replace(read_status(pid), started=next(started))

    monkeypatch.setattr(_procfs, "read_status", reused)
    with Child() as child:
        snapshot = live.snapshot([child.pid])
    assert [gone.pid for gone in snapshot.gone] == [child.pid]
    assert snapshot.processes == ()


def test_processes_without_memory_are_refused_by_pid_and_left_out_of_all_pids() -> None:
    """Kernel threads, zombies, threads and this process are refused with the reason."""
    setup = "thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)\nthread.start()"
    with Child(setup) as child:
        thread = child.ask("thread.native_id")
        zombie = subprocess.Popen(["true"])
        try:
            wait_for(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
            refused = live.snapshot([thread, zombie.pid, os.getpid(), -1]).refused
            pids = live.all_pids()
        finally:
            zombie.wait()
    reasons = {item.source: item.reason for item in refused}
    assert "thread of process" in reasons[f"pid {thread}"]
    assert "zombie" in reasons[f"pid {zombie.pid}"]
    assert "this very process" in reasons[f"pid {os.getpid()}"]
    assert reasons["pid -1"] == "not a process id"
    assert child.pid in pids
    assert not {thread, zombie.pid, os.getpid()} & set(pids)


def test_kernel_threads_have_no_memory() -> None:
    """A kernel thread is refused as such, and not in all_pids()."""
    found = [process.pid for process in psutil.process_iter(["ppid"]) if process.info["ppid"] == 2]
    if not found:
        pytest.skip("no kernel thread is visible here")
    assert live.snapshot(found[:1]).refused[0].reason == "kernel thread has no memory"
    assert found[0] not in live.all_pids()


_AS_NOBODY = """
import ctypes, json, mmap, os, sys, time
import numpy.ma  # np.unique imports it late, when nobody may not read the environment of root any more
from lksm.sources import live
os.setgroups([]); os.setgid(65534); os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: let our own children be looked at
m = mmap.mmap(-1, 10 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.write(b"n" * len(m))
down = os.pipe()
kid = os.fork()
if kid == 0:
    os.close(down[1])
    os.read(down[0], 1)
    os._exit(0)
try:
    s = live.snapshot([kid, int(sys.argv[1])])
    rows = [r.array.tobytes().count(b"n" * mmap.PAGESIZE) for p in s.processes for r in p.regions]
    print(json.dumps({
        "kid": kid,
        "shared": [(p.pid, p.already_shared_pages) for p in s.processes],
        "pages": sum(rows),
        "refused": [(r.source, r.reason) for r in s.refused],
    }))
finally:
    os.close(down[1])
    os.waitpid(kid, 0)
"""


def test_without_privilege_sharing_is_unknown_and_strangers_refuse() -> None:
    """As nobody, own processes are read with sharing unknown, others refused naming CAP_SYS_PTRACE."""
    needs_root()
    import json

    with Child() as stranger:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(_AS_NOBODY), str(stranger.pid)],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["shared"] == [[seen["kid"], None]]
    assert seen["pages"] >= 10
    [(source, reason)] = seen["refused"]
    assert source == f"pid {stranger.pid}"
    assert "CAP_SYS_PTRACE" in reason


# --- limits, progress, arguments


def test_the_limit_trims_and_reports() -> None:
    """No more than the limit is taken, in order, and the rest is reported to the byte."""
    with Child(_FILLED) as child, Child(_FILLED) as other:
        for pid in (child.pid, other.pid):
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda pid=pid: psutil.Process(pid).status() == psutil.STATUS_STOPPED)  # type: ignore[misc]
        pids = [child.pid, other.pid]
        full = live.snapshot(pids)
        limit = full.processes[0].nbytes + 3 * PAGE + 5
        trimmed = live.snapshot(pids, limit_bytes=limit)
        nothing = live.snapshot(pids, limit_bytes=0)
    assert [process.nbytes for process in trimmed.processes] == [full.processes[0].nbytes, 3 * PAGE]
    taken = list(present_pages(trimmed.processes[1]))
    assert [at for at, _, _ in taken] == [at for at, _, _ in present_pages(full.processes[1])][:3]
    assert skipped_bytes(trimmed, "pages over the limit") == full.processes[1].nbytes - 3 * PAGE
    assert nothing.processes == ()
    total = sum(process.nbytes for process in full.processes)
    assert skipped_bytes(nothing, "pages over the limit") == total


def test_the_default_limit_is_half_of_what_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 20 pages of memory available, 10 are taken."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=20 * PAGE))
    with Child(_FILLED) as child:
        assert live.snapshot([child.pid]).processes[0].nbytes == 10 * PAGE


def test_progress_rises_to_the_total() -> None:
    """The callback sees growing numbers that end with everything read."""
    calls: list[tuple[int, int]] = []
    with Child("m = private(9000)\nm.write(b'x' * len(m))") as child:
        [process] = live.snapshot([child.pid], progress=lambda *call: calls.append(call)).processes
    assert len(calls) >= 3
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1] >= process.nbytes > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"page_size": 2 * PAGE}, f"page size {2 * PAGE}"),
        ({"what": "heap"}, "what is 'heap'"),
        ({"limit_bytes": -1}, "limit_bytes is -1"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], message: str) -> None:
    """A bad argument raises SourceError with its name and value."""
    with pytest.raises(SourceError, match=message):
        live.snapshot([1 << 22], **options)  # type: ignore[arg-type]


def test_a_pid_named_twice_is_taken_once() -> None:
    """The same pid twice is one process."""
    with Child() as child:
        assert len(live.snapshot([child.pid, child.pid], page_size=PAGE).processes) == 1
