"""Numbers for the keys of regions: the core cannot hold a Python object."""

from __future__ import annotations

from collections.abc import Hashable


class FilterKeys:
    """Gives equal keys one number as long as any region has the key; a number is never used again."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._nr_regions: dict[Hashable, int] = {}
        self._nr_given = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, key: Hashable) -> int:
        """The number of the key, from 1 on, for one more region."""
        if key not in self._numbers:
            self._nr_given += 1
            self._numbers[key] = self._nr_given
        self._nr_regions[key] = self._nr_regions.get(key, 0) + 1
        return self._numbers[key]

    def give_back(self, key: Hashable) -> None:
        """One region less has the key."""
        self._nr_regions[key] -= 1
        if not self._nr_regions[key]:
            del self._nr_regions[key], self._numbers[key]
