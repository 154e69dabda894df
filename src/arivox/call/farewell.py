"""How a call ends in good order: once the agent has said its last words, and nobody answers them. Pure."""

from __future__ import annotations

from typing import Final

from arivox.call.ending import EndReason

_LAST_WORD_S: Final = 0.3  # what was sent last is still in the phone's jitter buffer
_LONGEST_S: Final = 12.0


class Farewell:
    """The end of a call, once it is near. All times in seconds on one clock."""

    def __init__(self, goodbye_before_s: float) -> None:
        self.reason: EndReason | None = None
        """Why the call ends once the agent has finished speaking; None: it does not."""
        self._longest = max(goodbye_before_s, _LONGEST_S)
        self._by = 0.0
        self._answer_owed = False  # the caller spoke into the last good-bye

    def begin(self, reason: EndReason, now: float) -> None:
        """The agent says its last words, or has said them."""
        self.reason = reason
        self._by = now + self._longest

    def agent_heard(self) -> None:
        """Sound of the agent came."""
        self._answer_owed = False

    def caller_speaks(self) -> None:
        """Somebody who speaks, or presses a key, into a good-bye is not done."""
        if self.reason in (EndReason.AGENT_HANGUP, EndReason.CALLER_IDLE):
            self.reason = None
        # At the time limit there is no more than the answer to it.
        self._answer_owed = self.reason is not None

    def not_yet(self) -> None:
        """There is something to say first, after all."""
        if self.reason is EndReason.AGENT_HANGUP:
            self.reason = None

    def quiet(self, now: float) -> None:
        """The agent has finished, as far as is known."""
        if self.reason is not None and not self._answer_owed:
            self._by = min(self._by, now + _LAST_WORD_S)

    def due(self, now: float) -> bool:
        """Return whether the call is to end now, if nothing is being heard."""
        return self.reason is not None and now >= self._by
