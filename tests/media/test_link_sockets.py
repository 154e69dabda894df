"""The RTP link on real sockets of the loopback interface."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from arivox.audio.format import ULAW
from arivox.errors import PortsExhaustedError
from arivox.media.clock import Pacer
from arivox.media.playout import Playout
from arivox.media.rtp.link import RtpLink
from arivox.media.rtp.packet import RtpPacket, build, parse
from arivox.media.rtp.ports import PortRange
from arivox.testing.ports import free_udp_range

SILENCE = ULAW.silence * 160


class Far(asyncio.DatagramProtocol):
    """Asterisk's end of the sockets."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[RtpPacket] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.arrived.put_nowait(parse(data))

    @property
    def address(self) -> tuple[str, int]:
        assert self.transport is not None
        return cast(tuple[str, int], self.transport.get_extra_info("sockname"))


async def far_end() -> Far:
    far = Far()
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: far, local_addr=("127.0.0.1", 0))
    return far


async def test_over_loopback_with_the_real_pacer() -> None:
    pacer, playout = Pacer(), Playout(ULAW)
    ports = PortRange("127.0.0.1", *free_udp_range(4))
    far, stranger = await far_end(), await far_end()
    link = RtpLink.open(ULAW, playout, pacer, ports)
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    link.expect(far.address)
    link.start(heard.put_nowait)
    async with asyncio.timeout(10):
        assert (await far.arrived.get()).payload == SILENCE
        playout.push("item", b"\x10" * 800)
        link.wake()
        while (first := await far.arrived.get()).payload == SILENCE:
            pass  # of the time before
        packets = [first] + [await far.arrived.get() for _ in range(7)]
        voice = [packet for packet in packets if packet.payload == b"\x10" * 160]
        assert len(voice) == 5
        assert voice[0].marker
        assert [packet.seq for packet in packets] == [
            (packets[0].seq + step) & 0xFFFF for step in range(len(packets))
        ]
        assert playout.heard_ms("item") == 100
        assert far.transport is not None
        assert stranger.transport is not None
        stranger.transport.sendto(build(0, False, 9, 0, 1, b"\x13" * 160), ("127.0.0.1", link.port))
        far.transport.sendto(build(0, False, 9, 0, 1, b"\x12" * 160), ("127.0.0.1", link.port))
        while (frame := await heard.get()) != b"\x12" * 160:
            assert frame == SILENCE
        while not link.counters()["rtp_foreign"]:
            await heard.get()  # a frame of silence every 20 ms
    await link.close()
    await link.close()
    assert ports.in_use == 0
    far.transport.close()
    stranger.transport.close()


async def test_closed_link_has_freed_its_port() -> None:
    first, _ = free_udp_range(2)
    ports = PortRange("127.0.0.1", first, first)
    link = RtpLink.open(ULAW, Playout(ULAW), Pacer(), ports)
    await link.close()
    again = RtpLink.open(ULAW, Playout(ULAW), Pacer(), ports)
    await again.close()


async def test_no_port_leaves_nothing_behind() -> None:
    first, _ = free_udp_range(2)
    ports = PortRange("127.0.0.1", first, first)
    link = RtpLink.open(ULAW, Playout(ULAW), Pacer(), ports)
    with pytest.raises(PortsExhaustedError):
        RtpLink.open(ULAW, Playout(ULAW), Pacer(), ports)
    await link.close()
    assert ports.in_use == 0
