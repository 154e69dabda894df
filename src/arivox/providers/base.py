"""The contract of a realtime speech AI: events, verbs and capabilities. Nothing above knows a wire name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from arivox.audio.format import AudioFormat
from arivox.errors import ProviderError
from arivox.media.playout import Cut
from arivox.settings.settings import Settings

# --- events ---


@dataclass(frozen=True, slots=True)
class AgentAudio:
    """Speech of the agent, in the format of the call's media link, any number of samples."""

    item_id: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AgentAudioDone:
    """No more audio of the item will come."""

    item_id: str


@dataclass(frozen=True, slots=True)
class AgentText:
    """What the agent says, whole, as generated; the caller may have heard less."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class CallerText:
    """What the caller said, whole. May come after the agent's answer to it."""

    item_id: str
    text: str
    unwritten_ms: float = 0.0
    """How much sound the AI was sent after these words, where it tells when they were said."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller began to speak."""

    item_id: str = ""
    """Of the turn, as ``CallerText`` names it; empty where the service does not say."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The caller's turn ended."""

    item_id: str = ""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The caller spoke into the agent's answer, which ended there.

    From providers that do not tell where turns begin and end; the others say ``SpeechStarted``.
    """


@dataclass(frozen=True, slots=True)
class CallerActive:
    """A sign that the caller has said something and awaits an answer; from providers without turns."""

    earlier: bool = False
    """They said it before the agent began what it is saying: that is the answer."""


@dataclass(frozen=True, slots=True)
class AlreadyAnswering:
    """The AI was asked for an answer, and says that it is at one of which nothing was heard yet."""


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The agent began to think of an answer."""


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """The agent's answer is complete, cut off, or failed.

    One that is ``completed`` without a sound and without a tool is an answer that the caller still waits for:
    it is told even where nothing was told of its beginning. ``error.retry_after_s`` and ``error.rejected``
    tell how to ask again.
    """

    status: Literal["completed", "cancelled", "failed", "incomplete"]
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The agent wants a tool run. Answer with ``ProviderSession.tool_result``.

    Told once the agent has finished asking: never for a call that is incomplete, or whose answer was cut
    off.
    """

    call_id: str
    name: str
    arguments: str
    """JSON, as the model wrote it: not validated."""


@dataclass(frozen=True, slots=True)
class ToolCallsCancelled:
    """The agent has no use for the results of these calls any more: the caller spoke on."""

    call_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """What was in progress is lost with a connection, or given up for another; ``Reconnected`` follows.

    From sessions that go on over several connections by themselves (``Capabilities.resume``). Tools that are
    at work then are orphans: the session does not wait for their results any more. They are told by
    ``update``, and ``speak`` when all are in; meanwhile the session does not ask the agent to go on.
    """


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The session goes on over another connection."""

    cause: str
    resumed: bool
    """True when the provider kept the conversation; False when it was told the text of it again."""
    gap_ms: int
    """How long no audio could be sent."""


@dataclass(frozen=True, slots=True)
class SessionExpires:
    """The provider will end the session in so many seconds, and it cannot be taken up again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Something went wrong. With ``error.fatal`` the session is over; with ``error.lost`` another may do."""

    error: ProviderError


ProviderEvent = (
    AgentAudio
    | AgentAudioDone
    | AgentText
    | CallerText
    | SpeechStarted
    | SpeechStopped
    | Interrupted
    | CallerActive
    | AlreadyAnswering
    | ResponseStarted
    | ResponseDone
    | ToolCall
    | ToolCallsCancelled
    | ConnectionLost
    | Reconnected
    | SessionExpires
    | Fault
)
OnProviderEvent = Callable[[ProviderEvent], None]


