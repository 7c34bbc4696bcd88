"""Bytes from labels: the same label is the same page, another label is another page in every word.

A page is a row of random words, one of a few, each combined with a number made from the label. So a page
costs one pass over its bytes, and looks random to whoever reads a part of it.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .events import ZERO, Numbers

Pages: TypeAlias = npt.NDArray[np.uint8]

PATCH_BYTES = 16  # a write of a few bytes; a multiple of it is where the write starts

_ODD = np.uint64(0x9E3779B97F4A7C15)  # multiplying by an odd number permutes the 64-bit numbers
_ROWS = 64
_BLOCK_PAGES = 512


class Contents:
    """Pages of one size. The random rows are always the same: labels make the difference."""

    def __init__(self, page_size: int) -> None:
        random = np.random.Generator(np.random.SFC64(0))
        self._rows = random.integers(0, 1 << 64, (_ROWS, page_size // 8), dtype=np.uint64)
        # The first two words of a page combine to its row's number plus one, whatever the label: so pages
        # of different rows differ for certain, and none is the page of zeros.
        self._rows[:, 1] = self._rows[:, 0] ^ np.arange(1, _ROWS + 1, dtype=np.uint64)
        self._nr_places = page_size // PATCH_BYTES

    def pages(self, labels: Numbers) -> Pages:
        """The pages of labels, uint8 (n, page_size), writable."""
        words = np.empty((len(labels), self._rows.shape[1]), np.uint64)
        numbers = labels.astype(np.uint64) * _ODD
        for start in range(0, len(labels), _BLOCK_PAGES):
            block = slice(start, start + _BLOCK_PAGES)
            np.bitwise_xor(self._rows[labels[block] % _ROWS], numbers[block, None], out=words[block])
        words[labels == ZERO] = 0
        return words.view(np.uint8)

    def patch(self, label: int) -> tuple[int, bytes]:
        """Where a patch goes in its page, in bytes, and its few bytes, which no other label has."""
        number = label * int(_ODD) % 2**64
        place = (number >> 32) % self._nr_places
        return place * PATCH_BYTES, number.to_bytes(8, "little") + (~number % 2**64).to_bytes(8, "little")
