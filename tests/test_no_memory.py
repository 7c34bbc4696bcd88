"""Memory runs out: in the core, in Python, where files are mapped. Nothing is lost, the engine goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lksm
from elfwriter import Load, elf_core
from helpers import pages, reads, unique_pages
from lksm._core import ffi, lib

# A program of its own ends with this if all went well.
FINE = 42


class Failing:
    """The core's own way to refuse an allocation: numbers in `struct memory`, the engine's first field."""

    def __init__(self, engine: lksm.Engine) -> None:
        assert engine._core is not None
        nr_words = ffi.cast("uint64_t *", engine._core._engine)
        # reserved bytes by purpose, then nr_allocations, fail_at, fail_count
        self._words: Any = nr_words + lib.LKSM_NR_PURPOSES

    @property
    def nr_allocations(self) -> int:
        return int(self._words[0])

    def at(self, number: int, nr_more: int = 0) -> None:
        """The allocation of this number fails, and so many after it; 0: none."""
        self._words[1], self._words[2] = number, nr_more


def _sight(engine: lksm.Engine) -> tuple[lksm.Counters, list[list[int]]]:
    """What a caller sees. That some memory was reserved in vain is no change."""
    tables = [engine.page_table(each).tolist() for each in engine.processes]
    return replace(engine.counters(), general_profit=0), tables


class Life:
    """Everything that needs memory, step by step; a step that is refused is done again."""

    def __init__(self, number: int, nr_more: int) -> None:
        self.engine = lksm.Engine(
            initial_rounds=0, nodes=2, seed=1, max_page_sharing=2, use_zero_pages=1, filter=True
        )
        self.failing = Failing(self.engine)
        self.failing.at(number, nr_more)
        self.nr_refused = 0

    def insist(self, step: Callable[[], Any]) -> Any:
        engine = self.engine
        before = _sight(engine)
        try:
            result = step()
        except lksm.OutOfMemory:
            self.nr_refused += 1
            self.failing.at(0)
            assert _sight(engine) == before
            assert engine.check() == []
            result = step()
        assert engine.check() == []
        return result

    def scan(self) -> None:
        self.engine.crawl("full")
        while self.engine.scanning:
            try:
                self.engine.scan(20)
            except lksm.OutOfMemory:
                self.nr_refused += 1
                self.failing.at(0)
            assert self.engine.check() == []

    def run(self) -> list[int]:
        """Lives, and returns the counters at rest; in the end nothing is held."""
        engine, insist = self.engine, self.insist
        key = ("lib.so", 0)
        region = lksm.Region(0, pages("a a b 0 c"), key=key)
        one = insist(lambda: engine.attach([region], name="one"))
        two = insist(lambda: engine.attach(pages("a b b 0 d"), immutable=True, name="two"))
        many = insist(lambda: engine.attach(unique_pages(300), domain=3, tracked=True, name="many"))
        self.scan()
        self.scan()
        child = insist(lambda: one.fork())
        insist(lambda: child.write(0, pages("x")[0]))
        insist(lambda: one.write(1, pages("b")[0]))
        insist(lambda: one.map(lksm.Region(0x100000, pages("a d"))))
        insist(lambda: one.move(0, 3, 1))
        insist(lambda: setattr(many, "domain", 0))
        self.scan()
        insist(lambda: engine.sharing_matrix())
        two.exit()
        engine.knobs.run = 2
        engine.knobs.run = 0
        self.failing.at(0)
        engine.settle()
        assert reads(one, "a b b 0 c a d")
        assert reads(child, "x a b 0 c")
        counters = engine.counters()
        for process in (one, child, many):
            process.exit()
        assert engine.check() == []
        held = engine.memory()
        assert [held[name] for name in ("frames", "keys", "roots", "physical", "filters")] == [0] * 5
        self.nr_allocations = self.failing.nr_allocations
        engine.close()
        return [counters.pages_shared, counters.pages_sharing, counters.pages_unshared, counters.zero_pages]


@pytest.mark.parametrize("nr_more", [0, 2**40], ids=["alone", "and all that follow"])
def test_every_allocation_of_the_core_fails(nr_more: int) -> None:
    """Whichever allocation fails, who is told sees nothing changed, and the same call then succeeds."""
    undisturbed = Life(0, 0)
    expected = undisturbed.run()
    nr_refused = 0
    for number in range(1, undisturbed.nr_allocations + 1):
        life = Life(number, nr_more)
        assert life.run() == expected, f"allocation {number}"
        nr_refused += life.nr_refused
    assert nr_refused > 20


def _run(program: str, *arguments: object) -> None:
    """Run a program whose own checks fail loudly, away from our memory."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COVERAGE_PROCESS_CONFIG": ""},  # what counts lines needs memory too
    )
    assert done.returncode == FINE, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"


