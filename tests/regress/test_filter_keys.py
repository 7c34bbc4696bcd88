"""Keys of regions are the caller's objects: whatever becomes of them, regions can be let go."""

from __future__ import annotations

from typing import Any

import pytest

import lksm
from helpers import pages


class Fickle:
    """Its hash changes, and it may refuse to be compared."""

    def __init__(self) -> None:
        self.number = 1
        self.refuses = False

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        if self.refuses:
            raise RuntimeError("do not compare me")
        return self is other


@pytest.mark.parametrize("refuses", [False, True])
def test_a_key_that_changes(refuses: bool) -> None:
    """Exit of a process whose key has another hash by now, or cannot be compared any more, works as ever."""
    with lksm.Engine(filter=True) as engine:
        keys = [Fickle(), Fickle()]
        processes = [engine.attach(lksm.Region(0, pages("a b"), key=key)) for key in keys]
        child = processes[0].fork()
        engine.full()
        keys[0].number, keys[0].refuses = 7, refuses
        for process in (*processes, child):
            process.exit()
            assert process.exited
            with pytest.raises(lksm.ProcessGone):
                process.stats()
            assert engine.check() == []
        assert engine.counters().nr_regions == 0
        assert engine._core is not None and engine._core.filter_keys is not None
        assert len(engine._core.filter_keys) == 0


def test_a_refused_fork_takes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is no memory to note a key for the child, the parent's keys are what they were."""
    with lksm.Engine(filter=True) as engine:
        regions = [lksm.Region(address << 20, pages("a"), key=f"k{address}") for address in range(3)]
        parent = engine.attach(regions)
        core: Any = type(parent._alive)
        hold, calls = core._hold, []

        def failing(self: Any, key: Any) -> int:
            number: int = hold(self, key)
            calls.append(number)
            if len(calls) == 2:
                raise MemoryError
            return number

        monkeypatch.setattr(core, "_hold", failing)
        with pytest.raises(MemoryError):
            parent.fork()
        monkeypatch.undo()
        assert engine._core is not None and engine._core.filter_keys is not None
        assert len(engine._core.filter_keys) == 3
        assert engine.counters().nr_regions == 3
        parent.exit()
        assert len(engine._core.filter_keys) == 0
        assert engine.check() == []
