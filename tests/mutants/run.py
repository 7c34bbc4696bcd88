"""Breaks the core on purpose, in one way after another, and runs the fast tests: [--jobs N] [--only TEXT].

Each mutant is compiled in a directory of its own, with asserts on, and linked with every C test. It is killed
by a test that fails, crashes, or takes too long; or, if the C tests let it live, by the fast Python tests
over an extension built from it. Exit status 1 if one lives, does not apply or does not compile.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mutants import MUTANTS, Mutant

TOP = Path(__file__).resolve().parents[2]
CC = [os.environ.get("CC", "cc"), "-std=c11", "-O1", "-w", "-fPIC", "-Icsrc", "-Itests/c"]
SLOW = {"random": "6000", "failing": "7"}  # C tests that are told to do less
PYTHON_TESTS = [
    "tests/test_model.py",
    "tests/test_events.py",
    "tests/test_domains.py",
    "tests/test_filter.py",
]
SECONDS = 60.0  # a fast C test takes less than one; a mutant may loop
NO_PROGRAM = "DOES NOT COMPILE"


class Broken(Exception):
    """The mutation does not apply: the code has moved."""


def mutated(mutant: Mutant) -> str:
    text = (TOP / "csrc" / mutant.file).read_text()
    found = text.count(mutant.text)
    if found != 1:
        raise Broken(f"{mutant.file}: {mutant.text!r} is there {found} times, expected once")
    return text.replace(mutant.text, mutant.instead)


def run(command: list[str], directory: Path, seconds: float = 300.0, **environment: str) -> bool:
    try:
        done = subprocess.run(
            command, cwd=directory, timeout=seconds, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class Workshop:
    """Objects of the sound core and of the tests, compiled once."""

    def __init__(self, top: Path, jobs: int) -> None:
        self.top = top
        shutil.copytree(TOP / "csrc", top / "csrc")
        shutil.copytree(TOP / "tests" / "c", top / "tests" / "c")
        self.sources = sorted(path.name for path in (top / "csrc").glob("*.c"))
        self.tests = sorted(
            path.stem.removeprefix("test_") for path in (top / "tests" / "c").glob("test_*.c")
        )
        self.tests.sort(key=lambda name: name in SLOW)
        work = [(f"csrc/{name}", f"{name}.o") for name in self.sources]
        work += [(f"tests/c/test_{name}.c", f"test_{name}.o") for name in self.tests]
        with ThreadPoolExecutor(jobs) as pool:
            if not all(pool.map(lambda pair: self.compile(top, *pair), work)):
                raise SystemExit("the core does not compile as it is")
        if (failed := self.killer(None)) is not None:
            raise SystemExit(f"the core fails as it is: {failed}")

    def compile(self, directory: Path, source: str, target: str) -> bool:
        return run([*CC, "-c", source, "-o", target], directory)

    def killer(self, mutant: Mutant | None) -> str | None:
        """Who kills it; None: nobody. NO_PROGRAM: it is no mutant."""
        with tempfile.TemporaryDirectory(dir=self.top) as name:
            own = Path(name)
            objects = {source: str(self.top / f"{source}.o") for source in self.sources}
            tests = {test: str(self.top / f"test_{test}.o") for test in self.tests}
            if mutant is not None:
                shutil.copytree(self.top / "csrc", own / "csrc")
                (own / "csrc" / mutant.file).write_text(mutated(mutant))
                is_header = mutant.file.endswith(".h")
                if is_header:
                    shutil.copytree(self.top / "tests", own / "tests")
                for source in self.sources if is_header else [mutant.file]:
                    objects[source] = str(own / f"{source}.o")
                    if not self.compile(own, f"csrc/{source}", f"{source}.o"):
                        return NO_PROGRAM
                for test in self.tests if is_header else []:
                    tests[test] = str(own / f"test_{test}.o")
                    if not self.compile(own, f"tests/c/test_{test}.c", f"test_{test}.o"):
                        return NO_PROGRAM
            for test in self.tests:
                program = own / test
                if not run([CC[0], "-o", str(program), tests[test], *objects.values(), "-lxxhash"], own):
                    return NO_PROGRAM
                started = time.monotonic()
                if not run([str(program), *([SLOW[test]] if test in SLOW else [])], own, SECONDS):
                    is_late = time.monotonic() - started >= SECONDS
                    return f"test_{test}" + (" (late)" if is_late else "")
            if mutant is None:
                return None
            return self.python_killer(own, list(objects.values()))

    def python_killer(self, own: Path, objects: list[str]) -> str | None:
        """The same over lksm with an extension made of these objects."""
        python = own / "python"
        python.mkdir()
        for entry in ("lksm", "tests", "pyproject.toml"):
            source = TOP / entry
            target = python / entry
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            else:
                shutil.copy(source, target)
        glue = [sys.executable, "-W", "ignore", "-m", "cffi.gen_src", "read-sources", "lksm._lksm"]
        glue += [str(own / "csrc/lksm.h"), str(own / "csrc/cffi_prelude.h"), str(own / "glue.c")]
        include = sysconfig.get_path("include")
        extension = python / "lksm" / "_lksm.abi3.so"
        link = [
            *CC,
            "-shared",
            f"-I{include}",
            f"-I{own}/csrc",
            str(own / "glue.c"),
            *objects,
            "-o",
            str(extension),
        ]
        if not run(glue, own) or not run(link, own):
            return None
        for test in PYTHON_TESTS:
            command = [
                sys.executable,
                "-c",
                _PYTEST,
                str(python),
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                "-m",
                "not slow",
                test,
            ]
            if not run(command, python, 900.0):
                return test
        return None


# The copy of lksm comes before an editable install's finder.
_PYTEST = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
sys.path.insert(0, sys.argv.pop(1))
import lksm, pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="mutants whose file or reason has this text")
    options = parser.parse_args()
    chosen = [each for each in MUTANTS if options.only in each.file or options.only in each.why]
    wrong = []
    for mutant in MUTANTS:
        try:
            mutated(mutant)
        except Broken as error:
            wrong.append(str(error))
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        workshop = Workshop(Path(name), options.jobs)
        survivors = 0
        with ThreadPoolExecutor(options.jobs) as pool:
            for mutant, killer in zip(chosen, pool.map(workshop.killer, chosen), strict=True):
                survivors += killer in (None, NO_PROGRAM)
                print(f"{killer or 'SURVIVED':20} {mutant.file:16} {mutant.why}", flush=True)
    print(f"{len(chosen) - survivors} killed, {survivors} survived")
    return survivors > 0


if __name__ == "__main__":
    sys.exit(main())
