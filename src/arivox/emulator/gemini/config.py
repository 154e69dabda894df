"""The setup of a session: what it may hold, and what each model refuses of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, field

from arivox.emulator.gemini.messages import (
    Content,
    FunctionDeclaration,
    Int64,
    Object,
    RefusedError,
    Tool,
    convert,
    invalid,
)
from arivox.emulator.gemini.models import VOICES, Backend, Behavior, Traits, find
from arivox.emulator.hearing import Detection

_Ms = Annotated[int, Meta(ge=0)]
_START_THRESHOLDS: Final = {"START_SENSITIVITY_HIGH": 0.5, "START_SENSITIVITY_LOW": 0.7}
_END_SILENCES_MS: Final = {"END_SENSITIVITY_HIGH": 500, "END_SENSITIVITY_LOW": 1000}
_PRE_ROLL_MS: Final = 300  # what the model hears of the time before the speech; nobody can set it
_TRIGGER_TOKENS: Final = range(5000, 128_001)


class PrebuiltVoice(Object):
    """A voice of Google's."""

    voice_name: str


class VoiceConfig(Object):
    """The voice."""

    prebuilt_voice_config: PrebuiltVoice | None = None
    replicated_voice_config: dict[str, Any] | None = None


class SpeechConfig(Object):
    """How the model speaks."""

    voice_config: VoiceConfig | None = None
    language_code: str | None = None


class ThinkingConfig(Object):
    """How much the model thinks."""

    thinking_level: str | None = None
    thinking_budget: int | None = None
    include_thoughts: bool | None = None


