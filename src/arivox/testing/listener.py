"""The incoming side of a test phone: every RTP packet kept, and questions about what was heard."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Final

from arivox.audio import g711
from arivox.audio.g711 import Pcm
from arivox.testing import recording, sdp
from arivox.testing.recording import Recording, RtpPacket
from arivox.testing.waiting import Waiters

# RFC 4733 section 3.2, table 3: the events 0 to 15.
DIGITS: Final = "0123456789*#ABCD"
_NOTHING_MS: Final = 500.0


class Listener:
    """Keeps what arrives; ``received`` is in order of arrival. Times are monotonic seconds.

    Audio is decoded only when it is asked for, so that many listeners cost little.
    """

    def __init__(self) -> None:
        self.received: list[RtpPacket] = []
        self.event_type: int | None = None
        self._waiters = Waiters(self)
        self._ears: list[Callable[[RtpPacket], None]] = []

    def hear(self, packet: RtpPacket) -> None:
        """Take a packet that arrived."""
        self.received.append(packet)
        if self._ears:
            for ear in self._ears:
                ear(packet)
            self._waiters.settle()

    def heard(self, jitter_ms: float = 100.0) -> Recording:
        """Return all that was heard in this call (see ``recording.lay_out``)."""
        return recording.lay_out(self.received, jitter_ms)

    def heard_between(self, start: float, stop: float, jitter_ms: float = 100.0) -> Recording:
        """Return what arrived from ``start`` until before ``stop``."""
        return recording.lay_out(recording.between(self.received, start, stop), jitter_ms)

    def heard_digits(self) -> str:
        """Return the digits that came as telephone events (RFC 4733)."""
        # All packets of an event have the timestamp of its start.
        events = {
            packet.timestamp: packet.payload[0]
            for packet in self.received
            if packet.payload_type == self.event_type and packet.payload
        }
        return "".join(DIGITS[event] for event in events.values() if event < len(DIGITS))

    def gaps(self) -> list[float]:
        """Return the milliseconds between each packet's arrival and the next one's."""
        times = [packet.time for packet in self.received]
        return [(after - before) * 1000 for before, after in itertools.pairwise(times)]

    async def wait_heard(
        self,
        threshold_dbfs: float = -40.0,
        *,
        after: float | None = None,
        timeout: float = 5.0,
        predicate: Callable[[Pcm], bool] | None = None,
    ) -> float:
        """Wait for a packet louder than ``threshold_dbfs``, or whose samples satisfy ``predicate``.

        The first that arrived at ``after`` (default: now) or later counts. Return when it arrived. Raise
        TimeoutError where none comes.
        """
        since = time.monotonic() if after is None else after
        found: list[float] = []

        def listen(packet: RtpPacket) -> None:
            law = sdp.LAWS.get(packet.payload_type)
            if found or packet.time < since or law is None:
                return
            if predicate is None:
                wanted = recording.packet_level_dbfs(packet) > threshold_dbfs
            else:
                wanted = predicate(g711.decode(packet.payload, law))
            if wanted:
                found.append(packet.time)

        for packet in recording.between(self.received, since, float("inf")):
            listen(packet)
        self._ears.append(listen)
        what = "the sound asked for" if predicate else f"sound above {threshold_dbfs:g} dBFS"
        try:
            await self._waiters.until(lambda: bool(found), timeout, what)
        finally:
            self._ears.remove(listen)
        return found[0]

    async def wait_silence(self, ms: float, timeout: float = 5.0, threshold_dbfs: float = -40.0) -> float:
        """Wait until ``ms`` of nothing louder than ``threshold_dbfs`` have arrived, from now on, in a row.

        Where nothing arrives at all the clock must do, and does after half a second. Return when the last
        loud packet arrived; where there was none, when the wait began. Raise TimeoutError where the sound
        goes on.
        """
        quiet_ms = 0.0
        last_loud = last = time.monotonic()

        def listen(packet: RtpPacket) -> None:
            nonlocal quiet_ms, last_loud, last
            last = packet.time
            if recording.packet_level_dbfs(packet) > threshold_dbfs:
                last_loud, quiet_ms = packet.time, 0.0
            else:
                quiet_ms += len(packet.payload) * 1000 / recording.RATE

        self._ears.append(listen)
        try:
            async with asyncio.timeout(timeout):
                # By what was heard, not by the clock: what a busy machine holds up still comes.
                while quiet_ms < ms and (left := last + max(ms, _NOTHING_MS) / 1000 - time.monotonic()) > 0:
                    await asyncio.sleep(min(left, max((ms - quiet_ms) / 1000, 0.005)))
        except TimeoutError:
            raise TimeoutError(f"{self!r}: no silence of {ms:g} ms came within {timeout:g} s") from None
        finally:
            self._ears.remove(listen)
        return last_loud
