"""Names that others chose: they must break neither a terminal, nor a table, nor a reader of JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import content, pages
from live_child import Child
from lksm.cli._output import human_bytes, printable, valid_text
from lksm.cli._table import Column, plain_table
from run_lksm import Lksm, run

HOSTILE = [
    "new\nline",
    "tab\tbell\a",
    "\x1b[31mred\x1b[2J",
    "right\u202eto left",
    "line\u2028separator",
    "back\\slash",
    '"quoted"',
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_names(lksm_command: Lksm, tmp_path: Path, name: str) -> None:
    """A name with control characters is exact in JSON and escaped in the report and in errors."""
    pages("a a").tofile(tmp_path / name)
    found = lksm_command.scan(tmp_path / name, tmp_path / f"missing {name}")
    assert found["processes"][0]["name"] == name
    assert found["processes"][0]["source"] == str(tmp_path / name)
    assert lksm_command.err.count("\n") == 1 and lksm_command.err[:-1].isprintable()
    text = lksm_command("scan", tmp_path / name)
    assert all(line.isprintable() for line in text.split("\n"))
    assert printable(name) in text
    text = lksm_command("explain", tmp_path / name, "--address", "0")
    assert all(line.isprintable() for line in text.split("\n"))


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 come out as escapes, and JSON stays free of lone surrogates."""
    file = os.fsencode(tmp_path) + b"/\xff\xfe.raw"
    with open(file, "wb") as image:
        image.write(content("a") * 2)
    done = run("scan", "--json", os.fsdecode(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["processes"][0]["name"] == r"\xff\xfe.raw"
    done = run("scan", os.fsdecode(file), os.fsdecode(file + b"missing"))
    assert done.returncode == 1
    assert r"\xff\xfe.raw" in done.stdout
    assert done.stderr == f"lksm: {tmp_path}/\\xff\\xfe.rawmissing: No such file or directory\n"


@pytest.mark.parametrize("name", ["-dash", "--top", "--", "-"])
def test_names_like_options(
    lksm_command: Lksm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """After `--` a name may look like an option, first among the sources or not, after options too."""
    monkeypatch.chdir(tmp_path)
    pages("a a").tofile(name)
    pages("b").tofile("other")
    for before in ([], ["other"], ["--page-size", "4096"]):
        for after in ([], ["other"]):
            found = lksm_command.scan(*before, "--", name, *after)
            assert (lksm_command.status, lksm_command.err) == (0, "")
            names = [word for word in [*before, name, *after] if word in (name, "other")]
            assert [row["name"] for row in found["processes"]] == list(dict.fromkeys(names))
    assert "merged" in lksm_command("explain", "--address", "0", "--", name)
    lksm_command("scan", "--pid", "1", str(2**31 - 1), "--", "-missing", name)
    assert f"lksm: pid {2**31 - 1}: " in lksm_command.err and "lksm: ./-missing: " in lksm_command.err
    lksm_command("simulate", "--", "-missing.toml")
    assert lksm_command.err == "lksm: ./-missing.toml: No such file or directory\n"


def test_wide_and_combining_letters_in_a_table() -> None:
    """Columns begin where they should on a terminal, which gives some letters two cells and some none."""
    cells = {"漢字": 4, "한국어": 6, "e\u0301a\u0308": 2, "नमस्ते": 4, "größe": 5, "plain": 5}
    text = plain_table([Column("name"), Column("x", is_number=True)], [[name, "1"] for name in cells])
    assert text.splitlines()[1:] == [name + " " * (6 - width) + "  1" for name, width in cells.items()]
    text = plain_table([Column("number", is_number=True)], [[name] for name in cells])
    assert text.splitlines()[1:] == [" " * (6 - width) + name for name, width in cells.items()]


def test_a_terminal_that_knows_ascii_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard output takes ASCII only, other letters are escaped; nothing fails."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    pages("a a").tofile(tmp_path / "größe")
    done = run("scan", tmp_path / "größe")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"gr\xf6\xdfe" in done.stdout


def test_hostile_process_names(lksm_command: Lksm) -> None:
    """A process may call itself anything."""
    with Child(r"open('/proc/self/comm', 'w').write('x' + chr(10) + chr(27) + '[2J')") as child:
        assert lksm_command.scan("--pid", child.pid)["processes"][0]["name"] == "x\n\x1b[2J"
        assert r"x\n\x1b[2J" in lksm_command("scan", "--pid", child.pid)


@given(st.text(st.characters(codec=None, exclude_categories=[]), max_size=20))
def test_printable_is_printable(text: str) -> None:
    """Whatever a name is, what is shown of it is printable and encodes as UTF-8, and plain text stays."""
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    valid_text(text).encode()
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (-4096, "-4.0 KiB"), (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"), (1 << 40, "1.0 TiB"), (1 << 62, "4.0 EiB"), (1 << 72, "4096.0 EiB"),
    ],
)  # fmt: skip
def test_human_bytes(nbytes: int, text: str) -> None:
    """Sizes for people have one digit behind the point and a binary unit."""
    assert human_bytes(nbytes) == text
