"""Options of several commands, and how their values are read. Bad usage is one line, like any other error."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from ._interrupt import held
from ._output import emit

UNLIMITED_SHARING = 2**31 - 1
_SIZE = re.compile(r"([0-9]+)([KMGT]?)(?:iB|B)?\Z", re.ASCII | re.IGNORECASE)
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


class UsageError(Exception):
    """The command line makes no sense; the message says why, in one line."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` and takes no abbreviations."""

    def __init__(self, prog: str, description: str, examples: str = "", **options: Any) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"examples:\n{examples}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def parse_known_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it, which makes an error of its own of Ctrl-C in between.

        It also forgets about `--` in between. What comes after that are paths here.
        """
        end = args.index("--") + 1 if "--" in args else len(args)
        paths = [f"./{word}" if word.startswith("-") else word for word in args[end:]]
        with held():
            return super().parse_known_intermixed_args([*args[:end], *paths], namespace)

    def print_help(self, file: object = None) -> None:
        emit(self.format_help())

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def add_sources(parser: Parser) -> None:
    """SOURCE ..., --pid, and how they are read."""
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="ELF core dump, .npy file or raw memory image; never copied, holes of sparse files are not read",
    )
    add_live(parser)
    parser.add_argument(
        "--page-size",
        type=page_size,
        metavar="BYTES",
        help="page size of files (default 4096); live processes have the system's",
    )


def add_live(parser: Parser) -> None:
    """--pid, what is taken of live processes, and --max-page-sharing."""
    parser.add_argument(
        "--pid",
        type=process_id,
        nargs="+",
        action="extend",
        default=[],
        metavar="N",
        dest="pids",
        help="a live process; needs the same user, or CAP_SYS_PTRACE",
    )
    parser.add_argument(
        "--what",
        choices=("anon", "private", "all"),
        default="anon",
        help="of live processes: anonymous pages of private mappings, which are what the kernel could merge "
        "(default); all present pages of private mappings; or of all mappings",
    )
    parser.add_argument(
        "--limit",
        type=nr_bytes,
        metavar="BYTES",
        dest="limit_bytes",
        help="memory that the copies of live pages may take, with K, M, G or T for binary units "
        "(default: half of what is available)",
    )
    parser.add_argument(
        "--max-page-sharing",
        type=sharing_limit,
        default=UNLIMITED_SHARING,
        metavar="N",
        help="pages that one frame may stand for, as in the kernel, where it is 256 (default: no limit)",
    )


def process_id(text: str) -> int:
    """A positive number."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is no process id (sources go before --pid)")
    return int(text)


def nr_bytes(text: str) -> int:
    """A size like 4096 or 64K."""
    match = _SIZE.match(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, expected a number, with K, M, G or T")
    return int(match[1]) << _SHIFTS[match[2].upper()]


def page_size(text: str) -> int:
    """A power of two that the engine takes."""
    size = nr_bytes(text)
    if not 64 <= size <= 1 << 30 or size & (size - 1):
        raise argparse.ArgumentTypeError(f"{text!r} is no page size, expected a power of two from 64 to 1G")
    return size


def sharing_limit(text: str) -> int:
    """What the knob max_page_sharing takes."""
    return whole_number(text, least=2, most=UNLIMITED_SHARING)


def count(text: str) -> int:
    """A number from 0."""
    return whole_number(text, least=0)


def positive(text: str) -> int:
    """A number from 1."""
    return whole_number(text, least=1)


def seconds(text: str) -> float:
    """A time that can be waited for."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 1000000")
    return value


def address(text: str) -> int:
    """An address: hexadecimal with 0x, or decimal."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no address, expected something like 0x7f0000001000")
    return value


def whole_number(text: str, *, least: int, most: int = 2**63 - 1) -> int:
    """A decimal number within a range."""
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} to {most}")
    return int(text)
