"""Workloads made at random: whatever the file allows can be simulated, and nobody beats the ideal."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import lksm
from lksm.simulation.policies import POLICIES
from lksm.simulation.run import run
from lksm.simulation.script import write_script
from lksm.simulation.workload import Workload, parse

SHARES = st.sampled_from([0, 0.1, 0.5, 1])
RATES = st.sampled_from([0, 5, 300])


def table(name: str, values: dict[str, object]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Small ones, with everything at its limits now and then."""
    count = draw(st.integers(1, 6))
    resident = draw(st.integers(1, count))
    libraries = draw(st.integers(0, 3))
    few, times = st.integers(0, 12), st.sampled_from([1, 90, 700])
    tables = {
        "memory": {
            "zero": draw(few), "framework": draw(few), "library": draw(few), "private": draw(few) + 1,
            "libraries": libraries, "libraries_each": draw(st.integers(0, libraries)),
        },
        "apps": {
            "count": count, "resident": resident,
            "at_once": draw(st.integers(1, max(1, min(resident, count - 1)))),
            "launch_every_ms": draw(st.sampled_from([0, 50])),
            "foreground_ms": draw(times), "foreground_spread": draw(SHARES), "popularity": draw(SHARES),
            "pause_share": draw(SHARES), "pause_ms": draw(times), "freeze_after_ms": draw(times) - 1,
            "exit_share": draw(SHARES), "cpu_share": draw(SHARES),
        },
        "writes": {
            "foreground": draw(RATES), "background": draw(RATES), "hot_share": draw(SHARES),
            "hot_common_share": draw(SHARES), "common_share": draw(SHARES),
        },
        "services": {"count": draw(st.integers(0, 2)), "writes": draw(RATES)},
        "helpers": {"every_ms": draw(st.sampled_from([0, 200])), "live_ms": draw(times), "zero": draw(few)},
        "restarts": {
            "every_ms": draw(st.sampled_from([0, 400])), "apps": draw(st.integers(1, count)),
            "changed_share": draw(SHARES),
        },
        "engine": {
            "pages_to_scan": draw(st.sampled_from([1, 7, 100])),
            "max_page_sharing": draw(st.integers(2, 9)),
        },
    }  # fmt: skip
    head = 'title = "any"\npage_size = 64\nduration_ms = 2500\nsample_ms = 100\ntick_ms = 100\n'
    return parse((head + "".join(table(*each) for each in tables.items())).encode(), "any")


@settings(max_examples=60)
@given(workloads(), st.integers(0, 3), st.sampled_from(list(POLICIES)))
def test_any_workload(workload: Workload, seed: int, policy: str) -> None:
    """It runs to its end, the engine stays sound, freezes have one outcome, merged is at most ideal."""

    def look(engine: lksm.Engine) -> None:
        assert engine.check() == []

    script = write_script(workload, seed)
    result = run(script, POLICIES[policy], observe=look)
    assert all(0 <= merged <= ideal for merged, ideal in zip(result.merged, script.ideal, strict=True))
    assert result.freezes_merged + result.freezes_never <= result.freezes
    assert len(result.merged) == 25
