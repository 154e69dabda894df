"""The contract of a realtime speech AI: events, verbs and capabilities. Nothing above knows a wire name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from arivox.errors import ProviderError
from arivox.media.playout import Cut

# --- events ---


@dataclass(frozen=True, slots=True)
class AgentAudio:
    """Speech of the agent, in the format of the call's media link, any number of samples."""

    item_id: str
    data: bytes


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


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller began to speak."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The caller's turn ended."""


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """The agent began to think of an answer."""


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """The agent's answer is complete, cut off, or failed."""

    status: Literal["completed", "cancelled", "failed", "incomplete"]
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The agent wants a tool run. Answer with ``ProviderSession.tool_result``."""

    call_id: str
    name: str
    arguments: str
    """JSON, as the model wrote it: not validated."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something went wrong. With ``error.fatal`` the session is lost."""

    error: ProviderError


ProviderEvent = (
    AgentAudio
    | AgentAudioDone
    | AgentText
    | CallerText
    | SpeechStarted
    | SpeechStopped
    | ResponseStarted
    | ResponseDone
    | ToolCall
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
class Brief:
    """What the agent knows and may do now."""

    instructions: str
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do; the call adapts to it."""

    turns: bool
    """It says where the caller's turns begin and end."""
    truncate: bool
    """It can be told how much of an item was heard."""
    update_brief: bool
    """Instructions and tools can change in mid-session."""
    speak_on_request: bool
    """It can be asked to speak without the caller having spoken."""


@dataclass(slots=True)
class SessionCounters:
    """What crossed the provider's socket, for the log line at the end of the call."""

    messages_in: int = 0
    messages_out: int = 0
    audio_in_ms: float = 0.0
    audio_out_frames: int = 0
    late_audio_ms: float = 0.0
    """Agent's audio that came after its answer was interrupted."""
    uplink_dropped_frames: int = 0
    """Caller's audio dropped because the provider's socket stalled, or was never ready."""
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

    def send_audio(self, data: bytes) -> None:
        """Send the caller's audio, in the format of the media link."""
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

    async def close(self) -> None:
        """End the session. May be called twice."""
        ...
