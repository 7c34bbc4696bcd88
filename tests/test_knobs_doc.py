"""docs/knobs.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lksm import knobs

TEXT = (Path(__file__).parent.parent / "docs" / "knobs.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", TEXT, re.M)]
BY_NAME = {row[0].strip("`"): row for row in ROWS if row[0].startswith("`")}


@pytest.mark.parametrize("spec", knobs.SPECS.values(), ids=lambda spec: spec.name)
def test_writable_knob_is_described(spec: knobs.Spec) -> None:
    """Default and range of every knob stand in the table as the code has them."""
    row = BY_NAME[spec.name]
    assert row[1] == str(spec.default)
    assert row[2] == spec.range_text


def test_no_knob_is_missing_or_invented() -> None:
    """The tables name exactly the files that exist."""
    assert set(BY_NAME) == {*knobs.SPECS, *knobs.READ_ONLY}
