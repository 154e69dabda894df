"""A session with OpenAI Realtime against the emulated service: no call, no Asterisk."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
from heard import Heard

from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.emulator import sound
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.openai import Options
from arivox.emulator.record import Record
from arivox.emulator.script import Script, Stage, in_turn
from arivox.emulator.server import EmulatorServer
from arivox.errors import ProviderError
from arivox.media.playout import Cut
from arivox.providers.base import (
    AgentAudio,
    AgentAudioDone,
    AgentText,
    AlreadyAnswering,
    Brief,
    CallerText,
    Fault,
    ProviderEvent,
    ResponseDone,
    ResponseStarted,
    SessionExpires,
    SpeechStarted,
    SpeechStopped,
    Tool,
    ToolCall,
)
from arivox.providers.openai.session import OpenAISession
from arivox.providers.opening import expiry
from arivox.settings.settings import Settings

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
BRIEF = Brief("You are a test.", (Tool("look", "Look."),))
FRAME = bytes(range(160))


@dataclass
class Line(Heard):
    """A session, the events it reported, and the service at its other end."""

    session: OpenAISession
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

    def told(self) -> list[str]:
        """Return the types of all that the client sent, but for the audio."""
        return [f.kind for f in self.record.received() if f.kind != "input_audio_buffer.append"]


@asynccontextmanager
async def line(
    behaviour: Callable[[], Behaviour] = Script,
    *,
    audio: AudioFormat = ULAW,
    emulator: dict[str, Any] | None = None,
    connect: bool = True,
    **settings: Any,
) -> AsyncIterator[Line]:
    """Yield a session; at the end it is closed and neither task nor connection may be left."""
    before = asyncio.all_tasks()
    async with EmulatorServer(behaviour, **(emulator or {})) as server:
        values = {"openai_realtime_url": server.url, "openai_api_key": "sk-secret", **settings}
        events: list[ProviderEvent] = []
        session = OpenAISession(Settings(**values), audio, events.append)
        made = Line(session, server, events)
        try:
            if connect:
                await session.connect(BRIEF)
                await made.record.wait("session.updated", sent=True)
            yield made
        finally:
            await session.close()
        for connection in server.sessions:
            async with asyncio.timeout(3):
                await connection.ended.wait()
    deadline = time.monotonic() + 2
    while left := asyncio.all_tasks() - before:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.002)


def pcm_of(event: dict[str, Any]) -> bytes:
    return base64.b64decode(event["delta"])


# --- opening ---


@BOTH_LOOPS
@pytest.mark.parametrize(("audio", "wire"), [(ULAW, "audio/pcmu"), (ALAW, "audio/pcma")])
async def test_session_is_configured_before_anything_else(audio: AudioFormat, wire: str) -> None:
    async with line(audio=audio, connect=False, openai_language="de") as made:
        made.session.send_audio(FRAME)
        made.session.speak("Say hello.")
        await made.session.connect(BRIEF)
        await made.record.wait("response.create")
        first, second, third = made.record.received()[:3]
        assert (first.kind, second.kind) == ("session.update", "input_audio_buffer.append")
        assert third.event["response"]["instructions"] == "Say hello."
        session = first.event["session"]
        assert session["type"] == "realtime"
        assert session["instructions"] == "You are a test."
        assert [tool["name"] for tool in session["tools"]] == ["look"]
        assert session["audio"]["input"]["format"] == {"type": wire}
        assert session["audio"]["output"]["format"] == {"type": wire}
        assert session["audio"]["input"]["transcription"]["language"] == "de"
        assert made.record.sent("error") == []
        assert made.server.session.headers["authorization"] == "Bearer sk-secret"
        assert "sk-secret" not in made.server.session.path


async def test_beta_dialect_is_spoken_and_understood() -> None:
    async with line(emulator={"options": Options(beta=True)}, openai_dialect="beta") as made:
        made.session.speak()
        await made.record.wait("response.create")
        await made.stage.say("Hello.", speed=float("inf"))
        await made.until(ResponseDone)
        session = made.record.received("session.update")[0].event["session"]
        assert session["input_audio_format"] == "g711_ulaw"
        assert "type" not in session
        assert b"".join(event.data for event in made.of(AgentAudio)) == made.stage.speech("Hello.")
        assert made.of(AgentText)[0].text == "Hello."
        assert made.record.sent("error") == []


async def test_audio_before_the_session_is_kept_in_order_for_five_seconds() -> None:
    async with line(connect=False) as made:
        frames = [bytes([number % 256, number // 256]) * 80 for number in range(300)]
        for frame in frames:
            made.session.send_audio(frame)
        assert made.session.counters.uplink_dropped_frames == 50
        await made.session.connect(BRIEF)
        made.session.send_audio(FRAME)
        await made.record.wait("input_audio_buffer.append", count=2)
        assert bytes(made.record.audio_received) == b"".join([*frames[50:], FRAME])
        assert made.session.counters.audio_out_frames == 251


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "wrong key": ({"emulator": {"api_keys": {"sk-other"}}}, "invalid_api_key"),
    "unknown model": ({"openai_model": "gpt-parrot"}, "invalid_model"),
    "beta that is no more": ({"openai_dialect": "beta"}, "beta_api_shape_disabled"),
    "HTTP 401": ({"behaviour": lambda: Script(http_status=401)}, "401"),
    "HTTP 403": ({"behaviour": lambda: Script(http_status=403)}, "403"),
    "HTTP 404": ({"behaviour": lambda: Script(http_status=404)}, "404"),
}


@BOTH_LOOPS
@pytest.mark.parametrize("case", REFUSALS)
async def test_refusal_that_will_not_change_is_told_at_once(case: str) -> None:
    options, code = REFUSALS[case]
    async with line(connect=False, **options) as made:
        begun = time.monotonic()
        with pytest.raises(ProviderError) as caught:
            await made.session.connect(BRIEF)
        assert time.monotonic() - begun < 1
        assert (caught.value.code, caught.value.fatal) == (code, True)
        assert "sk-secret" not in f"{caught.value!r} {caught.value}"
        assert len(made.server.sessions) + made.server.refused == 1


async def test_refusal_is_told_once() -> None:
    async with line(connect=False, emulator={"api_keys": {"sk-other"}}) as made:
        with pytest.raises(ProviderError):
            await made.session.connect(BRIEF)
        await made.server.session.ended.wait()
        assert made.events == []


async def test_server_that_is_busy_is_asked_again() -> None:
    behaviours = in_turn(Script(http_status=503), Script(http_status=429), Script())
    with structlog.testing.capture_logs() as logs:
        async with line(behaviours) as made:
            assert made.server.refused == 2
            made.session.send_audio(FRAME)
            await made.record.wait("input_audio_buffer.append")
    assert [entry["log_level"] for entry in logs] == ["warning", "warning"]


@BOTH_LOOPS
@pytest.mark.parametrize("case", ["no handshake", "no session.created"])
async def test_server_that_does_not_answer_is_given_up(case: str) -> None:
    options: dict[str, Any] = (
        {"emulator": {"handshake_delay": 30.0}}
        if case == "no handshake"
        else {"behaviour": lambda: Script(greets=False)}
    )
    async with line(connect=False, provider_connect_timeout_s=0.5, **options) as made:
        begun = time.monotonic()
        with pytest.raises(ProviderError) as caught:
            await made.session.connect(BRIEF)
        assert caught.value.code == "timeout"
        assert 0.4 < time.monotonic() - begun < 1.5


@BOTH_LOOPS
@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.005, 0.05])
@pytest.mark.parametrize("greets", [True, False])
async def test_connect_that_is_cancelled_leaves_nothing(after_s: float, greets: bool) -> None:
    async with line(lambda: Script(greets=greets), connect=False) as made:
        connecting = asyncio.create_task(made.session.connect(BRIEF))
        await asyncio.sleep(after_s)
        connecting.cancel()
        await asyncio.wait([connecting])


async def test_nothing_listens() -> None:
    async with line(connect=False, provider_connect_timeout_s=0.6) as made:
        url = made.server.url
    settings = Settings(openai_realtime_url=url, provider_connect_timeout_s=0.6)
    session = OpenAISession(settings, ULAW, lambda _: None)
    with pytest.raises(ProviderError, match=r"no session within 0\.6 s; last: cannot connect"):
        await session.connect(BRIEF)


# --- answers ---


async def test_answer_arrives_as_events_in_order() -> None:
    async with line() as made:
        made.session.speak()
        await made.record.wait("response.create")
        spoken = await made.stage.say("Good morning.", speed=float("inf"))
        assert spoken is not None
        done = await made.until(ResponseDone)
        assert done == ResponseDone("completed")
        kinds = [type(event) for event in made.events if not isinstance(event, SessionExpires)]
        assert kinds[0] is ResponseStarted
        assert kinds[-1] is ResponseDone
        assert {event.item_id for event in made.of(AgentAudio)} == {spoken.item_id}
        assert b"".join(event.data for event in made.of(AgentAudio)) == spoken.audio
        assert made.of(AgentAudioDone) == [AgentAudioDone(spoken.item_id)]
        assert made.of(AgentText) == [AgentText(spoken.item_id, "Good morning.")]
        assert made.session.counters.audio_in_ms == ULAW.ms(len(spoken.audio))
        assert made.session.counters.usage["total_tokens"] > 0


@pytest.mark.parametrize("size", [1, 7, 480, 4801])
async def test_24_khz_in_pieces_of_any_size_is_the_same_sound(size: int) -> None:
    async with line(openai_audio_format="pcm") as made:
        made.session.speak()
        await made.record.wait("response.create")
        audio = sound.tone(made.stage.session.output_format, 200, 1000)
        whole = audio[: len(audio) // size * size] if size % 2 else audio
        await made.stage.say(whole, sizes=[size], speed=float("inf"))
        await made.until(AgentAudioDone)
        heard = b"".join(event.data for event in made.of(AgentAudio))
        assert len(heard) == pytest.approx(len(whole) / 6, abs=1)
        pcm = sound.decode(heard, ULAW)[40:]
        assert 6500 < int(abs(pcm).max()) < 11500
        crossings = int(((pcm[:-1] < 0) & (pcm[1:] >= 0)).sum())
        assert crossings == pytest.approx(len(pcm) / 8, abs=2), "1000 Hz, and no noise"


async def test_events_of_the_caller() -> None:
    async with line() as made:
        await made.stage.speech_started()
        await made.stage.speech_stopped("I am here. ")
        await made.until(CallerText)
        kinds = [type(event) for event in made.events]
        assert kinds.index(SpeechStarted) < kinds.index(SpeechStopped)
        assert made.of(CallerText)[0].text == "I am here."


async def test_only_one_answer_at_a_time_is_asked_for() -> None:
    async with line() as made:
        for number in range(3):
            made.session.speak(f"Say {number}.")
        for number in range(3):
            asked = await made.record.wait("response.create", count=number + 1)
            assert asked.event["response"]["instructions"] == f"Say {number}."
            assert made.session.busy
            await made.stage.wait_audio(0)
            assert made.record.received_count["response.create"] == number + 1
            await made.stage.say("Done.", speed=float("inf"))
            await made.until(ResponseDone, number + 1)
        assert not made.session.busy
        assert made.record.sent("error") == []


async def test_request_that_meets_an_answer_of_the_server_is_made_again() -> None:
    """Server VAD may begin an answer at the same moment: the request is refused, but must not be lost."""
    async with line() as made:
        made.stage.session.create_response()  # its response.created is on the way to the client
        made.session.speak("Say good-bye.")
        await made.record.wait("error", sent=True)
        await made.until(ResponseStarted)
        await made.stage.end()
        again = await made.record.wait("response.create", count=2, timeout=2)
        assert again.event["response"]["instructions"] == "Say good-bye."


async def test_failed_answer_says_why() -> None:
    async with line() as made:
        made.session.speak()
        await made.record.wait("response.create")
        await made.stage.fail("rate_limit_exceeded", "Rate limit reached.")
        done = await made.until(ResponseDone)
        assert done.status == "failed"
        assert done.error is not None
        assert (done.error.code, done.error.fatal) == ("rate_limit_exceeded", False)


async def test_answer_that_fails_with_its_session_is_the_end_of_the_session_alone() -> None:
    async with line() as made:
        made.session.speak()
        await made.record.wait("response.create")
        await made.stage.fail("session_expired", "Your session hit the maximum duration of 60 minutes.")
        error = (await made.until(Fault)).error
        assert error.lost
        assert made.of(ResponseDone) == []


async def test_service_that_is_at_an_answer_already_can_be_told_to_stop() -> None:
    """It has not told of the answer, and does not name it before it is over."""
    async with line() as made:
        await made.stage.error("conversation_already_has_active_response", "There is one.")
        await made.until(AlreadyAnswering)
        assert made.session.busy
        made.session.interrupt([], cancel=True)
        await made.record.wait("response.cancel")
        response = {"id": "resp_other", "status": "cancelled"}
        await made.stage.send({"type": "response.done", "response": response})
        await made.until(ResponseDone)
        assert not made.session.busy


async def test_tool_of_an_answer_whose_beginning_was_not_told_runs() -> None:
    async with line() as made:
        call = {"type": "function_call", "status": "completed", "name": "look", "call_id": "a"}
        item = {"type": "response.output_item.done", "response_id": "resp_1", "item": call}
        await made.stage.send(item)
        await made.stage.send({"type": "response.done", "response": {"id": "resp_1", "status": "completed"}})
        assert (await made.until(ToolCall)).call_id == "a"


async def test_words_of_the_caller_are_no_sign_of_an_answer() -> None:
    async with line() as made:
        await made.until(SessionExpires)
        before = made.session.counters.messages_in
        kind = "conversation.item.input_audio_transcription.completed"
        await made.stage.send({"type": kind, "item_id": "a", "content_index": 0, "transcript": "Yes."})
        await made.until(CallerText)
        assert made.session.counters.messages_in == before


@pytest.mark.parametrize("audio_format", ["auto", "pcm"])
async def test_interrupted_answer_is_heard_no_more(audio_format: str) -> None:
    async with line(openai_audio_format=audio_format) as made:
        made.session.speak()
        await made.record.wait("response.create")
        await made.stage.say(b"\x10" * 96000, sizes=[4800], speed=2, wait=False)
        response = made.stage.session.active
        assert response is not None
        first = await made.until(AgentAudio)
        made.session.interrupt([Cut(first.item_id, 20, 100), Cut("item_unheard", 0, 50)], cancel=True)
        heard = len(made.of(AgentAudio))
        await made.record.wait("conversation.item.truncate")
        done = await made.until(ResponseDone)
        assert done.status == "cancelled"
        assert made.told()[2:] == [
            "response.cancel",
            "conversation.item.truncate",
            "conversation.item.delete",
        ]
        assert made.record.received("conversation.item.truncate")[0].event["audio_end_ms"] == 20
        assert len(made.of(AgentAudio)) == heard
        made.session.speak()
        await made.record.wait("response.create", count=2)
        await made.stage.say(b"\x10" * 9600, speed=float("inf"))
        await made.until(ResponseDone, 2)
        assert len(made.of(AgentAudio)) > heard


async def test_late_audio_is_counted() -> None:
    async with line() as made:
        made.session.speak()
        await made.record.wait("response.create")
        await made.stage.say(b"\x10" * 800, sizes=[800], end=False)
        await made.until(AgentAudio)
        made.session.interrupt([])
        await made.stage.say(b"\x10" * 1600, sizes=[800])
        await made.until(ResponseDone)
        assert len(made.of(AgentAudio)) == 1
        assert made.session.counters.late_audio_ms == 200


# --- tools ---


async def test_tools_are_called_and_answered() -> None:
    async with line() as made:
        made.session.speak()
        await made.record.wait("response.create")
        first = await made.stage.call("look", {"where": "up"}, end=False)
        second = await made.stage.call("look", "{", end=False)
        assert made.of(ToolCall) == [], "the answer may still be cut off"
        await made.stage.end()
        await made.until(ToolCall, 2)
        assert made.of(ToolCall)[0] == ToolCall(first, "look", '{"where":"up"}')
        assert made.of(ToolCall)[1].arguments == "{"
        made.session.tool_result(first, "sky")
        await made.record.wait("conversation.item.create")
        assert made.record.received_count["response.create"] == 1
        made.session.tool_result(second, "error", answer=False)
        await made.record.wait("response.create", count=2)
        outputs = [f.event["item"] for f in made.record.received("conversation.item.create")]
        assert [(item["call_id"], item["output"]) for item in outputs] == [(first, "sky"), (second, "error")]
        assert made.session.busy


async def test_tool_without_an_answer_leaves_the_agent_silent() -> None:
    async with line() as made:
        made.session.speak()
        await made.record.wait("response.create")
        call_id = await made.stage.call("look", {})
        await made.until(ResponseDone)
        made.session.tool_result(call_id, "ok", answer=False)
        await made.record.wait("conversation.item.create")
        assert not made.session.busy
        assert made.record.received_count["response.create"] == 1


async def test_brief_is_updated_alone() -> None:
    async with line() as made:
        made.session.update(Brief("Now you are another."))
        update = await made.record.wait("session.update", count=2)
        assert update.event["session"] == {
            "type": "realtime",
            "instructions": "Now you are another.",
            "tools": [],
            "tool_choice": "auto",
        }
        assert made.record.sent("error") == []


# --- ends ---


async def expire(stage: Stage) -> None:
    await stage.error("session_expired", "Your session hit the maximum duration of 60 minutes.")


@BOTH_LOOPS
@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda stage: stage.abort(), "1006"),
        (lambda stage: stage.close(1011, "internal error"), "1011"),
        (lambda stage: stage.close(1000), "1000"),
        (lambda stage: stage.close(4000, "invalid_request_error.session_expired"), "session_expired"),
        (expire, "session_expired"),
    ],
    ids=["reset", "1011", "1000", "4000", "session_expired"],
)
async def test_end_by_the_server_is_a_fault(end: Callable[[Stage], Any], code: str) -> None:
    async with line() as made:
        await end(made.stage)
        fault = await made.until(Fault)
        assert (fault.error.code, fault.error.fatal) == (code, True)
        made.session.send_audio(FRAME)
        made.session.speak()
        made.session.update(BRIEF)
        made.session.interrupt([Cut("item", 1, 1)], cancel=True)
        assert len(made.of(Fault)) == 1


async def test_end_of_the_session_is_known_from_its_start() -> None:
    async with line(emulator={"options": Options(expires_after=600)}) as made:
        made.session.update(Brief("Now a poet."))
        await made.record.wait("session.updated", sent=True, count=2)
        await made.until(SessionExpires)
        (expires,) = made.of(SessionExpires)
        assert expires.seconds == pytest.approx(600, abs=2)


@pytest.mark.parametrize("expires_at", [None, 0, 17, "soon", {}, float("nan")])
def test_end_that_cannot_be_true_ends_nothing(expires_at: object) -> None:
    """It is missing, or the clock is wrong here."""
    assert expiry(expires_at) is None


async def test_error_that_leaves_the_session_open() -> None:
    async with line() as made:
        await made.stage.error("server_error", "The server had an error.", "server_error")
        fault = await made.until(Fault)
        assert not fault.error.fatal
        made.session.speak()
        await made.record.wait("response.create")


async def test_races_are_not_reported() -> None:
    async with line() as made:
        for code in ("response_cancel_not_active", "item_truncate_invalid_item_id"):
            await made.stage.error(code, "Too late.")
        made.session.speak()
        await made.record.wait("response.create")
        await made.stage.say("Hello.", speed=float("inf"))
        await made.until(ResponseDone)
        assert made.of(Fault) == []


@BOTH_LOOPS
async def test_close_tells_the_server_and_nobody_else() -> None:
    async with line() as made:
        await made.session.close()
        await made.session.close()
        async with asyncio.timeout(2):
            await made.server.session.ended.wait()
        assert made.server.session.close_code == 1000
        made.session.send_audio(FRAME)
        made.session.speak()
        assert [event for event in made.events if not isinstance(event, SessionExpires)] == []


async def test_key_is_in_no_log() -> None:
    with structlog.testing.capture_logs() as logs:
        async with line(log_level="debug") as made:
            made.session.speak()
            await made.record.wait("response.create")
            await made.stage.say("Hello.", speed=float("inf"))
            made.session.send_audio(FRAME)
            await made.until(ResponseDone)
    assert {entry["origin"] for entry in logs if "origin" in entry} == {"to provider", "from provider"}
    assert "sk-secret" not in str(logs)
