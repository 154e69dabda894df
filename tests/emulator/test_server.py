"""Sockets: scripts with their faults, the echo, the talker; on both event loops."""

import asyncio
import base64
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
import uvloop
from oracle import assert_valid, assert_valid_client
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from arivox.audio.format import ALAW, SLIN24, ULAW
from arivox.emulator import sound
from arivox.emulator.echo import Echo, Talker
from arivox.emulator.openai import Options
from arivox.emulator.script import Script, Spoken, Stage, in_turn
from arivox.emulator.server import EmulatorServer

MODEL = "?model=gpt-realtime-2.1"
UPDATE = {
    "type": "session.update",
    "session": {
        "type": "realtime",
        "audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}},
    },
}
Scenario = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    runner: Callable[[Coroutine[Any, Any, None]], None] = request.param
    return runner


async def tell(socket: Any, event: dict[str, Any]) -> None:
    assert_valid_client(event)
    await socket.send(msgspec.json.encode(event).decode())


async def until(socket: Any, kind: str) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = msgspec.json.decode(await asyncio.wait_for(socket.recv(), 5))
        assert_valid(event)
        if event["type"] == kind:
            return event


def append(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}


def test_a_script_plays_and_the_record_is_its_witness(run: Callable[..., None]) -> None:
    said: list[Spoken | None] = []

    async def scenario(stage: Stage) -> None:
        await stage.wait_for("session.update")
        await stage.wait_for("response.create")
        said.append(await stage.say("Good morning.", speed=10))
        await stage.speech_started()
        await stage.speech_stopped()
        await stage.call("f", {"a": 1})
        await stage.fail()

    async def main() -> None:
        async with EmulatorServer(lambda: Script(scenario)) as server, connect(server.url + MODEL) as socket:
            connection = await server.wait_session()
            await until(socket, "session.created")
            before = time.monotonic()
            await tell(socket, UPDATE)
            await tell(socket, {"type": "response.create"})
            await until(socket, "response.done")
            await until(socket, "response.function_call_arguments.done")
            await until(socket, "response.done")
            failed = await until(socket, "response.done")
            assert failed["response"]["status"] == "failed"
            [spoken] = said
            assert spoken is not None
            assert spoken.audio == sound.marks(ULAW, 13 * 60)
            assert before < spoken.first_at < spoken.last_at < time.monotonic()
            assert [frame.kind for frame in connection.record.received()] == [
                "session.update",
                "response.create",
            ]
            deltas = connection.record.sent("response.output_audio.delta")
            assert b"".join(base64.b64decode(frame.event["delta"]) for frame in deltas) == spoken.audio
            stage = connection.behaviour.stage  # type: ignore[attr-defined]
            assert [step.name for step in stage.done] == [
                "say",
                "speech_started",
                "speech_stopped",
                "call",
                "fail",
            ]
        assert connection.ended.is_set()
        assert connection.close_code == 1000

    run(main())


async def test_waiting_twice_waits_for_two_events() -> None:
    got: list[str] = []

    async def scenario(stage: Stage) -> None:
        for _ in range(2):
            event = await stage.wait_for("conversation.item.delete")
            got.append(event["item_id"])

    async with EmulatorServer(lambda: Script(scenario)) as server, connect(server.url + MODEL) as socket:
        await until(socket, "session.created")
        for item_id in ("a", "b"):
            await tell(socket, {"type": "conversation.item.delete", "item_id": item_id})
        await server.session.behaviour.finished()  # type: ignore[attr-defined]
        assert got == ["a", "b"]


