"""Proportional savings, and the numbers behind a report, against plain counting."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import lksm
from helpers import pages
from lksm.cli._places import ABSENT, REPEATED, Places
from lksm.report import proportional_savings

_TABLES = st.lists(st.lists(st.integers(-4, 12), max_size=30), max_size=6)


@given(_TABLES, st.sampled_from([64, 4096, 65536]))
def test_savings_add_up(lists: list[list[int]], page_size: int) -> None:
    """Whole bytes that add up to the total, none further than one byte from the exact fraction."""
    tables = [np.array(table, np.int64) for table in lists]
    savings = proportional_savings(tables, page_size)
    sharers = Counter(frame for table in lists for frame in table if frame >= 0)
    exact = [
        sum((1 - Fraction(1, sharers[frame])) * page_size for frame in table if frame >= 0) for table in lists
    ]
    assert sum(savings) == sum(exact) == (sharers.total() - len(sharers)) * page_size
    assert all(abs(saved - fraction) < 1 for saved, fraction in zip(savings, exact, strict=True))


def test_equal_fractions_go_to_the_first() -> None:
    """Three sharers of one page save two thirds each: the odd bytes go to those attached first."""
    assert proportional_savings([np.array([7])] * 3, 4096) == [2731, 2731, 2730]


def test_savings_of_nothing() -> None:
    """Without merged pages, or processes, nothing is saved."""
    assert proportional_savings([], 4096) == []
    assert proportional_savings([np.array([-1, -3]), np.empty(0, np.int64)], 4096) == [0, 0]


_LAYOUT = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=4), max_size=4
)


@given(_LAYOUT, st.lists(st.lists(st.integers(-1, 7), min_size=1, max_size=6), max_size=3))
def test_places(layout: list[list[tuple[int, int]]], rows: list[list[int]]) -> None:
    """Each page's address and whether it lies where an earlier one does, for views, overlaps and rows."""
    memory = pages("a b a 0 c 0 a b")
    expected_tables, addresses, seen = [], [], set()
    with lksm.Engine(initial_rounds=0) as engine:
        for regions in layout:
            where, made = 0x10000, []
            for start, length in regions:
                made.append(lksm.Region(where, memory[start : start + length + 1]))
                where += (length + 3) * 4096
            engine.attach(made, immutable=True)
        for numbers in rows:
            engine.attach([lksm.Region(0x7000, memory, np.array(numbers))], immutable=True)
        engine.full()
        for process in engine.processes:
            table, own, first = engine.page_table(process).tolist(), [], 0
            for region in process.regions:
                used = range(len(region.array)) if region.rows is None else region.rows.tolist()
                for index, row in enumerate(used):
                    own.append(region.address + index * 4096)
                    if table[first + index] != ABSENT:
                        pointer = region.array[row].ctypes.data
                        if pointer in seen:
                            table[first + index] = REPEATED
                        seen.add(pointer)
                first += len(used)
            expected_tables.append(table)
            addresses.append(own)
        places = Places(engine)
        assert [table.tolist() for table in places.tables] == expected_tables
        assert places.nr_repeated == sum(table.count(REPEATED) for table in expected_tables)
        for index, own in enumerate(addresses):
            numbers = np.arange(len(own))
            assert places.addresses(np.full(len(own), index), numbers).tolist() == own
            assert [places.page_at(index, address + 4095) for address in own] == numbers.tolist()
            assert places.page_at(index, 0) is None
        counters = engine.counters()
        merged = sum((table >= 0).sum() for table in places.tables)
        assert merged == counters.pages_shared + counters.pages_sharing
