"""The parameters of a simulation: read from TOML, checked once, plain data afterwards.

Times are virtual milliseconds and sizes are pages unless the name says otherwise; a share is from 0 to 1.
A wrong file raises `SourceError`, which names the key, its value and what was expected.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

from ..errors import KnobError, SourceError
from ..knobs import SPECS
from ..sources._file import file_size, open_file

SHIPPED = ("phone", "server", "worst")

_POLICY_KNOBS = ("run", "one_shot_scanning")  # set by the policies themselves
_MOST_PAGES = 1 << 20
_MOST_MS = 10**9
_MOST_LETTERS = 500  # of an error
_MOST_BYTES = 1 << 20  # of a file
_Table = TypeVar("_Table")


def _number(least: float, most: float, default: float | None = None) -> Any:
    """A field with its range; without a default the key has to be there."""
    given = dataclasses.MISSING if default is None else default
    return dataclasses.field(default=given, metadata={"range": (least, most)})


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The pages of one app or service, by kind.

    zero: zero-filled. framework: the same in every process. library: pages in each library, the same in
    every process that uses it; libraries: how many there are; libraries_each: how many a process uses.
    private: like no other page.
    """

    zero: int = _number(0, _MOST_PAGES)
    framework: int = _number(0, _MOST_PAGES)
    library: int = _number(0, _MOST_PAGES)
    libraries: int = _number(0, 1000)
    libraries_each: int = _number(0, 1000)
    private: int = _number(1, _MOST_PAGES)

    @property
    def nr_pages(self) -> int:
        """Pages of one process."""
        return self.zero + self.framework + self.library * self.libraries_each + self.private


@dataclass(frozen=True, kw_only=True)
class Apps:
    """The apps, and how they are used.

    count: apps installed. resident: processes that fit; launching one more kills the one unused longest.
    launch_every_ms: all apps are launched one after another at the start, so far apart; 0: each when it is
    first used. at_once: apps in the foreground at one time. foreground_ms: median length of a session;
    foreground_spread: standard deviation of its logarithm. popularity: app k is used in proportion to
    1 / k ** popularity. pause_share: of the sessions that end with a pause, in which nothing takes their
    place; pause_ms: its median length, spread like sessions. freeze_after_ms: from leaving the foreground
    to being frozen. exit_share: of the sessions that end with the app's exit. cpu_share: CPU time in the
    foreground.
    """

    count: int = _number(1, 10_000)
    resident: int = _number(1, 10_000)
    launch_every_ms: int = _number(0, _MOST_MS, 0)
    at_once: int = _number(1, 1000, 1)
    foreground_ms: int = _number(1, _MOST_MS)
    foreground_spread: float = _number(0, 3, 0)
    popularity: float = _number(0, 5, 0)
    pause_share: float = _number(0, 1, 0)
    pause_ms: int = _number(0, _MOST_MS, 0)
    freeze_after_ms: int = _number(0, _MOST_MS)
    exit_share: float = _number(0, 1, 0)
    cpu_share: float = _number(0, 16, 0.3)


@dataclass(frozen=True, kw_only=True)
class Writes:
    """What apps write: they rewrite pages of a hot set, chosen when they are launched.

    foreground, background: pages a second in the foreground, and after it until frozen. hot_share: of the
    private pages; hot_common_share: of the others. common_share: of the writes that give a page a content
    that other processes have too (zero, framework, library); the others change a few bytes to something
    new.
    """

    foreground: float = _number(0, 100_000)
    background: float = _number(0, 100_000)
    hot_share: float = _number(0, 1)
    hot_common_share: float = _number(0, 1)
    common_share: float = _number(0, 1)


@dataclass(frozen=True, kw_only=True)
class Services:
    """Processes that ran before the start, run to the end, and are never frozen; their memory is an app's.

    writes: pages a second, each. cpu_share: CPU time, each.
    """

    count: int = _number(0, 1000, 0)
    writes: float = _number(0, 100_000, 0)
    cpu_share: float = _number(0, 16, 0.02)


