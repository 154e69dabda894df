"""Google's SDK's types as judges of every frame of Gemini Live, and a session without sockets or waiting."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
from google.genai import types
from pydantic import BaseModel

from arivox.emulator.answer import Answer
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.gemini import Entrance, GeminiOptions, GeminiSession
from arivox.emulator.gemini.resumption import Handles
from arivox.emulator.record import Frame, Record
from arivox.emulator.session import Turn

_STANDARD = str.maketrans("-_", "+/")
# Vertex has names of its own, which the SDK turns into these before it looks at them.
_VERTEX_USAGE = {
    "candidatesTokenCount": "responseTokenCount",
    "candidatesTokensDetails": "responseTokensDetails",
}

STUDIO_MODEL = "models/gemini-3.8-live"
VERTEX_MODEL = "projects/p/locations/us-central1/publishers/google/models/gemini-3.8-live"


def assert_valid_server(frame: Frame | dict[str, Any]) -> None:
    """Fail unless the SDK reads every key of a server's message, and reads what it says."""
    event = copy.deepcopy(frame.event if isinstance(frame, Frame) else frame)
    assert event, "a message without any key"
    usage = event.get("usageMetadata", {})
    event |= {"usageMetadata": {_VERTEX_USAGE.get(k, k): v for k, v in usage.items()}} if usage else {}
    if "voiceActivity" in event:
        event["voiceActivity"]["voiceActivityType"] = event["voiceActivity"].pop("type")
    _check(types.LiveServerMessage, event, "")


def assert_valid_client(frame: Frame | dict[str, Any]) -> None:
    """Fail unless the SDK's types know every key of a client's message, in camelCase, and what it says."""
    event = copy.deepcopy(frame.event if isinstance(frame, Frame) else frame)
    assert len(event) == 1, f"a message has exactly one key, not {list(event)}"
    setup = event.get("setup", {})
    # The SDK builds this part of a setup without a type around it.
    if "realtimeInputConfig" in setup:
        _check(types.RealtimeInputConfig, setup.pop("realtimeInputConfig"), ".setup.realtimeInputConfig")
    # Its types of these take almost anything; it converts them to the ones here.
    for owner in (setup, event.get("contextUpdate", {})):
        if "systemInstruction" in owner:
            _check(types.Content, owner.pop("systemInstruction"), ".systemInstruction")
    for owner in (setup, event.get("contextUpdate", {}).get("tools", {})):
        for tool in owner.pop("tools", ()):
            _check(types.Tool, tool, ".tools")
    _check(types.LiveClientMessage, event, "")


def _check(model: type[BaseModel], value: dict[str, Any], at: str) -> None:
    read = model.model_validate(value).model_dump(mode="json", by_alias=True, exclude_none=True)
    _assert_same(value, read, at)


def _assert_same(sent: Any, read: Any, at: str) -> None:
    if isinstance(sent, dict):
        assert isinstance(read, dict), at
        assert set(sent) == set(read), f"at '{at}': sent {sorted(sent)}, read {sorted(read)}"
        for key, value in sent.items():
            _assert_same(value, read[key], f"{at}.{key}")
    elif isinstance(sent, list):
        assert len(sent) == len(read), at
        for index, (one, other) in enumerate(zip(sent, read, strict=True)):
            _assert_same(one, other, f"{at}[{index}]")
    elif at.endswith(".data"):
        assert sent == read.translate(_STANDARD), f"at '{at}': no standard base64"
    else:
        assert sent == read or str(sent) == str(read), f"at '{at}': sent {sent!r}, read {read!r}"


