"""A workload, written down: every policy goes through the same events and is measured by the same ideal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .events import Event, Freeze, Numbers
from .ideal import Ideal
from .timeline import timeline
from .workload import Workload


@dataclass(frozen=True, eq=False)
class Script:
    """Events, and what is known of them before any engine runs.

    sample_times: virtual milliseconds at which to look at what is merged, after the events of that instant;
    ideal: pages that perfect merging would save then. mergeable: for each event that is a freeze, by its
    place among the events, the pages of the process that could be merged at that instant.
    """

    workload: Workload
    seed: int
    events: tuple[Event, ...]
    sample_times: tuple[int, ...]
    ideal: tuple[int, ...]
    mergeable: Mapping[int, Numbers]


def write_script(workload: Workload, seed: int) -> Script:
    """Everything that will happen; the same for the same workload and seed."""
    sample_times = tuple(range(workload.sample_ms, workload.duration_ms + 1, workload.sample_ms))
    happened: list[Event] = []
    saved: list[int] = []
    mergeable: dict[int, Numbers] = {}
    ideal = Ideal()
    for event in timeline(workload, seed):
        while len(saved) < len(sample_times) and sample_times[len(saved)] < event.at:
            saved.append(ideal.saved)
        ideal.follow(event)
        if isinstance(event, Freeze):
            mergeable[len(happened)] = ideal.mergeable(event.process)
        happened.append(event)
    saved += [ideal.saved] * (len(sample_times) - len(saved))
    return Script(workload, seed, tuple(happened), sample_times, tuple(saved), mergeable)
