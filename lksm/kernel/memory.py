"""What KSM's bookkeeping takes, and what processes hold in memory."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_RECORD_BYTES = 64  # of a page and of a stable node alike; what general_profit and the slab say
_SLAB = Path("/sys/kernel/slab/ksm_rmap_item")


def bookkeeping_bytes(counters: Mapping[str, int]) -> int:
    """What the records of all pages and frames take: every page that is known is in one of four counters."""
    nr_items = sum(counters[f"pages_{kind}"] for kind in ("shared", "sharing", "unshared", "volatile"))
    nr_nodes = counters["pages_shared"] + counters.get("stable_node_chains", 0)
    return (nr_items + nr_nodes) * _RECORD_BYTES


def slab_bytes() -> int | None:
    """What the slab of KSM's records takes, with whatever else is in it; None if that is not to be seen."""
    try:
        nr_slabs = int((_SLAB / "slabs").read_text().split()[0])
        return nr_slabs << int((_SLAB / "order").read_text()) << (mmap.PAGESIZE.bit_length() - 1)
    except OSError:  # untested: a kernel without slabs to be seen
        return None


def proportional_bytes(pid: int) -> int:
    """Memory of a process, where a page with n mappings counts for an nth; 0 if the process is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
