"""The range of UDP ports for RTP: each call has its own socket."""

from __future__ import annotations

import errno
import socket

from arivox.errors import PortsExhaustedError, SettingsError


class PortRange:
    """Hands out bound sockets on even ports of a range, oldest freed first.

    Going round the range, rather than taking the lowest free port, keeps late packets of an ended call away
    from the next one.
    """

    def __init__(self, host: str, first: int, last: int) -> None:
        self.host = host
        self.first = first
        self.last = last
        self._ports = list(range(first, last + 1, 2))
        self._in_use: set[int] = set()
        self._next = 0

    @property
    def in_use(self) -> int:
        """Return how many ports calls hold."""
        return len(self._in_use)

    def bind(self) -> socket.socket:
        """Return a non-blocking UDP socket bound to a free port.

        Raises PortsExhaustedError when no port is free, SettingsError when the host cannot be bound.
        """
        for _ in range(len(self._ports)):
            port = self._ports[self._next]
            self._next = (self._next + 1) % len(self._ports)
            if port in self._in_use:
                continue
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                sock.bind((self.host, port))
            except OSError as error:
                sock.close()
                if error.errno == errno.EADDRINUSE:
                    continue
                raise SettingsError(
                    "RTP_SERVER_IP",
                    f"cannot bind {self.host}:{port} ({error.strerror})",
                    "It must be an address of this machine, or 0.0.0.0.",
                ) from error
            sock.setblocking(False)
            self._in_use.add(port)
            return sock
        raise PortsExhaustedError(self.first, self.last)

    def release(self, port: int) -> None:
        """Give a port back."""
        self._in_use.discard(port)
