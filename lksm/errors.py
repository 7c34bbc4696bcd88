"""What can go wrong, one class each.

Every class is an `LksmError` and also the nearest builtin, so callers may catch either.
"""

from __future__ import annotations


class LksmError(Exception):
    """Any error that lksm raises on purpose."""


class InvalidMemory(LksmError, ValueError):
    """The memory given is not a whole number of plain, contiguous pages, or may not be used like that."""


class KnobError(LksmError, OSError):
    """A knob was given a value outside its range; `errno` is what the kernel's file would return."""


class BusyError(LksmError, RuntimeError):
    """The engine is in the middle of something that excludes this call."""


class ProcessGone(LksmError, LookupError):
    """The process has exited, or its engine is closed."""


class OutOfMemory(LksmError, MemoryError):
    """The engine could not get memory; what it knew before the call is unchanged."""


class SourceError(LksmError, ValueError):
    """A dump, image or live process cannot be used at all; the message says why, in one line."""
