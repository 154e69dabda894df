"""Where a conversation is, and where it may go: ``step(flow, position, event) -> (position, effects)``. Pure.

The states of the normal way follow each other in the order of the prompts file. From each but the last the
conversation can go aside to ``fallback``, and from there back. What the model gets wrong counts as a try:
after ``MOST_TRIES`` in one state the conversation goes to ``fallback``, and from there to ``error_handler``.
An error of our own leads there at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

FALLBACK: Final = "fallback"
ERROR_HANDLER: Final = "error_handler"
ASIDES: Final = (FALLBACK, ERROR_HANDLER)
"""States outside the normal way: where a conversation goes when something is wrong."""
MOST_TRIES: Final = 3

# What the caller says in a state is known from then on under this name.
_COLLECTS: Final = {
    "gathering_reason": "reason",
    "collecting_availability_days": "day",
    "collecting_availability_times": "time",
}


@dataclass(frozen=True, slots=True)
class Position:
    """Where one conversation is."""

    state: str
    known: Mapping[str, str] = field(default_factory=dict)
    tries: int = 0
    """What went wrong in this state so far."""
    back: str = ""
    """Where an aside leads back to."""


# --- events ---


@dataclass(frozen=True, slots=True)
class Move:
    """The model wants to move on; ``value`` is what the caller said in the present state."""

    state: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Mistake:
    """The model called a tool in a way that makes no sense."""

    problem: str


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Something of ours failed."""

    problem: str


Event = Move | Mistake | Breakdown


# --- effects ---


@dataclass(frozen=True, slots=True)
class Entered:
    """The conversation is in another state; ``cause`` is ``moved``, ``tries`` or ``error``."""

    before: str
    after: str
    cause: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The model is told what was wrong."""

    problem: str


Effect = Entered | Refused


@dataclass(frozen=True)
class Flow:
    """The states that there are, in the order of the file."""

    states: Sequence[str]

    @property
    def way(self) -> tuple[str, ...]:
        """Return the states of the normal way, in order."""
        return tuple(state for state in self.states if state not in ASIDES)

    @property
    def start(self) -> Position:
        """Return where a conversation begins."""
        return Position(self.way[0])

    def exits(self, position: Position) -> tuple[str, ...]:
        """Return the states that the model may move to, the normal way first."""
        way = self.way
        if position.state in ASIDES:
            following: tuple[str, ...] = (position.back or way[0],)
        else:
            following = way[way.index(position.state) + 1 :][:1]
        if position.state != FALLBACK and FALLBACK in self.states and following:
            return (*following, FALLBACK)
        return following


def collected_in(state: str) -> str | None:
    """Return the name of what the caller is asked for in a state."""
    return _COLLECTS.get(state)


def step(flow: Flow, position: Position, event: Event) -> tuple[Position, tuple[Effect, ...]]:
    """Return where the conversation is after the event, and what is to be done about it."""
    match event:
        case Move():
            exits = flow.exits(position)
            if event.state in exits:
                return _moved(position, event)
            possible = ", ".join(exits) or "none, the conversation ends here"
            return _mistaken(
                flow, position, f"{event.state!r} cannot follow {position.state!r}; possible: {possible}"
            )
        case Mistake():
            return _mistaken(flow, position, event.problem)
        case Breakdown():
            return _aside(flow, position, (ERROR_HANDLER,), event.problem, "error")


def _moved(position: Position, move: Move) -> tuple[Position, tuple[Effect, ...]]:
    known = dict(position.known)
    name = collected_in(position.state)
    if name is not None and move.state not in ASIDES and move.value.strip():
        known[name] = move.value.strip()
    back = _back(position) if move.state in ASIDES else ""
    return Position(move.state, known, 0, back), (Entered(position.state, move.state, "moved"),)


def _mistaken(flow: Flow, position: Position, problem: str) -> tuple[Position, tuple[Effect, ...]]:
    tries = position.tries + 1
    if tries < MOST_TRIES or not flow.exits(position):
        return replace(position, tries=min(tries, MOST_TRIES)), (Refused(problem),)
    return _aside(flow, position, ASIDES, problem, "tries")


def _aside(
    flow: Flow, position: Position, asides: Sequence[str], problem: str, cause: str
) -> tuple[Position, tuple[Effect, ...]]:
    """Go to the first of ``asides`` that there is and that is further aside than the present state."""
    further = ASIDES.index(position.state) + 1 if position.state in ASIDES else 0
    for state in asides:
        if state in flow.states and state in ASIDES[further:]:
            after = Position(state, position.known, 0, _back(position))
            return after, (Refused(problem), Entered(position.state, state, cause))
    return replace(position, tries=min(position.tries + 1, MOST_TRIES)), (Refused(problem),)


def _back(position: Position) -> str:
    return position.back if position.state in ASIDES else position.state
