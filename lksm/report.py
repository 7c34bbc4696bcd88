"""What a page's fate was, as plain data and a sentence."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


class Reason(enum.Enum):
    """Why a page is or is not merged."""

    MERGED = "merged"
    ZERO = "zero"
    UNIQUE = "unique"
    VOLATILE = "volatile"
    NOT_VISITED = "not visited"
    NOT_REGISTERED = "not registered"
    OPTED_OUT = "opted out"
    EXCLUDED = "excluded"
    ALREADY_SHARED = "already shared"
    LIMIT = "limit"
    OTHER_DOMAIN = "other domain"
    OTHER_NODE = "other node"
    SKIPPED = "skipped"
    ABSENT = "absent"


@dataclass(frozen=True)
class Explanation:
    """Why one page is or is not merged: `text` is one sentence, `frame` its frame id or None."""

    reason: Reason
    text: str
    frame: int | None


@dataclass(frozen=True)
class Facts:
    """What is known of a page, for the sentence about it."""

    process: str
    page: int
    frame: int | None
    nr_sharers: int
    other: tuple[str, int] | None
    is_private: bool
    is_filtered: bool
    max_page_sharing: int


def explanation(reason: Reason, facts: Facts) -> Explanation:
    """The explanation of a page, in words."""
    subject = f"page {facts.page} of {facts.process}"
    return Explanation(reason, f"{subject} {_predicate(reason, facts)}", facts.frame)


def _predicate(reason: Reason, facts: Facts) -> str:
    other = f"page {facts.other[1]} of {facts.other[0]}" if facts.other else "another page"
    match reason:
        case Reason.MERGED if facts.nr_sharers == 1:
            return f"is the only page left in frame {facts.frame}: the others were written"
        case Reason.MERGED:
            more = f" and {facts.nr_sharers - 2} more" if facts.nr_sharers > 2 else ""
            return f"is merged into frame {facts.frame} with {other}{more}"
        case Reason.ZERO:
            return "is on the zero frame: it was all zeros when it was last looked at"
        case Reason.UNIQUE:
            return "passed the gate but no other page had the same bytes when it was visited"
        case Reason.VOLATILE if facts.is_private:
            return "was merged, but was written or unmerged since; its next visit decides anew"
        case Reason.VOLATILE:
            return "is held back: it was new or had changed at its last visit, or its twin had"
        case Reason.SKIPPED if facts.is_filtered:
            return "is left out: no page at its offset has merged in any region with the same key"
        case Reason.SKIPPED:
            return "was left out at its last visit: smart scan spares pages that many visits have not merged"
        case Reason.NOT_VISITED:
            return "has not been visited by a scan yet"
        case Reason.NOT_REGISTERED:
            return "is not registered for merging; no crawl has registered it"
        case Reason.OPTED_OUT:
            return "was advised unmergeable"
        case Reason.EXCLUDED:
            return "lies in a region of a kind that is never merged"
        case Reason.ALREADY_SHARED:
            return f"is the same physical page as {other}: there is nothing to save"
        case Reason.LIMIT:
            return (
                f"equals merged pages, but each of their frames has {facts.max_page_sharing} sharers, "
                "the most that max_page_sharing allows"
            )
        case Reason.OTHER_NODE:
            return "has a twin only on another memory node, and merge_across_nodes is 0"
        case Reason.OTHER_DOMAIN:
            return "has a twin only in another domain, and pages merge within their domain"
        case Reason.ABSENT:  # untested: there is no other
            return "is absent: not in the dump, not resident, or unmapped"


def proportional_savings(tables: Sequence[npt.NDArray[np.int64]], page_size: int) -> list[int]:
    """The bytes that each process saves, from all page tables: they add up to what merging saves in all.

    A page that shares its frame with s - 1 others saves (1 - 1/s) of a page. Sums are rounded down to whole
    bytes; the bytes lost by that go one each to the processes that lost most (the earlier one, if equal).
    A page that is physically one with another page must have no frame here, or it would count twice.
    """
    merged = [table[table >= 0] for table in tables]
    frames = np.concatenate([np.empty(0, np.int64), *merged])
    if not len(frames):
        return [0] * len(tables)
    sharers = np.bincount(frames)
    share = 1 - 1 / np.maximum(sharers, 1)
    exact = np.array([share[frames_of_one].sum() for frames_of_one in merged]) * page_size
    saved = np.floor(exact).astype(np.int64)
    nr_lost = (len(frames) - int(np.count_nonzero(sharers))) * page_size - int(saved.sum())
    most_lost = np.argsort(saved - exact, kind="stable")
    saved[most_lost[:nr_lost]] += 1
    result: list[int] = saved.tolist()
    return result
