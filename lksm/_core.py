"""The only importer of the extension module: one Python method for each C function, and the lent hash.

Everything that comes in has been validated; what goes out is plain integers and numpy arrays. C errors
become exceptions here, by one table.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import xxhash

try:
    from ._lksm import ffi, lib
except ModuleNotFoundError as error:  # others, as for want of memory, say themselves what is wrong
    raise ImportError(
        f"no compiled core beside {__file__}; if this is the source and lksm is installed too, start Python "
        "elsewhere or with -P"
    ) from error
from ._filter_keys import FilterKey, FilterKeys
from .errors import BusyError, InvalidMemory, LksmError, OutOfMemory
from .memory import PageRun

SECRET_SIZE = 192
REASON_NAMES: tuple[str, ...] = (
    "MERGED",
    "UNIQUE",
    "VOLATILE",
    "NOT_VISITED",
    "NOT_REGISTERED",
    "OPTED_OUT",
    "EXCLUDED",
    "ALREADY_SHARED",
    "LIMIT",
    "ABSENT",
    "ZERO",
    "OTHER_NODE",
    "OTHER_DOMAIN",
    "SKIPPED",
)
PURPOSE_NAMES: tuple[str, ...] = (
    "engine",
    "processes",
    "items",
    "nodes",
    "roots",
    "keys",
    "physical",
    "filters",
    "frames",
    "spare",
)
GROUP_DTYPE = np.dtype(
    [
        ("frame", "i8"),
        ("pages", "i8"),
        ("processes", "i8"),
        ("digest", "u8"),
        ("zero", "?"),
        ("first_process", "i8"),
        ("first_page", "i8"),
    ]
)
_C_GROUP_DTYPE = np.dtype(
    [
        ("frame", "i8"),
        ("pages", "i8"),
        ("processes", "i8"),
        ("digest", "u8"),
        ("first_process", "i8"),
        ("first_page", "i8"),
        ("zero", "?"),
    ],
    align=True,
)
_EXCEPTIONS: dict[int, type[LksmError]] = {
    lib.LKSM_NO_MEMORY: OutOfMemory,
    lib.LKSM_INVALID: InvalidMemory,
    lib.LKSM_BUSY: BusyError,
}
MAX_WINDOW = int(lib.LKSM_MAX_WINDOW)
MAX_NODES = int(lib.LKSM_MAX_NODES)
_CHECK_TEXT_BYTES = 64 * 1024


# --- the hash ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LentHash:
    """A 64-bit hash for the core: C `uint64_t (bytes, nr_bytes, secret, secret_size)` at `address`.

    `generate` is the address of `void (secret, seed)`, which fills SECRET_SIZE bytes. `name` says where
    they come from.
    """

    name: str
    address: int
    generate: int

    def secret(self, seed: int) -> bytes:
        secret = ffi.new("char[]", SECRET_SIZE)
        ffi.cast("void (*)(void *, uint64_t)", self.generate)(secret, seed)
        return bytes(ffi.buffer(secret))

    def __call__(self, data: bytes, secret: bytes) -> int:
        return int(ffi.cast("lksm_hash", self.address)(data, len(data), secret, len(secret)))


@cache
def lent_hash() -> LentHash:
    """XXH3 from the library inside the installed `xxhash` package, else from the system's libxxhash.

    The package exports the functions but does not promise to, so what is found is tried on known input.
    """
    for found in _hashes_to_try():
        if _is_xxh3(found):  # untested: here the first one is right
            return found
    raise ImportError(  # untested: here one of them always has it
        f"no XXH3 to lend to the core: xxhash {xxhash.VERSION} at {xxhash.__file__} exports no "
        "XXH3_64bits_withSecret, and there is no system libxxhash of 0.8.1 or later"
    )


def _hashes_to_try() -> Iterator[LentHash]:
    for path in _libraries_to_try():  # untested: here the first one is right
        library = ctypes.CDLL(path)
        # untested: here the first one is right
        for name in ("XXH3_64bits_withSecret_dispatch", "XXH3_64bits_withSecret"):
            try:
                functions = getattr(library, name), library.XXH3_generateSecret_fromSeed
            except AttributeError:  # untested: the first one has them all
                continue
            hash_address, generate_address = (ctypes.cast(f, ctypes.c_void_p).value for f in functions)
            yield LentHash(f"{name} of {path}", hash_address or 0, generate_address or 0)


def _libraries_to_try() -> Iterator[str]:
    extension = importlib.util.find_spec("xxhash._xxhash")
    if extension and extension.origin:  # untested: here it is there
        yield extension.origin
    # untested: here that one was right. Imported late because it takes time, and to find a library, programs
    from ctypes.util import find_library

    if path := find_library("xxhash"):
        yield path


def _is_xxh3(found: LentHash) -> bool:
    counting = bytes(i % 256 for i in range(4096))
    vectors = [(bytes(4096), 0), (b"\xff" * 4096, 1), (counting, 2**63 + 5), (counting[:192], 0)]
    return all(
        found(data, found.secret(seed)) == xxhash.xxh3_64_intdigest(data, seed=seed) for data, seed in vectors
    )


# --- one engine and its processes ------------------------------------------------------------------


class Core:
    """One engine of the core. Not thread-safe: its owner holds a lock.

    filter_maturity: a filter leaves pages out when it is more than so many rounds old; None: no region has a
    filter, whatever its key.
    """

    def __init__(
        self,
        *,
        page_size: int,
        seed: int,
        initial_rounds: int,
        max_page_sharing: int,
        gate_first: bool = False,
        merge_window: int = 3,
        nr_nodes: int = 1,
        is_secure: bool = False,
        filter_maturity: int | None = None,
    ) -> None:
        self.filter_keys = None if filter_maturity is None else FilterKeys()
        lent = lent_hash()
        self.page_size = page_size
        self._secrets = ffi.from_buffer(lent.secret(seed)), ffi.from_buffer(lent.secret(0))
        options = ffi.new(
            "struct lksm_options *",
            {
                "page_size": page_size,
                "seed": seed,
                "initial_rounds": initial_rounds,
                "max_page_sharing": max_page_sharing,
                "merge_window": merge_window,
                "nr_nodes": nr_nodes,
                "gate_first": gate_first,
                "is_secure": is_secure,
                "filter_maturity": filter_maturity or 0,
                "hash": ffi.cast("lksm_hash", lent.address),
                "secret": self._secrets[0],
                "digest_secret": self._secrets[1],
                "secret_size": SECRET_SIZE,
            },
        )
        result = ffi.new("struct engine **")
        error = lib.lksm_engine_create(options, result)
        if error:
            raise _EXCEPTIONS[error](  # untested: whatever is asked for was checked before
                f"cannot make an engine for {page_size}-byte pages and a merge window of {merge_window}"
            )
        self._engine = ffi.gc(result[0], lib.lksm_engine_destroy)

    def fail(self, error: int) -> NoReturn:
        raise _EXCEPTIONS[error](ffi.string(lib.lksm_error_text(self._engine)).decode())

    def close(self) -> None:
        ffi.release(self._engine)

    def create_process(self, domain: int) -> CoreProcess:
        process = CoreProcess(self)
        error = lib.lksm_process_create(self._engine, domain, process.slot_ret)
        if error:
            self.fail(error)
        return process

    def set_max_page_sharing(self, value: int) -> None:
        error = lib.lksm_set_max_page_sharing(self._engine, value)
        if error:
            self.fail(error)

    def set_merge_across_nodes(self, is_on: bool) -> None:
        error = lib.lksm_set_merge_across_nodes(self._engine, is_on)
        if error:
            self.fail(error)

    def set_smart_scan(self, is_on: bool) -> None:
        lib.lksm_set_smart_scan(self._engine, is_on)

    def set_prune_delay(self, millisecs: int) -> None:
        lib.lksm_set_prune_delay(self._engine, millisecs)

    def set_use_zero_pages(self, is_on: bool) -> None:
        lib.lksm_set_use_zero_pages(self._engine, is_on)

    def set_unfiltered(self, is_on: bool) -> None:
        lib.lksm_set_unfiltered(self._engine, is_on)

    def begin_round(self, now: int) -> None:
        lib.lksm_begin_round(self._engine, now)

    def scan(self, nr_pages: int, now: int) -> int:
        result = ffi.new("uint64_t *")
        error = lib.lksm_scan(self._engine, nr_pages, now, result)
        if error:
            self.fail(error)
        return int(result[0])

    def nr_waiting(self, most: int) -> int:
        """Pages that wait to be scanned, counted to `most` at most."""
        return int(lib.lksm_nr_waiting(self._engine, most))

    def begin_help(self, nr_helpers: int) -> None:
        """From now on so many other threads may `help` those who `scan`."""
        lib.lksm_begin_help(self._engine, nr_helpers)

    def help(self) -> None:
        """Compares and hashes pages that a scan comes to, until `end_help`."""
        lib.lksm_help(self._engine)

    def end_help(self) -> None:
        """Helpers return soon. They must have returned before anything else is asked of the engine."""
        lib.lksm_end_help(self._engine)

    @property
    def nr_asked(self) -> int:
        """Pages with something to help with, so far; one that is hashed and then compared counts twice."""
        return int(lib.lksm_nr_asked(self._engine))

    def is_walking(self) -> bool:
        return bool(lib.lksm_is_walking(self._engine))

    def prune_chains(self, now: int) -> None:
        lib.lksm_prune_chains(self._engine, now)

    def has_queue(self) -> bool:
        return bool(lib.lksm_has_queue(self._engine))

    def queue(self) -> list[int]:
        """Addresses of the processes that wait to be scanned, in order (`CoreProcess.address`)."""
        addresses = []
        slot = lib.lksm_next_queued(self._engine, ffi.NULL)
        while slot:
            addresses.append(_address(slot))
            slot = lib.lksm_next_queued(self._engine, slot)
        return addresses

    def unmerge(self) -> None:
        lib.lksm_unmerge(self._engine)

    def offline(self, node: int) -> None:
        error = lib.lksm_offline(self._engine, node)
        if error:
            self.fail(error)  # untested: engine.py has checked it

    def counters(self, domain: int | None) -> Any:
        """The C struct lksm_counters."""
        result = ffi.new("struct lksm_counters *")
        lib.lksm_counters(self._engine, _selected(domain), result)
        return result

    def groups(
        self, *, min_pages: int, domain: int | None, with_digests: bool = True
    ) -> npt.NDArray[np.void]:
        selected = _selected(domain)
        found = np.zeros(self.counters(domain).pages_shared, _C_GROUP_DTYPE)  # no fewer than contents
        target = ffi.cast("struct lksm_group *", ffi.from_buffer(found))
        count = int(lib.lksm_groups(self._engine, selected, min_pages, with_digests, target))
        found = found[:count]
        groups = np.empty(count, GROUP_DTYPE)
        for name in GROUP_DTYPE.names or ():
            groups[name] = found[name]
        return groups

    def find(self, content: bytes, domain: int) -> int:
        """A frame, or what stands in its place in a page table; `content` is a page."""
        return int(lib.lksm_find(self._engine, domain, ffi.from_buffer(content)))

    def sharing_matrix(self, nr_processes: int) -> npt.NDArray[np.int64]:
        matrix = np.zeros((nr_processes, nr_processes), np.int64)
        error = lib.lksm_sharing_matrix(self._engine, ffi.from_buffer("int64_t[]", matrix))
        if error:
            self.fail(error)
        return matrix

    def memory(self, domain: int | None = None) -> dict[str, int]:
        result = ffi.new("uint64_t[]", lib.LKSM_NR_PURPOSES)
        lib.lksm_memory(self._engine, _selected(domain), result)
        return dict(zip(PURPOSE_NAMES, map(int, result), strict=True))

    def check(self) -> list[str]:
        text = ffi.new("char[]", _CHECK_TEXT_BYTES)
        nr_faults = int(lib.lksm_check(self._engine, text, _CHECK_TEXT_BYTES))
        lines: list[str] = ffi.string(text).decode().splitlines()
        if nr_faults > len(lines):
            lines.append(f"and {nr_faults - len(lines)} more")  # untested: so many faults
        return lines


class CoreProcess:
    """One mm_slot of the core.

    Made before its slot, which the core puts into `slot_ret`: were it the other way round, and Python out of
    memory, there would be a slot that nobody can destroy.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.slot_ret = ffi.new("struct mm_slot **")
        self._keys: list[FilterKey] = []  # one for each region that has a filter

    @property
    def _slot(self) -> Any:
        return self.slot_ret[0]

    @property
    def address(self) -> int:
        return _address(self._slot)

    def _hold(self, key: FilterKey) -> int:
        """Notes a key that has been taken for one more region; returns its number."""
        assert self._core.filter_keys is not None
        try:
            self._keys.append(key)
        except BaseException:  # untested: no memory in Python, in tests/test_no_memory.py
            self._core.filter_keys.give_back(key)
            raise
        return key.number

    def _give_back(self) -> None:
        assert self._core.filter_keys is not None
        self._core.filter_keys.give_back(self._keys.pop())

    def map(self, run: PageRun, *, is_immutable: bool, is_tracked: bool) -> None:
        """The caller keeps the run's arrays alive until the process is destroyed."""
        rows = ffi.NULL if run.rows is None else ffi.from_buffer("int64_t[]", run.rows)
        region = ffi.new(
            "struct lksm_region *",
            {
                "address": run.address,
                "pages": ffi.from_buffer("uint8_t[]", run.pages),
                "nr_array_pages": len(run.pages),
                "rows": rows,
                "nr_pages": run.nr_pages,
                "node": run.node,
                "is_immutable": is_immutable,
                "is_tracked": is_tracked,
                "is_excluded": bool(run.flags),
                "is_bss": run.role == "bss",
            },
        )
        keys = self._core.filter_keys
        if keys is not None and run.key is not None:
            region.filter_key = self._hold(keys.take(run.key))
        error = lib.lksm_process_map(self._slot, region)
        if error and region.filter_key:
            self._give_back()
        if error:
            self._core.fail(error)

    def fork(self) -> CoreProcess:
        child = CoreProcess(self._core)
        error = lib.lksm_process_fork(self._slot, child.slot_ret)
        if error:
            self._core.fail(error)
        try:
            for key in self._keys:
                child._hold(FilterKeys.share(key))
        except BaseException:
            child.destroy()
            raise
        return child

    def destroy(self) -> None:
        lib.lksm_process_destroy(self._slot)
        while self._keys:
            self._give_back()

    def unmap(self, start: int, stop: int) -> None:
        error = lib.lksm_process_unmap(self._slot, start, stop)
        if error:
            self._core.fail(error)  # untested: process.py has checked it

    def read(self, page: int, nr_pages: int) -> npt.NDArray[np.uint8]:
        pages = np.empty((nr_pages, self._core.page_size), np.uint8)
        error = lib.lksm_process_read(self._slot, page, nr_pages, ffi.from_buffer("uint8_t[]", pages))
        if error:
            self._core.fail(error)
        return pages

    def write(self, page: int, offset: int, data: npt.NDArray[np.uint8]) -> None:
        source = ffi.from_buffer("uint8_t[]", data)
        error = lib.lksm_process_write(self._slot, page, offset, source, data.nbytes)
        if error:
            self._core.fail(error)

    def advise(self, start: int, stop: int, *, is_mergeable: bool) -> None:
        error = lib.lksm_process_advise(self._slot, start, stop, is_mergeable)
        if error:
            self._core.fail(error)  # untested: process.py has checked it

    def touch(self, start: int, stop: int) -> None:
        error = lib.lksm_process_touch(self._slot, start, stop)
        if error:
            self._core.fail(error)  # untested: process.py has checked it

    def move(self, start: int, stop: int, node: int) -> None:
        error = lib.lksm_process_move(self._slot, start, stop, node)
        if error:
            self._core.fail(error)

    def set_domain(self, domain: int) -> None:
        error = lib.lksm_process_set_domain(self._slot, domain)
        if error:
            self._core.fail(error)  # untested: no memory for a domain

    def join(self) -> bool:
        return bool(lib.lksm_process_join(self._slot))

    def register(self) -> None:
        lib.lksm_process_register(self._slot)

    def status(self) -> Any:
        """The C struct lksm_status."""
        result = ffi.new("struct lksm_status *")
        lib.lksm_process_status(self._slot, result)
        return result

    def enqueue(self, *, is_frozen: bool) -> None:
        lib.lksm_enqueue(self._slot, is_frozen)

    def clear_scanned(self) -> None:
        lib.lksm_clear_scanned(self._slot)

    def dequeue(self) -> None:
        lib.lksm_dequeue(self._slot)

    def move_to_front(self) -> None:
        lib.lksm_move_to_front(self._slot)

    def requeue_frozen(self, is_wanted: bool) -> None:
        lib.lksm_requeue_frozen(self._slot, is_wanted)

    def page_table(self, nr_pages: int) -> npt.NDArray[np.int64]:
        entries = np.empty(nr_pages, np.int64)
        lib.lksm_page_table(self._slot, ffi.from_buffer("int64_t[]", entries))
        return entries

    def explain(self, page: int, *, across_domains: bool) -> Any:
        """The C struct lksm_explanation."""
        result = ffi.new("struct lksm_explanation *")
        error = lib.lksm_explain(self._slot, page, across_domains, result)
        if error:
            self._core.fail(error)
        return result

    def digest(self, page: int) -> int:
        result = ffi.new("uint64_t *")
        error = lib.lksm_page_digest(self._slot, page, result)
        if error:
            self._core.fail(error)  # untested: process.py has checked it
        return int(result[0])


def _selected(domain: int | None) -> int:
    return -1 if domain is None else domain


def _address(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))