_LIMIT = f"""
import os, resource, sys
import numpy as np
import lksm

def limit(more):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))

def lift():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def fine():
    os._exit({FINE})
"""

WITHOUT_SANITIZER = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="ASan needs terabytes of address space itself"
)


@WITHOUT_SANITIZER
@pytest.mark.parametrize("more", [0, 1 << 18, 1 << 20, 1 << 22, 1 << 24])
def test_no_address_space_is_left(more: int) -> None:
    """What fails under a limit of address space is a MemoryError; without the limit the engine goes on."""
    _run(
        _LIMIT
        + """
engine = lksm.Engine(initial_rounds=0)
rng = np.random.default_rng(1)
memory = rng.integers(0, 255, (20000, 4096), np.uint8)
memory[10000:] = memory[:10000]
process = engine.attach(memory)
del memory
limit(int(sys.argv[1]))
refused = 0
for step in (engine.full, lambda: engine.page_table(process), process.fork, engine.groups, engine.full):
    try:
        step()
    except MemoryError:
        refused += 1
lift()
shared = engine.counters().pages_shared
assert engine.check() == [], engine.check()
engine.settle()
assert engine.check() == []
assert engine.counters().pages_shared == 10000, engine.counters()
assert engine.counters().pages_sharing == 10000, engine.counters()
assert refused or shared < 10000, "the limit limits nothing"
fine()
""",
        more,
    )


_COMMAND = """
import os, resource, sys
which, limit = getattr(resource, sys.argv[1]), int(sys.argv[2])
sys.argv[1:] = sys.argv[3:]
resource.setrlimit(which, (limit, limit))
from lksm_command import main
os.write(1, b"there\\n")
sys.exit(main())
"""


@WITHOUT_SANITIZER
@pytest.mark.parametrize(("which", "least", "most"), [("RLIMIT_AS", 18, 118), ("RLIMIT_DATA", 8, 66)])
def test_the_command_with_little_memory(tmp_path: Path, which: str, least: int, most: int) -> None:
    """Whatever memory there is, `lksm` does its work, or says why it cannot in one line, with status 2.

    That is so once Python has got as far as the command. OpenBLAS, which numpy brings, ends the program
    itself if it finds no memory, with a line of its own and status 1, and Python may crash or hang. Nothing
    keeps them from that, so it happens to another process before.
    """
    pages("a a b").tofile(tmp_path / "image")
    statuses = []
    for limit in range(least << 20, most << 20, 3 << 19):
        done = subprocess.run(
            [sys.executable, "-P", "-c", _COMMAND, which, str(limit), "scan", str(tmp_path / "image")],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "COVERAGE_PROCESS_CONFIG": ""},
        )
        if not done.stdout.startswith("there\n"):
            continue  # Python had no memory itself
        where = f"{which} {limit}: {done}"
        assert done.returncode in (0, 2), where
        assert done.stderr.count("\n") == (done.returncode == 2), where
        assert done.stderr == "" or done.stderr.startswith("lksm: "), where
        statuses.append(done.returncode)
    assert statuses[0] == 2 and statuses[-1] == 0, statuses


@WITHOUT_SANITIZER
def test_no_room_to_map_a_file(tmp_path: Path) -> None:
    """A file of any kind that does not fit the address space is OutOfMemory with its name, and later fits."""
    memory = np.arange(1 << 23, dtype=np.uint64).reshape(-1, 512)
    memory.tofile(tmp_path / "image.raw")
    np.save(tmp_path / "array.npy", memory)
    (tmp_path / "core").write_bytes(elf_core([Load(0x10000, memory.tobytes())]))
    _run(
        _LIMIT
        + """
from lksm.sources import load
from lksm.cli import main
from lksm.cli import FAILED
engine = lksm.Engine(initial_rounds=0)
for name in ("image.raw", "array.npy", "core"):
    path = os.path.join(sys.argv[1], name)
    limit(1 << 24)
    try:
        load(path)
    except lksm.OutOfMemory as error:
        assert str(error).startswith(path) and "memory" in str(error), error
    else:
        raise AssertionError(f"{name} was mapped")
    assert main(["scan", path]) == FAILED
    lift()
    snapshot = load(path)
    engine.attach(list(snapshot.processes[0].regions), immutable=True)
engine.full()
assert engine.check() == []
assert engine.counters().pages_shared > 0
fine()
""",
        tmp_path,
    )


