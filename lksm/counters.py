"""What happened, in numbers. Names and meanings are the kernel's (spec 1.3, 8.2, 12.5)."""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True)
class Counters:
    """One consistent snapshot. Everything counts pages or events unless the name has a unit.

    pages_shared: frames, that is merged contents. pages_sharing: further pages that use them: what is
    saved. pages_unshared: pages that passed the gate but found no twin. pages_volatile: pages tracked but
    in no tree. stable_node_chains, stable_node_dups: contents that have several frames, or had them when
    they were last met or pruned, and their frames.
    full_scans: completed full scans. scan_round: the round the unstable tree belongs to.
    scanning_process: registered processes. nr_frozen, nr_scannable: queued processes, by class.
    merged, broken: pages that joined a frame with a sharer, and that left one that kept a sharer, so far.
    pages_scanned: visits so far. pages_skipped: visits that smart_scan spared. nr_regions: filters in
    existence, one for each domain, key and role of regions. zero_pages: pages on the zero frame; what several
    processes map (fork) counts for each, but as one saving. bytes_compared, bytes_hashed: the work they took,
    samples included.
    last_scan_ms, proc_scan_ms: duration of the last scan, and of it per process (integer division).
    general_profit: bytes saved less the engine's bookkeeping, signed.
    """

    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    pages_volatile: int
    rmap_items: int
    stable_node_chains: int
    stable_node_dups: int
    full_scans: int
    scan_round: int
    scanning_process: int
    nr_frozen: int
    nr_scannable: int
    pages_scanned: int
    pages_skipped: int
    nr_regions: int
    zero_pages: int
    merged: int
    broken: int
    last_scan_ms: int
    proc_scan_ms: int
    general_profit: int
    bytes_compared: int
    bytes_hashed: int


@dataclass(frozen=True)
class ScanReport:
    """One scan. `mode` is "full" or "partial"; `nr_slots` processes were scanned to their end.

    pages_scanned, merged, broken: of this scan only. elapsed_ms: by the engine's clock. cause: "call" of a
    method, "initial" round, "interval" passed, "event" (a freeze, or a process that waited), "request"
    (`one_shot_scanning`).
    """

    mode: str
    round: int
    nr_slots: int
    pages_scanned: int
    merged: int
    broken: int
    elapsed_ms: int
    cause: str = "call"


class ProcessState(enum.IntFlag):
    """State bits of a process (spec 2.4, 7.5)."""

    FROZEN = 1
    LISTED = 2
    NEWCOMER = 4
    SCANNED = 8


@dataclass(frozen=True)
class ProcessStats:
    """What one process contributes (spec 12.6).

    pages: pages present. rmap_items: pages visited and remembered. merging_pages: pages that are merged.
    unshared, volatile: visited pages without a twin, and in no tree. window: merges in each of its last
    completed scans, three unless the engine was told otherwise, oldest first; nr_merged: their sum.
    nr_scans: pages visited since it was last queued. elapsed_ms: duration of its last completed scan.
    zero_pages: pages on the zero frame, inherited ones too. profit_bytes: pages merged and zero pages, in
    bytes, less 64 bytes an item. mergeable: some page may be merged. merge_any: all pages are offered, also
    those that are mapped later.
    """

    pages: int
    rmap_items: int
    merging_pages: int
    zero_pages: int
    unshared: int
    volatile: int
    window: tuple[int, ...]
    nr_merged: int
    nr_scans: int
    elapsed_ms: int
    profit_bytes: int
    mergeable: bool
    merge_any: bool
