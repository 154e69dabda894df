from __future__ import annotations

import socket

import pytest

from arivox.testing import ports


def test_a_taken_port_is_not_free() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert not ports.tcp_port_free(port)
    assert ports.tcp_port_free(port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        assert not ports.udp_port_free(port)
    assert ports.udp_port_free(port)


def test_ports_that_are_handed_out_can_be_bound() -> None:
    assert ports.tcp_port_free(ports.free_tcp_port())
    assert ports.udp_port_free(ports.free_udp_port())
    port = ports.free_port()
    assert ports.tcp_port_free(port)
    assert ports.udp_port_free(port)


def test_a_range_goes_around_what_is_taken() -> None:
    first, last = ports.free_udp_range(10)
    assert first % 2 == 0
    assert last == first + 9
    assert last < ports.ASTERISK_RTP[0], "a port that Asterisk may bind at any moment is not free"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", first + 3))
        found = {ports.free_udp_range(4, (first, last)) for _ in range(50)}
    assert found == {(first + 4, first + 7), (first + 6, last)}


def test_no_such_range() -> None:
    first, last = ports.free_udp_range(4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", first))
        with pytest.raises(OSError, match=f"no 4 free UDP ports in a row in {first}-{last}"):
            ports.free_udp_range(4, (first, last))
