"""The knobs: typed attributes and the kernel's text interface (spec 8).

`SPECS` is the one list of knobs. `Knobs` gives typed access, `Sysfs` the text of the kernel's files. What a
new value does is the engine's business; it hands in a function that applies it and may refuse.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, overload

from . import advisor
from ._lock import FairLock
from .errors import KnobError

_U32_MAX = 2**32 - 1
_INT_MAX = 2**31 - 1
_MOST_DIGITS = 12  # more than any knob takes
_INTEGER = re.compile(r"[+]?[0-9]+\n?\Z", re.ASCII)
_SWITCH = re.compile(r"(?P<on>[yYtT1]|[oO][nN])|(?P<off>[nNfF0]|[oO][fF])")
_SIGNED = re.compile(r"[+-]?[0-9]+\n?\Z", re.ASCII)


@dataclass(frozen=True)
class KnobSpec:
    """One knob with a number: its range as a test and in words, and how its text is parsed.

    is_flag: True and False may be stored too. is_boolean: so they may, and the text is a kernel switch's.
    """

    name: str
    default: int
    is_valid: Callable[[int], bool]
    range_text: str
    is_signed: bool = False
    is_flag: bool = False
    is_boolean: bool = False

    def check(self, value: object) -> int:
        """The value if it is in range; KnobError (EINVAL) otherwise. Switches take True and False too."""
        if (self.is_boolean or self.is_flag) and isinstance(value, bool):
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not self.is_valid(value):
            raise _error(errno.EINVAL, self, value)
        return value

    def parse(self, text: str) -> int:
        """The value of a text as the kernel parses it: digits, an optional sign and final newline.

        Of a switch only the first letter counts, or the first two of "on" and "off" (spec 8.1).
        """
        if self.is_boolean:
            return self._parse_switch(text)
        if not (_SIGNED if self.is_signed else _INTEGER).match(text):
            raise _error(errno.EINVAL, self, text)
        sign, digits = text[0] == "-", text.strip("+-\n").lstrip("0")
        value = int(digits[:_MOST_DIGITS] or "0") * (-1 if sign else 1)  # one digit too many is out of range
        if self.is_signed and not -_INT_MAX - 1 <= value <= _INT_MAX:
            raise _error(errno.ERANGE, self, text)
        return self.check(value)

    def _parse_switch(self, text: str) -> int:
        match = _SWITCH.match(text)
        if match is None:
            raise _error(errno.EINVAL, self, text)
        return int(match.lastgroup == "on")

    def show(self, value: object) -> str:
        """The text of a value, without the newline."""
        return f"{value}"


@dataclass(frozen=True)
class WordSpec:
    """One knob whose value is a word out of a few."""

    name: str
    words: tuple[str, ...]

    @property
    def default(self) -> str:
        return self.words[0]

    @property
    def range_text(self) -> str:
        return " or ".join(self.words)

    def check(self, value: object) -> str:
        """The value if it is one of the words; KnobError (EINVAL) otherwise."""
        if not isinstance(value, str) or value not in self.words:
            raise _error(errno.EINVAL, self, value)
        return value

    def parse(self, text: str) -> str:
        """The word, with a final newline or without."""
        return self.check(text.removesuffix("\n"))

    def show(self, value: object) -> str:
        """All words, and the one in force in brackets: `[none] scan-time`."""
        return " ".join(f"[{word}]" if word == value else word for word in self.words)


Spec: TypeAlias = KnobSpec | WordSpec


def _shown(value: object) -> str:
    """The beginning of a value that was refused; Python does not write numbers of thousands of digits."""
    try:
        return f"{value!r:.60}"
    except ValueError:
        return "too long a number"


def _error(code: int, spec: Spec, value: object) -> KnobError:
    return KnobError(code, f"{spec.name} is {_shown(value)}, expected {spec.range_text}")


def _u32(name: str, default: int, least: int = 0) -> KnobSpec:
    return KnobSpec(name, default, lambda value: least <= value <= _U32_MAX, f"{least} to {_U32_MAX}")


SPECS: Mapping[str, Spec] = {
    spec.name: spec
    for spec in (
        KnobSpec("run", 0, lambda value: value in (0, 1, 2, 8), "0, 1, 2 or 8"),
        _u32("sleep_millisecs", 20),
        _u32("pages_to_scan", 100),
        KnobSpec("scan_boost", 100, lambda value: 100 <= value <= 10000, "100 to 10000"),
        KnobSpec("one_shot_scanning", 0, lambda value: value in (1, 2), "1 or 2"),
        _u32("full_scan_interval", 60000),
        KnobSpec(
            "max_page_sharing", 256, lambda value: 2 <= value <= _INT_MAX, f"2 to {_INT_MAX}", is_signed=True
        ),
        KnobSpec("merge_across_nodes", 1, lambda value: value in (0, 1), "0 or 1", is_flag=True),
        _u32("stable_node_chains_prune_millisecs", 2000),
        KnobSpec("smart_scan", 0, lambda value: value in (0, 1), "0 or 1", is_boolean=True),
        KnobSpec("use_zero_pages", 0, lambda value: value in (0, 1), "0 or 1", is_boolean=True),
        WordSpec("advisor_mode", advisor.MODES),
        _u32("advisor_max_cpu", 70),
        _u32("advisor_min_pages_to_scan", 500),
        _u32("advisor_max_pages_to_scan", 30000),
        _u32("advisor_target_scan_time", 200, least=1),
    )
}

Apply = Callable[[str, int | str], None]
_Value = TypeVar("_Value", int, str)


class _Knob(Generic[_Value]):
    """One attribute of `Knobs`: reads the value, stores through the lock."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.__doc__ = f"{name}: {SPECS[name].range_text}"

    @overload
    def __get__(self, knobs: None, owner: type[Knobs]) -> _Knob[_Value]: ...
    @overload
    def __get__(self, knobs: Knobs, owner: type[Knobs]) -> _Value: ...
    def __get__(self, knobs: Knobs | None, owner: type[Knobs]) -> _Value | _Knob[_Value]:
        if knobs is None:
            return self
        value: _Value = knobs._values[self._name]
        return value

    def __set__(self, knobs: Knobs, value: _Value) -> None:
        knobs._store(self._name, value)


