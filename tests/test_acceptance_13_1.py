"""The merging core: rows 1-22 of section 13.1 of the specification, one test per row.

`G` is `Engine(initial_rounds=0)`: no checksum gate. Not here:

- row 3's half about equal checksums and row 16 (checksum values): keys are the core's own and have no
  public name; the tests that lend it a weak hash hold the same sentence;
- rows 17 and 18: nothing is pinned or locked over arrays (docs/design.md), so they do not apply;
- rows 19-22: a page that changes, or an allocation that fails, between search and merge needs a hook in the
  core; they are C tests.
"""

from __future__ import annotations

import numpy as np
import pytest

import lksm
from helpers import bytes_of, content, expect, ids, pages, partition, reads, repeated, unique_pages


def test_row_01_pair_merge(engine: lksm.Engine) -> None:
    """Two processes with one equal page each end up on one frame."""
    a, b = (engine.attach(pages("P"), mergeable=True) for _ in range(2))
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=0)
    assert ids(engine, a) == ids(engine, b)
    assert ids(engine, a)[0] >= 0
    assert reads(a, "P") and reads(b, "P")


def test_row_02_n_way_merge(engine: lksm.Engine) -> None:
    """Ten equal pages of one process are one frame with ten users."""
    a = engine.attach(repeated("P", 10), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=9, unshared=0, rmap_items=10)
    assert len(set(ids(engine, a))) == 1


@pytest.mark.parametrize("other", ["P>", "P<", "P^"])
def test_row_03_no_false_merge(engine: lksm.Engine, other: str) -> None:
    """Pages that differ in the last byte, the first byte or one bit in the middle never share a frame."""
    a = engine.attach(pages(f"P {other}"), mergeable=True)
    engine.full()
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=2)
    assert ids(engine, a) == [-1, -1]
    assert reads(a, f"P {other}")


def test_row_04_surviving_frame(engine: lksm.Engine) -> None:
    """Pages of immutable memory merge without a copy: the frame that survives is one of them."""
    a, b = (engine.attach(pages("P"), mergeable=True, immutable=True) for _ in range(2))
    engine.full()
    expect(engine, shared=1, sharing=1)
    assert engine.memory()["frames"] == 0
    assert ids(engine, a) == ids(engine, b)


def test_row_05_join_a_stable_frame(engine: lksm.Engine) -> None:
    """A third page joins the frame of a merged pair at its first visit, and the frame stays the same."""
    a, b = (engine.attach(pages("P"), mergeable=True) for _ in range(2))
    engine.full()
    frame = ids(engine, a)[0]
    c = engine.attach(pages("P"), mergeable=True)
    engine.crawl("full")
    while engine.scan(1):
        assert engine.counters().pages_unshared == 0
    expect(engine, shared=1, sharing=2, unshared=0)
    assert [ids(engine, process) for process in (a, b, c)] == [[frame]] * 3


def test_row_06_scale_and_order(engine: lksm.Engine) -> None:
    """A thousand pairs, shuffled over twenty processes, are a thousand frames."""
    shuffled = np.concatenate([unique_pages(1000)] * 2)[np.random.default_rng(6).permutation(2000)]
    processes = [engine.attach(part, mergeable=True) for part in np.split(shuffled, 20)]
    engine.full()
    expect(engine, shared=1000, sharing=1000, unshared=0)
    for process, part in zip(processes, np.split(shuffled, 20), strict=True):
        assert process.read(0, 100).tobytes() == part.tobytes()


def test_row_07_unstable_tree_is_rebuilt_each_round(engine: lksm.Engine) -> None:
    """Unique pages are unshared after every round, however many there are."""
    engine.attach(unique_pages(50), mergeable=True)
    for _ in range(3):
        engine.full()
        expect(engine, shared=0, sharing=0, unshared=50, rmap_items=50)


def test_row_08_unstable_tree_tolerates_mutation(engine: lksm.Engine) -> None:
    """Candidates may be written: nothing unequal is ever merged, and nothing equal stays apart."""
    random = np.random.default_rng(8)
    memory = np.concatenate([unique_pages(500)] * 2)
    process = engine.attach(memory, mergeable=True)
    engine.crawl("full")
    while engine.scan(10):
        for row in random.integers(0, 1000, 5):
            memory[row] = memory[random.integers(0, 1000)]
            memory[row, random.integers(0, 4096)] ^= random.integers(0, 2, dtype=np.uint8)
        assert engine.check() == []
    for _ in range(2):
        engine.full()
    frame_of: dict[bytes, int] = {}
    for frame, page in zip(ids(engine, process), memory, strict=True):
        assert frame_of.setdefault(page.tobytes(), frame) == frame
    merged = [frame for frame in frame_of.values() if frame >= 0]
    assert len(set(merged)) == len(merged)
    contents, counts = np.unique(memory, axis=0, return_counts=True)
    pairs = int((counts > 1).sum())
    single_frames = sum(frame >= 0 for frame in frame_of.values()) - pairs
    expect(
        engine,
        shared=pairs + single_frames,
        sharing=int((counts - 1).sum()),
        unshared=len(contents) - pairs - single_frames,
    )


