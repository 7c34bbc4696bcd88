"""All methods may be called from any thread, also during a scan."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial

import numpy as np

import lksm
from helpers import expect, finish, pages, repeated, unique_pages


def together(*jobs: Callable[[], None]) -> None:
    """Run the jobs at once and raise what any of them raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        try:
            start.wait()
            job()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_readers_during_scans(engine: lksm.Engine) -> None:
    """Whoever looks during a scan sees counters that add up."""
    process = engine.attach(np.concatenate([unique_pages(500)] * 2), mergeable=True)

    def scan() -> None:
        for _ in range(10):
            engine.full()

    def look() -> None:
        for _ in range(100):
            c = engine.counters()
            assert c.rmap_items == c.pages_shared + c.pages_sharing + c.pages_unshared + c.pages_volatile
            assert c.merged - c.broken == c.pages_sharing
            assert len(engine.page_table(process)) == 1000
            engine.groups()
            engine.sharing_matrix()
            engine.explain(process, 7)
            process.stats()
            assert engine.check() == []

    together(scan, look, look)
    expect(engine, shared=500, sharing=500, unshared=0, full_scans=10)


def test_processes_come_and_go_during_scans(engine: lksm.Engine) -> None:
    """Processes may be attached, forked, frozen, advised, written and ended while others scan."""
    stays = engine.attach(repeated("P", 50), mergeable=True)

    def scan() -> None:
        for _ in range(30):
            try:
                engine.full()
            except lksm.BusyError:
                continue

    def live(seed: int) -> Callable[[], None]:
        choice = random.Random(seed)

        def run() -> None:
            for number in range(60):
                process = engine.attach(pages("P P a b 0 0"), name=f"{seed}-{number}", mergeable=True)
                child = process.fork()
                written, overwritten = choice.randrange(6), choice.randrange(5)
                acts: list[Callable[[], object]] = [
                    process.freeze,
                    process.thaw,
                    partial(process.write, written, pages("c")),
                    partial(child.write, overwritten, pages("P")),
                    partial(process.advise, "unmergeable", 0, 2),
                    partial(process.advise, "mergeable"),
                    partial(child.unmap, 5, 6),
                    partial(engine.scan, 5),
                ]
                for act in choice.sample(acts, 6):
                    act()
                for ended in choice.sample([process, child], 2):
                    ended.exit()

        return run

    together(scan, live(1), live(2))
    assert engine.processes == (stays,)
    engine.full()
    expect(engine, shared=1, sharing=49, unshared=0, volatile=0, rmap_items=50, scanning_process=1)
    assert stays.read(0, 50).tobytes() == repeated("P", 50).tobytes()


def test_writers_during_scans(engine: lksm.Engine) -> None:
    """Plain numpy writes during scans never merge unequal pages and are never lost."""
    memory = repeated("P", 200)
    other = repeated("P", 200)
    engine.attach(memory, mergeable=True)
    reader = engine.attach(other, mergeable=True)
    words = [pages(word)[0] for word in ("P", "0", "a", "a>")]
    choice = random.Random(7)
    last: dict[int, int] = {}

    def write() -> None:
        for _ in range(4000):
            row, word = choice.randrange(200), choice.randrange(4)
            memory[row] = words[word]
            last[row] = word

    def scan() -> None:
        for _ in range(40):
            engine.full()

    together(write, scan)
    assert engine.check() == []
    for row, word in last.items():
        assert memory[row].tobytes() == words[word].tobytes()
    assert reader.read(0, 200).tobytes() == repeated("P", 200).tobytes()
    engine.full()
    engine.full()
    kinds = len({row.tobytes() for row in np.concatenate([memory, other])})
    counters = engine.counters()
    assert len(engine.groups()) + counters.pages_unshared >= kinds - 1
    assert counters.pages_volatile == 0


def test_two_threads_share_the_batches(engine: lksm.Engine) -> None:
    """When several threads ask for batches of one scan, every page is visited once."""
    engine.attach(np.concatenate([unique_pages(500)] * 2), mergeable=True)
    engine.crawl("full")
    visited: list[int] = []
    together(*[lambda: visited.append(finish(engine, 7))] * 3)
    assert sum(visited) == 1000
    expect(engine, shared=500, sharing=500, full_scans=1, pages_scanned=1000)


def test_unmerge_during_scans(engine: lksm.Engine) -> None:
    """`run` = 2 may be stored while another thread scans."""
    engine.attach(np.concatenate([unique_pages(300)] * 2), mergeable=True)

    def scan() -> None:
        for _ in range(20):
            engine.full()

    def store() -> None:
        for number in range(40):
            engine.knobs.run = (2, 0)[number % 2]
            assert engine.check() == []

    together(scan, store)
    engine.knobs.run = 0
    engine.full()
    expect(engine, shared=300, sharing=300, unshared=0)
