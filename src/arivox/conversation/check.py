"""Every fault of a prompts file, with its place: also what would only be heard in a call. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

import yaml

from arivox.conversation.endpoint import OF_THE_CALL, Endpoint
from arivox.conversation.field import Field, parameters
from arivox.conversation.flow import Flow
from arivox.conversation.reader import Fault, PromptsFile, Section
from arivox.conversation.state import ALIASES, ANY, ASIDES, CHANNEL, Action, State, placeholders
from arivox.conversation.tools.names import TRANSFER
from arivox.conversation.tools.tool import Facts, facts_of

ALWAYS: Final = frozenset({"call.id", "call.exten", "now.date", "now.time", "now.weekday"})
"""Placeholders that have a value in every call."""
SOMETIMES: Final = frozenset({"caller.number", "caller.name"})
"""Placeholders that have none when the caller withholds it."""
LEAVES: Final = frozenset({TRANSFER})
"""Tools that can end a conversation."""


def faults(text: str, tools: Mapping[str, Facts]) -> list[Fault]:
    """Return the faults of a prompts file, in the order of their places.

    ``tools`` are those that there are, by name.
    """
    file = PromptsFile(text)
    for name in file.names:
        section = file.section([name])
        if section is not None:
            check_section(file, section, tools)
    if not file.names and not file.faults:
        file.faults.append(Fault(1, 1, "the file has no section of an AI"))
    return sorted(file.faults)


def check_section(file: PromptsFile, section: Section, tools: Mapping[str, Facts]) -> None:
    """Add to the faults of a file what is wrong with the flow of one of its sections."""
    # With a state that could not be read, or that nobody knows, the rest of the flow would seem wrong too.
    read = len(section.states) == len(section.at) and any(name not in ASIDES for name in section.states)
    if read and all(name in section.at for _, name in section.state_names):
        _Check(file, section, tools).all()


class _Check:
    def __init__(self, file: PromptsFile, section: Section, tools: Mapping[str, Facts]) -> None:
        self._file = file
        self._section = section
        self._states = section.states
        self._flow = Flow(section.states)
        http = {name: facts_of(parameters(one.parameters)) for name, one in file.endpoints.items()}
        self._tools = {**tools, **http}
        self._found_out = {name for facts in tools.values() for name in facts.finds}
        self._after = {
            name: {after for after in _following(state) if after in self._states}
            for name, state in self._states.items()
        }

    def all(self) -> None:
        self._reachable()
        self._ways_out()
        self._placeholders()
        self._conditions()
        for node, name in self._section.tool_names:
            if name not in self._tools:
                self._file.fault(node, f"{name!r} is not a tool; there are {', '.join(sorted(self._tools))}")
        for node, action in self._section.actions:
            self._action(node, action)
        self._declared_twice()
        for endpoint in self._file.endpoints.values():
            self._endpoint(endpoint)

    def _action(self, node: yaml.Node, action: Action) -> None:
        facts = self._tools.get(action.tool)
        if facts is None:
            return
        missing = sorted(facts.required - action.arguments.keys())
        strange = sorted(action.arguments.keys() - facts.required - facts.optional)
        if missing:
            self._file.fault(node, f"{action.tool!r} needs {', '.join(missing)}")
        if strange:
            self._file.fault(node, f"{action.tool!r} takes no {', '.join(strange)}")

    def _declared_twice(self) -> None:
        """Two states may ask for the same, but not for two things of one name."""
        seen: dict[str, Field] = {}
        for name, state in self._states.items():
            for field in state.collects:
                alike = replace(field, description="", required=True)
                if seen.setdefault(field.name, alike) != alike:
                    problem = f"state {name!r} asks for another {field.name!r} than an earlier state"
                    self._file.fault(self._section.at[name], problem)

    def _endpoint(self, endpoint: Endpoint) -> None:
        at = self._file.endpoint_at[endpoint.name]
        for name in endpoint.unset():
            self._file.fault(at, f"tool {endpoint.name!r} needs the environment variable {name}")
        ever = {*OF_THE_CALL, *endpoint.parameters, *self._flow.fields, *self._found_out}
        for name in endpoint.placeholders:
            if name not in ever:
                self._file.fault(at, f"tool {endpoint.name!r} speaks of {{{name}}}, which nobody asks for")

    def _reachable(self) -> None:
        start = self._flow.way[0]
        reached = self._reach([start, *ASIDES])
        for name in self._states:
            if name not in reached:
                self._file.fault(self._section.at[name], f"state {name!r} cannot be reached from {start!r}")

    def _ways_out(self) -> None:
        ends = {
            name
            for name, state in self._states.items()
            if name not in ASIDES and (not state.exits or LEAVES & {*state.tools, *_run(state)})
        }
        for name in self._flow.way:
            if not ends & self._reach([name]):
                self._file.fault(self._section.at[name], f"from state {name!r} no way leads to an end")

    def _placeholders(self) -> None:
        before = self._known_before()
        ever = {*self._flow.fields, *self._found_out}
        for name, state in self._states.items():
            at = self._section.prompt_at[name]
            again = state.silence.say if state.silence is not None else ""
            for wanted in placeholders(f"{again} {state.no_match_say}"):
                if wanted not in {*ever, *ALWAYS, *SOMETIMES} and not wanted.startswith(CHANNEL):
                    problem = f"state {name!r} asks again with {{{wanted}}}, which no state asks for"
                    self._file.fault(at, problem)
            for wanted in placeholders(state.prompt):
                names = {wanted, ALIASES.get(wanted, wanted)}
                if wanted in ALWAYS or wanted.startswith(CHANNEL):
                    continue
                first = name == self._flow.way[0]
                if wanted in SOMETIMES:
                    problem = f"{{{wanted}}} may be withheld: write {{{wanted}|what to say then}}"
                elif not names & ever:
                    problem = f"state {name!r} speaks of {{{wanted}}}, which no state asks for"
                elif first:
                    problem = f"state {name!r} speaks of {{{wanted}}}, which has no value at the beginning"
                elif name not in ASIDES and not names & before[name]:
                    problem = f"state {name!r} speaks of {{{wanted}}}, which is asked for only later"
                else:
                    continue
                self._file.fault(at, problem)
        if self._section.instruction_at is not None:
            for wanted in placeholders(self._section.system_instruction):
                if wanted not in ALWAYS and not wanted.startswith(CHANNEL):
                    self._file.fault(
                        self._section.instruction_at,
                        f"the system instruction speaks of {{{wanted}}}, which has no value from the start",
                    )

    def _known_before(self) -> dict[str, set[str]]:
        """Return for each state the names that some way to it makes known."""
        known: dict[str, set[str]] = {name: set() for name in self._states}
        changed = True
        while changed:
            changed = False
            for name, state in self._states.items():
                gained = known[name] | {field.name for field in state.collects}
                gained |= self._found_by((*state.tools, *_run(state)))
                for after in self._after[name]:
                    # What a state asks on entering is asked before it speaks.
                    entering = [action.tool for action in self._states[after].on_enter]
                    told = gained | self._found_by(entering)
                    if not told <= known[after]:
                        known[after] |= told
                        changed = True
        return known

    def _found_by(self, tools: Iterable[str]) -> set[str]:
        return {name for tool in tools for name in self._tools.get(tool, Facts()).finds}

    def _conditions(self) -> None:
        fields = self._flow.fields
        for node, name, values in self._section.conditions:
            if name not in fields:
                if name not in self._found_out:
                    self._file.fault(node, f"the condition is about {name!r}, which no state asks for")
                continue
            for value in values:
                if value == ANY:
                    continue
                try:
                    fields[name].read(value)
                except ValueError as error:
                    self._file.fault(node, f"the condition can never hold: {error}")

    def _reach(self, starts: Iterable[str]) -> set[str]:
        reached: set[str] = set()
        left = [name for name in starts if name in self._states]
        while left:
            name = left.pop()
            if name not in reached:
                reached.add(name)
                left += self._after[name]
        return reached


def _following(state: State) -> Iterator[str]:
    yield from (way.state for way in state.exits)
    yield from state.keys.values()
    if state.silence is not None:
        yield state.silence.to
    if state.timeout is not None:
        yield state.timeout.to
    yield state.no_match_to


def _run(state: State) -> tuple[str, ...]:
    return tuple(action.tool for action in (*state.on_enter, *state.on_leave))
