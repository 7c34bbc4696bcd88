"""`lksm simulate`: its table, its JSON, its plot, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lksm
from lksm.cli import _plot
from run_lksm import Lksm
from small_workload import SMALL

KEYS = [
    "version", "title", "page_size", "duration_ms", "seed", "nr_processes", "sample_times", "ideal",
    "policies",
]  # fmt: skip
POLICY_KEYS = [
    "name", "merged", "pages_scanned", "pages_skipped", "bytes_compared", "bytes_hashed", "merges", "breaks",
    "scans", "cpu_ms", "freezes", "freezes_merged", "freezes_never", "freeze_to_merged_ms",
    "freeze_to_merged_p95_ms", "area_of_ideal", "area_of_ksm", "visits_of_ksm",
]  # fmt: skip

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed (extra: plot)"
)


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    """The small workload, for ten seconds."""
    (tmp_path / "small.toml").write_text(SMALL.replace("30_000", "10_000"))
    return tmp_path / "small.toml"


def simulate(lksm_command: Lksm, *arguments: object) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(lksm_command("simulate", "--json", *arguments))
    assert (lksm_command.status, lksm_command.err) == (0, "")
    return document


def test_the_tables(lksm_command: Lksm, workload: Path) -> None:
    """Text names the workload, the ideal, and each policy in a table of savings and one of costs."""
    text = lksm_command("simulate", workload)
    assert (lksm_command.status, lksm_command.err) == (0, "")
    lines = text.splitlines()
    assert lines[0] == "small"
    assert lines[1].startswith("seed 0, 10 virtual seconds, ")
    assert lines[2].startswith("perfect merging would save ")
    tables = [line.split() for line in lines[3:] if line]
    assert [row[0] for row in tables] == ["policy", "ksm", "periodic", "partial", "full", "none"] * 2
    assert tables[1][4] == tables[7][3] == "100.0%"


def test_json_is_exact_and_the_same_every_time(lksm_command: Lksm, workload: Path) -> None:
    """The same seed gives the same bytes but for CPU time; another seed gives other figures."""
    first, again, other = (simulate(lksm_command, workload, "--seed", seed) for seed in (3, 3, 4))
    assert list(first) == KEYS and first["version"] == lksm.__version__
    for document in (first, again, other):
        for policy in document["policies"]:
            assert list(policy) == POLICY_KEYS
            assert policy.pop("cpu_ms") >= 0
    assert json.dumps(first) == json.dumps(again)
    assert first["ideal"] != other["ideal"]
    assert first["sample_times"] == list(range(500, 10_001, 500))
    ksm = first["policies"][0]
    assert ksm["area_of_ideal"] == sum(ksm["merged"]) / sum(first["ideal"])


def test_chosen_policies(lksm_command: Lksm, workload: Path) -> None:
    """Only policies asked for are run, in that order, each once; without ksm there are no ratios to it."""
    found = simulate(lksm_command, workload, *["--policy", "full", "--policy", "none", "--policy", "full"])
    assert [policy["name"] for policy in found["policies"]] == ["full", "none"]
    assert found["policies"][0]["area_of_ksm"] is found["policies"][0]["visits_of_ksm"] is None
    assert " - " in lksm_command("simulate", workload, "--policy", "none")


def test_bad_usage(lksm_command: Lksm, workload: Path, tmp_path: Path) -> None:
    """Every mistake is one line on standard error and status 2, before anything is simulated."""
    bad = tmp_path / "bad.toml"
    bad.write_text(SMALL.replace("count = 7", "count = 0"))
    (tmp_path / "directory.png").mkdir()
    for arguments, message in [
        ([tmp_path / "missing.toml"], f"{tmp_path}/missing.toml: No such file or directory"),
        ([bad], f"{bad}: apps.count is 0, expected a whole number from 1 to 10000"),
        ([workload, "--policy", "best"], "argument --policy: invalid choice: 'best'"),
        ([workload, "--seed", "-1"], "--seed"),
        (
            [workload, "--plot", "merged.pdf"],
            "'merged.pdf' is no plot file, expected one that ends in .png or .svg",
        ),
        ([workload, "--plot", tmp_path / "no" / "a.png"], "there is no directory"),
        ([workload, "--plot", tmp_path / "directory.png"], "directory.png' cannot be written"),
        ([workload, workload], "unrecognized arguments"),
    ]:
        assert lksm_command("simulate", *arguments) == ""
        assert lksm_command.status == 2
        assert message in lksm_command.err and lksm_command.err.count("\n") == 1


def test_without_matplotlib(lksm_command: Lksm, workload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot that cannot be drawn is refused first, with what to install."""
    monkeypatch.setattr(_plot, "find_spec", lambda name: None)
    assert lksm_command("simulate", workload, "--plot", workload.with_suffix(".svg")) == ""
    assert lksm_command.status == 2
    assert "pip install 'lksm[plot]'" in lksm_command.err


@needs_matplotlib
@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("SVG", b"<?xml")])
def test_a_plot_is_drawn(
    lksm_command: Lksm, workload: Path, tmp_path: Path, suffix: str, magic: bytes
) -> None:
    """The file's format is that of its suffix, and the same results give the same bytes."""
    files = [tmp_path / f"{name}.{suffix}" for name in ("one", "two")]
    for file in files:
        assert lksm_command("simulate", workload, "--policy", "ksm", "--policy", "none", "--plot", file)
        assert (lksm_command.status, lksm_command.err) == (0, "")
    assert files[0].read_bytes().startswith(magic)
    assert files[0].read_bytes() == files[1].read_bytes()


@needs_matplotlib
def test_the_plot_names_its_lines(lksm_command: Lksm, workload: Path, tmp_path: Path) -> None:
    """The legend has the ideal and every policy with its share; nothing tells when it was drawn."""
    file = tmp_path / "merged.svg"
    lksm_command("simulate", workload, "--policy", "partial", "--plot", file)
    text = file.read_text()
    assert "ideal" in text and "partial: " in text and "seed 0" in text
    assert "<dc:date>" not in text


def test_matplotlib_is_not_loaded_without_a_plot(workload: Path) -> None:
    """A run that draws nothing does not spend the time to import it."""
    code = "import sys; from lksm.cli import main; main(sys.argv[1:]); sys.exit('matplotlib' in sys.modules)"
    arguments = ["simulate", str(workload), "--policy", "none"]
    done = subprocess.run([sys.executable, "-P", "-c", code, *arguments], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_names_every_policy(lksm_command: Lksm) -> None:
    """What can be asked for stands in the help, and examples use nothing else."""
    text = lksm_command("simulate", "--help")
    usage, _, examples = text.partition("examples:\n")
    assert all(word in usage for word in examples.split() if word.startswith("--"))
    for word in ("ksm", "periodic", "partial", "full", "none", "phone", "server", "worst", "--plot"):
        assert word in text
