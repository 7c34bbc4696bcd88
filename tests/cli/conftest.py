"""What tests of the command line may use."""

from __future__ import annotations

import pytest

from run_lksm import Lksm


@pytest.fixture
def lksm_command(capsys: pytest.CaptureFixture[str]) -> Lksm:
    """The command line, run in this process."""
    return Lksm(capsys)
