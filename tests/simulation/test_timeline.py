"""The course of events: the same for the same seed, and nothing in it that cannot happen."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from lksm.simulation.events import ZERO, Event, Exit, Freeze, Start, Thaw, Work
from lksm.simulation.timeline import timeline
from lksm.simulation.workload import Workload
from small_workload import small

SEEDS = range(5)


def plain(event: Event) -> tuple[object, ...]:
    """An event with its arrays as lists, so that two can be compared."""
    values = (getattr(event, field.name) for field in dataclasses.fields(event))
    return type(event).__name__, *(v.tolist() if isinstance(v, np.ndarray) else v for v in values)


def test_same_seed_same_events() -> None:
    """Workload and seed decide everything; another seed gives other events."""
    first, again, other = ([plain(event) for event in timeline(small(), seed)] for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_the_user_does_not_see_the_memory() -> None:
    """Sessions stay the same when processes are larger, write more, or have others beside them."""

    def course(workload: Workload) -> list[tuple[object, ...]]:
        names: dict[int, str] = {}
        happened: list[tuple[object, ...]] = []
        for event in timeline(workload, 6):
            if isinstance(event, Start):
                names[event.process] = event.name
            if names[event.process].startswith("app") and not isinstance(event, Work):
                happened.append((type(event), event.at, names[event.process]))
        return happened

    changed = small(("private = 40", "private = 90"), ("foreground = 60", "foreground = 200"),
                    ("count = 2\n", "count = 0\n"), ("every_ms = 1000", "every_ms = 0"))  # fmt: skip
    assert course(changed) == course(small())


@pytest.mark.parametrize("seed", SEEDS)
def test_only_what_can_happen(seed: int) -> None:
    """Events come in order of time; processes start once, are frozen while running, and rest when frozen."""
    workload = small()
    nr_pages: dict[int, int] = {}
    frozen: set[int] = set()
    now, started = 0, 0
    for event in timeline(workload, seed):
        assert now <= event.at <= workload.duration_ms
        now = event.at
        if isinstance(event, Start):
            assert event.process == started + 1
            started = event.process
            nr_pages[event.process] = len(event.labels)
            continue
        assert event.process in nr_pages
        assert (event.process in frozen) == isinstance(event, Thaw) or isinstance(event, Exit)
        if isinstance(event, Freeze):
            frozen.add(event.process)
        elif isinstance(event, Thaw | Exit):
            frozen.discard(event.process)
        if isinstance(event, Exit):
            del nr_pages[event.process]
        if isinstance(event, Work):
            pages = np.concatenate([event.patched, event.replaced])
            assert len(np.unique(pages)) == len(pages)
            assert pages.max(initial=0) < nr_pages[event.process]
            assert len(event.patched) == len(event.patch_labels)
            assert len(event.replaced) == len(event.replaced_labels)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_happens(seed: int) -> None:
    """In half a minute there are all kinds of events and of processes, and a resident limit that holds."""
    alive: dict[int, str] = {}
    kinds, names = set(), set()
    for event in timeline(small(), seed):
        kinds.add(type(event))
        if isinstance(event, Start):
            alive[event.process] = event.name
            names.add(event.name)
        elif isinstance(event, Exit):
            del alive[event.process]
        assert sum(name.startswith("app") for name in alive.values()) <= 5
    assert kinds == {Start, Exit, Freeze, Thaw, Work}
    assert {"service0", "service1", "helper", "app0"} <= names
    assert len({name for name in names if name.startswith("app")}) == 7


def test_patches_are_new() -> None:
    """What a patch makes of a page has never been there before, and private pages neither."""
    seen: set[int] = set()
    for event in timeline(small(), 1):
        if isinstance(event, Start):
            seen.update(event.labels.tolist())
        elif isinstance(event, Work):
            labels = event.patch_labels.tolist()
            assert seen.isdisjoint(labels)
            seen.update(labels)


def test_helpers_stay_short_lived() -> None:
    """A helper never gets to the CPU time that its workload gives it at its exit, as services do."""
    helpers: set[int] = set()
    most = {True: 0, False: 0}
    for event in timeline(small(), 2):
        if isinstance(event, Start) and event.name == "helper":
            helpers.add(event.process)
        elif isinstance(event, Work):
            is_helper = event.process in helpers
            most[is_helper] = max(most[is_helper], event.runtime_ms)
    assert 0 < most[True] <= 40
    assert most[False] > 60_000


def test_a_version_changes_a_share_of_the_framework() -> None:
    """After a wave of restarts an app has so many framework pages that it had not before."""
    workload = small(("changed_share = 0.3", "changed_share = 0.25"), ("exit_share = 0.1", "exit_share = 0"))
    framework = framework_of(workload)
    assert len(framework) > 1
    assert {int((one != two).sum()) for one, two in itertools.pairwise(framework)} == {6}


def framework_of(workload: Workload) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The different frameworks that the first app has started with, in order."""
    found: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
    for event in timeline(workload, 3):
        if isinstance(event, Start) and event.name == "app0":
            framework = event.labels[: workload.memory.framework]
            if not found or (found[-1] != framework).any():
                found.append(framework)
    return found


def test_nothing_is_written_in_a_pause() -> None:
    """With a pause after every session there are long stretches in which every app is frozen."""
    pauses = "pause_share = 1.0\npause_ms = 3000\nexit_share = 0"
    workload = small(
        ("exit_share = 0.1", pauses),
        ("at_once = 2", "at_once = 1"),
        ("[restarts]\nevery_ms = 7000", "[restarts]\nevery_ms = 0"),
    )
    running: set[int] = set()
    names: dict[int, str] = {}
    nr_ticks = nr_idle = 0
    for event in timeline(workload, 5):
        if isinstance(event, Start):
            names[event.process] = event.name
        if isinstance(event, Start | Thaw) and names[event.process].startswith("app"):
            running.add(event.process)
        elif isinstance(event, Freeze | Exit):
            running.discard(event.process)
        elif isinstance(event, Work) and names[event.process] == "service0":
            nr_ticks += 1
            nr_idle += not running
    assert nr_idle > nr_ticks / 3


def test_one_app_alone() -> None:
    """The smallest world there is works: one app, which the user keeps coming back to."""
    workload = small(("count = 7\nresident = 5\nat_once = 2", "count = 1\nresident = 1\nat_once = 1"),
                     ("apps = 2", "apps = 1"))  # fmt: skip
    assert sum(isinstance(event, Start) and event.name == "app0" for event in timeline(workload, 0)) > 1


def test_zero_pages_are_label_zero() -> None:
    """Each app starts with the zero pages of its workload."""
    for event in timeline(small(), 0):
        if isinstance(event, Start) and event.name.startswith("app"):
            assert np.count_nonzero(event.labels == ZERO) == 8
