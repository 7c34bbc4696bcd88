"""Who lksm is held against: the memory itself, what one would write without lksm, and the kernel's KSM.

Each one that can tell what merging gives is asked for it, and asserted to be right, before its time counts.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from lksm.kernel import Child, KsmUnavailable, driving

from .turns import Contender, Unavailable, Work, Works
from .workloads import MOST_SHARING, PAGE, Counts, Workload

_MOST_COMPARED = 1 << 30  # bytes; beyond that the bandwidth of memcmp is known
_MOST_PASSES = 32
_DICT_BYTES = 160  # a page, with its digest and its place in a table that has just grown

Numbers = npt.NDArray[Any]


def read(nr_threads: int) -> Contender:
    """The read bandwidth: every byte of every page, summed up by C, each thread its part."""

    def run(workload: Workload) -> Works:
        words = workload.pages.reshape(-1).view(np.uint64)
        parts = [(part.ctypes.data, part.size) for part in np.array_split(words, nr_threads)]
        function = read_all()
        sums: list[int] = []
        with ThreadPoolExecutor(nr_threads) as pool:
            list(pool.map(time.sleep, [0.001] * nr_threads))  # now its threads have started
            in_turn = map if nr_threads == 1 else pool.map
            yield Work(
                "read",
                "cold",
                lambda: sums.extend(in_turn(function, *zip(*parts, strict=True))),
                "",
                nr_threads,
            )
        assert sum(sums) % 2**64 == int(words.sum())

    return Contender("read" if nr_threads == 1 else f"read, {nr_threads} threads", run)


def memcmp() -> Contender:
    """libc's memcmp() on all pages, at most 1 GiB, and an equal copy of them; bytes of both sides count."""

    def run(workload: Workload) -> Works:
        pages = workload.pages[: _MOST_COMPARED // PAGE]
        copy = pages.copy()
        function = ctypes.CDLL(None).memcmp
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        one, other = pages.ctypes.data, copy.ctypes.data
        found: list[int] = []
        yield Work(
            "memcmp",
            "cold",
            lambda: found.append(function(one, other, copy.nbytes)),
            nr_bytes=2 * copy.nbytes,
        )
        assert found == [0]

    return Contender("memcmp", run, lambda workload: min(workload.pages.nbytes, _MOST_COMPARED))


def by_dict() -> Contender:
    """A `Counter` of xxh3_64 digests: what one would write without lksm."""

    def run(workload: Workload) -> Works:
        counts: Counter[int] = Counter()
        yield Work("dict", "cold", lambda: counts.update(_digests(workload)))
        assert _merged(np.fromiter(counts.values(), np.int64, len(counts))) == workload.contents

    return Contender("dict", run, lambda workload: _DICT_BYTES * len(workload.pages))


def np_unique() -> Contender:
    """`np.unique` over the pages themselves, which it copies and sorts."""

    def run(workload: Workload) -> Works:
        records = workload.pages.view(f"V{PAGE}").reshape(-1)
        found: list[Numbers] = []
        yield Work("np.unique", "cold", lambda: found.append(np.unique(records, return_counts=True)[1]))
        assert _merged(found[0]) == workload.contents

    return Contender("np.unique", run, lambda workload: 2.5 * workload.pages.nbytes)


def polars() -> Contender:
    """xxh3_64 digests into an array, and polars' group-by over them, which uses all cores."""

    def run(workload: Workload) -> Works:
        try:
            import polars
        except ImportError:
            raise Unavailable("polars is not installed: pip install 'lksm[bench]'") from None
        found: list[Numbers] = []

        def do() -> None:
            digests = np.fromiter(_digests(workload), np.uint64, len(workload.pages))
            found.append(polars.DataFrame({"digest": digests}).group_by("digest").len()["len"].to_numpy())

        yield Work("polars", "cold", do)
        assert _merged(found[0]) == workload.contents

    return Contender("polars", run, lambda workload: _DICT_BYTES * len(workload.pages))


def kernel() -> Contender:
    """The running kernel's KSM, passes from the first look until everything is merged.

    smart_scan is off, sleep is 0, and a batch is a pass. Its processes are children with copies of their own,
    filled and offered before; one more pass, not timed, shows that nothing changes any more.
    """

    def run(workload: Workload) -> Works:
        with ExitStack() as stack:
            try:
                knobs = {"smart_scan": 0, "max_page_sharing": MOST_SHARING}
                ksm = stack.enter_context(driving(knobs))
            except KsmUnavailable as error:
                raise Unavailable(str(error)) from None
            for pages in workload.processes:
                stack.enter_context(Child()).map(pages)

            def merged() -> Counts:
                now = ksm.one_pass()
                return now["pages_shared"], now["pages_sharing"], now["pages_unshared"]

            yield Work(
                "kernel", "cold", lambda: any(merged() == workload.frames for _ in range(_MOST_PASSES))
            )
            assert merged() == workload.frames

    return Contender("kernel", run, lambda workload: 1.1 * workload.pages.nbytes)


def _digests(workload: Workload) -> Iterator[int]:
    """Slices of one view: faster than rows of the array, each of which would be an array of its own."""
    view = memoryview(workload.pages.reshape(-1).data)
    size = len(view)
    slices = map(slice, range(0, size, PAGE), range(PAGE, size + 1, PAGE))
    return map(xxhash.xxh3_64_intdigest, map(view.__getitem__, slices))


def _merged(counts: Numbers) -> Counts:
    """Shared, sharing, unshared, from how many pages each content has."""
    shared = int(np.count_nonzero(counts > 1))
    return shared, int(counts.sum()) - len(counts), len(counts) - shared


@cache
def read_all() -> Callable[[int, int], int]:
    """The function of read.c: (address, number of words) to their sum. It takes a C compiler."""
    source = Path(__file__).with_name("read.c")
    with tempfile.TemporaryDirectory() as directory:
        library = f"{directory}/read.so"
        command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", library, str(source)]
        subprocess.run(command, check=True)
        function: Any = ctypes.CDLL(library).read_all
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    function.restype = ctypes.c_uint64
    return function  # type: ignore[no-any-return]
