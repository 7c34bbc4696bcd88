"""`attach(memory)`: every accepted form, and every refusal with a message that names what was wrong."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lksm
from helpers import PAGE_SIZE, expect, ids, pages, partition, reads, repeated, unique_pages
from lksm.memory import RegionFlag


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float64, np.complex128, np.bool_])
def test_any_plain_dtype_is_pages(engine: lksm.Engine, dtype: Any) -> None:
    """Arrays of every plain dtype are their bytes."""
    array = np.zeros(2 * PAGE_SIZE // np.dtype(dtype).itemsize, dtype)
    array[-1] = 1
    process = engine.attach(array, mergeable=True)
    assert process.nr_pages == 2
    assert process.read(0, 2).tobytes() == array.tobytes()


@pytest.mark.parametrize("shape", [(2, 4096), (8192,), (4, 2, 1024), (1, 8192), (2, 4096, 1)])
def test_any_shape_is_pages(engine: lksm.Engine, shape: tuple[int, ...]) -> None:
    """The shape does not matter as long as the bytes lie in one piece."""
    process = engine.attach(pages("a a").reshape(shape), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1)
    assert process.nr_pages == 2


def test_bytes_at_any_alignment(engine: lksm.Engine) -> None:
    """Pages may begin at any byte."""
    for offset in (1, 3, 7, 63, 65):
        memory = np.zeros(2 * PAGE_SIZE + offset, np.uint8)
        memory[offset:] = pages("a b").reshape(-1)
        process = engine.attach(memory[offset:], mergeable=True)
        assert reads(process, "a b")
    engine.full()
    expect(engine, shared=2, sharing=8)


def test_a_list_of_arrays_is_one_process(engine: lksm.Engine) -> None:
    """Arrays of a list follow each other; page numbers run through them."""
    process = engine.attach([pages("a b"), pages("c"), pages("a")], mergeable=True)
    engine.full()
    assert process.nr_pages == 4
    assert reads(process, "a b c a")
    assert partition([ids(engine, process)]) == [[0, -1, -1, 0]]
    assert [region.address for region in process.regions] == [0, 2 * PAGE_SIZE, 3 * PAGE_SIZE]


def test_regions_are_in_address_order(engine: lksm.Engine) -> None:
    """Regions may be given in any order; pages are numbered by address."""
    process = engine.attach(
        [lksm.Region(0x9000, pages("b")), lksm.Region(0x1000, pages("a c"))], mergeable=True
    )
    assert reads(process, "a c b")
    assert [region.address for region in process.regions] == [0x1000, 0x9000]


def test_one_region_is_memory(engine: lksm.Engine) -> None:
    """A single region is accepted in a list."""
    process = engine.attach([lksm.Region(0x7000, pages("a b"))])
    assert [region.address for region in process.regions] == [0x7000]


def test_address_places_a_bare_array(engine: lksm.Engine) -> None:
    """`address` is where the first page of a bare array lies."""
    process = engine.attach(pages("a b"), address=0x40_0000)
    assert process.regions[0].address == 0x40_0000


def test_rows_choose_pages(engine: lksm.Engine) -> None:
    """With `rows` page i of a region is a row of the array, and -1 is absent."""
    memory = pages("a b a")
    process = engine.attach([lksm.Region(0, memory, rows=np.array([2, -1, 0, 1, -1]))], mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=1, rmap_items=3)
    assert partition([ids(engine, process)]) == [[0, -3, 0, -1, -3]]


def test_one_row_twice_is_one_page(engine: lksm.Engine) -> None:
    """Two pages that are the same row are physically one: no saving, never merged with each other."""
    process = engine.attach([lksm.Region(0, pages("a b"), rows=np.array([0, 0, 1, 0]))], mergeable=True)
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=2, volatile=2, rmap_items=4)
    assert process.nr_pages == 4


def test_rows_are_the_callers_to_change(engine: lksm.Engine) -> None:
    """Changing the row array after attaching changes nothing."""
    rows = np.array([0, 1])
    process = engine.attach([lksm.Region(0, pages("a b"), rows=rows)], mergeable=True)
    rows[:] = 0
    engine.full()
    assert reads(process, "a b")


def test_one_array_attached_twice_is_one_set_of_pages(engine: lksm.Engine) -> None:
    """The same array in two processes is no saving."""
    memory = pages("a b c")
    first = engine.attach(memory, mergeable=True)
    second = engine.attach(memory, mergeable=True)
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=3, volatile=3, rmap_items=6)
    third = engine.attach(pages("b"), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=2, volatile=3)
    assert ids(engine, third)[0] == ids(engine, first)[1] == ids(engine, second)[1]


def test_overlapping_views_are_one_set_of_pages(engine: lksm.Engine) -> None:
    """Views that overlap share the pages they have in common, and only those."""
    memory = pages("a b c d")
    engine.attach(memory[:3], mergeable=True)
    engine.attach(memory[1:], mergeable=True)
    engine.full()
    expect(engine, unshared=4, volatile=2, rmap_items=6)


def test_views_that_overlap_by_half_a_page_hold_different_pages(engine: lksm.Engine) -> None:
    """Pages at different addresses are different pages, even where their bytes overlap."""
    memory = np.zeros(3 * PAGE_SIZE, np.uint8)
    engine.attach(memory[: 2 * PAGE_SIZE], mergeable=True)
    engine.attach(memory[PAGE_SIZE // 2 : 2 * PAGE_SIZE + PAGE_SIZE // 2], mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=3, rmap_items=4)


def test_the_next_process_of_one_page_takes_its_place(engine: lksm.Engine) -> None:
    """When the process that was visited first exits, the other one's pages count from the next visit."""
    memory = pages("a a")
    first = engine.attach(memory, mergeable=True)
    engine.attach(memory, mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1, volatile=2)
    first.exit()
    expect(engine, shared=0, sharing=0, volatile=2, rmap_items=2)
    engine.full()
    expect(engine, shared=1, sharing=1, volatile=0, rmap_items=2)


