"""Dumps of real processes: `lksm scan` against counting the bytes of the same files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import xxhash
from elftools.elf.elffile import ELFFile  # type: ignore[import-untyped,unused-ignore]

from run_lksm import Lksm

_PROGRAM = """
import sys
{imports}
rows = [str(number) * 50 for number in range({number})]
blank = bytearray(40 * 4096)
print(flush=True)
sys.stdin.read()
"""
_IMPORTS = [
    "import json, decimal",
    "import asyncio",
    "import sqlite3, unittest",
    "import email, http.client",
    "",
]


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Core dumps of several running Python processes that import different things."""
    if shutil.which("gcore") is None:
        pytest.skip("gcore (gdb) is not installed")
    directory = tmp_path_factory.mktemp("dumps")
    # a sanitizer's shadow memory does not belong in a dump
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    paths = []
    for imports in _IMPORTS:
        program = _PROGRAM.format(imports=imports, number=1000 * len(imports))
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None and process.stdout.readline() == b"\n"
                paths.append(_dump(process.pid, directory))
            finally:
                process.kill()
    return paths


def _dump(pid: int, directory: Path) -> Path:
    command = ["gcore", "-o", str(directory / "core"), str(pid)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    path = directory / f"core.{pid}"
    if not path.exists():
        pytest.skip(f"gcore made no dump: {(ran.stderr or ran.stdout).strip().splitlines()[-1:]}")
    return path


def count_pages(path: Path) -> dict[bytes, list[int]]:
    """Every page of a dump, and the addresses where it is: the brute force."""
    found = defaultdict(list)
    with path.open("rb") as file:
        for segment in ELFFile(file).iter_segments("PT_LOAD"):
            data, address = segment.data(), segment["p_vaddr"]
            assert address % 4096 == len(data) % 4096 == 0
            for offset in range(0, len(data), 4096):
                found[data[offset : offset + 4096]].append(address + offset)
    return found


def test_real_dumps_are_counted_exactly(lksm_command: Lksm, dumps: list[Path]) -> None:
    """Totals, processes and every single group of real dumps equal a count of their bytes."""
    pages_of = [count_pages(path) for path in dumps]
    total: Counter[bytes] = Counter()
    for found in pages_of:
        total.update({page: len(places) for page, places in found.items()})
    found = lksm_command.scan(*dumps)

    counters = found["counters"]
    shared = {page: count for page, count in total.items() if count > 1}
    assert counters["pages_shared"] == len(shared) > 100
    assert counters["pages_sharing"] == sum(shared.values()) - len(shared)
    assert counters["pages_unshared"] == len(total) - len(shared)
    assert found["scanned_bytes"] == sum(total.values()) * 4096
    assert found["saved_bytes"] == (sum(total.values()) - len(total)) * 4096
    assert found["already_shared_bytes"] == 0

    expected = {xxhash.xxh3_64_hexdigest(page): _group(page, pages_of) for page in shared}
    assert {group.pop("digest"): group for group in found["groups"]} == expected

    zero = bytes(4096)
    for row, own in zip(found["processes"], pages_of, strict=True):
        assert row["pages"] == sum(map(len, own.values()))
        assert row["merged"] == sum(len(places) for page, places in own.items() if page in shared)
        assert row["unshared"] == row["pages"] - row["merged"]
        assert row["zero"] == len(own.get(zero, ()))
        saved = sum(len(places) * (1 - 1 / total[page]) * 4096 for page, places in own.items())
        assert abs(row["saved_bytes"] - saved) <= 1
    assert [row["source"] for row in found["processes"]] == list(map(str, dumps))


def _group(page: bytes, pages_of: list[dict[bytes, list[int]]]) -> dict[str, object]:
    """What the report must say of a content."""
    users = [index for index, found in enumerate(pages_of) if page in found]
    return {
        "pages": sum(len(pages_of[index][page]) for index in users),
        "processes": len(users),
        "zero": not any(page),
        "first": {"process": users[0], "address": hex(min(pages_of[users[0]][page]))},
    }


def test_the_kernels_limit_on_real_dumps(lksm_command: Lksm, dumps: list[Path]) -> None:
    """With a limit of 4 sharers every content of n pages is in as many full frames as that gives."""
    total: Counter[bytes] = Counter()
    for path in dumps:
        total.update({page: len(places) for page, places in count_pages(path).items()})
    counters = lksm_command.scan("--max-page-sharing", 4, *dumps)["counters"]
    # the first frame takes 4; what is left over from a multiple of 4 is a frame if it is a pair or more
    frames = sum(count // 4 + (count % 4 > 1) for count in total.values())
    alone = sum(count % 4 == 1 for count in total.values())
    assert (counters["pages_shared"], counters["pages_unshared"]) == (frames, alone)
    assert counters["pages_sharing"] == sum(total.values()) - frames - alone


def test_a_page_of_a_real_dump_explained(lksm_command: Lksm, dumps: list[Path]) -> None:
    """A page that two dumps share is explained as merged, with a place in each."""
    first, second = count_pages(dumps[0]), count_pages(dumps[1])
    page = next(page for page in first if len(first[page]) == len(second.get(page, ())) == 1)
    lines = lksm_command("explain", dumps[0], dumps[1], "--address", hex(first[page][0])).splitlines()
    assert lines[1].startswith("merged: ")
    places = [(dumps[0], first), (dumps[1], second)]
    for line, (path, found) in zip(lines[4:], places, strict=True):
        assert line.startswith(f"  {found[page][0]:#x} of python") and str(path) in line
