"""What the agent has called tools for, across the AI's connections and sessions of one call. Pure.

A connection that is lost leaves results that its agent has not spoken of, and tools that are still at work.
The next one knows of neither: it is told of both in words. It may call the same tool again all the same, for
it hears the same words, and so may one whose caller speaks while the tool is at work: that call is answered
with what the first one brings. So a tool runs once. Two calls in one answer are two errands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

_FACTS: Final = 16
_REMEMBERED: Final = 64


class Errand(NamedTuple):
    """A tool and what it is called with: two that are equal would do the same."""

    name: str
    arguments: str

    @classmethod
    def of(cls, name: str, arguments: str) -> Errand:
        """Return the errand of a call, whose arguments are JSON; the order of their names tells nothing."""
        try:
            value = msgspec.json.decode(arguments or "{}")
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return cls(name, arguments)
        return cls(name, msgspec.json.encode(value, order="deterministic").decode())


class Errands:
    """The calls of tools of one call, and what came of them.

    With ``parallel`` the agent may call a tool twice in one answer, and tells where its answers begin.
    """

    def __init__(self, *, parallel: bool = True) -> None:
        self._parallel = parallel
        self._calls: dict[str, Errand] = {}  # that the present connection waits for
        self._answers = 0
        self._called_in: dict[str, int] = {}  # the answers of the calls that are waited for
        self._called = False  # the answer in progress called a tool
        self._given: list[tuple[Errand, str]] = []  # results that the agent has not spoken of yet
        self._spoken_of = 0  # so many of them were given before the answer in progress
        self._answered: dict[str, tuple[Errand, str]] = {}  # calls of this connection, and their results
        self._withdrawn: dict[str, Errand] = {}  # calls that the agent took back
        self._orphans: dict[str, Errand] = {}  # at work, and the present connection does not know the call
        self._unasked: set[str] = set()  # orphans that the agent took back: nobody waits for words about them
        self._joined: dict[str, list[str]] = {}  # calls of this connection that an orphan's result answers
        self._settled: dict[Errand, str] = {}  # results that no complete answer has followed
        self._known: tuple[Errand, ...] = ()  # those of them that the answer in progress knows
        self._answer_due = False
        self._facts: deque[str] = deque(maxlen=_FACTS)  # what no transcript tells a new session

    @property
    def orphaned(self) -> bool:
        """Return whether a tool is at work for which the agent is to speak, and that it does not know of."""
        return bool(self._orphans.keys() - self._unasked)

    # --- from the present connection ---

    def waited_for(self, call_id: str, name: str, arguments: str) -> bool:
        """Return whether this very call is at work already: some services tell of one twice."""
        return self._calls.get(call_id) == Errand.of(name, arguments)

    def called(self, call_id: str, name: str, arguments: str) -> str | None:
        """Hear that the agent called a tool. Return its result if there is one already.

        A call that repeats one at work gets that one's result (``orphan_returned``): see ``repeats``.
        """
        self._called = True
        errand = Errand.of(name, arguments)
        before = self._answered.get(call_id)
        if before is not None and before[0] == errand:
            return before[1]  # the same call once more, not another one
        for other_id, other in (*self._orphans.items(), *self._calls.items()):
            meant = self._parallel and self._called_in.get(other_id) == self._answers
            if other == errand and not meant:
                self._joined.setdefault(other_id, []).append(call_id)
                self._unasked.discard(other_id)
                return None
        if errand in self._settled:
            return self._settled[errand]
        self._calls[call_id] = errand
        self._called_in[call_id] = self._answers
        return None

    def repeats(self, call_id: str) -> bool:
        """Return whether a call of this connection waits for the result of an earlier one."""
        return any(call_id in calls for calls in self._joined.values())

    def cancelled(self, call_ids: Iterable[str]) -> None:
        """Hear that the agent has no use for some results any more."""
        for call_id in call_ids:
            errand = self._calls.pop(call_id, None)
            self._called_in.pop(call_id, None)
            if errand is not None:
                self._withdrawn[call_id] = errand
            for calls in self._joined.values():
                if call_id in calls:
                    calls.remove(call_id)
        while len(self._withdrawn) > _REMEMBERED:
            del self._withdrawn[next(iter(self._withdrawn))]

    def goes_on(self, call_id: str) -> None:
        """Hear that a tool is at work whose call the agent took back: what it does cannot be undone."""
        errand = self._withdrawn.pop(call_id, None)
        if errand is not None:
            self._orphans[call_id] = errand
            self._unasked.add(call_id)

    def answer_begins(self) -> None:
        """Hear that the agent begins an answer: it knows the results so far."""
        self._called = False
        self._answers += 1
        self._spoken_of = len(self._given)
        self._known = tuple(self._settled)

    def answered(self) -> bool:
        """Hear that the answer is complete. Return whether it was one: to call a tool is none yet."""
        if not self._called:
            del self._given[: self._spoken_of]
            self._spoken_of = 0
            for errand in self._known:
                self._settled.pop(errand, None)
        return not self._called

    # --- from the tools ---

    def returned(self, call_id: str, output: str) -> list[str]:
        """Hear a result that the present connection is given. Return its other calls that it answers."""
        errand = self._calls.pop(call_id, None)
        self._called_in.pop(call_id, None)
        if errand is not None:
            self._given.append((errand, output))
            self._answered[call_id] = errand, output
            while len(self._answered) > _REMEMBERED:
                del self._answered[next(iter(self._answered))]
        return self._joined.pop(call_id, [])

    def orphan_returned(self, call_id: str, output: str, *, answer: bool) -> list[str] | None:
        """Hear a result, and if the agent is to speak of it.

        Return the calls of the present connection that it answers; None if it is no orphan's.
        """
        errand = self._orphans.pop(call_id, None)
        if errand is None:
            return None
        unasked = call_id in self._unasked
        self._unasked.discard(call_id)
        joined = self._joined.pop(call_id, [])
        self._settled[errand] = output
        if joined:
            self._given.append((errand, output))
        else:
            self._facts.append(_result(errand, output))
            self._answer_due = self._answer_due or (answer and not unasked)
        return joined

    def answer_due(self) -> bool:
        """Return whether the agent must be asked to speak of the results of orphans; once."""
        due, self._answer_due = self._answer_due, False
        return due

    # --- the next connection ---

    def session_lost(self) -> None:
        """Hear that another connection or session takes the place of the present one."""
        for errand, output in self._given:
            self._facts.append(_result(errand, output))
            self._settled[errand] = output
        self._given.clear()
        self._spoken_of = 0
        self._known = ()
        self._orphans |= self._calls
        self._calls.clear()
        self._called_in.clear()
        self._answered.clear()
        self._joined.clear()
        self._called = False

    def told(self) -> Iterator[str]:
        """Return what a connection that follows another must know, a line each."""
        yield from self._facts
        for errand in self._orphans.values():
            yield f"The tool {errand.name} that you called is still at work: do not call it again."


def _result(errand: Errand, output: str) -> str:
    return f"The tool {errand.name} that you called has returned: {output}"
