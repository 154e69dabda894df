"""Every fault of a prompts file, with its place. Pure.

``prompts.parse`` refuses the first that it cannot work with; this finds all, and what would only be heard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, get_args

import yaml

from arivox.conversation.flow import ASIDES, collected_in
from arivox.conversation.prompts import PLACEHOLDER
from arivox.settings import Provider

_PROVIDERS: Final = get_args(Provider)
_SECTION: Final = ("system_instruction", "states")


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong, and where; lines and columns count from 1."""

    line: int
    column: int
    problem: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.problem}"


def faults(text: str) -> list[Fault]:
    """Return the faults of a prompts file, in the order of their places."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return [Fault(line, column, f"not valid YAML: {getattr(error, 'problem', error)}")]
    if not isinstance(root, yaml.MappingNode) or not root.value:
        return [Fault(1, 1, f"the file must have sections: {', '.join(_PROVIDERS)}")]
    return sorted(_of_file(root))


def _of_file(root: yaml.MappingNode) -> Iterator[Fault]:
    yield from _twice(root)
    for key, section in root.value:
        if key.value not in _PROVIDERS:
            yield _at(key, f"{key.value!r} is not an AI; there are {', '.join(_PROVIDERS)}")
        elif not isinstance(section, yaml.MappingNode):
            yield _at(section, f"{key.value} must hold {' and '.join(_SECTION)}")
        else:
            yield from _of_section(key, section)


def _of_section(name: yaml.Node, section: yaml.MappingNode) -> Iterator[Fault]:
    yield from _twice(section)
    states: yaml.Node | None = None
    for key, value in section.value:
        if key.value == "states":
            states = value
        elif key.value != "system_instruction":
            yield _at(key, f"{key.value!r} is not known here; there are {' and '.join(_SECTION)}")
        elif not isinstance(value, yaml.ScalarNode):
            yield _at(value, "system_instruction must be text")
    if states is None:
        yield _at(name, f"{name.value} has no states")
    elif not isinstance(states, yaml.MappingNode) or not states.value:
        yield _at(states, "states must map names of states to their prompts")
    else:
        yield from _of_states(states)


def _of_states(states: yaml.MappingNode) -> Iterator[Fault]:
    yield from _twice(states)
    names = [str(key.value) for key, _ in states.value]
    if all(name in ASIDES for name in names):
        yield _at(states, f"there is no state besides {' and '.join(ASIDES)}")
    collected = {collected_in(name) for name in names}
    known: set[str | None] = set()
    for key, prompt in states.value:
        if not isinstance(key, yaml.ScalarNode):
            yield _at(key, "the name of a state must be text")
            continue
        if not isinstance(prompt, yaml.ScalarNode) or not prompt.value.strip():
            yield _at(prompt, f"state {key.value!r} must have a prompt (text)")
            continue
        for name in dict.fromkeys(PLACEHOLDER.findall(prompt.value)):
            if name not in collected:
                yield _at(prompt, f"state {key.value!r} speaks of {{{name}}}, which no state asks for")
            elif name not in known and key.value not in ASIDES:
                yield _at(prompt, f"state {key.value!r} speaks of {{{name}}}, which is asked for only later")
        known.add(collected_in(key.value))


def _twice(mapping: yaml.MappingNode) -> Iterator[Fault]:
    seen: set[str] = set()
    for key, _ in mapping.value:
        name = str(key.value)
        if name in seen:
            yield _at(key, f"{name!r} stands here for the second time; only the last would count")
        seen.add(name)


def _at(node: yaml.Node, problem: str) -> Fault:
    return Fault(node.start_mark.line + 1, node.start_mark.column + 1, problem)
