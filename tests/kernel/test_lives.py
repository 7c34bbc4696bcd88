"""Processes that write between passes, come, go, and take pages out."""

from __future__ import annotations

from helpers import PAGE_SIZE, content, repeated
from side_by_side import Referee


def test_the_gate(referee: Referee) -> None:
    """A page merges when it has held still for a pass, not before."""
    with referee(smart_scan=0) as both:
        twin = both.start("a a b")
        assert both.one_pass()["pages_volatile"] == 3
        for number in range(6):
            twin.write(0, f"x{number}")
            assert both.one_pass()["pages_sharing"] == 0
        twin.write(0, "a")
        assert [both.one_pass()["pages_sharing"] for _ in range(3)] == [0, 1, 1]


def test_a_written_page_leaves(referee: Referee) -> None:
    """Pages leave one frame one by one, until it has gone, and come back to it."""
    with referee(smart_scan=0) as both:
        twin = both.start("a a a a")
        both.passes(3)
        for page in range(4):
            twin.write(page, f"own{page}")
            both.passes(2)
        for page in range(4):
            twin.write(page, "a")
            both.passes(2)
        twin.check_bytes()


def test_equal_bytes_written(referee: Referee) -> None:
    """A write of what is there already breaks sharing in the kernel, and here if the process writes."""
    with referee(smart_scan=0) as both:
        twin = both.start("a a a")
        both.passes(3)
        twin.write(1, "a")
        assert twin.process.read(1).tobytes() == content("a")
        both.passes(2)
        twin.write_bytes(2, 7, content("a")[7:8])
        both.passes(2)


def test_equal_bytes_written_into_the_array(referee: Referee) -> None:
    """The difference that there is: an array's own write of equal bytes cannot be seen. The engine goes on
    sharing, where the kernel has made a copy, which it merges again at once: its checksum is as it was."""
    with referee(smart_scan=0) as both:
        memory = repeated("a", 3)
        twin = both.start(memory)
        both.passes(3)
        twin.child.write(0, PAGE_SIZE, content("a"))
        memory[1] = memory[0]
        assert both.engine.page_table(twin.process)[1] >= 0
        there = both.ksm.counters()
        both.one_pass()
        assert there["pages_sharing"] == both.ksm.counters()["pages_sharing"] == 2


def test_processes_exit(referee: Referee) -> None:
    """Whoever exits takes its pages along, also the one whose page the frame was."""
    with referee(smart_scan=0) as both:
        twins = [both.start(f"a b own{number} a") for number in range(5)]
        both.passes(3)
        for twin in twins:
            both.exit(twin)
            both.passes(2)
        assert both.one_pass()["pages_volatile"] == 0
        both.start("a a")
        both.passes(3)


def test_processes_exit_before_their_first_pass(referee: Referee) -> None:
    """A process that was never visited leaves no trace."""
    with referee(smart_scan=0) as both:
        both.start("a a")
        both.exit(both.start("a b"))
        both.passes(3)


def test_advice_taken_back(referee: Referee) -> None:
    """Unmergeable pages leave at the next pass and come back when they are offered again."""
    with referee(smart_scan=0) as both:
        first, second = both.start("a b a c a"), both.start("a b")
        both.passes(3)
        first.unmergeable(1, 4)
        both.passes(3)
        second.unmergeable(0, 2)
        both.passes(3)
        first.mergeable(0, 5)
        second.mergeable(0, 1)
        both.passes(3)


def test_pages_dropped(referee: Referee) -> None:
    """Pages given back to the system are forgotten."""
    with referee(smart_scan=0) as both:
        first, second = both.start("a b a c a"), both.start("a b d")
        both.passes(3)
        first.drop(1, 3)
        both.passes(2)
        second.drop(2, 3)
        first.drop(0, 5)
        both.passes(2)


def test_unmerge(referee: Referee) -> None:
    """After `run` 2 nothing is known of any page, and merging begins anew, the gate and smart scan too."""
    with referee(smart_scan=1) as both:
        twin = both.start("a a b c")
        both.start("b c d")
        both.passes(5)
        both.unmerge()
        twin.check_bytes()
        both.passes(5)
        both.unmerge()
        both.unmerge()
        both.passes(2)


def test_a_frame_that_lost_its_last_mapping(referee: Referee) -> None:
    """The second difference: all pages of a frame are written, one with the frame's own bytes. The kernel has
    freed the frame, so that page has no twin. The engine's frame leaves when its last page is visited; the
    page that comes first joins it again, and is the only one in it. With the next twin both agree."""
    with referee(smart_scan=0) as both:
        first, second = both.start("a"), both.start("a")
        both.passes(3)
        before = both.frames()
        first.write(0, "a")
        assert not both.is_taken_over(before)
        second.write(0, "b")
        assert both.is_taken_over(before)
        there = both.ksm.one_pass()
        both.engine.full()
        here = both.engine.counters()
        assert (there["pages_shared"], there["pages_sharing"], there["pages_unshared"]) == (0, 0, 1)
        assert (here.pages_shared, here.pages_sharing, here.pages_unshared) == (1, 0, 0)
        second.write(0, "a")
        both.ksm.one_pass()
        both.engine.full()
        both.passes(2)
