"""Whatever happens to the connections of a Gemini session, in whatever order: a tool is told of once, what
led to it is not heard again, nor what tripped the service, and while a tool works nobody asks the agent on.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arivox.audio.format import ULAW
from arivox.providers.base import (
    Brief,
    ConnectionLost,
    Fault,
    ProviderEvent,
    ResponseStarted,
    ToolCall,
    ToolCallsCancelled,
)
from arivox.providers.gemini import protocol, rotation
from arivox.providers.gemini.closes import closed
from arivox.providers.gemini.connection import Connection
from arivox.providers.gemini.requests import GO_ON, MISSED
from arivox.providers.gemini.rotation import Rotation
from arivox.providers.gemini.session import GeminiSession
from arivox.settings.settings import Settings

FRAME = 160
SILENCE = ULAW.silence * FRAME
RECENT = 15  # frames of a word that may just be being said
CODES = (1000, 1001, 1006, 1007, 1008, 1011)


class Wire(Connection):
    """A connection without a socket: it is open until it is lost."""

    def __init__(self, handle: str, brief: Brief) -> None:
        self.handle = handle
        self.brief = brief
        self.useful = True
        self.ended = None
        self.up = True
        self.sent: list[dict[str, Any]] = []
        self.calls: set[str] = set()
        self.heard: set[bytes] = set()

    @property
    def alive(self) -> bool:
        return self.up

    def begin(self) -> None:
        pass

    def send(self, message: bytes) -> None:
        if self.up:
            self.sent.append(json.loads(message))

    send_audio = send

    async def close(self) -> None:
        self.up = False


class AtOnce(Rotation):
    """Has the next connection in the same moment."""

    def _renew(self, cause: str, delay: float = 0.0) -> None:
        owner = self._owner
        assert isinstance(owner, GeminiSession)
        if self.alive and not owner.quiet:
            owner.give_up_turn()
        self._leave(lossy=False)
        wire = Wire(owner._resumption.handle, owner._brief)
        owner.goes_on(wire, cause, 0)
        self.use(wire)


class Flat:
    """Passes sound on as it is."""

    def to_provider(self, data: bytes) -> bytes:
        return data

    def to_link(self, data: bytes) -> bytes:
        return data

    def restart(self) -> None:
        pass


class Call:
    """The session, the service, and the layer above it."""

    def __init__(self) -> None:
        self.session = GeminiSession(Settings(gemini_api_key="k", gemini_live_url="ws://x"), ULAW, self.hear)
        self.session._transcoder = Flat()  # type: ignore[assignment]
        self.rotation = self.session._rotation = AtOnce(self.session, self.session._opener.open)
        self.wires: list[Wire] = []
        self.told: list[str] = []
        self.made = 0  # calls by the service
        self.open: set[str] = set()
        self.orphans: set[str] = set()
        self.frames = 0
        self.heard: set[bytes] = set()  # all words that went out
        self.answered: set[bytes] = set()  # those when the present answer began
        self.taboo: set[bytes] = set()  # not to be sent again
        self.shy = False
        self.over = False
        self.seen: dict[int, int] = {}
        self.session._rotation.use(Wire("", Brief("")))
        self.look()

    @property
    def wire(self) -> Wire:
        wire = self.rotation.current
        assert isinstance(wire, Wire)
        return wire

    # --- from the session ---

    def hear(self, event: ProviderEvent) -> None:
        match event:
            case ToolCall():
                assert event.call_id not in self.told
                self.told.append(event.call_id)
                self.open.add(event.call_id)
                self.taboo |= self.answered
            case ToolCallsCancelled():
                self.open -= set(event.call_ids)
            case ConnectionLost():
                self.orphans |= self.open
                self.open.clear()
                self.session.update(Brief(f"at work: {sorted(self.orphans)}"))
            case ResponseStarted():
                latest = sorted(self.heard)[-RECENT:]
                self.answered = self.heard - set(latest)
            case Fault():
                self.over = True

    def look(self) -> None:
        """Check what went out since the last time."""
        if self.rotation.current is None:
            return
        wire = self.wire
        for message in wire.sent[self.seen.get(id(wire), 0) :]:
            audio = message.get("realtimeInput", {}).get("audio")
            if audio:
                assert not (self.shy and (self.open or self.orphans)), "sound while tools are at work"
                self.audio(base64.b64decode(audio["data"]))
            text = message.get("realtimeInput", {}).get("text", "")
            if self.open or self.orphans:
                assert text not in (GO_ON, MISSED), "asked to go on while tools are at work"
            for response in message.get("toolResponse", {}).get("functionResponses", ()):
                assert response["id"] in wire.calls, "a result for a call of another connection"
                wire.calls.remove(response["id"])
        self.seen[id(wire)] = len(wire.sent)
        self.wires.append(wire)  # keeps its id

    def audio(self, data: bytes) -> None:
        frames = {data[start : start + FRAME] for start in range(0, len(data), FRAME)} - {SILENCE}
        assert not frames & self.taboo, "heard once more"
        self.heard |= frames
        self.wire.heard |= frames

    # --- what may happen ---

    def do(self, action: str, number: int) -> None:
        session = self.session
        if action == "speak up":
            for _ in range(5 + number):
                self.frames += 1
                # Loud, and no two alike; later ones sort after earlier ones.
                session.send_audio(b"\x00" + self.frames.to_bytes(4, "big") + b"\x00" * (FRAME - 5))
        elif action == "be silent":
            for _ in range(5 * number):
                session.send_audio(SILENCE)
        elif action == "call":
            self.made += 1
            wire_id = f"c{number}"
            if wire_id in self.wire.calls:
                self.made -= 1  # the same once more
            self.wire.calls.add(wire_id)
            self.say(toolCall={"functionCalls": [{"id": wire_id, "name": "book", "args": {}}]})
        elif action == "cancel" and self.wire.calls:
            self.say(toolCallCancellation={"ids": [min(self.wire.calls)]})
            self.wire.calls.discard(min(self.wire.calls))
        elif action == "return" and (self.open or self.orphans):
            call_id = sorted(self.open | self.orphans)[number % len(self.open | self.orphans)]
            orphan = call_id in self.orphans
            self.open.discard(call_id)
            self.orphans.discard(call_id)
            if orphan:
                session.update(Brief(f"has returned: {call_id}"))
            session.tool_result(call_id, "{}")
        elif action == "sound":
            part = {"inlineData": {"mimeType": "audio/pcm", "data": "AAAA"}}
            self.say(serverContent={"modelTurn": {"parts": [part]}})
        elif action == "done":
            self.say(serverContent={"generationComplete": True, "turnComplete": True})
        elif action == "interrupted":
            self.say(serverContent={"interrupted": True, "turnComplete": True})
        elif action == "handle" and not self.wire.calls:
            self.say(sessionResumptionUpdate={"newHandle": f"h{number}", "resumable": True})
        elif action == "lose":
            self.lose(CODES[number % len(CODES)])
        elif action == "leave":
            self.rotation._renew("goAway")
        elif action == "renew":
            self.rotation.renew("mute")
        elif action == "ask":
            session.speak("Say yes." if number % 2 else None)
        elif action == "stop":
            session.interrupt([], cancel=bool(number % 2))

    def say(self, **message: Any) -> None:
        parsed = protocol.parse(json.dumps(message).encode())
        self.session._take(self.wire, parsed)

    def lose(self, code: int) -> None:
        self.look()
        self.wire.up = False
        if code == 1007:
            self.taboo |= self.wire.heard
        if code in (1007, 1008) and (self.open or self.orphans):
            self.shy = True
        self.session._on_closed(self.wire, closed(code, ""))


ACTIONS = (
    *("speak up", "be silent", "call", "call", "cancel", "return", "return", "sound", "done", "interrupted"),
    *("handle", "lose", "lose", "leave", "renew", "ask", "stop"),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(1, 12)), max_size=100))
@example([("speak up", 12), ("be silent", 9), ("call", 1), ("lose", 4), ("call", 1), ("return", 1)])
@example([("speak up", 12), ("call", 1), ("lose", 3), ("speak up", 9), ("lose", 3), ("return", 1)])
def test_losses_of_all_kinds_in_any_order(steps: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotation, "_LASTED_S", 0.0)  # no count of losses ends it
        patch.setattr(rotation, "_SHORTEST_S", 0.0)
        call = Call()
        for action, number in steps:
            call.do(action, number)
            call.look()
            assert not call.over
            assert len(call.told) == call.made
