"""`lksm scan` over files: what it counts, and what its JSON says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import xxhash

import lksm
from elfwriter import Load, elf_core, prpsinfo
from helpers import PAGE_SIZE, content, pages
from run_lksm import KEYS, Lksm

ROW = ["name", "pid", "source", "pages", "merged", "unshared", "zero", "saved_bytes"]


def image(path: Path, picture: str) -> Path:
    """A raw image of the pages of a picture."""
    pages(picture).tofile(path)
    return path


def digest(word: str) -> str:
    return xxhash.xxh3_64_hexdigest(content(word))


def test_everything_about_two_images(tmp_path: Path, lksm_command: Lksm) -> None:
    """Totals, processes and groups of two raw images are what the pictures say."""
    one = image(tmp_path / "one.raw", "a b a 0 c 0")
    two = image(tmp_path / "two.raw", "d a 0 b")
    found = lksm_command.scan(one, two)
    assert (lksm_command.status, lksm_command.err) == (0, "")
    assert list(found) == KEYS
    assert found["version"] == lksm.__version__
    assert (found["page_size"], found["scanned_bytes"]) == (PAGE_SIZE, 10 * PAGE_SIZE)
    assert found["saved_bytes"] == 5 * PAGE_SIZE
    assert found["already_shared_bytes"] == 0
    assert isinstance(found["elapsed_ms"], int) and found["elapsed_ms"] >= 0
    assert [found[key] for key in ("skipped", "gone", "refused")] == [[], [], []]
    first, second = found["processes"]
    assert list(first) == list(second) == ROW
    assert [first[key] for key in ROW[:7]] == ["one.raw", None, str(one), 6, 5, 1, 2]
    assert [second[key] for key in ROW[:7]] == ["two.raw", None, str(two), 4, 3, 1, 1]
    # one.raw: 2/3 of each of four pages and 1/2 of one; two.raw: 2/3 of two and 1/2 of one
    assert first["saved_bytes"] == round((4 * 2 / 3 + 1 / 2) * PAGE_SIZE)
    assert second["saved_bytes"] == round((2 * 2 / 3 + 1 / 2) * PAGE_SIZE)
    by_digest = {group["digest"]: group for group in found["groups"]}
    assert by_digest[digest("a")] == {
        "pages": 3, "processes": 2, "digest": digest("a"), "zero": False,
        "first": {"process": 0, "address": "0x0"},
    }  # fmt: skip
    assert by_digest[digest("0")]["zero"] is True
    assert by_digest[digest("0")]["first"] == {"process": 0, "address": hex(3 * PAGE_SIZE)}
    assert by_digest[digest("b")]["pages"] == 2
    assert [group["pages"] for group in found["groups"]] == [3, 3, 2]


def test_counters_are_all_there(tmp_path: Path, lksm_command: Lksm) -> None:
    """`counters` has every counter of the engine, in whole numbers."""
    counters = lksm_command.scan(image(tmp_path / "a", "a a b"))["counters"]
    with lksm.Engine() as engine:
        assert list(counters) == list(vars(engine.counters()))
    assert all(type(value) is int for value in counters.values())
    assert (counters["pages_shared"], counters["pages_sharing"], counters["pages_unshared"]) == (1, 1, 1)


def test_npy_raw_and_core_are_compared_with_each_other(tmp_path: Path, lksm_command: Lksm) -> None:
    """The same page in an array, an image and a core is one group, whatever its alignment in the file."""
    np.save(tmp_path / "a.npy", pages("x a"))
    image(tmp_path / "b.raw", "a y")
    core = elf_core(
        [Load(0x7F00_0000_0000, pages("z a").tobytes(), align=4096, shift=3928)], [prpsinfo("editor", 77)]
    )
    (tmp_path / "core").write_bytes(core)
    found = lksm_command.scan(tmp_path / "core", tmp_path / "a.npy", tmp_path / "b.raw")
    [group] = found["groups"]
    assert (group["pages"], group["processes"], group["digest"]) == (3, 3, digest("a"))
    assert group["first"] == {"process": 0, "address": hex(0x7F00_0000_0000 + PAGE_SIZE)}
    assert [row["name"] for row in found["processes"]] == ["editor", "a.npy", "b.raw"]
    assert [row["pid"] for row in found["processes"]] == [77, None, None]


def test_the_highest_addresses_are_exact(tmp_path: Path, lksm_command: Lksm) -> None:
    """An address near the end of 64 bits comes out to the last digit."""
    top = 0xFFFF_FFFF_FFFF_E000
    (tmp_path / "core").write_bytes(elf_core([Load(0x1000, content("b")), Load(top, pages("a a").tobytes())]))
    [group] = lksm_command.scan(tmp_path / "core")["groups"]
    assert group["first"]["address"] == hex(top)


@pytest.mark.parametrize("link", ["same", "relative", "symlink", "hardlink"])
def test_a_file_named_twice_is_attached_once(tmp_path: Path, lksm_command: Lksm, link: str) -> None:
    """The same file under any name is one process; the second name is reported as skipped."""
    file = image(tmp_path / "a.raw", "a b")
    other = tmp_path / "b.raw"
    if link == "symlink":
        other.symlink_to(file)
    elif link == "hardlink":
        other.hardlink_to(file)
    else:
        other = file if link == "same" else Path(os.path.relpath(file))
    found = lksm_command.scan(file, other)
    assert lksm_command.status == 0
    assert (len(found["processes"]), found["saved_bytes"]) == (1, 0)
    [skipped] = found["skipped"]
    assert (skipped["source"], skipped["what"], skipped["nbytes"]) == (str(other), "file", 2 * PAGE_SIZE)
    assert str(file) in skipped["reason"]


def test_equal_files_are_not_one_file(tmp_path: Path, lksm_command: Lksm) -> None:
    """Two files with the same bytes are two processes, and all of one is saved."""
    found = lksm_command.scan(image(tmp_path / "a", "a b"), image(tmp_path / "b", "a b"))
    assert found["saved_bytes"] == 2 * PAGE_SIZE
    assert [row["saved_bytes"] for row in found["processes"]] == [PAGE_SIZE, PAGE_SIZE]


def test_bytes_of_a_dump_that_are_named_twice_are_already_shared(tmp_path: Path, lksm_command: Lksm) -> None:
    """Two segments over the same bytes of the file are one page seen twice, and no saving."""
    data = pages("a b").tobytes()
    core = elf_core([Load(0x10000, data), Load(0x20000, filesz=len(data), memsz=len(data), offset=176)])
    assert core.index(data) == 176
    (tmp_path / "core").write_bytes(core)
    found = lksm_command.scan(tmp_path / "core")
    assert found["already_shared_bytes"] == found["scanned_bytes"] == 2 * PAGE_SIZE
    assert (found["saved_bytes"], found["processes"][0]["pages"]) == (0, 4)


def test_holes_and_tails_are_reported(tmp_path: Path, lksm_command: Lksm) -> None:
    """Holes of a sparse file and a tail of less than a page are skipped, with their sizes, and no pages."""
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(pages("a a").tobytes() + b"tail")
    found = lksm_command.scan(tmp_path / "sparse")
    assert found["scanned_bytes"] == 2 * PAGE_SIZE
    assert found["groups"][0]["first"]["address"] == hex(1 << 20)
    assert {item["what"]: item["nbytes"] for item in found["skipped"]} == {"hole": 1 << 20, "tail": 4}


def test_memory_that_was_not_dumped_is_not_zero(tmp_path: Path, lksm_command: Lksm) -> None:
    """What a core says of memory without its bytes is skipped; it counts neither as a page nor as zero."""
    core = elf_core([Load(0x10000, content("a"), memsz=5 * PAGE_SIZE)])
    (tmp_path / "core").write_bytes(core)
    found = lksm_command.scan(tmp_path / "core")
    assert [found["processes"][0][key] for key in ("pages", "zero")] == [1, 0]
    [skipped] = found["skipped"]
    assert list(skipped) == ["source", "what", "nbytes", "reason"]
    assert (skipped["nbytes"], skipped["reason"]) == (4 * PAGE_SIZE, "not dumped")


def test_top_chooses_how_many_groups(tmp_path: Path, lksm_command: Lksm) -> None:
    """`--top N` lists the N largest groups and their digests, 0 lists all; totals stay the same."""
    file = image(tmp_path / "a", "a a a a a b b b b c c c " + " ".join(f"{i} {i}" for i in range(12)))
    everything = lksm_command.scan(file)
    assert len(everything["groups"]) == 15
    for top, expected in ((1, 1), (3, 3), (40, 15)):
        some = json.loads(lksm_command("scan", "--json", "--top", top, file))
        assert some["groups"] == everything["groups"][:expected]
        assert some["counters"]["pages_shared"] == 15
    assert len(json.loads(lksm_command("scan", "--json", file))["groups"]) == 10


def test_one_frame_per_content_unless_limited(tmp_path: Path, lksm_command: Lksm) -> None:
    """Without a limit 600 equal pages are one frame; with the kernel's limit they are three, in one group."""
    file = image(tmp_path / "a", " ".join(["a"] * 600))
    unlimited = lksm_command.scan(file)
    assert [unlimited["counters"][key] for key in ("pages_shared", "pages_sharing")] == [1, 599]
    limited = lksm_command.scan("--max-page-sharing", 256, file)
    some = json.loads(lksm_command("scan", "--json", "--top", 1, "--max-page-sharing", 256, file))
    assert some["groups"] == limited["groups"]
    assert [limited["counters"][key] for key in ("pages_shared", "pages_sharing")] == [3, 597]
    assert limited["groups"] == unlimited["groups"]
    assert limited["saved_bytes"] == 597 * PAGE_SIZE