def test_a_step_that_fails_fails_the_test(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with (
            EmulatorServer(lambda: Script(lambda s: s.wait_for("response.create", 0.01))) as server,
            connect(server.url + MODEL) as socket,
        ):
            await until(socket, "session.created")
            script = (await server.wait_session()).behaviour
            with contextlib.suppress(TimeoutError):
                await script.finished()  # type: ignore[attr-defined]

    with pytest.raises(TimeoutError, match="sent no response"):
        run(main())


@pytest.mark.parametrize(
    ("query", "headers", "code", "close"),
    [
        (MODEL, {"Authorization": "Bearer wrong"}, "invalid_api_key", 3000),
        (MODEL, {}, "invalid_api_key", 3000),
        ("", {"Authorization": "Bearer right"}, "missing_model", 4000),
        ("?model=gpt-5", {"Authorization": "Bearer right"}, "invalid_model", 4000),
        (
            MODEL,
            {"Authorization": "Bearer right", "OpenAI-Beta": "realtime=v1"},
            "beta_api_shape_disabled",
            4000,
        ),
    ],
)
async def test_who_is_not_admitted_gets_an_error_and_a_close(
    query: str, headers: dict[str, str], code: str, close: int
) -> None:
    async with EmulatorServer(Echo, api_keys={"right"}) as server:
        async with connect(server.url + query, additional_headers=headers) as socket:
            event = await until(socket, "error")
            assert event["error"]["code"] == code
            assert "right" not in event["error"]["message"]
            assert "wrong" not in event["error"]["message"]
            with pytest.raises(ConnectionClosedError) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (close, f"invalid_request_error.{code}")
        assert len(server.session.record.frames) == 1


async def test_a_key_may_come_as_a_subprotocol() -> None:
    async with EmulatorServer(Echo, api_keys={"right"}) as server:
        protocols = ["realtime", "openai-insecure-api-key.right"]
        async with connect(server.url + MODEL, subprotocols=protocols) as socket:  # type: ignore[arg-type]
            assert socket.subprotocol == "realtime"
            await until(socket, "session.created")


async def test_other_paths_do_not_exist() -> None:
    async with EmulatorServer(Echo) as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{server.port}/v1/other")
        assert refused.value.response.status_code == 404


async def test_the_upgrade_can_be_refused_and_the_next_one_taken() -> None:
    async with EmulatorServer(in_turn(Script(http_status=401), Script())) as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.url + MODEL)
        assert refused.value.response.status_code == 401
        async with connect(server.url + MODEL) as socket:
            await until(socket, "session.created")
        with pytest.raises(InvalidStatus):
            await connect(server.url + MODEL)
        assert (server.refused, len(server.sessions)) == (2, 1)


def test_the_handshake_can_be_late(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with EmulatorServer(Echo, handshake_delay=0.3) as server:
            began = time.monotonic()
            async with connect(server.url + MODEL):
                assert 0.25 < time.monotonic() - began < 2
        async with EmulatorServer(Echo, handshake_delay=60) as server:
            with pytest.raises(TimeoutError):
                await connect(server.url + MODEL, open_timeout=0.2)

    run(main())


async def test_session_created_can_be_late_or_never() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.wait_for("session.update")
        await stage.created()

    async with (
        EmulatorServer(lambda: Script(scenario, greets=False)) as server,
        connect(server.url + MODEL) as socket,
    ):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.1)
        await tell(socket, UPDATE)
        await until(socket, "session.created")


async def test_error_first_then_close() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.error("insufficient_quota", "You have no money.", "insufficient_quota")
        await stage.close(4000, "insufficient_quota.insufficient_quota")

    async with (
        EmulatorServer(lambda: Script(scenario, greets=False)) as server,
        connect(server.url + MODEL) as socket,
    ):
        assert (await until(socket, "error"))["error"]["code"] == "insufficient_quota"
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4000


