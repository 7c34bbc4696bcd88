"""Instructions that a page costs, counted by callgrind and held to what benchmarks/instructions.json records.

    python benchmarks/instructions.py [--record] [WORKLOAD...]

Compiles the core as a release with benchmarks/instructions.c, runs that under callgrind, and counts what the
core itself executes in one scan, as on a machine with AVX2. The hash, and what libc does, are not counted,
for they depend on the machine; how many bytes were hashed and compared is recorded instead, exactly. A change
beyond 3 % is shown, and is no failure: a wrong merge result is. Needs a C compiler, valgrind and
libxxhash-dev.

Counts depend on the compiler. If it is another one than was recorded, that is said too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lksm.sources import synthetic
from suite.callgrind import instructions_of

_HERE = Path(__file__).parent
_RECORD = _HERE / "instructions.json"
_SHOWN = 0.03
_MEMORY = ("immutable", "mutable")
_PHASES = ("cold", "rescan")
_WHAT = ("instructions", "bytes_hashed", "bytes_compared")  # a page
_ZERO_SHARING = 256  # max_page_sharing, which only `zero` reaches

Counts = dict[str, float]


def compile_core(directory: Path) -> Path:
    program = directory / "instructions"
    sources = [str(path) for path in sorted((_HERE.parent / "csrc").glob("*.c"))]
    command = ["cc", "-std=c11", "-O3", "-DNDEBUG", "-g", "-pthread", f"-I{_HERE.parent / 'csrc'}"]
    subprocess.run([*command, "-o", str(program), str(_HERE / "instructions.c"), *sources], check=True)
    return program


def count(program: Path, workload: str, memory: str, phase: str) -> Counts:
    """What a page costs in one scan."""
    output = program.with_name(f"{workload}-{memory}-{phase}")
    command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={output}"]
    command += ["--toggle-collect=measured", str(program), workload, memory, phase]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    nr_pages, shared, sharing, unshared, hashed, compared = map(int, done.stdout.split())
    assert (shared, sharing, unshared) == _expected(workload, nr_pages), f"{workload} {memory}: {done.stdout}"
    core = instructions_of(output.read_text(), program.name, without=("XXH", "lent_hash"))
    return dict(zip(_WHAT, (round(n / nr_pages, 1) for n in (core, hashed, compared)), strict=True))


def changes(recorded: dict[str, Counts], counted: dict[str, Counts]) -> list[str]:
    """One line for every number that is more than 3 % away from what was recorded, or was not recorded."""
    lines = []
    for case, counts in counted.items():
        for what, now in counts.items():
            before = recorded.get(case, {}).get(what)
            if before is None:
                lines.append(f"{case}: {what} {now:g} a page, not recorded before")
            elif abs(now - before) > _SHOWN * before:
                change = f"{now / before - 1:+.1%}" if before else "from nothing"
                lines.append(f"{case}: {what} {before:g} -> {now:g} a page, {change}")
    return lines


def _expected(workload: str, nr_pages: int) -> tuple[int, int, int]:
    if workload == "zero":
        return nr_pages // _ZERO_SHARING, nr_pages - nr_pages // _ZERO_SHARING, 0
    return synthetic.expected(workload, nr_pages)


def _compiler() -> str:
    command = ["cc", "--version"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(synthetic.names()))
    parser.add_argument("--record", action="store_true", help=f"write {_RECORD.name} instead of comparing")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        print("valgrind is not installed: no instructions are counted", file=sys.stderr)
        return 0
    recorded = json.loads(_RECORD.read_text()) if _RECORD.exists() else {"compiler": None, "counts": {}}
    cases = [
        (workload, memory, phase)
        for workload in options.workloads or synthetic.names()
        for memory in _MEMORY
        for phase in _PHASES
    ]
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(2) as pool:
        program = compile_core(Path(directory))
        found = pool.map(lambda case: count(program, *case), cases)
        counted = {" ".join(case): counts for case, counts in zip(cases, found, strict=True)}
    print(f"{'a page costs':28} {'instructions':>13} {'bytes hashed':>13} {'bytes compared':>15}")
    for case, counts in counted.items():
        print(f"{case:28} {counts[_WHAT[0]]:13g} {counts[_WHAT[1]]:13g} {counts[_WHAT[2]]:15g}")
    if options.record:
        whole = {"compiler": _compiler(), "counts": {**recorded["counts"], **counted}}
        _RECORD.write_text(json.dumps(whole, indent=1) + "\n")
        return 0
    if recorded["compiler"] != _compiler():
        print(
            f"recorded with {recorded['compiler']}, counted with {_compiler()}: that makes a difference too"
        )
    lines = changes(recorded["counts"], counted)
    if lines:
        print(
            f"\n*** {len(lines)} numbers changed by more than {_SHOWN:.0%}; --record them if they should: ***"
        )
        print("\n".join(f"*** {line}" for line in lines))
    else:
        print(f"none changed by more than {_SHOWN:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
