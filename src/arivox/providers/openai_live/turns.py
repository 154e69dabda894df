"""Who said what: turns inferred from transcripts that have none. Pure.

The service sends the words of both sides as they come, each piece with its place on the session's timeline.
A turn is over

- when the other side's words begin clearly after its last word: a "mhm" within a sentence does not tear it,
- when its own side says nothing for long, and then goes on,
- when the caller of this module says so (``flush``): the agent's voice has ended, or the session.

Every piece becomes part of exactly one turn, in the order of arrival.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

Side = Literal["caller", "agent"]

_GAP_MS: Final = 1200
# The sides are transcribed apart: a piece of one may arrive before an earlier one of the other.
_AFTER_MS: Final = 400


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said in one go."""

    side: Side
    item_id: str
    text: str
    end_ms: int | None = None
    """Where its last word ends on the session's timeline, if the service told."""


@dataclass(slots=True)
class _Open:
    item_id: str
    start_ms: int
    end_ms: int
    placed: bool = False  # the service told where the last piece ends
    pieces: list[str] = field(default_factory=list)


class Turns:
    """The turns of one session."""

    def __init__(self) -> None:
        self.begun: dict[Side, int] = {"caller": 0, "agent": 0}
        """How many turns each side has begun."""
        self._open: dict[Side, _Open] = {}
        self._ends: dict[Side, int] = {}

    def begun_ms(self, side: Side) -> int | None:
        """Return where the open turn of a side began, or None when there is none."""
        turn = self._open.get(side)
        return turn.start_ms if turn is not None else None

    def continues(self, side: Side, start_ms: int | None) -> bool:
        """Return whether words at ``start_ms`` follow closely on the last ones of their side."""
        end = self._ends.get(side)
        return end is not None and start_ms is not None and start_ms - end < _GAP_MS

    def add(
        self, side: Side, text: str, start_ms: int | None, end_ms: int | None, item_id: str
    ) -> list[Turn]:
        """Take the next piece of a side's words. Return the turns that are over, if any.

        ``item_id`` names the turn if the piece begins one. A piece without a place follows on the last one.
        """
        other: Side = "agent" if side == "caller" else "caller"
        start = start_ms if start_ms is not None else self._ends.get(side, 0)
        end = max(start, end_ms if end_ms is not None else start)
        over = []
        waiting = self._open.get(other)
        if waiting is not None and start >= waiting.end_ms + _AFTER_MS:
            over += self.flush(other)
        own = self._open.get(side)
        if own is not None and start - own.end_ms >= _GAP_MS:
            over += self.flush(side)
        own = self._open.get(side)
        if own is None:
            if not text.strip():
                return over
            self.begun[side] += 1
            own = self._open[side] = _Open(item_id, start, end)
        own.pieces.append(text)
        own.placed = end_ms is not None
        own.end_ms = max(own.end_ms, end)
        self._ends[side] = max(self._ends.get(side, 0), end)
        return over

    def flush(self, side: Side | None = None) -> list[Turn]:
        """End the open turn of a side, or of both. Return what was said, the earlier first."""
        ended = [one for one in self._open if side in (None, one)]
        ended.sort(key=lambda one: self._open[one].start_ms)
        over = []
        for one in ended:
            turn = self._open.pop(one)
            end_ms = turn.end_ms if turn.placed else None
            over.append(Turn(one, turn.item_id, "".join(turn.pieces).strip(), end_ms))
        return over
