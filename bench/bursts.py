"""Bursts of a tone that a caller says, and when each comes back."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from arivox.audio import g711
from arivox.testing import signal
from arivox.testing.phone import SipPhone
from bench.behaviours import LOUD_DBFS, Note

BURST_S: Final = 0.2
_GIVE_UP_S: Final = 1.0
_HZ_TOLERANCE: Final = 20.0  # callers are 100 Hz apart


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst: when its first sample was said, and heard again (None: never). Monotonic seconds."""

    hz: float
    said_at: float
    heard_at: float | None


async def say_bursts(phone: SipPhone, hz: float, count: int) -> list[Burst]:
    """Say ``count`` bursts, each after the one before it was heard or given up, with uneven pauses."""
    bursts = []
    for _ in range(count):
        await asyncio.sleep(random.uniform(0.1, 0.2))
        asked_at = time.monotonic()
        utterance = phone.play(signal.tone(hz, BURST_S))
        try:
            packet_at = await phone.wait_heard(LOUD_DBFS, after=asked_at, timeout=_GIVE_UP_S)
            heard_at = _onset(phone, packet_at)
        except TimeoutError:
            heard_at = None
        await utterance.done()
        bursts.append(Burst(hz, utterance.first_packet_at or asked_at, heard_at))
        await asyncio.sleep(BURST_S)  # until its tail was heard
    return bursts


def reached_ai(burst: Burst, onsets: list[Note]) -> float | None:
    """Return when the AI heard a burst, of all the ``onsets`` it heard, or None.

    It is found by its caller's frequency, and by its time: no burst of a caller is said before the one before
    it was heard or given up.
    """
    until = burst.heard_at or burst.said_at + _GIVE_UP_S
    for onset in onsets:
        if abs(onset.value - burst.hz) < _HZ_TOLERANCE and burst.said_at <= onset.at <= until:
            return onset.at
    return None


def _onset(phone: SipPhone, packet_at: float) -> float:
    """Return when the first loud sample of the packet that arrived at ``packet_at`` is heard."""
    packet = next(packet for packet in reversed(phone.received) if packet.time == packet_at)
    pcm = np.abs(g711.decode(packet.payload, "ulaw"))
    return packet_at + int(np.argmax(pcm > signal.amplitude(LOUD_DBFS))) / 8000
