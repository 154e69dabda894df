"""The port range on loopback: even ports, each to one call, late packets kept from the next one."""

from __future__ import annotations

import socket

import pytest

from arivox.errors import PortsExhaustedError, SettingsError
from arivox.media.rtp.ports import PortRange
from arivox.testing.ports import free_udp_range


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


@pytest.fixture
def bounds() -> tuple[int, int]:
    return free_udp_range(8)


def test_ports_are_even_distinct_and_run_out(bounds: tuple[int, int]) -> None:
    ports = PortRange("127.0.0.1", *bounds)
    sockets = [ports.bind() for _ in range(4)]
    try:
        assert [port_of(sock) for sock in sockets] == list(range(bounds[0], bounds[1] + 1, 2))
        assert not any(sock.getblocking() for sock in sockets)
        assert ports.in_use == 4
        with pytest.raises(PortsExhaustedError, match=f"{bounds[0]}-{bounds[1]}.*RTP_SERVER_PORT_LAST"):
            ports.bind()
        assert ports.in_use == 4
    finally:
        for sock in sockets:
            sock.close()


def test_freed_port_comes_back_last(bounds: tuple[int, int]) -> None:
    ports = PortRange("127.0.0.1", *bounds)
    seen = []
    for _ in range(6):
        sock = ports.bind()
        seen.append(port_of(sock))
        sock.close()
        ports.release(seen[-1])
    assert [port - bounds[0] for port in seen] == [0, 2, 4, 6, 0, 2]
    assert ports.in_use == 0


def test_port_is_kept_from_others_until_it_is_given_back(bounds: tuple[int, int]) -> None:
    ports = PortRange("127.0.0.1", *bounds)
    held = ports.bind()
    held.close()  # as a call does before it has counted its last packets
    for _ in range(5):
        with ports.bind() as sock:
            assert port_of(sock) != bounds[0]
            ports.release(port_of(sock))


def test_port_of_another_program_is_passed_over(bounds: tuple[int, int]) -> None:
    ports = PortRange("127.0.0.1", *bounds)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", bounds[0] + 2))
        sockets = [ports.bind() for _ in range(3)]
        try:
            assert bounds[0] + 2 not in map(port_of, sockets)
            with pytest.raises(PortsExhaustedError):
                ports.bind()
        finally:
            for sock in sockets:
                sock.close()


def test_range_of_one_port() -> None:
    first, _ = free_udp_range(2)
    ports = PortRange("127.0.0.1", first, first)
    with ports.bind() as sock:
        assert port_of(sock) == first
        with pytest.raises(PortsExhaustedError):
            ports.bind()
    ports.release(first)
    ports.release(first)
    with ports.bind() as sock:
        assert port_of(sock) == first


@pytest.mark.parametrize("host", ["192.0.2.1", "::1", "not a host"])
def test_address_of_another_machine_is_a_wrong_setting(host: str, bounds: tuple[int, int]) -> None:
    ports = PortRange(host, *bounds)
    with pytest.raises(SettingsError, match="cannot bind") as caught:
        ports.bind()
    assert caught.value.setting == "RTP_SERVER_IP"
    assert host in str(caught.value)
    assert ports.in_use == 0
