"""A short run of every fuzz target, so that the targets themselves work and known seeds hold."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest

from fuzz.run import mutated, run
from fuzz.seeds import seeds
from fuzz.targets import TARGETS
from lksm.errors import LksmError, SourceError
from lksm.simulation import workload
from lksm.sources import elfcore, npy
from lksm.sources import raw as raw_image

_NR_RUNS = 500

PARSERS = {
    "elf": (elfcore, "load"),
    "npy": (npy, "load"),
    "raw": (raw_image, "load"),
    "toml": (workload, "parse"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_and_a_few_changes(tmp_path: Path, target: str) -> None:
    """Seeds and 500 changed ones are accepted or refused, never anything else."""
    choose, inputs = random.Random(7), seeds(target)
    for data in inputs:
        TARGETS[target](data)
    for _ in range(_NR_RUNS):
        run(TARGETS[target], mutated(choose, inputs), tmp_path / target)


def test_a_fault_is_kept(tmp_path: Path) -> None:
    """An input that shows a fault is written to a file, and the fault is raised."""

    def target(data: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(target, b"input", tmp_path / "kept")
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == b"input"


@pytest.mark.parametrize("target", ["elf", "npy", "raw", "toml"])
def test_targets_see_faults(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that raises another error than its own is noticed, and so is an error of two lines."""
    module, name = PARSERS[target]
    for error in (ValueError("other"), LksmError("other"), KeyError("other")):

        def wrong(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(module, name, wrong)
        with pytest.raises(type(error)):
            TARGETS[target](seeds(target)[0])


@pytest.mark.parametrize("target", ["elf", "npy", "raw", "toml"])
def test_targets_see_warnings(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning that gets out of a parser is noticed, also if the parser would take it for an error."""
    module, name = PARSERS[target]
    good = getattr(module, name)

    def warned(*arguments: object, **options: object) -> object:
        try:
            warnings.warn("\x1b[31m", SyntaxWarning, stacklevel=1)
        except SyntaxWarning as error:
            raise SourceError("not recognised as a warning") from error
        return good(*arguments, **options)

    monkeypatch.setattr(module, name, warned)
    with pytest.raises(AssertionError, match="31m"):
        TARGETS[target](seeds(target)[0])
