"""What happens when: events made from parameters and a seed, and from nothing else."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .events import ZERO, Event, Exit, Freeze, Numbers, Start, Thaw, Work
from .workload import Workload

_SERVICE_RUNTIME_MS = 60_000  # services have been running since long before the simulation
_NONE = np.empty(0, np.int64)


def timeline(workload: Workload, seed: int) -> Iterator[Event]:
    """All events from 0 to the end, in order of time; the same for the same workload and seed."""
    yield from _World(workload, seed).run()


class _Contents:
    """Who has which content: hands out labels."""

    def __init__(self, workload: Workload, random: np.random.Generator) -> None:
        self._memory = workload.memory
        self._changed_share = workload.restarts.changed_share
        self._random = random
        self._next = ZERO + 1
        self._frameworks = [self.fresh(self._memory.framework)]
        self._libraries = [self.fresh(self._memory.library) for _ in range(self._memory.libraries)]

    def fresh(self, count: int) -> Numbers:
        """Labels that nothing has yet."""
        self._next += count
        return np.arange(self._next - count, self._next)

    def framework(self, version: int) -> Numbers:
        """The framework's pages in a version: some have changed from the version before."""
        while version >= len(self._frameworks):
            labels = self._frameworks[-1].copy()
            nr_changed = round(self._changed_share * len(labels))
            labels[self._random.permutation(len(labels))[:nr_changed]] = self.fresh(nr_changed)
            self._frameworks.append(labels)
        return self._frameworks[version]

    def some_libraries(self) -> tuple[int, ...]:
        """Those that an app is made with."""
        order = self._random.permutation(self._memory.libraries)
        return tuple(map(int, order[: self._memory.libraries_each]))

    def common(self, libraries: tuple[int, ...], version: int) -> list[Numbers]:
        """The pages that others have too, but the zero pages."""
        return [self.framework(version), *(self._libraries[index] for index in libraries)]


@dataclass
class _Process:
    """One that is alive.

    hot: pages that it rewrites. pool: contents that it may write and that others have. runtime_ms: its CPU
    time. born: when it came.
    """

    number: int
    hot: Numbers
    pool: Numbers
    born: int
    runtime_ms: float = 0.0
    is_frozen: bool = False


@dataclass
class _App:
    """An app, alive or not. session counts its sessions: it tells whether the one that ended was the last."""

    name: str
    libraries: tuple[int, ...]
    version: int = 0
    process: _Process | None = None
    is_foreground: bool = False
    session: int = 0
    last_used: int = -1


