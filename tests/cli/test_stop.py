"""Signals as a wish, and Ctrl-C kept away, on threads that get none."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from lksm.cli._interrupt import held
from lksm.cli._stop import stop_on_signals


def test_another_thread_changes_no_handler() -> None:
    """On another thread than the main one both do nothing, and the block runs."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)]

    def work() -> list[object]:
        with held(), stop_on_signals(writer) as stop:
            assert not stop.is_asked
            return [signal.getsignal(name) for name in names]

    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(work).result() == [signal.default_int_handler, before[1]]
    finally:
        signal.signal(signal.SIGINT, before[0])
        os.close(reader)
        os.close(writer)


def test_ctrl_c_is_raised_at_the_end_of_the_block() -> None:
    """What comes within the block waits for its end, and the handler is back then."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []

    def interrupted() -> None:
        with held():
            signal.raise_signal(signal.SIGINT)
            done.append("the block")

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert done == ["the block"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored() -> None:
    """Where our caller ignores Ctrl-C it asks for nothing, and SIGTERM still does."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals(writer) as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.is_asked
            signal.raise_signal(signal.SIGTERM)
            assert stop.is_asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(reader)
        os.close(writer)