def test_row_09_gate_round_1(gated_engine: lksm.Engine) -> None:
    """In the first round equal pages are only looked at."""
    for _ in range(2):
        gated_engine.attach(pages("P"))
    gated_engine.knobs.run = 1
    gated_engine.full()
    expect(gated_engine, shared=0, sharing=0, unshared=0, volatile=2)


def test_row_10_gate_round_2(gated_engine: lksm.Engine) -> None:
    """In the second round pages that held still are merged."""
    for _ in range(2):
        gated_engine.attach(pages("P"))
    gated_engine.full()
    gated_engine.full()
    expect(gated_engine, shared=1, sharing=1, unshared=0, volatile=0)


def test_row_11_gate_holds_back_a_changing_page(gated_engine: lksm.Engine) -> None:
    """A page written between the first two rounds waits for the third."""
    memory = pages("u1 u2")
    gated_engine.attach(memory)
    gated_engine.full()
    memory[0, 0] ^= 1
    gated_engine.full()
    expect(gated_engine, shared=0, sharing=0, unshared=1, volatile=1)
    gated_engine.full()
    expect(gated_engine, shared=0, sharing=0, unshared=2, volatile=0)


def test_row_12_gate_is_gone_from_round_3(engine: lksm.Engine) -> None:
    """Without a gate a page that changes before every round is unshared, never volatile."""
    memory = unique_pages(12)
    engine.attach(memory, mergeable=True)
    for number in range(3):
        memory[:] = unique_pages(12, name=f"round{number}-")
        engine.full()
        expect(engine, shared=0, sharing=0, unshared=12, volatile=0)


def test_row_12_gate_is_gone_from_round_3_with_the_kernels_rounds(gated_engine: lksm.Engine) -> None:
    """With three initial rounds, the third is the first that does not hold a changing page back."""
    memory = unique_pages(12)
    gated_engine.attach(memory, mergeable=True)
    for number, unshared in enumerate([0, 0, 12, 12]):
        memory[:] = unique_pages(12, name=f"round{number}-")
        gated_engine.full()
        expect(gated_engine, shared=0, sharing=0, unshared=unshared, volatile=12 - unshared)


def test_row_13_frozen_bypass_in_initial_rounds(gated_engine: lksm.Engine) -> None:
    """Pages of frozen processes merge in the first round."""
    for _ in range(2):
        gated_engine.attach(pages("P"), frozen=True)
    gated_engine.full()
    expect(gated_engine, shared=1, sharing=1, unshared=0)


def test_row_14_stable_merge_ignores_the_gate(gated_engine: lksm.Engine) -> None:
    """A new page of a running process joins an existing frame in round 2, without a second look."""
    for _ in range(2):
        gated_engine.attach(pages("P"), frozen=True)
    gated_engine.full()
    gated_engine.attach(pages("P"))
    gated_engine.full()
    expect(gated_engine, shared=1, sharing=2, unshared=0)


def test_row_15_bypass_only_for_pages_that_passed_before(gated_engine: lksm.Engine) -> None:
    """A page that was volatile before its process froze is still gated; a new page of a frozen one is not."""
    memory = pages("u1")
    process = gated_engine.attach(memory)
    gated_engine.full()
    memory[:] = pages("P")
    process.freeze()
    gated_engine.attach(pages("P"), frozen=True)
    gated_engine.full()
    expect(gated_engine, shared=0, sharing=0, unshared=1, volatile=1)
    gated_engine.full()
    expect(gated_engine, shared=1, sharing=1, unshared=0)


def test_content_and_frames_of_a_mixed_set(engine: lksm.Engine) -> None:
    """Which pages are together follows from their bytes alone, over regions and processes."""
    a = engine.attach(pages("a b 0 c"), mergeable=True)
    b = engine.attach([pages("b b"), pages("0 d")], mergeable=True)
    engine.full()
    expect(engine, shared=2, sharing=3, unshared=3)
    assert partition([ids(engine, a), ids(engine, b)]) == [[-1, 0, 1, -1], [0, 0, 1, -1]]
    assert bytes_of(b, 1) == content("b")
