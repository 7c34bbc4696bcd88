"""Numbers for the keys of regions: the core cannot hold a Python object."""

from __future__ import annotations

from collections.abc import Hashable


class FilterKey:
    """A key that some region has, and its number.

    It is hashed once, when the first region comes: what becomes of the caller's object after that, it can be
    given back without being asked.
    """

    __slots__ = ("_hash", "_key", "nr_regions", "number")

    def __init__(self, key: Hashable) -> None:
        self._key = key
        self._hash = hash(key)
        self.number = 0
        self.nr_regions = 0

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FilterKey) and bool(self._key == other._key)


class FilterKeys:
    """Gives equal keys one number as long as any region has the key; a number is never used again."""

    def __init__(self) -> None:
        self._keys: dict[FilterKey, FilterKey] = {}
        self._by_number: dict[int, FilterKey] = {}
        self._nr_given = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def take(self, key: Hashable) -> FilterKey:
        """The key for one more region; its numbers are from 1 on."""
        new = FilterKey(key)
        found = self._keys.setdefault(new, new)
        if not found.nr_regions:
            self._nr_given += 1
            found.number = self._nr_given
            self._by_number[found.number] = found
        return self.share(found)

    @staticmethod
    def share(key: FilterKey) -> FilterKey:
        """The same key for one more region."""
        key.nr_regions += 1
        return key

    def give_back(self, key: FilterKey) -> None:
        """One region less has the key. Never fails."""
        key.nr_regions -= 1
        if key.nr_regions:
            return
        del self._by_number[key.number]
        try:
            del self._keys[key]
        except Exception:  # a key of the same hash does not like to be compared
            self._keys = {other: other for other in self._by_number.values()}
