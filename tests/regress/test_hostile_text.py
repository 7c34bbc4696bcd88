"""Texts that once ended in a traceback, or in no end at all: each is one line now.

Found by tests/fuzz (the workloads), or by looking at where a text goes (the others).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lksm.errors import SourceError
from lksm.simulation.workload import load, parse
from run_lksm import Lksm
from small_workload import SMALL


@pytest.fixture
def lksm_command(capsys: pytest.CaptureFixture[str]) -> Lksm:
    """The command line, run in this process."""
    return Lksm(capsys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "9" * 5000, "digits"),  # more digits than int() takes
        ("a = " + "[" * 5000, "nested too deeply"),  # more brackets than Python's stack takes
        (
            SMALL.replace("zero = 8", "zero = 0x" + "f" * 5000),
            "zero is a number of thousands of digits",
        ),
        (SMALL.replace("zero = 8", '"\\u001b[2J\\n" = 8'), "memory.?"),  # a key that moves the cursor
        (SMALL + f'\n[engine]\n"{"k" * 5000}" = 1', "engine.kkk"),  # a message of thousands of letters
    ],
)
def test_workloads(text: str, said: str) -> None:
    """What a workload may not hold is said in one printable line of bearable length."""
    with pytest.raises(SourceError) as caught:
        parse(text.encode(), "name")
    message = str(caught.value)
    assert said in message
    assert message.isprintable()
    assert len(message) < 600


def test_workloads_that_are_no_files(tmp_path: Path) -> None:
    """A FIFO, a device, a directory and a huge file are refused at once, not read for ever."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    for path, said in (
        (tmp_path / "fifo", "is a FIFO"),
        (Path("/dev/zero"), "is a character device"),
        (tmp_path, "is a directory"),
        (tmp_path / "huge", "has 1099511627776 bytes"),
        (tmp_path / "missing", "No such file or directory"),
    ):
        with pytest.raises(SourceError) as caught:
            load(str(path))
        assert str(caught.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_title_that_is_no_formula(tmp_path: Path, lksm_command: Lksm, suffix: str) -> None:
    """Dollars, escapes and control characters of a title are drawn, and the picture is well-formed."""
    pytest.importorskip("matplotlib")
    title = r"$\\frac{$ \u001b[31m \u0001 _x^"
    workload = SMALL.replace('"small"', f'"{title}"').replace("30_000", "2000")
    (tmp_path / "w.toml").write_text(workload)
    out = lksm_command("simulate", tmp_path / "w.toml", "--policy", "ksm", "--plot", tmp_path / f"p{suffix}")
    assert (lksm_command.status, lksm_command.err) == (0, "")
    assert r"\x1b[31m" in out and "\x1b" not in out
    picture = (tmp_path / f"p{suffix}").read_bytes()
    assert picture
    if suffix == ".svg":
        assert not set(picture) & {0x1B, 0x01}


@pytest.mark.parametrize(
    "setting",
    ["page_size=64", "initial_rounds=1", "policy=1", "seed=1", "x\x1b[2J=1", "smart_scan=" + "9" * 5000],
)  # fmt: skip
def test_knobs_that_are_none(lksm_command: Lksm, setting: str) -> None:
    """`lksm watch --set` takes knobs only: no other argument of the engine, and no endless number."""
    assert lksm_command("watch", "--all", "--set", setting) == ""
    assert lksm_command.status == 2
    assert lksm_command.err.count("\n") == 1
    assert lksm_command.err.rstrip("\n").isprintable()
