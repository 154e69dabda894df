"""Answers that the agent is to be asked for, and what becomes of them when a connection is lost. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

SPEAK: Final = (
    "(The caller is on the line and waits for you. Speak now, as your instructions for this state say.)"
)
GO_ON: Final = (
    "(The connection was lost for a moment, and the caller may not have heard your last answer. "
    "Go on where you were, without speaking of the connection.)"
)
MISSED: Final = (
    "(The connection was lost for a moment, and with it what the caller said last. Go on where you were: "
    "answer it as far as you know it, else ask the caller to say it again. Do not speak of the connection.)"
)
_PLAIN: Final = frozenset({"", SPEAK, GO_ON, MISSED})


class Requests:
    """Requests, one after another; ``present`` is what the answer in progress was asked for with."""

    def __init__(self) -> None:
        self.present = ""
        self._waiting: deque[str] = deque()
        self._owed = ""  # to be asked over the next connection
        self._later = ""  # to be asked once the caller pauses
        self._tripped = ""  # the request whose connection was closed for what was sent

    def __bool__(self) -> bool:
        """Return whether something is to be asked."""
        return bool(self._waiting or self._owed)

    @property
    def waiting(self) -> bool:
        """Return whether something is to be asked over the present connection."""
        return bool(self._waiting)

    @property
    def own_words(self) -> bool:
        """Return whether the answer in progress is to words of its own: the caller's wait for theirs."""
        return self.present not in _PLAIN

    def add(self, words: str | None) -> None:
        """Take a request; None: to go on by the instructions."""
        self._waiting.append(words or SPEAK)

    def take(self) -> str:
        """Return what to ask for now."""
        self.present = self._waiting.popleft()
        return self.present

    def answered(self) -> None:
        """Hear that no answer is in progress or awaited."""
        self.present = ""

    def caller_interrupts(self) -> None:
        """Hear that the caller speaks: their turn brings an answer, and another would talk over them."""
        self._waiting = deque(words for words in self._waiting if words not in _PLAIN)

    @property
    def waits_for_pause(self) -> bool:
        """Return whether something is to be asked once the caller pauses."""
        return bool(self._later)

    def caller_pauses(self, *, heard: bool) -> None:
        """Hear that the caller has paused; ``heard``: in words that bring an answer of their own."""
        words, self._later = self._later, ""
        if words and not heard:
            self._waiting.appendleft(words)

    def answer_begins(self) -> None:
        """Hear that an answer begins: what was to be asked in the next pause is answered by it."""
        self._later = ""

    # --- another connection ---

    def left_to_tools(self) -> None:
        """Hear that the connection is lost while tools are at work: their results bring an answer."""
        self.present = self._owed = self._later = ""
        self.caller_interrupts()

    def lost(self, *, owed: bool, begun: bool) -> None:
        """Hear that the connection is lost, and with it an answer that is ``owed`` and may have ``begun``."""
        words, self.present = self.present, ""
        self._owed, self._later = self._owed or self._later, ""
        if owed and words and not (begun and words in _PLAIN):
            self._again(words)
        elif owed:
            self._owed = self._owed or GO_ON

    def tripped(self, *, owed: bool) -> None:
        """Hear the same, where the caller's words cannot be heard again.

        Words of the request may have been it as well, the second time.
        """
        words, self.present = self.present, ""
        self._owed, self._later = self._owed or self._later, ""
        if owed and words not in _PLAIN and words != self._tripped:
            self._tripped = words
            self._again(words)
        elif owed:
            self._owed = MISSED

    def goes_on(self, *, heard_again: bool, speaking: bool, cut_off: bool = False) -> None:
        """Hear of another connection, and whether the caller's words are heard again, or go on just now.

        ``cut_off``: words may go on of which nothing was heard yet.
        """
        words, self._owed = self._owed, ""
        if words == MISSED and cut_off and not heard_again:
            self._later = words
        elif words and not (speaking if words == MISSED else heard_again):
            self._waiting.appendleft(words)

    def _again(self, words: str) -> None:
        if words not in self._waiting:
            self._waiting.appendleft(words)
