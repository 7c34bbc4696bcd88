"""`lksm explain`: one address, one reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import xxhash

from elfwriter import Load, elf_core, prpsinfo
from helpers import PAGE_SIZE, content, pages
from live_child import Child
from run_lksm import Lksm


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two images that share a page, and a core."""
    pages("a b 0 c c").tofile(tmp_path / "one.raw")
    pages("d b").tofile(tmp_path / "two.raw")
    core = elf_core(
        [Load(0x400000, pages("e b").tobytes(), memsz=4 * PAGE_SIZE), Load(0x600000, memsz=PAGE_SIZE)],
        [prpsinfo("editor", 7)],
    )
    (tmp_path / "core").write_bytes(core)
    return [tmp_path / name for name in ("one.raw", "two.raw", "core")]


def explain(command: Lksm, *arguments: object) -> list[str]:
    """The lines of an explanation."""
    lines = command("explain", *arguments).splitlines()
    assert (command.status, command.err) == (0, "")
    return lines


def test_a_merged_page(lksm_command: Lksm, files: list[Path]) -> None:
    """A merged page names its twins and where all of them are, the one that was asked for first."""
    lines = explain(lksm_command, files[0], files[1], files[2], "--address", "0x1abc")
    assert lines[0] == f"0x1abc is in page 1 of one.raw ({files[0]})"
    assert lines[1].startswith("merged: page 1 of one.raw is merged into frame ")
    assert lines[1].endswith("with page 1 of two.raw and 1 more")
    assert lines[2] == f"its content: digest {xxhash.xxh3_64_hexdigest(content('b'))}"
    assert lines[3].endswith("stands for 3 pages:")
    assert lines[4:] == [
        f"  0x1000 of one.raw ({files[0]})",
        f"  0x1000 of two.raw ({files[1]})",
        f"  0x401000 of editor ({files[2]})",
    ]


def test_the_address_belongs_to_the_first_source(lksm_command: Lksm, files: list[Path]) -> None:
    """The same address in another order is another page."""
    one, two, _ = files
    assert explain(lksm_command, one, two, "--address", 0)[1].startswith("unique: page 0 of one.raw ")
    assert explain(lksm_command, two, one, "--address", 0)[1].startswith("unique: page 0 of two.raw ")
    assert explain(lksm_command, two, "--address", "0x1000", one)[0].startswith(
        "0x1000 is in page 1 of two.raw "
    )


def test_files_of_one_name_are_told_apart(lksm_command: Lksm, tmp_path: Path) -> None:
    """Two files called alike are named by their paths."""
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        pages("x").tofile(tmp_path / place / "vm")
    lines = explain(lksm_command, tmp_path / "a/vm", tmp_path / "b/vm", "--address", 0)
    assert f"page 0 of vm ({tmp_path / 'a/vm'})" in lines[0]
    assert f"with page 0 of vm ({tmp_path / 'b/vm'})" in lines[1]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (0x400000, "unique: page 0 of editor "),
        (0x402000, "absent: segment 0x400000: not dumped"),
        (0x403FFF, "absent: segment 0x400000: not dumped"),
        (0x404000, "absent: this source says nothing of that address"),
        (0x600000, "absent: segment 0x600000: not dumped"),
        (0, "absent: this source says nothing of that address"),
        (2**64 - 1, "absent: this source says nothing of that address"),
    ],
)
def test_addresses_of_a_core(lksm_command: Lksm, files: list[Path], address: int, reason: str) -> None:
    """Memory that was not dumped is told from memory that the dump does not know."""
    lines = explain(lksm_command, files[2], "--address", hex(address))
    assert lines[1].startswith(reason)
    assert lines[0].startswith(f"{address:#x} is in ")
    if reason.startswith("absent"):
        assert lines[0] == f"{address:#x} is in no region of editor ({files[2]})"


def test_holes_and_tails(lksm_command: Lksm, tmp_path: Path) -> None:
    """An address in a hole or in the tail of an image is absent for that reason, whatever others lack."""
    (tmp_path / "other").write_bytes(content("b") + b"tail")
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(content("a") + b"tail")
    for address, reason in (
        (0, "absent: hole: never written, 1 in all"),
        ((1 << 20) + PAGE_SIZE + 1, "absent: tail: less than one page of 4096 bytes"),
        ((1 << 20) + PAGE_SIZE + 4, "absent: this source says nothing of that address"),
    ):
        lines = explain(lksm_command, tmp_path / "sparse", tmp_path / "other", "--address", address)
        assert lines[1] == reason


def test_a_page_beyond_the_limit(lksm_command: Lksm, tmp_path: Path) -> None:
    """With the kernel's limit a page may find all frames full."""
    pages("a a a").tofile(tmp_path / "a")
    lines = explain(lksm_command, tmp_path / "a", "--max-page-sharing", 2, "--address", "0x2000")
    assert lines[1].startswith("limit: page 2 of a equals merged pages")


def test_many_sharers_are_not_all_listed(lksm_command: Lksm, tmp_path: Path) -> None:
    """Ten places are listed, the others counted."""
    pages(" ".join(["a"] * 25)).tofile(tmp_path / "a")
    lines = explain(lksm_command, tmp_path / "a", "--address", "0")
    assert len([line for line in lines if line.startswith("  0x")]) == 10
    assert lines[-1] == "  and 15 more"


def test_a_target_that_cannot_be_used(lksm_command: Lksm, files: list[Path], tmp_path: Path) -> None:
    """If the source of the address is refused there is nothing to say, though others are fine."""
    assert lksm_command("explain", tmp_path / "missing", files[0], "--address", "0") == ""
    assert lksm_command.status == 2
    assert "No such file" in lksm_command.err


def test_another_source_that_cannot_be_used(lksm_command: Lksm, files: list[Path], tmp_path: Path) -> None:
    """If another source is refused the page is explained, with status 1."""
    text = lksm_command("explain", files[0], tmp_path / "missing", "--address", "0")
    assert (lksm_command.status, lksm_command.err.count("\n")) == (1, 1)
    assert "unique: page 0 of one.raw" in text


def test_a_page_of_a_live_process(lksm_command: Lksm) -> None:
    """A page of a running process is explained; an address it has not touched is absent."""
    with Child("m = private(40)\nfor page in range(4): fill(m, page, page // 2)") as child:
        address = child.ask("address(m)")
        lines = explain(lksm_command, "--pid", child.pid, "--address", hex(address + 5))
        assert lines[1].startswith("merged: ")
        assert f"  {address + 4096:#x} of " in "\n".join(lines)
        lines = explain(lksm_command, "--pid", child.pid, "--address", hex(address + 39 * 4096))
        assert lines[1].startswith("absent: ")
