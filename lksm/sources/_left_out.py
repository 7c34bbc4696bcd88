"""What could not be used of live processes, collected while they are taken."""

from __future__ import annotations

from ..errors import SourceError
from ._take import Space
from ._types import Gone, Refused, Skipped

_LEFT_OUT = {
    "untouched": ("untouched pages", "never touched, so there is nothing to read"),
    "swapped": ("swapped pages", "reading them would bring them back into memory"),
    "zero": ("zero page mappings", "the kernel's shared page of zeros is not memory of the process"),
    "vanished": ("vanished pages", "no longer present when they were to be read"),
    "over the limit": ("pages over the limit", "the snapshot has taken all the memory it may"),
}


class Report:
    """Collects what could not be used."""

    def __init__(self) -> None:
        self.skipped: list[Skipped] = []
        self.refused: list[Refused] = []
        self.gone: list[Gone] = []

    def add_error(self, pid: int, name: str | None, error: OSError | SourceError) -> None:
        """A process could not be used: gone, or refused with the reason."""
        if isinstance(error, SourceError):
            self.refused.append(Refused(f"pid {pid}", str(error)))
        elif isinstance(error, (FileNotFoundError, ProcessLookupError)):
            self.gone.append(Gone(pid, name))
        elif isinstance(error, PermissionError):
            reason = "not permitted: needs CAP_SYS_PTRACE, or the same user and leave to trace it"
            self.refused.append(Refused(f"pid {pid}", reason))
        else:
            self.refused.append(  # untested: errors that no kernel of the tests gives
                Refused(f"pid {pid}", f"its memory could not be read: {error.strerror or error}")
            )

    def add_left_out(self, space: Space, page_size: int) -> None:
        """Pages of a process that were not taken."""
        for key, (what, reason) in _LEFT_OUT.items():
            if nr_pages := space.left_out[key]:
                self.skipped.append(Skipped(f"pid {space.pid}", what, nr_pages * page_size, reason))
