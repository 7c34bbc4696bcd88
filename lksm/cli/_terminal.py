"""Standard error, drawn on by rich. Importing this imports rich."""

from __future__ import annotations

import sys

from rich.console import Console


class Terminal(Console):
    """A console that leaves the cursor alone.

    Whatever hides it has to show it again, which SIGTERM or a sudden death keeps it from.
    """

    def __init__(self) -> None:
        super().__init__(file=sys.stderr)

    def show_cursor(self, show: bool = True) -> bool:
        """Do nothing."""
        return False
