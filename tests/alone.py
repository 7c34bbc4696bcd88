"""One test at a time that looks at the kernel's knobs, whatever the number of workers.

The driver's own lock keeps two users from driving, but a test that compares knobs before and after must not
see those of another one either.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone() -> Iterator[None]:
    """Within the block no other test is in such a block."""
    path = Path(tempfile.gettempdir()) / f"lksm-tests-{os.getuid()}.lock"
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
