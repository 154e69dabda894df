"""The listening and talking AI against a client of the test's own, through real sockets."""

import asyncio
import base64
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from oracle import assert_valid
from websockets.asyncio.client import ClientConnection, connect

from arivox.audio.format import ULAW
from arivox.audio.g711 import Pcm
from arivox.emulator import sound
from arivox.emulator.brain import Brain
from arivox.emulator.dialogue import Dialogue
from arivox.emulator.openai import Options
from arivox.emulator.server import EmulatorServer

PCMU = {"type": "audio/pcmu"}
MOVE = {
    "type": "function",
    "name": "move_to_state",
    "description": "",
    "parameters": {
        "type": "object",
        "properties": {"state": {"type": "string", "enum": ["day"]}, "value": {"type": "string"}},
    },
}
END = {"type": "function", "name": "end_call", "description": "", "parameters": {}}


class FakeVoice:
    """Says everything as 10 ms of one level for each letter; fails on demand."""

    rate = 8000

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.broken = False

    def say(self, text: str) -> Pcm:
        self.threads.add(threading.get_ident())
        if self.broken:
            raise RuntimeError("no voice")
        return np.full(80 * len(text), 5000, np.int16)


class FakeEars:
    """Hears the texts it was given, in order."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.heard: list[tuple[int, int, list[str]]] = []
        self.threads: set[int] = set()

    def hear(self, pcm: Pcm, rate: int, phrases: Sequence[str] = ()) -> str:
        self.threads.add(threading.get_ident())
        self.heard.append((len(pcm), rate, list(phrases)))
        return self.texts.pop(0)


class Caller:
    """The client's side of a session."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def tell(self, event: dict[str, Any]) -> None:
        await self.socket.send(msgspec.json.encode(event).decode())

    async def until(self, kind: str) -> dict[str, Any]:
        while True:
            event: dict[str, Any] = msgspec.json.decode(await asyncio.wait_for(self.socket.recv(), 10))
            assert_valid(event)
            self.events.append(event)
            if event["type"] == kind:
                return event

    async def setup(self, state: str, prompt: str, *tools: dict[str, Any]) -> None:
        session = {
            "type": "realtime",
            "instructions": f"You are a clinic.\n\nCurrent state: {state}\n{prompt}",
            "tools": list(tools),
            "audio": {
                "input": {"format": PCMU, "transcription": {"model": "gpt-transcribe"}},
                "output": {"format": PCMU},
            },
        }
        await self.tell({"type": "session.update", "session": session})
        await self.until("session.updated")

    async def speak(self, ms: int = 600) -> None:
        audio = sound.tone(ULAW, ms) + ULAW.silence * 5600
        for start in range(0, len(audio), 160):
            data = base64.b64encode(audio[start : start + 160]).decode()
            await self.tell({"type": "input_audio_buffer.append", "audio": data})

    async def answered(self) -> dict[str, Any]:
        done = await self.until("response.done")
        return dict(done["response"])


@asynccontextmanager
async def call(voice: FakeVoice, ears: FakeEars, brain: Brain | None = None) -> AsyncIterator[Caller]:
    def dialogue() -> Dialogue:
        return Dialogue(brain or Brain(), voice, ears)

    async with (
        EmulatorServer(dialogue, options=Options(speed=50)) as server,
        connect(f"{server.url}?model=gpt-realtime-2.1") as socket,
    ):
        caller = Caller(socket)
        await caller.until("session.created")
        yield caller


def said(response: dict[str, Any]) -> list[str]:
    return [item["content"][0]["transcript"] for item in response["output"] if item["type"] == "message"]


def used(response: dict[str, Any]) -> list[tuple[str, Any]]:
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    return [(item["name"], msgspec.json.decode(item["arguments"])) for item in calls]


