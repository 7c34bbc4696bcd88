"""Pages of others stay in memory: this program is never dumped to disk with them."""

from __future__ import annotations

import resource
from contextlib import suppress

_NONE_TO_PIPES_EITHER = 1
"""Bytes of a core dump. No file is so small; and a program that takes dumps through a pipe, which the kernel
starts whatever the limit is, it does not start with this one."""


def keep_out_of_dumps() -> None:
    """From now on a crash of this program leaves no core dump. Programs it starts inherit that."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = _NONE_TO_PIPES_EITHER if most == resource.RLIM_INFINITY else min(_NONE_TO_PIPES_EITHER, most)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (least, most))
