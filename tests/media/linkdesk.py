"""An RTP link with everything around it in the test's hands: the clock, the wire and the playout."""

from __future__ import annotations

import socket
from typing import cast

from handpacer import HandPacer

from arivox.audio.format import ULAW
from arivox.media.playout import Playout
from arivox.media.rtp.link import RtpLink
from arivox.media.rtp.packet import RtpPacket, parse
from arivox.media.rtp.ports import PortRange

ASTERISK = ("127.0.0.1", 30000)
STRANGER = ("127.0.0.1", 40000)
SILENCE = ULAW.silence * 160


class Wire:
    """Stands for the socket; writes down what left, and when."""

    def __init__(self, pacer: HandPacer) -> None:
        self.sent: list[tuple[float, RtpPacket]] = []
        self.inbox: list[bytes] = []
        self.failing = False
        self.closed = 0
        self._pacer = pacer

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 12000)

    def fileno(self) -> int:
        return 1_000_000

    def sendto(self, data: bytes, peer: tuple[str, int]) -> None:
        assert peer == ASTERISK
        if self.failing:
            raise OSError(101, "Network is unreachable")
        self.sent.append(((self._pacer.now - self._pacer.time_of(0)) / 0.005, parse(data)))

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        if self.inbox:
            return self.inbox.pop(0), ASTERISK
        raise ConnectionRefusedError if self.failing else BlockingIOError

    def close(self) -> None:
        self.closed += 1


def link_on(wire: Wire, playout: Playout, pacer: HandPacer, ports: PortRange) -> RtpLink:
    return RtpLink(ULAW, playout, pacer, ports, cast(socket.socket, wire), "test")


class Tape:
    """Hears both sides, as the recorder does."""

    def __init__(self) -> None:
        self.callers: list[bytes] = []
        self.agents: list[bytes] = []

    def caller(self, audio: bytes) -> None:
        self.callers.append(audio)

    def agent(self, audio: bytes) -> None:
        self.agents.append(audio)


class Desk:
    """One link with everything around it in the test's hands."""

    def __init__(self, *, peer: tuple[str, int] | None = ASTERISK) -> None:
        self.pacer = HandPacer()
        self.playout = Playout(ULAW)
        self.ports = PortRange("127.0.0.1", 12000, 12010)
        self.wire = Wire(self.pacer)
        self.link = link_on(self.wire, self.playout, self.pacer, self.ports)
        self.link.expect(peer)
        self.heard: list[bytes] = []
        self.tape = Tape()
        self.link.start(self.heard.append, self.tape)
        self.first = self.link.due
        self.made = 0

    def speak(self, frames: int, item: str = "item") -> list[bytes]:
        """Push speech as a call does: all at once, and wake the link if nothing was queued."""
        voice = [b"\x10" + (self.made + n).to_bytes(3, "big") + b"\x20" * 156 for n in range(frames)]
        self.made += frames
        idle = not self.playout.playing
        self.playout.push(item, b"".join(voice))
        if idle:
            self.link.wake()
        return voice

    @property
    def voice(self) -> list[bytes]:
        return [packet.payload for _, packet in self.wire.sent if packet.payload[0] == 0x10]
