"""The prompts file, read node by node, so that every fault has its line and column. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

import yaml

from arivox.conversation.endpoint import METHODS, TIMEOUT_S, Endpoint
from arivox.conversation.field import TYPES, Field
from arivox.conversation.state import (
    ANY,
    ASIDES,
    FALLBACK,
    MOST_TRIES,
    Action,
    Exit,
    Silence,
    State,
    Timeout,
    collected_by_name,
    next_on,
)
from arivox.conversation.tools.names import RESERVED
from arivox.settings.settings import Provider

PROVIDERS: Final[tuple[str, ...]] = get_args(Provider)
COMMON: Final = "common"
TOOLS: Final = "tools"

_FILE: Final = (COMMON, *PROVIDERS, TOOLS)
_SECTION: Final = ("system_instruction", "defaults", "states")
_DEFAULTS: Final = ("tools", "no_match", "silence", "timeout", "dtmf")
_STATE: Final = ("prompt", "collect", "next", *_DEFAULTS, "on_enter", "on_leave")
_FIELD: Final = ("type", "description", "required", "choices", "pattern", "length", "secret")
_ENDPOINT: Final = ("description", "parameters", "http", "say")
_HTTP: Final = ("url", "method", "query", "headers", "body", "timeout")
_NAME: Final = re.compile(r"[A-Za-z_]\w{0,63}$")
_KEY: Final = re.compile(r"[0-9*#A-D]$")
_END: Final = "end"
_STATE_DEPTH: Final = 2  # of a state in a section
_DEEPEST: Final = 6  # an alias may stand inside what it names

Pairs = dict[str, tuple[yaml.Node, yaml.Node]]


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong, and where; lines and columns count from 1."""

    line: int
    column: int
    problem: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.problem}"


@dataclass
class Section:
    """What one AI is told, with the place of each state and of what it names."""

    system_instruction: str = ""
    states: dict[str, State] = field(default_factory=dict)
    instruction_at: yaml.Node | None = None
    at: dict[str, yaml.Node] = field(default_factory=dict)
    """The names of the states."""
    prompt_at: dict[str, yaml.Node] = field(default_factory=dict)
    state_names: list[tuple[yaml.Node, str]] = field(default_factory=list)
    """Everything that must be the name of a state."""
    tool_names: list[tuple[yaml.Node, str]] = field(default_factory=list)
    actions: list[tuple[yaml.Node, Action]] = field(default_factory=list)
    conditions: list[tuple[yaml.Node, str, tuple[str, ...]]] = field(default_factory=list)
    """Names and values that exits depend on."""


