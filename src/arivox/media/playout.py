"""The playout ledger: the agent's voice on its way to the caller.

Providers send speech several times faster than real time, in pieces of any size. The ledger keeps all of it
in order, hands it out in frames of one ptime, and knows for each of the provider's items how much was
received, sent and heard. At all times ``heard <= sent <= received``. It alone answers the question that an
interruption asks: how many milliseconds of item X has the caller heard?

All positions are byte offsets in one endless stream, so every answer is a comparison of two numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from arivox.audio.format import PTIME_MS, AudioFormat

_COMPACT_AT: Final = 65536
_REMEMBERED_ITEMS: Final = 64
_HOLD_FRAMES: Final = 2  # a rest shorter than a frame waits this long for more before it is padded


@dataclass(frozen=True, slots=True)
class Cut:
    """What an interruption did to one item."""

    item_id: str
    heard_ms: int
    """Milliseconds the caller heard, rounded down."""
    received_ms: int


@dataclass(slots=True)
class _Item:
    spans: list[list[int]] = field(default_factory=list)  # [start, end) offsets; more than one if interleaved
    done: bool = False
    cut: bool = False

    def before(self, offset: int) -> int:
        """Return how many bytes of the item lie before ``offset``."""
        return sum(max(0, min(end, offset) - start) for start, end in self.spans)


def _no_item(item_id: str) -> None:
    """Ignore an item's start."""


def _nothing() -> None:
    """Ignore the end of the queue."""


class Playout:
    """The ledger of one call, in the byte format of its media link.

    ``on_started(item_id)`` is called when the first frame of an item leaves, ``on_drained()`` when the last
    queued frame has left.
    """

    def __init__(
        self,
        audio: AudioFormat,
        *,
        limit_ms: float = 600_000,
        on_started: Callable[[str], None] = _no_item,
        on_drained: Callable[[], None] = _nothing,
    ) -> None:
        self.audio = audio
        self.frame_bytes: Final = audio.bytes_for(PTIME_MS)
        self.on_started = on_started
        self.on_drained = on_drained
        self.overflow_bytes = 0
        self.late_bytes = 0
        self.underruns = 0
        self._limit = audio.bytes_for(limit_ms)
        self._buffer = bytearray()
        self._base = 0  # offset of the first byte of the buffer
        self._sent = 0
        self._heard = 0
        self._items: OrderedDict[str, _Item] = OrderedDict()
        self._next_item: list[tuple[int, str]] = []  # items not yet started, by their first offset
        self._last: str | None = None
        self._held = 0
        self._silence = audio.silence * (self.frame_bytes // audio.sample_bytes)

    # --- the provider's side ---

    def push(self, item_id: str, data: bytes) -> bool:
        """Queue audio of an item. Return False when it was dropped: of a cut item, or over the limit."""
        if not data:
            return True
        item = self._items.get(item_id)
        if item is None:
            item = self._items[item_id] = _Item()
            self._forget_old()
        if item.cut:
            self.late_bytes += len(data)
            return False
        received = self._base + len(self._buffer)
        if received - self._sent + len(data) > self._limit:
            self.overflow_bytes += len(data)
            return False
        if item.spans and item.spans[-1][1] == received:
            item.spans[-1][1] += len(data)
        else:
            if not item.spans:
                self._next_item.append((received, item_id))
            item.spans.append([received, received + len(data)])
        self._buffer += data
        self._last = item_id
        return True

    def finish(self, item_id: str) -> None:
        """Say that no more audio of the item will come."""
        item = self._items.get(item_id)
        if item is not None:
            item.done = True

    def flush(self) -> list[Cut]:
        """Throw away everything that was not sent. Return every item the caller has not heard to its end."""
        received = self._base + len(self._buffer)
        cuts = []
        for item_id, item in self._items.items():
            total = item.before(received)
            heard = item.before(self._heard)
            if item.cut or (item.done and heard == total):
                continue
            item.cut = True
            cuts.append(Cut(item_id, self.audio.whole_ms(heard), self.audio.whole_ms(total)))
        for item in self._items.values():
            item.spans = [[start, min(end, self._sent)] for start, end in item.spans if start < self._sent]
        self._buffer.clear()
        self._base = self._sent
        self._next_item.clear()
        self._held = 0
        return cuts

    # --- the link's side ---

    def next_frame(self) -> bytes | None:
        """Return the next frame to send, or None when there is nothing (more) to play now.

        The last frame of the queue is filled up with silence once its item is complete; a rest of an item
        that is still arriving waits for up to two calls.
        """
        start = self._sent - self._base
        available = len(self._buffer) - start
        size = self.frame_bytes
        if available >= size:
            frame = bytes(self._buffer[start : start + size])
            self._advance(size)
            return frame
        if not available:
            return None
        last = self._items.get(self._last) if self._last is not None else None
        if last is not None and not last.done and self._held < _HOLD_FRAMES:
            self._held += 1
            return None
        frame = bytes(self._buffer[start:]) + self._silence[: size - available]
        self._advance(available)
        return frame

    def confirm(self) -> None:
        """Say that every frame handed out has reached the caller's side."""
        self._heard = self._sent

    # --- questions ---

    def received_ms(self, item_id: str) -> float:
        """Return the milliseconds of the item that were received and kept."""
        return self._ms(item_id, self._base + len(self._buffer))

    def sent_ms(self, item_id: str) -> float:
        """Return the milliseconds of the item handed to the link."""
        return self._ms(item_id, self._sent)

    def heard_ms(self, item_id: str) -> float:
        """Return the milliseconds of the item that the caller has heard."""
        return self._ms(item_id, self._heard)

    @property
    def queued_ms(self) -> float:
        """Return the milliseconds that wait to be sent."""
        return self.audio.ms(self._base + len(self._buffer) - self._sent)

    @property
    def heard_total_ms(self) -> float:
        """Return the milliseconds heard since the start of the call."""
        return self.audio.ms(self._heard)

    @property
    def playing(self) -> bool:
        """Return whether something waits to be sent."""
        return len(self._buffer) > self._sent - self._base

    @property
    def starving(self) -> bool:
        """Return whether less than a frame waits of an item that is still arriving."""
        if len(self._buffer) - (self._sent - self._base) >= self.frame_bytes:
            return False
        last = self._items.get(self._last) if self._last is not None else None
        return last is not None and not last.done and not last.cut

    def _ms(self, item_id: str, offset: int) -> float:
        item = self._items.get(item_id)
        return self.audio.ms(item.before(offset)) if item is not None else 0.0

    def _advance(self, size: int) -> None:
        self._sent += size
        self._held = 0
        while self._next_item and self._next_item[0][0] < self._sent:
            _, item_id = self._next_item.pop(0)
            self.on_started(item_id)
        consumed = self._sent - self._base
        if consumed == len(self._buffer):
            self._buffer.clear()
            self._base = self._sent
            last = self._items.get(self._last) if self._last is not None else None
            if last is not None and not last.done:
                self.underruns += 1
            self.on_drained()
        elif consumed > _COMPACT_AT:
            del self._buffer[:consumed]
            self._base = self._sent

    def _forget_old(self) -> None:
        while len(self._items) > _REMEMBERED_ITEMS:
            oldest = next(iter(self._items.values()))
            if not oldest.cut and oldest.spans and oldest.spans[-1][1] > self._heard:
                return
            self._items.popitem(last=False)