_PYTHON_FAILS = (
    _LIMIT
    + """
import _testcapi, gc
from lksm import Engine, Region

def pages(*letters):
    return np.repeat(np.frombuffer(bytes(letters), np.uint8), 4096).reshape(-1, 4096).copy()

first, second, more = pages(1, 1, 2), pages(1, 2, 3), pages(4, 1)
region = Region(0x100000, more)
data = bytes(pages(9))

# What the call returns, and what it raises, if this allocation of Python's fails.
def refuse(number, call):
    result, error = None, None
    _testcapi.set_nomemory(number, number + 1)
    try:
        result = call()
    except MemoryError as caught:
        error = caught.with_traceback(None)
    except (RuntimeError, SystemError) as caught:  # how Python says it of a lock, and where it forgets to
        _testcapi.remove_mem_hooks()
        assert "can't allocate lock" in str(caught) or "without exception set" in str(caught), caught
        error = caught.with_traceback(None)
    finally:
        _testcapi.remove_mem_hooks()
    return result, error

# A call that changes nothing: it answers the same, or refuses.
def ask(name, call, as_value, least):
    refused = number = 0
    expected = as_value(call())
    while number <= least or error is not None:
        result, error = refuse(number, call)
        assert error is not None or as_value(result) == expected, (name, number, result)
        assert as_value(call()) == expected, (name, number)
        refused += error is not None
        number += 1
    print(name, number, refused)
    assert refused

def trial(name, step, least):
    refused = number = 0
    while True:
        engine = Engine(initial_rounds=0, nodes=2, seed=1)
        one = engine.attach(first.copy(), name="one")
        engine.full()
        call = step(engine, one)
        _, error = refuse(number, call)
        assert engine.check() == [], (name, number, engine.check())
        assert engine.sharing_matrix().shape == (len(engine.processes),) * 2
        assert not any(each.exited for each in engine.processes), (name, number)
        if error is not None:
            refused += 1
            gc.collect()                # an array that nobody keeps alive would be gone now
            engine.full()
            assert engine.check() == []
            call()
        engine.full()
        assert engine.check() == []
        matrix = engine.sharing_matrix()
        assert len(matrix) == len(engine.processes)
        engine.close()
        number += 1
        if number > least and error is None:
            break
    print(name, number, refused)
    assert refused
"""
)


@WITHOUT_SANITIZER
def test_every_allocation_of_python_fails() -> None:
    """Python has no memory for one object in the middle of a call: nothing is half done that matters.

    Not of `start`: Python waits for ever for a thread that had no memory to begin.
    """
    pytest.importorskip("_testcapi")
    _run(
        _PYTHON_FAILS
        + """
trial("attach", lambda engine, one: lambda: engine.attach(second, name="two", mergeable=True), 60)
trial("map", lambda engine, one: lambda: one.map(region), 60)
trial("fork", lambda engine, one: lambda: one.fork(), 40)
trial("write", lambda engine, one: lambda: one.write(0, data), 20)
trial("move", lambda engine, one: lambda: one.move(0, 2, 1), 40)
trial("exit", lambda engine, one: lambda: one.exit(), 20)
trial("full", lambda engine, one: lambda: engine.full(), 60)
fine()
"""
    )


@WITHOUT_SANITIZER
def test_every_allocation_of_python_fails_in_answers(tmp_path: Path) -> None:
    """What is asked without memory is answered right or refused, and answered when there is memory again.

    Not of headers: pyelftools, and numpy's reader of dtypes, make other errors of it.
    """
    pytest.importorskip("_testcapi")
    pages("a b a c").tofile(tmp_path / "image.raw")
    _run(
        _PYTHON_FAILS
        + """
from lksm.sources import load
engine = Engine(initial_rounds=0, seed=1)
one = engine.attach(pages(1, 2, 2, 3, 3, 3, 4), name="one")
two = engine.attach(pages(4, 4, 5), name="two", immutable=True)
engine.settle()
def as_bytes(array):
    return array.tobytes()
ask("groups", lambda: engine.groups(), as_bytes, 120)
ask("sharing_matrix", lambda: engine.sharing_matrix(), as_bytes, 40)
ask("page_table", lambda: engine.page_table(one), as_bytes, 40)
ask("explain", lambda: [engine.explain(one, page) for page in (0, 1)], repr, 80)
ask("counters", lambda: engine.counters(), repr, 80)
ask("stats", lambda: one.stats(), repr, 60)
ask("memory", lambda: engine.memory(), repr, 60)
ask("check", lambda: engine.check(), repr, 20)
ask("Engine", lambda: Engine(seed=1), repr, 300)
def regions(snapshot):
    return [bytes(region.array) for process in snapshot.processes for region in process.regions]
ask("load", lambda: load(os.path.join(sys.argv[1], "image.raw")), regions, 300)
assert engine.check() == []
fine()
""",
        tmp_path,
    )
