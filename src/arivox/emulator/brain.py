"""What an emulated AI decides to say and do: simple, deterministic, the same for every provider.

It reads its instructions the way a model is meant to read those of this service: a line
``Current state: NAME``, the state's prompt after it, and perhaps ``Known so far:`` and ``Possible next
states:`` with more lines. It knows two tools by their names: ``move_to_state`` (parameters ``state``, and
``value``, what the caller said) and ``end_call``. The first of the possible next states is the normal way on;
where the instructions do not list them, the first of the tool's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

MOVE: Final = "move_to_state"
END: Final = "end_call"
DEFAULT_PROMPT: Final = "Hello, how can I help you?"
NOT_UNDERSTOOD: Final = "I'm sorry, I didn't catch that."
GOOD_BYE: Final = "Thank you for calling. Good-bye."
FAREWELLS: Final = ("good bye", "bye bye", "bye")

_STATE = re.compile(r"^[ \t]*Current state:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_KNOWN = re.compile(r"^[ \t]*(?:Known so far|Possible next states):", re.MULTILINE)
_NEXT = re.compile(r"^[ \t]*Possible next states:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_QUOTED = re.compile(r"\bSay:\s*[\"“](?P<text>[^\"”]+)[\"”]", re.IGNORECASE)
_FAREWELL = re.compile(r"\b(?:good[- ]?)?bye\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Say:
    """Speak ``text``."""

    text: str


@dataclass(frozen=True, slots=True)
class Use:
    """Call the tool ``name``."""

    name: str
    arguments: dict[str, str] = field(default_factory=dict)


Action = Say | Use


@dataclass(frozen=True, slots=True)
class Situation:
    """What the AI was told: the text of its instructions, and its tools with their JSON schemas."""

    instructions: str
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Return the name of the current state, ``""`` when the instructions name none."""
        found = _STATE.search(self.instructions)
        return found[1] if found else ""

    @property
    def prompt(self) -> str:
        """Return what to say in this state."""
        found = _STATE.search(self.instructions)
        if not found:
            return DEFAULT_PROMPT
        text = self.instructions[found.end() :]
        known = _KNOWN.search(text)
        paragraph = text[: known.start() if known else None].strip().split("\n\n")[0]
        return quoted(paragraph) or " ".join(paragraph.split()) or DEFAULT_PROMPT

    @property
    def ways_on(self) -> list[str]:
        """Return the states that ``move_to_state`` may go to, the normal one first."""
        if MOVE not in self.tools:
            return []
        if found := _NEXT.search(self.instructions):
            return [] if found[1] == "none" else [name.strip() for name in found[1].split(",")]
        properties = self.tools.get(MOVE, {}).get("properties", {})
        return [str(name) for name in properties.get("state", {}).get("enum", ())]

    @property
    def is_last(self) -> bool:
        """Return whether this is a named state from which there is no way on."""
        return bool(self.state) and not self.ways_on


class Brain:
    """``phrases`` says what callers may say in each state: pairs of the words and the value they stand for.

    In a state without phrases any words will do, and are the value themselves.
    """

    def __init__(self, phrases: Mapping[str, Sequence[tuple[str, str]]] | None = None) -> None:
        self._phrases = phrases or {}

    def expected(self, situation: Situation) -> list[str]:
        """Return what the caller may say now, for the ears; nothing when it can be anything."""
        phrases = [words for words, _ in self._phrases.get(situation.state, ())]
        return [*phrases, *FAREWELLS] if phrases else []

    def open(self, situation: Situation, told: str = "") -> list[Action]:
        """Return what to do when asked to speak first; ``told`` are the instructions for this response alone.

        A last state (named, with no way on) ends the call with a good-bye.
        """
        said = quoted(told)
        if said or not situation.is_last or END not in situation.tools:
            return [Say(said or situation.prompt)]
        prompt = situation.prompt
        return [Say(prompt if _FAREWELL.search(prompt) else f"{prompt} Good-bye."), Use(END)]

    def answer(self, situation: Situation, heard: str) -> list[Action]:
        """Return what to do about the words that were heard, ``""`` when they were not understood.

        In a last state anything that is said ends the call. Without any state the AI
        repeats what it heard.
        """
        if END in situation.tools and (situation.is_last or _FAREWELL.search(heard)):
            return [Say(GOOD_BYE), Use(END)]
        value = self._value(situation.state, heard)
        if not value:
            return [Say(f"{NOT_UNDERSTOOD} {situation.prompt}")]
        if not situation.ways_on:
            return [Say(situation.prompt if situation.is_last else f"You said: {value}.")]
        arguments = {"state": situation.ways_on[0]}
        if "value" in situation.tools[MOVE].get("properties", {}):
            arguments["value"] = value
        return [Use(MOVE, arguments)]

    def _value(self, state: str, heard: str) -> str:
        phrases = self._phrases.get(state)
        if not phrases:
            return heard.strip()
        words = _plain(heard)
        for phrase, value in phrases:
            if words == _plain(phrase):
                return value
        return ""


def quoted(text: str) -> str:
    """Return the sentence in quotation marks after ``Say:``, ``""`` when there is none."""
    found = _QUOTED.search(text)
    return found["text"].strip() if found else ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))
