"""What a diagram of a flow shows: everything that leads from one state to another."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from arivox.conversation.flow import Flow
from arivox.conversation.state import ASIDES, ERROR_HANDLER, FALLBACK, Exit, State


@dataclass(frozen=True, slots=True)
class Edge:
    """A way from one state to another."""

    source: str
    target: str
    label: str = ""
    """What it takes, besides what the state asks for."""
    collected: str = ""
    """What the state asks for, if that must be known."""
    exit: bool = False
    """Taken because of what the caller says; else by a key, by silence, after a time or after tries."""


def edges(flow: Flow) -> list[Edge]:
    """Return everything that leads from one state to another, in the order of the file."""
    drawn = [edge for state in flow.states.values() for edge in _leading_on(state)]
    for name in flow.way:
        if flow.states[name].exits:
            drawn += [Edge(name, FALLBACK), Edge(FALLBACK, name)]
            if FALLBACK not in flow.states and flow.states[name].no_match_to in ASIDES:
                drawn.append(Edge(name, ERROR_HANDLER, "tries"))
    if FALLBACK in flow.states and flow.states[FALLBACK].no_match_to in ASIDES:
        drawn.append(Edge(FALLBACK, ERROR_HANDLER, "tries"))
    there = (edge for edge in drawn if edge.source in flow.states and edge.target in flow.states)
    return list(dict.fromkeys(there))


def _leading_on(state: State) -> Iterator[Edge]:
    aside = state.name in ASIDES
    if not aside:  # an aside leads on to where the state leads that it was entered from
        yield from (_by_exit(state, way) for way in state.exits)
    yield from (Edge(state.name, to, f"key {key}") for key, to in state.keys.items())
    if state.silence is not None:
        to = state.silence.to
        if not (aside and to in ASIDES):
            yield Edge(state.name, to, "silence")
        elif state.name == FALLBACK:  # from an aside, only the one further aside follows
            yield Edge(state.name, ERROR_HANDLER, "silence")
    if state.timeout is not None:
        yield Edge(state.name, state.timeout.to, f"after {state.timeout.after_s:g} s")
    if state.no_match_to not in (ASIDES if aside else (FALLBACK,)) and (aside or state.exits):
        yield Edge(state.name, state.no_match_to, f"{state.tries} {'try' if state.tries == 1 else 'tries'}")


def _by_exit(state: State, way: Exit) -> Edge:
    words = ["anyway"] if way.anyway and state.collects else []
    words += [f"[{way.condition}]"] if way.condition else []
    collected = "" if way.anyway else ", ".join(one.name for one in state.collects)
    return Edge(state.name, way.state, " ".join(words), collected, exit=True)


def ends(flow: Flow) -> list[str]:
    """Return the states in which the conversation ends."""
    return [name for name in flow.way if not flow.states[name].exits]


def clean(text: str) -> str:
    """Return a text in one line, without characters that cannot be shown."""
    kept = (one for one in " ".join(text.split()) if unicodedata.category(one) not in ("Cc", "Cs", "Cn"))
    return "".join(kept).strip()
