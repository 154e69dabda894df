"""Where a conversation is, and where it may go: ``step(flow, position, event, now) -> (position, effects)``.

Pure, and driven by the table of states that the prompts file declares. From each state that is not the last
one the conversation can also go aside to ``fallback``, and from there on or back. What goes wrong counts as a
try: after its tries the conversation goes to ``fallback`` (or where the state says), and from there
to ``error_handler``. An error of our own leads there at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from arivox.conversation.field import Field
from arivox.conversation.state import (
    ASIDES,
    ERROR_HANDLER,
    FALLBACK,
    Action,
    Exit,
    State,
    placeholders,
    value_of,
)
from arivox.conversation.tools.names import ACTS

KEYS_PAUSE_S: Final = 4.0
"""A caller who pressed keys and presses none for so long has finished."""
HIDDEN: Final = "****"
"""Stands for a secret value wherever it could be read."""

_MOST_KEYS: Final = 40


@dataclass(frozen=True, slots=True)
class Leaving:
    """A move that waits for what tools say to it."""

    state: str
    cause: str
    known: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Position:
    """Where one conversation is."""

    state: str
    known: Mapping[str, str] = field(default_factory=dict)
    tries: int = 0
    """What went wrong in this state so far."""
    back: str = ""
    """Where an aside leads back to."""
    entered: float = 0.0
    silences: int = 0
    wanted: Field | None = None
    """Digits that a tool asked for, whatever the state."""
    keyed: str = field(default="", repr=False)
    keyed_at: float = 0.0
    done_at: float = float("-inf")
    """When the last digits were complete; what is pressed right after them may belong to them."""
    unended: bool = False
    """They were a secret, and only a pause ended it."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    leaving: Leaving | None = None


# --- events ---


@dataclass(frozen=True, slots=True)
class Move:
    """The model wants to move on; ``values`` are what the caller said, as the model wrote it."""

    state: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """The model did not understand the caller."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """The model called a tool in a way that makes no sense."""

    problem: str


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Something of ours failed."""

    problem: str


@dataclass(frozen=True, slots=True)
class Key:
    """The caller pressed a key of the phone."""

    digit: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Spoke:
    """The caller is heard."""


@dataclass(frozen=True, slots=True)
class Waited:
    """The caller was away for so long: that time does not count."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Silent:
    """The caller has been silent as long as the state allows."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A tool found something out."""

    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Want:
    """A tool asks for digits, or no longer."""

    field: Field | None


@dataclass(frozen=True, slots=True)
class Checked:
    """The tools that a move waits for have spoken; ``problem`` is why one refuses it."""

    leaving: Leaving
    learned: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


Event = (
    Move
    | NotUnderstood
    | Mistake
    | Breakdown
    | Key
    | Spoke
    | Waited
    | Silent
    | Tick
    | Learned
    | Want
    | Checked
)


# --- effects ---


