"""What merging gives under a limit, sizes, and memory that is not there."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import lksm
from suite import workloads


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        ({1: 7}, (0, 0, 7)),
        ({2: 3}, (3, 3, 0)),
        ({4: 1}, (1, 3, 0)),
        ({5: 1}, (1, 3, 1)),
        ({6: 1}, (2, 4, 0)),
        ({9: 2, 1: 1}, (4, 12, 3)),
    ],
)
def test_frames_are_filled_one_after_the_other(copies: dict[int, int], expected: workloads.Counts) -> None:
    """Every full frame has as many pages as the limit says, and a page that is left over stays alone."""
    assert workloads.under_limit(copies, limit=4) == expected


def test_the_engine_merges_what_the_limit_leaves() -> None:
    """What is said of random copies under a limit is what an engine counts."""
    random = np.random.default_rng(5)
    for limit in (2, 3, 7):
        contents = random.integers(0, 20, 100)
        pages = np.repeat(contents.astype(np.uint8)[:, None], 64, axis=1)
        copies = Counter(Counter(contents.tolist()).values())
        with lksm.Engine(page_size=64, initial_rounds=0, max_page_sharing=limit) as engine:
            engine.attach(pages, immutable=True, frozen=True)
            counters = engine.settle()
            assert not engine.check()
        found = counters.pages_shared, counters.pages_sharing, counters.pages_unshared
        assert found == workloads.under_limit(copies, limit)


def test_sizes_are_pages() -> None:
    """256M is 65536 pages, and both are said alike."""
    assert workloads.pages_in("256M") == 1 << 16
    assert workloads.pages_in("16g") == 1 << 22
    assert workloads.size_text(workloads.pages_in("1.5G")) == "1.5 GiB"


def test_what_does_not_fit_is_refused_before_it_is_made() -> None:
    """A workload larger than any memory is refused with both numbers."""
    with pytest.raises(workloads.NoRoom, match=r"unique at 4\.1943e\+06 GiB needs .* GiB are available"):
        workloads.make("unique", 1 << 40)
