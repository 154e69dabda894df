"""A UDP socket that tells when the kernel received each datagram, on the monotonic clock.

A reader that is late because its process was busy would otherwise show as jitter of the sender.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from arivox.errors import SettingsError

# <asm-generic/socket.h>; the socket module has no name for it before Python 3.14. The same number marks the
# ancillary data, which holds a struct timespec of the realtime clock.
_SO_TIMESTAMPNS: Final = getattr(socket, "SO_TIMESTAMPNS", 35)
_TIMESPEC: Final = struct.Struct("@ll")
_ANCILLARY_SIZE: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_RECEIVE_BUFFER: Final = 1 << 20
_OFFSET_LIFE_S: Final = 1.0

# (datagram, source, monotonic time of arrival in seconds)
Receiver = Callable[[bytes, tuple[str, int], float], None]


class MediaSocket:
    """A bound, non-blocking UDP socket read by the running event loop.

    Raise SettingsError where ``host`` and ``port`` (0: a free one) cannot be bound.
    """

    def __init__(self, host: str, port: int, receiver: Receiver) -> None:
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._offset = 0.0
        self._offset_until = 0.0
        self.unsent = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            self.timestamps = self._enable_timestamps()
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            hint = "Choose a free port of this machine, or 0"
            raise SettingsError(
                "port", f"UDP {host}:{port} cannot be bound: {error.strerror}", hint
            ) from error
        self.address: tuple[str, int] = self._socket.getsockname()
        self._loop.add_reader(self._socket.fileno(), self._read)

    def close(self) -> None:
        """Stop reading and close the socket."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def send(self, data: bytes, destination: tuple[str, int]) -> None:
        """Send a datagram; one that the kernel has no room for is lost and counted in ``unsent``."""
        try:
            self._socket.sendto(data, destination)
        except BlockingIOError:
            self.unsent += 1

    def _enable_timestamps(self) -> bool:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        except OSError:  # not Linux: the time of reading has to do
            return False
        return True

    def _read(self) -> None:
        now = time.monotonic()
        if now > self._offset_until:
            self._offset = realtime_offset()
            self._offset_until = now + _OFFSET_LIFE_S
        while True:
            try:
                data, ancillary, _, source = self._socket.recvmsg(2048, _ANCILLARY_SIZE)
            except BlockingIOError:
                return
            arrival = 0.0
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack_from(content)
                    arrival = seconds + nanoseconds * 1e-9 - self._offset
            if not now - 1.0 < arrival < now + 1.0:  # no timestamp, or the wall clock was set meanwhile
                arrival = time.monotonic()
            self._receiver(data, source, arrival)
            if self._socket.fileno() < 0:
                return


def realtime_offset() -> float:
    """Return how far the realtime clock is ahead of the monotonic one, in seconds.

    Whatever interrupts the two readings makes the difference larger, so the least of a few is the best.
    """
    offsets = []
    for _ in range(3):
        before = time.monotonic()
        offsets.append(time.time() - before)
    return min(offsets)