def test_the_connection_can_be_reset(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with EmulatorServer(lambda: Script(lambda s: s.abort())) as server:
            with pytest.raises((ConnectionClosedError, ConnectionResetError, OSError)) as lost:
                async with connect(server.url + MODEL) as socket:
                    await until(socket, "response.done")
            if isinstance(lost.value, ConnectionClosedError):
                assert lost.value.rcvd is None
            await server.session.ended.wait()

    run(main())


async def test_a_stalled_service_sends_nothing_until_it_goes_on() -> None:
    go_on = asyncio.Event()

    async def scenario(stage: Stage) -> None:
        await stage.stall()
        await stage.say("Hello", speed=float("inf"))
        await go_on.wait()
        await stage.resume()

    async with EmulatorServer(lambda: Script(scenario)) as server, connect(server.url + MODEL) as socket:
        await until(socket, "session.created")
        await server.session.record.wait("response.done", sent=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.1)
        go_on.set()
        await until(socket, "response.done")


def test_a_service_that_does_not_read_blocks_its_client(run: Callable[..., None]) -> None:
    async def main() -> None:
        async with (
            EmulatorServer(lambda: Script(lambda s: s.stop_reading())) as server,
            connect(server.url + MODEL, close_timeout=0.1) as socket,
        ):
            await until(socket, "session.created")
            connection = await server.wait_session()
            frame = append(bytes(1_000_000))

            async def flood() -> None:
                for _ in range(100):
                    await tell(socket, frame)

            with pytest.raises(TimeoutError):
                await asyncio.wait_for(flood(), 1)
            stuck = connection.record.received_count["input_audio_buffer.append"]
            connection.resume_reading()
            await connection.record.until(
                lambda: connection.record.received_count["input_audio_buffer.append"] > stuck
            )

    run(main())


async def test_raw_frames_go_out_as_they_are() -> None:
    async with (
        EmulatorServer(lambda: Script(lambda s: s.send(b"{broken"), lambda s: s.rate_limits(7))) as server,
        connect(server.url + MODEL) as socket,
    ):
        await until(socket, "session.created")
        assert await socket.recv() == "{broken"
        assert (await until(socket, "rate_limits.updated"))["rate_limits"][0]["remaining"] == 7


async def test_response_create_can_be_ignored() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.wait_for("response.create")
        await stage.error("server_error", "Not now.", "server_error")

    async with (
        EmulatorServer(lambda: Script(scenario, answers=False)) as server,
        connect(server.url + MODEL) as socket,
    ):
        await tell(socket, {"type": "response.create"})
        await until(socket, "error")
        assert server.session.record.sent("response.created") == []


async def test_a_message_in_fragments_and_a_binary_one() -> None:
    async with EmulatorServer(Script) as server, connect(server.url + MODEL) as socket:
        text = msgspec.json.encode(UPDATE).decode()
        await socket.send([text[:10], text[10:50], text[50:]])
        await until(socket, "session.updated")
        await socket.send(text.encode())
        assert (await until(socket, "error"))["error"]["code"] == "invalid_event"


def test_the_echo_returns_every_byte(run: Callable[..., None]) -> None:
    async def main() -> None:
        audio = sound.marks(ULAW, 2000)
        async with EmulatorServer(Echo) as server, connect(server.url + MODEL) as socket:
            await tell(socket, UPDATE)
            for start in range(0, len(audio), 160):
                await tell(socket, append(audio[start : start + 160]))
            back = b""
            while len(back) < len(audio):
                delta = await until(socket, "response.output_audio.delta")
                assert len(base64.b64decode(delta["delta"])) == 160
                back += base64.b64decode(delta["delta"])
            assert back == audio
            assert bytes(server.session.record.audio_received) == audio
            assert len(server.session.session.responses) == 1

    run(main())


async def test_the_echo_can_join_appends_and_convert() -> None:
    async with EmulatorServer(lambda: Echo(group=5)) as server, connect(server.url + MODEL) as socket:
        audio = {"input": {"format": {"type": "audio/pcma"}}}
        await tell(socket, {"type": "session.update", "session": {"type": "realtime", "audio": audio}})
        await tell(socket, {"type": "response.create"})
        for start in range(0, 800, 160):
            await tell(socket, append(sound.tone(ALAW, 100)[start : start + 160]))
        delta = await until(socket, "response.output_audio.delta")
        assert SLIN24.ms(len(base64.b64decode(delta["delta"]))) == 100


async def test_a_record_without_audio_counts_it() -> None:
    async with EmulatorServer(Echo, keep_audio=False) as server, connect(server.url + MODEL) as socket:
        for _ in range(10):
            await tell(socket, append(bytes(960)))
        for _ in range(10):
            await until(socket, "response.output_audio.delta")
        record = server.session.record
        assert record.received() == []
        assert not record.audio_received
        assert record.received_count["input_audio_buffer.append"] == 10
        assert record.sent_count["response.output_audio.delta"] == 10


def test_the_talker_keeps_its_pace(run: Callable[..., None]) -> None:
    async def main() -> None:
        talker = {"speed": 5.0, "chunk_ms": 50, "limit_ms": 2000}
        async with EmulatorServer(lambda: Talker(**talker, marked=True)) as server:  # type: ignore[arg-type]
            async with connect(server.url + MODEL) as socket:
                await tell(socket, UPDATE)
                await until(socket, "response.done")
            deltas = server.session.record.sent("response.output_audio.delta")
            audio = b"".join(base64.b64decode(frame.event["delta"]) for frame in deltas)
            assert audio == sound.marks(ULAW, 2000)
            assert len(deltas) == 40
            assert deltas[-1].at - deltas[0].at > 0.38, "2 s at five times their speed, less one piece"

    run(main())


async def test_a_client_that_leaves_ends_its_session() -> None:
    async with EmulatorServer(Talker) as server:
        socket = await connect(server.url + MODEL)
        await tell(socket, UPDATE)
        await until(socket, "response.output_audio.delta")
        await socket.close(4001, "enough")
        connection = server.session
        await asyncio.wait_for(connection.ended.wait(), 5)
        assert (connection.close_code, connection.close_reason) == (4001, "enough")
        assert connection.session.closed


async def test_an_expired_session_is_closed() -> None:
    async with (
        EmulatorServer(Script, options=Options(expires_after=0.05)) as server,
        connect(server.url + MODEL) as socket,
    ):
        assert (await until(socket, "error"))["error"]["code"] == "session_expired"
        await asyncio.wait_for(socket.wait_closed(), 5)
        assert socket.close_code == 1001
