"""Sources: where pages come from. Each yields named processes with regions, ready to be attached.

`load` opens a file of any known format. The readers, one module each, can also be called by name:
`raw`, `npy` and `elfcore` for files, `synthetic` for page sets made from a seed, `live` for running
processes. A source knows nothing of the engine, so this package is of use without it.
"""

from __future__ import annotations

import os

from . import elfcore, npy, raw
from ._file import open_file
from ._magic import HEAD_BYTES, Format, recognise
from ._types import Gone, Refused, Skipped, Snapshot, SourceProcess, nr_present

__all__ = ["Gone", "Refused", "Skipped", "Snapshot", "SourceProcess", "load", "nr_present"]

_READERS = {Format.RAW: raw.load, Format.NPY: npy.load, Format.ELF: elfcore.load}


def load(path: str | os.PathLike[str], *, page_size: int = 4096) -> Snapshot:
    """Open a memory image or dump with the reader that its first bytes ask for.

    ELF cores, `.npy` files, and for everything else raw images. Nothing is copied: the regions are views
    of a read-only mapping. A file that cannot be used at all (not a regular file, unreadable, empty, no
    whole page, a format without a reader) raises `SourceError`, one line that begins with the path.
    """
    source = os.fspath(path)
    with open_file(source) as file:
        found = recognise(file.read(HEAD_BYTES))
    return _READERS[found](source, page_size=page_size)
