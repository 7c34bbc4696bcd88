"""A process with memory that KSM may merge: private, anonymous, advised, and of small pages."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

_WORDS = {"no": 0, "yes": 1}
_PROGRAM = Path(__file__).with_name("_child_program.py")


class Child:
    """A child process that does what it is told; it exits at the end of the block, or with us."""

    def __init__(self) -> None:
        # Not under a sanitizer: only the kernel looks at this one.
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us alone
            env=environment,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.exit()

    def map(self, pages: npt.NDArray[Any], *, advise: bool = True) -> int:
        """Map a new area with this content and offer it for merging, or not; returns its number."""
        area = np.ascontiguousarray(pages).reshape(-1).view(np.uint8)
        return int(self._do("map", area.nbytes, advise, content=area.data))

    def write(self, area: int, offset: int, content: bytes) -> None:
        """Write bytes at an offset of an area."""
        self._do("write", area, offset, len(content), content=content)

    def read(self, area: int, offset: int, nr_bytes: int) -> bytes:
        content: bytes = self._do("read", area, offset, nr_bytes)
        return content

    def advise(
        self,
        area: int,
        advice: Literal["mergeable", "unmergeable", "dontneed"],
        page: int = 0,
        nr_pages: int = 0,
    ) -> None:
        """madvise() on some pages of an area, or with no number on all of them."""
        self._do("advise", area, advice, page, nr_pages)

    def merge_any(self, is_wanted: bool) -> None:
        """Offer all areas, also those that are mapped later, or take all out; OSError if this kernel cannot.

        The memory of the child's own program stays out.
        """
        number = self._do("merge_any", is_wanted)
        if number:
            raise OSError(number, os.strerror(number), "PR_SET_MEMORY_MERGE")  # untested: kernels before 6.4

    def statistics(self) -> dict[str, int]:
        """What /proc says of the child's part in KSM: yes is 1, no is 0. Empty where it says nothing."""
        with contextlib.suppress(FileNotFoundError):
            text = Path(f"/proc/{self.pid}/ksm_stat").read_text()
            pairs = [line.replace(":", "").split() for line in text.splitlines()]
            return {name: _WORDS[value] if value in _WORDS else int(value) for name, value in pairs}
        return {}  # untested: older kernels

    def unmap(self, area: int) -> None:
        self._do("unmap", area)

    def exit(self) -> None:
        """Returns when the process and its memory are gone. Exiting twice is exiting once."""
        with contextlib.suppress(BrokenPipeError):  # it has died before
            self._stdin.close()
        self._process.wait()
        self._stdout.close()

    def _do(self, *command: object, content: bytes | memoryview = b"") -> Any:
        pickle.dump(command, self._stdin)
        self._stdin.write(content)
        self._stdin.flush()
        return pickle.load(self._stdout)

    @property
    def _stdin(self) -> BinaryIO:
        assert self._process.stdin is not None
        return self._process.stdin  # type: ignore[return-value]

    @property
    def _stdout(self) -> BinaryIO:
        assert self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]