@dataclass(frozen=True, slots=True)
class Entered:
    """The conversation is in another state.

    ``cause`` is ``moved``, ``tries``, ``error``, ``key``, ``digits``, ``silence`` or ``timeout``.
    """

    before: str
    after: str
    cause: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The model is told what was wrong."""

    problem: str


@dataclass(frozen=True, slots=True)
class Again:
    """The caller is to be asked again, in these words if there are any."""

    say: str


@dataclass(frozen=True, slots=True)
class Run:
    """The flow itself runs a tool."""

    action: Action


@dataclass(frozen=True, slots=True)
class Check:
    """These tools are asked first, in order; what they say is told by ``Checked``."""

    actions: tuple[Action, ...]
    leaving: Leaving


@dataclass(frozen=True, slots=True)
class Keyed:
    """The caller has keyed in a value; a secret one is not shown."""

    name: str
    shown: str
    """As the model may see it."""
    wanted: bool
    """A tool waits for it."""


@dataclass(frozen=True, slots=True)
class Pressed:
    """A key was pressed that the flow has no use for."""

    digit: str


Effect = Entered | Refused | Again | Run | Check | Keyed | Pressed
Result = tuple[Position, tuple[Effect, ...]]


@dataclass(frozen=True)
class Flow:
    """The states that there are, in the order of the file, and what is known from the start of the call."""

    states: Mapping[str, State]
    variables: Mapping[str, str] = field(default_factory=dict)
    """``caller.number`` and the like; those without a value are missing."""

    @property
    def way(self) -> tuple[str, ...]:
        """Return the states that are no asides, in order."""
        return tuple(state for state in self.states if state not in ASIDES)

    @property
    def fields(self) -> dict[str, Field]:
        """Return everything that some state asks for, by name."""
        return {one.name: one for state in self.states.values() for one in state.collects}

    @property
    def start(self) -> Position:
        """Return where a conversation begins."""
        return Position(self.way[0])

    def home(self, position: Position) -> State:
        """Return the state of the way that the conversation is in, or has gone aside from."""
        name = position.back or self.way[0] if position.state in ASIDES else position.state
        return self.states[name]

    def exits(self, position: Position) -> tuple[Exit, ...]:
        """Return where the model may move to, the normal way first."""
        home = self.home(position)
        asked = {one.name for one in home.collects}
        # A condition on what is asked for here may still come true.
        following = [way for way in home.exits if way.open(position.known, but=asked)]
        if position.state in ASIDES:
            following.append(Exit(home.name, anyway=True))
        if position.state != FALLBACK and FALLBACK in self.states and (following or home.exits):
            following.append(Exit(FALLBACK, anyway=True))
        return tuple(following)

    def keying(self, position: Position) -> Field | None:
        """Return what the next key belongs to: digits that a tool or the state asks for."""
        if position.wanted is not None:
            return position.wanted
        asked = (one for one in self.home(position).collects if one.type == "digits")
        return next((one for one in asked if one.name not in position.known), None)

    def missing(self, state: str, known: Mapping[str, str]) -> tuple[str, ...]:
        """Return the names without a value that the prompt of a state speaks of."""
        return tuple(
            name
            for name in placeholders(self.states[state].prompt)
            if not value_of(name, known) and not self.variables.get(name)
        )


def step(flow: Flow, position: Position, event: Event, now: float = 0.0) -> Result:
    """Return where the conversation is after the event, and what is to be done about it.

    ``now`` is in seconds, of any clock that only goes forward.
    """
    match event:
        case Move():
            return _move(flow, position, event, now)
        case NotUnderstood():
            state = flow.states[position.state]
            return _mistaken(flow, position, Again(state.no_match_say), now)
        case Mistake():
            return _mistaken(flow, position, Refused(event.problem), now)
        case Breakdown():
            return _aside(flow, position, (ERROR_HANDLER,), Refused(event.problem), "error", now)
        case Key():
            return _key(flow, position, event.digit, now)
        case Spoke():
            return replace(position, silences=0), ()
        case Waited():
            return replace(position, entered=position.entered + event.seconds), ()
        case Silent():
            return _silent(flow, position, now)
        case Tick():
            return _tick(flow, position, now)
        case Learned():
            return replace(position, known={**position.known, **event.values}), ()
        case Want():
            return replace(position, wanted=event.field, keyed=""), ()
        case Checked():
            return _checked(flow, position, event, now)


def _move(flow: Flow, position: Position, move: Move, now: float) -> Result:
    if position.leaving is not None:
        return position, (Refused("a move is being looked into already; wait for its result"),)
    exits = flow.exits(position)
    way = next((one for one in exits if one.state == move.state), None)
    if way is None:
        possible = ", ".join(one.state for one in exits) or "none, the conversation ends here"
        return _refuse(
            flow, position, f"{move.state!r} cannot follow {position.state!r}; possible: {possible}", now
        )
    try:
        said = _read(flow, position, move.values)
    except ValueError as error:
        return _refuse(flow, position, str(error), now)
    known = {**position.known, **said}
    missing = [one.name for one in flow.home(position).collects if one.required and one.name not in known]
    if missing and not way.anyway:
        return _refuse(flow, position, f"{', '.join(missing)} is missing; ask the caller for it", now)
    ways = [one for one in exits if one.state == move.state]
    if not any(one.open(known) for one in ways):
        return _refuse(flow, position, f"{move.state!r} is only possible when {way.condition}", now)
    return _leave(flow, position, Leaving(move.state, "moved", known), way.anyway, now)


def _leave(
    flow: Flow,
    position: Position,
    leaving: Leaving,
    unchecked: bool,
    now: float,
    effects: tuple[Effect, ...] = (),
) -> Result:
    """Go on by the normal way, if the tools that are to be asked first let it."""
    actions: tuple[Action, ...] = ()
    home = flow.home(position)
    if leaving.state not in (*ASIDES, home.name) and not unchecked:
        actions = (*home.on_leave, *flow.states[leaving.state].on_enter)
    checks = tuple(action for action in actions if action.tool not in ACTS)
    if checks:
        return replace(position, leaving=leaving), (*effects, Check(checks, leaving))
    after, more = _arrive(flow, position, leaving, now)
    return after, (*effects, *more)


def _arrive(flow: Flow, position: Position, leaving: Leaving, now: float) -> Result:
    if unknown := flow.missing(leaving.state, leaving.known):
        problem = f"{leaving.state!r} speaks of {', '.join(unknown)}, which is not known yet"
        return _refuse(flow, position, problem, now)
    position = replace(position, known=leaving.known)
    return _enter(flow, position, leaving.state, leaving.cause, now, checked=True)


def _checked(flow: Flow, position: Position, event: Checked, now: float) -> Result:
    if position.leaving is not event.leaving:
        position = replace(position, known={**position.known, **event.learned})
        return position, (Refused("the conversation has moved on meanwhile"),)
    position = replace(position, leaving=None)
    if event.problem:
        # It was understood, and is not possible: there is nothing to say again in other words.
        asked_anew = _without_digits(position, flow.home(position))
        return _mistaken(flow, asked_anew, Refused(event.problem), now)
    leaving = replace(event.leaving, known={**event.leaving.known, **event.learned})
    return _arrive(flow, position, leaving, now)


def _read(flow: Flow, position: Position, values: Mapping[str, Any]) -> dict[str, str]:
    fields = flow.fields
    said = {}
    for name, value in values.items():
        if value is None or value == "":
            continue
        one = fields.get(name)
        if one is None or one.secret:
            asked = ", ".join(field.name for field in flow.home(position).collects) or "nothing"
            raise ValueError(f"{name!r} is not asked for; this state asks for: {asked}")
        said[name] = one.read(value)
    return said


def _refuse(flow: Flow, position: Position, problem: str, now: float) -> Result:
    say = flow.states[position.state].no_match_say
    return _mistaken(flow, position, Refused(f'{problem}. Say: "{say}"' if say else problem), now)


def _mistaken(flow: Flow, position: Position, told: Refused | Again, now: float) -> Result:
    state = flow.states[position.state]
    tries = position.tries + 1
    if tries < state.tries or not flow.exits(position):
        return replace(position, tries=min(tries, state.tries)), (told,)
    to = state.no_match_to
    if to not in ASIDES and to in flow.states:
        return _go(flow, position, to, "tries", now, (told,))
    return _aside(flow, position, _from(to), told, "tries", now)


def _from(aside: str) -> Sequence[str]:
    """Return an aside and those further aside."""
    return ASIDES[ASIDES.index(aside) :] if aside in ASIDES else ASIDES


def _aside(
    flow: Flow, position: Position, asides: Sequence[str], told: Refused | Again, cause: str, now: float
) -> Result:
    """Go to the first of ``asides`` that there is and that is further aside than the present state."""
    further = ASIDES.index(position.state) + 1 if position.state in ASIDES else 0
    for state in asides:
        if state in flow.states and state in ASIDES[further:] and not flow.missing(state, position.known):
            return _enter(flow, position, state, cause, now, (told,))
    most = flow.states[position.state].tries
    return replace(position, tries=min(position.tries + 1, most)), (told,)


def _key(flow: Flow, position: Position, digit: str, now: float) -> Result:
    wanted = flow.keying(position)
    # A hash key that was not needed; or the rest of a secret, which nobody may see.
    if wanted is None and now - position.done_at < KEYS_PAUSE_S and (digit == "#" or position.unended):
        return replace(position, done_at=now), ()
    if wanted is not None:
        if digit == "#":
            return _keyed(flow, position, wanted, now) if position.keyed else (position, ())
        keyed = (position.keyed + digit)[:_MOST_KEYS]
        position = replace(position, keyed=keyed, keyed_at=now)
        if wanted.length and len(keyed) >= wanted.length:
            return _keyed(flow, position, wanted, now)
        return position, ()
    to = flow.states[position.state].keys.get(digit) or flow.home(position).keys.get(digit)
    if to is None:
        secret = any(one.secret for one in flow.home(position).collects)
        return position, () if secret else (Pressed(digit),)
    return _go(flow, position, to, "key", now)


def _keyed(flow: Flow, position: Position, one: Field, now: float, *, by_pause: bool = False) -> Result:
    by_tool = position.wanted is not None
    digits = position.keyed
    position = replace(position, keyed="")
    try:
        value = one.read(digits)
    except ValueError as error:
        return _refuse(flow, position, str(error), now)
    shown = HIDDEN if one.secret else value
    secrets = {**position.secrets, one.name: value} if one.secret else position.secrets
    known = {**position.known, one.name: shown}
    position = replace(position, known=known, secrets=secrets, wanted=None, done_at=now)
    position = replace(position, unended=by_pause and one.secret)
    keyed = Keyed(one.name, shown, by_tool)
    home = flow.home(position)
    ways = [way for way in home.exits if way.open(known)]
    complete = all(asked.name in known or not asked.required for asked in home.collects)
    if by_tool or not complete or len(ways) != 1:
        return position, (keyed,)
    return _leave(flow, position, Leaving(ways[0].state, "digits", known), False, now, (keyed,))


def _silent(flow: Flow, position: Position, now: float) -> Result:
    silence = flow.states[position.state].silence
    if silence is None:
        return position, ()
    if position.silences < silence.times:
        return replace(position, silences=position.silences + 1), (Again(silence.say),)
    if silence.to not in ASIDES:
        return _go(flow, position, silence.to, "silence", now)
    return _aside(flow, position, _from(silence.to), Again(silence.say), "silence", now)


def _tick(flow: Flow, position: Position, now: float) -> Result:
    wanted = flow.keying(position)
    if wanted is not None and position.keyed and now - position.keyed_at >= KEYS_PAUSE_S:
        return _keyed(flow, position, wanted, now, by_pause=True)
    timeout = flow.states[position.state].timeout
    if timeout is None or position.leaving is not None or now - position.entered < timeout.after_s:
        return position, ()
    return _go(flow, position, timeout.to, "timeout", now)


def _go(
    flow: Flow, position: Position, state: str, cause: str, now: float, effects: tuple[Effect, ...] = ()
) -> Result:
    """Enter a state that the model did not ask for, or the error handler if its prompt cannot be spoken."""
    unknown = flow.missing(state, position.known)
    if not unknown:
        return _enter(flow, position, state, cause, now, effects)
    problem = Refused(f"{state!r} speaks of {', '.join(unknown)}, which is not known")
    after, more = _aside(flow, position, (ERROR_HANDLER,), problem, "error", now)
    # Where there is no error handler, it is not tried again and again.
    return replace(after, entered=now), (*effects, *more)


def _enter(
    flow: Flow,
    position: Position,
    state: str,
    cause: str,
    now: float,
    effects: tuple[Effect, ...] = (),
    *,
    checked: bool = False,
) -> Result:
    home = flow.home(position)
    aside = state in ASIDES
    # Who goes aside has not left, and who comes back has not come anew.
    leaves = () if aside or state == home.name else home.on_leave
    enters = () if state == home.name else flow.states[state].on_enter
    # Who is sent on must not be held up: what would have been asked before is not asked, or only told.
    leaves = tuple(action for action in leaves if action.tool in ACTS)
    enters = tuple(action for action in enters if action.tool in ACTS or not checked)
    if not aside and state != home.name:
        # Digits that are asked for are asked for anew.
        position = _without_digits(position, flow.states[state])
    after = Position(
        state,
        position.known,
        back=home.name if aside else "",
        entered=now,
        wanted=position.wanted,
        done_at=position.done_at,
        unended=position.unended,
        secrets=position.secrets,
    )
    return after, (
        *effects,
        *map(Run, leaves),
        Entered(position.state, state, cause),
        *map(Run, enters),
    )


def _without_digits(position: Position, state: State) -> Position:
    """Forget the digits that a state asks for, so that they can be keyed in again."""
    names = {one.name for one in state.collects if one.type == "digits"}
    return replace(
        position,
        known={name: value for name, value in position.known.items() if name not in names},
        secrets={name: value for name, value in position.secrets.items() if name not in names},
    )
