"""Sharing limit, forks and zero pages: rows 23-35 of section 13.2 of the specification, one test per row.

The limit is a plain one: a frame with `max_page_sharing` sharers takes no more, the next two equal pages
make another frame. Rows 29 and 30 read as docs/design.md says: pages at one address are one page, so a
forked page is counted as a visited page, never as sharing.
"""

from __future__ import annotations

import errno

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lksm
from helpers import PAGE_SIZE, bytes_of, expect, ids, pages, partition, reads, repeated


def limited(max_page_sharing: int) -> lksm.Engine:
    """An engine without a gate and with a limit."""
    return lksm.Engine(initial_rounds=0, max_page_sharing=max_page_sharing)


def test_row_23_limit() -> None:
    """Ten equal pages under a limit of four are three frames."""
    engine = limited(4)
    process = engine.attach(repeated("P", 10), mergeable=True)
    engine.full()
    expect(engine, shared=3, sharing=7, unshared=0, chains=1, dups=3)
    assert partition([ids(engine, process)]) == [[0, 0, 0, 0, 1, 1, 1, 1, 2, 2]]


def test_row_24_limit_remainder_1() -> None:
    """Nine equal pages under a limit of four are two full frames and one page that waits for a twin."""
    engine = limited(4)
    process = engine.attach(repeated("P", 9), mergeable=True)
    engine.full()
    expect(engine, shared=2, sharing=6, unshared=1, chains=1, dups=2)
    assert partition([ids(engine, process)]) == [[0, 0, 0, 0, 1, 1, 1, 1, -1]]


def closed_form(nr_pages: int, limit: int) -> dict[str, int]:
    """Table 3.9.4: equal pages scanned once each, without a gate."""
    full, rest = divmod(nr_pages, limit)
    frames = full + (rest >= 2)
    unshared = int(rest == 1)
    split = frames >= 2
    return {
        "shared": frames,
        "sharing": nr_pages - frames - unshared,
        "unshared": unshared,
        "chains": int(split),
        "dups": frames if split else 0,
    }


@given(nr_pages=st.integers(2, 500), limit=st.integers(2, 20))
def test_row_25_closed_form(nr_pages: int, limit: int) -> None:
    """For every number of equal pages and every limit the counters follow table 3.9.4."""
    engine = lksm.Engine(initial_rounds=0, max_page_sharing=limit, page_size=64)
    engine.attach(repeated("P", nr_pages, 64), mergeable=True)
    engine.full()
    expect(engine, **closed_form(nr_pages, limit))
    engine.close()


def test_row_26_limit_knob_is_guarded(engine: lksm.Engine) -> None:
    """The limit may not change while pages are shared, except to what it is; bad values are refused."""
    engine.attach(repeated("P", 2), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1)
    with pytest.raises(lksm.KnobError, match="max_page_sharing") as busy:
        engine.sysfs.write("max_page_sharing", "5")
    assert busy.value.errno == errno.EBUSY
    assert engine.sysfs.read("max_page_sharing") == "256\n"
    assert engine.sysfs.write("max_page_sharing", "256") == 3
    engine.knobs.run = 2
    assert engine.sysfs.write("max_page_sharing", "5") == 1
    for bad in ("1", "-3"):
        with pytest.raises(lksm.KnobError, match="max_page_sharing") as invalid:
            engine.sysfs.write("max_page_sharing", bad)
        assert invalid.value.errno == errno.EINVAL
    assert engine.sysfs.read("max_page_sharing") == "5\n"


def broken_chain(prune_millisecs: int) -> tuple[lksm.Engine, lksm.VirtualClock, lksm.Process]:
    """Five equal pages under a limit of three, of which the first frame's three have been written."""
    clock = lksm.VirtualClock()
    engine = lksm.Engine(
        initial_rounds=0,
        max_page_sharing=3,
        stable_node_chains_prune_millisecs=prune_millisecs,
        clock=clock,
    )
    memory = repeated("P", 5)
    process = engine.attach(memory, mergeable=True)
    engine.full()
    expect(engine, shared=2, sharing=3, unshared=0, chains=1, dups=2)
    memory[:3] = pages("x y z")
    return engine, clock, process


def test_row_27_chain_prune_and_collapse() -> None:
    """With a prune delay of 0 the end of a scan makes a chain with one frame left a plain one."""
    engine, _, process = broken_chain(0)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=3, chains=0, dups=0)
    assert reads(process, "x y z P P")


def test_row_28_prune_delay_is_respected() -> None:
    """A chain is pruned when the delay has passed since it was made or last pruned, not earlier."""
    engine, clock, process = broken_chain(2000)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=3, chains=1, dups=1)
    clock.tick(1999)
    engine.full()
    expect(engine, chains=1, dups=1)
    clock.tick(1)
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=3, chains=0, dups=0)
    assert reads(process, "x y z P P")


