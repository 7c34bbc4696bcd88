"""The referee, and at the end of the run how often it has looked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alone import alone
from run_lksm import WITHOUT_SANITIZER
from side_by_side import Referee

_PROPERTY = "passes_compared_with_the_kernel"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(WITHOUT_SANITIZER)


@pytest.fixture
def referee(record_property: Callable[[str, object], None]) -> Iterator[Referee]:
    """Blocks in which the kernel's KSM and the engine run side by side."""
    referee = Referee()
    with alone():
        yield referee
    record_property(_PROPERTY, referee.nr_passes)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: the number of passes compared."""
    passes: dict[str, int] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                found = dict(report.user_properties).get(_PROPERTY)
                if isinstance(found, int):
                    passes[report.nodeid] = found
    if passes:
        terminalreporter.write_line(
            f"kernel: {sum(passes.values())} passes compared with the running kernel's KSM"
        )
