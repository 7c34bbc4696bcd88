"""What came out, as plain data. Times are virtual milliseconds unless the name says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PolicyResult:
    """What one policy saved, and what it cost.

    merged: pages saved at each sample. pages_scanned: page visits; pages_skipped: visits spared by smart
    scan. bytes_compared, bytes_hashed: read by the engine. merges, breaks: pages that joined a shared frame
    and that left one. scans: rounds begun. cpu_ms: processor time spent in crawls and scans, the only figure
    that differs from run to run. freezes: freezes of a process that had something to merge; of these,
    freezes_merged: it was merged while frozen, freezes_never: thaw or exit came first, and the rest waits
    at the end. freeze_to_merged_ms, freeze_to_merged_p95_ms: from the freeze to 95 % of it merged, median
    and 95th percentile of freezes_merged.
    """

    name: str
    merged: tuple[int, ...]
    pages_scanned: int
    pages_skipped: int
    bytes_compared: int
    bytes_hashed: int
    merges: int
    breaks: int
    scans: int
    cpu_ms: float
    freezes: int
    freezes_merged: int
    freezes_never: int
    freeze_to_merged_ms: int | None
    freeze_to_merged_p95_ms: int | None


@dataclass(frozen=True)
class Results:
    """All policies over one script. sample_times and ideal: see `Script`."""

    title: str
    page_size: int
    duration_ms: int
    seed: int
    nr_processes: int
    sample_times: tuple[int, ...]
    ideal: tuple[int, ...]
    policies: tuple[PolicyResult, ...]

    def policy(self, name: str) -> PolicyResult | None:
        """The result of a policy, if it was run."""
        return next((result for result in self.policies if result.name == name), None)

    def area_of_ideal(self, result: PolicyResult) -> float | None:
        """Pages saved times how long, as a share of what perfect merging saves."""
        return share(sum(result.merged), sum(self.ideal))

    def area_of_ksm(self, result: PolicyResult) -> float | None:
        """The same as a share of what ksm saves; None if ksm was not run, or saved nothing."""
        ksm = self.policy("ksm")
        return None if ksm is None else share(sum(result.merged), sum(ksm.merged))

    def visits_of_ksm(self, result: PolicyResult) -> float | None:
        """Page visits as a share of ksm's; None if ksm was not run, or visited nothing."""
        ksm = self.policy("ksm")
        return None if ksm is None else share(result.pages_scanned, ksm.pages_scanned)


def share(part: int, whole: int) -> float | None:
    """part / whole; None if there is no whole."""
    return part / whole if whole else None


def percentile(values: Sequence[int], percent: int) -> int | None:
    """The least value that at least so many percent of the values do not exceed; None if there are none."""
    if not values:
        return None
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]
