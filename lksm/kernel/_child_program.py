"""What `Child` runs, by path: this file imports nothing of lksm, and starts fast.

Commands come pickled from standard input, bytes to be stored follow their command as they are; answers go
pickled to standard output. It ends with its input. Only the areas it maps are offered for merging.
"""

import contextlib
import io
import mmap
import pickle
import sys

STDIN = io.BufferedReader(io.FileIO(0, closefd=False), 1 << 20)
ADVICE = {
    "mergeable": mmap.MADV_MERGEABLE,
    "unmergeable": mmap.MADV_UNMERGEABLE,
    "dontneed": mmap.MADV_DONTNEED,
}


class Areas:
    """Private anonymous memory, area by area. MAP_PRIVATE matters: what is shared is never merged."""

    def __init__(self) -> None:
        self._areas: list[mmap.mmap] = []

    def map(self, nr_bytes: int) -> int:
        area = mmap.mmap(-1, nr_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages
            area.madvise(mmap.MADV_NOHUGEPAGE)
        self._areas.append(area)
        self.write(len(self._areas) - 1, 0, nr_bytes)
        area.madvise(mmap.MADV_MERGEABLE)
        return len(self._areas) - 1

    def write(self, number: int, offset: int, nr_bytes: int) -> None:
        with memoryview(self._areas[number]) as whole, whole[offset : offset + nr_bytes] as rest:
            done = 0
            while done < nr_bytes:
                with rest[done:] as part:
                    nr_read = STDIN.readinto(part)
                if not nr_read:
                    raise EOFError
                done += nr_read

    def read(self, number: int, offset: int, nr_bytes: int) -> bytes:
        return self._areas[number][offset : offset + nr_bytes]

    def advise(self, number: int, advice: str, page: int, nr_pages: int) -> None:
        area = self._areas[number]
        start = page * mmap.PAGESIZE
        area.madvise(ADVICE[advice], start, nr_pages * mmap.PAGESIZE or len(area) - start)

    def unmap(self, number: int) -> None:
        self._areas[number].close()


def main() -> None:
    areas = Areas()
    with contextlib.suppress(EOFError):
        while True:
            command, *arguments = pickle.load(STDIN)
            answer = getattr(areas, command)(*arguments)
            pickle.dump(answer, sys.stdout.buffer)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