class Passive(Behaviour):
    """Says nothing by itself; remembers what it was asked."""

    def __init__(self, *, listens: bool = False) -> None:
        self.listens = listens
        self.answers = True
        self.responses: list[Answer] = []
        self.turns: list[Turn] = []
        self.interruptions: list[float] = []
        self.events: list[object] = []
        self.heard_audio = bytearray()

    def wanted(self, response: Answer, now: float) -> None:
        self.responses.append(response)

    def heard(self, item: Turn, now: float) -> None:
        self.turns.append(item)

    def interrupted(self, now: float) -> None:
        self.interruptions.append(now)

    def event(self, event: object, now: float) -> None:
        self.events.append(event)

    def audio(self, data: bytes, now: float) -> None:
        self.heard_audio += data


class Desk:
    """A session with the test as its client; time passes only in ``advance``."""

    def __init__(
        self,
        *,
        listens: bool = False,
        entrance: Entrance | None = None,
        vertex: bool = False,
        options: GeminiOptions | None = None,
        handles: Handles | None = None,
        now: float = 1000.0,
    ) -> None:
        self.now = now
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.behaviour = Passive(listens=listens)
        self.record = Record(clock=lambda: self.now)
        self._due = float("inf")
        default = Entrance("vertex", "v1beta1") if vertex else Entrance()
        self.session = GeminiSession(
            self.behaviour,
            self,
            self.record,
            self._wake,
            entrance=entrance or default,
            options=options or GeminiOptions(),
            handles=handles,
            wall_clock=lambda: self.now,
        )
        self.session.open(self.now)

    def send(self, data: bytes, *, binary: bool = False) -> None:
        assert binary, "the service sends binary frames only"
        assert b"\n  " in data, "the service sends pretty-printed JSON"
        assert self.closed is None, "a frame after the close"
        event = msgspec.json.decode(data)
        assert_valid_server(event)
        self.events.append(event)
        self.times.append(self.now)

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None, "closed twice"
        self.closed = (code, reason)

    def abort(self) -> None:
        self.aborted = True

    def _wake(self, when: float) -> None:
        self._due = when

    def tell(self, event: dict[str, Any], *, valid: bool = True) -> list[dict[str, Any]]:
        """Send a client's message; return what comes back at once."""
        if valid:
            assert_valid_client(event)
        return self.tell_raw(msgspec.json.encode(event))

    def tell_raw(self, data: bytes, *, binary: bool = False) -> list[dict[str, Any]]:
        before = len(self.events)
        receive = self.session.receive_binary if binary else self.session.receive_text
        receive(data, self.now)
        return self.events[before:]

    def set_up(self, *, valid: bool = True, **setup: Any) -> list[dict[str, Any]]:
        """Send a setup; return what comes back until ``setupComplete``, or what comes instead."""
        vertex = self.session.entrance.backend == "vertex"
        model = VERTEX_MODEL if vertex else STUDIO_MODEL
        before = len(self.events)
        self.tell({"setup": {"model": model, **setup}}, valid=valid)
        self.advance(0.01)
        return self.events[before:]

    def type(self, text: str) -> list[dict[str, Any]]:
        return self.tell({"realtimeInput": {"text": text}})

    @property
    def answer(self) -> Answer:
        """Return the newest answer that was wanted."""
        return self.behaviour.responses[-1]

    def advance(self, seconds: float) -> list[dict[str, Any]]:
        """Let time pass; return what was sent meanwhile."""
        before = len(self.events)
        end = self.now + seconds
        while self._due <= end:
            self.now, self._due = max(self._due, self.now), float("inf")
            self.session.tick(self.now)
        self.now = end
        return self.events[before:]


def names(events: list[dict[str, Any]]) -> list[str]:
    """Return what the messages hold: their keys, with the fields of ``serverContent``."""
    return [
        "+".join(
            f"{key}({'+'.join(value)})" if key == "serverContent" else key for key, value in event.items()
        )
        for event in events
    ]


def fields(events: list[dict[str, Any]], name: str) -> list[Any]:
    """Return every value of a field of ``serverContent``, in order."""
    contents = [event.get("serverContent", {}) for event in events]
    return [content[name] for content in contents if name in content]
