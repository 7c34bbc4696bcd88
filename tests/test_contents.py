"""Contents made to deceive: whatever pages look like, equal ones merge and no others."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lksm
from helpers import PAGE_SIZE, Pages, content, expect, ids, partition, repeated, unique_pages


def base(word: str, count: int) -> Pages:
    return repeated(word, count)


def one_bit(word: str) -> Pages:
    """A page and its neighbours: each differs from it in one bit, all over the page."""
    memory = base(word, 257)
    for number in range(1, 257):
        bit = (number - 1) * (PAGE_SIZE * 8 // 256) + number % 8
        memory[number, bit // 8] ^= 1 << bit % 8
    return memory


def one_byte(word: str, count: int) -> Pages:
    """Pages that differ in one byte each, at every kind of offset."""
    memory = base(word, count)
    offsets = np.linspace(0, PAGE_SIZE - 1, count).astype(int)
    memory[np.arange(count), offsets] ^= 0x80
    return memory


def last_bytes(word: str, count: int, width: int) -> Pages:
    """Pages that are equal but for a number in their last bytes."""
    memory = base(word, count)
    memory[:, -width:] = np.arange(count, dtype=">u8").view(np.uint8).reshape(count, 8)[:, -width:]
    return memory


def sparse(count: int) -> Pages:
    """Pages of zeros with one non-zero byte, each somewhere else or with another value."""
    memory = np.zeros((count, PAGE_SIZE), np.uint8)
    numbers = np.arange(count)
    memory[numbers, numbers * 37 % PAGE_SIZE] = 1 + numbers % 255
    return memory


def low_entropy(count: int) -> Pages:
    """Pages of one repeated byte."""
    return np.repeat(np.arange(count, dtype=np.uint8)[:, None], PAGE_SIZE, axis=1)


def swapped_lines(word: str, count: int) -> Pages:
    """Pages with the same 64-byte lines in another order."""
    lines = np.frombuffer(content(word), np.uint8).reshape(-1, 64)
    return np.stack([np.roll(lines, number, axis=0).reshape(-1) for number in range(count)])


CONTENTS = {
    "one bit": lambda: one_bit("a"),
    "one bit of zero": lambda: one_bit("0"),
    "one byte": lambda: one_byte("a", 300),
    "last two bytes": lambda: last_bytes("a", 300, 2),
    "last bytes of zero": lambda: last_bytes("0", 300, 2),
    "last byte": lambda: last_bytes("a", 256, 1),
    "sparse": lambda: sparse(400),
    "low entropy": lambda: low_entropy(256),
    "swapped lines": lambda: swapped_lines("a", 64),
    "unique": lambda: unique_pages(300),
}


def brute_force(memory: Pages) -> dict[str, int]:
    """The counters of one scan without a gate, by counting."""
    counts = Counter(page.tobytes() for page in memory)
    shared = sum(count > 1 for count in counts.values())
    return {
        "shared": shared,
        "sharing": sum(count - 1 for count in counts.values()),
        "unshared": len(counts) - shared,
        "volatile": 0,
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("make", CONTENTS.values(), ids=CONTENTS.keys())
def test_pages_that_differ_hardly_at_all(make: object, seed: int) -> None:
    """Pages that are all different stay apart; given twice in another order, each finds its twin."""
    memory = make()  # type: ignore[operator]
    assert len({page.tobytes() for page in memory}) == len(memory)
    engine = lksm.Engine(initial_rounds=0, seed=seed)
    engine.attach(memory, mergeable=True)
    engine.full()
    expect(engine, shared=0, sharing=0, unshared=len(memory), volatile=0)
    shuffled = memory[np.random.default_rng(seed).permutation(len(memory))]
    twin = engine.attach(shuffled, mergeable=True)
    engine.full()
    expect(engine, shared=len(memory), sharing=len(memory), unshared=0, volatile=0)
    assert twin.read(0, len(memory)).tobytes() == shuffled.tobytes()
    assert len(set(ids(engine, twin))) == len(memory)
    engine.close()


@pytest.mark.parametrize("make", CONTENTS.values(), ids=CONTENTS.keys())
def test_deceiving_pages_among_merged_ones(make: object) -> None:
    """A content that is merged already is not joined by the pages that resemble it."""
    memory = make()  # type: ignore[operator]
    engine = lksm.Engine(initial_rounds=0)
    first = engine.attach(memory[[0, 0]], mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=1)
    process = engine.attach(memory, mergeable=True)
    engine.full()
    expect(engine, shared=1, sharing=2, unshared=len(memory) - 1)
    assert ids(engine, process)[0] == ids(engine, first)[0]
    assert set(ids(engine, process)[1:]) == {-1}
    engine.close()


def test_all_pages_zero(engine: lksm.Engine) -> None:
    """Without `use_zero_pages` pages of zeros are pages like others."""
    engine.attach(np.zeros((1000, PAGE_SIZE), np.uint8), mergeable=True)
    engine.full()
    expect(engine, shared=4, sharing=996, unshared=0, chains=1, dups=4)
    assert bool(engine.groups()["zero"][0])


@pytest.mark.parametrize("seed", range(4))
def test_frames_of_a_content_that_others_come_to_resemble(seed: int) -> None:
    """A content with several frames is found again when look-alikes arrived and its frames came and went."""
    engine = lksm.Engine(initial_rounds=0, max_page_sharing=2, seed=seed)
    memory = repeated("a", 8)
    engine.attach(memory, mergeable=True)
    engine.full()
    expect(engine, shared=4, sharing=4, chains=1, dups=4)
    resembling = one_byte("a", 100)[1:]
    engine.attach(resembling, mergeable=True)
    engine.full()
    expect(engine, shared=4, sharing=4, unshared=99)
    for number in range(0, 8, 3):
        memory[number] = number
        engine.full()
        assert engine.check() == []
        assert engine.counters().pages_unshared == 99 + 1 + number // 3
    engine.attach(repeated("a", 3), mergeable=True)
    engine.full()
    expect(engine, shared=4, sharing=4, unshared=102, chains=1, dups=4)
    engine.close()


def test_leaving_many_frames_of_one_content_costs_what_joining_them_did() -> None:
    """Exit does not walk the other frames of a content: it took 200 times as long as the scan when it did."""
    engine = lksm.Engine(initial_rounds=0, max_page_sharing=2, page_size=64)
    process = engine.attach(np.ones((80_000, 64), np.uint8), mergeable=True)
    started = time.perf_counter()
    engine.full()
    scanned = time.perf_counter()
    process.exit()
    assert time.perf_counter() - scanned < 20 * (scanned - started)
    expect(engine, rmap_items=0, chains=0, dups=0)


def test_contents_that_come_and_go(engine: lksm.Engine) -> None:
    """Pages that swap their nearly equal contents between rounds are told apart in every round."""
    memory = last_bytes("a", 200, 2)
    engine.attach(memory, mergeable=True)
    engine.attach(memory.copy(), mergeable=True)
    random = np.random.default_rng(4)
    for _ in range(5):
        engine.full()
        assert engine.check() == []
        memory[:] = memory[random.permutation(200)]
    engine.full()
    engine.full()
    expect(engine, shared=200, sharing=200, unshared=0)


@given(
    numbers=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 255)), min_size=1, max_size=60),
    page_size=st.sampled_from([64, 128, 256, 512, 4096]),
    immutable=st.booleans(),
    seed=st.integers(0, 100),
)
def test_random_pages_by_brute_force(
    numbers: list[tuple[int, int]], page_size: int, immutable: bool, seed: int
) -> None:
    """For any pages, small differences anywhere, the counters are those of counting equal bytes."""
    memory = np.zeros((len(numbers), page_size), np.uint8)
    for page, (kind, place) in zip(memory, numbers, strict=True):
        page[:: kind + 1] = kind
        page[place * page_size // 256] ^= 1 << kind
    engine = lksm.Engine(initial_rounds=0, page_size=page_size, seed=seed)
    process = engine.attach(memory, mergeable=True, immutable=immutable)
    engine.full()
    expect(engine, **brute_force(memory))
    _, inverse, counts = np.unique(memory, axis=0, return_inverse=True, return_counts=True)
    expected = [int(kind) if counts[kind] > 1 else -1 for kind in inverse.reshape(-1)]
    assert partition([ids(engine, process)]) == partition([expected])
    engine.close()


@pytest.mark.parametrize("immutable", [True, False])
def test_thousands_of_pages_by_brute_force(immutable: bool) -> None:
    """A large mixed set in many processes gives exactly what counting gives."""
    random = np.random.default_rng(9)
    pool = np.concatenate([last_bytes("a", 256, 2), sparse(200), low_entropy(100), unique_pages(800)])
    memory = pool[random.integers(0, len(pool), 6000)]
    engine = lksm.Engine(initial_rounds=0, max_page_sharing=2**31 - 1)
    for part in np.array_split(memory, 17):
        engine.attach(part, mergeable=True, immutable=immutable)
    engine.full()
    expect(engine, **brute_force(memory))
    groups = engine.groups()
    counts = sorted(
        (count for count in Counter(page.tobytes() for page in memory).values() if count > 1), reverse=True
    )
    assert groups["pages"].tolist() == counts
    engine.close()
