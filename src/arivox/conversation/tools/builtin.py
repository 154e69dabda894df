"""The tools of Arivox itself: their names, and what the AI is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from arivox.conversation.field import Field, parameters
from arivox.conversation.tools.names import (
    CALL_BACK,
    COLLECT,
    END,
    HOLD,
    NOT_UNDERSTOOD,
    NOTE,
    SEND_DTMF,
    TRANSFER,
)
from arivox.conversation.tools.tool import Facts, facts_of
from arivox.providers.base import Tool

LONGEST_HOLD_S: Final = 120


@dataclass(frozen=True, slots=True)
class Builtin:
    """A tool of ours that a state may allow."""

    name: str
    description: str
    fields: Mapping[str, Field]

    def told(self) -> Tool:
        """Return what the AI is told."""
        return Tool(self.name, self.description, parameters(self.fields))


def _fields(*fields: Field) -> dict[str, Field]:
    return {field.name: field for field in fields}


ALLOWED: Final[Mapping[str, Builtin]] = {
    tool.name: tool
    for tool in (
        Builtin(
            TRANSFER,
            "Connect the caller with somebody else. First tell the caller that you are connecting them. If "
            "nobody answers, the caller comes back to you, and you are told why.",
            _fields(
                Field("destination", description="Who to connect them with"),
                # Not a phone number: 0 or *97 are extensions too. The destination says what it takes.
                Field(
                    "number", description="The number to dial, if the destination takes one", required=False
                ),
                Field(
                    "summary",
                    description="What the colleague must know, in one or two sentences; they hear it before "
                    "the caller is connected. Leave it out to connect them at once",
                    required=False,
                ),
            ),
        ),
        Builtin(
            HOLD,
            "Let the caller hear music for a while. First tell them that they must wait.",
            _fields(Field("seconds", "integer", f"How long, at most {LONGEST_HOLD_S}")),
        ),
        Builtin(
            SEND_DTMF,
            "Press keys on the telephone line, as for a menu at the other end.",
            _fields(Field("digits", "digits", "The keys: 0-9, *, #")),
        ),
        Builtin(
            COLLECT,
            "Have the caller key in digits on the telephone. First ask them to, and to end with hash.",
            _fields(
                Field("name", description="What the digits are, in one word"),
                Field("length", "integer", "How many there must be", required=False),
                Field("secret", "yes_no", "Nobody may read them, you neither: a PIN, a card", required=False),
            ),
        ),
        Builtin(
            NOTE,
            "Leave a note for the people who run this line.",
            _fields(Field("text", description="The note")),
        ),
        Builtin(
            CALL_BACK,
            "Note when somebody should call the caller back.",
            _fields(
                Field("when", description="Date and time as YYYY-MM-DD HH:MM"),
                Field("number", "phone", "The number to call, if it is not the caller's own", required=False),
                Field("about", description="What it is about", required=False),
            ),
        ),
    )
}
"""By name, the tools that a state may allow."""

END_TOOL: Final = Tool(END, "End the call, after you have said good-bye.")
NOT_UNDERSTOOD_TOOL: Final = Tool(
    NOT_UNDERSTOOD,
    "Say that you did not understand the caller, or that what they said does not fit. You are then told how "
    "to go on.",
)

FACTS: Final[Mapping[str, Facts]] = {
    END: Facts(),
    **{tool.name: facts_of(parameters(tool.fields)) for tool in ALLOWED.values()},
}
"""Of those that a state may run or allow."""
