"""What the agent has called tools for, across the AI's sessions of one call. Pure.

A session that is lost leaves results that its agent has not spoken of, and tools that are still at work. The
next session knows neither: it is told of both in words.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

_FACTS: Final = 16


class Errands:
    """The calls of tools of one call, and what came of them."""

    def __init__(self) -> None:
        self._calls: dict[str, str] = {}  # names of those that the present session waits for
        self._called = False  # the answer in progress called one
        self._given: list[tuple[str, str]] = []  # results that the agent has not spoken of yet
        self._spoken_of = 0  # so many of them were given before the answer in progress
        self._orphans: dict[str, str] = {}  # names of those that a lost session waited for
        self._answer_due = False
        self._facts: deque[str] = deque(maxlen=_FACTS)  # what no transcript tells a new session

    @property
    def orphaned(self) -> bool:
        """Return whether a tool is at work that a lost session called."""
        return bool(self._orphans)

    # --- from the present session ---

    def called(self, call_id: str, name: str) -> None:
        """Hear that the agent called a tool."""
        self._called = True
        self._calls[call_id] = name

    def cancelled(self, call_ids: Iterable[str]) -> None:
        """Hear that the agent has no use for some results any more."""
        for call_id in call_ids:
            self._calls.pop(call_id, None)

    def answer_begins(self) -> None:
        """Hear that the agent begins an answer: it knows the results so far."""
        self._called = False
        self._spoken_of = len(self._given)

    def answered(self) -> bool:
        """Hear that the answer is complete. Return whether it was one: to call a tool is none yet."""
        if not self._called:
            del self._given[: self._spoken_of]
        return not self._called

    # --- from the tools ---

    def returned(self, call_id: str, output: str) -> None:
        """Hear a result that the present session is given."""
        self._given.append((self._calls.pop(call_id, ""), output))

    def orphan_returned(self, call_id: str, output: str, *, answer: bool) -> bool:
        """Hear a result, and if the agent is to speak of it. Return whether a lost session waited for it."""
        name = self._orphans.pop(call_id, "")
        if name:
            self._facts.append(_result(name, output))
            self._answer_due = self._answer_due or answer
        return bool(name)

    def answer_due(self) -> bool:
        """Return whether the agent must be asked to speak of the results of lost sessions; once."""
        due, self._answer_due = self._answer_due, False
        return due

    # --- the next session ---

    def session_lost(self) -> None:
        """Hear that another session takes the place of the present one."""
        self._facts.extend(_result(name, output) for name, output in self._given)
        self._given.clear()
        self._orphans |= self._calls
        self._calls.clear()

    def told(self) -> Iterator[str]:
        """Return what a session that follows another must know, a line each."""
        yield from self._facts
        for name in self._orphans.values():
            yield f"The tool {name} that you called is still at work: do not call it again."


def _result(name: str, output: str) -> str:
    return f"The tool {name} that you called has returned: {output}"
