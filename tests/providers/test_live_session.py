"""A session with OpenAI Live against the emulated service: no call, no Asterisk."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from liveline import BRIEF, FRAME, Line, line

from arivox.audio.format import ALAW, SLIN16, ULAW, AudioFormat
from arivox.emulator import sound
from arivox.emulator.openai.messages import RequestError
from arivox.emulator.openai_live import LiveOptions
from arivox.emulator.script import Script, Stage, in_turn
from arivox.errors import ProviderError, SettingsError
from arivox.media.playout import Cut
from arivox.providers.base import (
    AgentAudio,
    AgentAudioDone,
    AgentText,
    Brief,
    CallerActive,
    CallerText,
    Fault,
    Interrupted,
    ResponseDone,
    ResponseStarted,
    SessionExpires,
    Tool,
    ToolCall,
    Utterance,
)
from arivox.providers.openai_live import session as session_module
from arivox.providers.openai_live.session import LiveSession
from arivox.providers.refusal import LASTING
from arivox.settings.settings import Settings

BOTH_LOOPS = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])


# --- opening ---


@BOTH_LOOPS
@pytest.mark.parametrize(("audio", "wire"), [(ULAW, "audio/pcmu"), (ALAW, "audio/pcma")])
async def test_session_is_started_before_anything_else(audio: AudioFormat, wire: str) -> None:
    async with line(audio=audio, connect=False) as made:
        made.session.send_audio(FRAME)
        made.session.speak("Say hello.")
        made.session.update(Brief("Other.", focus="The weather."))
        brief = Brief("You are a test.", BRIEF.tools, history=(Utterance("caller", "Hi."),))
        await made.session.connect(brief)
        await made.record.wait("session.instructions.append", count=2)
        kinds = [frame.kind for frame in made.record]
        assert kinds[:3] == ["session.start", "session.started", "session.input_audio.append"]
        session = made.record.received("session.start")[0].event["session"]
        assert session["model"] == "gpt-live-1.1"
        assert session["instructions"] == "You are a test."
        assert session["audio"] == {"format": {"type": wire, "rate": 8000}, "output": {"voice": "marin"}}
        assert session["input"][0]["content"][0]["text"] == "Hi."
        assert session["delegation"]["responses"]["model"] == "gpt-5.6-luna"
        assert made.record.sent("error") == []
        assert made.server.session.headers["authorization"] == "Bearer sk-secret"
        assert made.server.session.path == "/v1/live/sessions"


async def test_audio_before_the_session_is_kept_in_order_for_five_seconds() -> None:
    async with line(connect=False) as made:
        frames = [bytes([number % 256, number // 256]) * 80 for number in range(300)]
        for frame in frames:
            made.session.send_audio(frame)
        assert made.session.counters.uplink_dropped_frames == 50
        await made.session.connect(BRIEF)
        made.session.send_audio(FRAME)
        await made.record.wait("session.input_audio.append", count=2)
        assert bytes(made.record.audio_received) == b"".join([*frames[50:], FRAME])
        assert made.session.counters.audio_out_frames == 251


async def test_expiry_is_told() -> None:
    async with line(live=LiveOptions(expires_after=600)) as made:
        assert made.of(SessionExpires)[0].seconds == pytest.approx(600, abs=2)


def test_link_without_g711_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"speaks G\.711, and the call slin16"):
        LiveSession(Settings(), SLIN16, lambda _: None)


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "wrong key": ({"emulator": {"api_keys": {"sk-other"}}}, "invalid_api_key"),
    "unknown model": ({"openai_live_model": "gpt-parrot"}, "invalid_model"),
    "HTTP 401": ({"behaviour": lambda: Script(http_status=401)}, "401"),
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
        assert (caught.value.provider, caught.value.fatal) == ("openai-live", True)
        assert caught.value.code == code
        assert "sk-secret" not in f"{caught.value!r} {caught.value} {made.session!r}"
        assert len(made.server.sessions) + made.server.refused == 1
        if made.server.sessions:
            await made.server.session.ended.wait()
        assert made.events == []


async def test_instructions_that_are_too_long_are_not_even_sent() -> None:
    async with line(connect=False) as made:
        with pytest.raises(ProviderError, match="the instructions are too long"):
            await made.session.connect(Brief("x" * 70_000))
        assert made.server.sessions == []


async def test_close_instead_of_a_start_is_told() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.wait_for("session.start")
        await stage.send({"type": "session.closed", "reason": "content", "usage": {"seconds": 0}})

    async with line(lambda: Script(scenario, greets=False), connect=False) as made:
        with pytest.raises(ProviderError) as caught:
            await made.session.connect(BRIEF)
        assert caught.value.code == "content"


async def test_server_that_is_busy_is_asked_again() -> None:
    async def leave(stage: Stage) -> None:
        await stage.wait_for("session.start")
        await stage.close(1013, "try again later")

    behaviours = in_turn(Script(http_status=503), Script(leave, greets=False), Script())
    with structlog.testing.capture_logs() as logs:
        async with line(behaviours) as made:
            assert (made.server.refused, len(made.server.sessions)) == (1, 2)
            made.session.send_audio(FRAME)
            await made.record.wait("session.input_audio.append")
            assert made.of(Fault) == []
    assert [entry["log_level"] for entry in logs] == ["warning", "warning"]


@BOTH_LOOPS
@pytest.mark.parametrize("case", ["no handshake", "no session.started"])
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
@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_connect_that_is_given_up_leaves_nothing(after_s: float, how: str) -> None:
    async with line(lambda: Script(greets=False), connect=False) as made:
        connecting = asyncio.create_task(made.session.connect(BRIEF))
        await asyncio.sleep(after_s)
        if how == "cancel":
            connecting.cancel()
        else:
            await made.session.close()
        async with asyncio.timeout(1):
            await asyncio.wait([connecting])
        assert connecting.cancelled() or isinstance(connecting.exception(), ProviderError)


async def test_session_that_is_closed_between_attempts_makes_no_other() -> None:
    async with line(lambda: Script(http_status=503), connect=False) as made:
        connecting = asyncio.create_task(made.session.connect(BRIEF))
        await made.once(lambda: made.server.refused == 1, "nobody came")
        await made.session.close()
        with pytest.raises(ProviderError, match="the session was closed"):
            await connecting
        assert made.server.refused == 1


async def test_nothing_listens() -> None:
    async with line(connect=False) as made:
        url = made.server.live_url
    session = LiveSession(Settings(openai_live_url=url, provider_connect_timeout_s=0.6), ULAW, lambda _: None)
    with pytest.raises(ProviderError, match=r"no session within 0\.6 s; last: cannot connect"):
        await session.connect(BRIEF)


# --- the agent speaks ---


@BOTH_LOOPS
async def test_utterance_arrives_as_events_in_order() -> None:
    async with line() as made:
        made.session.speak()
        asked = await made.record.wait("session.instructions.append")
        assert asked.event["delegation_id"] is None
        assert asked.event["content"].startswith("Greet the caller now")
        assert made.session.busy
        audio = await made.say("Good morning.")
        done = await made.until(ResponseDone)
        assert done == ResponseDone("completed")
        kinds = [type(event) for event in made.events if not isinstance(event, SessionExpires)]
        assert kinds[0] is ResponseStarted
        assert kinds[-3:] == [AgentAudioDone, AgentText, ResponseDone]
        assert {event.item_id for event in made.of(AgentAudio)} == {"live-1"}
        assert b"".join(event.data for event in made.of(AgentAudio)) == audio
        assert made.of(AgentAudioDone) == [AgentAudioDone("live-1")]
        assert made.of(AgentText) == [AgentText("live-1", "Good morning.")]
        assert made.session.counters.audio_in_ms == ULAW.ms(len(audio))
        assert not made.session.busy


async def test_stream_with_silence_is_told_as_utterances() -> None:
    async with line(live=LiveOptions(frame_ms=20)) as made:
        for number in (1, 2):
            audio = sound.tone(ULAW, 300)
            await made.stage.say(audio, transcript=f"Number {number}.", speed=1)
            await made.until(ResponseDone, number)
            heard = b"".join(event.data for event in made.of(AgentAudio) if event.item_id == f"live-{number}")
            silence = ULAW.silence * ULAW.bytes_for(100)
            assert heard.strip(ULAW.silence) == audio.strip(ULAW.silence)
            assert heard.endswith(audio + silence)
        assert [event.text for event in made.of(AgentText)] == ["Number 1.", "Number 2."]
        assert made.session.counters.skipped_silence_ms == 0


async def test_second_request_is_not_another_greeting() -> None:
    async with line() as made:
        await made.say("Hello.")
        await made.until(ResponseDone)
        made.session.speak()
        await made.record.wait("session.instructions.append")
        assert "Greet" not in made.appended()[0]
        assert made.service.active is not None, "the model was asked to speak"


async def test_long_request_is_sent_in_parts_and_carried_out_at_the_end() -> None:
    sentence = "You are to read this sentence aloud, and all of the others too."
    async with line() as made:
        made.session.speak(" ".join([sentence] * 60))
        made.session.speak("Say good-bye.")
        await made.record.wait("session.instructions.append", count=4)
        *parts, go, short = made.appended()
        assert len(parts) >= 2
        assert " ".join(parts) == " ".join([sentence] * 60)
        assert go == "Do this now: what you were just told."
        assert short == "Do this now: Say good-bye."
        assert made.record.sent("error") == []


async def test_request_is_open_until_an_utterance_begins() -> None:
    async with line() as made:
        assert not made.session.busy
        made.session.speak("Say something.")
        await made.record.wait("session.instructions.append")
        assert made.session.busy
        await made.stage.say(sound.tone(ULAW, 200), speed=float("inf"), end=False)
        await made.until(AgentAudio)
        made.session.speak("Say more.")
        await made.until(ResponseDone)
        assert made.session.busy, "it could not have been answered yet"
        await made.say("More.")
        await made.until(ResponseDone, 2)
        assert not made.session.busy


# --- interruptions ---


async def test_interruption_is_not_told_and_begins_another_utterance() -> None:
    async with line() as made:
        await made.stage.say(sound.tone(ULAW, 3000), speed=2, wait=False)
        await made.until(AgentAudio)
        before = made.told()
        made.session.interrupt([Cut("live-1", 20, 100)])
        assert made.of(ResponseDone) == [], "not from within the verb"
        await made.until(AgentAudio, len(made.of(AgentAudio)) + 1)
        assert made.of(ResponseDone) == [ResponseDone("cancelled")]
        assert made.of(AgentAudio)[-1].item_id == "live-2"
        assert made.session.counters.late_audio_ms == 0
        assert made.told() == before == ["session.start"]


async def test_cancelled_utterance_is_heard_no_more() -> None:
    async with line() as made:
        audio = sound.tone(ULAW, 1000)
        await made.stage.say(audio[:160], speed=float("inf"), end=False)
        await made.until(AgentAudio)
        made.session.interrupt([], cancel=True)
        await made.stage.say(audio[160:], speed=float("inf"), end=False)
        heard = len(made.of(AgentAudio))
        late = ULAW.ms(len(audio) - sum(len(event.data) for event in made.of(AgentAudio)))
        await made.once(lambda: made.session.counters.late_audio_ms >= late - 20, "it was not dropped")
        assert made.session.counters.late_audio_ms <= late
        assert len(made.of(AgentAudio)) == heard
        assert not made.session.busy
        made.session.speak("Say good-bye.")
        await made.record.wait("session.instructions.append")
        await made.stage.say(ULAW.silence * 3200 + audio, speed=float("inf"))
        await made.until(ResponseDone, 2)
        last = b"".join(event.data for event in made.of(AgentAudio) if event.item_id == "live-2")
        assert last.strip(ULAW.silence) == audio.strip(ULAW.silence)


async def test_request_in_place_of_a_cancelled_utterance_is_heard() -> None:
    rest = ULAW.silence * ULAW.bytes_for(120)
    async with line() as made:
        await made.stage.say(sound.tone(ULAW, 3000), speed=1, wait=False)
        await made.until(AgentAudio)
        made.session.interrupt([], cancel=True)
        made.session.speak("Say good-bye.")
        await made.record.wait("session.instructions.appended", sent=True)
        audio = sound.tone(ULAW, 300)
        await made.stage.say(rest + audio, transcript="Good-bye.", speed=float("inf"))
        await made.until(ResponseDone, 2)
        heard = b"".join(event.data for event in made.of(AgentAudio) if event.item_id == "live-2")
        assert heard == audio


async def test_caller_who_speaks_over_a_long_queue_ends_it() -> None:
    async with line() as made:
        await made.stage.say(sound.tone(ULAW, 2000), transcript="A long story", speed=float("inf"))
        made.service.outlet.words("input", "Stop", 2500, 2900, apart=True)
        await made.until(Interrupted)
        made.session.interrupt([])
        made.service.outlet.words("input", "it", 2900, 3000, apart=True)
        await made.stage.send({"type": "session.usage.updated", "usage": {"seconds": 3.0}})
        await made.until(ResponseDone)
        assert len(made.of(Interrupted)) == 1


async def test_caller_who_speaks_over_a_short_queue_ends_nothing() -> None:
    async with line() as made:
        await made.stage.say(sound.tone(ULAW, 300), transcript="Short.", speed=float("inf"))
        made.service.outlet.words("input", "Stop", 2500, 2900, apart=True)
        await made.until(CallerActive)
        assert made.of(Interrupted) == []


async def test_question_that_is_transcribed_late_is_no_interruption() -> None:
    async with line() as made:
        made.service.outlet.words("output", "The answer is", 2000, 3000, apart=True)
        await made.stage.say(sound.tone(ULAW, 2000), speed=float("inf"))
        made.service.outlet.words("input", "A question?", 500, 1500, apart=True)
        await made.until(CallerActive)
        assert made.of(Interrupted) == []


async def test_burst_loses_no_voice() -> None:
    voice, pause = sound.tone(ULAW, 400), ULAW.silence * ULAW.bytes_for(400)
    async with line() as made:
        await made.stage.say((voice + pause) * 75, speed=float("inf"))
        await made.until(ResponseDone)
        heard = b"".join(event.data for event in made.of(AgentAudio))
        assert heard.count(voice) == 75
        assert made.session.counters.skipped_silence_ms > 15_000


# --- words ---


async def test_conversation_is_told_turn_by_turn() -> None:
    async with line() as made:
        await made.stage.say(sound.tone(ULAW, 200), speed=float("inf"), end=False)
        await made.until(AgentAudio)
        words = made.service.outlet.words
        words("output", "Hello,", 0, 400, apart=True)
        words("output", "who is it?", 400, 900, apart=True)
        words("input", "It is", 1500, 1700, apart=True)
        words("input", "me.", 1700, 1900, apart=True)
        words("output", "Fine.", 2600, 3000, apart=True)
        words("input", "Bye.", 3800, 4000, apart=True)
        await made.until(AgentText, 2)
        assert made.of(AgentText) == [AgentText("live-1", "Hello, who is it?"), AgentText("live-1", "Fine.")]
        assert made.of(CallerText) == [CallerText("caller-1", "It is me.")]
        assert len(made.of(CallerActive)) == 2
        await made.session.close()
        assert made.of(CallerText)[1:] == [CallerText("caller-2", "Bye.")]


async def test_words_of_the_caller_tell_what_came_after_them() -> None:
    async with line() as made:
        for _ in range(150):
            made.session.send_audio(FRAME)
        made.service.outlet.words("input", "One, two", 200, 900, apart=True)
        made.service.outlet.words("input", "three", 2400, 2700, apart=True)
        await made.until(CallerText)
        await made.session.close()
        assert [event for event in made.events if isinstance(event, CallerText | CallerActive)] == [
            CallerActive(),
            CallerText("caller-1", "One, two", unwritten_ms=2100.0),
            CallerActive(),
            CallerText("caller-2", "three", unwritten_ms=300.0),
        ]


async def test_words_without_a_place_tell_nothing_of_it() -> None:
    async with line() as made:
        for _ in range(50):
            made.session.send_audio(FRAME)
        await made.stage.send({"type": "session.input_transcript.delta", "delta": "One"})
        await made.until(CallerActive)
        await made.session.close()
        assert made.of(CallerText) == [CallerText("caller-1", "One")]


async def test_words_belong_to_the_utterance_they_are_sent_with() -> None:
    async with line() as made:
        words = made.service.outlet.words
        words("output", "Early", 0, 300, apart=True)
        await made.stage.say(sound.tone(ULAW, 200), speed=float("inf"))
        await made.until(ResponseDone)
        words("output", "and late.", 300, 600, apart=True)
        words("output", "The next.", 5000, 5600, apart=True)
        await made.stage.say(sound.tone(ULAW, 200), speed=float("inf"))
        await made.until(ResponseDone, 2)
        assert [(event.item_id, event.text) for event in made.of(AgentText)] == [
            ("live-1", "Early"),
            ("live-1", "and late."),
            ("live-2", "The next."),
        ]


async def test_caller_who_goes_on_speaking_stays_active(monkeypatch: pytest.MonkeyPatch) -> None:
    async with line() as made:
        made.service.outlet.words("input", "I have", 0, 300, apart=True)
        made.service.outlet.words("input", "a long", 300, 600, apart=True)
        await made.until(CallerActive)
        await made.say("Mhm.")
        await made.until(AgentAudio)
        assert len(made.of(CallerActive)) == 1
        monkeypatch.setattr(session_module, "_ACTIVE_S", 0.0)
        made.service.outlet.words("input", "story.", 600, 900, apart=True)
        await made.until(CallerActive, 2)


# --- tools ---


async def test_tools_are_called_and_answered() -> None:
    async with line() as made:
        first = await made.stage.call("look", {"where": "up"}, end=False)
        second = await made.stage.call("look", "{", end=False)
        await made.once(lambda: made.session.busy, "the task is at work")
        await made.stage.end()
        await made.until(ToolCall, 2)
        assert made.of(ToolCall) == [
            ToolCall(first, "look", '{"where":"up"}'),
            ToolCall(second, "look", "{"),
        ]
        assert not made.session.busy
        made.session.tool_result(first, "sky")
        await made.record.wait("response.item.create")
        assert made.record.received("response.create") == [], "another result is missing"
        assert made.session.busy
        made.session.tool_result(second, "error", answer=False)
        await made.record.wait("response.create")
        assert made.service.backend is not None
        assert made.service.backend.outputs == {first: "sky", second: "error"}
        await made.say("The sky.")
        await made.until(ResponseDone)
        assert not made.session.busy
        assert made.record.received_count["response.create"] == 1
        assert made.record.sent("error") == []
        assert made.session.counters.usage["delegated.total_tokens"] > 0


async def test_call_that_is_told_twice_is_made_once() -> None:
    async with line() as made:
        await made.stage.call("look", {})
        await made.until(ToolCall)
        done = next(
            f for f in made.record.sent("response.event") if f.event["event"]["type"].endswith("item.done")
        )
        await made.stage.send(done.data)
        await made.stage.send({"type": "session.usage.updated", "usage": {"seconds": 7}})
        await made.once(lambda: made.session.counters.usage.get("seconds") == 7, "it was not read")
        assert len(made.of(ToolCall)) == 1


async def test_tool_without_an_answer_leaves_the_agent_silent() -> None:
    async with line() as made:
        call_id = await made.stage.call("look", {})
        await made.until(ToolCall)
        made.session.tool_result(call_id, "ok", answer=False)
        await made.record.wait("response.item.create")
        assert not made.session.busy
        made.session.send_audio(FRAME)
        await made.record.wait("session.input_audio.append")
        assert made.record.received("response.create") == []


async def test_brief_is_updated_in_both_places() -> None:
    async with line() as made:
        made.session.update(Brief("All of it.", (Tool("go", "Go."),), focus="Current state: the end."))
        update = await made.record.wait("session.update")
        responses = update.event["session"]["delegation"]["responses"]
        assert (responses["instructions"], responses["tools"][0]["name"]) == ("All of it.", "go")
        await made.record.wait("session.instructions.append")
        assert made.appended()[0].endswith("\nCurrent state: the end.")
        await made.record.wait("session.instructions.appended", sent=True)
        assert list(made.service.tools) == ["go"]
        assert made.service.active is None, "it is only to be remembered"
        assert made.record.sent("error") == []


async def test_brief_without_a_focus_is_told_whole() -> None:
    async with line(brief=Brief("No tools.")) as made:
        made.session.update(Brief("All of it."))
        await made.record.wait("session.instructions.append")
        assert made.appended()[0].endswith("\nAll of it.")
        assert made.told() == ["session.start", "session.instructions.append"]


async def test_tools_that_come_too_late_are_told_to_the_log() -> None:
    with structlog.testing.capture_logs() as logs:
        async with line(brief=Brief("No tools.")) as made:
            made.session.update(BRIEF)
            await made.record.wait("session.instructions.append")
            assert "session.update" not in made.told()
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "the AI is not told of its tools: its session was started without any"
    ]


# --- ends ---


def refuse(code: str) -> Callable[[Line], Any]:
    async def end(made: Line) -> None:
        made.service.error(RequestError(code, "The end."))

    return end


def finish(reason: Any) -> Callable[[Line], Any]:
    async def end(made: Line) -> None:
        made.service.end(reason, time.monotonic())

    return end


@BOTH_LOOPS
@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda made: made.stage.abort(), "1006"),
        (lambda made: made.stage.close(1011, "internal error"), "1011"),
        (lambda made: made.stage.close(1000), "1000"),
        (lambda made: made.stage.close(1008, "policy"), "1008"),
        (lambda made: made.stage.close(4000, "insufficient_quota.insufficient_quota"), "insufficient_quota"),
        (lambda made: made.stage.close(4000, "invalid_request_error.session_expired"), "session_expired"),
        (refuse("session_expired"), "session_expired"),
        (refuse("insufficient_quota"), "insufficient_quota"),
        (finish("expired"), "expired"),
        (finish("content"), "content"),
        (finish("connection_lost"), "connection_lost"),
        (finish("remote_hangup"), "remote_hangup"),
        (finish("close_requested"), "close_requested"),
    ],
    ids=[
        *("reset", "1011", "1000", "1008", "quota in the close", "4000", "error", "quota"),
        *("expired", "content", "lost", "hangup", "somebody else"),
    ],
)
async def test_end_by_the_server_is_one_fault(end: Callable[[Line], Any], code: str) -> None:
    async with line() as made:
        made.service.outlet.words("input", "Hello?", 0, 400, apart=True)
        await made.until(CallerActive)
        connection = made.server.session
        await end(made)
        fault = await made.until(Fault)
        assert (fault.error.provider, fault.error.code, fault.error.fatal) == ("openai-live", code, True)
        assert fault.error.lost == (code not in LASTING), "another session may do"
        assert fault.error.rejected == (code == "content")
        assert made.of(CallerText) == [CallerText("caller-1", "Hello?")]
        if code not in ("session_expired", "insufficient_quota"):
            await connection.ended.wait()
        made.session.send_audio(FRAME)
        made.session.speak()
        made.session.update(BRIEF)
        made.session.tool_result("x", "y")
        made.session.interrupt([Cut("item", 1, 1)], cancel=True)
        assert made.session.counters.uplink_dropped_frames == 1
        await made.session.close()
        assert made.told() == ["session.start"]
        assert len(made.of(Fault)) == 1


async def test_session_that_expires_says_so() -> None:
    async with line(live=LiveOptions(expires_after=0.3, continuous=False)) as made:
        fault = await made.until(Fault)
        assert (fault.error.code, fault.error.fatal) == ("expired", True)
        assert fault.error.message == "the session has lasted as long as it may"


async def test_error_that_leaves_the_session_open() -> None:
    async with line() as made:
        made.service.error(RequestError("invalid_value", "No.", param="content"))
        fault = await made.until(Fault)
        assert (fault.error.fatal, fault.error.message) == (False, "No. (content)")
        made.session.speak()
        await made.record.wait("session.instructions.append")


async def test_garbage_is_ignored_and_told_to_the_log() -> None:
    with structlog.testing.capture_logs() as logs:
        async with line() as made:
            for data in (b"{", b'{"type":"session.output_audio.delta"}', b'{"type":"new.thing","x":[]}'):
                await made.stage.send(data)
            await made.say("Hello.")
            await made.until(ResponseDone)
            assert made.of(Fault) == []
    assert [entry["event"] for entry in logs] == ["a message of the AI is ignored"] * 2


# --- close ---


@BOTH_LOOPS
async def test_close_waits_for_the_account() -> None:
    async with line() as made:
        await made.session.close()
        await made.session.close()
        assert made.told() == ["session.start", "session.close"]
        closed = made.record.sent("session.closed")[0].event
        assert closed["reason"] == "close_requested"
        assert made.session.counters.usage["seconds"] == round(closed["usage"]["seconds"])
        made.session.send_audio(FRAME)
        made.session.speak()
        assert [event for event in made.events if not isinstance(event, SessionExpires)] == []


async def test_usage_is_the_last_that_was_told() -> None:
    async with line() as made:
        for seconds in (10.2, 20.6):
            await made.stage.send({"type": "session.usage.updated", "usage": {"seconds": seconds}})
        await made.once(lambda: made.session.counters.usage.get("seconds") == 21, "it was not read")
        await made.stage.stop_reading()
        closing = asyncio.create_task(made.session.close())
        await asyncio.sleep(0)
        await made.stage.send({"type": "session.closed", "reason": "x", "usage": {"seconds": 31.4}})
        await closing
        assert made.session.counters.usage["seconds"] == 31
        await made.stage.resume_reading()


@BOTH_LOOPS
async def test_close_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_CLOSE_S", 0.2)
    async with line() as made:
        await made.stage.stop_reading()
        begun = time.monotonic()
        await made.session.close()
        assert 0.15 < time.monotonic() - begun < 1
        await made.stage.resume_reading()


async def test_close_ends_with_the_connection() -> None:
    async with line() as made:
        await made.stage.stop_reading()
        closing = asyncio.create_task(made.session.close())
        await asyncio.sleep(0)
        await made.stage.abort()
        async with asyncio.timeout(1):
            await closing
        assert made.of(Fault) == []


async def test_words_that_come_with_the_end_are_told() -> None:
    async with line() as made:
        made.service.outlet.words("output", "Good-bye", 0, 400, apart=True)
        await made.stage.stop_reading()
        closing = asyncio.create_task(made.session.close())
        await asyncio.sleep(0)
        made.service.outlet.words("output", "and thanks.", 400, 900, apart=True)
        await made.stage.resume_reading()
        await closing
        assert made.of(AgentText) == [AgentText("live-1", "Good-bye and thanks.")]


async def test_caller_s_audio_is_sent_frame_by_frame() -> None:
    async with line() as made:
        for _ in range(3):
            made.session.send_audio(FRAME)
        await made.record.wait("session.input_audio.append", count=3)
        sent = [f.event["audio"] for f in made.record.received("session.input_audio.append")]
        assert [base64.b64decode(audio) for audio in sent] == [FRAME] * 3
        assert made.session.counters.audio_out_frames == 3


async def test_key_is_in_no_log() -> None:
    with structlog.testing.capture_logs() as logs:
        async with line(log_level="debug") as made:
            made.session.speak()
            await made.say("Hello.")
            made.session.send_audio(FRAME)
            await made.until(ResponseDone)
    assert {entry["origin"] for entry in logs if "origin" in entry} == {"to provider", "from provider"}
    assert "sk-secret" not in str(logs)
