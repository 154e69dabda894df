"""The official SDK's types as judges of every frame of Live, and a session without sockets or waiting."""

from __future__ import annotations

import base64
from typing import Any, get_args

import msgspec
from openai.types.live import ClientEventParam, ServerEvent
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from arivox.audio.format import ULAW, AudioFormat
from arivox.emulator.answer import Answer
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.openai_live import LiveOptions, LiveSession, LiveTurn
from arivox.emulator.record import Frame, Record
from arivox.emulator.session import Turn

AUDIO = "session.output_audio.delta"
PCMU = {"type": "audio/pcmu", "rate": 8000}


def _by_type(union: Any) -> dict[str, type[BaseModel]]:
    models = get_args(get_args(union)[0])
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in models}


_SERVER = _by_type(ServerEvent)
_NESTED = _by_type(ResponseStreamEvent)
_CLIENT: TypeAdapter[Any] = TypeAdapter(ClientEventParam)


def assert_valid_server(frame: Frame | dict[str, Any]) -> None:
    """Fail unless the SDK's types accept the server event ``frame``, with the Responses event in it."""
    event = frame.event if isinstance(frame, Frame) else frame
    _assert_known(event, _SERVER)
    if event["type"] == "response.event":
        _assert_known(event["event"], _NESTED)


def assert_valid_client(event: dict[str, Any]) -> None:
    """Fail unless the SDK's types accept the client event."""
    _CLIENT.validate_python(event)


def _assert_known(event: dict[str, Any], models: dict[str, type[BaseModel]]) -> None:
    assert event["type"] in models, f"the SDK knows no event {event['type']!r}"
    model = models[event["type"]]
    model.model_validate(event)
    # The types let unknown fields pass.
    names = {field.alias or name for name, field in model.model_fields.items()}
    assert set(event) <= names, f"the SDK knows no {set(event) - names} in {event['type']!r}"


class Passive(Behaviour):
    """Says nothing by itself; remembers what it was asked."""

    def __init__(self, *, listens: bool = False) -> None:
        self.listens = listens
        self.wants: list[Answer] = []
        self.turns: list[LiveTurn] = []
        self.interruptions: list[float] = []
        self.events: list[object] = []
        self.heard_audio = bytearray()

    def wanted(self, response: Answer, now: float) -> None:
        self.wants.append(response)

    def heard(self, item: Turn, now: float) -> None:
        assert isinstance(item, LiveTurn)
        self.turns.append(item)

    def interrupted(self, now: float) -> None:
        self.interruptions.append(now)

    def event(self, event: object, now: float) -> None:
        self.events.append(event)

    def audio(self, data: bytes, now: float) -> None:
        self.heard_audio += data


class LiveDesk:
    """A session with the test as its client; time passes only in ``advance``."""

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        listens: bool = False,
        options: LiveOptions | None = None,
    ) -> None:
        self.now = 1000.0
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.closed: tuple[int, str] | None = None
        self.behaviour = Passive(listens=listens)
        self._due = float("inf")
        self.session = LiveSession(
            behaviour or self.behaviour,
            self,
            Record(clock=lambda: self.now),
            self._wake,
            options=options or LiveOptions(continuous=False, lead_ms=0),
        )
        self.session.open(self.now)

    def send(self, data: bytes, *, binary: bool = False) -> None:
        assert self.closed is None, "nothing comes after the close"
        event = msgspec.json.decode(data)
        assert_valid_server(event)
        self.events.append(event)
        self.times.append(self.now)

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def abort(self) -> None:
        raise AssertionError("nobody asked for it")

    def _wake(self, when: float) -> None:
        self._due = when

    def tell(self, event: dict[str, Any], *, valid: bool = True) -> list[dict[str, Any]]:
        """Send a client event; return what comes back at once."""
        if valid:
            assert_valid_client(event)
        return self.tell_raw(msgspec.json.encode(event))

    def tell_raw(self, data: bytes) -> list[dict[str, Any]]:
        before = len(self.events)
        self.session.receive_text(data, self.now)
        return self.events[before:]

    def start(self, *, valid: bool = True, **session: Any) -> list[dict[str, Any]]:
        """Start the session, by default as a phone call."""
        wanted = {"model": "gpt-live-1.1", "audio": {"format": PCMU}, **session}
        return self.tell({"type": "session.start", "session": wanted}, valid=valid)

    def advance(self, seconds: float) -> list[dict[str, Any]]:
        """Let time pass; return what was sent meanwhile."""
        before = len(self.events)
        end = self.now + seconds
        while self._due <= end:
            self.now, self._due = max(self._due, self.now), float("inf")
            self.session.tick(self.now)
        self.now = end
        return self.events[before:]

    def hear(self, audio: bytes, form: AudioFormat = ULAW) -> list[dict[str, Any]]:
        """Send ``audio`` in frames as a call does, one every 20 ms."""
        before = len(self.events)
        step = form.bytes_for(20)
        for start in range(0, len(audio), step):
            piece = base64.b64encode(audio[start : start + step]).decode()
            self.tell({"type": "session.input_audio.append", "audio": piece})
            self.advance(0.02)
        return self.events[before:]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    """Return the types of ``events``, those in a ``response.event`` with their own names."""
    return [
        event["event"]["type"] if event["type"] == "response.event" else event["type"] for event in events
    ]


def only(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the events of one type."""
    return [event for event in events if event["type"] == kind]


def audio_of(events: list[dict[str, Any]]) -> bytes:
    """Return the audio in ``events``."""
    return b"".join(base64.b64decode(event["delta"]) for event in only(events, AUDIO))
