"""What a tracked page costs: bytes the engine reserves, without copies of pages, at one million pages."""

from __future__ import annotations

import pytest

import lksm
from lksm.sources import synthetic

NR_PAGES = 1 << 20
LIMIT = 64  # bytes a page: the kernel's figure


@pytest.mark.parametrize("immutable", [True, False], ids=["immutable", "mutable"])
@pytest.mark.parametrize("workload", ["unique", "half", "pairs", "zero", "lastbytes", "sparse"])
def test_bookkeeping(workload: str, immutable: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """At most 64 bytes a page in every workload; no page is copied for immutable memory."""
    pages = synthetic.make(workload, NR_PAGES, page_size=256)  # the size of a page does not matter here
    with lksm.Engine(page_size=256, initial_rounds=0, max_page_sharing=2**31 - 1) as engine:
        engine.attach(pages, immutable=immutable)
        engine.full()
        shared, sharing, unshared = synthetic.expected(workload, NR_PAGES)
        counters = engine.counters()
        assert (counters.pages_shared, counters.pages_sharing, counters.pages_unshared) == (
            shared,
            sharing,
            unshared,
        )
        memory = engine.memory()
        bookkeeping = sum(size for purpose, size in memory.items() if purpose != "frames")
        with capsys.disabled():
            parts = ", ".join(f"{name} {size / NR_PAGES:.1f}" for name, size in memory.items() if size)
            print(f"\n{workload:10} {bookkeeping / NR_PAGES:5.1f} bytes a page ({parts})", end="")
        assert bookkeeping <= LIMIT * NR_PAGES
        assert memory["frames"] == (0 if immutable else shared * 256)
