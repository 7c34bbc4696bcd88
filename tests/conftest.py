"""What every test may use: Hypothesis profiles, engines that are checked when the test is over, a summary."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import lksm

# Programs that tests start must find the installed package, not the source beside which they run.
os.environ["PYTHONSAFEPATH"] = "1"

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "default",
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=_SLOW_IS_FINE,
)
settings.register_profile("ci", settings.get_profile("default"), max_examples=500)
settings.register_profile(
    "expensive",
    settings.get_profile("default"),
    max_examples=3000,
    stateful_step_count=100,
    derandomize=False,
)
settings.load_profile("default")


@pytest.fixture
def engine() -> Iterator[lksm.Engine]:
    """An engine without initial rounds (`G` of spec section 13): no checksum gate ever applies."""
    engine = lksm.Engine(initial_rounds=0)
    yield engine
    assert engine.check() == []
    engine.close()


@pytest.fixture
def gated_engine() -> Iterator[lksm.Engine]:
    """An engine with the kernel's defaults: in rounds 1 and 2 a page must hold still to be compared."""
    engine = lksm.Engine()
    yield engine
    assert engine.check() == []
    engine.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: how many passes were compared with the kernel's KSM. Here xdist's controller sees it."""
    passes: dict[str, int] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                found = dict(report.user_properties).get("passes_compared_with_the_kernel")
                if isinstance(found, int):
                    passes[report.nodeid] = found
    if passes:
        terminalreporter.write_line(
            f"kernel: {sum(passes.values())} passes compared with the running kernel's KSM"
        )
