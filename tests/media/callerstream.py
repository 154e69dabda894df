"""The caller's stream as it reaches the AI, with the clock in the test's hands."""

from __future__ import annotations

from typing import Final

from arivox.audio.format import ULAW, AudioFormat
from arivox.media.rtp.jitter import JitterBuffer
from arivox.media.rtp.packet import RtpPacket

LOUD: Final = b"\x10"
TICK_S: Final = 0.02
_START: Final = 1000.0


class Listener:
    """Gives packets to a jitter buffer that is polled every 20 ms, and keeps what comes out, and when."""

    def __init__(self, audio: AudioFormat = ULAW, phase: float = 0.0035) -> None:
        self._buffer = JitterBuffer(audio)
        self._tick = _START + phase
        self.counters = self._buffer.counters
        self.frames: list[bytes] = []
        self.times: list[float] = []

    @property
    def heard(self) -> bytes:
        """All that was handed on."""
        return b"".join(self.frames)

    def wait(self, at: float) -> None:
        """Let time pass until ``at`` seconds after the start."""
        while self._tick <= _START + at:
            self._keep(self._buffer.poll(self._tick), self._tick - _START)
            self._tick += TICK_S

    def hear(
        self, number: int, at: float, payload: bytes, *, timestamp: int | None = None, ssrc: int = 1
    ) -> None:
        """Take packet ``number`` at ``at``; without a ``timestamp`` all packets are as long as this one."""
        self.wait(at)
        stamp = number * len(payload) if timestamp is None else timestamp
        packet = RtpPacket(0, False, number & 0xFFFF, stamp & 0xFFFFFFFF, ssrc, payload)
        self._keep(self._buffer.push(packet, _START + at), at)

    def _keep(self, frames: list[bytes], at: float) -> None:
        self.frames += frames
        self.times += [at] * len(frames)
