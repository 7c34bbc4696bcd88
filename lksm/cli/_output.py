"""What leaves the program: data to standard output, everything else to standard error, never a traceback.

Names of processes and files are whatever somebody else chose, so before a person sees one it goes through
`printable`, and before a JSON reader sees one, through `valid_text`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class AlreadyReported(Exception):
    """The command failed, and every reason has been written to standard error."""


def emit(text: str) -> bool:
    """Write data to standard output; False if nobody reads it any more, who then has what he wanted."""
    stream = sys.stdout
    if stream is None:
        raise OSError(errno.EBADF, "is closed", "standard output")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _discard(stream.fileno())
        return False
    except OSError as error:
        _discard(stream.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from error
    return True


def complain(message: str) -> None:
    """Write one line to standard error."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(f"lksm: {printable(message)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text with everything escaped that could move a cursor, start a line or hide other text."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in valid_text(text))


def valid_text(text: str) -> str:
    """The text with bytes that were no UTF-8 (which Python keeps as lone surrogates) written as \\xff."""
    if text.isascii():
        return text
    return "".join(_escaped_byte(letter) if "\ud800" <= letter <= "\udfff" else letter for letter in text)


def human_bytes(nbytes: int) -> str:
    """A size for people: 4096 -> "4.0 KiB"; the sign is kept."""
    if abs(nbytes) < 1024:
        return f"{nbytes} B"
    size, unit = float(nbytes), ""
    for unit in _UNITS:  # noqa: B007
        size /= 1024
        if abs(size) < 1023.95:
            break
    return f"{size:.1f} {unit}"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _escaped_byte(surrogate: str) -> str:
    is_byte = "\udc80" <= surrogate <= "\udcff"
    return f"\\x{ord(surrogate) - 0xDC00:02x}" if is_byte else _escaped(surrogate)


def _discard(descriptor: int) -> None:
    """Send what is still buffered nowhere, or flushing it at exit would fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
