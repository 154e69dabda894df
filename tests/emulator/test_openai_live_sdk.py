"""The official SDK holds spoken conversations with the Live emulator; every frame fits its types."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import numpy as np
import pytest
from live_oracle import PCMU, assert_valid_client, assert_valid_server
from openai import AsyncOpenAI
from openai.resources.live.live import AsyncLiveConnection
from openai.types.live import ErrorEvent, ServerEvent, SessionClosedEvent
from websockets.exceptions import ConnectionClosedError

from arivox.audio.format import ULAW
from arivox.audio.g711 import Pcm
from arivox.emulator import sound
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.brain import Brain
from arivox.emulator.dialogue import Dialogue
from arivox.emulator.openai_live import LiveOptions, LiveSession
from arivox.emulator.script import Script, Stage
from arivox.emulator.server import EmulatorServer

STATE = "You are a clinic.\nCurrent state: reason\nWhy do you call?"
DAY = "Current state: day\nWhich day?"
TOOL: Any = {
    "type": "function",
    "name": "move_to_state",
    "description": "Move on.",
    "parameters": {"properties": {"state": {"enum": ["day"]}, "value": {"type": "string"}}},
}
PACE_MS = 20


class Tongue:
    rate = 16000

    def say(self, text: str) -> Pcm:
        return np.full(16 * PACE_MS * len(text), 4000, np.int16)


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
async def checked(server: EmulatorServer) -> AsyncIterator[AsyncLiveConnection]:
    """Connect; at the end, hold every frame against the SDK's types."""
    async with client(server) as openai, openai.live.connect() as connection:
        yield connection
    for frame in server.session.record:
        if frame.sent:
            assert_valid_server(frame)
        else:
            assert_valid_client(frame.event)


async def until(
    connection: AsyncLiveConnection, met: Callable[[ServerEvent], bool], timeout: float = 10
) -> list[ServerEvent]:
    """Return what comes, up to the first event for which ``met`` holds."""
    events = []
    async with asyncio.timeout(timeout):
        async for event in connection:
            events.append(event)
            if met(event):
                return events
    raise AssertionError("the socket closed before it came")


def is_type(kind: str) -> Callable[[ServerEvent], bool]:
    return lambda event: event.type == kind


def is_nested(kind: str) -> Callable[[ServerEvent], bool]:
    return lambda event: event.type == "response.event" and event.event["type"] == kind


def said(text: str) -> Callable[[ServerEvent], bool]:
    """Return whether all the words of ``text`` have come since it was made."""
    heard = ""

    def met(event: ServerEvent) -> bool:
        nonlocal heard
        if event.type == "session.output_transcript.delta":
            heard += event.delta
        return heard.strip() == text

    return met


async def start(connection: AsyncLiveConnection) -> None:
    await connection.session.start(
        session={
            "model": "gpt-live-1",
            "instructions": STATE,
            "audio": {"format": cast(Any, PCMU), "output": {"voice": "marin"}},
            "delegation": {
                "type": "responses",
                "responses": {"model": "gpt-5.6-luna", "tools": [TOOL]},
            },
        }
    )
    await until(connection, is_type("session.started"))


async def speak(connection: AsyncLiveConnection, ms: int, silence_ms: int) -> None:
    speech = sound.tone(ULAW, ms) + ULAW.silence * ULAW.bytes_for(silence_ms)
    step = ULAW.bytes_for(20)
    for at in range(0, len(speech), step):
        audio = base64.b64encode(speech[at : at + step]).decode()
        await connection.session.input_audio.append(audio=audio)


def audio_of(events: list[ServerEvent]) -> bytes:
    return b"".join(
        base64.b64decode(event.delta) for event in events if event.type == "session.output_audio.delta"
    )


async def test_a_conversation_with_a_delegated_call() -> None:
    async with (
        EmulatorServer(dialogue, live=LiveOptions(usage_every=0.2)) as server,
        checked(server) as connection,
    ):
        assert server.live_url.endswith("/v1/live/sessions")
        await start(connection)
        await connection.session.instructions.append(
            content="Greet the caller now.", delegation_id=None, event_id="greet"
        )
        greeting = await until(connection, said("Why do you call?"))
        [ack] = [event for event in greeting if event.type == "session.instructions.appended"]
        assert ack.client_event_id == "greet"

        await speak(connection, 800, 700)
        events = await until(connection, is_nested("response.completed"))
        words = "".join(e.delta for e in events if e.type == "session.input_transcript.delta")
        assert words == "a toothache"
        [delegation] = [event.delegation for event in events if event.type == "session.delegation.created"]
        assert delegation.target == "responses"
        nested = [event for event in events if event.type == "response.event"]
        assert {event.delegation_id for event in nested} == {delegation.id}
        [item] = [
            cast(Any, event.event["item"])
            for event in nested
            if event.event["type"] == "response.output_item.done"
        ]
        assert (item["name"], item["arguments"]) == (
            "move_to_state",
            '{"state":"day","value":"a toothache"}',
        )

        await connection.session.update(
            session={"delegation": {"type": "responses", "responses": {"instructions": DAY, "tools": []}}}
        )
        await connection.response.item.create(
            item={"type": "function_call_output", "call_id": item["call_id"], "output": '{"ok":true}'}
        )
        await connection.response.create()
        answer = await until(connection, said("Which day?"))
        assert "session.updated" in [event.type for event in answer]
        spoken = audio_of(answer + await until(connection, is_type("session.usage.updated"))).strip(
            ULAW.silence
        )
        assert 0 < ULAW.ms(len(spoken)) <= PACE_MS * len("Which day?")

        await connection.session.close()
        [*_, closed] = await until(connection, is_type("session.closed"))
        assert isinstance(closed, SessionClosedEvent)
        assert closed.reason == "close_requested"
        record = server.session.record
        [began], [ended] = record.sent("session.started"), record.sent("session.closed")
        assert closed.usage.seconds == pytest.approx(ended.at - began.at, abs=0.1)
        assert [event async for event in connection] == []
    assert server.session.close_code == 1000


