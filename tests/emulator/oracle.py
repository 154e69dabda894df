"""The official SDK's types as judges of every frame, and a session without sockets or waiting."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from openai.types.realtime import RealtimeClientEventParam, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter

from arivox.emulator.answer import Answer
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.openai import OpenAISession, Options
from arivox.emulator.openai.conversation import Item
from arivox.emulator.record import Frame, Record
from arivox.emulator.session import Turn


def _by_type(union: Any) -> dict[str, type[BaseModel]]:
    models = get_args(get_args(union)[0])
    return {get_args(model.model_fields["type"].annotation)[0]: model for model in models}


_SERVER = _by_type(RealtimeServerEvent)
_BETA = _by_type(BetaServerEvent)
_CLIENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEventParam)


def assert_valid(frame: Frame | dict[str, Any], *, beta: bool = False) -> None:
    """Fail unless the SDK's types accept the server event ``frame``."""
    event = frame.event if isinstance(frame, Frame) else frame
    models = _BETA if beta else _SERVER
    assert event["type"] in models, f"the SDK knows no event {event['type']!r}"
    models[event["type"]].model_validate(event)


def assert_valid_client(event: dict[str, Any]) -> None:
    """Fail unless the SDK's types accept the client event."""
    _CLIENT.validate_python(event)


class Passive(Behaviour):
    """Says nothing by itself; remembers what it was asked."""

    def __init__(self, *, listens: bool = False) -> None:
        self.listens = listens
        self.responses: list[Answer] = []
        self.items: list[Item] = []
        self.interruptions: list[float] = []

    def wanted(self, response: Answer, now: float) -> None:
        self.responses.append(response)

    def heard(self, item: Turn, now: float) -> None:
        assert isinstance(item, Item)
        self.items.append(item)

    def interrupted(self, now: float) -> None:
        self.interruptions.append(now)


class Desk:
    """A session with the test as its client; time passes only in ``advance``."""

    def __init__(self, *, listens: bool = False, options: Options | None = None) -> None:
        self.now = 1000.0
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.closed: tuple[int, str] | None = None
        self.behaviour = Passive(listens=listens)
        self._options = options or Options()
        self._due = float("inf")
        self.session = OpenAISession(
            self.behaviour,
            self,
            Record(clock=lambda: self.now),
            self._wake,
            model="gpt-4o-realtime-preview" if self._options.beta else "gpt-realtime-2.1",
            options=self._options,
        )
        self.session.open(self.now)

    def send(self, data: bytes, *, binary: bool = False) -> None:
        event = msgspec.json.decode(data)
        assert_valid(event, beta=self._options.beta)
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
        if valid and not self._options.beta:
            assert_valid_client(event)
        return self.tell_raw(msgspec.json.encode(event))

    def tell_raw(self, data: bytes) -> list[dict[str, Any]]:
        before = len(self.events)
        self.session.receive_text(data, self.now)
        return self.events[before:]

    def update(self, *, valid: bool = True, **session: Any) -> list[dict[str, Any]]:
        event = {"type": "session.update", "session": {"type": "realtime", **session}}
        return self.tell(event, valid=valid)

    def advance(self, seconds: float) -> list[dict[str, Any]]:
        """Let time pass; return what was sent meanwhile."""
        before = len(self.events)
        end = self.now + seconds
        while self._due <= end:
            self.now, self._due = max(self._due, self.now), float("inf")
            self.session.tick(self.now)
        self.now = end
        return self.events[before:]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def only(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]
