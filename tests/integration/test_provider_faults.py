"""The AI refuses, dies, stalls or talks nonsense: a caller always hears something, or is sent on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hearing import assert_clean_tone, assert_whole, hear_fallback, longest_silence_s, sounding
from rig import Rig, tcp_port_nobody_serves

from arivox.emulator import sound
from arivox.emulator.script import Script, Stage, in_turn
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
FAILED = ["the AI failed"]
STALLS: dict[str, Any] = {"first_audio_timeout_s": 1.0, "response_timeout_s": 1.0, "idle_caller_s": 0.0}
ANSWER = MarkedStream(0.6)
QUESTION = MarkedStream(1.5)
Scenario = Callable[[Stage], Awaitable[object]]


async def say(stage: Stage, stream: MarkedStream = ANSWER, **options: Any) -> None:
    await stage.say(sound.encode(stream.pcm(), stage.session.output_format), **options)


async def hear_greeting(phone: SipPhone, stage: Stage) -> None:
    await stage.wait_for("response.create")
    await say(stage)
    await phone.wait_heard()
    await phone.wait_silence(150)


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    """Return a call in which the greeting was heard to its end."""
    phone = await rig.dial()
    stage = await rig.stage()
    await hear_greeting(phone, stage)
    return phone, stage


async def assert_sent_on(
    rig: Rig, phone: SipPhone, fault: float, *, index: int = 0, within: float = 3.0
) -> None:
    """Assert that the caller heard of the failure ``within`` seconds, and then what the dialplan does.

    Now and then Asterisk loses the tone that follows the bridge's end: then the dialplan is heard, 2 s later.
    """
    first = await phone.wait_heard(after=fault, timeout=within + 5)
    assert first - fault < within
    assert longest_silence_s(await hear_fallback(phone, after=first)) < 0.6
    assert rig.timelines[index].find("call.ended")[0].data["reason"] == "provider_failed"


# --- it cannot be had at all ---

REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "bad key": ({"emulator": {"api_keys": {"sk-other"}}}, "invalid_api_key"),
    "HTTP 401": ({"http_status": 401}, "401"),
    "unknown model": ({"openai_model": "gpt-parrot"}, "invalid_model"),
    "unreachable": ({"unreachable": True, "provider_connect_timeout_s": 0.6}, "timeout"),
    "no handshake": ({"emulator": {"handshake_delay": 30.0}, "provider_connect_timeout_s": 0.6}, "timeout"),
    "no session.created": ({"greets": False, "provider_connect_timeout_s": 0.6}, "timeout"),
}


def assert_told_once(rig: Rig, case: str) -> None:
    (error,) = rig.logged("the AI failed")
    assert f"[{REFUSALS[case][1]}]" in error["error"]
    assert "sk-test" not in str(rig.log)


def refusing_rig(asterisk: AsteriskInstance, case: str, **settings: Any) -> Rig:
    options = dict(REFUSALS[case][0])
    script = {name: options.pop(name) for name in ("http_status", "greets") if name in options}
    expect_log = list(FAILED)
    if options.pop("unreachable", False):
        options["openai_realtime_url"] = f"ws://127.0.0.1:{tcp_port_nobody_serves()}"
        expect_log.append("trying again")
    return Rig(asterisk, lambda: Script(**script), expect_log=expect_log, **options, **settings)


@pytest.mark.parametrize("case", ["bad key", "unreachable"])
async def test_ai_that_is_not_to_be_had(asterisk: AsteriskInstance, case: str) -> None:
    async with refusing_rig(asterisk, case) as rig:
        begun = time.monotonic()
        phone = await rig.dial()
        await assert_sent_on(rig, phone, begun, within=3.7)
        assert await rig.status_of() == "provider_failed"
        if case == "unreachable":  # a key may be refused before the call is even answered
            assert rig.timelines[0].find("call.answered")
        assert_told_once(rig, case)


@pytest.mark.parametrize("case", REFUSALS)
async def test_call_is_not_answered_for_an_ai_that_is_not_to_be_had(
    asterisk: AsteriskInstance, case: str
) -> None:
    async with refusing_rig(asterisk, case, answer="when_ready") as rig:
        phone = await rig.open_phone()
        assert await phone.call("703") >= 400
        assert await rig.ended() == "provider_failed"
        assert rig.timelines[0].find("call.answered") == []
        assert await rig.status_of() == "provider_failed"
        assert phone.received == []
        assert_told_once(rig, case)


async def test_answer_when_ready_lets_it_ring_until_the_ai_is_there(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, emulator={"handshake_delay": 0.5}, answer="when_ready") as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await say(stage)
        await phone.wait_heard()
        kinds = [entry.kind for entry in rig.timelines[0]]
        assert kinds.index("provider.ready") < kinds.index("call.answered")
        await phone.wait_silence(150)
        assert_whole(phone.heard().pcm, ANSWER)


async def test_ai_that_refuses_for_a_moment_is_asked_again(asterisk: AsteriskInstance) -> None:
    behaviours = in_turn(Script(http_status=503), Script(http_status=500), Script())
    async with Rig(asterisk, behaviours, expect_log=["trying again"]) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await say(stage)
        await phone.wait_heard()
        await phone.wait_silence(150)
        assert_whole(phone.heard().pcm, ANSWER)
        assert rig.emulator.refused == 2


# --- it dies in mid-call ---


async def expire(stage: Stage) -> None:
    await stage.error("session_expired", "Your session hit the maximum duration of 60 minutes.")
    await stage.close(1001)


async def trouble(stage: Stage) -> None:
    await stage.error("server_error", "The server had an error.", "server_error")
    await stage.close(1000)


LOSSES: dict[str, Scenario] = {
    "TCP reset": lambda stage: stage.abort(),
    "close 1011": lambda stage: stage.close(1011, "internal error"),
    "close 1000": lambda stage: stage.close(1000),
    "close 1008": lambda stage: stage.close(1008, "policy"),
    "close 4000": lambda stage: stage.close(4000, "invalid_request_error.something"),
    "session_expired": expire,
    "server_error": trouble,
}
LOST = ["the AI's session is lost"]


@pytest.mark.parametrize("how", LOSSES)
async def test_ai_that_is_lost_in_mid_call_is_called_again(asterisk: AsteriskInstance, how: str) -> None:
    """It is told what was said; the caller is heard and answered as before."""
    scripts = [Script(listens=True), Script(listens=True)]
    told = ["the AI reports an error"] if how == "server_error" else []
    async with Rig(asterisk, in_turn(*scripts), expect_log=[*LOST, *told]) as rig:
        phone = await rig.dial()
        first = await rig.stage()
        await first.wait_for("response.create")
        await say(first, transcript="Good morning.")
        await phone.wait_heard()
        await phone.wait_silence(150)
        await first.speech_started()
        await first.speech_stopped("I have a toothache.")
        await say(first, transcript="Which day would suit you?")
        await first.sleep(ANSWER.seconds)
        await phone.wait_silence(150)
        lost = time.monotonic()
        await LOSSES[how](first)
        second = await rig.stage(2)
        await second.wait_audio(40)
        items = [
            frame.event["item"] for frame in second.record.received() if frame.kind.endswith("item.create")
        ]
        assert [(item["role"], item["content"][0]["text"]) for item in items] == [
            ("assistant", "Good morning."),
            ("user", "I have a toothache."),
            ("assistant", "Which day would suit you?"),
        ]
        assert not [frame for frame in second.record.received() if frame.kind == "response.create"]
        await phone.play(QUESTION.pcm()).done()
        answer = await second.wanted()
        assert answer is not None
        heard = sound.decode(second.record.audio_received, second.session.input_format)
        assert_whole(sounding(heard), QUESTION)
        await say(second)
        await phone.wait_heard(after=lost)
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(lost, time.monotonic()).pcm, ANSWER)
        assert rig.timelines[0].find("provider.reconnected")


async def test_words_that_the_lost_ai_did_not_answer_are_heard_by_the_next(
    asterisk: AsteriskInstance,
) -> None:
    scripts = [Script(listens=True), Script(listens=True)]
    async with Rig(asterisk, in_turn(*scripts), expect_log=LOST) as rig:
        phone = await rig.dial()
        first = await rig.stage()
        await hear_greeting(phone, first)
        playing = phone.play(QUESTION.pcm())
        noticed = "input_audio_buffer.speech_started"
        await first.record.until(lambda: any(frame.kind == noticed for frame in first.record.frames), 5)
        await first.abort()
        second = await rig.stage(2)
        await playing.done()
        await second.wanted()
        heard = sound.decode(second.record.audio_received, second.session.input_format)
        assert_whole(sounding(heard), QUESTION)


async def test_answer_that_the_lost_ai_was_giving_is_gone_on_with(asterisk: AsteriskInstance) -> None:
    """What it had sent is heard; then the next one is asked to go on."""
    async with Rig(asterisk, Script, expect_log=LOST) as rig:
        phone, first = await greeted(rig)
        await first.speech_started()
        await first.speech_stopped()
        begun = time.monotonic()
        await say(first, transcript="On Monday there is", end=False)
        await first.abort()
        second = await rig.stage(2)
        configured = await second.wait_for("session.update")
        assert "was lost for a moment" in configured["session"]["instructions"]
        said = await second.wait_for("conversation.item.create")
        assert said["item"]["content"][0]["text"] == "On Monday there is"
        asked = await second.wait_for("response.create")
        assert "instructions" not in asked.get("response", {}), "the state's own are in force"
        await phone.wait_heard(after=begun)
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(begun, time.monotonic()).pcm, ANSWER)
        again = time.monotonic()
        await say(second)
        await phone.wait_heard(after=again)
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(again, time.monotonic()).pcm, ANSWER)


async def test_ai_that_is_lost_and_not_to_be_had_again(asterisk: AsteriskInstance) -> None:
    behaviours = in_turn(Script())
    async with Rig(
        asterisk, behaviours, expect_log=[*FAILED, *LOST, "trying again"], provider_connect_timeout_s=1.0
    ) as rig:
        phone, stage = await greeted(rig)
        fault = time.monotonic()
        await stage.abort()
        await assert_sent_on(rig, phone, fault, within=4.0)
        assert rig.emulator.refused >= 1


FINAL: dict[str, Scenario] = {
    "key": lambda stage: stage.close(3000, "invalid_request_error.invalid_api_key"),
    "quota": lambda stage: stage.error("insufficient_quota", "You exceeded your current quota."),
}


async def test_ai_that_refuses_key_or_quota_in_mid_call_is_given_up(asterisk: AsteriskInstance) -> None:
    """No other session would fare better."""
    async with Rig(asterisk, Script, expect_log=FAILED) as rig:

        async def one(count: int, die: Scenario) -> None:
            phone, stage = phones[count], await rig.stage(count + 1)
            await hear_greeting(phone, stage)
            fault = time.monotonic()
            await die(stage)
            await assert_sent_on(rig, phone, fault, index=count)

        phones = []
        for count in range(len(FINAL)):
            phones.append(await rig.dial())
            await rig.emulator.wait_session(count + 1)
        await asyncio.gather(*(one(count, die) for count, die in enumerate(FINAL.values())))
        assert len(rig.logged("the AI failed")) == len(FINAL)
        assert await rig.status_of() == "provider_failed"


async def test_next_session_that_hangs_is_asked_for_again(asterisk: AsteriskInstance) -> None:
    """Long before PROVIDER_CONNECT_TIMEOUT_S is used up."""
    scripts = in_turn(Script(), Script(greets=False), Script())
    async with Rig(asterisk, scripts, expect_log=[*LOST, "trying again"]) as rig:
        phone, first = await greeted(rig)
        await first.speech_started()
        await first.speech_stopped("Which days are free?")
        lost = time.monotonic()
        await first.abort()
        await rig.emulator.wait_session(3, 6)
        third = await rig.stage(3)
        await third.wait_for("response.create")
        await say(third)
        await phone.wait_heard(after=lost)
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(lost, time.monotonic()).pcm, ANSWER)


async def test_ai_that_dies_while_it_speaks_is_cut_off_for_the_tone(asterisk: AsteriskInstance) -> None:
    """Nobody waits for the end of an answer that nobody can follow up."""
    refusing = Script(http_status=401)
    async with Rig(asterisk, in_turn(Script(), refusing), expect_log=[*FAILED, *LOST]) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await say(stage, MarkedStream(20.0), speed=10, wait=False)
        await phone.wait_heard()
        fault = time.monotonic()
        await stage.abort()
        await hear_fallback(phone, after=fault)
        assert await rig.ended() == "provider_failed"


async def test_dialplan_that_says_something_itself_is_heard_at_once(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, expect_log=FAILED, failure_media="none") as rig:
        phone, stage = await greeted(rig)
        fault = time.monotonic()
        await FINAL["key"](stage)
        heard = await hear_fallback(phone, after=fault, timeout=1.5)
        assert signal.tone_level_db(heard, 480) < -50, "no congestion tone before it"
        assert await rig.ended() == "provider_failed"


# --- it stalls ---


async def silent(stage: Stage) -> None:
    await stage.wait_for("response.create")


async def turn_without_answer(stage: Stage) -> None:
    """The caller's turn is found, an answer begins, and nothing comes of it."""
    await stage.wait_for("response.create")
    await say(stage)
    await stage.sleep(ANSWER.seconds)
    await stage.speech_started()
    await stage.speech_stopped()


