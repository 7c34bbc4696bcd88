"""A process held by a pidfd: its end is an event, and its pid cannot come to mean another one unnoticed."""

from __future__ import annotations

import errno
import os
import select
from dataclasses import dataclass

from ._procfs import Status, read_status

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOSYS, errno.ENOMEM)


@dataclass(frozen=True)
class Held:
    """A process that lives. fd: becomes readable when it ends; None if no descriptor could be had."""

    fd: int | None
    status: Status

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)


def hold(pid: int) -> Held:
    """Take hold of a process; ProcessLookupError if there is none, or only its zombie."""
    fd = _open(pid)
    try:
        status = read_status(pid)
        is_over = status.state in "ZX" or (fd is not None and has_ended(fd))  # else it lived while we read
    except FileNotFoundError:  # untested: it ends between two looks
        is_over = True
    except BaseException:
        _close(fd)
        raise
    if is_over:
        _close(fd)
        raise ProcessLookupError(errno.ESRCH, "there is no such process")
    return Held(fd, status)


def has_ended(fd: int) -> bool:
    """Has the process of a pidfd ended?"""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except AttributeError:  # Python was built where the system had none
        return None  # untested: kernels before 5.3
    except OSError as error:
        if error.errno in _NO_ROOM:
            return None
        raise ProcessLookupError(error.errno, "there is no such process") from error


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
