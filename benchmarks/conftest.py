"""Options of `pytest benchmarks`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sizes", default="256M", help="memory that bench_workloads.py works on, such as 256M,1G,16G"
    )
