"""What both sides have said since the latest handle, as text: a session that is taken up knows nothing of it.

Pure. An exchange counts once its answer is complete; the caller's words without one are heard again instead.
"""

from __future__ import annotations

from typing import Final

from arivox.providers.base import Utterance

_MOST: Final = 40


class Unsaved:
    """The utterances, the oldest first; 40 at most."""

    def __init__(self) -> None:
        self._said: list[Utterance] = []
        self._answered = 0  # so many of them belong to exchanges that are complete

    @property
    def utterances(self) -> tuple[Utterance, ...]:
        """Return those of complete exchanges."""
        return tuple(self._said[: self._answered])

    def add(self, said: Utterance) -> None:
        """Take the next utterance."""
        self._said.append(said)
        if len(self._said) > _MOST:
            del self._said[0]
            self._answered = max(self._answered - 1, 0)

    def answered(self) -> None:
        """Hear that all up to here is complete."""
        self._answered = len(self._said)

    def lost(self) -> None:
        """Hear that the answer to the latest words will not come: they are heard again."""
        del self._said[self._answered :]

    def saved(self) -> None:
        """Hear that a handle holds all of it."""
        self._said.clear()
        self._answered = 0
