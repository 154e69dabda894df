"""The providers as the contract's tests need them: a ``Kind`` for each service, model and way of access."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gemini_oracle
import live_oracle
import oracle
from accounts import service_account
from heard import Heard

from arivox.audio import g711
from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.audio.g711 import Law, Pcm
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.gemini import VERTEX_PATH, GeminiOptions, TokenServer, TokenStore
from arivox.emulator.openai import Options
from arivox.emulator.record import Record
from arivox.emulator.script import Script, Stage
from arivox.emulator.server import EmulatorServer
from arivox.media.playout import Cut
from arivox.providers import registry
from arivox.providers.base import (
    Brief,
    Capabilities,
    Interrupted,
    ProviderEvent,
    ProviderSession,
    SpeechStarted,
    Tool,
)
from arivox.settings.settings import Settings

_TOKENS = TokenStore()
MOVE = Tool(
    "move_to_state",
    "Move on.",
    {
        "type": "object",
        "properties": {"state": {"type": "string", "enum": ["day", "time"]}},
        "required": ["state"],
    },
)
END = Tool("end_call", "End the call.")


def brief(state: str, *tools: Tool) -> Brief:
    focus = f"Current state: {state}\nAsk for the {state}."
    return Brief(f"You are a clinic.\n{focus}", tools, focus)


@dataclass(frozen=True)
class Kind:
    """One way to have an AI."""

    name: str
    provider: str
    capabilities: Capabilities
    address: Callable[[EmulatorServer], dict[str, Any]]
    """Settings that point at the emulator."""
    check: Callable[[dict[str, Any]], None]
    """Fails unless the official SDK's types accept a frame that we sent."""
    wrong_key: str
    """The code of the error for it."""
    wrong_model: tuple[dict[str, Any], str]
    settings: dict[str, Any] = field(default_factory=dict)
    emulator: dict[str, Any] = field(default_factory=dict)
    law: AudioFormat = ULAW
    vertex: bool = False

    def __str__(self) -> str:
        return self.name


def _capabilities(**differing: Any) -> Capabilities:
    values: dict[str, Any] = {
        "turns": False,
        "truncate": False,
        "cancel": False,
        "update": "note",
        "update_tools": False,
        "resume": False,
        "full_duplex": False,
    }
    return Capabilities(**(values | differing))


def _openai(name: str, *, law: AudioFormat = ULAW, beta: bool = False, **settings: Any) -> Kind:
    return Kind(
        name,
        "openai",
        _capabilities(turns=True, truncate=True, cancel=True, update="session", update_tools=True),
        lambda server: {"openai_realtime_url": server.url, "openai_api_key": "sk-right"},
        (lambda event: None) if beta else oracle.assert_valid_client,
        "invalid_api_key",
        ({"openai_model": "gpt-parrot"}, "invalid_model"),
        settings,
        {"options": Options(beta=True)} if beta else {},
        law,
    )


def _gemini(name: str, model: str, *, law: AudioFormat = ULAW, **settings: Any) -> Kind:
    return Kind(
        name,
        "gemini",
        _capabilities(resume=True),
        lambda server: {"gemini_live_url": server.gemini_url, "gemini_api_key": "sk-right"},
        gemini_oracle.assert_valid_client,
        "invalid_api_key",
        ({"gemini_model_name": "gemini-parrot"}, "model_not_found"),
        {"gemini_model_name": model, **settings},
        {},
        law,
    )


def _vertex(name: str, model: str, update: str) -> Kind:
    return Kind(
        name,
        "gemini",
        _capabilities(turns=True, resume=True, update=update, update_tools=update == "context"),
        lambda server: {
            "gemini_live_url": server.address(VERTEX_PATH.format(version="v1")),
            "gemini_auth": "vertex",
            "gemini_project_id": "p",
        },
        gemini_oracle.assert_valid_client,
        "401",
        ({"gemini_model_name": "gemini-parrot"}, "model_not_found"),
        {"gemini_model_name": model},
        vertex=True,
    )


def _live(name: str, *, law: AudioFormat = ULAW) -> Kind:
    return Kind(
        name,
        "openai-live",
        _capabilities(update="append", update_tools=True, full_duplex=True),
        lambda server: {"openai_live_url": server.live_url, "openai_api_key": "sk-right"},
        live_oracle.assert_valid_client,
        "invalid_api_key",
        ({"openai_live_model": "gpt-parrot"}, "invalid_model"),
        {},
        {},
        law,
    )