async def test_a_whole_conversation() -> None:
    voice, ears = FakeVoice(), FakeEars("A toothache", "")
    brain = Brain({"reason": [("a toothache", "toothache")], "day": [("on monday", "Monday")]})
    async with call(voice, ears, brain) as caller:
        await caller.setup("reason", "Why do you call?", MOVE, END)
        await caller.tell({"type": "response.create"})
        assert said(await caller.answered()) == ["Why do you call?"]

        await caller.speak()
        response = await caller.answered()
        assert used(response) == [("move_to_state", {"state": "day", "value": "toothache"})]
        assert said(response) == []
        completed = "conversation.item.input_audio_transcription.completed"
        assert [e["transcript"] for e in caller.events if e["type"] == completed] == ["A toothache"]

        await caller.setup("day", "Which day?\nKnown so far: reason: toothache", END, MOVE)
        output = {"type": "function_call_output", "call_id": response["output"][0]["call_id"], "output": "{}"}
        await caller.tell({"type": "conversation.item.create", "item": output})
        await caller.tell({"type": "response.create"})
        assert said(await caller.answered()) == ["Which day?"]

        await caller.speak()
        assert said(await caller.answered()) == ["I'm sorry, I didn't catch that. Which day?"]

        await caller.setup("done", "It is confirmed.", END)
        await caller.tell({"type": "response.create"})
        response = await caller.answered()
        assert said(response) == ["It is confirmed. Good-bye."]
        assert used(response) == [("end_call", {})]
    assert ears.heard[0] == (
        (300 + 600 + 500) * 8 - 300 * 8,
        8000,
        ["a toothache", "good bye", "bye bye", "bye"],
    )
    assert ears.heard[1][2][0] == "on monday"
    assert threading.get_ident() not in voice.threads | ears.threads


async def test_the_sound_is_the_voices() -> None:
    async with call(FakeVoice(), FakeEars()) as caller:
        await caller.setup("hello", "Hello there.")
        await caller.tell({"type": "response.create", "response": {"instructions": 'Say: "Wait, please."'}})
        assert said(await caller.answered()) == ["Wait, please."]
        deltas = [e["delta"] for e in caller.events if e["type"] == "response.output_audio.delta"]
        pcm = sound.decode(b"".join(base64.b64decode(delta) for delta in deltas), ULAW)
        assert len(pcm) == 80 * len("Wait, please.")
        assert np.allclose(pcm, 5000, rtol=0.03)


async def test_the_caller_interrupts_and_is_answered() -> None:
    async with call(FakeVoice(), FakeEars("blue")) as caller:
        await caller.setup("colour", "word " * 2000, MOVE)
        await caller.tell({"type": "response.create"})
        await caller.until("response.output_audio.delta")
        await caller.speak()
        await caller.until("input_audio_buffer.speech_started")
        cancelled = await caller.answered()
        assert cancelled["status"] == "cancelled"
        assert cancelled["status_details"]["reason"] == "turn_detected"
        assert used(await caller.answered()) == [("move_to_state", {"state": "day", "value": "blue"})]


async def test_words_that_were_typed_are_answered_too() -> None:
    async with call(FakeVoice(), FakeEars()) as caller:
        await caller.setup("colour", "Which colour?", MOVE)
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "red"}]}
        await caller.tell({"type": "conversation.item.create", "item": item})
        await caller.tell({"type": "response.create"})
        assert used(await caller.answered()) == [("move_to_state", {"state": "day", "value": "red"})]


async def test_asked_again_without_new_words_it_says_the_prompt() -> None:
    async with call(FakeVoice(), FakeEars("blue")) as caller:
        await caller.setup("colour", "Which colour?", MOVE)
        await caller.speak()
        assert used(await caller.answered())
        item = caller.events[-1]["response"]["output"][0]["id"]
        await caller.tell({"type": "conversation.item.delete", "item_id": item})
        await caller.tell({"type": "response.create"})
        assert said(await caller.answered()) == ["Which colour?"]


async def test_a_broken_voice_fails_the_response_and_then_the_server() -> None:
    voice = FakeVoice()
    voice.broken = True
    response: dict[str, Any] = {}

    async def scene() -> None:
        async with call(voice, FakeEars()) as caller:
            await caller.tell({"type": "response.create"})
            response.update(await caller.answered())

    with pytest.raises(RuntimeError, match="no voice"):
        await scene()
    assert response["status"] == "failed"
    assert response["status_details"]["error"]["code"] == "server_error"


async def test_a_caller_who_leaves_while_it_thinks_does_no_harm() -> None:
    started = threading.Event()
    go_on = threading.Event()

    class SlowVoice(FakeVoice):
        def say(self, text: str) -> Pcm:
            started.set()
            go_on.wait(10)
            return super().say(text)

    async with call(SlowVoice(), FakeEars()) as caller:
        await caller.tell({"type": "response.create"})
        deadline = time.monotonic() + 5
        while not started.is_set():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await caller.socket.close()
    go_on.set()
