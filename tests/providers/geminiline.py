"""A Gemini session, and a service at its other end whose every message is the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import pytest
from googlepeer import Behaviour, Google, Peer, google
from heard import Heard

from arivox.audio.format import ULAW
from arivox.audio.g711 import encode
from arivox.providers.base import Brief, ProviderEvent, Tool
from arivox.providers.gemini import rotation
from arivox.providers.gemini.session import GeminiSession
from arivox.settings.settings import Settings

SILENCE = ULAW.silence * 160
LOUD = encode((8000 * np.sin(np.arange(160) / 3)).astype(np.int16), "ulaw")
TOOLS = (Tool("move_to_state", "Move."),)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait between two connections."""
    monkeypatch.setattr(rotation, "delays", lambda *_: repeat(0.01))
    monkeypatch.setattr(rotation, "_SHORTEST_S", 0.0)
    monkeypatch.setattr(rotation, "_SETTLE_S", 0.0)


@dataclass
class Line(Heard):
    """A session, what it told, and the service."""

    session: GeminiSession
    google: Google
    events: list[ProviderEvent] = field(default_factory=list)
    reactions: dict[type, Callable[[], None]] = field(default_factory=dict)
    """What is done from within an event, as a call does it."""

    def hear(self, *frames: Iterator[bytes]) -> None:
        for part in frames:
            for frame in part:
                self.session.send_audio(frame)


@asynccontextmanager
async def line(behave: Behaviour, **settings: Any) -> AsyncIterator[Line]:
    async with google(behave) as service:
        values = {"gemini_live_url": service.url, "gemini_api_key": "k", **settings}
        made: Line

        def on_event(event: ProviderEvent) -> None:
            made.events.append(event)
            made.reactions.get(type(event), lambda: None)()

        made = Line(GeminiSession(Settings(**values), ULAW, on_event), service)
        try:
            await made.session.connect(Brief("day", TOOLS))
            yield made
        finally:
            await made.session.close()


def by_number(*behaviours: Behaviour) -> Behaviour:
    """Return what each connection does in its turn; the last one's for all that come later."""

    async def behave(peer: Peer) -> None:
        await behaviours[min(peer.number, len(behaviours)) - 1](peer)

    return behave


def loud(audio: bytes) -> bool:
    """Return whether there is a voice in what the service was sent."""
    return bool(np.abs(np.frombuffer(audio, "<i2")).max(initial=0) > 7000)
