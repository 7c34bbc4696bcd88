"""Merge identical memory pages: LKSM and KSM in user space, over numpy arrays.

>>> engine = lksm.Engine()
>>> app = engine.attach(pages, name="app")
>>> engine.settle().pages_sharing
"""

from .clock import VirtualClock
from .counters import Counters, ProcessState, ProcessStats, ScanReport
from .engine import Engine
from .errors import (
    BusyError,
    InvalidMemory,
    KnobError,
    LksmError,
    OutOfMemory,
    ProcessGone,
    SourceError,
)
from .memory import Region, RegionFlag
from .process import Process
from .report import Explanation, Reason

__version__ = "0.1.0"

__all__ = [
    "BusyError",
    "Counters",
    "Engine",
    "Explanation",
    "InvalidMemory",
    "KnobError",
    "LksmError",
    "OutOfMemory",
    "Process",
    "ProcessGone",
    "ProcessState",
    "ProcessStats",
    "Reason",
    "Region",
    "RegionFlag",
    "ScanReport",
    "SourceError",
    "VirtualClock",
]
