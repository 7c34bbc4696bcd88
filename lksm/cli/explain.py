"""`lksm explain`: why one page is or is not merged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import SourceError
from ..report import Reason
from ..sources import SourceProcess
from ._interrupt import held
from ._load import Loaded, Wanted, load_sources
from ._options import Parser, UsageError, add_sources, address
from ._output import emit, printable
from ._places import Places
from ._progress import Progress
from ._session import Session

_DESCRIPTION = """\
Scans the sources like `lksm scan`, then says why the page at an address is or is not merged. The address
is one of the SOURCE named first, or of the first --pid if there is no SOURCE; name more to see sharing
among them. Addresses of raw images and arrays are offsets."""
_EXAMPLES = """\
  lksm explain vm.raw --address 0x3000                      a page of an image
  lksm explain core.1 core.2 --address 0x7f0000001000       a page of core.1, shared with core.2 perhaps
  lksm explain --pid 1234 5678 --address 0x7f0000001000     a page of the live process 1234
"""
_MAX_SHARERS = 10


def run(arguments: Sequence[str]) -> int:
    """Scan and explain; returns the exit status."""
    options = _parser().parse_intermixed_args(arguments)
    wanted = Wanted(
        paths=options.sources,
        pids=options.pids,
        what=options.what,
        page_size=options.page_size,
        limit_bytes=options.limit_bytes,
    )
    if not wanted.paths and not wanted.pids:
        raise UsageError("nothing to explain: name a SOURCE or --pid (see lksm explain --help)")
    target = wanted.paths[0] if wanted.paths else f"pid {wanted.pids[0]}"
    with Progress() as progress, progress:
        loaded = load_sources(wanted, progress)
        found = [index for index, process in enumerate(loaded.processes) if process.source == target]
        if not found:
            raise SourceError(f"the address is one of {target}, which has no page that can be used")
        with Session(loaded, wanted, rounds=1, max_page_sharing=options.max_page_sharing) as session:
            session.scan(0, progress)
            with held():
                lines = list(_explain(session, found, options.address))
            session.expect_whole()
    emit("".join(f"{printable(line)}\n" for line in lines))
    return int(loaded.is_incomplete)


def _explain(session: Session, targets: Sequence[int], where: int) -> Iterator[str]:
    places = Places(session.engine)
    for index in targets:
        page = places.page_at(index, where)
        if page is not None:
            yield from _explain_page(session, places, index, page, where)
            return
    yield from _explain_nowhere(session.loaded, session.sources[targets[0]], where)


def _explain_page(session: Session, places: Places, index: int, page: int, where: int) -> Iterator[str]:
    engine, source = session.engine, session.sources[index]
    process = engine.processes[index]
    found = engine.explain(process, page)
    yield f"{where:#x} is in page {page} of {_name(process.name, source)}"
    yield f"{found.reason.value}: {found.text}"
    if found.reason is Reason.ABSENT:
        return  # untested: pages that are found are there
    yield f"its content: digest {engine.digest(process, page):016x}"
    if found.frame is not None:
        yield from _sharers(session, places, found.frame)


def _sharers(session: Session, places: Places, frame: int) -> Iterator[str]:
    """Where the pages of a frame are, each physical page once."""
    pages = [np.flatnonzero(table == frame) for table in places.tables]
    owners = np.repeat(np.arange(len(pages)), [len(numbers) for numbers in pages])
    addresses = places.addresses(owners, np.concatenate(pages)).tolist()
    processes, sources = session.engine.processes, session.sources
    yield f"frame {frame} stands for {len(addresses)} pages:"
    for index, at in zip(owners.tolist()[:_MAX_SHARERS], addresses, strict=False):
        yield f"  {at:#x} of {_name(processes[index].name, sources[index])}"
    if len(addresses) > _MAX_SHARERS:
        yield f"  and {len(addresses) - _MAX_SHARERS} more"


def _explain_nowhere(loaded: Loaded, source: SourceProcess, where: int) -> Iterator[str]:
    yield f"{where:#x} is in no region of {_name(source.name, source)}"
    reason = _why_absent(loaded, source, where)
    if reason:
        yield f"absent: {reason}"
    elif source.source == f"pid {source.pid}":
        yield "absent: not mapped, not in memory, or of a kind that --what leaves out"
    else:
        yield "absent: this source says nothing of that address"


def _name(name: str, source: SourceProcess) -> str:
    """The name of a process, with the source if that says more."""
    return name if source.source in name else f"{name} ({source.source})"


def _why_absent(loaded: Loaded, source: SourceProcess, where: int) -> str | None:
    """What a file's report of skipped bytes says about an address."""
    for skipped in loaded.skipped:
        if skipped.source == source.source:
            start, stop = _extent(skipped.what, skipped.nbytes, source)
            if start <= where < stop:
                return f"{skipped.what}: {skipped.reason}"
    return None


def _extent(what: str, nbytes: int, source: SourceProcess) -> tuple[int, int]:
    """The addresses, from start to stop, that may have been skipped; (0, 0) if that cannot be known.

    A segment's missing bytes follow what there is of it; holes lie anywhere in a file, its tail at the end.
    """
    if what.startswith("segment "):
        start = int(what.removeprefix("segment "), 0)
        return start, _end_of_region(source, start) + nbytes
    if what == "hole":
        size = os.path.getsize(source.source)
        return 0, size - size % source.regions[0].array.shape[-1]
    if what == "tail":
        size = os.path.getsize(source.source)
        return size - nbytes, size
    return 0, 0  # untested: bytes that are skipped and have no address


def _end_of_region(source: SourceProcess, start: int) -> int:
    """The end of the region that holds an address, or the address itself."""
    for region in source.regions:
        if region.address <= start < region.address + region.array.nbytes:
            return int(region.address + region.array.nbytes)
    return start


def _parser() -> Parser:
    parser = Parser("lksm explain", _DESCRIPTION, _EXAMPLES)
    add_sources(parser)
    parser.add_argument(
        "--address", type=address, required=True, metavar="0x...", help="an address within the page"
    )
    return parser
