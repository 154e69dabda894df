"""The official SDK completes spoken turns with the emulator; every frame of both sides fits its types."""

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeErrorEvent, RealtimeServerEvent
from oracle import assert_valid, assert_valid_client
from websockets.exceptions import ConnectionClosedError

from arivox.audio.format import SLIN24, ULAW
from arivox.audio.g711 import Pcm
from arivox.emulator import sound
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.brain import Brain
from arivox.emulator.dialogue import Dialogue
from arivox.emulator.openai import OpenAISession, Options
from arivox.emulator.script import Script
from arivox.emulator.server import EmulatorServer

MODEL = "gpt-realtime-2.1"
TOOLS: Any = [
    {
        "type": "function",
        "name": "move_to_state",
        "description": "Move on.",
        "parameters": {"properties": {"state": {"enum": ["day"]}, "value": {"type": "string"}}},
    }
]


class Tongue:
    rate = 16000

    def say(self, text: str) -> Pcm:
        return np.full(16 * 50 * len(text), 4000, np.int16)


class Ear:
    def hear(self, pcm: Pcm, rate: int, phrases: Sequence[str] = ()) -> str:
        return "a toothache" if len(pcm) > rate // 2 else ""


def dialogue() -> Behaviour:
    return Dialogue(Brain(), Tongue(), Ear())


def client(server: EmulatorServer, key: str = "sk-test") -> AsyncOpenAI:
    base = f"127.0.0.1:{server.port}/v1"
    return AsyncOpenAI(
        api_key=key, base_url=f"http://{base}", websocket_base_url=f"ws://{base}", max_retries=0
    )


@asynccontextmanager
async def checked(server: EmulatorServer) -> AsyncIterator[AsyncRealtimeConnection]:
    """Connect; at the end, hold every frame against the SDK's types."""
    async with client(server) as openai, openai.realtime.connect(model=MODEL) as connection:
        yield connection
    for frame in server.session.record:
        if frame.sent:
            assert_valid(frame)
        else:
            assert_valid_client(frame.event)


async def until(connection: AsyncRealtimeConnection, kind: str) -> list[RealtimeServerEvent]:
    events = []
    async for event in connection:
        events.append(event)
        if event.type == kind:
            return events
    raise AssertionError(f"the socket closed before {kind}")


@pytest.mark.parametrize(
    ("form", "name"), [(ULAW, {"type": "audio/pcmu"}), (SLIN24, {"type": "audio/pcm", "rate": 24000})]
)
async def test_a_spoken_turn(form: Any, name: Any) -> None:
    async with EmulatorServer(dialogue, options=Options(speed=20)) as server, checked(server) as connection:
        await until(connection, "session.created")
        await connection.session.update(
            session={
                "type": "realtime",
                "instructions": "You are a clinic.\nCurrent state: reason\nWhy do you call?",
                "tools": TOOLS,
                "audio": {
                    "input": {
                        "format": name,
                        "transcription": {"model": "gpt-transcribe"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 200},
                    },
                    "output": {"format": name, "voice": "marin"},
                },
            }
        )
        await connection.response.create()
        greeting = await until(connection, "response.done")
        audio = b"".join(
            base64.b64decode(event.delta) for event in greeting if event.type == "response.output_audio.delta"
        )
        assert form.ms(len(audio)) == 50 * len("Why do you call?")

        speech = sound.tone(form, 800) + form.silence * (form.rate * 3 // 10)
        step = form.bytes_for(20)
        for start in range(0, len(speech), step):
            await connection.input_audio_buffer.append(
                audio=base64.b64encode(speech[start : start + step]).decode()
            )
        events = await until(connection, "response.done")
        kinds = [event.type for event in events]
        assert "input_audio_buffer.speech_started" in kinds
        transcripts = [
            event.transcript
            for event in events
            if event.type == "conversation.item.input_audio_transcription.completed"
        ]
        assert transcripts == ["a toothache"]
        [call] = [
            event.item
            for event in events
            if event.type == "response.output_item.done" and event.item.type == "function_call"
        ]
        assert (call.name, call.arguments) == ("move_to_state", '{"state":"day","value":"a toothache"}')

        await connection.session.update(
            session={"type": "realtime", "instructions": "Current state: day\nWhich day?", "tools": []}
        )
        await connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": cast(str, call.call_id), "output": '{"ok":true}'}
        )
        await connection.response.create()
        last = (await until(connection, "response.done"))[-1]
        assert last.type == "response.done"
        assert last.response.output is not None
        [item] = last.response.output
        assert item.type == "message"
        assert item.role == "assistant"
        assert item.content[0].transcript == "Which day?"
        assert last.response.usage is not None
        assert cast(int, last.response.usage.total_tokens) > 0
        await connection.conversation.item.truncate(
            item_id=cast(str, item.id), content_index=0, audio_end_ms=100
        )
        await until(connection, "conversation.item.truncated")
        session = server.session.session
        assert isinstance(session, OpenAISession)
        told = session.conversation.truncations
        assert [(cut.item_id, cut.audio_end_ms) for cut in told] == [(item.id, 100)]


