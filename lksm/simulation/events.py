"""What can happen to a process. Times are virtual milliseconds from 0.

Contents are labels: two pages are equal iff their labels are, and label 0 is the page of zeros. A process is
known by a number that is never used twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.int64]

ZERO = 0


@dataclass(frozen=True, eq=False)
class Start:
    """A process comes, with the contents of its pages, and CPU time if it has been running for long."""

    at: int
    process: int
    name: str
    labels: Numbers
    runtime_ms: int = 0


@dataclass(frozen=True, eq=False)
class Exit:
    """A process goes, with all its pages."""

    at: int
    process: int


@dataclass(frozen=True, eq=False)
class Freeze:
    """A process is stopped: until it is thawed its pages hold still."""

    at: int
    process: int


@dataclass(frozen=True, eq=False)
class Thaw:
    """A frozen process runs again."""

    at: int
    process: int


@dataclass(frozen=True, eq=False)
class Work:
    """What a process has done since its last tick.

    runtime_ms: its CPU time since it came. patched: pages that got a few new bytes, so that each is like no
    other, and their labels. replaced: pages that got another content as a whole, and their labels. A page is
    in one of the two, once.
    """

    at: int
    process: int
    runtime_ms: int
    patched: Numbers
    patch_labels: Numbers
    replaced: Numbers
    replaced_labels: Numbers


Event: TypeAlias = Start | Exit | Freeze | Thaw | Work