def test_row_28_in_the_steps_of_the_specification() -> None:
    """Row 28 to the letter: one full scan, `tick(2000)`, one more."""
    engine, clock, _ = broken_chain(2000)
    engine.full()
    expect(engine, chains=1, dups=1)
    clock.tick(2000)
    engine.full()
    expect(engine, chains=0, dups=0)


def test_row_29_forked_mapping_joins(engine: lksm.Engine) -> None:
    """The pages of a fork are the parent's pages: visited, on the same frame, and no saving."""
    parent = engine.attach(pages("P P"), mergeable=True)
    engine.full()
    frames = engine.memory()["frames"]
    child = parent.fork()
    expect(engine, shared=1, sharing=1, unshared=0, rmap_items=2)
    child.advise("mergeable")
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=0, rmap_items=4, volatile=2)
    assert ids(engine, child) == ids(engine, parent)
    assert engine.memory()["frames"] == frames
    assert reads(child, "P P")


def test_row_30_fork_may_exceed_the_limit() -> None:
    """Two full sharers and their forked copies stay on one frame under a limit of two."""
    engine = limited(2)
    parent = engine.attach(pages("P P"), mergeable=True)
    engine.full()
    child = parent.fork()
    engine.full()
    expect(engine, shared=1, sharing=1, unshared=0, chains=0, dups=0, rmap_items=4)
    assert ids(engine, child) == ids(engine, parent)


def test_row_31_a_frame_that_nobody_recorded_is_no_target(engine: lksm.Engine) -> None:
    """When all recorded sharers have written, an unscanned fork does not attract new pages."""
    parent = engine.attach(pages("P P"), mergeable=True)
    engine.full()
    child = parent.fork()
    child.advise("unmergeable")
    parent.write(0, pages("x"))
    parent.write(1, pages("y"))
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=2)
    engine.attach(pages("P"), mergeable=True)
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=3)
    assert reads(child, "P P") and reads(parent, "x y")


# ---- zero pages


def hundred_zero_pages() -> np.ndarray:
    return np.zeros((100, PAGE_SIZE), np.uint8)


@pytest.mark.parametrize("immutable", [False, True])
def test_row_32_zero_pages_on(engine: lksm.Engine, immutable: bool) -> None:
    """With the knob on a hundred zero pages go to the zero frame; their items go in the next full scan."""
    engine.knobs.use_zero_pages = 1
    process = engine.attach(hundred_zero_pages(), mergeable=True, immutable=immutable)
    assert engine.full().pages_scanned == 100
    expect(engine, shared=0, sharing=0, unshared=0, zero_pages=100, rmap_items=100, volatile=100)
    assert ids(engine, process) == [-2] * 100
    assert engine.explain(process, 7).reason is lksm.Reason.ZERO
    assert engine.explain(process, 7).frame is None
    assert engine.full().pages_scanned == 0
    expect(engine, shared=0, sharing=0, unshared=0, zero_pages=100, rmap_items=0, volatile=0)
    assert ids(engine, process) == [-2] * 100
    assert len(engine.groups()) == 0


def test_row_33_zero_pages_off(engine: lksm.Engine) -> None:
    """With the knob off, as it is by default, they are merged like others."""
    process = engine.attach(hundred_zero_pages(), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=99, unshared=0, zero_pages=0)
    assert partition([ids(engine, process)]) == [[0] * 100]


@pytest.mark.parametrize("how", ["process", "plain"])
def test_row_34_zero_mapping_broken_by_write(engine: lksm.Engine, how: str) -> None:
    """One byte written makes one page private, the other 99 stay on the zero frame."""
    engine.knobs.use_zero_pages = 1
    memory = hundred_zero_pages()
    process = engine.attach(memory, mergeable=True)
    engine.full()
    engine.full()
    if how == "process":
        process.write(17, b"\1", offset=123)
        expect(engine, zero_pages=99)  # at once
        assert ids(engine, process)[17] == -1
    else:
        memory[17, 123] = 1
    assert engine.full().pages_scanned == 1
    expect(engine, shared=0, sharing=0, unshared=1, zero_pages=99, rmap_items=1)
    assert [page for page, frame in enumerate(ids(engine, process)) if frame != -2] == [17]
    assert ids(engine, process)[17] == -1
    assert bytes_of(process, 17)[123] == 1 and not any(bytes_of(process, 16))


@pytest.mark.parametrize("initial_rounds", [0, 3, 4])
@pytest.mark.parametrize("policy", ["lksm", "ksm"])
def test_row_35_zero_rule_without_gate(policy: str, initial_rounds: int) -> None:
    """The rule holds in every round: behind the gate, and where no gate is."""
    engine = lksm.Engine(policy=policy, initial_rounds=initial_rounds, use_zero_pages=1)  # type: ignore[arg-type]
    engine.attach(hundred_zero_pages(), mergeable=True)
    is_gated = policy == "ksm" or initial_rounds > 1
    engine.full()
    expect(engine, zero_pages=0 if is_gated else 100, rmap_items=100)
    engine.full()
    expect(engine, zero_pages=100)
    engine.full()
    late = engine.attach(hundred_zero_pages(), mergeable=True)
    engine.full()
    is_gated_now = policy == "ksm" or initial_rounds > 4
    expect(engine, zero_pages=100 if is_gated_now else 200)
    engine.full()
    expect(engine, zero_pages=200, shared=0, sharing=0, unshared=0)
    assert set(ids(engine, late)) == {-2}


