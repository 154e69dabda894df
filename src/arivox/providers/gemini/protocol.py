"""The wire protocol of Gemini Live: messages built and parsed. Pure.

Google's ``BidiGenerateContent``: JSON in camel case, one top-level key in each message of ours, any number in
theirs. Audio is 16-bit linear: 24 kHz from the model, the rate we declare to it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from arivox.errors import ProtocolError
from arivox.providers.base import Brief, Tool, Utterance
from arivox.providers.gemini.models import THINKING_BUDGET, Backend, Traits

PROVIDER: Final = "gemini"
RATE_OUT: Final = 24000
"""Samples per second of the agent's voice."""


# --- what we send ---


class SetupOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is set up with, apart from its brief. ``model`` is the full resource name."""

    model: str
    backend: Backend = "studio"
    voice: str = "Kore"
    language: str = ""
    thinking_level: str = ""
    start_sensitivity: str = ""
    end_sensitivity: str = ""
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None


def setup(
    options: SetupOptions, traits: Traits, brief: Brief, handle: str = "", *, seeded: bool = False
) -> bytes:
    """Return ``setup``, the first message. With ``handle`` an earlier session goes on.

    ``seeded`` announces the conversation so far, which ``history`` then sends.
    """
    speech = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": options.voice}}}
    generation: dict[str, Any] = {"responseModalities": ["AUDIO"], "speechConfig": speech}
    if options.thinking_level and traits.thinking != "none":
        generation["thinkingConfig"] = _thinking(options.thinking_level, traits)
    resumption: dict[str, Any] = {"handle": handle} if handle else {}
    message: dict[str, Any] = {
        "model": options.model,
        "generationConfig": generation,
        "systemInstruction": _text_content(brief.instructions),
        "realtimeInputConfig": {
            "automaticActivityDetection": _detection(options),
            "activityHandling": "START_OF_ACTIVITY_INTERRUPTS",
            # The default of the newest models bills every second of silence, and Vertex refuses it.
            "turnCoverage": "TURN_INCLUDES_ONLY_ACTIVITY",
        },
        "inputAudioTranscription": {"languageCodes": [options.language]} if options.language else {},
        "outputAudioTranscription": {},
        "sessionResumption": resumption,
        # Without it a session ends after a quarter of an hour of audio.
        "contextWindowCompression": {"slidingWindow": {}},
    }
    if brief.tools:
        message["tools"] = _tools(brief.tools, traits)
    if seeded:
        message["historyConfig"] = {"initialHistoryInClientContent": True}
    if options.backend == "vertex":
        message["explicitVadSignal"] = True
    return _encode({"setup": message})


AUDIO_STREAM_END: Final = b'{"realtimeInput":{"audioStreamEnd":true}}'
"""The audio pauses: what was heard so far is a turn. The next audio goes on."""


def audio_head(rate: int) -> tuple[bytes, bytes]:
    """Return what stands before and after the base64 of a frame of audio at ``rate``."""
    return b'{"realtimeInput":{"audio":{"data":"', b'","mimeType":"audio/pcm;rate=%d"}}}' % rate


def audio(head: tuple[bytes, bytes], data: bytes) -> bytes:
    """Return ``realtimeInput.audio``. Joined by hand: this is sent fifty times a second."""
    return head[0] + b64encode(data) + head[1]


def text(words: str) -> bytes:
    """Return ``realtimeInput.text``: typed by the user, and answered, after the answer that is being made."""
    return _encode({"realtimeInput": {"text": words}})


def request(words: str) -> bytes:
    """Return a turn that is answered at once, and breaks off an answer that is being made."""
    return _encode({"clientContent": {"turns": [_turn("user", words)], "turnComplete": True}})


def history(utterances: Sequence[Utterance], traits: Traits) -> bytes:
    """Return the conversation so far as ``clientContent``, in the way of the model; nothing is answered."""
    return _encode({"clientContent": {"turns": _turns(utterances), "turnComplete": traits.seeded_history}})


def said(utterances: Sequence[Utterance]) -> bytes:
    """Return what was said lately, for a session that was taken up from before it; nothing is answered."""
    return _encode({"clientContent": {"turns": _turns(utterances), "turnComplete": False}})


def note(words: str, role: Literal["user", "system"] = "user") -> bytes:
    """Return a turn that is not answered: a note of the user's side, or new instructions of the system."""
    return _encode({"clientContent": {"turns": [_turn(role, words)], "turnComplete": False}})