class _World:
    """Runs the lives of all processes, and notes what happens."""

    def __init__(self, workload: Workload, seed: int) -> None:
        self._workload = workload
        # What the user does is drawn apart, so that the sizes of memory and the writes do not change it.
        self._user, self._random = (np.random.Generator(np.random.SFC64([seed, part])) for part in (0, 1))
        self._contents = _Contents(workload, self._random)
        self._now = 0
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._nr_planned = 0
        self._nr_processes = 0
        self._happened: list[Event] = []
        self._apps = [
            _App(f"app{index}", self._contents.some_libraries()) for index in range(workload.apps.count)
        ]
        self._weights = np.arange(1.0, workload.apps.count + 1) ** -workload.apps.popularity
        self._services: list[_Process] = []
        self._helpers: list[_Process] = []
        self._next_restart = 0

    def run(self) -> Iterator[Event]:
        workload = self._workload
        self._plan(0, self._begin)
        while self._agenda and self._agenda[0][0] <= workload.duration_ms:
            self._now, _, action = heapq.heappop(self._agenda)
            action()
            yield from self._happened
            self._happened.clear()

    def _plan(self, delay: float, action: Callable[[], None]) -> None:
        self._nr_planned += 1
        heapq.heappush(self._agenda, (self._now + max(0, round(delay)), self._nr_planned, action))

    def _begin(self) -> None:
        workload = self._workload
        for index in range(workload.services.count):
            libraries = self._contents.some_libraries()
            self._services.append(self._start(f"service{index}", libraries, 0, _SERVICE_RUNTIME_MS))
        if workload.apps.launch_every_ms:
            for index, app in enumerate(self._apps):
                self._plan(index * workload.apps.launch_every_ms, lambda app=app: self._launch_idle(app))  # type: ignore[misc]
        for _ in range(workload.apps.at_once):
            self._next_session(None)
        if workload.helpers.every_ms:
            self._plan_helper()
        if workload.restarts.every_ms:
            self._plan(workload.restarts.every_ms, self._restart_wave)
        self._plan(workload.tick_ms, self._tick)

    # --- sessions

    def _next_session(self, left: _App | None) -> None:
        """The user goes to another app than the one just left."""
        weights = np.where([app.is_foreground or app is left for app in self._apps], 0.0, self._weights)
        if not weights.any():
            weights = self._weights  # there is one app only
        app = self._apps[int(self._user.choice(len(weights), p=weights / weights.sum()))]
        app.is_foreground = True
        app.session += 1
        if app.process is None:
            self._launch(app)
        elif app.process.is_frozen:
            app.process.is_frozen = False
            self._happened.append(Thaw(self._now, app.process.number))
        self._plan(max(1.0, self._about(self._workload.apps.foreground_ms)), lambda: self._end_session(app))

    def _about(self, median_ms: int) -> float:
        """A time that is as often longer than the median as it is shorter."""
        return float(median_ms * np.exp(self._user.normal() * self._workload.apps.foreground_spread))

    def _end_session(self, app: _App) -> None:
        app.is_foreground = False
        app.last_used = self._now
        apps = self._workload.apps
        if self._user.random() < apps.exit_share:
            self._exit(app)
        else:
            self._plan_freeze(app)
        if apps.pause_share and self._user.random() < apps.pause_share:
            self._plan(self._about(apps.pause_ms), lambda: self._next_session(None))
        else:
            self._next_session(app)

    def _plan_freeze(self, app: _App) -> None:
        session, process = app.session, app.process

        def freeze() -> None:
            is_idle = app.session == session and app.process is process and not app.is_foreground
            if process is not None and is_idle and not process.is_frozen:
                process.is_frozen = True
                self._happened.append(Freeze(self._now, process.number))

        self._plan(self._workload.apps.freeze_after_ms, freeze)

    def _launch_idle(self, app: _App) -> None:
        if app.process is None and len(self._alive()) < self._workload.apps.resident:
            self._launch(app)
            self._plan_freeze(app)

    def _alive(self) -> list[_App]:
        return [app for app in self._apps if app.process is not None]

    def _launch(self, app: _App) -> None:
        alive = self._alive()
        if len(alive) >= self._workload.apps.resident:
            idle = [each for each in alive if not each.is_foreground]
            self._exit(min(idle, key=lambda each: each.last_used))
        app.last_used = self._now
        app.process = self._start(app.name, app.libraries, app.version)

    def _exit(self, app: _App) -> None:
        if app.process is not None:  # untested: callers ask for apps that are alive
            self._happened.append(Exit(self._now, app.process.number))
            app.process = None

    def _restart_wave(self) -> None:
        """The next apps get a new version; those alive exit and come back, in the middle of a session too."""
        for _ in range(self._workload.restarts.apps):
            app = self._apps[self._next_restart % len(self._apps)]
            self._next_restart += 1
            app.version += 1
            if app.process is not None:
                self._exit(app)
                self._launch(app)
                if not app.is_foreground:
                    self._plan_freeze(app)
        self._plan(self._workload.restarts.every_ms, self._restart_wave)

    # --- processes

    def _start(self, name: str, libraries: tuple[int, ...], version: int, runtime_ms: int = 0) -> _Process:
        """An app or a service: what is common first, then a heap of zero and private pages, mixed."""
        memory, writes = self._workload.memory, self._workload.writes
        zeros = np.full(memory.zero, ZERO)
        common = np.concatenate(self._contents.common(libraries, version))
        heap = self._random.permutation(np.concatenate([zeros, self._contents.fresh(memory.private)]))
        is_private = np.concatenate([np.zeros(len(common), bool), heap != ZERO])
        chance = np.where(is_private, writes.hot_share, writes.hot_common_share)
        hot = np.flatnonzero(self._random.random(len(chance)) < chance)
        pool = np.concatenate([common, zeros])
        return self._born(name, np.concatenate([common, heap]), hot, pool, runtime_ms)

    def _born(self, name: str, labels: Numbers, hot: Numbers, pool: Numbers, runtime_ms: int = 0) -> _Process:
        self._nr_processes += 1
        self._happened.append(Start(self._now, self._nr_processes, name, labels, runtime_ms))
        return _Process(self._nr_processes, hot, pool, self._now, runtime_ms)

    def _plan_helper(self) -> None:
        self._plan(self._random.exponential(self._workload.helpers.every_ms), self._start_helper)

    def _start_helper(self) -> None:
        helpers = self._workload.helpers
        framework = self._contents.framework(0)[: helpers.framework]
        heap = [np.full(helpers.zero, ZERO), self._contents.fresh(helpers.private)]
        process = self._born("helper", np.concatenate([framework, *heap]), _NONE, _NONE)
        self._helpers.append(process)
        self._plan(helpers.live_ms, lambda: self._end_helper(process))
        self._plan_helper()

    def _end_helper(self, process: _Process) -> None:
        self._helpers.remove(process)
        self._happened.append(Exit(self._now, process.number))

    # --- work

    def _tick(self) -> None:
        workload = self._workload
        for service in self._services:
            self._work(service, workload.services.writes, workload.services.cpu_share)
        for app in self._apps:
            if app.process is None or app.process.is_frozen:
                continue
            if app.is_foreground:
                self._work(app.process, workload.writes.foreground, workload.apps.cpu_share)
            else:
                self._work(app.process, workload.writes.background, 0.0)
        for helper in self._helpers:
            self._work(helper, 0.0, workload.helpers.cpu_ms / workload.helpers.live_ms)
        self._plan(workload.tick_ms, self._tick)

    def _work(self, process: _Process, writes_per_second: float, cpu_share: float) -> None:
        elapsed = min(self._workload.tick_ms, self._now - process.born)
        process.runtime_ms += cpu_share * elapsed
        mean = writes_per_second * elapsed / 1000
        nr_writes = int(self._random.poisson(mean)) if len(process.hot) else 0
        pages = np.unique(self._some(process.hot, nr_writes))
        common_share = self._workload.writes.common_share if len(process.pool) else 0.0
        is_common = self._random.random(len(pages)) < common_share
        patched, replaced = pages[~is_common], pages[is_common]
        self._happened.append(
            Work(
                self._now,
                process.number,
                int(process.runtime_ms),
                patched,
                self._contents.fresh(len(patched)),
                replaced,
                self._some(process.pool, len(replaced)),
            )
        )

    def _some(self, numbers: Numbers, count: int) -> Numbers:
        """So many of them, at random; the same one may come again."""
        return numbers[self._random.integers(len(numbers), size=count)] if count else _NONE
