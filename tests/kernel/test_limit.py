"""`max_page_sharing`: how many frames a content gets, chains and dups."""

from __future__ import annotations

import pytest

from side_by_side import Referee


@pytest.mark.parametrize("limit", [2, 3, 4, 7])
def test_how_many_frames(referee: Referee, limit: int) -> None:
    """Kernel and engine make the same frames, for every number of equal pages up to twice the limit."""
    for nr_pages in range(2, 2 * limit + 3):
        with referee(smart_scan=0, max_page_sharing=limit) as both:
            both.start("a " * nr_pages)
            there = both.passes(3)
            nr_frames = there["pages_shared"]
            assert nr_frames == nr_pages // limit + (nr_pages % limit >= 2)
            assert there["pages_unshared"] == (nr_pages % limit == 1)
            assert there["stable_node_dups"] == (nr_frames if nr_frames > 1 else 0)
            assert there["stable_node_chains"] == (nr_frames > 1)


def test_several_chains(referee: Referee) -> None:
    """Contents are counted apart, over processes that come one after the other."""
    with referee(smart_scan=0, max_page_sharing=3) as both:
        for picture in ("a a a b", "a a b b b", "c d a b", "c c c c a a"):
            both.start(picture)
            both.passes(3)
        assert both.one_pass()["stable_node_chains"] == 3


def test_sums_after_breaks(referee: Referee) -> None:
    """When pages have left full frames and others join, all pages are in the same kind of tree."""
    with referee(smart_scan=0, max_page_sharing=2) as both:
        first, second = both.start("a " * 9), both.start("a a b b b")
        both.passes(3)
        for number in range(8):
            first.write(number, f"own{number}")
            second.write(number % 5, "a" if number % 2 else "b")
            both.passes(2, sums=True)


def test_a_page_joins_the_frame_with_room(referee: Referee) -> None:
    """With one frame that has room there is no choice, so everything agrees, chains too."""
    with referee(smart_scan=0, max_page_sharing=3) as both:
        twin = both.start("a a a a a a b")
        both.passes(3)
        twin.write(4, "c")
        both.passes(2)
        twin.write(6, "a")
        there = both.passes(3)
        assert (there["pages_shared"], there["pages_sharing"], there["pages_unshared"]) == (2, 4, 1)
