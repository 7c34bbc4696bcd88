"""Smart scan: who is skipped in which pass."""

from __future__ import annotations

import pytest

from helpers import unique_pages
from side_by_side import Referee

VISITS = (1, 2, 3, 4, 6, 9, 14, 23)  # of a page that never merges, spec 12.3


def test_25_passes_over_unique_pages(referee: Referee) -> None:
    """A page that never merges is visited in the passes of the schedule, and skipped in all others."""
    with referee(smart_scan=1) as both:
        both.start(unique_pages(10))
        for number in range(1, 26):
            there = both.one_pass()
            nr_visits = sum(visit <= number for visit in VISITS)
            assert there["pages_scanned"] == 10 * nr_visits
            assert there["pages_skipped"] == 10 * (number - nr_visits)


def test_25_passes_over_pages_of_all_kinds(referee: Referee) -> None:
    """Merged pages are not skipped; pages that come, change and come back are, as in the kernel."""
    with referee(smart_scan=1) as both:
        first, second = both.start("a a b c d e"), both.start("b f g h")
        for number in range(25):
            both.one_pass()
            if number % 3 == 0:
                first.write(3, f"new{number}")
            if number == 9:
                both.start("c g g i")
            if number == 12:
                second.write(2, "a")
            if number == 17:
                first.write(0, "broken")


@pytest.mark.parametrize("period", [1, 2, 5])
def test_a_page_that_changes_all_the_time(referee: Referee, period: int) -> None:
    """A page rewritten every few passes is gated and skipped alike."""
    with referee(smart_scan=1) as both:
        twin = both.start("a b a b c")
        for number in range(20):
            both.one_pass()
            if number % period == 0:
                twin.write(number % 5, "ab"[number % 2])
