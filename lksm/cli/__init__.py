"""The command line: `main` finds the command, runs it, and turns every error into one line and a status."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from .. import __version__
from ..errors import LksmError
from ._interrupt import held
from ._options import Parser, UsageError
from ._output import AlreadyReported, complain, emit

DONE, INCOMPLETE, FAILED, INTERRUPTED = 0, 1, 2, 130


class _Command(NamedTuple):
    """A module of this package with `run(arguments) -> status`, imported when it is needed."""

    module: str
    summary: str


COMMANDS = {
    "scan": _Command(".scan", "what merging would save among files and live processes"),
    "watch": _Command(".watch", "follow live processes, scan them when they are frozen"),
    "explain": _Command(".explain", "why one page is or is not merged"),
    "simulate": _Command(".simulate", "what merge policies save of app lives, and what they cost"),
    "compare": _Command(".compare", "the same pages through the running kernel's KSM and through lksm"),
}

_COMMANDS = f"{', '.join(list(COMMANDS)[:-1])} or {list(COMMANDS)[-1]}"
_EXPECTED = f"expected {_COMMANDS} (see lksm --help)"
_DESCRIPTION = "Finds memory pages with the same bytes and tells what merging them saves."
_EXAMPLES = """\
  lksm scan core.1234 vm.raw               among a core dump and a memory image
  lksm scan --all                          among all live processes that may be read
  lksm watch --all                         follow them, scan when one is frozen
  lksm explain vm.raw --address 0x3000     one page of an image
  lksm simulate phone                      KSM and LKSM over an hour of a phone's life
  lksm compare half                        the kernel's KSM and lksm over the same pages (root)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; nothing is raised."""
    try:
        return _told(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED


def _told(arguments: list[str]) -> int:
    """The status of a command; an error is told, and Ctrl-C meanwhile ends even that."""
    try:
        return _run(arguments)
    except SystemExit as done:  # --help
        return done.code if isinstance(done.code, int) else DONE
    except AlreadyReported:
        pass
    except MemoryError as error:
        complain(str(error) or "out of memory")
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
    except (ImportError, LksmError, UsageError) as error:  # some modules are imported when they are needed
        complain(str(error))
    return FAILED


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        with held():  # Python makes other errors of Ctrl-C in the middle of a class
            command = importlib.import_module(COMMANDS[arguments[0]].module, __name__)
        status: int = command.run(arguments[1:])
        return status
    if arguments and not arguments[0].startswith("-"):
        raise UsageError(f"{arguments[0]!r} is no command, expected {_COMMANDS} (see lksm --help)")
    options = _parser().parse_args(arguments)
    if options.version:
        emit(f"lksm {__version__}\n")
        return DONE
    raise UsageError(f"no command, {_EXPECTED}")


def _parser() -> Parser:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    description = f"{_DESCRIPTION}\n\ncommands:\n{commands}\n\nlksm COMMAND --help tells more of each."
    parser = Parser("lksm", description, _EXAMPLES, usage="lksm COMMAND ...")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser
