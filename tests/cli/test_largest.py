"""The largest groups and the zero pages of a report, against those of `Engine.groups` and of the bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

import lksm
from lksm.cli import _largest, _zero
from lksm.cli._places import Places
from lksm.memory import Region

_FIELDS = ["frame", "pages", "processes", "first_process", "first_page"]


def _scanned(seed: int, zeros: int) -> tuple[lksm.Engine, list[npt.NDArray[np.uint8]]]:
    """Three processes of few contents; some pages are mapped by two, and `zeros` pages are zero."""
    random = np.random.default_rng(seed)
    contents = random.integers(1, 256, (12, 1), np.uint8) * np.ones((1, 4096), np.uint8)
    contents[:, :8] = random.integers(1, 256, (12, 8), np.uint8)
    engine = lksm.Engine(initial_rounds=0, max_page_sharing=2**31 - 1)
    arrays = []
    for number in range(3):
        array = contents[random.integers(0, 12, 20)]
        array[:, 8] = np.where(random.random(20) < 0.3, random.integers(0, 255, 20), array[:, 8])
        if number == 1:
            array[random.permutation(20)[:zeros]] = 0
        arrays.append(array)
    engine.attach(arrays[0], immutable=True, frozen=True, mergeable=True)
    both = [Region(0, arrays[1]), Region(1 << 20, arrays[0], np.array([3, -1, 3, 7]))]
    engine.attach(both, immutable=True, frozen=True, mergeable=True)
    engine.attach(arrays[2], immutable=True, frozen=True, mergeable=True)
    engine.full()
    assert engine.check() == []
    return engine, arrays


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("top", [1, 3, 7, 1000])
def test_the_largest_are_those_of_the_engine(seed: int, top: int) -> None:
    """The first groups, by pages and then by frame, with all that is told of them, and their number."""
    engine, _ = _scanned(seed, zeros=seed % 3)
    with engine:
        places = Places(engine)
        assert _zero.one_frame_each(engine, places)
        nr_sharers = _largest.sharers(places)
        expected = engine.groups()
        found = _largest.largest(places, nr_sharers, top)
        assert found[_FIELDS].tolist() == expected[_FIELDS][:top].tolist()
        assert (nr_sharers >= 2).sum() == len(expected)
        zeros = engine.find(bytes(4096))
        assert (found["frame"] == zeros).tolist() == expected["zero"][:top].tolist()


@pytest.mark.parametrize("zeros", [0, 1, 2, 5])
def test_zero_pages_are_counted(zeros: int) -> None:
    """No page of zeros, one without a twin, and several are counted where they are."""
    engine, _ = _scanned(1, zeros)
    with engine:
        nr_unshared = [process.stats().unshared for process in engine.processes]
        assert _zero.count_zero_pages(engine, Places(engine), nr_unshared) == [0, zeros, 0]


def test_find() -> None:
    """What became of a content: its frame, -1 for a page without a twin, -3 for what no page has."""
    pages = np.zeros((4, 4096), np.uint8)
    pages[:, 0] = [1, 1, 2, 0]
    with lksm.Engine(initial_rounds=0) as engine:
        assert engine.find(pages[0].tobytes()) == -3
        process = engine.attach(pages, mergeable=True)
        engine.full()
        table = engine.page_table(process)
        assert [engine.find(page.tobytes()) for page in pages] == table.tolist() == [0, 0, -1, -1]
        assert engine.find(bytes([3]) + bytes(4095)) == -3
        assert engine.find(pages[0].tobytes(), domain=7) == -3
        with pytest.raises(lksm.InvalidMemory, match="4095 bytes, expected one page of 4096"):
            engine.find(bytes(4095))
        assert engine.check() == []
