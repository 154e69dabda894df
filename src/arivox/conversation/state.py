"""A state of a conversation, as the prompts file declares it. Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from arivox.conversation.field import Field

FALLBACK: Final = "fallback"
ERROR_HANDLER: Final = "error_handler"
ASIDES: Final = (FALLBACK, ERROR_HANDLER)
"""States outside the normal way: where a conversation goes when something is wrong."""
MOST_TRIES: Final = 3
ANY: Final = "*"
"""In a condition: whatever the value, if there is one."""

PLACEHOLDER: Final = re.compile(r"\{(\w+(?:\.\w+)*)(?:\|([^{}]*))?\}")
"""``{name}`` stands in a prompt for a value, ``{name|words}`` for a value or else for these words."""

CHANNEL: Final = "channel."
"""Before the name of a channel variable."""
ALIASES: Final = {"date": "day", "day": "date"}

# What the caller says in a state of the scripts is known from then on under this name.
_COLLECTS: Final = {
    "gathering_reason": "reason",
    "collecting_availability_days": "day",
    "collecting_availability_times": "time",
}


@dataclass(frozen=True, slots=True)
class Exit:
    """Where a conversation may go from a state."""

    state: str
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Only when what is known under these names is one of these values."""
    anyway: bool = False
    """Even while something that the state asks for is not known."""

    def open(self, known: Mapping[str, str], but: Container[str] = ()) -> bool:
        """Return whether the condition holds, but for what it says of some names."""
        return all(
            name in but
            or (name in known and (ANY in values or known[name].casefold() in map(str.casefold, values)))
            for name, values in self.when.items()
        )

    @property
    def condition(self) -> str:
        """Return the condition in words; empty when there is none."""
        return " and ".join(
            f"{name} is {'known' if ANY in values else ' or '.join(values)}"
            for name, values in self.when.items()
        )


@dataclass(frozen=True, slots=True)
class Action:
    """A tool that the flow itself runs."""

    tool: str
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Silence:
    """What happens when the caller stays silent."""

    after_s: float
    say: str = ""
    times: int = 1
    """How often they are asked before the conversation goes on without them."""
    to: str = FALLBACK


@dataclass(frozen=True, slots=True)
class Timeout:
    """Where the conversation goes when it stays in a state too long."""

    after_s: float
    to: str


@dataclass(frozen=True, slots=True)
class State:
    """One state. ``exits`` has the normal way first."""

    name: str
    prompt: str
    collects: tuple[Field, ...] = ()
    exits: tuple[Exit, ...] = ()
    tools: tuple[str, ...] = ()
    tries: int = MOST_TRIES
    no_match_say: str = ""
    no_match_to: str = FALLBACK
    silence: Silence | None = None
    timeout: Timeout | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of the phone, and the states that they lead to."""
    on_enter: tuple[Action, ...] = ()
    on_leave: tuple[Action, ...] = ()
    """Run once the state is entered or left. Those that do not act on the call are asked before: what they
    refuse does not happen."""


def collected_by_name(state: str) -> tuple[Field, ...]:
    """Return what a state asks for that is a prompt and nothing else: the scripts' states, by their names."""
    name = _COLLECTS.get(state)
    return (Field(name),) if name is not None else ()


def plain(states: Mapping[str, str]) -> dict[str, State]:
    """Return states that are a prompt each and follow each other."""
    way = [name for name in states if name not in ASIDES]
    return {
        name: State(name, prompt, collected_by_name(name), next_on(way, name))
        for name, prompt in states.items()
    }


def next_on(way: Sequence[str], name: str) -> tuple[Exit, ...]:
    """Return the exit to the state that follows in the order of the file; none from the last, or an aside."""
    following = way[way.index(name) + 1 :][:1] if name in way else ()
    return tuple(Exit(state) for state in following)


def value_of(name: str, values: Mapping[str, str]) -> str:
    """Return the value of a placeholder; empty when there is none. ``{date}`` and ``{day}`` are one."""
    return values.get(name) or values.get(ALIASES.get(name, ""), "")


def placeholders(text: str) -> tuple[str, ...]:
    """Return the names that a text cannot be spoken without."""
    return tuple(dict.fromkeys(name for name, other in PLACEHOLDER.findall(text) if not other))


def fill(text: str, values: Mapping[str, str], *, keep: bool = False) -> str:
    """Return the text with its placeholders replaced; those without a value by nothing, or kept."""

    def value(found: re.Match[str]) -> str:
        return value_of(found[1], values) or found[2] or (found[0] if keep else "")

    return PLACEHOLDER.sub(value, text)
