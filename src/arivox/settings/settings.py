"""Every setting: its name, type, default and meaning.

Values come from the environment, then from ``.env``, then from ``arivox.yaml``; the first that has a name
wins. An empty value counts as not set. Where the scripts that Arivox replaces had a name, it is kept.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from arivox.errors import SettingsError
from arivox.settings import destination, envfile, yamlfile
from arivox.settings.destination import Destination
from arivox.settings.source import Names, Source

LogLevel = Literal["debug", "info", "warning", "error"]
# What other programs call the levels, the scripts (winston) among them, and whether it means the same.
_LEVEL_WORDS: Final = {
    "warn": ("warning", True),
    "http": ("info", False),
    "verbose": ("info", False),
    "silly": ("debug", False),
    "trace": ("debug", False),
    "critical": ("error", False),
    "fatal": ("error", False),
}
Provider = Literal["openai", "gemini", "openai-live"]


def _setting(
    default: Any = MISSING,
    doc: str = "",
    *,
    aliases: Sequence[str] = (),
    secret: bool = False,
    low: float | None = None,
    high: float | None = None,
    words: Mapping[str, tuple[str, bool]] | None = None,
) -> Any:
    metadata = {
        "doc": doc,
        "aliases": tuple(aliases),
        "secret": secret,
        "low": low,
        "high": high,
        "words": words or {},
    }
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one service. A field's name in capitals is the setting's name."""

    # --- Asterisk ---
    ari_url: str = _setting("http://127.0.0.1:8088", "Where Asterisk's HTTP server answers")
    ari_username: str = _setting("", "User of ari.conf", aliases=["ARI_USER"])
    ari_password: str = _setting("", "Its password", aliases=["ARI_PASS"], secret=True)
    ari_app_name: str = _setting("arivox", "Name of the Stasis application in the dialplan")
    ari_request_timeout_s: float = _setting(5.0, "Longest wait for an answer of ARI", low=0.1)
    max_calls: int = _setting(50, "Calls at once; further callers are sent on to the dialplan", low=1)
    drain_s: float = _setting(
        0.0,
        "When told to end: how long calls may go on, while new callers are sent on to the dialplan; told "
        "again, it ends them. 0: it ends them at once",
        low=0,
    )

    # --- media ---
    rtp_server_ip: str = _setting(
        "",
        "Address to bind for RTP. Empty: 127.0.0.1 when ARI_URL is a loopback address, else 0.0.0.0",
    )
    rtp_server_ip_for_asterisk: str = _setting(
        "",
        "Address that Asterisk sends RTP to (NAT, containers). Empty: RTP_SERVER_IP, else this machine's, as "
        "seen on the way to Asterisk",
    )
    rtp_server_port: int = _setting(12000, "First port for RTP; even ports are used", low=1024, high=65534)
    rtp_server_port_last: int = _setting(
        0, "Last port for RTP. 0: enough for MAX_CALLS, and as many again", low=0, high=65535
    )
    rtp_source_check: Literal["named", "learn"] = _setting(
        "named",
        "Who may send RTP: the address Asterisk named (named), or the first valid sender (learn; for "
        "Asterisk behind NAT)",
    )
    audio_codec: Literal["auto", "ulaw", "alaw"] = _setting(
        "auto", "Codec towards Asterisk. auto: A-law for callers who use it, else mu-law"
    )
    target_rms: float = _setting(
        0.0, "Raise quiet callers to this level (0.15 is good). 0: leave the audio untouched", low=0, high=1
    )
    min_rms: float = _setting(0.001, "Level below which a frame is taken for silence", low=0, high=1)
    max_gain: float = _setting(2.0, "Most that a quiet caller is raised", low=1, high=20)
    enable_audio_recording: bool = _setting(False, "Record each call: stereo WAV, caller left, agent right")
    recordings_dir: Path = _setting(Path("recordings"), "Folder for recordings")

    # --- the call ---
    answer: Literal["at_once", "when_ready"] = _setting(
        "at_once",
        "at_once: answer while the AI connects; when_ready: let it ring until the AI is there, so that a "
        "call whose AI fails is never answered",
    )
    after_call: Literal["hangup", "continue"] = _setting(
        "hangup", "When the agent ends the call: hang up, or continue in the dialplan"
    )
    max_call_duration_s: int = _setting(
        300,
        "Longest call, in seconds; OpenAI's own sessions end after an hour, and the call with them",
        low=15,
        high=86400,
    )
    goodbye_before_s: float = _setting(
        12.0, "The agent says good-bye this long before the longest call ends. 0: never", low=0
    )
    idle_caller_s: float = _setting(
        30.0, "A caller who is silent this long is asked; after as long again the call ends. 0: never", low=0
    )
    first_audio_timeout_s: float = _setting(10.0, "Longest wait for the agent's first sound", low=1)
    response_timeout_s: float = _setting(15.0, "Longest wait for an answer to what the caller said", low=1)
    ask_again_s: float = _setting(
        2.0,
        "Seconds of silence after which an AI that owes an answer is asked again; slow ones need more",
        low=0.3,
    )
    failure_media: str = _setting(
        "tone:congestion",
        "What a caller hears for two seconds when the AI fails in mid-call, before the dialplan goes on "
        "(tone:NAME or sound:NAME). none: nothing",
    )

    # --- the AI ---
    ai_service_provider: Provider = _setting(
        "openai",
        "Which AI speaks; a call can choose another in the dialplan: Stasis(arivox,provider=gemini), or the "
        "channel variable ARIVOX_PROVIDER",
    )
    provider_connect_timeout_s: float = _setting(8.0, "Longest wait for the AI's session", low=0.5)

    # --- OpenAI ---
    openai_api_key: str = _setting("", "Key of the OpenAI project", secret=True)
    openai_realtime_url: str = _setting(
        "wss://api.openai.com/v1/realtime",
        "OpenAI Realtime, or another server that speaks its protocol; the model is added to the query",
    )
    openai_model: str = _setting("gpt-realtime-2.1", "Model")
    openai_voice_id: str = _setting("marin", "Voice")
    openai_system_instruction: str = _setting("", "System instruction. Empty: the one of the prompts file")
    openai_dialect: Literal["ga", "beta"] = _setting(
        "ga", "Dialect of the protocol; beta is for compatible servers that still speak it"
    )
    openai_audio_format: Literal["auto", "pcm"] = _setting(
        "auto", "auto: the call's own G.711 both ways; pcm: 24 kHz, for servers that have no G.711"
    )
    openai_transcription_model: str = _setting(
        "gpt-transcribe", "Model that transcribes the caller. none: no transcript"
    )
    openai_language: str = _setting("", "Language the caller speaks (ISO 639-1), for the transcript")
    openai_noise_reduction: Literal["none", "near_field", "far_field"] = _setting(
        "none", "Noise reduction by OpenAI: near_field for handsets, far_field for speakerphones"
    )
    openai_speed: float = _setting(1.0, "Speed of the voice", low=0.25, high=1.5)
    openai_reasoning_effort: Literal["", "minimal", "low", "medium", "high", "xhigh"] = _setting(
        "", "Reasoning effort, for models that reason. Empty: the model's default"
    )
    vad_type: Literal["server_vad", "semantic_vad"] = _setting("server_vad", "How the AI finds turns")
    vad_threshold: float = _setting(0.5, "server_vad: how sure it must be of speech", low=0, high=1)
    vad_prefix_padding_ms: int = _setting(300, "server_vad: audio kept before speech", low=0)
    vad_silence_duration_ms: int = _setting(500, "server_vad: silence that ends a turn", low=0)
    vad_eagerness: Literal["auto", "low", "medium", "high"] = _setting("auto", "semantic_vad: eagerness")
    openai_live_url: str = _setting(
        "wss://api.openai.com/v1/live/sessions", "OpenAI Live (AI_SERVICE_PROVIDER=openai-live)"
    )
    openai_live_model: str = _setting("gpt-live-1.1", "Model of OpenAI Live")
    openai_live_backend_model: str = _setting(
        "gpt-5.6-luna", "Model that OpenAI Live delegates tasks and tools to"
    )
    openai_history_max_turns: int = _setting(
        40,
        "Turns that are told again: of an earlier call (MEMORY_RESUME), or to the session after a lost one",
        low=0,
    )

    # --- Gemini ---
    gemini_api_key: str = _setting("", "Key of Google AI Studio", secret=True)
    gemini_auth: Literal["auto", "key", "token", "vertex"] = _setting(
        "auto",
        "key: AI Studio by GEMINI_API_KEY; token: the same, by a token for one session that is made with the "
        "key; vertex: Vertex AI by a service account; auto: vertex where GEMINI_PROJECT_ID is set and "
        "neither GEMINI_API_KEY nor GEMINI_LIVE_URL is, else key",
    )
    google_application_credentials: Path | None = _setting(
        None, "Vertex AI: key file of the service account. Empty: the machine's own identity"
    )
    gemini_project_id: str = _setting("", "Vertex AI: project")
    gemini_location: str = _setting(
        "us-central1", "Vertex AI: region, us, eu or global (global does not serve the 2.5 models)"
    )
    gemini_live_url: str = _setting(
        "",
        "Another server that speaks the protocol, used as it is. Empty: Google's, by model and GEMINI_AUTH",
    )
    gemini_token_url: str = _setting(
        "https://generativelanguage.googleapis.com/v1alpha/auth_tokens",
        "Where GEMINI_AUTH=token makes its tokens",
    )
    gemini_model_name: str = _setting("gemini-3.8-live", "Model")
    gemini_voice_id: str = _setting("Kore", "Voice")
    gemini_system_instruction: str = _setting("", "System instruction. Empty: the one of the prompts file")
    gemini_language: str = _setting(
        "", "Language the caller speaks (BCP 47, de-DE), for the transcript. Empty: found by the model"
    )
    gemini_target_input_sample_rate: Literal["16000", "8000"] = _setting(
        "16000", "Rate of the caller's audio to Gemini; 8000 sends half as much, and Gemini resamples"
    )
    gemini_thinking_level: Literal["", "minimal", "low", "medium", "high"] = _setting(
        "", "How much the model thinks, for models that take it. Empty: the model's default"
    )
    gemini_vad_start_sensitivity: Literal["", "high", "low"] = _setting(
        "", "How readily speech is taken to begin. Empty: Google's default (high)"
    )
    gemini_vad_end_sensitivity: Literal["", "high", "low"] = _setting(
        "", "How readily speech is taken to end. Empty: Google's default (high)"
    )
    gemini_vad_prefix_padding_ms: int | None = _setting(
        None, "Speech needed before a turn begins. Empty: Google's default", low=0
    )
    gemini_vad_silence_duration_ms: int | None = _setting(500, "Silence that ends a turn", low=0)
    gemini_history_max_turns: int = _setting(
        40,
        "Turns that are told again: of an earlier call (MEMORY_RESUME), or to a session that begins anew",
        low=0,
    )

    # --- the conversation ---
    prompts_file: Path | None = _setting(None, "Prompts and states (YAML). Empty: the one in the package")
    tools_file: Path | None = _setting(None, "Your own tools: a file of Python code. Empty: none")
    calendar_file: Path = _setting(
        Path("arivox-calendar.db"), "Appointments of the package's own prompts file (SQLite)"
    )
    transfer_to: str = _setting(
        "",
        "Where the agent may transfer calls to: name=target, name=target. A target is PJSIP/200 (dialled), "
        "200@from-internal (through the dialplan; _2XX@from-internal for any such number) or "
        "goto:200@from-internal (the dialplan takes over). Empty: nowhere",
    )
    transfer_ring_s: float = _setting(25.0, "How long it may ring there", low=1, high=300)
    transfer_caller_id: str = _setting("", "Number shown there. Empty: the caller's")
    hold_music: str = _setting("default", "Class of music on hold (musiconhold.conf)")

    # --- the store ---
    redis_host: str = _setting("", "Redis server (needs the extra: pip install '.[redis]'). Empty: no Redis")
    redis_port: int = _setting(6379, "Its port", low=1, high=65535)
    redis_password: str = _setting("", "Its password", secret=True)
    redis_db: int = _setting(0, "Its database", low=0)
    redis_username: str = _setting("", "Its user, for servers with ACLs")
    redis_tls: bool = _setting(False, "Speak TLS to it")
    redis_conversation_ttl_s: int = _setting(
        86400, "Conversations are forgotten so long after their last turn, in every store", low=60
    )
    memory_url: str = _setting(
        "",
        "Store of conversations: redis://, rediss://, sqlite:///PATH, or none. Empty: Redis if REDIS_HOST is "
        "set, else sqlite:///arivox-memory.db",
        secret=True,
    )
    memory_spool_dir: Path = _setting(
        Path("arivox-spool"), "Folder for calls that no store took; they are stored when it works again"
    )
    memory_resume: Literal["never", "same-call", "caller"] = _setting(
        "never",
        "Go on where an earlier call ended: of the same channel (same-call), or of the same number (caller)",
    )
    memory_resume_within_s: int = _setting(3600, "How long ago it may have ended", low=1)

    # --- logs ---
    log_level: LogLevel = _setting(
        "info",
        "debug, info, warning (or warn) or error; debug shows each packet",
        words=_LEVEL_WORDS,
    )
    log_format: Literal["auto", "human", "json"] = _setting(
        "auto", "auto: human in a terminal, JSON otherwise"
    )
    log_full_numbers: bool = _setting(False, "Show phone numbers in full at info")

    def __post_init__(self) -> None:
        if not _is_url(self.ari_url, "http", "https"):
            raise SettingsError("ARI_URL", f"{self.ari_url!r} is not an http:// or https:// address")
        for name in ("openai_realtime_url", "openai_live_url", "gemini_live_url"):
            url = getattr(self, name)
            if url and not _is_url(url, "ws", "wss"):
                shown = url.partition("?")[0]  # what follows may be a key
                raise SettingsError(name.upper(), f"{shown!r} is not a ws:// or wss:// address")
        if not _is_url(self.gemini_token_url, "http", "https"):
            raise SettingsError(
                "GEMINI_TOKEN_URL", f"{self.gemini_token_url!r} is not an http:// or https:// address"
            )
        if self.rtp_server_port % 2:
            raise SettingsError("RTP_SERVER_PORT", f"{self.rtp_server_port} is odd; RTP uses even ports")
        if self.rtp_server_port_last and self.rtp_server_port_last < self.rtp_server_port:
            raise SettingsError(
                "RTP_SERVER_PORT_LAST",
                f"{self.rtp_server_port_last} is below RTP_SERVER_PORT ({self.rtp_server_port})",
            )
        if self.failure_media != "none" and ":" not in self.failure_media:
            raise SettingsError(
                "FAILURE_MEDIA", f"{self.failure_media!r} is not tone:NAME, sound:NAME or none"
            )
        destination.parse("TRANSFER_TO", self.transfer_to)
        if self.goodbye_before_s >= self.max_call_duration_s:
            raise SettingsError(
                "GOODBYE_BEFORE_S",
                f"{self.goodbye_before_s} s is not shorter than MAX_CALL_DURATION_S "
                f"({self.max_call_duration_s} s)",
            )

    @property
    def destinations(self) -> dict[str, Destination]:
        """Return where calls may be transferred to, by name."""
        return destination.parse("TRANSFER_TO", self.transfer_to)

    @property
    def rtp_ports(self) -> tuple[int, int]:
        """Return the first and the last RTP port."""
        last = self.rtp_server_port_last or min(self.rtp_server_port + 4 * self.max_calls - 1, 65535)
        return self.rtp_server_port, last

    def require_ari(self) -> None:
        """Raise SettingsError unless the ARI user is set."""
        for name, value in (("ARI_USERNAME", self.ari_username), ("ARI_PASSWORD", self.ari_password)):
            if not value:
                raise SettingsError(
                    name, "is not set", "Put the user of ari.conf and its password into .env (arivox init)."
                )


