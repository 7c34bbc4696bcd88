"""The files of /sys/kernel/mm/ksm: numbers to read, and knobs to find, set and put back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

_DIRECTORY = Path("/sys/kernel/mm/ksm")

# What refuses a store while something else is as it is goes after that: pages_to_scan belongs to the advisor
# while there is one, and run starts what the others describe.
_LATE = ("advisor_mode", "run")

_Value = TypeVar("_Value")


class Files:
    """One directory of such files; another one than the kernel's in tests."""

    def __init__(self, directory: Path = _DIRECTORY) -> None:
        self.directory = directory

    def __contains__(self, name: str) -> bool:
        return (self.directory / name).exists()

    def read(self, name: str) -> str:
        """The text; of a choice between words the one that is in force."""
        text = (self.directory / name).read_text().strip()
        return text[text.index("[") + 1 : text.index("]")] if "[" in text else text

    def number(self, name: str) -> int:
        return int(self.read(name))

    def write(self, name: str, value: object) -> None:
        """Store a value; OSError if there is no such file, or it does not take the value."""
        path = str(self.directory / name)
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"{value}\n".encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(descriptor)

    def expect_writable(self) -> None:
        """OSError if nothing could be stored, as in a file system that is read-only."""
        os.close(os.open(self.directory / "run", os.O_WRONLY | os.O_CLOEXEC))

    def knobs(self) -> dict[str, str]:
        """Every file that can be written, and what it says."""
        names = [path.name for path in sorted(self.directory.iterdir()) if path.stat().st_mode & 0o200]
        return {name: self.read(name) for name in names}

    def restore(self, knobs: Mapping[str, str]) -> None:
        """Unmerge everything and set the knobs; what has that value already is not written.

        All are tried, whatever fails; then the first failure is raised.
        """
        failure: OSError | None = None
        for name, value in [("run", "2"), ("run", "0"), ("advisor_mode", "none"), *in_order(knobs)]:
            try:
                if name in self and (name == "run" or self.read(name) != value):
                    self.write(name, value)
            except OSError as error:
                failure = failure or OSError(error.errno, error.strerror, str(self.directory / name))
        if failure is not None:
            raise failure

    def is_there(self) -> bool:
        with suppress(OSError):
            return self.directory.is_dir()
        return False  # untested: a system without /sys


def in_order(knobs: Mapping[str, _Value]) -> list[tuple[str, _Value]]:
    """The knobs in an order in which each can be stored."""
    early = [(name, value) for name, value in knobs.items() if name not in _LATE]
    return early + [(name, knobs[name]) for name in _LATE if name in knobs]
