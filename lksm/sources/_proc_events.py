"""Starts of processes, told by the kernel: the process connector, a netlink socket.

Needs the first user and pid namespaces, and CAP_NET_ADMIN before Linux 6.6, or nothing is told;
`open_connector` finds that out by waiting for the kernel's answer. Kernel: driver-api/connector.rst, CN_PROC.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

_NETLINK_CONNECTOR = 11
_CN_PROC = 1  # both the multicast group and the connector's id (index and value are 1)
_LISTEN, _IGNORE = 1, 2
_DONE = 3  # NLMSG_DONE, the type of every message here
_FORK = 1
_ACKNOWLEDGED = 0

_NETLINK = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_CONNECTOR = struct.Struct("=IIIIHH")  # id: index and value; sequence, acknowledgement, length, flags
_EVENT = struct.Struct("=IIQ")  # what, cpu, nanoseconds; then data by kind
_FORKED = struct.Struct("=IIII")  # of the parent pid and tgid, of the child pid and tgid
_DATA = _NETLINK.size + _CONNECTOR.size

_ANSWER_SECONDS = 0.5
_RECEIVE_BYTES = 1 << 20
_MESSAGE_BYTES = 1 << 12


class Said(NamedTuple):
    """One event: its kind, the number of our request it answers, and the pid of the process that started."""

    what: int
    answers: int
    started: int | None


class Started(NamedTuple):
    """Processes that started; `is_lost`: there were more, but they came faster than they were read."""

    pids: list[int]
    is_lost: bool


def request(operation: int, number: int, *, only: int | None = None) -> bytes:
    """The message that begins or ends listening; with `only`, to that kind of event (Linux 6.6)."""
    body = struct.pack("=I", operation) if only is None else struct.pack("=II", operation, only)
    head = _CONNECTOR.pack(_CN_PROC, _CN_PROC, 0, number, len(body), 0)
    size = _NETLINK.size + len(head) + len(body)
    return _NETLINK.pack(size, _DONE, 0, 0, 0) + head + body


def parse(message: bytes) -> Iterator[Said]:
    """The events of one datagram. A thread that starts has no `started`: it is no process."""
    offset = 0
    while offset + _DATA + _EVENT.size <= len(message):
        length = _NETLINK.unpack_from(message, offset)[0]
        index, value, _, answers, _, _ = _CONNECTOR.unpack_from(message, offset + _NETLINK.size)
        if (index, value) == (_CN_PROC, _CN_PROC):
            what, _, _ = _EVENT.unpack_from(message, offset + _DATA)
            started = None
            if what == _FORK:
                _, _, pid, group = _FORKED.unpack_from(message, offset + _DATA + _EVENT.size)
                started = group if pid == group else None
            yield Said(what, answers, started)
        offset += max(length + 3 & ~3, _NETLINK.size)


class Connector:
    """A socket on which the kernel tells every process that starts."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Started:
        """The processes that started since, in order."""
        pids: list[int] = []
        is_lost = False
        while True:
            try:
                message, sender = self._socket.recvfrom(_MESSAGE_BYTES)
            except BlockingIOError:
                return Started(pids, is_lost)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise  # untested: errors that no kernel of the tests gives
                is_lost = True
                continue
            if sender[0] == 0:  # the kernel; any process may send to a netlink group it may join
                pids.extend(said.started for said in parse(message) if said.started is not None)

    def close(self) -> None:
        """The kernel counts its listeners, so it is told, too."""
        with contextlib.suppress(OSError):
            self._socket.send(request(_IGNORE, 0))
        self._socket.close()


def open_connector() -> Connector | None:
    """Listen to starts of processes; None if the kernel does not tell them to us."""
    listening: socket.socket | None = None
    try:
        listening = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_CONNECTOR
        )
        listening.setblocking(False)
        listening.bind((0, _CN_PROC))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        number = int.from_bytes(os.urandom(3), "little")
        listening.send(request(_LISTEN, number))
        if _is_answered(listening, number):
            listening.send(request(_LISTEN, number, only=_FORK))  # older kernels ignore it and tell all
            return Connector(listening)
    except OSError:
        pass
    if listening is not None:
        listening.close()
    return None


def _is_answered(listening: socket.socket, number: int) -> bool:
    """Did the kernel say that it heard us? Events of others may come first."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    while select.select([listening], [], [], max(deadline - time.monotonic(), 0))[0]:
        message, sender = listening.recvfrom(_MESSAGE_BYTES)
        # untested: events of others that come first
        if any(said.what == _ACKNOWLEDGED and said.answers == number + 1 for said in parse(message)):
            return sender[0] == 0 and _error_of(message) == 0
    return False  # untested: a kernel that does not answer


def _error_of(message: bytes) -> int:
    return int(struct.unpack_from("=I", message, _DATA + _EVENT.size)[0])