class PromptsFile:
    """A prompts file: its sections, merged with what they share, and its faults."""

    def __init__(self, text: str) -> None:
        self.faults: list[Fault] = []
        self.endpoints: dict[str, Endpoint] = {}
        self.endpoint_at: dict[str, yaml.Node] = {}
        self._parts: dict[str, yaml.MappingNode] = {}
        self._sections: dict[str, Section] = {}
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
            self.faults.append(Fault(line, column, f"not valid YAML: {getattr(error, 'problem', error)}"))
            return
        if not isinstance(root, yaml.MappingNode) or not root.value:
            self.faults.append(Fault(1, 1, f"the file must have sections: {', '.join(PROVIDERS)}"))
            return
        for name, (_, value) in self._pairs(root, _FILE, "").items():
            if name == TOOLS:
                self._read_endpoints(value)
            elif isinstance(value, yaml.MappingNode):
                self._parts[name] = value
            else:
                self.fault(value, f"{name} must hold {_listed(_SECTION)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the AIs that can be told something."""
        own = tuple(name for name in PROVIDERS if name in self._parts)
        return own or ((COMMON,) if COMMON in self._parts else ())

    def section(self, names: Sequence[str]) -> Section | None:
        """Return what the first of ``names`` is told: its own section over the common one; None: nothing."""
        common = self._parts.get(COMMON)
        if common is not None:
            own = self._parts.get(names[0])
            name = names[0] if own is not None else COMMON
        else:
            name = next((one for one in names if one in self._parts), "")
            own = self._parts.get(name)
        if not name:
            return None
        if name not in self._sections:
            node = own if common is None or own is None else _merged(common, own)
            self._sections[name] = self._read_section(name, node if node is not None else common)
        return self._sections[name]

    def fault(self, node: yaml.Node, problem: str) -> None:
        """Keep a fault with the place of a node, once."""
        fault = Fault(node.start_mark.line + 1, node.start_mark.column + 1, problem)
        if fault not in self.faults:
            self.faults.append(fault)

    # --- a section ---

    def _read_section(self, name: str, node: yaml.Node | None) -> Section:
        section = Section()
        assert node is not None
        pairs = self._pairs(node, _SECTION, "here")
        if "system_instruction" in pairs:
            section.instruction_at = pairs["system_instruction"][1]
            section.system_instruction = self._text(section.instruction_at, "system_instruction", empty=True)
        states = pairs["states"][1] if "states" in pairs else None
        if states is None:
            self.fault(node, f"{name} has no states")
            return section
        if not isinstance(states, yaml.MappingNode) or not states.value:
            self.fault(states, "states must map names of states to their prompts")
            return section
        entries = self._pairs(states, None, "here")
        way = [state for state in entries if state not in ASIDES]
        if entries and not way:
            self.fault(states, f"there is no state besides {_listed(ASIDES)}")
        defaults: Pairs = {}
        if "defaults" in pairs:
            defaults = self._pairs(pairs["defaults"][1], _DEFAULTS, "under defaults")
        for state, (key, value) in entries.items():
            section.at[state] = key
            read = self._read_state(section, state, value, way, {} if state in ASIDES else defaults)
            if read is not None:
                section.states[state] = read
        fields = {one.name: one for read in section.states.values() for one in read.collects}
        section.states = {
            name: replace(read, exits=tuple(_as_kept(way, fields) for way in read.exits))
            for name, read in section.states.items()
        }
        for node, target in section.state_names:
            if target not in entries and target not in ASIDES:
                self.fault(node, f"{target!r} is not a state{_meant(target, entries)}")
            elif target not in entries:
                self.fault(node, f"there is no state {target!r} in this file")
        return section

    def _read_state(
        self, section: Section, name: str, node: yaml.Node, way: Sequence[str], defaults: Pairs
    ) -> State | None:
        if isinstance(node, yaml.ScalarNode) and node.value.strip():
            pairs: Pairs = {"prompt": (node, node)}
        elif isinstance(node, yaml.MappingNode):
            pairs = self._pairs(node, _STATE, "in a state")
        else:
            self.fault(node, f"state {name!r} must have a prompt (text)")
            return None
        if "prompt" not in pairs:
            self.fault(node, f"state {name!r} must have a prompt (text)")
            return None
        given = defaults | pairs
        section.prompt_at[name] = pairs["prompt"][1]

        def value(key: str) -> yaml.Node | None:
            return given[key][1] if key in given else None

        no_match = self._no_match(section, value("no_match"))
        return State(
            name,
            " ".join(self._text(pairs["prompt"][1], f"the prompt of {name!r}").split()),
            self._collect(pairs["collect"][1]) if "collect" in pairs else collected_by_name(name),
            self._exits(section, value("next")) if "next" in pairs else next_on(way, name),
            self._tools(section, value("tools")),
            tries=no_match[1],
            no_match_say=no_match[0],
            no_match_to=no_match[2],
            silence=self._silence(section, value("silence")),
            timeout=self._timeout(section, value("timeout")),
            keys=self._keys(section, value("dtmf")),
            on_enter=self._actions(section, value("on_enter")),
            on_leave=self._actions(section, value("on_leave")),
        )

    def _no_match(self, section: Section, node: yaml.Node | None) -> tuple[str, int, str]:
        say, tries, to = "", MOST_TRIES, FALLBACK
        if node is not None:
            pairs = self._pairs(node, ("say", "tries", "to"), "under no_match")
            if "say" in pairs:
                say = self._text(pairs["say"][1], "say")
            if "tries" in pairs:
                tries = int(self._number(pairs["tries"][1], "tries", 1, 20))
            if "to" in pairs:
                to = self._state_name(section, pairs["to"][1])
        return say, tries, to

    def _silence(self, section: Section, node: yaml.Node | None) -> Silence | None:
        if node is None:
            return None
        pairs = self._pairs(node, ("after", "say", "times", "to"), "under silence")
        if "after" not in pairs:
            self.fault(node, "silence needs after (seconds)")
            return None
        if "to" not in pairs:
            section.state_names.append((node, FALLBACK))
        say = self._text(pairs["say"][1], "say") if "say" in pairs else ""
        return Silence(
            self._number(pairs["after"][1], "after", 1, 600),
            say,
            int(self._number(pairs["times"][1], "times", 0, 20)) if "times" in pairs else 1,
            self._state_name(section, pairs["to"][1]) if "to" in pairs else FALLBACK,
        )

    def _timeout(self, section: Section, node: yaml.Node | None) -> Timeout | None:
        if node is None:
            return None
        pairs = self._pairs(node, ("after", "to"), "under timeout")
        if len(pairs) < 2:
            self.fault(node, "timeout needs after (seconds) and to (a state)")
            return None
        after_s = self._number(pairs["after"][1], "after", 1, 3600)
        return Timeout(after_s, self._state_name(section, pairs["to"][1]))

    def _keys(self, section: Section, node: yaml.Node | None) -> dict[str, str]:
        keys = {}
        if node is not None:
            for key, (at, value) in self._pairs(node, None, "").items():
                if _KEY.match(key):
                    keys[key] = self._state_name(section, value)
                else:
                    self.fault(at, f"{key!r} is not a key of a telephone: 0-9, *, #, A-D")
        return keys

    def _collect(self, node: yaml.Node) -> tuple[Field, ...]:
        """Read fields: a list of names, or a mapping of names to what they are."""
        if isinstance(node, yaml.SequenceNode):
            named = [(item, self._text(item, "the name of a field")) for item in node.value]
            return tuple(Field(name) for item, name in named if self._field_name(item, name))
        return tuple(self._fields(node).values())

    def _fields(self, node: yaml.Node) -> dict[str, Field]:
        fields = {}
        for name, (key, value) in self._pairs(node, None, "").items():
            if not self._field_name(key, name):
                continue
            if isinstance(value, yaml.ScalarNode):
                fields[name] = Field(name, description=value.value.strip())
            else:
                fields[name] = self._field(name, value)
        return fields

    def _field_name(self, node: yaml.Node, name: str) -> bool:
        if name and (not _NAME.match(name) or name == "state"):
            self.fault(node, f"{name!r} cannot be the name of a field: letters, digits, _; and not state")
            return False
        return bool(name)

    def _field(self, name: str, node: yaml.Node) -> Field:
        pairs = self._pairs(node, _FIELD, "in a field")
        given: dict[str, Any] = {}
        for key, (_, value) in pairs.items():
            if key in ("required", "secret"):
                given[key] = self._flag(value, key)
            elif key == "length":
                given[key] = int(self._number(value, key, 1, 32))
            elif key == "choices":
                given[key] = self._texts(value, "choices")
            else:
                given[key] = self._text(value, key, empty=key == "description")
        if given.get("type", "text") not in TYPES:
            self.fault(pairs["type"][1], f"{given['type']!r} is not a type; there are {', '.join(TYPES)}")
            del given["type"]
        try:
            re.compile(given.get("pattern", ""))
        except (re.error, RecursionError, OverflowError) as error:
            self.fault(pairs["pattern"][1], f"pattern is not a regular expression: {error}")
            del given["pattern"]
        if given.get("secret") and given.get("type") != "digits":
            self.fault(pairs["secret"][1], "secret is for digits keyed in: what is said, the AI hears")
        if given.get("length") and given.get("type") != "digits":
            self.fault(pairs["length"][1], "length is for digits")
        return Field(name, **given)

    def _exits(self, section: Section, node: yaml.Node | None) -> tuple[Exit, ...]:
        if isinstance(node, yaml.ScalarNode):
            return () if node.value == _END else (Exit(self._state_name(section, node)),)
        if not isinstance(node, yaml.SequenceNode):
            if node is not None:
                self.fault(node, "next must be a state, a list of them, or end")
            return ()
        exits = []
        for item in node.value:
            if isinstance(item, yaml.ScalarNode):
                exits.append(Exit(self._state_name(section, item)))
                continue
            pairs = self._pairs(item, ("state", "when", "anyway"), "under next")
            if "state" not in pairs:
                self.fault(item, "an entry of next needs state")
                continue
            exits.append(
                Exit(
                    self._state_name(section, pairs["state"][1]),
                    self._condition(section, pairs["when"][1]) if "when" in pairs else {},
                    anyway=self._flag(pairs["anyway"][1], "anyway") if "anyway" in pairs else False,
                )
            )
        return tuple(exits)

    def _condition(self, section: Section, node: yaml.Node) -> dict[str, tuple[str, ...]]:
        conditions = {}
        for name, (key, value) in self._pairs(node, None, "").items():
            values = (
                (self._text(value, name),) if isinstance(value, yaml.ScalarNode) else self._texts(value, name)
            )
            conditions[name] = values
            section.conditions.append((key, name, values))
        return conditions

    def _tools(self, section: Section, node: yaml.Node | None) -> tuple[str, ...]:
        if node is None:
            return ()
        names = self._texts(node, "tools")
        if isinstance(node, yaml.SequenceNode):
            section.tool_names += [(item, item.value) for item in node.value if item.value in names]
        return names

    def _actions(self, section: Section, node: yaml.Node | None) -> tuple[Action, ...]:
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self.fault(node, "must be a list of tools")
            return ()
        actions = []
        for item in node.value:
            if isinstance(item, yaml.ScalarNode):
                actions.append(Action(self._text(item, "a tool")))
                section.tool_names.append((item, item.value))
                section.actions.append((item, actions[-1]))
                continue
            for name, (key, value) in self._pairs(item, None, "").items():
                arguments = {
                    one: self._text(text, one) for one, (_, text) in self._pairs(value, None, "").items()
                }
                actions.append(Action(name, arguments))
                section.tool_names.append((key, name))
                section.actions.append((key, actions[-1]))
        return tuple(actions)

    def _state_name(self, section: Section, node: yaml.Node) -> str:
        name = self._text(node, "the name of a state")
        if name:
            section.state_names.append((node, name))
        return name

    # --- HTTP tools ---

    def _read_endpoints(self, node: yaml.Node) -> None:
        for name, (key, value) in self._pairs(node, None, "").items():
            pairs = self._pairs(value, _ENDPOINT, "in a tool")
            self.endpoint_at[name] = key
            if not _NAME.match(name) or not name.isascii():
                self.fault(key, f"{name!r} cannot be the name of a tool: letters of ASCII, digits and _")
            elif name in RESERVED:
                self.fault(key, f"{name!r} is the name of a tool of Arivox: choose another")
            elif "description" not in pairs or "http" not in pairs:
                self.fault(key, f"tool {name!r} needs description and http")
            else:
                endpoint = self._endpoint(name, pairs)
                if endpoint is not None:
                    self.endpoints[name] = endpoint

    def _endpoint(self, name: str, pairs: Pairs) -> Endpoint | None:
        http = self._pairs(pairs["http"][1], _HTTP, "under http")
        if "url" not in http:
            self.fault(pairs["http"][1], "http needs url")
            return None
        url = self._text(http["url"][1], "url")
        if not url.startswith(("https://", "http://", "${")):
            self.fault(http["url"][1], "url must begin with https:// or http://")
        given: dict[str, Any] = {}
        for key in ("query", "headers", "body"):
            if key in http:
                inner = self._pairs(http[key][1], None, "")
                given[key] = {one: self._text(text, one, empty=True) for one, (_, text) in inner.items()}
        method = self._text(http["method"][1], "method").upper() if "method" in http else "GET"
        if method not in METHODS:
            self.fault(http["method"][1], f"{method!r} is not a method; there are {', '.join(METHODS)}")
            return None
        return Endpoint(
            name,
            self._text(pairs["description"][1], "description"),
            url,
            method,
            self._fields(pairs["parameters"][1]) if "parameters" in pairs else {},
            timeout_s=self._number(http["timeout"][1], "timeout", 0.1, 120)
            if "timeout" in http
            else TIMEOUT_S,
            say=self._text(pairs["say"][1], "say") if "say" in pairs else "",
            **given,
        )

    # --- nodes ---

    def _pairs(self, node: yaml.Node, known: Sequence[str] | None, where: str) -> Pairs:
        """Return the entries of a mapping whose keys are text, and among ``known`` if that is given."""
        found: Pairs = {}
        if not isinstance(node, yaml.MappingNode):
            what = _listed(known) if known else "names and values"
            self.fault(node, f"must be a mapping of {what}")
            return found
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fault(key, "the name must be text")
            elif known is not None and key.value not in known:
                if where:
                    problem = f"{key.value!r} is not known {where}; there are {_listed(known)}"
                else:
                    problem = f"{key.value!r} is not an AI; there are {', '.join(known)}"
                self.fault(key, problem + _meant(key.value, known))
            else:
                if key.value in found:
                    self.fault(
                        key, f"{key.value!r} stands here for the second time; only the last would count"
                    )
                found[key.value] = (key, value)
        return found

    def _text(self, node: yaml.Node, what: str, *, empty: bool = False) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self.fault(node, f"{what} must be text")
            return ""
        text = str(node.value).strip()
        if not text and not empty:
            self.fault(node, f"{what} is empty")
        return text

    def _texts(self, node: yaml.Node, what: str) -> tuple[str, ...]:
        if not isinstance(node, yaml.SequenceNode):
            self.fault(node, f"{what} must be a list: [a, b]")
            return ()
        return tuple(text for item in node.value if (text := self._text(item, f"an entry of {what}")))

    def _number(self, node: yaml.Node, what: str, low: float, high: float) -> float:
        try:
            number = float(self._text(node, what))
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            self.fault(node, f"{what} must be a number from {low:g} to {high:g}")
            return low
        return number

    def _flag(self, node: yaml.Node, what: str) -> bool:
        text = self._text(node, what).lower()
        if text not in ("true", "false", "yes", "no"):
            self.fault(node, f"{what} must be true or false")
        return text in ("true", "yes")


def _as_kept(way: Exit, fields: Mapping[str, Field]) -> Exit:
    """Return an exit whose condition names values in the form in which they are kept: yes, not true."""
    when = {}
    for name, values in way.when.items():
        kept = []
        for value in values:
            try:
                kept.append(fields[name].read(value) if name in fields and value != ANY else value)
            except ValueError:
                kept.append(value)  # the check finds it
        when[name] = tuple(kept)
    return replace(way, when=when)


def _merged(base: yaml.Node, over: yaml.Node, depth: int = 0) -> yaml.Node:
    """Return ``base`` refined by ``over``: mappings are merged, anything else replaces."""
    if depth == _STATE_DEPTH:
        base, over = _as_state(base), _as_state(over)
    both = isinstance(base, yaml.MappingNode) and isinstance(over, yaml.MappingNode)
    if not both or depth > _DEEPEST:
        return over
    pairs = list(base.value)
    places = {key.value: at for at, (key, _) in enumerate(pairs) if isinstance(key, yaml.ScalarNode)}
    for key, value in over.value:
        at = places.get(key.value) if isinstance(key, yaml.ScalarNode) else None
        if at is None:
            pairs.append((key, value))
        else:
            pairs[at] = (pairs[at][0], _merged(pairs[at][1], value, depth + 1))
    return yaml.MappingNode(over.tag, pairs, over.start_mark, over.end_mark)


def _as_state(node: yaml.Node) -> yaml.Node:
    """Return a state that is only a prompt as a mapping."""
    if not isinstance(node, yaml.ScalarNode):
        return node
    key = yaml.ScalarNode(node.tag, "prompt", node.start_mark, node.end_mark)
    return yaml.MappingNode(node.tag, [(key, node)], node.start_mark, node.end_mark)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (do you mean {near[0]!r}?)" if near else ""