def test_a_memory_map_is_memory(engine: lksm.Engine, tmp_path: Path) -> None:
    """A file mapped read-only is attached as it is and never copied."""
    path = tmp_path / "image.raw"
    pages("a b a 0 0").tofile(path)
    process = engine.attach(np.memmap(path, np.uint8, "r"), mergeable=True, immutable=True, frozen=True)
    engine.full()
    expect(engine, shared=2, sharing=2, unshared=1)
    assert engine.memory()["frames"] == 0
    assert reads(process, "a b a 0 0")


def test_a_read_only_array_is_memory(engine: lksm.Engine) -> None:
    """A read-only array is accepted whether or not it is said to be immutable."""
    memory = pages("a a")
    memory.setflags(write=False)
    engine.attach(memory, mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1)


def test_excluded_regions_are_never_merged(engine: lksm.Engine) -> None:
    """A region with any flag of exclusion stays private, advised or not."""
    regions = [
        lksm.Region(0, pages("a a")),
        *(
            lksm.Region((2 + 2 * i) * PAGE_SIZE, pages("a a"), flags=flag)
            for i, flag in enumerate(RegionFlag)
            if flag
        ),
    ]
    process = engine.attach(regions, mergeable=True)
    process.advise("mergeable")
    engine.full()
    expect(engine, shared=1, sharing=1, rmap_items=2)
    assert set(ids(engine, process)[2:]) == {-1}


