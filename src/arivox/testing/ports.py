"""Free ports of the loopback interface, for servers that must be told their port before they start."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOOPBACK = "127.0.0.1"
ASTERISK_RTP: Final = (27000, 32767)
"""Where our Asterisk has its RTP ports, which it binds call by call: until then they look free."""
LATER: Final = (15000, 19999)
"""Ports that are chosen long before they are bound: nothing falls into them by chance."""
VARIABLE: Final = "ARIVOX_TESTING_UDP_PORTS"
"""FIRST-LAST, for test runs side by side: what one of them is about to bind looks free to the other."""
_RANGE: Final = "20000-26999"


def free_tcp_port(host: str = _LOOPBACK) -> int:
    """Return a TCP port of ``host`` that nobody listens on now. Someone may take it before you do."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def free_udp_port() -> int:
    """Return a UDP port that is free now. Someone may take it before you do."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def tcp_port_free(port: int, host: str = _LOOPBACK) -> bool:
    """Return whether a server could listen on TCP ``port`` of ``host`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return _binds(probe, host, port)


def udp_port_free(port: int, host: str = _LOOPBACK) -> bool:
    """Return whether UDP ``port`` of ``host`` could be bound now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return _binds(probe, host, port)


def free_port(host: str = _LOOPBACK) -> int:
    """Return a port of ``host`` that is free for TCP and UDP now, as SIP wants it."""
    while True:
        port = free_tcp_port(host)
        if udp_port_free(port, host):
            return port


def free_udp_range(size: int, among: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the bounds, both inside, of ``size`` UDP ports that begin at an even one and are free now.

    They lie in ``among``; without it in a range below Linux's ephemeral ports and those of our Asterisk, so
    that no other socket falls into them by chance. Raises OSError where no such range is found.
    """
    if among is None:
        low, _, high = os.environ.get(VARIABLE, _RANGE).partition("-")
        among = int(low), int(high)
    first, last = among
    starts = list(range(first + first % 2, last - size + 2, 2))
    for start in random.sample(starts, len(starts)):
        if all(udp_port_free(port) for port in range(start, start + size)):
            return start, start + size - 1
    raise OSError(f"no {size} free UDP ports in a row in {first}-{last} on {_LOOPBACK}")


def udp_ports_of_this_process() -> set[int]:
    """Return the UDP ports (IPv4) that this process has bound, from ``/proc``."""
    descriptors = Path("/proc/self/fd")
    ours = set()
    for descriptor in descriptors.iterdir():
        with suppress(OSError):  # closed meanwhile
            ours.add(os.readlink(descriptor))
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in ours}


def _binds(probe: socket.socket, host: str, port: int) -> bool:
    try:
        probe.bind((host, port))
    except OSError:
        return False
    return True
