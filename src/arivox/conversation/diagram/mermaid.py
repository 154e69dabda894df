"""A flow in Mermaid's language."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from arivox.conversation.diagram.edges import clean, edges, ends
from arivox.conversation.flow import Flow
from arivox.conversation.state import ASIDES

_MEANINGFUL: Final = frozenset(
    {"state", "note", "end", "direction", "class", "classdef", "style", "click", "scale", "hide", "default"}
    | {"fork", "join", "choice", "as", "root", "root_start", "root_end", "constructor", "__proto__"}
)
"""Words that Mermaid would not take for a state."""
_PLAIN: Final = re.compile(r"[^\w ,.\[\]-]|^-|(?<=\d)\.|\[(?=\[)|(?<=direction) ", re.IGNORECASE)
"""What would end a text, be taken for a word of the language or format the text."""


def mermaid(flow: Flow) -> str:
    """Return a state diagram: where each state leads and what it asks for, and the asides."""
    names = _mermaid_names(flow.states)
    lines = ["stateDiagram-v2"]
    lines += [
        f'    state "{_mermaid_text(state) or names[state]}" as {names[state]}' for state in flow.states
    ]
    lines.append(f"    [*] --> {names[flow.way[0]]}")
    aside: list[str] = []
    for edge in edges(flow):
        text = _mermaid_text(" ".join(filter(None, (edge.collected, edge.label))))
        line = f"    {names[edge.source]} --> {names[edge.target]}{f': {text}' if text else ''}"
        (aside if edge.source in ASIDES or edge.target in ASIDES else lines).append(line)
    lines += [f"    {names[state]} --> [*]" for state in ends(flow)]
    return "\n".join((*lines, *aside)) + "\n"


def _mermaid_names(states: Iterable[str]) -> dict[str, str]:
    """Return a name for each state that Mermaid takes for one, and for no other's."""
    names: dict[str, str] = {}
    taken = {*ASIDES, *_MEANINGFUL}
    for state in states:
        name = wanted = state if state in ASIDES else re.sub(r"\W", "_", state) or "_"
        count = 1
        while name.casefold() in taken and state not in ASIDES:
            count += 1
            name = f"{wanted}_{count}"
        names[state] = name
        taken.add(name.casefold())
    return names


def _mermaid_text(text: str) -> str:
    return _PLAIN.sub(lambda found: f"#{ord(found[0])};", clean(text))
