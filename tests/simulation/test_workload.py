"""Parameters of a simulation: what a TOML file may say, and what it is told when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lksm import SourceError
from lksm.simulation.workload import SHIPPED, load
from small_workload import SMALL, small


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_workloads_are_sound(name: str) -> None:
    """Every shipped workload can be read, and runs at the kernel's defaults."""
    workload = load(name)
    assert workload.title.startswith(name)
    assert dict(workload.engine) == {"pages_to_scan": 100, "sleep_millisecs": 20}
    assert workload.page_size == 4096
    assert workload.duration_ms % workload.sample_ms == 0


def test_the_sizes_that_were_promised() -> None:
    """The phone has 20 apps, the server 200 containers that are restarted in waves."""
    assert load("phone").apps.count == 20
    server = load("server")
    assert server.apps.count == server.apps.resident == 200
    assert server.restarts.every_ms > 0


def test_a_path_is_read(tmp_path: Path) -> None:
    """What is no shipped name is a path."""
    (tmp_path / "mine.toml").write_text(SMALL)
    assert load(str(tmp_path / "mine.toml")) == small()
    with pytest.raises(SourceError, match="No such file"):
        load(str(tmp_path / "missing.toml"))


def test_tables_that_may_be_left_out() -> None:
    """Without services, helpers and restarts there are none."""
    workload = small((SMALL[SMALL.index("[services]") :], ""))
    assert (workload.services.count, workload.helpers.every_ms, workload.restarts.every_ms) == (0, 0, 0)
    assert workload.engine == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("zero = 8", "zero = -1", "memory.zero is -1, expected a whole number from 0 to 1048576"),
        ("zero = 8", "zero = 1.5", "memory.zero is 1.5, expected a whole number from 0 to 1048576"),
        ("zero = 8", "zero = true", "memory.zero is True, expected a whole number from 0 to 1048576"),
        ("zero = 8", "zero = '8'", "memory.zero is '8', expected a whole number from 0 to 1048576"),
        ("zero = 8\n", "", "memory.zero is missing"),
        ("private = 40", "private = 0", "memory.private is 0, expected a whole number from 1 to 1048576"),
        ("private = 40", "private = 1048570", "memory has 1048610 pages, expected at most 1048576"),
        ("private = 40", "privat = 40", "memory.privat is unknown, expected one of zero, framework, library, "
         "libraries, libraries_each, private"),
        ("libraries_each = 2", "libraries_each = 5",
         "memory.libraries_each is 5, expected at most memory.libraries, which is 4"),
        ("exit_share = 0.1", "exit_share = 1.1", "apps.exit_share is 1.1, expected a number from 0 to 1"),
        ("exit_share = 0.1", "exit_share = nan", "apps.exit_share is nan, expected a number from 0 to 1"),
        ("count = 7", "count = 4", "apps.resident is 5, expected at most apps.count, which is 4"),
        ("at_once = 2", "at_once = 6", "apps.at_once is 6, expected at most apps.resident, which is 5"),
        ("count = 7\nresident = 5\nat_once = 2", "count = 3\nresident = 3\nat_once = 3",
         "apps.at_once is 3, expected less than apps.count: apps take turns"),
        ("apps = 2", "apps = 8", "restarts.apps is 8, expected at most apps.count, which is 7"),
        ("sample_ms = 500", "sample_ms = 30001",
         "sample_ms is 30001, expected at most duration_ms, which is 30000"),
        ("page_size = 256", "page_size = 300",
         "page_size is 300, expected a power of two from 64 to 1048576"),
        ("page_size = 256", "page_size = 32", "page_size is 32, expected a whole number from 64 to 1048576"),
        ("page_size = 256", "pagesize = 256", "pagesize is unknown, expected one of duration_ms, page_size, "
         "sample_ms, tick_ms"),
        ('title = "small"', "title = 5", "title is 5, expected a text"),
        ('title = "small"\n', "", "title is missing"),
        ("[services]", "[engine]\nscan_boost = 99\n[services]",
         "engine.scan_boost is 99, expected 100 to 10000"),
        ("[services]", "[engine]\nrun = 1\n[services]", "engine.run is unknown, expected one of "),
        ("[services]", "[engine]\npages = 1\n[services]", "engine.pages is unknown, expected one of "),
        ("[services]", "[servants]", "servants is unknown, expected one of "),
        ("[services]\ncount = 2\nwrites = 10\n", "[[services]]\ncount = 2\n",
         "services is [{'count': 2}], expected a table"),
        ('title = "small"', "title =", "Invalid value (at line 1, column 8)"),
    ],
)  # fmt: skip
def test_errors_name_key_value_and_range(old: str, new: str, message: str) -> None:
    """A wrong file is refused in one line that says which key, which value, and what was expected."""
    with pytest.raises(SourceError) as caught:
        small((old, new))
    assert str(caught.value).startswith(f"small: {message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are refused with their place."""
    (tmp_path / "image").write_bytes(b"title\xff")
    with pytest.raises(SourceError, match="is no UTF-8 text, byte 5 is 0xff"):
        load(str(tmp_path / "image"))
