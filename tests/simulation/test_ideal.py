"""What perfect merging would save, against a count over the very bytes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from lksm.simulation.contents import PATCH_BYTES, Contents
from lksm.simulation.events import Event, Exit, Freeze, Start, Work
from lksm.simulation.ideal import Ideal
from lksm.simulation.script import write_script
from small_workload import small

Pages = npt.NDArray[np.uint8]


class Memory:
    """All pages of all processes as bytes; the referee: it knows no labels but to make bytes of them."""

    def __init__(self, page_size: int) -> None:
        self._contents = Contents(page_size)
        self.processes: dict[int, Pages] = {}

    def follow(self, event: Event) -> None:
        if isinstance(event, Start):
            self.processes[event.process] = self._contents.pages(event.labels)
        elif isinstance(event, Exit):
            del self.processes[event.process]
        elif isinstance(event, Work):
            pages = self.processes[event.process]
            for page, label in zip(event.patched, event.patch_labels, strict=True):
                offset, data = self._contents.patch(int(label))
                pages[page, offset : offset + len(data)] = np.frombuffer(data, np.uint8)
            pages[event.replaced] = self._contents.pages(event.replaced_labels)

    def count(self) -> Counter[bytes]:
        return Counter(page.tobytes() for pages in self.processes.values() for page in pages)


@pytest.mark.parametrize("page_size", [64, 256, 4096])
@pytest.mark.parametrize("seed", [0, 1])
def test_ideal_is_what_the_bytes_say(seed: int, page_size: int) -> None:
    """At random instants the ideal, and at freezes what could be merged, are those of a brute-force count."""
    workload = small(("page_size = 256", f"page_size = {page_size}"), ("30_000", "8_000"))
    script = write_script(workload, seed)
    random = np.random.default_rng(seed)
    ideal, memory = Ideal(), Memory(page_size)
    nr_looks = 0
    for index, event in enumerate(script.events):
        ideal.follow(event)
        memory.follow(event)
        if isinstance(event, Freeze):
            counts = memory.count()
            pages = memory.processes[event.process]
            twins = [i for i, page in enumerate(pages) if counts[page.tobytes()] > 1]
            assert script.mergeable[index].tolist() == twins
        elif random.random() < 0.05:
            counts = memory.count()
            assert ideal.saved == counts.total() - len(counts)
            nr_looks += 1
    assert nr_looks > 5 and script.mergeable


def test_samples_are_after_their_instant() -> None:
    """A sample tells what the events up to and at its time have left."""
    script = write_script(small(), 0)
    ideal = Ideal()
    events = list(script.events)
    for time, expected in zip(script.sample_times, script.ideal, strict=True):
        while events and events[0].at <= time:
            ideal.follow(events.pop(0))
        assert ideal.saved == expected
    assert max(script.ideal) > 100


@pytest.mark.parametrize("page_size", [64, 128, 4096])
def test_labels_are_contents(page_size: int) -> None:
    """Different labels are different pages, equal ones equal, and zero is zero; patches fit their page."""
    contents = Contents(page_size)
    labels = np.arange(5000)
    pages = contents.pages(labels)
    assert pages.shape == (5000, page_size) and pages.flags.writeable
    assert len({page.tobytes() for page in pages}) == 5000
    assert not pages[0].any()
    assert np.array_equal(contents.pages(labels[[7, 4999, 7]]), pages[[7, 4999, 7]])
    patches = [contents.patch(label) for label in range(1, 2000)]
    assert len({data for _, data in patches}) == len(patches)
    assert {offset % PATCH_BYTES for offset, _ in patches} == {0}
    assert all(0 <= offset <= page_size - len(data) for offset, data in patches)
    assert page_size == PATCH_BYTES or len({offset for offset, _ in patches}) > 1