class Knobs:
    """Typed access: `engine.knobs.pages_to_scan = 500`. A bad value raises `KnobError`; the old one stays.

    run: 0 stopped, 1 periodic, 2 unmerge now, 8 one-shot; synchronous scans run in any but 2.
    sleep_millisecs: pause between two batches. pages_to_scan: pages in one batch; scan_boost: in one batch
    of a partial scan, during which `pages_to_scan` reads the same. one_shot_scanning: 1 asks for a partial
    scan, 2 for a full one, and reads 0 when it is done; only with `run` 8, one at a time (EINVAL).
    full_scan_interval: idle milliseconds between two periodic full scans. max_page_sharing: pages a frame
    may stand for; cannot change while any page is shared (EBUSY). merge_across_nodes: 0 keeps pages of
    different memory nodes apart; cannot change either (EBUSY). stable_node_chains_prune_millisecs: how
    long a content that had several frames and has one left may still count as a chain. smart_scan: 1 visits
    pages that never merge less and less often. use_zero_pages: 1 puts pages of zeros on the zero frame, from
    their next visit on; what is there stays there.
    advisor_mode: "scan-time" sets `pages_to_scan` at the end of every full scan, so that the next takes about
    advisor_target_scan_time seconds and at most advisor_max_cpu per cent of a CPU; it starts with
    advisor_min_pages_to_scan and never exceeds advisor_max_pages_to_scan. Nobody else may store
    `pages_to_scan` then (EINVAL). "none", the default: no advisor; it becomes 100.
    """

    __slots__ = ("_apply", "_lock", "_values")

    run = _Knob[int]("run")
    sleep_millisecs = _Knob[int]("sleep_millisecs")
    pages_to_scan = _Knob[int]("pages_to_scan")
    scan_boost = _Knob[int]("scan_boost")
    one_shot_scanning = _Knob[int]("one_shot_scanning")
    full_scan_interval = _Knob[int]("full_scan_interval")
    max_page_sharing = _Knob[int]("max_page_sharing")
    merge_across_nodes = _Knob[int]("merge_across_nodes")
    stable_node_chains_prune_millisecs = _Knob[int]("stable_node_chains_prune_millisecs")
    smart_scan = _Knob[int]("smart_scan")
    use_zero_pages = _Knob[int]("use_zero_pages")
    advisor_mode = _Knob[str]("advisor_mode")
    advisor_max_cpu = _Knob[int]("advisor_max_cpu")
    advisor_min_pages_to_scan = _Knob[int]("advisor_min_pages_to_scan")
    advisor_max_pages_to_scan = _Knob[int]("advisor_max_pages_to_scan")
    advisor_target_scan_time = _Knob[int]("advisor_target_scan_time")

    def __init__(self, values: Mapping[str, int | str], lock: FairLock, apply: Apply) -> None:
        self._values: dict[str, Any] = {name: spec.default for name, spec in SPECS.items()}
        for name, value in values.items():
            if name not in SPECS:
                raise KnobError(errno.ENOENT, f"there is no knob {name!r}")
            self._values[name] = SPECS[name].check(value)
        self._lock = lock
        self._apply = apply

    def _store(self, name: str, value: object) -> None:
        checked = SPECS[name].check(value)
        with self._lock:
            self._apply(name, checked)
            self._values[name] = checked

    def put(self, name: str, value: int) -> None:
        """The engine's own store: nothing is checked, and nothing follows. The lock is held."""
        self._values[name] = value


READ_ONLY = (
    "full_scans",
    "scanning_process",
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "stable_node_chains",
    "stable_node_dups",
    "pages_scanned",
    "pages_skipped",
    "ksm_zero_pages",
    "general_profit",
    "nr_regions",
    "region_share",
)
_COUNTERS = {"ksm_zero_pages": "zero_pages"}  # files that have another name than their counter


class Sysfs:
    """The knobs and counters as the kernel's files show them, byte for byte."""

    def __init__(self, knobs: Knobs, show: Callable[[str], int | str]) -> None:
        self._knobs = knobs
        self._show = show

    def read(self, name: str) -> str:
        """Text and a newline: a number, but for `advisor_mode` and `region_share`. KnobError: ENOENT for an
        unknown name.
        """
        if name in SPECS:
            return f"{SPECS[name].show(getattr(self._knobs, name))}\n"
        if name in READ_ONLY:
            return f"{self._show(_COUNTERS.get(name, name))}\n"
        raise KnobError(errno.ENOENT, f"there is no knob {name!r}")

    def write(self, name: str, text: str) -> int:
        """Stores a value; returns the encoded length of the text.

        KnobError: EINVAL for a bad value, ERANGE past an int, EBUSY while it cannot change, EACCES for a
        counter, ENOENT for an unknown name.
        """
        if name in READ_ONLY:
            raise KnobError(errno.EACCES, f"{name} is read-only")
        if name not in SPECS:
            raise KnobError(errno.ENOENT, f"there is no knob {name!r}")
        setattr(self._knobs, name, SPECS[name].parse(text))
        return len(text.encode())