async def turn_unnoticed(stage: Stage) -> None:
    """The caller's turn is found, and no answer to it even begins."""
    await stage.wait_for("response.create")
    await say(stage)
    await stage.sleep(ANSWER.seconds)
    for kind in ("speech_started", "speech_stopped"):
        await stage.send({"type": f"input_audio_buffer.{kind}", "item_id": "item_caller"})


async def half_a_sentence(stage: Stage) -> None:
    await stage.wait_for("response.create")
    await say(stage, end=False)


async def tool_and_no_answer(stage: Stage) -> None:
    await stage.wait_for("response.create")
    await say(stage)
    await stage.call("move_to_state", {"state": "gathering_reason"})


async def failed_and_no_answer(stage: Stage) -> None:
    await stage.wait_for("response.create")
    await stage.fail()


async def frozen(stage: Stage) -> None:
    """Nothing at all leaves the server any more, and it answers nothing."""
    await stage.wait_for("response.create")
    await say(stage)
    await stage.sleep(ANSWER.seconds)
    await stage.speech_started()
    await stage.speech_stopped()
    await stage.stall()


STALLED: dict[str, Scenario] = {
    "no first sound": silent,
    "no answer": turn_without_answer,
    "no answer begins": turn_unnoticed,
    "half a sentence": half_a_sentence,
    "no answer after a tool": tool_and_no_answer,
    "no answer after a failed one": failed_and_no_answer,
    "frozen": frozen,
}


