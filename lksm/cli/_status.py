"""One line on standard error that says how things stand, if that is a terminal; else rich is not imported."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from ._interrupt import held

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live


class Status:
    """A line that is drawn anew when it changes, and gone when the block ends. No thread draws it."""

    def __init__(self) -> None:
        self._console: Console | None = None
        self._live: Live | None = None
        self._shown = ""

    def __enter__(self) -> Status:
        if sys.stderr is not None and sys.stderr.isatty():
            with held():  # as in `main`
                from ._terminal import Terminal

                self._console = Terminal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.clear()
        except KeyboardInterrupt:
            self.clear()  # if it came just before it was held
            raise

    @property
    def is_shown(self) -> bool:
        """Does anybody see it?"""
        return self._console is not None

    def show(self, text: str) -> None:
        """Draw the line, unless it is there already."""
        if self._console is None or (self._live is not None and text == self._shown):
            return
        with held():  # what is drawn is drawn whole
            self._draw(self._console, text)

    def clear(self) -> None:
        """Wipe the line, so that something else may be written."""
        if self._live is not None:
            with held():
                self._live.stop()
                self._live = None

    def _draw(self, console: Console, text: str) -> None:
        from rich.live import Live
        from rich.text import Text

        line = Text(text, no_wrap=True, overflow="ellipsis")
        if self._live is None:  # untested: a job that takes so long here that its line changes
            self._live = Live(
                console=console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(line, refresh=True)
        self._shown = text
