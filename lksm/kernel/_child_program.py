"""What `Child` runs, by path: this file imports nothing of lksm, and starts fast.

Commands come pickled from standard input, bytes to be stored follow their command as they are; answers go
pickled to standard output. It ends with its input. Only the areas it maps are offered for merging, with
merge-any too: what the kernel then offers of this program's own memory is taken out again before the answer.
"""

import contextlib
import io
import mmap
import os
import pickle

STDIN = io.BufferedReader(io.FileIO(0, closefd=False), 1 << 20)
ADVICE = {
    "mergeable": mmap.MADV_MERGEABLE,
    "unmergeable": mmap.MADV_UNMERGEABLE,
    "dontneed": mmap.MADV_DONTNEED,
}
PR_SET_MEMORY_MERGE = 67


class Areas:
    """Private anonymous memory, area by area. MAP_PRIVATE matters: what is shared is never merged."""

    def __init__(self) -> None:
        self._areas: list[mmap.mmap] = []
        self._is_merge_any = False

    def map(self, nr_bytes: int, advise: bool) -> int:
        area = mmap.mmap(-1, nr_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages
            area.madvise(mmap.MADV_NOHUGEPAGE)
        self._areas.append(area)
        self.write(len(self._areas) - 1, 0, nr_bytes)
        if advise:
            area.madvise(mmap.MADV_MERGEABLE)  # untested: tests of it have no KSM
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

    def merge_any(self, is_wanted: bool) -> int:
        """0, or the number of the error."""
        import ctypes  # few children need it, and it takes longer to start than the rest

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_MEMORY_MERGE, *(ctypes.c_ulong(value) for value in (is_wanted, 0, 0, 0))):
            return ctypes.get_errno()  # untested: kernels before 6.4
        self._is_merge_any = is_wanted
        return 0

    def keep_out(self) -> None:
        """Take out whatever is offered and is none of the areas, until nothing is: this takes memory too."""
        if not self._is_merge_any:
            return
        import ctypes

        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        ours = []
        for area in self._areas:
            if not area.closed:
                address = ctypes.addressof(ctypes.c_char.from_buffer(area))
                ours.append((address, address + len(area)))
        while ranges := offered(ours):
            for start, stop in ranges:
                madvise(start, stop - start, mmap.MADV_UNMERGEABLE)


def offered(ours: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of addresses that the kernel may merge and that are none of ours."""
    found: list[tuple[int, int]] = []
    where = (0, 0)
    with open("/proc/self/smaps") as lines:
        for line in lines:
            first, *words = line.split()
            if first == "VmFlags:":
                found += without(where, ours) if "mg" in words else []
            elif not first.endswith(":"):
                start, _, stop = first.partition("-")
                where = int(start, 16), int(stop, 16)
    return found


def without(where: tuple[int, int], others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of a range that lie in none of the others: to the kernel, neighbours may be one area."""
    start, stop = where
    found = []
    for first, last in sorted(others):
        if start < last and first < stop:
            found.append((start, first))
            start = last
    return [each for each in [*found, (start, stop)] if each[0] < each[1]]


def main() -> None:
    areas = Areas()
    with contextlib.suppress(EOFError):
        while True:
            command, *arguments = pickle.load(STDIN)
            answer = pickle.dumps(getattr(areas, command)(*arguments))
            areas.keep_out()  # at last: what is done behind it may take memory
            while answer:
                answer = answer[os.write(1, answer) :]


if __name__ == "__main__":  # untested: nobody imports it, but some test
    main()