async def test_ai_that_stalls(asterisk: AsteriskInstance) -> None:
    """One call for each way to stall; each caller is sent on in time, also where other sessions are tried."""
    scripts = [Script(scenario) for scenario in STALLED.values()]
    others = [Script(turn_without_answer) for _ in range(3 * len(scripts))]
    expect_log = [*FAILED, "the AI's answer failed", "asked again", "is mute", "session is lost"]
    async with Rig(asterisk, in_turn(*scripts, *others), expect_log=expect_log, **STALLS) as rig:
        phones = []
        began = time.monotonic()
        for count in range(len(scripts)):
            phones.append(await rig.dial())
            await rig.emulator.wait_session(count + 1)

        async def one(name: str, index: int) -> str:
            await scripts[index].finished()
            try:
                await hear_fallback(phones[index], after=began, timeout=7)
                assert await rig.ended(index) == "provider_failed"
            except (AssertionError, TimeoutError) as error:
                return f"{name}: {error}"
            return ""

        problems = await asyncio.gather(*(one(name, index) for index, name in enumerate(STALLED)))
        assert not any(problems), [problem for problem in problems if problem]


async def test_stalled_answer_is_asked_for_again(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, expect_log=["it is asked again"], **STALLS) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped()
        stalled = stage.openai.active
        assert stalled is not None
        answered = time.monotonic()
        await stage.wait_for("response.create", timeout=3)
        assert stalled.status == "cancelled", "only one answer at a time can be in progress"
        await say(stage)
        await phone.wait_heard(after=answered)
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(answered, time.monotonic()).pcm, ANSWER)


