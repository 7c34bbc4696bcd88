"""Fuzzes one parser for some time: python -P tests/fuzz/run.py elf --seconds 600

With atheris (`pip install 'lksm[fuzz]'`) inputs are chosen by the branches they reach; without it seeds are
mutated at random. The input that showed a fault is kept in --keep, and the exit status is not 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

_MOST_BYTES = 1 << 15
_SLOW_SECONDS = 10  # for one input; libFuzzer calls it a hang
_MIB_OF_MEMORY = 2048
_INTERESTING = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\0" * 8,
    b"9" * 5000,
    b"[" * 2000,
)


def main() -> None:
    """Run until time is up; ends the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=("elf", "raw", "npy", "toml", "knobs"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(), help="a directory for inputs that show a fault")
    parser.add_argument("--without-atheris", action="store_true")
    options = parser.parse_args()
    if options.without_atheris or importlib.util.find_spec("atheris") is None:
        _mutate_at_random(options)
    else:
        _follow_branches(options)


def _follow_branches(options: argparse.Namespace) -> None:
    import atheris

    with atheris.instrument_imports(include=["lksm", "elftools", "tomllib"]):
        from fuzz.targets import TARGETS
    from fuzz.seeds import seeds

    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(options.target)):
            (Path(corpus) / str(number)).write_bytes(data)
        arguments = [
            f"-max_total_time={options.seconds}", f"-max_len={_MOST_BYTES}", f"-seed={options.seed}",
            f"-timeout={_SLOW_SECONDS}", f"-rss_limit_mb={_MIB_OF_MEMORY}", "-print_final_stats=1",
            f"-artifact_prefix={options.keep}/{options.target}-",
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *arguments, corpus], TARGETS[options.target])
        atheris.Fuzz()


def _mutate_at_random(options: argparse.Namespace) -> None:
    from fuzz.seeds import seeds
    from fuzz.targets import TARGETS

    print(f"{options.target}: no atheris, seeds are mutated at random (seed {options.seed})")
    began, nr_runs = time.monotonic(), 0
    choose, inputs = random.Random(options.seed), seeds(options.target)
    while time.monotonic() - began < options.seconds:
        run(TARGETS[options.target], mutated(choose, inputs), options.keep / options.target)
        nr_runs += 1
    print(f"Done {nr_runs} runs in {time.monotonic() - began:.0f} second(s)")


def run(target: Callable[[bytes], None], data: bytes, keep: Path) -> None:
    """One input; if it shows a fault it is kept, and the fault is raised."""
    try:
        target(data)
    except BaseException:
        path = keep.with_name(f"{keep.name}-{abs(hash(data)):x}")
        path.write_bytes(data)
        print(f"kept as {path}: {data!r:.200}", file=sys.stderr)
        raise


def mutated(choose: random.Random, inputs: list[bytes]) -> bytes:
    """One of the inputs with a few changes: bytes set, cut out, put in, or taken from another input."""
    data = bytearray(choose.choice(inputs))
    for _ in range(choose.randrange(1, 8)):
        place = choose.randrange(len(data) + 1)
        kind = choose.randrange(5)
        if kind == 0 and place < len(data):
            data[place] = choose.randrange(256)
        elif kind == 1:
            piece = choose.choice(_INTERESTING)
            data[place : place + len(piece)] = piece
        elif kind == 2:
            del data[place : place + choose.randrange(1, 64)]
        elif kind == 3:
            other = choose.choice(inputs)
            begin = choose.randrange(len(other) + 1)
            data[place:place] = other[begin : begin + choose.randrange(1, 256)]
        else:
            data[place:place] = choose.choice(_INTERESTING)
    return bytes(data[:_MOST_BYTES])


if __name__ == "__main__":
    main()
