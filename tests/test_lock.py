"""The lock of an engine, and Ctrl-C before every instruction of taking and leaving it, one after another."""

from __future__ import annotations

import _thread
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

import lksm._lock
from lksm._lock import FairLock


class Signal(int):
    """Python looks for signals after calls, and a tracing function must not handle its own: here is none."""

    comes = property(_thread.interrupt_main)


_SIGINT = Signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises, also where our own caller ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(do: Callable[[], None], instruction: int) -> int:
    """Do it with Ctrl-C before that instruction of it and of the lock, 0: of none; how many there were."""
    files = {lksm._lock.__file__, __file__}
    nr_met = 0

    def count(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal nr_met
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            nr_met += 1
            if nr_met == instruction:
                sys.settrace(None)  # another call of this function would handle it
                _SIGINT.comes  # noqa: B018
        return count

    tracer = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 takes notice only before tracing begins
    try:
        sys.settrace(count)
        do()
        for _ in range(1000 if instruction else 0):
            pass  # it comes now at the latest
        assert not instruction
    except KeyboardInterrupt:
        assert instruction
    finally:
        sys.settrace(tracer)
    return nr_met


def everywhere(lock: FairLock, do: Callable[[], None], *, is_held: bool) -> None:
    """Wherever Ctrl-C comes, the lock is as it was, and others can take it when we are through."""
    total = run(do, 0)
    assert total > 20
    for instruction in range(1, total + 1):
        run(do, instruction)
        assert lock.is_mine() == is_held, f"at instruction {instruction} of {total}"
        if is_held:
            lock.__exit__(None, None, None)
            assert not lock.is_mine(), f"at instruction {instruction} of {total}"
            lock.__enter__()


def test_taking_it() -> None:
    """Whoever is interrupted does not keep it, nor the turnstile."""
    lock = FairLock()

    def take() -> None:
        with lock:
            pass

    everywhere(lock, take, is_held=False)
    assert not lock._turnstile.locked()


def test_taking_it_once_more() -> None:
    """Whoever has it and is interrupted while taking it again still has it as often as before."""
    lock = FairLock()

    def take() -> None:
        with lock, lock:
            pass

    with lock:
        everywhere(lock, take, is_held=True)
    assert not lock.is_mine()
    assert not lock._turnstile.locked()
