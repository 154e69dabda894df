"""The session object of OpenAI's Realtime protocol (GA): defaults, strict updates, typed access.

The effective session is kept as the JSON object that ``session.created`` and ``session.updated`` show; the
structures here say what an update may hold.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from arivox.audio.format import ALAW, SLIN24, ULAW, AudioFormat
from arivox.emulator.openai.messages import RequestError, convert

DEFAULT_INSTRUCTIONS: Final = (
    "Your knowledge cutoff is 2023-10. You are a helpful, witty, and friendly AI. Act like a human, but "
    "remember that you aren't a human and that you can't do human things in the real world. Your voice and "
    "personality should be warm and engaging, with a lively and playful tone."
)
VOICES: Final = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
FORMATS: Final[dict[str, AudioFormat]] = {"audio/pcm": SLIN24, "audio/pcmu": ULAW, "audio/pcma": ALAW}

_Unit = Annotated[float, Meta(ge=0, le=1)]
_Ms = Annotated[int, Meta(ge=0)]


class _Part(Struct, forbid_unknown_fields=True):
    """A JSON object of the session in which every key is optional."""


class Pcm24(Struct, tag_field="type", tag="audio/pcm", forbid_unknown_fields=True):
    """16-bit little-endian samples at 24 kHz."""

    rate: Literal[24000] = 24000


class Pcmu(Struct, tag_field="type", tag="audio/pcmu", forbid_unknown_fields=True):
    """Mu-law at 8 kHz."""


class Pcma(Struct, tag_field="type", tag="audio/pcma", forbid_unknown_fields=True):
    """A-law at 8 kHz."""


class ServerVad(Struct, tag_field="type", tag="server_vad", forbid_unknown_fields=True):
    """Turns by energy and silence."""

    threshold: _Unit = 0.5
    prefix_padding_ms: _Ms = 300
    silence_duration_ms: _Ms = 500
    idle_timeout_ms: Annotated[int, Meta(ge=5000, le=30000)] | None = None
    create_response: bool = True
    interrupt_response: bool = True


class SemanticVad(Struct, tag_field="type", tag="semantic_vad", forbid_unknown_fields=True):
    """Turns by meaning."""

    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


class Transcription(_Part):
    """Model and hints for the transcript of what the user says."""

    model: str | None = None
    language: str | None = None
    languages: list[str] | None = None
    prompt: str | None = None
    keywords: list[str] | None = None
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


class NoiseReduction(_Part):
    """Filter before turn detection and model."""

    type: Literal["near_field", "far_field"] | None = None
    strength: _Unit | None = None


class CustomVoice(Struct, forbid_unknown_fields=True):
    """A voice of one's own."""

    id: str


class _Input(_Part):
    format: Pcm24 | Pcmu | Pcma | UnsetType = UNSET
    transcription: Transcription | UnsetType | None = UNSET
    noise_reduction: NoiseReduction | UnsetType | None = UNSET
    turn_detection: ServerVad | SemanticVad | UnsetType | None = UNSET


class _Output(_Part):
    format: Pcm24 | Pcmu | Pcma | UnsetType = UNSET
    voice: (
        Literal["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"]
        | CustomVoice
        | UnsetType
    ) = UNSET
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | UnsetType = UNSET


class _Audio(_Part):
    input: _Input | UnsetType = UNSET
    output: _Output | UnsetType = UNSET


class Reasoning(_Part):
    """How much the model may think."""

    effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