# --- what a session is told ---


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the agent may call. ``parameters`` is a JSON Schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something that was said earlier in the conversation."""

    speaker: Literal["caller", "agent"]
    text: str


@dataclass(frozen=True, slots=True)
class Brief:
    """What the agent knows and may do now."""

    instructions: str
    """All of it: who the agent is, and what is asked of it now."""
    tools: tuple[Tool, ...] = ()
    focus: str = ""
    """The part that changes in mid-call, for providers whose instructions can only be added to."""
    history: tuple[Utterance, ...] = ()
    """What was said before this session, the oldest first."""
    begun: bool = False
    """The caller is in the middle of the conversation: the agent goes on and does not greet."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do; the call adapts to it."""

    turns: bool
    """It says where the caller's turns begin and end."""
    truncate: bool
    """It can be told how much of an item was heard."""
    cancel: bool
    """It can be told to end an answer; else the rest of it is only dropped here."""
    update: Literal["session", "context", "system turn", "note", "append"]
    """How instructions change in mid-session: replaced in the session's configuration or its context, by a
    turn of the system, by a note in the conversation, or by instructions added to the old ones."""
    update_tools: bool
    """Tools can change in mid-session."""
    resume: bool
    """A lost connection is taken up where it was left."""
    full_duplex: bool
    """It hears and speaks at the same time, at the pace of speech, and falls silent by itself."""


@dataclass(slots=True)
class SessionCounters:
    """What crossed the provider's socket, for the log line at the end of the call."""

    messages_in: int = 0
    """Those that show that the AI does something: not housekeeping, nor the silence of an unbroken stream."""
    messages_out: int = 0
    audio_in_ms: float = 0.0
    audio_out_frames: int = 0
    late_audio_ms: float = 0.0
    """Agent's audio that came after its answer was interrupted."""
    uplink_dropped_frames: int = 0
    """Caller's audio dropped because the provider's socket stalled, or was never ready."""
    reconnects: int = 0
    """Connections after the first."""
    left_out: int = 0
    """Parts of the configuration that the service refused, and the session does without."""
    skipped_silence_ms: float = 0.0
    """Silence of the agent that was left out: the queue to the caller was getting long."""
    usage: dict[str, int] = field(default_factory=dict)


class ProviderSession(Protocol):
    """One conversation with the AI. Events arrive by the callback given to the constructor."""

    name: str
    capabilities: Capabilities
    counters: SessionCounters

    @property
    def busy(self) -> bool:
        """Return whether an answer is in progress, or asked for and not begun."""
        ...

    async def connect(self, brief: Brief) -> None:
        """Open the session. Raises ProviderError. Audio may be sent before this returns: it is kept."""
        ...

    def send_audio(self, data: bytes, *, keep: bool = False) -> None:
        """Send the caller's audio, in the format of the media link.

        When the socket stalls the oldest audio is dropped, but for what is to be kept: words said earlier.
        """
        ...

    def speak(self, instructions: str | None = None) -> None:
        """Ask the agent to speak now: by its brief, or by ``instructions`` for this one answer."""
        ...

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        """Tell what the caller heard before the cut. With ``cancel`` also end the answer in progress."""
        ...

    def update(self, brief: Brief) -> None:
        """Change instructions and tools."""
        ...

    def tool_result(self, call_id: str, output: str, *, answer: bool = True) -> None:
        """Give the result of a tool. With ``answer`` the agent speaks on once all results are in."""
        ...

    def end_turn(self) -> None:
        """Take the caller's turn for ended: the AI says they speak, and nothing is to be heard of them.

        Nothing happens where the service has no say in turns.
        """
        ...

    def renew(self, cause: str) -> None:
        """Give the connection up, which is mute, and go on over another; ``ConnectionLost`` comes first.

        Where ``Capabilities.resume`` is false nobody calls it: another session takes this one's place.
        """
        ...

    async def close(self) -> None:
        """End the session. May be called twice."""
        ...


class SessionFactory(Protocol):
    """Makes the AI's side of a call."""

    def __call__(
        self, settings: Settings, audio: AudioFormat, on_event: OnProviderEvent, /
    ) -> ProviderSession:
        """Return a session that is not connected yet. Raises SettingsError."""
        ...
