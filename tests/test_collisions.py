"""Pages that are hard to tell apart: nearly equal contents, and hashes that hardly tell anything."""

from __future__ import annotations

import collections
import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import lksm
from lksm import _core

Pages = npt.NDArray[np.uint8]
HASHES = ["strong", "hash_8_bits", "hash_8_high_bits", "hash_0_bits"]


@pytest.fixture(scope="session")
def weak_hashes(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """tests/weak_hash.c as a library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make the colliding hashes with")
    library = tmp_path_factory.mktemp("weak") / "weak_hash.so"
    source = Path(__file__).with_name("weak_hash.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(params=HASHES)
def lent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Lends the core the hash of that name."""
    name: str = request.param
    if name != "strong":
        library = request.getfixturevalue("weak_hashes")
        addresses = (
            ctypes.cast(getattr(library, each), ctypes.c_void_p).value for each in (name, "generate_secret")
        )
        hash_address, generate_address = addresses
        weak = _core.LentHash(name, hash_address or 0, generate_address or 0)
        monkeypatch.setattr(_core, "lent_hash", lambda: weak)
    return name


def bit_flips(count: int, size: int) -> Pages:
    """Copies of one random page, each with another bit flipped."""
    pages = np.tile(np.random.default_rng(1).integers(0, 256, size, np.uint8), (count, 1))
    bits = np.random.default_rng(2).choice(size * 8, count, replace=False)
    pages[np.arange(count), bits // 8] ^= (1 << (bits % 8)).astype(np.uint8)
    return pages


def last_bytes(count: int, size: int) -> Pages:
    """Zero pages that differ in their last eight bytes only."""
    pages = np.zeros((count, size), np.uint8)
    pages[:, -8:] = np.arange(1, count + 1, dtype="<u8").reshape(-1, 1).view(np.uint8)
    return pages


def sparse(count: int, size: int) -> Pages:
    """Zero pages with one word somewhere."""
    rng = np.random.default_rng(3)
    pages = np.zeros((count, size), np.uint8)
    words = pages.view("<u8")
    words[np.arange(count), rng.integers(0, size // 8, count)] = np.arange(1, count + 1)
    return pages


def zero(count: int, size: int) -> Pages:
    return np.zeros((count, size), np.uint8)


def brute_force(pages: Pages) -> tuple[int, int, int]:
    """shared, sharing and unshared pages of contents that nobody limits."""
    counts = collections.Counter(page.tobytes() for page in pages)
    shared = sum(count > 1 for count in counts.values())
    return shared, sum(counts.values()) - len(counts), len(counts) - shared


@pytest.mark.parametrize("immutable", [True, False])
@pytest.mark.parametrize("page_size", [64, 256, 4096])
@pytest.mark.parametrize("make", [bit_flips, last_bytes, sparse, zero])
def test_counts_do_not_depend_on_the_hash(lent: str, make: object, page_size: int, immutable: bool) -> None:
    """Whatever the hash tells, exactly the equal pages merge, also after every page was visited again."""
    pages = make(300, page_size)  # type: ignore[operator]
    pages = np.concatenate([pages, pages[::3], pages[::2]])
    pages = pages[np.random.default_rng(4).permutation(len(pages))]
    engine = lksm.Engine(page_size=page_size, initial_rounds=0, max_page_sharing=10**6)
    process = engine.attach(pages, immutable=immutable)
    for _ in range(3):
        engine.full()
        counters = engine.counters()
        found = (counters.pages_shared, counters.pages_sharing, counters.pages_unshared)
        assert found == brute_force(pages)
        assert engine.check() == []
    content_of: dict[int, bytes] = {}
    for frame, page in zip(engine.page_table(process), pages, strict=True):
        assert frame < 0 or content_of.setdefault(int(frame), page.tobytes()) == page.tobytes()


def test_classes_deepen_while_their_pages_wait(lent: str) -> None:
    """A page that waits under its sample key is still found after its class was deepened."""
    lone = last_bytes(64, 4096)
    engine = lksm.Engine(initial_rounds=0)
    engine.attach(lone, name="first", immutable=True)
    engine.full()
    engine.attach(lone[::-1].copy(), name="second")
    engine.full()
    counters = engine.counters()
    assert (counters.pages_shared, counters.pages_sharing, counters.pages_unshared) == (64, 64, 0)
    assert engine.check() == []


def test_collisions_in_the_gate_only_let_pages_through(lent: str) -> None:
    """A checksum that never changes opens the gate early; what merges is still compared byte by byte."""
    pages = bit_flips(40, 4096)
    engine = lksm.Engine(initial_rounds=3)
    engine.attach(np.concatenate([pages, pages]))
    engine.settle()
    counters = engine.counters()
    assert (counters.pages_shared, counters.pages_sharing, counters.pages_unshared) == (40, 40, 0)
    assert engine.check() == []
