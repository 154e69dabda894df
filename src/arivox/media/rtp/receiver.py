"""The caller's audio from Asterisk: who may send, what is accepted, and what was counted. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from arivox.audio.format import AudioFormat
from arivox.errors import ProtocolError
from arivox.media.rtp.jitter import JitterBuffer, JitterCounters
from arivox.media.rtp.packet import PT_COMFORT_NOISE, PT_PCMA, PT_PCMU, parse

Address = tuple[str, int]

PAYLOAD_TYPES: Final = {"ulaw": PT_PCMU, "alaw": PT_PCMA}


@dataclass(slots=True)
class ReceiverCounters:
    """What came from the network."""

    packets: int = 0
    bytes: int = 0
    foreign: int = 0
    """Packets from an address that is not Asterisk's."""
    malformed: int = 0
    other_payload: int = 0
    """Packets of a payload type that this call does not use."""
    jitter: JitterCounters = field(default_factory=JitterCounters)


class RtpReceiver:
    """Takes datagrams, returns the caller's audio in order.

    Only the address that Asterisk named for the channel may send (its ``UNICASTRTP_LOCAL_ADDRESS`` and
    ``_PORT``). Without a named address the first valid packet decides, and the receiver is locked to its
    sender.
    """

    def __init__(self, audio: AudioFormat, peer: Address | None) -> None:
        self.peer = peer
        self.counters = ReceiverCounters()
        self.last_foreign: Address | None = None
        self._payload_type = PAYLOAD_TYPES[audio.name]
        self._jitter = JitterBuffer(audio)
        self.counters.jitter = self._jitter.counters

    def receive(self, data: bytes, source: Address, now: float) -> list[bytes]:
        """Return the audio that is due after this datagram: often one frame, none, or several."""
        if self.peer is not None and source != self.peer:
            self.counters.foreign += 1
            self.last_foreign = source
            return []
        try:
            packet = parse(data)
        except ProtocolError:
            self.counters.malformed += 1
            return []
        if not packet.payload:
            self.counters.malformed += 1
            return []
        if packet.payload_type != self._payload_type:
            if packet.payload_type != PT_COMFORT_NOISE:
                self.counters.other_payload += 1
            return []
        if self.peer is None:
            self.peer = source
        self.counters.packets += 1
        self.counters.bytes += len(packet.payload)
        return self._jitter.push(packet, now)

    def poll(self, now: float) -> list[bytes]:
        """Return audio that waited for a missing packet, or silence if none come. Call it every ptime."""
        return self._jitter.poll(now)

    def idle(self, now: float) -> bool:
        """Return whether ``poll`` has nothing to do yet."""
        return self._jitter.idle(now)

    def late(self, now: float) -> bool:
        """Return whether ``poll`` will put in silence for packets that did not come."""
        return self._jitter.late(now)