def context_update(brief: Brief, traits: Traits) -> bytes:
    """Return ``contextUpdate``: new instructions and tools in place of the old ones."""
    tools = {"tools": _tools(brief.tools, traits)} if brief.tools else {}
    update = {"systemInstruction": _text_content(brief.instructions), "tools": tools}
    return _encode({"contextUpdate": update})


def tool_response(call_id: str, name: str, output: str, added: str = "") -> bytes:
    """Return the result of a tool. ``output`` is JSON or plain text; ``added`` is a note beside it."""
    try:
        decoded = msgspec.json.decode(output)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        decoded = output
    response: dict[str, Any] = decoded if isinstance(decoded, dict) else {"output": decoded}
    if added:
        response = {**response, "note": added}
    answer = {"id": call_id, "name": name, "response": response}
    return _encode({"toolResponse": {"functionResponses": [answer]}})


def _encode(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message)


def _text_content(words: str) -> dict[str, Any]:
    return {"parts": [{"text": words}]}


def _turn(role: str, words: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"text": words}]}


def _turns(utterances: Sequence[Utterance]) -> list[dict[str, Any]]:
    return [_turn("user" if one.speaker == "caller" else "model", one.text) for one in utterances]


def _thinking(level: str, traits: Traits) -> dict[str, Any]:
    if traits.thinking == "budget":
        return {"thinkingBudget": THINKING_BUDGET[level]}
    return {"thinkingLevel": level.upper()}


def _detection(options: SetupOptions) -> dict[str, Any]:
    detection: dict[str, Any] = {"disabled": False}
    if options.start_sensitivity:
        detection["startOfSpeechSensitivity"] = f"START_SENSITIVITY_{options.start_sensitivity.upper()}"
    if options.end_sensitivity:
        detection["endOfSpeechSensitivity"] = f"END_SENSITIVITY_{options.end_sensitivity.upper()}"
    if options.prefix_padding_ms is not None:
        detection["prefixPaddingMs"] = options.prefix_padding_ms
    if options.silence_duration_ms is not None:
        detection["silenceDurationMs"] = options.silence_duration_ms
    return detection


def _tools(tools: Sequence[Tool], traits: Traits) -> list[dict[str, Any]]:
    return [{"functionDeclarations": [_function(tool, traits) for tool in tools]}]


def _function(tool: Tool, traits: Traits) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters.get("properties"):
        # An object without properties is refused: a function without parameters has none at all.
        function["parametersJsonSchema"] = tool.parameters
    if traits.behaviour:
        function["behavior"] = traits.behaviour
    return function


# --- what we are sent ---


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """Anything may be missing or null: the service leaves out what is empty."""


class Blob(_Part, frozen=True):
    """Bytes; decoded from base64 with the JSON."""

    data: bytes | None = None
    mime_type: str | None = None


class Part(_Part, frozen=True):
    """A piece of a turn: sound, or text that is not spoken."""

    inline_data: Blob | None = None
    text: str | None = None
    thought: bool | None = None
    """The text is what the model thinks, not its answer."""


class ModelTurn(_Part, frozen=True):
    """The next pieces of what the model says."""

    parts: list[Part] | None = None


class Transcription(_Part, frozen=True):
    """The next words of one side."""

    text: str | None = None
    finished: bool | None = None


