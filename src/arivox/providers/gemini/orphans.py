"""Tools at work whose calls were lost with a connection, and whether the caller's sound waits. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from arivox.providers.gemini.closes import INVALID, POLICY


class Orphans:
    """The calls that lost connections waited for: the present one knows nothing of them."""

    def __init__(self) -> None:
        self.holds_sound = False
        """The service closes on sound that comes while it waits for a tool: it is sent none then."""
        self._at_work: set[str] = set()

    def __bool__(self) -> bool:
        """Return whether one is at work."""
        return bool(self._at_work)

    def lost(self, calls: Iterable[str], code: int) -> bool:
        """Hear that ``calls`` were open when their connection ended with ``code``.

        Return whether a tool is at work now.
        """
        self._at_work.update(calls)
        if self._at_work and code in (INVALID, POLICY):
            self.holds_sound = True
        return bool(self._at_work)

    def returned(self, call_id: str) -> None:
        """Hear the result of a call that the present connection does not know."""
        self._at_work.discard(call_id)
