"""Files that are cut while `lksm` reads them: one line and status 2, whatever the moment."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from helpers import unique_pages
from lksm.cli import _session
from lksm.engine import Engine
from run_lksm import Lksm, start

PAGE = 4096


@pytest.fixture
def image(tmp_path: Path) -> Path:
    unique_pages(300).tofile(tmp_path / "image")
    return tmp_path / "image"


@pytest.mark.parametrize(
    ("command", "called"),
    [
        ("scan", "scan"), ("scan", "find"), ("scan --json", "scan"), ("scan --json", "find"),
        ("explain --address 0x1000", "scan"), ("explain --address 0x1000", "explain"),
    ],
)  # fmt: skip
def test_a_file_cut_while_it_is_scanned(
    image: Path, lksm_command: Lksm, monkeypatch: pytest.MonkeyPatch, command: str, called: str
) -> None:
    """Between two batches or while results are collected: a line with the path, status 2, no report."""
    done = getattr(Engine, called)

    def cut_first(*arguments: object, **options: object) -> object:
        os.truncate(image, 5 * PAGE)
        return done(*arguments, **options)

    monkeypatch.setattr(_session, "_BATCH_PAGES", 100)
    monkeypatch.setattr(Engine, called, cut_first)
    out = lksm_command(*command.split(), image)
    said = f"lksm: {image}: has shrunk from {300 * PAGE} to {5 * PAGE} bytes while it was read\n"
    assert (lksm_command.status, out, lksm_command.err) == (2, "", said)


@pytest.mark.parametrize("tenth", range(10))
def test_a_file_cut_at_any_moment(tmp_path: Path, tenth: int) -> None:
    """The program says so, or has read all before, or found the file too short: it never dies."""
    image = tmp_path / "image"
    np.random.default_rng(tenth).integers(0, 256, (20_000, PAGE), np.uint8).tofile(image)
    process = start("scan", image)
    time.sleep(0.3 + tenth * 0.05)
    os.truncate(image, PAGE * 100)
    out, err = process.communicate(timeout=60)
    if process.returncode == 0:
        assert "20000 pages" in out or "100 pages" in out
        assert err == ""
    else:
        assert process.returncode == 2
        assert out == ""
        assert err.startswith(f"lksm: {image}: has shrunk from ") and err.count("\n") == 1