INVALID = [
    ("text", "text", "str"),
    ("bytes", bytes(4096), "bytes"),
    ("bytearray", bytearray(4096), "bytearray"),
    ("None", None, "NoneType"),
    ("a number", 4096, "int"),
    ("an empty list", [], "empty list"),
    ("a list of text", ["a"], "str"),
    ("a list of lists", [[0] * 4096], "list"),
    ("no pages", np.zeros((0, 4096), np.uint8), "empty"),
    ("no bytes", np.zeros(0, np.uint8), "empty"),
    ("half a page", np.zeros(2048, np.uint8), "2048 bytes"),
    ("a page and a byte", np.zeros(4097, np.uint8), "4097 bytes"),
    ("rows of 4095 bytes", np.zeros((2, 4095), np.uint8), "8190 bytes"),
    ("every second row", np.zeros((4, 4096), np.uint8)[::2], "not C-contiguous"),
    ("every second column", np.zeros((2, 8192), np.uint8)[:, ::2], "not C-contiguous"),
    ("Fortran order", np.zeros((4096, 2), np.uint8, order="F"), "not C-contiguous"),
    ("backwards", np.zeros((2, 4096), np.uint8)[::-1], "not C-contiguous"),
    ("objects", np.zeros(512, object), "object"),
    ("text array", np.zeros(1024, "U1"), "<U1"),
    ("bytes array", np.zeros(4096, "S1"), "S1"),
    ("dates", np.zeros(512, "M8[s]"), "datetime64"),
    ("records", np.zeros(512, [("a", "i8")]), "dtype"),
    ("a bad second array", [np.zeros(4096, np.uint8), np.zeros(100, np.uint8)], "region 1.*100 bytes"),
    ("a row too far", [lksm.Region(0, np.zeros(4096, np.uint8), rows=np.array([0, 1]))], "rows"),
    ("a negative row", [lksm.Region(0, np.zeros(4096, np.uint8), rows=np.array([-2]))], "rows"),
    ("no rows", [lksm.Region(0, np.zeros(4096, np.uint8), rows=np.array([], np.int64))], "rows"),
    ("rows of floats", [lksm.Region(0, np.zeros(4096, np.uint8), rows=np.array([0.0]))], "rows.*float64"),  # type: ignore[arg-type]
    ("rows in a square", [lksm.Region(0, np.zeros(4096, np.uint8), rows=np.zeros((1, 1), np.int64))], "rows"),
    ("an odd address", [lksm.Region(100, np.zeros(4096, np.uint8))], "multiple of the page size"),
    ("a negative address", [lksm.Region(-4096, np.zeros(4096, np.uint8))], "64 bits"),
    ("an address too high", [lksm.Region(1 << 64, np.zeros(4096, np.uint8))], "64 bits"),
    ("an address in text", [lksm.Region("0", np.zeros(4096, np.uint8))], "address"),  # type: ignore[arg-type]
    ("a node too many", [lksm.Region(0, np.zeros(4096, np.uint8), node=1)], "node 1"),
    (
        "overlapping regions",
        [lksm.Region(0, np.zeros(8192, np.uint8)), lksm.Region(4096, np.zeros(4096, np.uint8))],
        "overlap",
    ),
]


@pytest.mark.parametrize(
    ("memory", "said"), [case[1:] for case in INVALID], ids=[case[0] for case in INVALID]
)
def test_bad_memory_is_refused(engine: lksm.Engine, memory: Any, said: str) -> None:
    """Memory that is not whole, plain, contiguous pages is refused in one line, and nothing is attached."""
    with pytest.raises(lksm.InvalidMemory) as error:
        engine.attach(memory)
    text = str(error.value)
    assert re.search(said, text)
    assert "\n" not in text and not text.endswith(".")
    assert engine.processes == ()
    expect(engine, scanning_process=0, rmap_items=0)
    assert isinstance(error.value, ValueError) and isinstance(error.value, lksm.LksmError)


def test_immutable_memory_is_not_written(engine: lksm.Engine) -> None:
    """`Process.write` refuses immutable memory and leaves the page as it was."""
    process = engine.attach(pages("a"), immutable=True)
    with pytest.raises(lksm.InvalidMemory, match="immutable"):
        process.write(0, pages("b"))
    assert reads(process, "a")


def test_a_read_only_array_is_not_written(engine: lksm.Engine) -> None:
    """`Process.write` refuses an array that numpy would not let write either."""
    memory = pages("a")
    memory.setflags(write=False)
    process = engine.attach(memory)
    with pytest.raises(lksm.InvalidMemory):
        process.write(0, pages("b"))
    assert reads(process, "a")


def test_a_forked_child_does_not_write_read_only_arrays_either(engine: lksm.Engine) -> None:
    """A read-only array that a forked child mapped itself is refused like any other."""
    child = engine.attach(pages("a")).fork()
    memory = pages("b")
    memory.setflags(write=False)
    child.map(lksm.Region(PAGE_SIZE, memory))
    with pytest.raises(lksm.InvalidMemory):
        child.write(1, pages("c"))
    assert memory.tobytes() == pages("b").tobytes()


# ---- how long arrays live


def freed(reference: weakref.ref[Any]) -> bool:
    gc.collect()
    return reference() is None


def test_an_array_lives_while_it_is_attached(engine: lksm.Engine) -> None:
    """The engine keeps an attached array alive and lets go of it at exit."""
    memory = repeated("a", 3)
    reference = weakref.ref(memory)
    process = engine.attach(memory, mergeable=True)
    del memory
    engine.full()
    assert not freed(reference)
    assert reads(process, "a a a")
    process.exit()
    assert freed(reference)