@pytest.mark.parametrize("limit", [None, 2, 4, 256])
@pytest.mark.parametrize("nr_zero", [0, 1, 2, 9, 257])
def test_zero_pages_are_counted_exactly(
    tmp_path: Path, lksm_command: Lksm, nr_zero: int, limit: int | None
) -> None:
    """Pages of zeros are counted whether merged, alone, or in many frames because of a limit."""
    near = pages("0 0 0")
    near[0, -1] = near[1, 16] = near[2, 2000] = 1
    with (tmp_path / "a").open("wb") as file:
        file.write(bytes(nr_zero // 2 * PAGE_SIZE) + near.tobytes() + pages("b b c").tobytes())
    with (tmp_path / "b").open("wb") as file:
        file.write(near.tobytes() + bytes((nr_zero - nr_zero // 2) * PAGE_SIZE))
    options = [] if limit is None else ["--max-page-sharing", limit]
    found = lksm_command.scan(*options, tmp_path / "a", tmp_path / "b")
    assert [row["zero"] for row in found["processes"]] == [nr_zero // 2, nr_zero - nr_zero // 2]


def test_page_size(tmp_path: Path, lksm_command: Lksm) -> None:
    """`--page-size` is that of all files, with binary units; another one finds other pages."""
    file = image(tmp_path / "a", "a b c d a b c d e")
    large = lksm_command.scan("--page-size", "16K", file)
    assert (large["page_size"], large["saved_bytes"]) == (16384, 16384)
    assert large["skipped"][0]["nbytes"] == PAGE_SIZE
    small = lksm_command.scan("--page-size", 64, file)
    assert small["saved_bytes"] == 4 * PAGE_SIZE
    assert small["counters"]["pages_sharing"] == 4 * 64


def test_options_may_stand_anywhere(tmp_path: Path, lksm_command: Lksm) -> None:
    """Sources before, between and after options are all scanned."""
    files = [image(tmp_path / name, "a") for name in "abc"]
    found = json.loads(lksm_command("scan", files[0], "--json", files[1], "--top", "3", files[2]))
    assert [row["name"] for row in found["processes"]] == ["a", "b", "c"]


def test_the_text_report(tmp_path: Path, lksm_command: Lksm) -> None:
    """The report for people has totals, processes, groups with their places, and what was skipped."""
    one = image(tmp_path / "one.raw", "a b a 0 c 0")
    two = image(tmp_path / "two.raw", "d a 0 b")
    with two.open("ab") as file:
        file.write(b"rest")
    text = lksm_command("scan", one, two, tmp_path / "missing")
    assert lksm_command.status == 1
    assert "2 processes, 10 pages of 4096 bytes, 40.0 KiB" in text
    assert "merging saves 20.0 KiB, 50.0% of this memory" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["one.raw", "-", "6", "5", "1", "2", "12.7", "KiB", str(one)] in lines
    assert ["3", "12.0", "KiB", "2", "zeros", "0x3000", str(one)] in lines
    assert ["2", "8.0", "KiB", "2", digest("b"), "0x1000", str(one)] in lines
    assert ["shared", "3", "12.0", "KiB", "distinct", "merged", "contents"] in lines
    assert any(line[:3] == ["tail", "4", "B"] for line in lines)
    assert any(line[:2] == [str(tmp_path / "missing"), "refused"] for line in lines)
    assert "\x1b" not in text and "\t" not in text


def test_thousands_of_regions(tmp_path: Path, lksm_command: Lksm) -> None:
    """A core of several thousand segments is one process; each page has its own address."""
    loads = [Load(0x1000_0000 + i * 0x10000, content(f"u{i}")) for i in range(3000)]
    loads += [Load(0x9000_0000 + i * 0x10000, content(f"u{i}")) for i in range(3000)]
    (tmp_path / "core").write_bytes(elf_core(loads))
    found = lksm_command.scan(tmp_path / "core")
    addresses = {group["digest"]: group["first"]["address"] for group in found["groups"]}
    assert addresses == {digest(f"u{i}"): hex(0x1000_0000 + i * 0x10000) for i in range(3000)}
