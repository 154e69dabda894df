"""Where a conversation is, what the AI is told there, and what its tools do. Pure.

The states follow each other in the order of the prompts file. The model moves on by calling the tool
``move_to_state``; from every state but the last it can also go to ``fallback``, and from there back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from arivox.conversation.prompts import ASIDES, Prompts
from arivox.providers.base import Brief, Tool, Utterance

MOVE: Final = "move_to_state"
END: Final = "end_call"

# What the caller says in a state is known from then on under this name.
_COLLECTS: Final = {
    "gathering_reason": "reason",
    "collecting_availability_days": "day",
    "collecting_availability_times": "time",
}
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")

_RULES: Final = (
    "You lead this call through states. Say what the current state asks for, in your own words and in the "
    "caller's language, then wait for the caller. As soon as the caller has answered it, call the tool "
    f"{MOVE} at once, without saying anything first; you will then be told the next state. "
    f"If you did not understand the caller, ask again. Call {END} when the caller says good-bye, or when "
    "nothing is left to do."
)


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What a tool did."""

    output: str
    """Result for the model, JSON."""
    moved: bool = False
    end_call: bool = False


class _Move(msgspec.Struct):
    state: str
    value: str = ""


class Conversation:
    """The conversation of one call."""

    def __init__(self, prompts: Prompts, system_instruction: str = "") -> None:
        self.fixed_tools = False
        """The AI's tools cannot change in mid-call: from the first they allow every state."""
        self._prompts = prompts
        self._instruction = system_instruction or prompts.system_instruction
        self._before_aside: str | None = None
        self.state = prompts.way[0]
        self.known: dict[str, str] = {}
        self.history: tuple[Utterance, ...] = ()
        """What was said before this session."""

    @property
    def brief(self) -> Brief:
        """Return what the AI is told in the present state."""
        lines = [f"Current state: {self.state}", self._fill(self._prompts.states[self.state])]
        if self.known:
            lines += ["Known so far: " + "; ".join(f"{name}: {value}" for name, value in self.known.items())]
        lines += [f"Possible next states: {', '.join(self.exits) or 'none'}"]
        focus = "\n".join(lines)
        instructions = "\n".join([self._instruction, "", _RULES, "", focus]).strip()
        return Brief(instructions, self._tools(), focus, self.history)

    @property
    def exits(self) -> tuple[str, ...]:
        """Return the states that can follow, the normal way first."""
        way = self._prompts.way
        if self.state in ASIDES:
            following: tuple[str, ...] = (self._before_aside or way[0],)
        else:
            following = way[way.index(self.state) + 1 :][:1]
        aside = "fallback"
        if self.state != aside and aside in self._prompts.states and following:
            return (*following, aside)
        return following

    def resume(self, state: str, known: Mapping[str, str], history: Sequence[Utterance]) -> None:
        """Go on where an earlier conversation ended, if the state still exists and is not the last one."""
        self.history = tuple(history)
        way = self._prompts.way
        if state in way and state != way[-1]:
            self.state = state
            self.known = dict(known)

    def call_tool(self, name: str, arguments: str) -> ToolOutcome:
        """Run a tool the model called. A wrong call is answered with an error the model can act on."""
        if name == END:
            return ToolOutcome(_json({"ok": True}), end_call=True)
        if name != MOVE:
            return _error(f"there is no tool {name!r}")
        try:
            move = msgspec.json.decode(arguments, type=_Move)
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
            return _error(f"the arguments are wrong: {error}")
        if move.state not in self.exits:
            return _error(f"{move.state!r} cannot follow {self.state!r}; possible: {', '.join(self.exits)}")
        collected = _COLLECTS.get(self.state)
        if collected is not None and move.state not in ASIDES and move.value.strip():
            self.known[collected] = move.value.strip()
        if move.state in ASIDES:
            self._before_aside = self.state
        self.state = move.state
        return ToolOutcome(_json({"ok": True, "state": self.state}), moved=True)

    def _tools(self) -> tuple[Tool, ...]:
        end = Tool(END, "End the call, after you have said good-bye.")
        states = list(self._prompts.states) if self.fixed_tools else list(self.exits)
        if not states:
            return (end,)
        collected = None if self.fixed_tools else _COLLECTS.get(self.state)
        value = f"What the caller said: the {collected}" if collected else "What the caller said, briefly"
        move = Tool(
            MOVE,
            "Move the conversation to another state, once the caller has answered the present one.",
            {
                "type": "object",
                "properties": {
                    "state": {"type": "string", "enum": states},
                    "value": {"type": "string", "description": value},
                },
                "required": ["state", "value"],
            },
        )
        return (move, end)

    def _fill(self, prompt: str) -> str:
        return _PLACEHOLDER.sub(lambda match: self.known.get(match[1], ""), prompt)


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def _error(problem: str) -> ToolOutcome:
    return ToolOutcome(_json({"error": problem}))
