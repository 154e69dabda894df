"""What an emulated AI decides to say and do: simple, deterministic, the same for every provider.

It reads its instructions the way a model is meant to read those of this service: a line
``Current state: NAME``, the state's prompt after it, and perhaps ``Gone aside from:``, ``Ask for:``,
``Known so far:``, ``Conditions:`` and ``Possible next states:`` with more lines. It knows three tools by
name: ``move_to_state`` (parameters ``state``, and one more for what was said), ``not_understood`` and
``end_call``. The first of the possible next states whose condition holds is the way on; where the
instructions do not list them, the first of the tool's own. A result with ``Say: "..."`` in it is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

MOVE: Final = "move_to_state"
END: Final = "end_call"
AGAIN: Final = "not_understood"
DEFAULT_PROMPT: Final = "Hello, how can I help you?"
NOT_UNDERSTOOD: Final = "I'm sorry, I didn't catch that."
GOOD_BYE: Final = "Thank you for calling. Good-bye."
FAREWELLS: Final = ("good bye", "bye bye", "bye")

_STATE = re.compile(r"^[ \t]*Current state:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_KNOWN = re.compile(
    r"^[ \t]*(?:Gone aside from|Ask for|Known so far|Result of \w+|Conditions|Possible next states):"
    r"|^[ \t]*The caller (?:may key in|has pressed)",
    re.MULTILINE,
)
_ASIDE = re.compile(r"^[ \t]*Gone aside from:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_ASKED = re.compile(r"^[ \t]*Ask for:[ \t]*(\w+)", re.MULTILINE)
_CONDITIONS = re.compile(r"^[ \t]*Conditions:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_CONDITION = re.compile(r"(\S+) only when (.*)")
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
    def home(self) -> str:
        """Return the state that the conversation has gone aside from, ``""`` when it has not."""
        found = _ASIDE.search(self.instructions)
        return found[1] if found else ""

    @property
    def asked(self) -> str:
        """Return the name under which ``move_to_state`` takes what was said, ``""`` when it takes none."""
        names = [name for name in self.tools.get(MOVE, {}).get("properties", {}) if name != "state"]
        found = _ASKED.search(self.instructions)
        if found and found[1] in names:
            return found[1]
        told = _NEXT.search(self.instructions) is not None  # then what to ask for would be told too
        return names[0] if len(names) == 1 and not told else ""

    def way_on(self, value: str) -> str:
        """Return the first way on whose condition allows what the caller said."""
        found = _CONDITIONS.search(self.instructions)
        told = [_CONDITION.match(part.strip()) for part in (found[1] if found else "").split(";")]
        barred = {
            match[1]
            for match in told
            if match
            and f"{self.asked} is " in match[2]
            and value not in re.split(r" or | and ", match[2].partition(f"{self.asked} is ")[2])
        }
        return next((way for way in self.ways_on if way not in barred), self.ways_on[0])

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
        phrases = [words for words, _ in self._said_in(situation)]
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
        value = self._value(situation, heard)
        if not value and AGAIN in situation.tools:
            return [Use(AGAIN)]
        if not value:
            return [Say(f"{NOT_UNDERSTOOD} {situation.prompt}")]
        if not situation.ways_on:
            return [Say(situation.prompt if situation.is_last else f"You said: {value}.")]
        if situation.home in situation.ways_on and self._aside(situation, heard):
            return [Use(MOVE, {"state": situation.home})]
        arguments = {"state": situation.way_on(value)}
        if situation.asked:
            arguments[situation.asked] = value
        return [Use(MOVE, arguments)]

    def _said_in(self, situation: Situation) -> list[tuple[str, str]]:
        """Return what can be said now: aside, also what is asked for in the state that was left."""
        return [*self._phrases.get(situation.home, ()), *self._phrases.get(situation.state, ())]

    def _aside(self, situation: Situation, heard: str) -> bool:
        """Return whether the words belong to the aside alone, as a plea to say it again."""
        words = _plain(heard)
        return all(words != _plain(phrase) for phrase, _ in self._phrases.get(situation.home, ()))

    def _value(self, situation: Situation, heard: str) -> str:
        phrases = self._said_in(situation)
        if not phrases:
            return heard.strip()
        words = _plain(heard)
        for phrase, value in phrases:
            if words == _plain(phrase):
                return value
        return ""


def told_by(output: str) -> str:
    """Return the text in the result of a tool, which is JSON."""
    try:
        found = msgspec.json.decode(output, type=dict[str, Any])
    except msgspec.MsgspecError:
        return output
    return " ".join(value for value in found.values() if isinstance(value, str))


def quoted(text: str) -> str:
    """Return the sentence in quotation marks after ``Say:``, ``""`` when there is none."""
    found = _QUOTED.search(text)
    return found["text"].strip() if found else ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))
