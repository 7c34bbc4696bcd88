"""The referee, who records how often it has looked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alone import alone
from run_lksm import WITHOUT_SANITIZER
from side_by_side import Referee


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
    record_property("passes_compared_with_the_kernel", referee.nr_passes)
