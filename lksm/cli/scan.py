"""`lksm scan`: what merging would save, among files and live processes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from ._interrupt import held
from ._json import as_json
from ._load import Wanted, load_sources
from ._options import Parser, UsageError, add_sources, count, positive, seconds
from ._output import emit
from ._progress import Progress
from ._report import as_text
from ._results import collect
from ._session import Session

_DESCRIPTION = """\
Compares every page of the sources with every other, byte by byte, and reports what merging equal pages
would save. Nothing is changed: files are mapped read-only, live processes are copied."""
_EXAMPLES = """\
  lksm scan core.1234 vm.raw pages.npy        what could be merged among these files
  lksm scan --pid 1234 5678                   among two live processes
  lksm scan --all                             among all live processes that may be read
  lksm scan --all --rounds 3 --interval 5     leave out pages that keep changing
  lksm scan --json --top 0 core.*             everything, exactly, for other programs

exit status:
  0  done        1  done, but a source was refused        130  Ctrl-C; what was known by then is printed
  2  bad usage, nothing usable, or a file has lost pages while it was scanned
"""


def run(arguments: Sequence[str]) -> int:
    """Scan and report; returns the exit status."""
    options = _parser().parse_intermixed_args(arguments)
    wanted = Wanted(
        paths=options.sources,
        pids=options.pids,
        what=options.what,
        every_process=options.all,
        page_size=options.page_size,
        limit_bytes=options.limit_bytes,
        is_retaken=options.rounds > 1,
        is_awaited=options.rounds == 1,
    )
    if not wanted.paths and not wanted.is_live:
        raise UsageError("nothing to scan: name a SOURCE, --pid or --all (see lksm scan --help)")
    began = time.monotonic()
    report, is_said = "", False
    try:
        with Progress() as progress, progress:
            loaded = load_sources(wanted, progress)
            with Session(
                loaded, wanted, rounds=options.rounds, max_page_sharing=options.max_page_sharing
            ) as session:
                try:
                    session.scan(options.interval, progress)
                    report = _report(session, options, began)
                except KeyboardInterrupt:  # what is known by then is sound
                    if session.sources and not options.json:  # an incomplete object would mislead
                        report = _report(session, options, began, is_interrupted=True)
                    raise
        with held():
            emit(report)
            is_said = True
    except KeyboardInterrupt:
        if not is_said:  # untested: Ctrl-C when the report is out
            emit(report)
        raise
    return int(loaded.is_incomplete)


def _report(
    session: Session, options: argparse.Namespace, began: float, *, is_interrupted: bool = False
) -> str:
    with held():
        results = collect(session, top=options.top, began=began)
    session.expect_whole()
    return as_json(results) if options.json else as_text(results, is_interrupted=is_interrupted)


def _parser() -> Parser:
    parser = Parser("lksm scan", _DESCRIPTION, _EXAMPLES)
    add_sources(parser)
    parser.add_argument("--all", action="store_true", help="all live processes that may be read")
    parser.add_argument(
        "--rounds",
        type=positive,
        default=1,
        metavar="N",
        help="read live processes N times; a page is merged only if it has held still since the round before",
    )
    parser.add_argument(
        "--interval", type=seconds, default=1.0, metavar="S", help="seconds between rounds (default 1)"
    )
    parser.add_argument(
        "--top", type=count, default=10, metavar="N", help="how many groups to list, 0 for all (default 10)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, sizes in exact bytes")
    return parser
