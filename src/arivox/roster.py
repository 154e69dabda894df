"""Who is in the Stasis application, as far as we know, and who has left it since when."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from arivox.asterisk.messages import Channel
from arivox.call.call import Call

OURS: Final = re.compile(r"(arivox-[0-9a-f]{8})(-media|-out\d+|-probe\d+)?$")
"""A bridge or channel that we made: group 1 is what the names of one call begin with."""
OUT: Final = re.compile(r"arivox-[0-9a-f]{8}-out\d+$")
"""The channel of somebody who was dialled."""
FAR_HALF: Final = re.compile(r"arivox-[0-9a-f]{8}-out\d+;2$")
"""The other half of a Local channel that we dialled: it ends with ours."""

_REMEMBERED: Final = 1024
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two channels that talk to each other in a bridge."""

    bridge_id: str
    channel_ids: tuple[str, ...]


class Roster:
    """The calls in progress, the pairs, the channels that are awaited, and those who have left."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        """By the caller's channel."""
        self.by_name: dict[str, Call] = {}
        """By what the names of a call's bridge and channels begin with."""
        self.pairs: dict[str, Pair] = {}
        """By both channels."""
        self.expected: dict[str, asyncio.Future[Channel]] = {}
        self.ended: deque[str] = deque(maxlen=_REMEMBERED)
        """Calls that have just ended, by what the names begin with: their last events may be on the way."""
        self.leaving: set[str] = set()
        """Channels that Asterisk is being told to let go."""
        self._left_at: dict[str, float] = {}  # when others left or were let go
        self._adopted_at: dict[str, float] = {}  # callers whose entry was not heard of

    def owner(self, name: str) -> Call | None:
        """Return the call that made a channel or a bridge of ours."""
        ours = OURS.match(name)
        return self.by_name.get(ours[1]) if ours is not None else None

    def dialled(self, channel_id: str) -> bool:
        """Return whether a call has dialled this channel, and not given it up."""
        call = self.owner(channel_id)
        return call is not None and call.legs.out_id == channel_id

    def speaks_with(self, channel_id: str) -> Call | None:
        """Return the call that has dialled this channel, or one that it took the place of."""
        return next((call for call in self.calls.values() if call.legs.out_id == channel_id), None)

    def known_end(self, name: str) -> bool:
        """Return whether a channel or bridge belongs to a call that has just ended."""
        ours = OURS.match(name)
        return ours is not None and ours[1] in self.ended

    def note_left(self, channel_id: str) -> None:
        """Note that a channel left, or was let go."""
        _note(self._left_at, channel_id)

    def left_since(self, channel_id: str, moment: float) -> bool:
        """Return whether a channel has left since a moment (monotonic seconds)."""
        return self._left_at.get(channel_id, _NEVER) >= moment

    def note_adopted(self, channel_id: str) -> None:
        """Note that a caller is served whose entry was not heard of."""
        _note(self._adopted_at, channel_id)

    def adopted_since(self, channel_id: str, moment: float) -> bool:
        """Return whether a caller was found since a moment, and their entry has not been heard of."""
        return self._adopted_at.get(channel_id, _NEVER) >= moment

    def entry_heard(self, channel_id: str) -> None:
        """Hear of the entry of a caller, found before or not."""
        self._adopted_at.pop(channel_id, None)

    @contextmanager
    def letting_go(self, channel_id: str) -> Iterator[None]:
        """Take a channel for one that Asterisk is being told to let go."""
        self.leaving.add(channel_id)
        try:
            yield
        finally:
            self.leaving.discard(channel_id)
            self.note_left(channel_id)


def _note(times: dict[str, float], channel_id: str) -> None:
    """Note the time; what is oldest is forgotten."""
    times.pop(channel_id, None)
    times[channel_id] = time.monotonic()
    if len(times) > _REMEMBERED:
        del times[next(iter(times))]
