"""What the AI is told in each state of a conversation, and what its tools do. Pure.

The model moves on by calling the tool ``move_to_state``; ``flow`` says where to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from arivox.conversation.flow import (
    Breakdown,
    Entered,
    Event,
    Mistake,
    Move,
    Position,
    Refused,
    collected_in,
    step,
)
from arivox.conversation.prompts import PLACEHOLDER, Prompts
from arivox.providers.base import Brief, Tool, Utterance

log = structlog.get_logger()

MOVE: Final = "move_to_state"
END: Final = "end_call"

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
    cause: str = ""
    """Why it moved."""
    end_call: bool = False


class _MoveArguments(msgspec.Struct):
    state: str
    value: str = ""


class Conversation:
    """The conversation of one call."""

    def __init__(self, prompts: Prompts, system_instruction: str = "") -> None:
        self.fixed_tools = False
        """The AI's tools cannot change in mid-call: from the first they allow every state."""
        self._prompts = prompts
        self._instruction = system_instruction or prompts.system_instruction
        self._flow = prompts.flow
        self._position = self._flow.start
        self.history: tuple[Utterance, ...] = ()
        """What was said before this session."""

    @property
    def state(self) -> str:
        """Return where the conversation is."""
        return self._position.state

    @property
    def known(self) -> dict[str, str]:
        """Return what the caller has said that was asked for."""
        return dict(self._position.known)

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
        return self._flow.exits(self._position)

    def resume(self, state: str, known: Mapping[str, str], history: Sequence[Utterance]) -> None:
        """Go on where an earlier conversation ended, if the state still exists and is not the last one."""
        self.history = tuple(history)
        way = self._flow.way
        if state in way and state != way[-1]:
            self._position = Position(state, dict(known))

    def call_tool(self, name: str, arguments: str) -> ToolOutcome:
        """Run a tool the model called. A wrong call is answered with an error the model can act on."""
        try:
            if name == END:
                return ToolOutcome(_json({"ok": True}), end_call=True)
            return self._step(_event(name, arguments))
        except Exception as error:
            log.exception("a tool failed by a bug of ours", tool=name)
            return self._step(Breakdown(f"the tool failed: {type(error).__name__}"))

    def _step(self, event: Event) -> ToolOutcome:
        self._position, effects = step(self._flow, self._position, event)
        answer: dict[str, Any] = {}
        cause = ""
        for effect in effects:
            match effect:
                case Refused():
                    answer["error"] = effect.problem
                case Entered():
                    cause = effect.cause
                    answer["state"] = effect.after
        answer = answer if "error" in answer else {"ok": True, **answer}
        return ToolOutcome(_json(answer), moved=bool(cause), cause=cause)

    def _tools(self) -> tuple[Tool, ...]:
        end = Tool(END, "End the call, after you have said good-bye.")
        states = list(self._prompts.states) if self.fixed_tools else list(self.exits)
        if not states:
            return (end,)
        collected = None if self.fixed_tools else collected_in(self.state)
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
        return PLACEHOLDER.sub(lambda match: self._position.known.get(match[1], ""), prompt)


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value).decode()


def _event(name: str, arguments: str) -> Event:
    if name != MOVE:
        return Mistake(f"there is no tool {name!r}")
    try:
        move = msgspec.json.decode(arguments, type=_MoveArguments)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        return Mistake(f"the arguments are wrong: {error}")
    return Move(move.state, move.value)