def test_an_array_is_freed_by_close() -> None:
    """Closing the engine lets go of every array."""
    engine = lksm.Engine(initial_rounds=0)
    memory = repeated("a", 3)
    reference = weakref.ref(memory)
    process = engine.attach([lksm.Region(0, memory)], mergeable=True, immutable=True)
    del memory
    engine.full()
    engine.close()
    assert freed(reference)
    assert process.exited


def test_an_array_is_freed_with_its_engine() -> None:
    """An engine that is forgotten lets go of its arrays without being closed."""
    engine = lksm.Engine(initial_rounds=0)
    memory = repeated("a", 3)
    reference = weakref.ref(memory)
    engine.attach(memory)
    del memory, engine
    assert freed(reference)


def test_an_array_is_freed_in_the_middle_of_a_scan(engine: lksm.Engine) -> None:
    """At return of an exit the arrays are no longer referenced, scan or no scan."""
    memory = repeated("a", 10)
    reference = weakref.ref(memory)
    process = engine.attach(memory, mergeable=True)
    engine.attach(repeated("a", 10), mergeable=True)
    del memory
    engine.crawl("full")
    engine.scan(5)
    engine.detach(process)
    assert freed(reference)
    engine.full()
    expect(engine, shared=1, sharing=9)


def test_a_refused_array_is_not_kept(engine: lksm.Engine) -> None:
    """Memory that was refused is not referenced."""
    good, bad = repeated("a", 1), np.zeros(100, np.uint8)
    references = [weakref.ref(good), weakref.ref(bad)]
    with pytest.raises(lksm.InvalidMemory):
        engine.attach([good, bad])
    del good, bad
    assert all(freed(reference) for reference in references)


def test_a_forked_child_keeps_its_parents_array(engine: lksm.Engine) -> None:
    """A child reads what it inherited after its parent has gone."""
    memory = pages("a b")
    reference = weakref.ref(memory)
    parent = engine.attach(memory, mergeable=True)
    del memory
    child = parent.fork()
    parent.exit()
    assert not freed(reference)
    assert reads(child, "a b")
    child.exit()
    assert freed(reference)


def test_a_lender_may_leave(engine: lksm.Engine) -> None:
    """Frames lent by immutable memory outlive it: they move to another member."""
    word = "P Q P Q"
    first, second = (engine.attach(pages(word), mergeable=True, immutable=True) for _ in range(2))
    engine.full()
    expect(engine, shared=2, sharing=6)
    for process in (second, first):
        process.exit()
        gc.collect()
        assert engine.check() == []
        stays = engine.attach(pages(word), mergeable=True, immutable=True)
        engine.full()
        expect(engine, shared=2, sharing=6)
        assert engine.memory()["frames"] == 0
        assert reads(stays, word)


def test_a_lender_may_leave_mutable_members_behind(engine: lksm.Engine) -> None:
    """When only mutable members remain, the frame is copied before its lender goes."""
    lender = engine.attach(pages("P"), mergeable=True, immutable=True)
    memory = pages("P")
    member = engine.attach(memory, mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1)
    lender.exit()
    gc.collect()
    expect(engine, shared=1, sharing=0)
    frame = ids(engine, member)
    memory[:] = pages("x")
    joins = engine.attach(pages("P"), mergeable=True, immutable=True)
    other = engine.attach(pages("P"), mergeable=True, immutable=True)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=1)
    assert ids(engine, joins) == ids(engine, other)
    assert frame[0] >= 0 and reads(member, "x")


def test_unique_pages_of_immutable_memory_are_not_copied(engine: lksm.Engine) -> None:
    """Neither merged nor unmerged pages of immutable memory are copied."""
    engine.attach(np.concatenate([unique_pages(50), unique_pages(50)]), immutable=True)
    engine.attach(unique_pages(30, "other"), immutable=True)
    engine.full()
    expect(engine, shared=50, sharing=50, unshared=30)
    assert engine.memory()["frames"] == 0


def test_an_engine_that_is_collected_with_its_arrays_does_not_touch_them() -> None:
    """Whatever order the garbage collector takes, destroying the engine reads no attached memory."""
    for _ in range(20):
        engine = lksm.Engine(initial_rounds=0)
        rows = np.array([0, 1, 0, -1])
        engine.attach([lksm.Region(0, pages("a b"), rows=rows)]).fork()
        engine.full()
        del engine, rows
        gc.collect()
