"""Page sets made from a name and a seed, with known counters: for tests, benchmarks and trying things out.

The same name, number of pages, seed and page size give the same bytes on every machine. Random bytes come
in blocks, so making a set takes little more memory than the set. Contents that have to differ do so for
certain, by a number in them that no other page has, and not just with high probability.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ..memory import Region
from ._types import SourceProcess

Pages: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.uint64]
Counts: TypeAlias = tuple[int, int, int]

_MIN_PAGE_SIZE = 64
_BLOCK_WORDS = 1 << 20  # 8 MiB of random words at a time
_COPIES = 16  # `half`: how many pages share one content, about
_SPARSE_WORDS = 4  # `sparse`: how many words of a page are written, at most
_ODD = 0x9E3779B97F4A7C15  # multiplying by an odd number permutes the 64-bit numbers
_FRAMEWORK_ADDRESS = 0x7F00_0000_0000
_HEAP_ADDRESS = 0x5500_0000_0000


def names() -> tuple[str, ...]:
    """The page sets that `make` knows."""
    return tuple(_SETS)


def make(name: str, nr_pages: int, *, seed: int = 0, page_size: int = 4096) -> Pages:
    """Make a page set: uint8 (nr_pages, page_size), writable, all of it resident.

    `unique`     random pages, all different
    `half`       even pages as `unique`; odd pages are copies of one another, about 16 of each content,
                 and twins lie far apart
    `pairs`      random contents, each of them twice, in random order; an odd last page is unique
    `zero`       all bytes zero
    `lastbytes`  one random page over and over, but the last 8 bytes are different in each
    `sparse`     zero but for up to 4 words at random places, all different

    `expected` tells the counters. Raises `SourceError` for an unknown name or a page size that is not a
    multiple of 8 of at least 64 bytes.
    """
    fill = _set(name).fill
    pages = _empty(nr_pages, page_size)
    fill(pages.view(np.uint64), _random(seed))
    return pages


def expected(name: str, nr_pages: int) -> Counts:
    """What merging all of a page set gives: (pages_shared, pages_sharing, pages_unshared).

    `unique`, `lastbytes`, `sparse`: nothing is shared. `zero`: one content. `pairs`: every content is
    shared once, saving half. `half`: even pages stay unshared; of odd ones, one in 16 is a content.
    """
    return _set(name).expected(nr_pages)


def lifecycle(
    nr_apps: int = 8,
    *,
    framework_pages: int = 256,
    private_pages: int = 128,
    zero_pages: int = 64,
    seed: int = 0,
    page_size: int = 4096,
) -> list[SourceProcess]:
    """Apps as on a phone: each has a copy of the framework, and a heap of private and of zero pages.

    One process an app, pids from 1000. The framework's pages are different from each other and the same
    in all apps, at one address, as after loading the same files; private pages are different everywhere;
    zero pages lie at random places of the heap. The first app is in the foreground and the others are
    frozen. Arrays are writable, so a test may let apps work on. `expected_lifecycle` tells the counters.
    """
    for count in (nr_apps, framework_pages, private_pages, zero_pages):
        if count < 1:
            raise SourceError(f"an app set of {count} apps or pages of a kind, expected at least 1")
    random = _random(seed)
    framework = _empty(framework_pages, page_size)
    _fill_different(framework.view(np.uint64), random)
    private = _empty(nr_apps * private_pages, page_size)
    _fill_different(private.view(np.uint64), random, first=framework_pages)
    return [
        SourceProcess(
            source="synthetic lifecycle",
            name=f"app{index}",
            pid=1000 + index,
            regions=(
                Region(_HEAP_ADDRESS, _heap(own, zero_pages, random)),
                Region(_FRAMEWORK_ADDRESS, framework.copy()),
            ),
            immutable=False,
            frozen=index > 0,
        )
        for index, own in enumerate(private.reshape(nr_apps, private_pages, page_size))
    ]


def expected_lifecycle(
    nr_apps: int = 8, *, framework_pages: int = 256, private_pages: int = 128, zero_pages: int = 64
) -> Counts:
    """What merging all apps gives: the framework once, one zero page, and the private pages unshared."""
    framework = _copies(nr_apps, framework_pages)
    zero = _copies(nr_apps * zero_pages, 1)
    private = (0, 0, nr_apps * private_pages)
    shared, sharing, unshared = (sum(column) for column in zip(framework, zero, private, strict=True))
    return shared, sharing, unshared


def _heap(private: Pages, zero_pages: int, random: np.random.Generator) -> Pages:
    heap = _empty(len(private) + zero_pages, private.shape[1])
    heap.fill(0)
    places = random.permutation(len(heap))[: len(private)]
    heap[places] = private
    return heap


def _random(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


def _empty(nr_pages: int, page_size: int) -> Pages:
    if nr_pages < 1:
        raise SourceError(f"number of pages is {nr_pages}, expected at least 1")
    if page_size < _MIN_PAGE_SIZE or page_size % 8:
        raise SourceError(f"page size is {page_size}, expected a multiple of 8 of at least {_MIN_PAGE_SIZE}")
    return np.empty((nr_pages, page_size), np.uint8)


def _numbers(start: int, stop: int) -> Words:
    """The numbers from start to stop (at most 2**63), spread over all 64 bits: all different."""
    return np.arange(start + 1, stop + 1, dtype=np.uint64) * np.uint64(_ODD)


def _blocks(words: Words) -> list[tuple[int, int]]:
    """Row ranges of at most 8 MiB."""
    step = max(1, _BLOCK_WORDS // words.shape[1])
    return [(start, min(start + step, len(words))) for start in range(0, len(words), step)]


def _different(shape: tuple[int, int], random: np.random.Generator, first: int) -> Words:
    """Random pages numbered from `first`: different from all pages with other numbers."""
    block = random.integers(0, 1 << 64, shape, dtype=np.uint64)
    block[:, 0] = _numbers(first, first + shape[0])
    return block


def _fill_different(words: Words, random: np.random.Generator, first: int = 0) -> None:
    for start, stop in _blocks(words):
        words[start:stop] = _different((stop - start, words.shape[1]), random, first + start)


def _fill_half(words: Words, random: np.random.Generator) -> None:
    even, odd = words[0::2], words[1::2]
    _fill_different(even, random)
    nr_contents = _half_contents(len(words))
    _fill_different(odd[:nr_contents], random, first=len(even))
    for start in range(nr_contents, len(odd), max(1, nr_contents)):
        stop = min(start + nr_contents, len(odd))
        odd[start:stop] = odd[: stop - start]


def _fill_pairs(words: Words, random: np.random.Generator) -> None:
    order = random.permutation(len(words))
    firsts, seconds = order[0::2], order[1::2]  # one more first than seconds if the number is odd
    for start, stop in _blocks(words[: len(firsts)]):
        block = _different((stop - start, words.shape[1]), random, start)
        words[firsts[start:stop]] = block
        words[seconds[start:stop]] = block[: len(seconds[start:stop])]


def _fill_zero(words: Words, random: np.random.Generator) -> None:
    words.fill(0)  # written, not np.zeros: untouched memory would be the kernel's one zero page


def _fill_lastbytes(words: Words, random: np.random.Generator) -> None:
    words[:] = random.integers(0, 1 << 64, words.shape[1], dtype=np.uint64)
    words[:, -1] = _numbers(0, len(words))


def _fill_sparse(words: Words, random: np.random.Generator) -> None:
    """The word written last is odd and its number is the page's own; the others are even."""
    words.fill(0)
    for start, stop in _blocks(words):
        rows = np.arange(start, stop)
        places = random.integers(0, words.shape[1], (_SPARSE_WORDS, len(rows)))
        values = random.integers(0, 1 << 63, (_SPARSE_WORDS, len(rows)), dtype=np.uint64) << np.uint64(1)
        values[-1] = _numbers(start, stop) << np.uint64(1) | np.uint64(1)
        for place, value in zip(places, values, strict=True):
            words[rows, place] = value


