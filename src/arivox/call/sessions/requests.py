"""Answers that the AI was asked for, across its sessions of one call. Pure.

A request is the words it was made with, or None: to go on by the instructions.
"""

from __future__ import annotations

from collections import deque


class Requests:
    """Requests until they are answered; those that a session leaves are made again in the next."""

    def __init__(self) -> None:
        self._unbegun: deque[str | None] = deque()
        self._present: str | None = None  # what the answer in progress was asked for with
        self._broken_off: list[str] = []  # the same of one that was lost
        self._postponed: list[str | None] = []

    def __bool__(self) -> bool:
        """Return whether something is to be asked of the next session."""
        return bool(self._broken_off or self._postponed)

    def made(self, words: str | None) -> None:
        """Hear that the present session is asked."""
        self._unbegun.append(words)

    def postponed(self, words: str | None) -> None:
        """Hear a request for which there is no session."""
        self._postponed.append(words)

    def answer_begins(self) -> None:
        """Hear that the session begins an answer."""
        self._present = self._unbegun.popleft() if self._unbegun else None

    def answer_ends(self, *, busy: bool) -> None:
        """Hear that the answer is over; a session that is not ``busy`` has no other in mind."""
        words, self._present = self._present, None
        if not busy:
            self._unbegun.clear()  # answered within another
        elif words is not None and not self._unbegun:
            self._unbegun.append(words)  # an answer of its own came first

    def interrupted(self, *, cancel: bool) -> None:
        """Hear that the caller, or with ``cancel`` the call, wants no more of the answer in progress."""
        self._present = None
        if cancel:
            self._broken_off.clear()
        else:
            self._unbegun = deque(words for words in self._unbegun if words is not None)

    def dropped(self) -> None:
        """Hear that nothing of what was asked is wanted any more."""
        self._unbegun.clear()
        self._present = None

    def session_lost(self) -> None:
        """Hear that another session takes the place of the present one."""
        self._postponed += self._unbegun
        self._unbegun.clear()
        if self._present is not None:
            self._broken_off.append(self._present)
            self._present = None

    def take(self) -> list[str | None]:
        """Return what the next session must be asked, each once."""
        due: dict[str | None, None] = dict.fromkeys((*self._broken_off, *self._postponed))
        self._broken_off.clear()
        self._postponed.clear()
        return list(due)
