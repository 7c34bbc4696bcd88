"""Processes that offer everything, by prctl() there and `Process.merge_any` here."""

from __future__ import annotations

import ctypes

import pytest

from side_by_side import Referee

PR_GET_MEMORY_MERGE = 68

# Asked, not tried: a process that tries is offered whole for an instant, beside whoever drives KSM then.
pytestmark = pytest.mark.skipif(
    ctypes.CDLL(None).prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) < 0,
    reason="this kernel has no PR_SET_MEMORY_MERGE (before 6.4, or without KSM)",
)


def test_on(referee: Referee) -> None:
    """What was never offered is, and merges with what others have offered."""
    with referee(smart_scan=0) as both:
        twin = both.start("a a b c", advise=False)
        both.start("b d")
        assert both.passes(3)["pages_shared"] == 0
        twin.merge_any(True)
        there = both.passes(3)
        assert (there["pages_shared"], there["pages_sharing"]) == (2, 2)
        assert twin.child.statistics()["ksm_merge_any"] == 1


def test_areas_mapped_later(referee: Referee) -> None:
    """They are mergeable as they come, and merge; those of other processes are not."""
    with referee(smart_scan=0) as both:
        twin, other = both.start("a b"), both.start("c")
        twin.merge_any(True)
        both.passes(2)
        twin.map("c d a")
        other.map("d")
        there = both.passes(3)
        assert (there["pages_shared"], there["pages_sharing"]) == (2, 2)
        other.map("d", advise=True)
        assert both.passes(3)["pages_shared"] == 3


def test_off(referee: Referee) -> None:
    """Every page leaves, the advised ones too, and comes back when all are offered again."""
    with referee(smart_scan=0) as both:
        twin = both.start("a b c a")
        both.start("a b")
        twin.merge_any(True)
        twin.map("b b")
        both.passes(3)
        for _ in range(2):
            twin.merge_any(False)
            twin.check_bytes()
            there = both.passes(2)
            assert there["pages_sharing"] == 0
            twin.merge_any(True)
            assert both.passes(3)["pages_sharing"] == 5
        twin.merge_any(False)
        both.exit(twin)
        both.passes(2)


def test_twice_is_once(referee: Referee) -> None:
    """Set again it brings nothing back that was taken out since; cleared again it takes nothing out."""
    with referee(smart_scan=0) as both:
        twin = both.start("a a a")
        twin.merge_any(False)
        assert both.passes(3)["pages_sharing"] == 2
        twin.merge_any(True)
        twin.unmergeable(0, 2)
        twin.merge_any(True)
        assert both.passes(3)["pages_sharing"] == 0
        twin.mergeable(0, 1)
        assert both.passes(3)["pages_sharing"] == 1


def test_zero_pages(referee: Referee) -> None:
    """Pages on the zero page are counted for their process, and leave it when all are taken out."""
    with referee(smart_scan=0, use_zero_pages=1) as both:
        twin = both.start("0 a 0 a", advise=False)
        both.start("0 a")
        twin.merge_any(True)
        assert both.passes(3)["ksm_zero_pages"] == 3
        assert twin.child.statistics()["ksm_zero_pages"] == 2
        twin.merge_any(False)
        assert both.passes(2)["ksm_zero_pages"] == 1


def test_unmerge(referee: Referee) -> None:
    """`run` 2 gives the pages back and leaves the offer; smart scan begins anew."""
    with referee(smart_scan=1) as both:
        twin = both.start("a b a c", advise=False)
        twin.merge_any(True)
        both.passes(6)
        both.unmerge()
        twin.check_bytes()
        both.passes(6)


def test_all_areas_gone(referee: Referee) -> None:
    """A process that has nothing left to merge keeps the flag, and its next area merges."""
    with referee(smart_scan=0) as both:
        twin = both.start("a a", advise=False)
        twin.merge_any(True)
        both.passes(3)
        twin.unmap()
        both.passes(2)
        assert twin.child.statistics()["ksm_merge_any"] == 1
        twin.map("c c")
        assert both.passes(2)["pages_sharing"] == 1
