"""A session with OpenAI Live, and the emulated service at its other end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from heard import Heard
from openai.types.live import ClientEventParam
from pydantic import TypeAdapter

from arivox.audio.format import ULAW, AudioFormat
from arivox.emulator import sound
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.openai_live import LiveOptions
from arivox.emulator.openai_live import LiveSession as Service
from arivox.emulator.record import Record
from arivox.emulator.script import Script, Stage
from arivox.emulator.server import EmulatorServer
from arivox.providers.base import Brief, ProviderEvent, Tool
from arivox.providers.openai_live.session import LiveSession
from arivox.settings.settings import Settings

CLIENT: TypeAdapter[Any] = TypeAdapter(ClientEventParam)
BRIEF = Brief("You are a test.", (Tool("look", "Look."),))
FRAME = bytes(range(160))
"""20 ms of a caller."""


@dataclass
class Line(Heard):
    """A session, the events it reported, and the service at its other end."""

    session: LiveSession
    server: EmulatorServer
    events: list[ProviderEvent] = field(default_factory=list)

    @property
    def record(self) -> Record:
        return self.server.session.record

    @property
    def stage(self) -> Stage:
        behaviour = self.server.session.behaviour
        assert isinstance(behaviour, Script)
        assert behaviour.stage is not None
        return behaviour.stage

    @property
    def service(self) -> Service:
        assert isinstance(self.stage.session, Service)
        return self.stage.session

    async def say(self, text: str) -> bytes:
        """Have the agent say ``text`` at once. Return its sound."""
        audio = sound.tone(self.service.output_format, 60 * len(text))
        await self.stage.say(audio, transcript=text, speed=float("inf"))
        return audio

    def told(self) -> list[str]:
        """Return the types of all that the client sent, but for the audio."""
        return [f.kind for f in self.record.received() if f.kind != "session.input_audio.append"]

    def appended(self) -> list[str]:
        return [f.event["content"] for f in self.record.received("session.instructions.append")]


@asynccontextmanager
async def line(
    behaviour: Callable[[], Behaviour] = Script,
    *,
    audio: AudioFormat = ULAW,
    brief: Brief = BRIEF,
    live: LiveOptions = LiveOptions(continuous=False),  # noqa: B008 - frozen
    emulator: dict[str, Any] | None = None,
    connect: bool = True,
    **settings: Any,
) -> AsyncIterator[Line]:
    """Yield a session; at the end it is closed and neither task nor connection may be left."""
    before = asyncio.all_tasks()
    async with EmulatorServer(behaviour, live=live, **(emulator or {})) as server:
        values = {"openai_live_url": server.live_url, "openai_api_key": "sk-secret", **settings}
        events: list[ProviderEvent] = []
        session = LiveSession(Settings(**values), audio, events.append)
        made = Line(session, server, events)
        try:
            if connect:
                await session.connect(brief)
            yield made
        finally:
            await session.close()
        for connection in server.sessions:
            async with asyncio.timeout(3):
                await connection.ended.wait()
            for frame in connection.record.received():
                CLIENT.validate_python(frame.event)
    deadline = time.monotonic() + 2
    while left := asyncio.all_tasks() - before:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.002)
