"""Zero pages and the prune delay, as soon as the engine has their knobs."""

from __future__ import annotations

from side_by_side import Referee, needs_engine_knob


@needs_engine_knob("use_zero_pages")
def test_zero_pages(referee: Referee) -> None:
    """Pages of zeros are mapped to the zero page, counted there only, and leave it when they are written."""
    with referee(smart_scan=0, use_zero_pages=1) as both:
        first, second = both.start("0 0 0 a b"), both.start("0 a c 0")
        there = both.passes(4)
        assert (there["ksm_zero_pages"], there["pages_shared"], there["pages_sharing"]) == (5, 1, 1)
        first.write(1, "a")
        second.write(1, "0")
        both.passes(4)
        second.unmergeable(0, 2)
        both.passes(3)
        both.exit(first)
        both.passes(2)
        both.unmerge()
        both.passes(3)


@needs_engine_knob("use_zero_pages")
def test_zero_pages_switched_on_and_off(referee: Referee) -> None:
    """The knob changes later visits only."""
    with referee(smart_scan=0) as both:
        both.start("0 0 0 a")
        both.passes(3)
        for value in (1, 0, 1):
            both.ksm.files.write("use_zero_pages", value)
            both.engine.knobs.use_zero_pages = value  # type: ignore[attr-defined]
            both.start("0 b 0")
            both.passes(3)


@needs_engine_knob("stable_node_chains_prune_millisecs")
def test_pruned_at_every_search(referee: Referee) -> None:
    """With no delay a chain loses its empty frames as soon as it is met, and goes with the last but one."""
    with referee(smart_scan=0, max_page_sharing=3, stable_node_chains_prune_millisecs=0) as both:
        twin = both.start("a " * 7 + "b")
        both.passes(3)
        for page in range(3):
            twin.write(page, f"own{page}")
        twin.write(7, "a")
        both.passes(4, sums=True)
        both.start("a")
        there = both.passes(3, sums=True)
        assert there["pages_sharing"] > 0
