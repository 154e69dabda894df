"""What passed on one session of an emulator: the tests' witness of what the AI sent and was told."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec

_AUDIO_KINDS: Final = frozenset(
    {
        "input_audio_buffer.append",
        "response.output_audio.delta",
        "response.audio.delta",
        "session.input_audio.append",
        "session.output_audio.delta",
        "realtimeInput.audio",
        "serverContent.modelTurn",
    }
)


@dataclass(frozen=True)
class Frame:
    """One WebSocket message, as it was on the wire."""

    at: float
    """Monotonic seconds."""
    sent: bool
    """True when the emulator sent it, False when it came from the client."""
    kind: str
    """The event's ``type``, or the key that says what it is; ``""`` when it has neither."""
    data: bytes

    @cached_property
    def event(self) -> dict[str, Any]:
        """Return the decoded JSON object."""
        return msgspec.json.decode(self.data, type=dict[str, Any])

    def __repr__(self) -> str:
        return f"<Frame {self.at:.3f} {'→' if self.sent else '←'} {self.kind} {len(self.data)} B>"


class Record:
    """An append-only list of frames.

    With ``keep_audio=False`` the frames that carry audio are counted, not kept: for benchmarks.
    """

    def __init__(self, *, keep_audio: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.keep_audio = keep_audio
        self.frames: list[Frame] = []
        self.audio_received = bytearray()
        """Every byte of audio the client appended, in the session's input format."""
        self.sent_count: Counter[str] = Counter()
        self.received_count: Counter[str] = Counter()
        self.clock = clock
        self._waiters: list[asyncio.Future[None]] = []

    def note(self, kind: str, data: bytes, *, sent: bool) -> None:
        """Add one frame, now."""
        (self.sent_count if sent else self.received_count)[kind] += 1
        if self.keep_audio or kind not in _AUDIO_KINDS:
            self.frames.append(Frame(self.clock(), sent, kind, data))
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def sent(self, kind: str | None = None) -> list[Frame]:
        """Return the frames the emulator sent, of one type or all."""
        return [f for f in self.frames if f.sent and kind in {None, f.kind}]

    def received(self, kind: str | None = None) -> list[Frame]:
        """Return the frames that came from the client, of one type or all."""
        return [f for f in self.frames if not f.sent and kind in {None, f.kind}]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    async def until(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Return once ``condition()`` is true; it is asked again after every frame.

        Raises:
            TimeoutError: It was not true within ``timeout`` seconds.
        """
        async with asyncio.timeout(timeout):
            while not condition():
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter

    async def wait(
        self, kind: str, *, sent: bool = False, count: int = 1, after: float = 0.0, timeout: float = 5.0
    ) -> Frame:
        """Return the ``count``-th frame of a type later than ``after`` (monotonic seconds).

        ``sent`` chooses the direction as in ``Frame``. Frames that are not kept are never found.

        Raises:
            TimeoutError: It did not pass within ``timeout`` seconds.
        """
        found: list[Frame] = []

        def enough() -> bool:
            found[:] = [f for f in self.frames if f.sent is sent and f.kind == kind and f.at > after]
            return len(found) >= count

        try:
            await self.until(enough, timeout)
        except TimeoutError:
            side = "the emulator" if sent else "the client"
            raise TimeoutError(f"{side} sent {len(found)} of {count} {kind} within {timeout} s") from None
        return found[count - 1]
