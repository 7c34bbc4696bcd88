"""What perfect merging would save at an instant: every page but one of each content."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from .events import Event, Exit, Numbers, Start, Work


class Ideal:
    """Follows events, and knows at once how many pages have a twin."""

    def __init__(self) -> None:
        self._labels: dict[int, Numbers] = {}
        self._pages_of: defaultdict[int, int] = defaultdict(int)
        self._saved = 0

    @property
    def saved(self) -> int:
        """Pages of all processes less distinct contents."""
        return self._saved

    def mergeable(self, process: int) -> npt.NDArray[np.int64]:
        """The pages of a process whose content some other page has too, in any process."""
        labels = self._labels[process].tolist()
        return np.flatnonzero([self._pages_of[label] > 1 for label in labels])

    def follow(self, event: Event) -> None:
        """Takes in the next event."""
        if isinstance(event, Start):
            self._labels[event.process] = event.labels.copy()
            self._add(event.labels)
        elif isinstance(event, Exit):
            self._remove(self._labels.pop(event.process))
        elif isinstance(event, Work):
            for pages, labels in (
                (event.patched, event.patch_labels),
                (event.replaced, event.replaced_labels),
            ):
                if len(pages):
                    mine = self._labels[event.process]
                    self._remove(mine[pages])
                    self._add(labels)
                    mine[pages] = labels

    def _add(self, labels: Numbers) -> None:
        for label in labels.tolist():
            count = self._pages_of[label]
            self._saved += count > 0
            self._pages_of[label] = count + 1

    def _remove(self, labels: Numbers) -> None:
        for label in labels.tolist():
            count = self._pages_of[label]
            self._saved -= count > 1
            if count == 1:
                del self._pages_of[label]
            else:
                self._pages_of[label] = count - 1
