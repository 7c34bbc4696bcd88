"""Work that is done ahead of whoever takes its results, by threads, in order and never far ahead.

For work that waits for the kernel, which copies pages for one thread at a time and holds no lock of Python's.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

_MAX_THREADS = 4  # more than these only wait for memory
_JOBS_AHEAD = 2  # for each thread: one that it does, one that it finds when it is done


def nr_threads() -> int:
    """How many threads do the work: one for each processor that we may use, up to four."""
    return min(len(os.sched_getaffinity(0)), _MAX_THREADS)


def ahead(do: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> Iterator[_Result]:
    """`do(job)` of each of the `jobs`, in their order.

    Jobs are taken from the iterator on the caller's thread, at most two for each thread ahead of the result
    that is given out. What `do` raises is raised in the place of its result, and ends it all. However the
    generator ends, no thread is left.
    """
    nr = nr_threads()
    pending: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(nr, thread_name_prefix="lksm-read")
    try:
        for job in jobs:
            pending.append(pool.submit(do, job))
            if len(pending) > nr * _JOBS_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
