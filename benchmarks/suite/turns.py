"""Contenders work in turns, each on the same bytes, as often as asked for; what counts are medians."""

from __future__ import annotations

import mmap
import random
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .workloads import PAGE, NoRoom, Workload, check_room, size_text

_Kind = tuple[str, str, str, int]  # contender, phase, memory, threads


class Unavailable(Exception):
    """A contender cannot work here; the text says why."""


@dataclass
class Work:
    """One piece of work: who times it calls `do`, and nothing else meanwhile.

    contender: who. phase: of what (`cold`, `rescan`, `changed`). memory: `immutable`, `mutable`, `tracked`,
    or empty where that makes no difference. nr_bytes: if not all of the workload's. bookkeeping, frames:
    bytes reserved after it, lksm's only.
    """

    contender: str
    phase: str
    do: Callable[[], object]
    memory: str = ""
    threads: int = 1
    nr_bytes: int | None = None
    bookkeeping: int | None = None
    frames: int | None = None


Works = Generator[Work, None, None]


@dataclass(frozen=True)
class Contender:
    """Who works, and the bytes it needs besides the workload.

    `run` yields pieces of work, each to be done before the next is asked for, and the last one before the end
    is: in between it makes ready, asserts the merge result, and clears away.
    """

    name: str
    run: Callable[[Workload], Works]
    needs: Callable[[Workload], float] = lambda workload: 0


@dataclass
class Result:
    """One piece of work on one workload, as often as it was done."""

    workload: str
    nr_pages: int
    contender: str
    phase: str
    memory: str
    threads: int
    nr_bytes: int
    bookkeeping: int | None = None
    frames: int | None = None
    contents: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def gb_per_s(self) -> float:
        return self.nr_bytes / self.median / 1e9

    @property
    def label(self) -> str:
        parts = [self.contender, self.memory, self.phase if self.contender == "lksm" else ""]
        parts.append(f"{self.threads} threads" if self.threads > 1 else "")
        return " ".join(part for part in parts if part)

    def as_dict(self) -> dict[str, Any]:
        pages_per_s = self.nr_bytes / PAGE / self.median
        return {**asdict(self), "median": self.median, "gb_per_s": self.gb_per_s, "pages_per_s": pages_per_s}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Result:
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


def take_turns(
    workload: Workload, contenders: Sequence[Contender], repeat: int, say: Callable[[str], object]
) -> list[Result]:
    """Every contender once, then every one again, each time in another order, the same in every run.

    What one leaves behind in caches and memory hits the others in turn. Who cannot work is left out, and
    `say` is told why. Results come in the order of `contenders`.

    Before each the memory that it will ask for is touched and given back. What the host of a virtual machine
    has taken away while nobody used it comes back at half a GiB a second: most of what would be measured.
    """
    found: dict[str, dict[_Kind, Result]] = {contender.name: {} for contender in contenders}
    present = list(contenders)
    for turn in range(repeat):
        for contender in random.Random(turn).sample(present, len(present)):
            what = f"{contender.name}, {workload.name} at {size_text(len(workload.pages))}"
            try:
                check_room(contender.needs(workload), what)
                _touch(contender.needs(workload))
                timed = [(work, _seconds(work)) for work in contender.run(workload)]
            except NoRoom as error:
                say(str(error))
            except Unavailable as error:
                say(f"{what}: {error}")
            else:
                for work, seconds in timed:
                    _add(found[contender.name], workload, work, seconds)
                continue
            present.remove(contender)
            del found[contender.name]
    return [result for results in found.values() for result in results.values()]


def _touch(nr_bytes: float) -> None:
    np.empty(int(nr_bytes), np.uint8)[:: mmap.PAGESIZE] = 1


def _seconds(work: Work) -> float:
    began = time.perf_counter()
    work.do()
    return time.perf_counter() - began


def _add(results: dict[_Kind, Result], workload: Workload, work: Work, seconds: float) -> None:
    kind = work.contender, work.phase, work.memory, work.threads
    if kind not in results:
        nr_bytes = workload.pages.nbytes if work.nr_bytes is None else work.nr_bytes
        results[kind] = Result(workload.name, len(workload.pages), *kind, nr_bytes)
        results[kind].contents = workload.contents[0]
    results[kind].bookkeeping, results[kind].frames = work.bookkeeping, work.frames
    results[kind].seconds.append(seconds)
