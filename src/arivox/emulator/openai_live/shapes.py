"""What the ``session`` of ``session.start`` and of ``session.update`` may hold, strictly.

The shapes are those of ``openai.types.live.SessionConfigParam`` and ``SessionUpdateConfigParam``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from arivox.emulator.openai.config import CustomVoice

_Ms = Annotated[int, Meta(ge=0)]
Voice = Literal[
    "alloy",
    "ash",
    "ballad",
    "beacon",
    "bossa",
    "cedar",
    "cinder",
    "coral",
    "delta",
    "echo",
    "gleam",
    "marin",
    "meridian",
    "quartz",
    "ripple",
    "sage",
    "shida",
    "shimmer",
    "stone",
    "tempo",
    "verse",
    "vesper",
    "willow",
]


class _Part(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A JSON object of the session."""


class _Pcm(_Part, tag_field="type", tag="audio/pcm"):
    rate: Literal[16000, 24000]


class _Pcmu(_Part, tag_field="type", tag="audio/pcmu"):
    rate: Literal[8000]


class _Pcma(_Part, tag_field="type", tag="audio/pcma"):
    rate: Literal[8000]


class _Output(_Part):
    voice: Voice | CustomVoice | UnsetType = UNSET


class _Audio(_Part):
    format: _Pcm | _Pcmu | _Pcma | UnsetType = UNSET
    output: _Output | UnsetType = UNSET


class _Text(_Part):
    text: str
    type: Literal["input_text", "output_text", "text"] | UnsetType = UNSET


class _Message(_Part):
    role: Literal["developer", "user", "assistant"]
    content: Annotated[list[_Text], Meta(min_length=1, max_length=1)]
    type: Literal["message"] | UnsetType = UNSET
    id: str | None = None
    status: Literal["incomplete", "completed"] | None = None


class Function(_Part, tag_field="type", tag="function"):
    """A function tool of the backend."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Reasoning(_Part):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["concise", "detailed", "auto"] | None = None


class _Verbosity(_Part):
    verbosity: Literal["low", "medium", "high"] | None = None


class Backend(_Part):
    """Settings of the Responses backend."""

    model: str | UnsetType = UNSET
    instructions: str | UnsetType | None = UNSET
    max_output_tokens: Annotated[int, Meta(ge=1)] | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    reasoning: _Reasoning | UnsetType | None = UNSET
    service_tier: (
        Literal["auto", "default", "fast_tier_temp_pilot", "flex", "priority", "ultrafast"] | UnsetType | None
    ) = UNSET
    text: _Verbosity | UnsetType | None = UNSET
    tool_choice: Literal["auto", "none", "required"] | dict[str, Any] | UnsetType = UNSET
    tools: list[dict[str, Any]] | UnsetType = UNSET


class Decider(_Part):
    """Settings of the decisions."""

    model: str | UnsetType = UNSET
    questions: list[dict[str, Any]] | UnsetType = UNSET


class _ToClient(_Part, tag_field="type", tag="client"):
    acknowledgement_delay_ms: _Ms | UnsetType = UNSET


class ToResponses(_Part, tag_field="type", tag="responses"):
    """Delegation to a Responses model."""

    responses: Backend | UnsetType = UNSET
    acknowledgement_delay_ms: _Ms | UnsetType = UNSET


class ToDecisions(_Part, tag_field="type", tag="decisions"):
    """Delegation to decisions; taken, never used."""

    decisions: Decider | UnsetType = UNSET
    acknowledgement_delay_ms: _Ms | UnsetType = UNSET


class _Questions(_Part):
    questions: list[dict[str, Any]]


class _Trigger(_Part, tag_field="type", tag="decisions"):
    event_type: Literal["session.input_transcript.delta", "session.output_transcript.delta"]
    decisions: _Questions


class Update(_Part):
    """The ``session`` of a ``session.update``."""

    delegation: _ToClient | ToResponses | ToDecisions | UnsetType | None = UNSET
    triggers: list[_Trigger] | UnsetType = UNSET


class Start(Update, kw_only=True):
    """The ``session`` of a ``session.start``."""

    model: str
    audio: _Audio | UnsetType = UNSET
    input: Annotated[list[_Message], Meta(max_length=128)] | UnsetType = UNSET
    instructions: str | UnsetType | None = UNSET
    safety_identifier: str | UnsetType | None = UNSET
    store: bool = False