def _is_url(text: str, *schemes: str) -> bool:
    try:
        parts = urlsplit(text)
        # Credentials belong into their own settings: a URL is shown in logs.
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        return False


def setting_fields() -> list[Field[Any]]:
    """Return the fields of Settings, in the order of the reference."""
    return list(fields(Settings))


@dataclass(frozen=True)
class Loaded:
    """Settings as loaded, with what deserves a warning."""

    settings: Settings
    warnings: list[str]


# Names of the scripts that name nothing in Gemini's real API, and what to set instead.
_NAMES_NOTHING: Final = {
    "GEMINI_VAD_ENERGY_THRESHOLD": "GEMINI_VAD_START_SENSITIVITY",
    "GEMINI_VAD_ACTIVITY_RATIO_THRESHOLD": "GEMINI_VAD_END_SENSITIVITY",
}
_OURS: Final = (
    "ARI_",
    "RTP_",
    "OPENAI_",
    "VAD_",
    "REDIS_",
    "MEMORY_",
    "GEMINI_",
    "MAX_CALL",
    "LOG_",
    "TRANSFER_",
    "HOLD_",
)


def load(
    environ: Mapping[str, str] | None = None,
    env_file: Path | None = None,
    yaml_file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Loaded:
    """Return the settings from the environment, ``.env`` and ``arivox.yaml``.

    A file that is named must exist; the default names may be absent. Raises SettingsError.
    """
    hints = get_type_hints(Settings)
    known = {name: item.name for item in setting_fields() for name in _names(item)}
    names = Names(known, {name for name, field in known.items() if _plain(hints[field]) in (str, Path)})
    sources = [
        Source("the command line", overrides or {}),
        Source("the environment", os.environ if environ is None else environ),
        _read(env_file, Path(".env"), envfile.read, names),
        _read(yaml_file, Path("arivox.yaml"), yamlfile.read, names),
    ]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    warnings = [warning for source in sources for warning in source.warnings]
    for item in setting_fields():
        for source in sources:
            found = next((name for name in _names(item) if source.values.get(name, "").strip()), None)
            if found is not None:
                where = source.where(found)
                origins[item.name.upper()] = where
                text, warning = _in_our_words(found, source.values[found], item, where)
                values[item.name] = _convert(found, text, hints[item.name], item, where)
                warnings += warning
                if source.name == "the environment" and _quoted(text):
                    warnings.append(f"{found} (in {where}) is in quotes, which are part of the value there")
                break
    try:
        settings = Settings(**values)
    except SettingsError as error:
        error.source = origins.get(error.setting)
        raise
    return Loaded(settings, warnings + _unknown(sources, known))


def _names(item: Field[Any]) -> tuple[str, ...]:
    return (item.name.upper(), *item.metadata["aliases"])


def _plain(hint: Any) -> Any:
    """Return the type of a setting that may be None."""
    if isinstance(hint, UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def _read(path: Path | None, default: Path, read: Callable[[Path, Names], Source], names: Names) -> Source:
    file = path or default
    try:
        file.lstat()
    except FileNotFoundError:
        if path is not None:
            raise SettingsError(str(path), "no such file") from None
        return Source(str(file), {})
    except OSError as error:
        raise SettingsError(str(file), f"cannot be read: {error.strerror}") from error
    # Whatever has the name is meant: a directory (as Docker makes of a file that is missing) is told, too.
    return read(file, names)


def _quoted(text: str) -> bool:
    """Return whether ``text`` stands in quotes: nobody takes them away, as a shell or ``.env`` does."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def _in_our_words(name: str, text: str, item: Field[Any], source: str) -> tuple[str, list[str]]:
    """Return the value in a word of ours, and a warning where that does not mean quite the same."""
    word, same = item.metadata["words"].get(text.strip().lower(), (text, True))
    return word, [] if same else [f"{name} (in {source}): {text.strip()!r} is not known here; {word} is used"]


def _convert(name: str, value: Any, hint: Any, item: Field[Any], source: str) -> Any:
    shown = "(hidden)" if item.metadata["secret"] else repr(value)
    hint = _plain(hint)
    text = str(value).strip()
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if text.lower() in choices:
            return text.lower()
        raise SettingsError(name, f"{shown} is not one of {', '.join(filter(None, choices))}", source=source)
    if hint is bool:
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        raise SettingsError(name, f"{shown} is neither true nor false", source=source)
    if hint in (int, float):
        return _number(name, text, shown, hint, item, source)
    return hint(text)


def _number(name: str, text: str, shown: str, kind: type, item: Field[Any], source: str) -> float:
    try:
        number: float = kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise SettingsError(name, f"{shown} is not {wanted}", source=source) from None
    low, high = item.metadata["low"], item.metadata["high"]
    too_low = low is not None and number < low
    too_high = high is not None and number > high
    if not math.isfinite(number) or too_low or too_high:
        span = f"from {low:g}" if low is not None else "a number"
        span += f" to {high:g}" if high is not None else " up"
        raise SettingsError(name, f"{shown} is out of range: it must be {span}", source=source)
    return number


def _unknown(sources: Sequence[Source], known: Mapping[str, str]) -> list[str]:
    warnings = []
    for source in sources:
        # Of the environment only what looks like ours: the rest belongs to other programs.
        mine = source.name != "the environment"
        for name in source.values:
            if name in known:
                continue
            if name in _NAMES_NOTHING:
                problem = f"names nothing in Gemini's API and has no effect; set {_NAMES_NOTHING[name]}"
            elif mine or name.startswith(_OURS):
                close = difflib.get_close_matches(name.upper(), known, n=1)
                problem = "is not a setting of Arivox" + (f"; did you mean {close[0]}?" if close else "")
            else:
                continue
            warnings.append(f"{name} (in {source.where(name)}) {problem}")
    return warnings
