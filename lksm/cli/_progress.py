"""A progress bar on standard error, if that is a terminal; otherwise nothing, and rich is not imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from ._interrupt import held

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

Report = Callable[[int, int], None]


class Progress:
    """Bars for the parts of one job, wiped when the block ends.

    >>> with Progress() as progress, progress:

    Entered twice, for where Ctrl-C comes as the inner block is left, before that has begun to wipe anything,
    the outer one is left as well.
    """

    def __init__(self) -> None:
        self._bars: Bars | None = None

    def __enter__(self) -> Progress:
        if self._bars is None and sys.stderr is not None and sys.stderr.isatty():
            try:
                with held():  # in the middle of an import, too, as in `main`
                    self._bars = _bars()
                    self._bars.start()
            except BaseException:  # nobody calls __exit__
                self._wipe()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with held():
            self._wipe()

    def part(self, title: str) -> Report | None:
        """A function to call as (done, total) while this part goes on; None if nobody looks."""
        if self._bars is None:
            return None
        bars = self._bars
        with held():  # what is drawn is drawn whole
            task = bars.add_task(title, total=None)

        def report(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        return report

    def _wipe(self) -> None:
        if self._bars is not None and self._bars.live.is_started:
            self._bars.stop()


def _bars() -> Bars:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from ._terminal import Terminal

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Terminal(),
        transient=True,
        redirect_stdout=False,  # data come when all is wiped
    )