def test_row_35_zero_rule_for_frozen_pages(gated_engine: lksm.Engine) -> None:
    """Frozen processes pass the gate of the initial rounds, and their zero pages are zero pages too."""
    gated_engine.knobs.use_zero_pages = 1
    gated_engine.attach(hundred_zero_pages(), frozen=True)
    gated_engine.attach(hundred_zero_pages(), mergeable=True)
    gated_engine.full()
    expect(gated_engine, zero_pages=100, volatile=200)
    gated_engine.full()
    expect(gated_engine, zero_pages=200, volatile=100)


# ---- what else the specification says of zero pages (3.4.2, 4.1, 12.1, 12.2, 12.8)


def test_a_merged_content_of_zeros_wins(engine: lksm.Engine) -> None:
    """LKSM looks for a merged content first: where one of zeros exists, zero pages join it."""
    engine.attach(pages("0 0"), mergeable=True)
    engine.full()
    engine.knobs.use_zero_pages = 1
    engine.attach(pages("0"), mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=2, zero_pages=0)


def test_upstream_asks_for_zeros_first() -> None:
    """With policy "ksm" the zero frame wins over a merged content of zeros; what is merged stays."""
    engine = lksm.Engine(policy="ksm")
    engine.attach(pages("0 0"), mergeable=True)
    engine.full()
    engine.full()
    expect(engine, shared=1, sharing=1)
    engine.knobs.use_zero_pages = 1
    engine.attach(pages("0"), mergeable=True)
    engine.full()
    engine.full()
    expect(engine, shared=1, sharing=1, zero_pages=1)


def test_turning_the_knob_off_leaves_zero_pages(engine: lksm.Engine) -> None:
    """The knob is about later visits: zero pages stay, new ones are merged."""
    engine.knobs.use_zero_pages = 1
    engine.attach(pages("0 0"), mergeable=True)
    engine.full()
    engine.knobs.use_zero_pages = 0
    engine.attach(pages("0 0"), mergeable=True)
    engine.full()
    engine.full()
    expect(engine, shared=1, sharing=1, zero_pages=2)


def test_unmerge_and_advice_undo_zero_pages(engine: lksm.Engine) -> None:
    """`run` 2, advice, unmap and exit take pages off the zero frame, and the counter goes with them."""
    engine.knobs.use_zero_pages = 1
    process = engine.attach(pages("0 0 0 0 0 0"), mergeable=True)
    engine.full()
    process.advise("unmergeable", 0, 2)
    expect(engine, zero_pages=4)
    process.unmap(2, 3)
    expect(engine, zero_pages=3)
    assert ids(engine, process) == [-1, -1, -3, -2, -2, -2]
    engine.knobs.run = 2
    expect(engine, zero_pages=0, rmap_items=0)
    engine.knobs.run = 0
    engine.full()
    expect(engine, zero_pages=3)
    process.exit()
    expect(engine, zero_pages=0)


def test_fork_inherits_zero_pages(engine: lksm.Engine) -> None:
    """A child has its parent's zero pages at once; they count for both, and save one page (12.1)."""
    engine.knobs.use_zero_pages = 1
    parent = engine.attach(pages("0 0 a"), mergeable=True)
    engine.settle()

    def saved() -> int:
        memory = engine.memory()
        return engine.counters().general_profit + sum(memory.values()) - memory["frames"]

    assert saved() == 2 * PAGE_SIZE
    child = parent.fork()
    expect(engine, zero_pages=4)
    assert ids(engine, child) == [-2, -2, -1]
    assert child.stats().zero_pages == 2 and child.stats().rmap_items == 0
    assert saved() == 2 * PAGE_SIZE
    child.write(0, b"x")
    expect(engine, zero_pages=3)
    assert saved() == 2 * PAGE_SIZE  # the parent's two: the child's page is another one now
    engine.settle()
    expect(engine, zero_pages=3)
    parent.exit()
    expect(engine, zero_pages=1)
    assert saved() == PAGE_SIZE


def test_one_page_mapped_twice_is_saved_once(engine: lksm.Engine) -> None:
    """Every mapping of a zero page is on the zero frame; what is saved is one page."""
    engine.knobs.use_zero_pages = 1
    memory = pages("0 0")
    first, second = (engine.attach(memory, mergeable=True) for _ in range(2))
    engine.settle()
    expect(engine, zero_pages=4, rmap_items=0)
    assert ids(engine, first) == ids(engine, second) == [-2, -2]
    held = engine.memory()
    assert engine.counters().general_profit == 2 * PAGE_SIZE - (sum(held.values()) - held["frames"])