def _half_contents(nr_pages: int) -> int:
    nr_odd = nr_pages // 2
    return min(nr_odd, max(1, nr_odd // _COPIES))


def _expected_half(nr_pages: int) -> Counts:
    nr_odd = nr_pages // 2
    nr_contents = _half_contents(nr_pages)
    if nr_odd < 2:
        return 0, 0, nr_pages
    return nr_contents, nr_odd - nr_contents, nr_pages - nr_odd


def _copies(nr_copies: int, nr_contents: int) -> Counts:
    """Counters of some contents with so many pages each."""
    if nr_copies < 2:
        return 0, 0, nr_copies * nr_contents
    return nr_contents, nr_contents * (nr_copies - 1), 0


class _Set:
    """How one page set is made, and what merging it gives."""

    def __init__(
        self, fill: Callable[[Words, np.random.Generator], None], expected: Callable[[int], Counts]
    ) -> None:
        self.fill = fill
        self.expected = expected


_SETS = {
    "unique": _Set(_fill_different, lambda nr_pages: (0, 0, nr_pages)),
    "half": _Set(_fill_half, _expected_half),
    "pairs": _Set(_fill_pairs, lambda nr_pages: (nr_pages // 2, nr_pages // 2, nr_pages % 2)),
    "zero": _Set(_fill_zero, lambda nr_pages: _copies(nr_pages, 1)),
    "lastbytes": _Set(_fill_lastbytes, lambda nr_pages: (0, 0, nr_pages)),
    "sparse": _Set(_fill_sparse, lambda nr_pages: (0, 0, nr_pages)),
}


def _set(name: str) -> _Set:
    try:
        return _SETS[name]
    except KeyError:
        raise SourceError(f"no page set is called {name!r}, expected one of {', '.join(_SETS)}") from None