class FunctionTool(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """A function the model may call; ``parameters`` is a JSON schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class McpTool(Struct, tag_field="type", tag="mcp"):
    """A server of tools; taken, never called."""

    server_label: str


class _Update(Struct, forbid_unknown_fields=True):
    """The ``session`` of a ``session.update``."""

    type: Literal["realtime"]
    model: str | UnsetType = UNSET
    instructions: str | UnsetType = UNSET
    output_modalities: (
        Annotated[list[Literal["text", "audio"]], Meta(min_length=1, max_length=1)] | UnsetType
    ) = UNSET
    audio: _Audio | UnsetType = UNSET
    tools: list[FunctionTool | McpTool] | UnsetType = UNSET
    tool_choice: str | dict[str, Any] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    reasoning: Reasoning | UnsetType | None = UNSET
    max_output_tokens: Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"] | UnsetType = UNSET
    truncation: Literal["auto", "disabled"] | dict[str, Any] | UnsetType = UNSET
    tracing: Literal["auto"] | dict[str, Any] | UnsetType | None = UNSET
    include: list[Literal["item.input_audio_transcription.logprobs"]] | UnsetType | None = UNSET
    prompt: dict[str, Any] | UnsetType | None = UNSET


class SessionConfig:
    """The effective session."""

    def __init__(self, session_id: str, model: str, expires_at: int) -> None:
        self._session: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "model": model,
            "output_modalities": ["audio"],
            "instructions": DEFAULT_INSTRUCTIONS,
            "tools": [],
            "tool_choice": "auto",
            "parallel_tool_calls": None,
            "reasoning": None,
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": expires_at,
            "audio": {
                "input": {
                    "format": msgspec.to_builtins(Pcm24()),
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": msgspec.to_builtins(ServerVad()),
                },
                "output": {"format": msgspec.to_builtins(Pcm24()), "voice": "marin", "speed": 1.0},
            },
            "include": None,
        }
        self._read()

    def update(self, changes: dict[str, Any], *, voice_frozen: bool) -> None:
        """Change what is present in ``changes``.

        Raises:
            RequestError: Something in it is not allowed; nothing is changed then.
        """
        wanted = convert(changes, _Update, ".session")
        session = self._session
        if wanted.model is not UNSET and wanted.model != session["model"]:
            raise RequestError(
                "invalid_value",
                f"The model of a session cannot be changed; it is '{session['model']}'.",
                param="session.model",
            )
        new = _only_given(msgspec.to_builtins(wanted))
        if "tools" in new:
            new["tools"] = changes["tools"]
        voice = new.get("audio", {}).get("output", {}).get("voice", self.voice)
        if voice_frozen and voice != self.voice:
            raise RequestError(
                "cannot_update_voice",
                "Cannot update a conversation's voice if assistant audio is present.",
                param="session.audio.output.voice",
            )
        if session["tracing"] is not None and new.get("tracing", session["tracing"]) != session["tracing"]:
            raise RequestError("invalid_value", "Tracing cannot be changed.", param="session.tracing")
        audio = new.pop("audio", {})
        _check_models({**session, **new}, {**session["audio"]["input"], **audio.get("input", {})})
        session.update(new)
        for direction, settings in audio.items():
            session["audio"][direction].update(settings)
        self._read()

    def _read(self) -> None:
        audio = self._session["audio"]
        self.input_format = FORMATS[audio["input"]["format"]["type"]]
        self.output_format = FORMATS[audio["output"]["format"]["type"]]
        detection = audio["input"]["turn_detection"]
        self.turn_detection: ServerVad | SemanticVad | None = (
            convert(detection, ServerVad | SemanticVad, "") if detection else None  # type: ignore[arg-type]
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the session object as it is sent."""
        return copy.deepcopy(self._session)

    @property
    def instructions(self) -> str:
        """Return the text that tells the model what to do."""
        return str(self._session["instructions"])

    @property
    def tools(self) -> list[dict[str, Any]]:
        """Return the tools offered."""
        return list(self._session["tools"])

    @property
    def voice(self) -> str | dict[str, str]:
        """Return the voice's name, or an object with its ``id``."""
        voice: str | dict[str, str] = self._session["audio"]["output"]["voice"]
        return voice

    @property
    def modalities(self) -> list[str]:
        """Return ``["audio"]`` or ``["text"]``."""
        return list(self._session["output_modalities"])

    @property
    def max_output_tokens(self) -> int | str:
        """Return the limit of one response, or ``inf``."""
        limit: int | str = self._session["max_output_tokens"]
        return limit

    @property
    def transcription(self) -> dict[str, Any] | None:
        """Return the settings of input transcription, None when it is off."""
        settings: dict[str, Any] | None = self._session["audio"]["input"]["transcription"]
        return settings


def _check_models(session: dict[str, Any], hearing: dict[str, Any]) -> None:
    """Refuse what the documentation says that a model cannot do in a session of this kind."""
    transcription = hearing["transcription"] or {}
    model = transcription.get("model")
    param = "session.audio.input.transcription.model"
    if model == "gpt-live-transcribe":
        raise RequestError(
            "invalid_value",
            f"The model '{model}' is supported in transcription sessions only.",
            param=param,
        )
    if model == "gpt-realtime-whisper" and hearing["turn_detection"] is not None:
        raise RequestError(
            "invalid_value", f"The model '{model}' is supported without turn detection only.", param=param
        )
    if session["reasoning"] is not None and not str(session["model"]).startswith("gpt-realtime-2"):
        raise RequestError(
            "invalid_value",
            f"The model '{session['model']}' does not support reasoning.",
            param="session.reasoning",
        )


def _only_given(update: dict[str, Any]) -> dict[str, Any]:
    """Return ``update`` without the optional keys that were not given inside transcription and the like."""
    for key in ("transcription", "noise_reduction"):
        part = update.get("audio", {}).get("input", {}).get(key)
        if part:
            update["audio"]["input"][key] = {k: v for k, v in part.items() if v is not None}
    return update
