"""numpy's `.npy` files: the bytes of one array, in the order in which they lie in the file."""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
from typing import Any

import numpy as np

from ..errors import SourceError
from ..memory import Region
from ._file import Bytes, MappedFile, expect_page_size, one_line, open_file
from ._types import Skipped, Snapshot, SourceProcess
from .raw import tail

_MOST_DIMENSIONS = 64  # of an array of numpy 2
_MOST_HEADER_BYTES = 10_000  # numpy's own bound: Python's parser is not made for more that nobody vouches for
_VERSIONS = {  # how many bytes the length of the header has, and what reads both
    (1, 0): (2, np.lib.format.read_array_header_1_0),
    (2, 0): (4, np.lib.format.read_array_header_2_0),
    (3, 0): (4, np.lib.format.read_array_header_2_0),  # but in UTF-8, which only names of fields need
}
_HEAD_BYTES = 12 + _MOST_HEADER_BYTES  # magic, version and length before it

# Over the filters of warnings while ours are in place. A fork waits for it, so no child inherits ours.
_filters_lock = threading.RLock()
os.register_at_fork(
    before=_filters_lock.acquire, after_in_parent=_filters_lock.release, after_in_child=_filters_lock.release
)


def load(path: str | os.PathLike[str], *, page_size: int = 4096) -> Snapshot:
    """Map the array of an `.npy` file as one region at address 0, without its header.

    Any plain numeric dtype and either order of dimensions: the bytes are taken as they lie in the file.
    Objects, structures, text and dates are a `SourceError`, and so is less than one page. Bytes after
    the last whole page, and after the array, are reported.
    """
    source = os.fspath(path)
    with open_file(source) as file:
        expect_page_size(page_size)
        mapped = MappedFile(file, source)
        start, stop = _extent(mapped.bytes)
        data = mapped.bytes[start:stop]
        whole = len(data) - len(data) % page_size
        if not whole:
            raise SourceError(f"has an array of {len(data)} bytes, less than one page of {page_size} bytes")
    process = SourceProcess(
        source=source,
        name=os.path.basename(source),
        pid=None,
        regions=(Region(0, data[:whole].reshape(-1, page_size)),),
        notes=("addresses are offsets in the array",),
        file=mapped,
    )
    skipped = tail(source, len(data), page_size) + _behind(source, len(mapped.bytes) - stop)
    return Snapshot(processes=(process,), skipped=skipped)


def _extent(data: Bytes) -> tuple[int, int]:
    """Where in the file the array lies, in bytes; whatever numpy raises for a header becomes one line.

    All is taken from our own mapping: the path may be another file's by now, and the mapping may shrink.
    """
    head = data[:_HEAD_BYTES].tobytes()
    if not head.startswith(np.lib.format.MAGIC_PREFIX):
        raise SourceError("cannot be read as .npy: it holds no array")
    file = io.BytesIO(head)
    try:
        shape, dtype = _header(file)
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        start = file.tell()
        stop = start + _nr_elements(shape) * dtype.itemsize
        if stop > len(data):
            raise ValueError(f"the file ends at byte {len(data)}, its array at byte {stop}")
    except (MemoryError, RecursionError) as error:  # Python's parser has no other words for it
        raise SourceError("cannot be read as .npy: its header is nested too deeply") from error
    except Exception as error:  # a header is Python text: numpy raises ValueError, SyntaxError, TypeError ...
        raise SourceError(f"cannot be read as .npy: {one_line(error)}") from error
    if dtype.kind not in "buifc":
        raise SourceError(f"has dtype {dtype!s:.60}, expected plain numbers")
    return start, stop


def _header(file: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype as the header has them; the file is left where the array begins.

    Python and numpy have warnings about odd headers, which show pieces of them on the terminal. There is no
    other way to keep them back than Python's filters, which all threads share: so one thread at a time
    changes them, or the last one to put them back would leave them as another one had changed them.
    """
    version = np.lib.format.read_magic(file)
    if version not in _VERSIONS:
        raise ValueError(f"it has version {version[0]}.{version[1]}, expected 1.0, 2.0 or 3.0")
    length_bytes, read = _VERSIONS[version]
    start = file.tell()
    nbytes = int.from_bytes(file.read(length_bytes), "little")
    file.seek(start)
    if nbytes > _MOST_HEADER_BYTES:
        raise ValueError(f"its header has {nbytes} bytes, expected at most {_MOST_HEADER_BYTES}")
    with _filters_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape, _, dtype = read(file, max_header_size=_MOST_HEADER_BYTES)
    return shape, dtype


def _nr_elements(shape: tuple[int, ...]) -> int:
    """How many, in Python's numbers, which do not wrap around; numpy has not looked at the sizes."""
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"it has {len(shape)} dimensions, expected at most {_MOST_DIMENSIONS}")
    for number, size in enumerate(shape):
        if isinstance(size, bool) or not 0 <= size < 1 << 63:
            raise ValueError(f"dimension {number} of its shape is none that an array can have")
    return math.prod(shape)


def _behind(source: str, nbytes: int) -> tuple[Skipped, ...]:
    if nbytes <= 0:
        return ()
    return (Skipped(source, "bytes after the array", nbytes, "an .npy file holds one array"),)
