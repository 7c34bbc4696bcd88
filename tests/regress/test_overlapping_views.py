"""A write reaches every tracked page that lies over its bytes, also if that begins elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

import lksm
from helpers import PAGE_SIZE, bytes_of, content, ids, pages


@pytest.mark.parametrize("offset", [0, 1, 2048, 4095])
@pytest.mark.parametrize("domain", [0, 5])
def test_views_that_begin_elsewhere(offset: int, domain: int) -> None:
    """Both pages that a written page lies over are looked at again, in whatever domain they are."""
    memory = np.zeros(5 * PAGE_SIZE, np.uint8)
    with lksm.Engine(initial_rounds=0, use_zero_pages=1) as engine:
        first = engine.attach(memory[: 3 * PAGE_SIZE], tracked=True)
        second = engine.attach(memory[offset : offset + 3 * PAGE_SIZE], tracked=True, domain=domain)
        engine.full()
        assert ids(engine, second) == [-2, -2, -2]
        first.write(1, content("x"))
        engine.full()
        changed = [page for page in range(3) if np.any(second.read(page))]
        assert changed == ([1] if offset == 0 else [0, 1])
        assert [page for page in range(3) if ids(engine, second)[page] != -2] == changed
        assert engine.check() == []


def test_merged_page_of_a_view(engine: lksm.Engine) -> None:
    """A merged page that a write in another view has changed does not stay merged."""
    memory = pages("a b c d").reshape(-1)
    first = engine.attach(memory[: 3 * PAGE_SIZE], tracked=True)
    second = engine.attach(memory[2048 : 2048 + 3 * PAGE_SIZE], tracked=True)
    twin = engine.attach(second.read(0, 3))
    engine.full()
    assert ids(engine, second) == ids(engine, twin)
    first.write(1, b"x", offset=PAGE_SIZE - 1)
    engine.full()
    assert [frame >= 0 for frame in ids(engine, second)] == [True, False, True]
    assert bytes_of(second, 1) != bytes_of(twin, 1)
