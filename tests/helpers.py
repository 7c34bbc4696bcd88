"""Pictures for inputs and counters for results.

`pages("a a b")` is three pages, the first two equal; `expect(engine, shared=1, sharing=1, unshared=1)`
says what the engine must have counted. Both are used by every test of behaviour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

import lksm

PAGE_SIZE = 4096

Pages = npt.NDArray[np.uint8]

_SHORT_NAMES = {
    "shared": "pages_shared",
    "sharing": "pages_sharing",
    "unshared": "pages_unshared",
    "volatile": "pages_volatile",
    "chains": "stable_node_chains",
    "dups": "stable_node_dups",
}


def content(word: str, page_size: int = PAGE_SIZE) -> bytes:
    """The page a word stands for: the same word is the same page, another word is another page.

    `0` is the page of zeros. A mark behind a word changes the page as little as possible:
    `a^` differs from `a` in one bit in the middle, `a<` in the first byte, `a>` in the last byte.
    """
    if word[-1] in "^<>" and len(word) > 1:
        changed = bytearray(content(word[:-1], page_size))
        where = {"^": page_size // 2 + 5, "<": 0, ">": page_size - 1}[word[-1]]
        changed[where] ^= 0x10
        return bytes(changed)
    if word == "0":
        return bytes(page_size)
    return hashlib.shake_128(word.encode()).digest(page_size)


def pages(picture: str, page_size: int = PAGE_SIZE) -> Pages:
    """The pages of a picture, one per word: uint8, shape (n, page_size), writable."""
    joined = b"".join(content(word, page_size) for word in picture.split())
    return np.frombuffer(joined, np.uint8).reshape(-1, page_size).copy()


def repeated(word: str, count: int, page_size: int = PAGE_SIZE) -> Pages:
    """`count` equal pages."""
    return pages(" ".join([word] * count), page_size)


def unique_pages(count: int, name: str = "u", page_size: int = PAGE_SIZE) -> Pages:
    """`count` pages, no two equal; another name gives other pages."""
    return pages(" ".join(f"{name}{i}" for i in range(count)), page_size)


def expect(engine: lksm.Engine, **expected: int) -> None:
    """The engine's counters are as said, and its structures are sound."""
    counters = engine.counters()
    names = {name: _SHORT_NAMES.get(name, name) for name in expected}
    actual = {name: getattr(counters, names[name]) for name in expected}
    assert actual == expected
    assert engine.check() == []


def ids(engine: lksm.Engine, process: lksm.Process) -> list[int]:
    """The page table of a process as a plain list: frame ids, -1 private, -3 absent."""
    return [int(frame) for frame in engine.page_table(process)]


def bytes_of(process: lksm.Process, page: int) -> bytes:
    """What the process reads at a page."""
    return process.read(page).tobytes()


def reads(process: lksm.Process, picture: str, page_size: int = PAGE_SIZE) -> bool:
    """Every page of the process reads back as the picture says."""
    return process.read(0, process.nr_pages).tobytes() == pages(picture, page_size).tobytes()


def finish(engine: lksm.Engine, batch: int = 100) -> int:
    """Run the scan that is under way to its end and return the pages visited."""
    total = 0
    while visited := engine.scan(batch):
        total += visited
    return total


def partition(tables: Iterable[Sequence[int]]) -> list[list[int]]:
    """Page tables with their frames renumbered by first appearance: equal iff the same pages are together."""
    names: dict[int, int] = {}
    return [
        [frame if frame < 0 else names.setdefault(frame, len(names)) for frame in table] for table in tables
    ]
