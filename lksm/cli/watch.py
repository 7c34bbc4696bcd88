"""`lksm watch`: follow live processes, and scan when it pays: when some are frozen."""

from __future__ import annotations

import argparse
import mmap
import resource
from collections.abc import Sequence
from contextlib import suppress

from ..engine import Engine
from ..knobs import SPECS
from ..sources import live
from ..sources.events import Watcher
from ._options import Parser, UsageError, add_live, count, seconds
from ._output import AlreadyReported, complain
from ._private import keep_out_of_dumps
from ._status import Status
from ._stop import stop_on_signals
from ._watch_loop import RUN_ONE_SHOT, RUN_PERIODIC, Watch

_INTERVAL_SECONDS = 60.0
_POLL_SECONDS = 2.0
_MOST_DIGITS = 12  # more than any knob takes

_DESCRIPTION = """\
Follows live processes until Ctrl-C, and prints a line for each scan: when, what kind and why, pages visited,
pages merged, merged pages found broken, milliseconds, CPU time of this program, and who was scanned.

A partial scan follows 100 ms after a process is frozen (by its cgroup, of version 1 or 2, or stopped by a
signal): the frozen ones, newcomers, and those that merged most lately. All are scanned every --interval. The
pages of a process are copied when it is scanned, not before. Nothing is changed. The policy, its words and
knobs are those of the kernel's LKSM."""
_EXAMPLES = """\
  lksm watch --pid 1234 5678                          two processes
  lksm watch --cgroup /sys/fs/cgroup/app.slice        a cgroup and all below it, who comes there, too
  lksm watch --all --one-shot                         everybody, scanned when somebody is frozen, only then
  lksm watch --all --set pages_to_scan=1000 scan_boost=1000     ten times the pages between two naps
  lksm watch --all --json | jq 'select(.type=="scan")'     one JSON object a line (docs/watch.md)

exit status:
  0  ended by Ctrl-C or SIGTERM, or nothing is left to watch        1  so, but a process was refused
  2  bad usage, or nothing usable
"""


def run(arguments: Sequence[str]) -> int:
    """Watch until asked to stop; returns the exit status."""
    options = _parser().parse_args(arguments)
    if not options.pids and not options.cgroups and not options.all:
        raise UsageError("nothing to watch: name --pid, --cgroup or --all (see lksm watch --help)")
    if options.one_shot and options.interval is not None:
        raise UsageError("--interval has no meaning with --one-shot (see lksm watch --help)")
    pids = [pid for pid in dict.fromkeys(options.pids) if _is_usable(pid)]
    if not pids and not options.cgroups and not options.all:
        raise AlreadyReported
    keep_out_of_dumps()
    _allow_many_descriptors()
    with (
        Watcher(
            pids=pids,
            cgroups=options.cgroups,
            every_process=options.all,
            poll_seconds=options.poll,
        ) as watcher,
        _engine(options) as engine,
        stop_on_signals(watcher.wakeup_fd) as stop,
        Status() as status,
    ):
        watch = Watch(
            watcher,
            engine,
            stop,
            status,
            live.snapshot([], what=options.what, limit_bytes=options.limit_bytes, retakable=True),
            named=pids,
            drops_flags=options.what != "anon",
            is_json=options.json,
        )
        watch.go_on()
        watch.end()
    return int(watch.is_incomplete or len(pids) < len(set(options.pids)))


def _is_usable(pid: int) -> bool:
    """Can a process that was named be followed? If not, that is reported."""
    reason = live.refusal(pid)
    if reason is not None:
        complain(f"pid {pid}: {reason}")
    return reason is None


def _engine(options: argparse.Namespace) -> Engine:
    """The engine, run by its owner's calls; knobs given by name come last."""
    interval_seconds = _INTERVAL_SECONDS if options.interval is None else options.interval
    knobs = {
        "full_scan_interval": round(interval_seconds * 1000),
        "max_page_sharing": options.max_page_sharing,
        **dict(options.knobs),
        "run": RUN_ONE_SHOT if options.one_shot else RUN_PERIODIC,
    }
    return Engine(page_size=mmap.PAGESIZE, initial_rounds=options.initial_rounds, **knobs)


def _allow_many_descriptors() -> None:
    """Every process that is watched takes one; how many is usual depends on the age of the system."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def knob(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not value.isascii() or not value.isdigit() or len(value) > _MOST_DIGITS or name == "run":
        raise argparse.ArgumentTypeError(
            f"{text!r} is no knob and value, expected something like pages_to_scan=200"
        )
    if name not in SPECS:
        raise argparse.ArgumentTypeError(f"there is no knob {name!r}, expected one of {', '.join(SPECS)}")
    return name, int(value)


def _parser() -> Parser:
    parser = Parser("lksm watch", _DESCRIPTION, _EXAMPLES)
    add_live(parser)
    parser.add_argument(
        "--cgroup",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH",
        dest="cgroups",
        help="all processes of a cgroup and of those below it, now and later: a directory of version 2, or "
        "of the freezer hierarchy of version 1",
    )
    parser.add_argument("--all", action="store_true", help="all processes that may be read, now and later")
    parser.add_argument(
        "--one-shot",
        action="store_true",
        help="after the initial rounds scan only when a process is frozen, never by the clock",
    )
    parser.add_argument(
        "--interval",
        type=seconds,
        metavar="S",
        help=f"idle seconds between full scans (default {_INTERVAL_SECONDS:g})",
    )
    parser.add_argument(
        "--initial-rounds",
        type=count,
        default=3,
        metavar="N",
        help="full scans at the beginning, a second apart; in them changing pages are held back (default 3)",
    )
    parser.add_argument(
        "--poll",
        type=seconds,
        default=_POLL_SECONDS,
        metavar="S",
        help="seconds between looks at what no event tells: processes stopped by a signal; starts of "
        f"processes too, if the kernel does not tell them; 0 for never (default {_POLL_SECONDS:g})",
    )
    parser.add_argument(
        "--set",
        type=knob,
        nargs="+",
        action="extend",
        default=[],
        metavar="KNOB=N",
        dest="knobs",
        help="a knob of the engine, such as pages_to_scan, sleep_millisecs or scan_boost",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each line")
    return parser