# --- its answers fail ---


async def test_answer_that_fails_once_is_asked_for_again(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, expect_log=["the AI's answer failed"]) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        for _ in range(2):  # an answer that succeeds forgives the failure before it
            asked = time.monotonic()
            await stage.fail()
            await stage.wait_for("response.create")
            await say(stage)
            await phone.wait_heard(after=asked)
            await phone.wait_silence(150)
            assert_whole(phone.heard_between(asked, time.monotonic()).pcm, ANSWER)
            await stage.speech_started()
            await stage.speech_stopped()
        assert rig.calls


async def test_answer_that_fails_again_and_again_is_asked_for_with_patience(
    asterisk: AsteriskInstance,
) -> None:
    """As late as the service says; else after a second, and then later each time."""
    async with Rig(asterisk, Script, expect_log=["the AI's answer failed"]) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await stage.fail("rate_limit_exceeded", "Rate limit reached. Please try again in 2.5 s.")
        failed = [time.monotonic()]
        for _ in range(2):
            await stage.wait_for("response.create")
            failed.append(time.monotonic())
            await stage.fail("server_error", "The server had an error")
        assert failed[1] - failed[0] > 2.3
        assert failed[2] - failed[1] > 1.8
        await stage.wait_for("response.create")
        await say(stage)
        await phone.wait_heard(after=failed[2])
        await phone.wait_silence(150)
        assert_whole(phone.heard_between(failed[2], time.monotonic()).pcm, ANSWER)


