"""What is fuzzed: one function for each parser. It takes any bytes and raises only if lksm is wrong.

A parser may accept its input or refuse it with its own error, of one line. What it accepts must hold: regions
inside the file and readable to the last byte, a workload within its ranges, a knob with the value it shows.
No warning may be shown meanwhile: it would go to the terminal, with what the file holds.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lksm
from lksm.cli import _options, watch
from lksm.errors import KnobError, SourceError
from lksm.knobs import READ_ONLY, SPECS
from lksm.memory import as_page_runs
from lksm.simulation import workload
from lksm.sources import Snapshot, elfcore, load, npy
from lksm.sources import raw as raw_image

PAGE_SIZE = 64  # small, so that small inputs have pages

_engine = lksm.Engine()
_NAMES = [*SPECS, *READ_ONLY, "no_such_knob"]
_OPTIONS = (
    _options.process_id, _options.nr_bytes, _options.page_size, _options.sharing_limit, _options.count,
    _options.positive, _options.seconds, _options.address, watch.knob,
)  # fmt: skip


def elf(data: bytes) -> None:
    """An ELF core."""
    _check_source(elfcore.load, data)


def raw(data: bytes) -> None:
    """A raw image, and whatever `load` takes bytes for."""
    _check_source(raw_image.load, data)
    _check_source(load, data)


def npy_file(data: bytes) -> None:
    """An .npy file."""
    _check_source(npy.load, data)


def toml(data: bytes) -> None:
    """A workload of `lksm simulate`."""
    try:
        with _no_warning():
            found = workload.parse(data, "input")
    except SourceError as error:
        _expect_one_line(error)
        return
    assert found.page_size & (found.page_size - 1) == 0
    assert 0 < found.memory.nr_pages <= 1 << 20
    assert all(SPECS[name].check(value) == int(value) for name, value in found.engine.items())


def knobs(data: bytes) -> None:
    """A store to a file of the engine, named by the first byte, and the same text as an option."""
    if not data:
        return
    name, text = _NAMES[data[0] % len(_NAMES)], data[1:].decode("utf-8", "surrogateescape")
    before = _engine.sysfs.read(name) if name in SPECS else ""
    try:
        _engine.sysfs.write(name, text)
    except KnobError as error:
        _expect_one_line(error)
        assert name not in SPECS or _engine.sysfs.read(name) == before
    except UnicodeEncodeError:
        assert not text.isprintable()
    else:
        SPECS[name].check(int(_engine.sysfs.read(name)) or SPECS[name].default)
    for option in _OPTIONS:
        try:
            option(text)
        except (argparse.ArgumentTypeError, ValueError):  # what argparse makes a line of
            continue


TARGETS: dict[str, Callable[[bytes], None]] = {
    "elf": elf,
    "raw": raw,
    "npy": npy_file,
    "toml": toml,
    "knobs": knobs,
}


def _check_source(read: Callable[..., Snapshot], data: bytes) -> None:
    with _file_of(data) as path, _no_warning():
        try:
            snapshot = read(path, page_size=PAGE_SIZE)
        except SourceError as error:
            _expect_one_line(error, f"{path}: ")
            return
        assert snapshot.processes
        for process in snapshot.processes:
            runs = as_page_runs(list(process.regions), page_size=PAGE_SIZE)
            assert runs
            assert sum(int(run.pages.sum()) for run in runs) >= 0
            assert process.name.isprintable()
        for skipped in snapshot.skipped:
            assert skipped.nbytes > 0
            assert skipped.what.isprintable() and skipped.reason.isprintable()


def _expect_one_line(error: Exception, beginning: str = "") -> None:
    text = str(error)
    assert text.startswith(beginning) and text != beginning, text
    assert text.isprintable(), ascii(text)
    assert len(text) < 1000


@contextmanager
def _no_warning() -> Iterator[None]:
    """Fail if a warning is shown; an error in its place could be taken by a parser for one of the file."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            assert not shown, [str(warning.message) for warning in shown]


@contextmanager
def _file_of(data: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("input")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
