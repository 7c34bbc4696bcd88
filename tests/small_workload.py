"""A workload small enough for tests: everything happens in it, in half a minute of virtual time."""

from __future__ import annotations

from lksm.simulation.workload import Workload, parse

SMALL = """\
title = "small"
page_size = 256
duration_ms = 30_000
sample_ms = 500
tick_ms = 100

[memory]
zero = 8
framework = 24
library = 4
libraries = 4
libraries_each = 2
private = 40

[apps]
count = 7
resident = 5
at_once = 2
foreground_ms = 1500
foreground_spread = 0.5
popularity = 0.5
freeze_after_ms = 300
exit_share = 0.1

[writes]
foreground = 60
background = 10
hot_share = 0.5
hot_common_share = 0.2
common_share = 0.3

[services]
count = 2
writes = 10

[helpers]
every_ms = 1000
live_ms = 300

[restarts]
every_ms = 7000
apps = 2
changed_share = 0.3
"""


def small(*changes: tuple[str, str]) -> Workload:
    """The small workload, with some of its text replaced."""
    text = SMALL
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse(text.encode(), "small")
