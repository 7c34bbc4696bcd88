"""Sharing limit and forks: rows 23-35 of section 13.2 of the specification, one test per row.

The limit is a plain one: a frame with `max_page_sharing` sharers takes no more, the next two equal pages
make another frame. Rows 29 and 30 read as docs/design.md says: pages at one address are one page, so a
forked page is counted as a visited page, never as sharing. Not here: rows 32-35 (zero pages) come with the
issue on the rest of KSM.
"""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lksm
from helpers import expect, ids, pages, partition, reads, repeated


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
