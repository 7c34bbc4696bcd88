"""The policies that are compared, by the name they have on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Policy:
    """How an engine is set up and asked.

    engine: the engine's policy. run: its knob of this name. request: what is stored to one_shot_scanning at
    every freeze, 1 partial, 2 full; 0: nothing. is_advised: every process is advised mergeable when it
    comes; otherwise the crawler finds it.
    """

    name: str
    summary: str
    engine: Literal["lksm", "ksm"] = "lksm"
    run: int = 0
    request: int = 0
    is_advised: bool = False


POLICIES: Mapping[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("ksm", "scans everything, round after round", engine="ksm", run=1, is_advised=True),
        Policy("periodic", "LKSM by itself: full scans at intervals, partial ones after freezes", run=1),
        Policy("partial", "LKSM, asked for a partial scan at every freeze", run=8, request=1),
        Policy("full", "LKSM, asked for a full scan at every freeze", run=8, request=2),
        Policy("none", "merges nothing"),
    )
}
