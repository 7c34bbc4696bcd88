"""What a page's fate was, as plain data and a sentence."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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
        case Reason.UNIQUE:
            return "passed the gate but no other page had the same bytes when it was visited"
        case Reason.VOLATILE if facts.is_private:
            return "was merged, but was written or unmerged since; its next visit decides anew"
        case Reason.VOLATILE:
            return "is held back: it was new or had changed at its last visit, or its twin had"
        case Reason.NOT_VISITED:
            return "has not been visited by a scan yet"
        case Reason.NOT_REGISTERED:
            return "is not registered for merging; the next full scan registers it"
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
        case Reason.ABSENT:
            return "is absent: not in the dump, not resident, or unmapped"
        case _:
            return f"is {reason.value}"