async def test_every_client_event_of_the_sdk_is_taken() -> None:
    async with EmulatorServer(Script) as server, checked(server) as connection:
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}, event_id="e"
        )
        await connection.input_audio_buffer.append(audio=base64.b64encode(bytes(9600)).decode())
        await connection.input_audio_buffer.commit()
        await connection.input_audio_buffer.clear()
        await until(connection, "input_audio_buffer.cleared")
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "x"}],
                "id": "me",
            }
        )
        await connection.conversation.item.retrieve(item_id="me")
        await until(connection, "conversation.item.retrieved")
        await connection.conversation.item.delete(item_id="me")
        await until(connection, "conversation.item.deleted")
        await connection.response.create(response={"metadata": {"a": "b"}, "tool_choice": "none"})
        await connection.response.cancel()
        await until(connection, "response.done")
        await connection.output_audio_buffer.clear()
        last = (await until(connection, "error"))[-1]
        assert isinstance(last, RealtimeErrorEvent)


async def test_a_bad_key_is_an_error_event_and_a_close() -> None:
    async with EmulatorServer(dialogue, api_keys={"sk-good"}) as server:
        async with client(server, "sk-bad") as openai, openai.realtime.connect(model=MODEL) as connection:
            event = await connection.recv()
            assert isinstance(event, RealtimeErrorEvent)
            assert event.error.code == "invalid_api_key"
            with pytest.raises(ConnectionClosedError) as closed:
                await connection.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
            3000,
            "invalid_request_error.invalid_api_key",
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_beta_client_gets_the_beta() -> None:
    async def scenario(stage: Any) -> None:
        await stage.wait_for("session.update")
        await stage.say("Hello there", speed=20)

    async with EmulatorServer(lambda: Script(scenario), models=None, options=Options(beta=True)) as server:
        async with (
            client(server) as openai,
            openai.beta.realtime.connect(model="gpt-4o-realtime-preview") as connection,
        ):
            await connection.session.update(
                session={
                    "input_audio_format": "g711_ulaw",
                    "output_audio_format": "g711_ulaw",
                    "voice": "alloy",
                }
            )
            kinds = []
            async for event in connection:
                kinds.append(str(event.type))
                if event.type == "response.done":
                    break
            assert "response.audio.delta" in kinds
            assert "conversation.item.created" in kinds
        for frame in server.session.record.sent():
            assert_valid(frame, beta=True)


async def test_the_beta_client_is_refused_by_ga() -> None:
    async with (
        EmulatorServer(Script, models=None) as server,
        client(server) as openai,
        openai.beta.realtime.connect(model=MODEL) as connection,
    ):
        event = await connection.recv()
        assert event.type == "error"
        assert event.error.code == "beta_api_shape_disabled"
