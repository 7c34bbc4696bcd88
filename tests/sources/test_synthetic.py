"""`lksm.sources.synthetic`: the promised counters, checked by counting; the same bytes for the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from lksm.errors import SourceError
from lksm.sources import SourceProcess, synthetic


def count(pages: Iterable[bytes]) -> tuple[int, int, int]:
    """Brute force: (pages_shared, pages_sharing, pages_unshared) after merging all that is equal."""
    copies = Counter(pages).values()
    shared = [number for number in copies if number > 1]
    return len(shared), sum(shared) - len(shared), sum(number == 1 for number in copies)


def rows(pages: np.ndarray) -> list[bytes]:
    return [page.tobytes() for page in pages]


def heaps(apps: Iterable[SourceProcess]) -> list[bytes]:
    return [page for app in apps for region in app.regions for page in rows(region.array)]


@pytest.mark.parametrize("name", synthetic.names())
@pytest.mark.parametrize("nr_pages", [1, 2, 3, 4, 5, 31, 32, 33, 64, 1000, 4097])
@pytest.mark.parametrize("page_size", [64, 4096])
def test_counters_are_as_expected(name: str, nr_pages: int, page_size: int) -> None:
    """Counting the pages one by one gives what `expected` says, for every set and size."""
    pages = synthetic.make(name, nr_pages, seed=5, page_size=page_size)
    assert pages.shape == (nr_pages, page_size)
    assert pages.dtype == np.uint8
    assert pages.flags.c_contiguous and pages.flags.writeable
    assert count(rows(pages)) == synthetic.expected(name, nr_pages)


@pytest.mark.parametrize("name", synthetic.names())
def test_a_seed_names_the_bytes(name: str) -> None:
    """The same seed gives the same bytes, another seed gives other ones; zero has no choice."""
    once, again, other = (synthetic.make(name, 200, seed=seed).tobytes() for seed in (1, 1, 2))
    assert once == again
    assert (once == other) == (name == "zero")


def test_names_are_those_of_the_benchmarks() -> None:
    """The sets are called as the benchmarks and their tables call them."""
    assert synthetic.names() == ("unique", "half", "pairs", "zero", "lastbytes", "sparse")


def test_half_has_unique_even_pages_and_copies_among_odd_ones() -> None:
    """Even pages have no twin; every odd page has at least 15, and its next one is far away."""
    pages = synthetic.make("half", 2048)
    copies = Counter(rows(pages))
    assert {copies[page] for page in rows(pages[0::2])} == {1}
    assert {copies[page] for page in rows(pages[1::2])} == {16}
    assert not (pages[1:-2:2] == pages[3::2]).all(axis=1).any()


def test_pairs_are_shuffled() -> None:
    """Twins lie at random distances: few are neighbours, some are half the set apart."""
    places: dict[bytes, list[int]] = {}
    for place, page in enumerate(rows(synthetic.make("pairs", 2000))):
        places.setdefault(page, []).append(place)
    distances = [second - first for first, second in places.values()]
    assert sum(distance == 1 for distance in distances) < 20
    assert max(distances) > 1000


def test_lastbytes_differ_only_at_the_end() -> None:
    """All but the last 8 bytes are the same on all pages, and not zero."""
    pages = synthetic.make("lastbytes", 100)
    assert (pages[:, :-8] == pages[0, :-8]).all()
    assert np.unique(pages[0]).size > 200


@pytest.mark.parametrize("name", ["unique", "half", "pairs", "lastbytes", "sparse"])
def test_contents_differ_for_certain(name: str) -> None:
    """Different contents have different numbers in them, so that no seed can make them equal."""
    nr_pages = 3000
    words = synthetic.make(name, nr_pages).view(np.uint64)
    if name == "sparse":  # the number is the only odd word
        odd = words & np.uint64(1) == 1
        assert (odd.sum(axis=1) == 1).all()
        numbers = words[odd]
    else:
        numbers = words[:, -1 if name == "lastbytes" else 0]
    pages_shared, _, pages_unshared = synthetic.expected(name, nr_pages)
    assert len(np.unique(numbers)) == pages_shared + pages_unshared


def test_sparse_pages_are_nearly_zero() -> None:
    """A page has 1 to 4 words that are not zero, and together the pages use every place."""
    words = synthetic.make("sparse", 4096).view(np.uint64) != 0
    assert words.sum(axis=1).min() >= 1
    assert words.sum(axis=1).max() <= 4
    assert words.any(axis=0).all()


def test_zero_pages_are_resident() -> None:
    """The zero set is written memory: it is not the kernel's one zero page, mapped many times."""
    before = resident_bytes()
    pages = synthetic.make("zero", 16384)
    assert resident_bytes() - before > 0.9 * pages.nbytes
    assert not pages.any()


def resident_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Rss:"))


@pytest.mark.parametrize("nr_apps", [1, 2, 5])
def test_lifecycle_counters_are_as_expected(nr_apps: int) -> None:
    """Counting the pages of all apps one by one gives what `expected_lifecycle` says."""
    sizes = {"framework_pages": 20, "private_pages": 10, "zero_pages": 3}
    apps = synthetic.lifecycle(nr_apps, seed=3, **sizes)
    assert len(apps) == nr_apps
    assert count(heaps(apps)) == synthetic.expected_lifecycle(nr_apps, **sizes)
    assert count(heaps(synthetic.lifecycle())) == synthetic.expected_lifecycle()


def test_lifecycle_apps_are_separate_processes() -> None:
    """Apps have their own name, pid and arrays; the first is in the foreground, the others are frozen."""
    apps = synthetic.lifecycle(4, seed=9)
    assert [app.name for app in apps] == ["app0", "app1", "app2", "app3"]
    assert len({app.pid for app in apps}) == 4
    assert [app.frozen for app in apps] == [False, True, True, True]
    assert not any(app.immutable for app in apps)
    arrays = [region.array for app in apps for region in app.regions]
    for index, array in enumerate(arrays):
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for other in arrays[:index])
    assert heaps(apps) == heaps(synthetic.lifecycle(4, seed=9))
    assert heaps(apps) != heaps(synthetic.lifecycle(4, seed=10))


def test_lifecycle_regions_are_in_order_and_apart() -> None:
    """The regions of an app are in address order, on page boundaries, and do not overlap."""
    (app,) = synthetic.lifecycle(1)
    ends = 0
    for region in app.regions:
        assert region.address >= ends
        assert region.address % 4096 == 0
        ends = region.address + region.array.nbytes


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: synthetic.make("nonesuch", 1),
            "no page set is called 'nonesuch', expected one of unique, half",
        ),
        (lambda: synthetic.expected("nonesuch", 1), "no page set is called 'nonesuch'"),
        (lambda: synthetic.make("zero", 0), "number of pages is 0"),
        (lambda: synthetic.make("zero", 1, page_size=32), "page size is 32"),
        (lambda: synthetic.make("zero", 1, page_size=100), "page size is 100"),
        (lambda: synthetic.lifecycle(0), "0 apps or pages"),
        (lambda: synthetic.lifecycle(1, zero_pages=0), "0 apps or pages"),
    ],
)
def test_bad_arguments_are_refused(call: object, said: str) -> None:
    """Unknown names and impossible sizes are a SourceError that names the value."""
    assert callable(call)
    with pytest.raises(SourceError, match=said):
        call()
