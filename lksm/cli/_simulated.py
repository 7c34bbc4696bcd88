"""Results of a simulation as text and as JSON."""

from __future__ import annotations

import dataclasses
import json

from .. import __version__
from ..simulation.results import PolicyResult, Results
from ._output import human_bytes, printable
from ._table import Column, table


def as_text(results: Results) -> str:
    """What was simulated, what each policy saved, and what it cost."""
    return "\n".join([_headline(results), _saved(results), _cost(results)])


def as_json(results: Results) -> str:
    """One object on one line. Of all values only `cpu_ms` differs from run to run."""
    document = {"version": __version__, **dataclasses.asdict(results)}
    document["policies"] = [
        dataclasses.asdict(policy)
        | {
            "area_of_ideal": results.area_of_ideal(policy),
            "area_of_ksm": results.area_of_ksm(policy),
            "visits_of_ksm": results.visits_of_ksm(policy),
        }
        for policy in results.policies
    ]
    return json.dumps(document) + "\n"


def _headline(results: Results) -> str:
    nr_samples = max(1, len(results.ideal))
    mean = sum(results.ideal) // nr_samples
    return (
        f"{printable(results.title)}\n"
        f"seed {results.seed}, {results.duration_ms / 1000:g} virtual seconds, "
        f"{results.nr_processes} processes, pages of {results.page_size} bytes\n"
        f"perfect merging would save {mean} pages ({human_bytes(mean * results.page_size)}) in the mean\n"
    )


def _saved(results: Results) -> str:
    columns = [
        Column("policy"),
        *(Column(title, True) for title in ("saved", "of ideal", "of ksm", "freezes", "merged", "never")),
        *(Column(title, True) for title in ("after, median", "95 %")),
    ]
    rows = [
        [
            policy.name,
            human_bytes(sum(policy.merged) * results.page_size // max(1, len(policy.merged))),
            _percent(results.area_of_ideal(policy)),
            _percent(results.area_of_ksm(policy)),
            policy.freezes,
            policy.freezes_merged,
            policy.freezes_never,
            _milliseconds(policy.freeze_to_merged_ms),
            _milliseconds(policy.freeze_to_merged_p95_ms),
        ]
        for policy in results.policies
    ]
    return table(columns, rows)


def _cost(results: Results) -> str:
    columns = [
        Column("policy"),
        *(Column(title, True) for title in ("scans", "visits", "of ksm", "skipped", "compared", "hashed")),
        *(Column(title, True) for title in ("merges", "breaks", "CPU")),
    ]
    rows = [[policy.name, *_costs(results, policy)] for policy in results.policies]
    return table(columns, rows)


def _costs(results: Results, policy: PolicyResult) -> list[object]:
    return [
        policy.scans,
        policy.pages_scanned,
        _percent(results.visits_of_ksm(policy)),
        policy.pages_skipped,
        human_bytes(policy.bytes_compared),
        human_bytes(policy.bytes_hashed),
        policy.merges,
        policy.breaks,
        f"{policy.cpu_ms:.0f} ms",
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _milliseconds(value: int | None) -> str:
    return "-" if value is None else f"{value} ms"
