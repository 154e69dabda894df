"""The agent's audio to Asterisk as one continuous RTP stream. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from arivox.audio.format import AudioFormat
from arivox.media.rtp.packet import build
from arivox.media.rtp.receiver import PAYLOAD_TYPES


@dataclass(slots=True)
class SenderCounters:
    """What was sent."""

    packets: int = 0
    bytes: int = 0
    voice: int = 0
    """Packets that carried the agent's voice; the others carried silence."""
    spurts: int = 0
    """Times the agent began to speak."""


class RtpSender:
    """Numbers and stamps frames. Sequence and timestamp never jump, except over time given up in a stall."""

    def __init__(self, audio: AudioFormat) -> None:
        self.counters = SenderCounters()
        self._payload_type = PAYLOAD_TYPES[audio.name]
        self._sample_bytes = audio.sample_bytes
        self._seq = random.getrandbits(16)
        self._timestamp = random.getrandbits(32)
        self._ssrc = random.getrandbits(32)
        self._speaking = False

    def packet(self, frame: bytes, *, voice: bool) -> bytes:
        """Return the datagram of the next frame. The marker is set where the agent begins to speak."""
        marker = voice and not self._speaking
        self._speaking = voice
        counters = self.counters
        counters.packets += 1
        counters.bytes += len(frame)
        if voice:
            counters.voice += 1
            if marker:
                counters.spurts += 1
        data = build(self._payload_type, marker, self._seq, self._timestamp, self._ssrc, frame)
        self._seq = (self._seq + 1) & 0xFFFF
        self._timestamp = (self._timestamp + len(frame) // self._sample_bytes) & 0xFFFFFFFF
        return data

    def skip(self, samples: int) -> None:
        """Let the timestamp pass over time in which nothing could be sent."""
        self._timestamp = (self._timestamp + samples) & 0xFFFFFFFF
