"""How the command line ends: its exit status, one line for each error, and never a traceback."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

import lksm
import lksm_command
from helpers import pages
from live_child import Child
from lksm.cli import _interrupt
from run_lksm import PROGRAM, Lksm, run, start


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pages("a a b").tofile(tmp_path / "a.raw")
    return tmp_path / "a.raw"


def test_the_installed_command_is_main() -> None:
    """The package installs `lksm` as this function, which runs `lksm.cli.main`."""
    [script] = importlib.metadata.entry_points(group="console_scripts", name="lksm")
    assert script.load() is lksm_command.main


def test_version(lksm_command: Lksm) -> None:
    """`lksm --version` prints name and version."""
    assert lksm_command("--version") == f"lksm {lksm.__version__}\n"
    assert lksm_command.status == 0


@pytest.mark.parametrize("command", [[], ["scan"], ["explain"]])
def test_help_has_examples(lksm_command: Lksm, command: list[str]) -> None:
    """Every --help goes to standard output, shows examples that begin with lksm, and succeeds."""
    text = lksm_command(*command, "--help")
    assert (lksm_command.status, lksm_command.err) == (0, "")
    assert text.startswith("usage: lksm")
    assert text.partition("examples:\n")[2].startswith("  lksm ")


def test_every_option_of_the_examples_exists(lksm_command: Lksm) -> None:
    """The options that examples use are those the help lists."""
    for command in ("scan", "explain", "simulate"):
        usage, _, examples = lksm_command(command, "--help").partition("examples:\n")
        for word in examples.split():
            assert not word.startswith("--") or word in usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command, expected scan, watch, explain, simulate or compare"),
        (["frobnicate"], "'frobnicate' is no command"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["scan"], "nothing to scan"),
        (["scan", "--frobnicate", "IMAGE"], "unrecognized arguments: --frobnicate"),
        (["scan", "--ver", "IMAGE"], "unrecognized arguments: --ver"),
        (["scan", "--top", "-1", "IMAGE"], "--top"),
        (["scan", "--top", "many", "IMAGE"], "'many' is no number from 0"),
        (["scan", "--rounds", "0", "IMAGE"], "'0' is no number from 1"),
        (["scan", "--interval", "nan", "IMAGE"], "'nan' is no number of seconds"),
        (["scan", "--interval", "-1", "IMAGE"], "--interval"),
        (["scan", "--limit", "1.5G", "IMAGE"], "'1.5G' is no size"),
        (["scan", "--page-size", "4095", "IMAGE"], "'4095' is no page size, expected a power of two"),
        (["scan", "--page-size", "32", "IMAGE"], "'32' is no page size"),
        (["scan", "--max-page-sharing", "1", "IMAGE"], "'1' is no number from 2 to 2147483647"),
        (["scan", "--pid", "0"], "'0' is no process id"),
        (["scan", "--pid", "1", "IMAGE"], "is no process id (sources go before --pid)"),
        (["scan", "--page-size", "64", "--pid", "1"], "page size 64, live processes have pages of"),
        (["scan", "--what", "some", "--all"], "invalid choice: 'some'"),
        (["explain", "IMAGE"], "--address"),
        (["explain", "--address", "0x0"], "nothing to explain"),
        (["explain", "--address", "zero", "IMAGE"], "'zero' is no address"),
        (["explain", "--address", "-4096", "IMAGE"], "--address"),
        (["explain", "--address", "0x10000000000000000", "IMAGE"], "is no address"),
    ],
)
def test_bad_usage(lksm_command: Lksm, image: Path, arguments: list[str], message: str) -> None:
    """Bad usage is one line on standard error that names what is wrong, and status 2."""
    out = lksm_command(*(str(image) if word == "IMAGE" else word for word in arguments))
    assert (lksm_command.status, out) == (2, "")
    assert lksm_command.err.startswith("lksm: ") and lksm_command.err.count("\n") == 1
    assert message in lksm_command.err


def test_a_refused_source_among_others(lksm_command: Lksm, image: Path, tmp_path: Path) -> None:
    """With one source refused the others are done: status 1, the reason on one line and in the report."""
    (tmp_path / "empty").touch()
    found = lksm_command.scan(tmp_path / "empty", image, tmp_path, tmp_path / "missing")
    assert lksm_command.status == 1
    assert [row["source"] for row in found["processes"]] == [str(image)]
    assert found["refused"] == [
        {"source": str(tmp_path / "empty"), "reason": "is empty, expected at least one page"},
        {"source": str(tmp_path), "reason": "is a directory, expected a file"},
        {"source": str(tmp_path / "missing"), "reason": "No such file or directory"},
    ]
    assert lksm_command.err.splitlines() == [
        f"lksm: {item['source']}: {item['reason']}" for item in found["refused"]
    ]


def test_nothing_usable(lksm_command: Lksm, tmp_path: Path) -> None:
    """Without any usable source nothing is printed but the reasons, and the status is 2."""
    (tmp_path / "tiny").write_bytes(b"tiny")
    (tmp_path / "zip").write_bytes(b"PK\3\4" + bytes(5000))
    for command in (["scan"], ["scan", "--json"], ["explain", "--address", "0"]):
        assert lksm_command(*command, tmp_path / "tiny", tmp_path / "zip") == ""
        assert lksm_command.status == 2
        assert [line.startswith("lksm: ") for line in lksm_command.err.splitlines()] == [True, True]


def test_a_fifo_does_not_block(lksm_command: Lksm, tmp_path: Path) -> None:
    """A FIFO is refused at once, not waited for."""
    os.mkfifo(tmp_path / "fifo")
    lksm_command("scan", tmp_path / "fifo")
    assert (lksm_command.status, lksm_command.err) == (
        2,
        f"lksm: {tmp_path / 'fifo'}: is a FIFO, expected a file\n",
    )


def test_a_path_with_a_null_byte(lksm_command: Lksm, image: Path) -> None:
    """A path that cannot exist is refused like any other."""
    found = lksm_command.scan("a\0b", image)
    assert (lksm_command.status, len(found["refused"])) == (1, 1)


def test_json_and_errors_do_not_mix(image: Path, tmp_path: Path) -> None:
    """As a program: one line of JSON on standard output, errors on standard error, status 1."""
    done = run("scan", "--json", image, tmp_path / "missing")
    assert done.returncode == 1
    assert json.loads(done.stdout)["saved_bytes"] == 4096
    assert done.stdout.count("\n") == 1
    assert done.stderr == f"lksm: {tmp_path / 'missing'}: No such file or directory\n"


def test_a_reader_who_stops_reading(tmp_path: Path) -> None:
    """A closed pipe is no error and leaves no traceback, however much there was to say."""
    pages(" ".join(f"u{i} u{i}" for i in range(3000))).tofile(tmp_path / "a")
    process = start("scan", "--json", "--top", 0, tmp_path / "a")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(100).startswith('{"version"')
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("command", [["--version"], ["--help"], ["scan", "--help"], ["scan", "IMAGE"]])
def test_no_standard_output(image: Path, command: list[str]) -> None:
    """With standard output closed or full there is one line that says so, and status 2."""
    arguments = [str(image) if word == "IMAGE" else word for word in command]
    for redirection in (">&-", ">/dev/full"):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {redirection}', "sh", *PROGRAM, *arguments],
            stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith("lksm: standard output: ")


def test_no_standard_error(image: Path, tmp_path: Path) -> None:
    """With standard error closed the status alone tells."""
    done = subprocess.run(
        ["sh", "-c", '"$@" 2>&-', "sh", *PROGRAM, "scan", "--json", image, tmp_path / "missing"],
        stdout=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["saved_bytes"]) == (1, 4096)


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c(as_json: bool) -> None:
    """Ctrl-C between rounds ends with 130: what was known is printed as text, never as half an object."""
    with Child("m = private(8)\nfor page in range(8): fill(m, page, 1)") as child:
        options = ["--json"] if as_json else []
        process = start("scan", "--pid", child.pid, "--rounds", 9, "--interval", 600, *options)
        _wait_until_asleep(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "lksm: interrupted\n")
    assert out == "" if as_json else out.startswith("Interrupted; what was known by then:\n1 process, ")


def _wait_until_asleep(pid: int) -> None:
    """Until a process has used no CPU for a while, because it waits for the next round."""
    deadline, since, used = time.monotonic() + 60, time.monotonic(), -1.0
    while time.monotonic() - since < 1:
        assert time.monotonic() < deadline, "waited for 60 s"
        process = psutil.Process(pid)
        now = sum(process.cpu_times())
        if now != used or process.status() != psutil.STATUS_SLEEPING:
            since, used = time.monotonic(), now
        time.sleep(0.05)


@pytest.mark.parametrize("where", ["loading", "scanning", "reporting"])
def test_ctrl_c_anywhere(
    lksm_command: Lksm, image: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Ctrl-C while loading, scanning or reporting ends with 130 as well; a scan tells what it knew."""
    place = {
        "loading": "lksm.cli.scan.load_sources",
        "scanning": "lksm.engine.Engine.scan",
        "reporting": "lksm.cli.scan.as_text",
    }[where]

    def interrupt(*_: object, **__: object) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 1

    monkeypatch.setattr(place, interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        out = lksm_command("scan", image)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (lksm_command.status, lksm_command.err) == (130, "lksm: interrupted\n")
    assert out.startswith("Interrupted") if where == "scanning" else out == ""


def test_ctrl_c_is_held_back() -> None:
    """Within `held` Ctrl-C waits for the end of the block; the handler is then as before."""
    done = []

    def interrupt_and_go_on() -> None:
        with _interrupt.held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("the rest of the block")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt_and_go_on()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["the rest of the block"]


def test_ignored_ctrl_c_stays_ignored() -> None:
    """Where Ctrl-C is ignored `held` does not make it count."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _interrupt.held():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_running_out_of_memory_is_one_line(
    lksm_command: Lksm, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory, ours or the core's, is an error like others."""

    def fail(*_: object, **__: object) -> None:
        raise error

    for error in (MemoryError(), lksm.OutOfMemory("no memory for a region")):
        monkeypatch.setattr("lksm.engine.Engine.attach", fail)
        lksm_command("scan", image)
        expected = str(error) or "out of memory"
        assert (lksm_command.status, lksm_command.err) == (2, f"lksm: {expected}\n")


_BROKEN = """
import sys
from importlib.machinery import ModuleSpec
wanted, sys.argv = sys.argv[1:], ["lksm", "scan", "/dev/null"]

class Broken:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name == wanted[0] else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        raise eval(wanted[1])

def told(error, cause):
    error.__cause__ = cause
    return error

sys.meta_path.insert(0, Broken())
from lksm_command import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "error", "expected"),
    [
        ("lksm._lksm", "ModuleNotFoundError('none')", "no compiled core beside "),
        ("lksm._lksm", "ImportError('_lksm.so: failed to map segment')", "_lksm.so: failed to map segment\n"),
        ("numpy", "ModuleNotFoundError(\"No module named 'numpy'\")", "No module named 'numpy'\n"),
        ("numpy", "told(ImportError('Please\\nread'), ImportError('libblas.so: no'))", "libblas.so: no\n"),
        ("numpy", "told(ImportError('Please\\nread'), MemoryError())", "out of memory\n"),
        ("numpy", "ImportError('\\n\\na long\\nstory\\n')", "a long\n"),
        ("numpy", "MemoryError", "out of memory\n"),
        (
            "numpy",
            "OSError(12, 'Cannot allocate memory', '/lib/numpy')",
            "/lib/numpy: Cannot allocate memory\n",
        ),
        ("lksm.cli.scan", "ImportError('scan: failed to map segment')", "scan: failed to map segment\n"),
    ],
)
def test_lksm_cannot_be_imported(module: str, error: str, expected: str) -> None:
    """A broken installation, or no memory for importing, is one line that says so, and status 2."""
    command = [sys.executable, "-P", "-c", _BROKEN, module, error]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"lksm: {expected}")


def test_what_a_scan_of_a_file_imports(image: Path) -> None:
    """Scanning an image imports neither rich, psutil nor pyelftools, and nor does `import lksm`."""
    watch = "print(sorted({'rich', 'psutil', 'elftools'} & sys.modules.keys()), file=sys.stderr)"
    scan = f"from lksm.cli import main; main(['scan', {str(image)!r}])"
    for text in ("import lksm", scan):
        program = [sys.executable, "-P", "-c", f"import sys; {text}; {watch}"]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == "[]\n"


def test_python_m_lksm() -> None:
    """`python -m lksm` is `lksm`."""
    command = [sys.executable, "-P", "-m", "lksm", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lksm", lksm.__version__]
