"""The flow of a conversation as a diagram in Mermaid's language. Pure."""

from __future__ import annotations

import re

from arivox.conversation.flow import ASIDES, ERROR_HANDLER, FALLBACK, Flow, Position, collected_in


def mermaid(flow: Flow) -> str:
    """Return a state diagram: the normal way, what each state asks for, and the asides."""
    way = flow.way
    lines = ["stateDiagram-v2"]
    lines += [f"    state {_quoted(state)} as {_name(state)}" for state in flow.states]
    lines += [f"    [*] --> {_name(way[0])}"]
    moves = [(state, following) for state in way for following in flow.exits(Position(state))]
    for state, following in moves:
        if following != FALLBACK:
            collected = collected_in(state)
            lines.append(f"    {_name(state)} --> {_name(following)}{f': {collected}' if collected else ''}")
    lines.append(f"    {_name(way[-1])} --> [*]")
    for state, following in moves:
        if following == FALLBACK:
            lines += [f"    {_name(state)} --> {FALLBACK}", f"    {FALLBACK} --> {_name(state)}"]
    if ERROR_HANDLER in flow.states:
        source = FALLBACK if FALLBACK in flow.states else _name(way[0])
        lines.append(f"    {source} --> {ERROR_HANDLER}: tries")
    return "\n".join(lines) + "\n"


def _quoted(state: str) -> str:
    return '"' + state.replace('"', "'") + '"'


def _name(state: str) -> str:
    return state if state in ASIDES else re.sub(r"\W", "_", state)
