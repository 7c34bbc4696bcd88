"""numpy's `.npy` files: the bytes of one array, in the order in which they lie in the file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ..memory import Region
from ._file import Bytes, expect_page_size, file_size, open_file
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
        array = _map_array(source)
        data = _flat_bytes(array)
        whole = len(data) - len(data) % page_size
        if not whole:
            raise SourceError(f"has an array of {len(data)} bytes, less than one page of {page_size} bytes")
        nr_bytes_behind = file_size(file) - array.offset - len(data)
    process = SourceProcess(
        source=source,
        name=os.path.basename(source),
        pid=None,
        regions=(Region(0, data[:whole].reshape(-1, page_size)),),
        notes=("addresses are offsets in the array",),
    )
    skipped = tail(source, len(data), page_size) + _behind(source, nr_bytes_behind)
    return Snapshot(processes=(process,), skipped=skipped)


def _map_array(path: str) -> np.memmap[Any, np.dtype[Any]]:
    """Map the array; whatever numpy raises for a header it cannot use becomes one line."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a header is Python text: numpy raises ValueError, SyntaxError, TypeError ...
        reason = str(error).partition("\n")[0]
        raise SourceError(f"cannot be read as .npy: {reason}") from error
    if not isinstance(array, np.memmap):
        raise SourceError("cannot be read as .npy: it holds no array")
    return array


def _flat_bytes(array: npt.NDArray[Any]) -> Bytes:
    """All bytes of a contiguous array as uint8 (n,), in file order, without a copy."""
    if array.dtype.kind not in "buifc":
        raise SourceError(f"has dtype {array.dtype}, expected plain numbers")
    flat: Bytes = array.view(np.ndarray).ravel(order="K").view(np.uint8)
    return flat


def _behind(source: str, nbytes: int) -> tuple[Skipped, ...]:
    if nbytes <= 0:
        return ()
    return (Skipped(source, "bytes after the array", nbytes, "an .npy file holds one array"),)