KINDS = (
    _openai("openai"),
    _openai("openai-alaw", law=ALAW),
    _openai("openai-pcm", openai_audio_format="pcm"),
    _openai("openai-beta", beta=True, openai_dialect="beta"),
    _gemini("gemini", "gemini-3.8-live"),
    _gemini("gemini-alaw-8k", "gemini-3.8-live", law=ALAW, gemini_target_input_sample_rate="8000"),
    _gemini("gemini-thinking", "gemini-3.8-live-extended-thinking", gemini_thinking_level="low"),
    _gemini("gemini-3.1", "gemini-3.1-flash-live-preview", gemini_thinking_level="minimal"),
    _gemini("gemini-2.5", "gemini-2.5-flash-native-audio-preview-12-2025"),
    _vertex("vertex", "gemini-3.8-live", "context"),
    _vertex("vertex-2.5", "gemini-live-2.5-flash-native-audio", "system turn"),
    _live("openai-live"),
    _live("openai-live-alaw", law=ALAW),
)


@dataclass
class Line(Heard):
    """A session, the events it reported, and the service at its other end."""

    kind: Kind
    session: ProviderSession
    server: EmulatorServer
    events: list[ProviderEvent] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    """What is told when the caller interrupts."""

    @property
    def record(self) -> Record:
        return self.server.session.record

    @property
    def stage(self) -> Stage:
        behaviour = self.server.session.behaviour
        assert isinstance(behaviour, Script)
        assert behaviour.stage is not None
        return behaviour.stage

    def history(self) -> list[tuple[str, str]]:
        """Return who said what before, as the service was told it."""
        turns: list[tuple[str, str]] = []
        for frame in self.record.received():
            event = frame.event
            if frame.kind == "conversation.item.create" and event["item"]["type"] == "message":
                turns.append((event["item"]["role"], event["item"]["content"][0]["text"]))
            elif frame.kind == "clientContent":
                content = event["clientContent"]
                turns += [(turn["role"], turn["parts"][0]["text"]) for turn in content["turns"]]
            elif frame.kind == "session.start":
                items = event["session"].get("input", ())
                turns += [(item["role"], item["content"][0]["text"]) for item in items]
        return [("caller" if role == "user" else "agent", text) for role, text in turns]

    def results(self) -> dict[str, Any]:
        """Return the results of tools that arrived, by the ids of their calls."""
        found: dict[str, Any] = {}
        for frame in self.record.received():
            event = frame.event
            if frame.kind == "toolResponse":
                for answer in event["toolResponse"]["functionResponses"]:
                    found[answer["id"]] = {k: v for k, v in answer["response"].items() if k != "note"}
            elif event.get("item", {}).get("type") == "function_call_output":
                found[event["item"]["call_id"]] = json.loads(event["item"]["output"])
        return found

    def pcm(self, audio: bytes) -> Pcm:
        """Return samples of the link's format."""
        law: Law = "alaw" if self.kind.law is ALAW else "ulaw"
        return g711.decode(audio, law)

    def encoded(self, pcm: Pcm) -> bytes:
        law: Law = "alaw" if self.kind.law is ALAW else "ulaw"
        return g711.encode(pcm, law)

    def say(self, pcm: Pcm) -> None:
        """Send what the caller says, frame by frame, and half a second of silence after it."""
        audio = self.encoded(pcm) + self.kind.law.silence * 6400
        for start in range(0, len(audio), 160):
            self.session.send_audio(audio[start : start + 160])


@asynccontextmanager
async def line(
    kind: Kind,
    behaviour: Callable[[], Behaviour] = Script,
    *,
    told: Brief | None = None,
    connect: bool = True,
    emulator: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Line]:
    """Yield a session with the emulated service.

    At the end it is closed, neither task nor connection may be left, and every frame that it sent must fit
    the official SDK's types.
    """
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        known = TokenStore() if emulator and "api_keys" in emulator else _TOKENS
        options = {
            "api_keys": {"sk-right"},
            "gemini": GeminiOptions(tokens=known),
            **kind.emulator,
            **(emulator or {}),
        }
        server = await stack.enter_async_context(EmulatorServer(behaviour, **options))
        values = {**kind.address(server), **kind.settings, **settings}
        if kind.vertex:
            tokens = await stack.enter_async_context(TokenServer(_TOKENS))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            values["google_application_credentials"] = service_account(folder, tokens.token_url)
        made: Line

        def on_event(event: ProviderEvent) -> None:
            made.events.append(event)
            # As a call does it: at once, from within the event.
            if isinstance(event, SpeechStarted | Interrupted):
                made.session.interrupt(made.cuts)

        session = registry.find(kind.provider).new_session(Settings(**values), kind.law, on_event)
        made = Line(kind, session, server)
        try:
            if connect:
                await session.connect(told or brief("reason", MOVE, END))
            yield made
        finally:
            await session.close()
        for connection in server.sessions:
            async with asyncio.timeout(3):
                await connection.ended.wait()
            for frame in connection.record.received():
                kind.check(frame.event)
    deadline = time.monotonic() + 2
    while left := asyncio.all_tasks() - before:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.002)
