"""numpy's `.npy` files: the bytes of one array, in the order in which they lie in the file."""

from __future__ import annotations

import os

import numpy as np

from ..errors import SourceError
from ..memory import Region
from ._file import MappedFile, expect_page_size, one_line, open_file
from ._types import Skipped, Snapshot, SourceProcess
from .raw import tail


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
        start, stop = _extent(source, len(mapped.bytes))
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


def _extent(path: str, file_bytes: int) -> tuple[int, int]:
    """Where in the file the array lies, in bytes; whatever numpy raises for a header becomes one line.

    Only that is asked of numpy: the bytes are to be seen through our own mapping, which may shrink.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, MemoryError):
        raise  # untested: it goes while it is opened
    except Exception as error:  # a header is Python text: numpy raises ValueError, SyntaxError, TypeError ...
        raise SourceError(f"cannot be read as .npy: {one_line(error)}") from error
    if not isinstance(array, np.memmap):
        raise SourceError("cannot be read as .npy: it holds no array")
    if array.dtype.kind not in "buifc":
        raise SourceError(f"has dtype {array.dtype!s:.60}, expected plain numbers")
    stop = int(array.offset) + array.nbytes
    if stop > file_bytes:  # untested: it shrinks while it is opened
        raise SourceError(f"has an array up to byte {stop}, the file ends at {file_bytes}")
    return int(array.offset), stop


def _behind(source: str, nbytes: int) -> tuple[Skipped, ...]:
    if nbytes <= 0:
        return ()
    return (Skipped(source, "bytes after the array", nbytes, "an .npy file holds one array"),)
