"""What a terminal gets to see: a progress bar on standard error, a drawn table on standard output."""

from __future__ import annotations

import io
import os
import pty
from pathlib import Path

import pytest

import lksm
from helpers import pages
from lksm.cli import main
from run_lksm import run, start


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pages("a a b").tofile(tmp_path / "a.raw")
    return tmp_path / "a.raw"


def seen_on_a_terminal(which: str, *arguments: object) -> tuple[str, str]:
    """Run with one stream a terminal: what appeared there, and what on the other one."""
    ours, theirs = pty.openpty()
    try:
        process = start(*arguments, **{which: theirs})
    finally:
        os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other side has closed it
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    return seen.decode(), (out or "") + (err or "")


def test_progress_goes_to_a_terminal(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is shown on standard error if that is a terminal; standard output is as without."""
    monkeypatch.setenv("TERM", "xterm")
    progress, report = seen_on_a_terminal("stderr", "scan", "--json", image)
    assert "scanning" in progress and "\x1b[" in progress
    assert report.startswith('{"version"') and "\x1b" not in report


def test_no_progress_elsewhere(image: Path) -> None:
    """Without a terminal nothing but data is written."""
    done = run("scan", image)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_tables_on_a_terminal(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets the same words, with headings drawn."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown, rest = seen_on_a_terminal("stdout", "scan", image)
    assert rest == ""
    assert "\x1b[1m" in shown
    assert "distinct merged contents" in shown


def test_a_hostile_name_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Markup, emoji codes and escapes in a name are shown, not obeyed."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "300")
    name = "[red]a :smile: \x1b[5m"
    pages("a a").tofile(tmp_path / name)
    shown, _ = seen_on_a_terminal("stdout", "scan", tmp_path / name)
    assert r"[red]a :smile: \x1b[5m" in shown
    assert "\x1b[5m" not in shown


def test_a_stream_of_the_callers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calls lksm from Python may have put any stream in the place of standard output."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    assert main(["--version"]) == 0
    assert stream.getvalue() == f"lksm {lksm.__version__}\n"