class ServerContent(_Part, frozen=True):
    """What goes on in the conversation; several fields may come at once."""

    model_turn: ModelTurn | None = None
    interrupted: bool | None = None
    generation_complete: bool | None = None
    turn_complete: bool | None = None
    turn_complete_reason: str | None = None
    interaction_status: str | None = None
    input_transcription: Transcription | None = None
    output_transcription: Transcription | None = None


class FunctionCall(_Part, frozen=True):
    """A tool the model wants run, or a part of that."""

    id: str | None = None
    name: str | None = None
    args: dict[str, Any] | None = None
    will_continue: bool | None = None
    """More of the same call follows."""


class ToolCallMessage(_Part, frozen=True):
    """``toolCall``."""

    function_calls: list[FunctionCall] | None = None


class ToolCallCancellation(_Part, frozen=True):
    """``toolCallCancellation``."""

    ids: list[str] | None = None


class GoAway(_Part, frozen=True):
    """``goAway``: the connection will be aborted."""

    time_left: str | float | None = None

    @property
    def seconds(self) -> float:
        """Return how soon; 0 when it does not say."""
        try:
            seconds = float(str(self.time_left or 0).removesuffix("s"))
        except ValueError:
            return 0.0
        return seconds if 0 <= seconds < float("inf") else 0.0


class ResumptionUpdate(_Part, frozen=True):
    """``sessionResumptionUpdate``."""

    new_handle: str | None = None
    resumable: bool | None = None


class VoiceActivity(_Part, frozen=True):
    """``voiceActivity``, on Vertex."""

    type: str | None = None


class Message(_Part, frozen=True):
    """One message of the service."""

    setup_complete: dict[str, Any] | None = None
    server_content: ServerContent | None = None
    tool_call: ToolCallMessage | None = None
    tool_call_cancellation: ToolCallCancellation | None = None
    usage_metadata: dict[str, Any] | None = None
    go_away: GoAway | None = None
    session_resumption_update: ResumptionUpdate | None = None
    voice_activity: VoiceActivity | None = None

    @property
    def does_something(self) -> bool:
        """Return whether the model does something, or hears something; to end a turn is neither."""
        content = self.server_content
        return (
            self.tool_call is not None
            or self.voice_activity is not None
            or (
                content is not None
                and bool(
                    content.model_turn
                    or content.input_transcription
                    or content.output_transcription
                    or content.interrupted
                )
            )
        )


_DECODER: Final = msgspec.json.Decoder(Message)


def parse(data: bytes | memoryview) -> Message:
    """Return a message of the service. Raises ProtocolError."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("Gemini Live", f"a message that cannot be read: {error}") from error


# AI Studio's names and Vertex's own.
_USAGE: Final = {
    "promptTokenCount": "prompt_tokens",
    "cachedContentTokenCount": "cached_tokens",
    "responseTokenCount": "response_tokens",
    "candidatesTokenCount": "response_tokens",
    "toolUsePromptTokenCount": "tool_use_tokens",
    "thoughtsTokenCount": "thoughts_tokens",
    "totalTokenCount": "total_tokens",
}
_USAGE_DETAILS: Final = {
    "promptTokensDetails": "prompt",
    "responseTokensDetails": "response",
    "candidatesTokensDetails": "response",
}


def add_usage(total: dict[str, int], usage: dict[str, Any]) -> None:
    """Add a report, which is one turn's, to ``total``."""
    for key, name in _USAGE.items():
        if isinstance(value := usage.get(key), int):
            total[name] = total.get(name, 0) + value
    for key, name in _USAGE_DETAILS.items():
        details = usage.get(key)
        for detail in details if isinstance(details, list) else ():
            if not isinstance(detail, dict) or not isinstance(count := detail.get("tokenCount"), int):
                continue
            full = f"{name}_{str(detail.get('modality', '')).lower()}_tokens"
            total[full] = total.get(full, 0) + count