async def test_ai_that_fails_turn_after_turn_is_given_up(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, expect_log=[*FAILED, "the AI's answer failed"]) as rig:
        phone, stage = await greeted(rig)
        for _ in range(4):
            await stage.speech_started()
            await stage.speech_stopped()
            fault = time.monotonic()
            await stage.fail("rate_limit_exceeded", "Rate limit reached")
        await assert_sent_on(rig, phone, fault)
        assert "rate_limit_exceeded" in rig.logged("the AI failed")[0]["error"]


# --- it talks nonsense ---

GARBAGE: list[dict[str, Any] | bytes] = [
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[]",
    b'"response.done"',
    b'{"type":7}',
    b"[" * 5000,
    {"type": "response.output_audio.delta"},
    {"type": "response.output_audio.delta", "item_id": "item_x", "delta": "not base64!"},
    {"type": "response.output_audio.delta", "item_id": 5, "delta": "AAAA"},
    {"type": "response.done", "response": None},
    {"type": "response.output_item.done", "item": {"type": "function_call", "name": ["x"]}},
    {"type": "input_audio_buffer.speech_started", "item_id": {}},
    {"type": "error", "error": "everything"},
]
HARMLESS: list[dict[str, Any]] = [
    {"type": "a.kind.of.next.year", "x": [1, {"y": None}]},
    {"type": "rate_limits.updated", "rate_limits": None},
    {"type": "response.output_audio.done", "item_id": "item_unknown"},
    {"type": "response.output_audio_transcript.done", "item_id": "item_unknown", "transcript": "…"},
    {"type": "response.done", "response": {"id": "resp_unknown", "status": "a status of next year"}},
    {"type": "response.output_audio.delta", "item_id": "item_empty", "delta": ""},
]


async def test_nonsense_does_not_disturb_the_call(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, expect_log=["a message of the AI is ignored"]) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        audio = stage.session.output_format
        tone = sound.encode(signal.tone(1013, 2.0), audio)
        await stage.say(tone, speed=2, wait=False)
        for item in [*GARBAGE, *HARMLESS]:
            await stage.send(item)
        await phone.wait_heard()
        await phone.wait_silence(150)
        assert_clean_tone(phone.heard().pcm, 1013, 2.0)
        assert len(rig.logged("a message of the AI is ignored")) == len(GARBAGE)
        await stage.wait_audio(100)


async def test_error_that_is_not_fatal_is_told_and_the_call_goes_on(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, expect_log=["the AI reports an error"]) as rig:
        phone, stage = await greeted(rig)
        await stage.error("server_error", "The server had an error.", "server_error")
        asked = time.monotonic()
        await stage.speech_started()
        await stage.speech_stopped()
        await say(stage)
        await phone.wait_heard(after=asked)
        await phone.wait_silence(150)
        assert_whole(sounding(phone.heard_between(asked, time.monotonic()).pcm), ANSWER)
        assert rig.timelines[0].find("provider.error")


async def test_refused_configuration_ends_the_call(asterisk: AsteriskInstance) -> None:
    """Without it the server would speak another audio format: noise."""
    async with Rig(asterisk, Script, expect_log=FAILED, openai_voice_id="") as rig:
        fault = time.monotonic()
        phone = await rig.dial()
        await assert_sent_on(rig, phone, fault, within=3.5)


PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "transcription": ({"openai_transcription_model": "gpt-live-transcribe"}, "OPENAI_TRANSCRIPTION_MODEL"),
    "reasoning": (
        {"openai_model": "gpt-realtime-1.5", "openai_reasoning_effort": "low"},
        "OPENAI_REASONING_EFFORT",
    ),
}


@pytest.mark.parametrize("part", PARTS)
async def test_part_of_the_configuration_that_is_refused_is_left_out(
    asterisk: AsteriskInstance, part: str
) -> None:
    """Once, and loudly; nothing of an answer in another audio format is heard."""
    settings, name = PARTS[part]
    async with Rig(asterisk, Script, expect_log=["the AI reports an error"], **settings) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        configured = await stage.wait_for("session.update")
        assert part in str(configured)
        again = await stage.wait_for("session.update")
        assert part not in str(again)
        await stage.wait_for("response.create")
        await say(stage)
        await phone.wait_heard()
        await phone.wait_silence(150)
        assert_whole(phone.heard().pcm, ANSWER)
        (told,) = rig.logged("the AI reports an error")
        assert f"goes without {name}" in told["error"]
        await phone.hangup()
        await rig.ended()
        assert rig.counters()["ai_left_out"] == 1