@dataclass(frozen=True, kw_only=True)
class Helpers:
    """Short-lived processes.

    every_ms: mean time between two starts, 0: there are none. live_ms: from start to exit. cpu_ms: CPU time
    by then. zero, framework, private: its pages.
    """

    every_ms: int = _number(0, _MOST_MS, 0)
    live_ms: int = _number(1, _MOST_MS, 500)
    cpu_ms: int = _number(0, _MOST_MS, 40)
    zero: int = _number(0, _MOST_PAGES, 16)
    framework: int = _number(0, _MOST_PAGES, 16)
    private: int = _number(1, _MOST_PAGES, 32)


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """Waves in which apps are restarted in a new version, so many at a time, in order.

    every_ms: between two waves, 0: there are none. apps: in one wave. changed_share: of the framework pages
    that a new version changes.
    """

    every_ms: int = _number(0, _MOST_MS, 0)
    apps: int = _number(1, 10_000, 1)
    changed_share: float = _number(0, 1, 0)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Everything about a simulation but its seed.

    page_size: bytes. duration_ms: of the whole. sample_ms: between two looks at what is merged. tick_ms:
    between two bursts of writes of a process. engine: knobs of the engine by name, for every policy.
    """

    title: str
    memory: Memory
    apps: Apps
    writes: Writes
    services: Services
    helpers: Helpers
    restarts: Restarts
    engine: Mapping[str, int]
    duration_ms: int = _number(1, _MOST_MS)
    page_size: int = _number(64, 1 << 20, 4096)
    sample_ms: int = _number(1, _MOST_MS, 1000)
    tick_ms: int = _number(1, _MOST_MS, 200)


_TABLES: Mapping[str, type] = {
    "memory": Memory,
    "apps": Apps,
    "writes": Writes,
    "services": Services,
    "helpers": Helpers,
    "restarts": Restarts,
}


def load(name: str) -> Workload:
    """A shipped workload by its name, or the TOML file at a path. `SourceError` if that is no such file."""
    if name in SHIPPED:
        return parse((resources.files(__package__) / "workloads" / f"{name}.toml").read_bytes(), name)
    with open_file(name, may_be_empty=True) as file:
        if file_size(file) > _MOST_BYTES:
            raise SourceError(f"has {file_size(file)} bytes, expected a workload of at most {_MOST_BYTES}")
        text = file.read(_MOST_BYTES)
    return parse(text, name)


def parse(text: bytes, name: str) -> Workload:
    """The workload that a TOML text describes; `name` goes before the message of a `SourceError`."""
    try:
        document = tomllib.loads(text.decode())
        return _workload(document)
    except UnicodeDecodeError as error:
        byte = text[error.start]
        raise SourceError(f"{name}: is no UTF-8 text, byte {error.start} is {byte:#04x}") from None
    except RecursionError:
        raise SourceError(f"{name}: is nested too deeply to be read") from None
    except (ValueError, SourceError) as error:  # tomllib's own error, or a number of too many digits
        raise SourceError(f"{name}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    """Its message; names of keys are part of it, and may be anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in f"{error}")[:_MOST_LETTERS]


def _shown(value: object) -> str:
    """A value that was not expected, in short. A number may have more digits than Python writes."""
    try:
        return f"{value!r:.60}"
    except ValueError:
        return "a number of thousands of digits"


def _workload(document: dict[str, Any]) -> Workload:
    title = document.pop("title", None)
    if not isinstance(title, str):
        wrong = "is missing" if title is None else f"is {_shown(title)}, expected a text"
        raise SourceError(f"title {wrong}")
    for name in ("memory", "apps"):
        if name not in document:
            raise SourceError(f"[{name}] is missing")
    tables: dict[str, Any] = {
        name: _read(kind, _table(document, name), f"{name}.") for name, kind in _TABLES.items()
    }
    knobs = _knobs(_table(document, "engine"))
    workload = _read(Workload, document, "", title=title, engine=knobs, **tables)
    _check_together(workload)
    return workload


def _check_together(workload: Workload) -> None:
    """What no value shows alone."""
    memory, apps, size = workload.memory, workload.apps, workload.page_size
    if size & (size - 1):
        raise SourceError(f"page_size is {size}, expected a power of two from 64 to {1 << 20}")
    for key, value, limit_key, limit in (
        ("memory.libraries_each", memory.libraries_each, "memory.libraries", memory.libraries),
        ("apps.at_once", apps.at_once, "apps.resident", apps.resident),
        ("apps.resident", apps.resident, "apps.count", apps.count),
        ("restarts.apps", workload.restarts.apps, "apps.count", apps.count),
        ("sample_ms", workload.sample_ms, "duration_ms", workload.duration_ms),
    ):
        if value > limit:
            raise SourceError(f"{key} is {value}, expected at most {limit_key}, which is {limit}")
    if apps.at_once == apps.count > 1:
        raise SourceError(f"apps.at_once is {apps.at_once}, expected less than apps.count: apps take turns")
    if memory.nr_pages > _MOST_PAGES:
        raise SourceError(f"memory has {memory.nr_pages} pages, expected at most {_MOST_PAGES}")


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    table = document.pop(name, {})
    if not isinstance(table, dict):
        raise SourceError(f"{name} is {_shown(table)}, expected a table")
    return table


def _read(kind: type[_Table], values: dict[str, Any], prefix: str, **others: Any) -> _Table:
    """A dataclass of numbers from a table: every key known, every value in its range."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.metadata}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise SourceError(f"{prefix}{key} is unknown, expected one of {', '.join(fields)}")
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING:
            raise SourceError(f"{prefix}{name} is missing")
        if name in values:
            is_whole = field.type == "int"
            least, most = field.metadata["range"]
            value = values[name]
            is_number = isinstance(value, int if is_whole else (int, float)) and not isinstance(value, bool)
            if not is_number or not least <= value <= most:
                what = "a whole number from " if is_whole else "a number from "
                raise SourceError(f"{prefix}{name} is {_shown(value)}, expected {what}{least} to {most}")
    return kind(**values, **others)


def _knobs(values: dict[str, Any]) -> dict[str, int]:
    known = [name for name in SPECS if name not in _POLICY_KNOBS]
    for name, value in values.items():
        if name not in known:
            raise SourceError(f"engine.{name} is unknown, expected one of {', '.join(known)}")
        try:
            SPECS[name].check(value)
        except KnobError as error:
            raise SourceError(f"engine.{error.strerror}") from None
    return values