async def test_the_model_stops_when_it_is_interrupted() -> None:
    async with EmulatorServer(dialogue) as server, checked(server) as connection:
        await start(connection)
        text = 'Now read this to the caller. Say: "' + "one two three " * 30 + 'end."'
        await connection.session.instructions.append(content=text, delegation_id=None)
        events = await until(connection, is_type("session.output_transcript.delta"))
        session = server.session.session
        assert isinstance(session, LiveSession)
        [speech] = session.responses
        await speak(connection, 800, 700)
        events += await until(connection, is_type("session.input_transcript.delta"))
        assert speech.status == "cancelled"
        words = "".join(e.delta for e in events if e.type == "session.output_transcript.delta")
        assert words.startswith("one ")
        assert "end." not in words
        # It listened, and answers what was said meanwhile.
        await until(connection, is_nested("response.completed"))
        assert len(speech.spoken[0].audio) < ULAW.bytes_for(PACE_MS * 14 * 30)


async def test_every_client_event_of_the_sdk_is_taken() -> None:
    async with EmulatorServer(Script) as server, checked(server) as connection:
        await start(connection)
        await connection.session.input_audio.append(audio=base64.b64encode(bytes(160)).decode(), event_id="a")
        await connection.session.input_audio.mute()
        await until(connection, is_type("session.input_audio.muted"))
        await connection.session.input_audio.unmute()
        await until(connection, is_type("session.input_audio.unmuted"))
        await connection.session.thinking.append(content="x", delegation_id=None)
        await until(connection, is_type("session.thinking.appended"))
        await connection.session.commentary.append(content="x", delegation_id=None)
        await until(connection, is_type("session.commentary.appended"))
        clip = base64.b64encode(bytes(4800)).decode()
        await connection.session.output_audio.fixture.play(audio=clip)
        events = await until(connection, is_type("session.output_audio.fixture.played"))
        assert "session.output_audio.fixture.playing" in [event.type for event in events]
        await connection.response.item.create(item={"role": "user", "content": "x"})
        await connection.response.create()
        await until(connection, is_nested("response.completed"))
        await connection.decision.create(event_id="d")
        [*_, refused] = await until(connection, is_type("error"))
        assert isinstance(refused, ErrorEvent)
        assert refused.error.client_event_id == "d"


async def test_a_script_plays_on_a_live_session() -> None:
    heard: list[dict[str, Any]] = []

    async def scenario(stage: Stage) -> None:
        await stage.wait_for("session.start")
        heard.append(await stage.wait_for("session.instructions.append"))
        await stage.say("Good morning.", speed=10, end=False)
        await stage.call("move_to_state", {"state": "day"})
        heard.append(await stage.wait_for("response.item.create"))
        await stage.speech_started()
        await stage.speech_stopped("a toothache")

    async with EmulatorServer(lambda: Script(scenario)) as server, checked(server) as connection:
        await start(connection)
        await connection.session.instructions.append(content="Greet now.", delegation_id=None)
        events = await until(connection, is_nested("response.output_item.done"))
        words = "".join(e.delta for e in events if e.type == "session.output_transcript.delta")
        assert words == "Good morning."
        item = cast(Any, events[-1]).event["item"]
        await connection.response.item.create(
            item={"type": "function_call_output", "call_id": item["call_id"], "output": "{}"}
        )
        await until(connection, is_type("session.input_transcript.delta"))
        await cast(Script, server.session.behaviour).finished()
        assert [event["type"] for event in heard] == ["session.instructions.append", "response.item.create"]


async def test_a_bad_key_is_an_error_event_and_a_close() -> None:
    async with EmulatorServer(dialogue, api_keys={"sk-good"}) as server:
        async with client(server, "sk-bad") as openai, openai.live.connect() as connection:
            event = await connection.recv()
            assert isinstance(event, ErrorEvent)
            assert event.error.code == "invalid_api_key"
            with pytest.raises(ConnectionClosedError) as closed:
                await connection.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
            3000,
            "invalid_request_error.invalid_api_key",
        )


async def test_an_unknown_model_is_an_error_event_and_a_close() -> None:
    async with EmulatorServer(dialogue) as server, client(server) as openai:
        async with openai.live.connect() as connection:
            await connection.session.start(session={"model": "gpt-realtime-2.1"})
            event = await connection.recv()
            assert isinstance(event, ErrorEvent)
            assert (event.error.code, event.error.param) == ("invalid_model", "session.model")
            with pytest.raises(ConnectionClosedError) as closed:
                await connection.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
            4000,
            "invalid_request_error.invalid_model",
        )
