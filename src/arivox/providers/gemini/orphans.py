"""Tools at work whose calls were lost with a connection, and whether the caller's sound waits. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from arivox.providers.gemini.closes import INVALID, POLICY

_CHANCES: Final = 2  # so often a connection that waits for a tool is lost by chance: then it is the sound


class Orphans:
    """The calls that lost connections waited for: the present one knows nothing of them."""

    def __init__(self) -> None:
        self.holds_sound = False
        """The service closes on sound that comes while it waits for a tool: it is sent none then."""
        self._at_work: set[str] = set()
        self._losses = 0  # of connections that waited for a tool

    def __bool__(self) -> bool:
        """Return whether one is at work."""
        return bool(self._at_work)

    def lost(self, calls: Iterable[str], code: int) -> bool:
        """Hear that ``calls`` were open when their connection ended with ``code``.

        Return whether a tool is at work now.
        """
        before = len(self._at_work)
        self._at_work.update(calls)
        if len(self._at_work) > before:
            self._losses += 1
        if self._at_work and (code in (INVALID, POLICY) or self._losses >= _CHANCES):
            self.holds_sound = True
        return bool(self._at_work)

    def returned(self, call_id: str) -> None:
        """Hear the result of a call that the present connection does not know."""
        self._at_work.discard(call_id)
