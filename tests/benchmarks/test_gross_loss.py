"""What the smoke benchmark and the instruction counts call a change."""

from __future__ import annotations

import instructions
import smoke
from suite.callgrind import instructions_of

CALLGRIND = """\
version: 1
events: Ir

ob=(1) /tmp/x/instructions
fl=(1) core.c
fn=(1) measured
10 3
cfn=(2) lksm_scan
calls=1 20
11 900

fn=(2)
20 100
+1 20
cfi=(3) xxhash.h
cfn=(3) XXH3_64bits
calls=7 30
* 500
cob=(2) /lib/libc.so.6
cfn=(4) memcmp
calls=7 0
* 280

fn=(3)
30 500

ob=(2)
fn=(4)
0 280

ob=(1)
fn=(2)
-3 7
"""


def test_only_what_the_core_does_itself_is_counted() -> None:
    """Calls, the hash and the C library are left out."""
    assert instructions_of(CALLGRIND, "instructions") == 3 + 100 + 20 + 7 + 500
    assert instructions_of(CALLGRIND, "instructions", without=("XXH",)) == 3 + 100 + 20 + 7


def test_a_change_beyond_three_percent_is_shown() -> None:
    """In both directions, and what was not recorded; nothing below."""
    recorded = {"a": {"instructions": 100.0, "bytes_hashed": 0.0}}
    assert instructions.changes(recorded, {"a": {"instructions": 103.0, "bytes_hashed": 0.0}}) == []
    [slower] = instructions.changes(recorded, {"a": {"instructions": 104.0}})
    assert slower == "a: instructions 100 -> 104 a page, +4.0%"
    assert len(instructions.changes(recorded, {"a": {"instructions": 96.0, "bytes_hashed": 1.0}})) == 2
    assert len(instructions.changes(recorded, {"b": {"instructions": 1.0}})) == 1


def test_only_half_of_what_was_recorded_is_too_slow() -> None:
    """Half is still good enough; less is not; the better of two measurements counts."""
    recorded = {"a": 4.0, "b": 4.0}
    assert smoke.too_slow(recorded, {"a": 2.0, "b": 1.9, "c": 0.1}) == ["b"]
    assert smoke.best({"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 1.0}) == {"a": 2.0, "b": 3.0}
    assert smoke.worst({"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 1.0}) == {"a": 1.0, "b": 1.0}


def test_everything_measured_is_recorded() -> None:
    """The smoke benchmark holds every page set to a number."""
    assert set(smoke.recorded()) == {
        f"{name}, lksm {memory} {phase}"
        for name in smoke.synthetic.names()
        for memory, phases in (
            ("immutable", ("cold", "rescan")),
            ("mutable", ("cold", "rescan", "changed")),
        )
        for phase in phases
    }