class GenerationConfig(Object):
    """How the model answers."""

    response_modalities: list[Literal["AUDIO", "TEXT", "IMAGE", "VIDEO"]] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: float | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    seed: int | None = None
    candidate_count: Annotated[int, Meta(ge=1, le=1)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop_sequences: list[str] | None = None
    media_resolution: (
        Literal["MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_MEDIUM", "MEDIA_RESOLUTION_HIGH"] | None
    ) = None
    speech_config: SpeechConfig | None = None
    thinking_config: ThinkingConfig | None = None
    enable_affective_dialog: bool | None = None
    translation_config: dict[str, Any] | None = None


class ActivityDetection(Object):
    """How the server finds the caller's turns."""

    disabled: bool = False
    start_of_speech_sensitivity: Literal["START_SENSITIVITY_HIGH", "START_SENSITIVITY_LOW"] = (
        "START_SENSITIVITY_HIGH"
    )
    end_of_speech_sensitivity: Literal["END_SENSITIVITY_HIGH", "END_SENSITIVITY_LOW"] = "END_SENSITIVITY_HIGH"
    prefix_padding_ms: _Ms | None = None
    silence_duration_ms: _Ms | None = None


class RealtimeInputConfig(Object):
    """What the server makes of the caller's audio."""

    automatic_activity_detection: ActivityDetection = field(default_factory=ActivityDetection)
    activity_handling: Literal["START_OF_ACTIVITY_INTERRUPTS", "NO_INTERRUPTION"] = (
        "START_OF_ACTIVITY_INTERRUPTS"
    )
    turn_coverage: (
        Literal[
            "TURN_INCLUDES_ONLY_ACTIVITY",
            "TURN_INCLUDES_ALL_INPUT",
            "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
        ]
        | None
    ) = None
    interim_transcript_timestamp_enabled: bool | None = None


class Transcription(Object):
    """Transcripts; an empty object turns them on."""

    language_codes: list[str] | None = None
    language_auto: dict[str, Any] | None = None
    language_hints: dict[str, Any] | None = None
    custom_vocabulary: list[str] | None = None
    adaptation_phrases: list[str] | None = None
    word_timestamp: bool | None = None
    diarization: bool | None = None
    mode: Literal["VERBATIM", "SMART"] | None = None


class SessionResumption(Object):
    """Handles: one to go on from, and the wish for new ones."""

    handle: str | None = None
    transparent: bool | None = None


class SlidingWindow(Object):
    """What is kept of a long conversation."""

    target_tokens: Int64 | None = None


class Compression(Object):
    """What happens to a conversation that grows too long."""

    trigger_tokens: Int64 | None = None
    sliding_window: SlidingWindow | None = None


class HistoryConfig(Object):
    """Where the history comes from."""

    initial_history_in_client_content: bool = False


class Proactivity(Object):
    """Whether the model may keep silent."""

    proactive_audio: bool | None = None
    proactive_video: bool | None = None


class Setup(Object):
    """The first message."""

    model: str
    generation_config: GenerationConfig = field(default_factory=GenerationConfig)
    system_instruction: Content | None = None
    tools: list[Tool] | None = None
    realtime_input_config: RealtimeInputConfig = field(default_factory=RealtimeInputConfig)
    input_audio_transcription: Transcription | None = None
    output_audio_transcription: Transcription | None = None
    session_resumption: SessionResumption | None = None
    context_window_compression: Compression | None = None
    history_config: HistoryConfig | None = None
    proactivity: Proactivity | None = None
    explicit_vad_signal: bool | None = None
    safety_settings: list[dict[str, Any]] | None = None
    labels: dict[str, str] | None = None

    @property
    def manual(self) -> bool:
        """Return whether the client says itself when the caller speaks."""
        return self.realtime_input_config.automatic_activity_detection.disabled

    @property
    def interrupts(self) -> bool:
        """Return whether the caller's speech interrupts the model's."""
        return self.realtime_input_config.activity_handling == "START_OF_ACTIVITY_INTERRUPTS"

    @property
    def detection(self) -> Detection | None:
        """Return how turns are found; None when the client tells them."""
        wanted = self.realtime_input_config.automatic_activity_detection
        if wanted.disabled:
            return None
        silence = wanted.silence_duration_ms
        return Detection(
            _START_THRESHOLDS[wanted.start_of_speech_sensitivity],
            _PRE_ROLL_MS,
            _END_SILENCES_MS[wanted.end_of_speech_sensitivity] if silence is None else silence,
        )

    @property
    def onset_ms(self) -> int:
        """Return how much speech is needed before a turn begins."""
        return self.realtime_input_config.automatic_activity_detection.prefix_padding_ms or 0


def read_setup(data: dict[str, Any], backend: Backend, version: str) -> tuple[Setup, Traits]:
    """Return the setup in ``data`` (normalised), and the traits of its model.

    Raises:
        RefusedError: It is malformed, or the model does not take it.
    """
    setup = convert(data, Setup, ".setup")
    traits = find(setup.model, backend, version)
    _check_generation(setup.generation_config, traits)
    check_tools(setup.tools or (), traits)
    if setup.proactivity is not None:
        if traits.proactivity == "no":
            raise invalid("setup.proactivity: proactive audio is not supported by this model.")
        if traits.proactivity == "always" and setup.proactivity.proactive_audio is False:
            raise invalid("setup.proactivity.proactiveAudio: it is always on with this model.")
    alpha = setup.proactivity or setup.generation_config.enable_affective_dialog
    if traits.alpha_only and alpha and version != "v1alpha":
        name = "proactivity" if setup.proactivity else "generationConfig.enableAffectiveDialog"
        raise RefusedError(f'Invalid JSON payload received. Unknown name "setup.{name}": only in v1alpha.')
    if setup.history_config is not None and not traits.seeding:
        raise invalid("setup.historyConfig: not supported by this model.")
    if backend == "studio":
        _check_studio(setup)
    else:
        _check_vertex(setup)
    return setup, traits


def check_tools(tools: Iterable[Tool], traits: Traits) -> None:
    """Refuse functions that behave as the model cannot.

    Raises:
        RefusedError: There is one.
    """
    names: set[str] = set()
    for function in functions(tools):
        if function.behavior not in {None, "UNSPECIFIED"} and function.behavior not in traits.behaviors:
            raise invalid(
                f"tools: function '{function.name}': {function.behavior} is not supported by this model."
            )
        if function.name in names:
            raise invalid(f"tools: duplicate function declaration '{function.name}'.")
        if function.parameters is not None and function.parameters_json_schema is not None:
            raise invalid(f"tools: function '{function.name}' has both kinds of parameters.")
        names.add(function.name)


def functions(tools: Iterable[Tool]) -> list[FunctionDeclaration]:
    """Return every function declared in ``tools``."""
    return [function for tool in tools for function in tool.function_declarations]


def schemas(tools: Iterable[Tool]) -> dict[str, dict[str, Any]]:
    """Return the parameters of each function, by its name."""
    return {
        function.name: function.parameters or function.parameters_json_schema or {}
        for function in functions(tools)
    }


def behavior(tools: Iterable[Tool], name: str, traits: Traits) -> Behavior:
    """Return how a call of the function ``name`` behaves."""
    for function in functions(tools):
        if function.name == name and function.behavior in {"BLOCKING", "NON_BLOCKING"}:
            return "BLOCKING" if function.behavior == "BLOCKING" else "NON_BLOCKING"
    return traits.default_behavior


def _check_generation(wanted: GenerationConfig, traits: Traits) -> None:
    modalities = wanted.response_modalities
    if modalities is not None and modalities != ["AUDIO"]:
        raise invalid(
            f"setup.generationConfig.responseModalities: {modalities} is not supported; it is ['AUDIO']."
        )
    speech = wanted.speech_config
    if speech is not None and speech.voice_config is not None:
        voice = speech.voice_config.prebuilt_voice_config
        if voice is not None and voice.voice_name not in VOICES:
            raise invalid(f"Requested voice api_name '{voice.voice_name}' is not available.")
    if wanted.thinking_config is not None:
        _check_thinking(wanted.thinking_config, traits)
    if wanted.enable_affective_dialog is not None and not traits.affective:
        raise invalid("setup.generationConfig.enableAffectiveDialog: not supported by this model.")
    if wanted.translation_config is not None:
        raise invalid("setup.generationConfig.translationConfig: not supported by this model.")


def _check_thinking(wanted: ThinkingConfig, traits: Traits) -> None:
    at = "setup.generationConfig.thinkingConfig"
    if traits.thinking == "none":
        raise invalid(f"{at}: thinking is not supported by this model.")
    if wanted.thinking_level is not None and wanted.thinking_level not in traits.thinking_levels:
        raise invalid(f"{at}.thinkingLevel: {wanted.thinking_level} is not supported by this model.")
    if wanted.thinking_budget is not None and traits.thinking != "budget":
        raise invalid(f"{at}.thinkingBudget: not supported by this model.")


def _check_studio(setup: Setup) -> None:
    if setup.explicit_vad_signal is not None:
        raise _unknown("explicitVadSignal", "setup")
    if setup.session_resumption is not None and setup.session_resumption.transparent is not None:
        raise _unknown("transparent", "setup.sessionResumption")


def _check_vertex(setup: Setup) -> None:
    if setup.labels is not None:
        raise _unknown("labels", "setup")
    if setup.realtime_input_config.turn_coverage == "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO":
        raise invalid(
            "setup.realtimeInputConfig.turnCoverage: TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO is not "
            "supported."
        )
    compression = setup.context_window_compression
    trigger = compression.trigger_tokens if compression is not None else None
    if trigger is not None and int(trigger) not in _TRIGGER_TOKENS:
        raise invalid("setup.contextWindowCompression.triggerTokens: it is 5000 to 128000.")


def _unknown(name: str, at: str) -> RefusedError:
    return RefusedError(
        f"Invalid JSON payload received. Unknown name \"{name}\" at '{at}': Cannot find field."
    )
