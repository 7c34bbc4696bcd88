"""Pages that are one physical page with a page stored before share its row, also across processes of which
only some are taken now.

Those that are not taken now keep their rows and bytes. Where they hold a page together with one that is
taken, it is the same page, so reading it once more is right for both; where they do so no longer, the page
that is taken gets a row of its own and theirs is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ._pagemap import Pagemap, shareable_frames
from ._store import PENDING, Store
from ._take import Space

_Frames = npt.NDArray[np.uint64]


def join(spaces: Sequence[Space], kept: Sequence[Space], store: Store) -> list[Space]:
    """Give PENDING pages of `spaces` the rows of pages in the same frame; tear apart what is no longer one.

    Returns, of the `kept` ones, the pages that now share rows with `spaces`: to be taken before them.
    """
    is_kept = _is_used(kept, store)
    if not any(space.frames.any() for space in spaces):
        for space in spaces:
            _tear(space, is_kept, np.zeros(store.nr_rows, np.uint64))
        return []
    now = [replace(space, frames=_frames_now(space)) for space in kept]
    frame_of_row = _frames_of_rows(now, store)
    for space in spaces:
        _tear(space, is_kept, frame_of_row)
    frame_of_row = _frames_of_rows([*now, *spaces], store)
    rows = np.flatnonzero(frame_of_row)
    rows = rows[np.argsort(frame_of_row[rows], kind="stable")]
    for space in spaces:
        _give_rows(space, rows, frame_of_row[rows])
    is_shared = _is_used(spaces, store) & is_kept
    return [part for part in (_part(space, is_shared) for space in now) if len(part.pages)]


def _frames_now(space: Space) -> _Frames:
    """The frames that the stored pages of a process have now; 0 where there is nobody to share with."""
    try:
        with Pagemap(space.pid) as pagemap:
            frames = shareable_frames(pagemap.entries(space.pages))
    # untested: it ends between two looks
    except OSError:  # it is gone
        frames = np.zeros(len(space.pages), np.uint64)
    return frames


def _is_used(spaces: Sequence[Space], store: Store) -> npt.NDArray[np.bool_]:
    is_used = np.zeros(store.nr_rows, np.bool_)
    for space in spaces:
        is_used[space.rows[space.rows >= 0]] = True
    return is_used


def _frames_of_rows(spaces: Sequence[Space], store: Store) -> _Frames:
    """For each row the frame that all its holders have; 0 if they do not agree, or have none."""
    frame_of_row = np.zeros(store.nr_rows, np.uint64)
    is_torn = np.zeros(store.nr_rows, np.bool_)
    held = [(space.rows[space.rows >= 0], space.frames[space.rows >= 0]) for space in spaces]
    for rows, frames in held:
        frame_of_row[rows] = frames
    for rows, frames in held:
        is_torn[rows[frame_of_row[rows] != frames]] = True
    frame_of_row[is_torn] = 0
    return frame_of_row


def _tear(space: Space, is_kept: npt.NDArray[np.bool_], frame_of_row: _Frames) -> None:
    """Pages in a row that a kept process holds, in another frame, become PENDING."""
    pages = np.flatnonzero(space.rows >= 0)
    pages = pages[is_kept[space.rows[pages]]]
    frames = space.frames[pages]
    space.rows[pages[(frames == 0) | (frames != frame_of_row[space.rows[pages]])]] = PENDING


def _give_rows(space: Space, rows: npt.NDArray[np.int64], frames: _Frames) -> None:
    """PENDING pages whose frame is among these ascending `frames` get the row of the first such."""
    pages = np.flatnonzero((space.rows == PENDING) & (space.frames != 0))
    if not len(rows) or not len(pages):
        return
    index = np.minimum(np.searchsorted(frames, space.frames[pages]), len(frames) - 1)
    is_found = frames[index] == space.frames[pages]
    space.rows[pages[is_found]] = rows[index[is_found]]


def _part(space: Space, is_wanted: npt.NDArray[np.bool_]) -> Space:
    """The pages of a process that lie in the rows that are wanted; its own arrays are left as they are."""
    chosen = is_wanted[space.rows] & (space.frames != 0)
    return replace(
        space,
        pages=space.pages[chosen],
        frames=space.frames[chosen],
        flags=space.flags[chosen],
        rows=space.rows[chosen],
        left_out=type(space.left_out)(),
    )
