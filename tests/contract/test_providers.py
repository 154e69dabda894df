"""What every provider must do, whatever its protocol: the same tests over all of them, each against its
emulator. What a provider cannot do is in its capabilities, and tested too.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from kinds import END, KINDS, MOVE, Kind, brief, line

from arivox.emulator import sound
from arivox.emulator.openai.session import OpenAISession as EmulatedOpenAI
from arivox.emulator.openai_live import LiveOptions
from arivox.emulator.script import Script, in_turn
from arivox.errors import ProviderError
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
    Reconnected,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    Utterance,
)
from arivox.testing import signal
from arivox.testing.marked import MarkedStream

pytestmark = pytest.mark.parametrize("kind", KINDS, ids=str)
HELLO = MarkedStream(0.6)
INF = float("inf")


def spoken(made: Any, stream: MarkedStream) -> bytes:
    """Return a marked stream as the AI says it."""
    form = made.stage.session.output_format
    return sound.encode(stream.pcm(form.rate), form)


def heard(made: Any, item_id: str = "") -> Any:
    """Return the samples that the caller would hear of an item, or of all."""
    return made.pcm(b"".join(e.data for e in made.of(AgentAudio) if item_id in ("", e.item_id)))


def received_ms(made: Any) -> float:
    """Return how much of the agent's voice came."""
    return sum(len(event.data) for event in made.of(AgentAudio)) / 8


def assert_heard(made: Any, stream: MarkedStream, item_id: str = "") -> None:
    pcm = heard(made, item_id)
    [(start_ms, end_ms)] = signal.active_segments(pcm)
    pcm = pcm[round(start_ms * 8) : round(end_ms * 8)]
    assert len(pcm) / 8 == pytest.approx(stream.seconds * 1000, abs=25)
    assert stream.jumps(pcm) == []


# --- opening ---


async def test_capabilities_are_what_the_documentation_says(kind: Kind) -> None:
    async with line(kind) as made:
        assert made.session.capabilities == kind.capabilities
        assert made.session.name == kind.provider


async def test_agent_is_told_who_it_is_and_what_it_may_do(kind: Kind) -> None:
    async with line(kind) as made:
        session = made.stage.session
        await made.once(lambda: "You are a clinic." in session.instructions, session.instructions)
        assert "Current state: reason" in session.instructions
        assert set(session.tools) == {"move_to_state", "end_call"}
        assert session.tools["move_to_state"]["properties"]["state"]["enum"] == ["day", "time"]
        assert made.record.sent("error") == []


async def test_caller_is_heard_from_the_first_word_on(kind: Kind) -> None:
    async with line(kind, connect=False) as made:
        before, after = signal.tone(700, 0.4), signal.tone(1300, 0.4)
        made.session.send_audio(made.encoded(before))
        await made.session.connect(brief("reason", MOVE, END))
        made.session.send_audio(made.encoded(after))
        stage = made.stage
        await stage.record.until(lambda: stage.session.received_ms >= 800)
        form = stage.session.input_format
        pcm = sound.decode(made.record.audio_received, form)
        half = len(pcm) // 2
        margin = form.rate // 50
        assert signal.dominant_frequency(pcm[margin : half - margin], form.rate) == pytest.approx(700, abs=5)
        assert signal.dominant_frequency(pcm[half + margin :], form.rate) == pytest.approx(1300, abs=5)


async def test_wrong_key_is_told_at_once(kind: Kind) -> None:
    async with line(kind, connect=False, emulator={"api_keys": {"sk-other"}}) as made:
        begun = time.monotonic()
        with pytest.raises(ProviderError) as caught:
            await made.session.connect(brief("reason"))
        assert time.monotonic() - begun < 2
        assert (caught.value.code, caught.value.fatal) == (kind.wrong_key, True)
        assert "sk-right" not in f"{caught.value!r} {caught.value} {made.session!r}"
        assert len(made.server.sessions) + made.server.refused == 1, "the key will not become right"


async def test_wrong_model_is_told_at_once(kind: Kind) -> None:
    settings, code = kind.wrong_model
    if kind.name == "openai-beta":
        pytest.skip("servers that speak the beta have models of their own")
    async with line(kind, connect=False, **settings) as made:
        with pytest.raises(ProviderError) as caught:
            await made.session.connect(brief("reason"))
        assert (caught.value.code, caught.value.fatal) == (code, True)


async def test_service_that_never_takes_the_session(kind: Kind) -> None:
    async with line(
        kind, lambda: Script(greets=False), connect=False, provider_connect_timeout_s=0.5
    ) as made:
        with pytest.raises(ProviderError) as caught:
            await made.session.connect(brief("reason"))
        assert caught.value.code == "timeout"


async def test_service_that_refuses_for_a_moment_is_asked_again(kind: Kind) -> None:
    behaviours = in_turn(Script(http_status=503), Script())
    async with line(kind, behaviours) as made:
        assert made.server.refused == 1
        made.session.speak()
        await made.stage.wanted()


async def test_history_is_known_to_the_agent(kind: Kind) -> None:
    said = (
        Utterance("agent", "Why do you call?"),
        Utterance("caller", "I have a toothache."),
        Utterance("agent", "Which day?"),
    )
    told = brief("day", MOVE, END)
    async with line(kind, told=Brief(told.instructions, told.tools, told.focus, said)) as made:
        stage = made.stage
        await made.once(lambda: len(made.history()) == 3, "the history was not told")
        assert made.history() == [
            ("agent", "Why do you call?"),
            ("caller", "I have a toothache."),
            ("agent", "Which day?"),
        ]
        assert not stage.session.responses, "nothing was asked"
        made.session.speak()
        await stage.wanted()
        assert made.record.sent("error") == []


# --- speaking ---


async def test_agent_greets_when_asked(kind: Kind) -> None:
    async with line(kind) as made:
        made.session.speak()
        assert made.session.busy
        await made.stage.wanted()
        await made.stage.say(spoken(made, HELLO), transcript="Good morning.", speed=INF)
        done = await made.until(ResponseDone)
        assert (done.status, done.error) == ("completed", None)
        assert_heard(made, HELLO)
        [item_id] = {event.item_id for event in made.of(AgentAudio)}
        assert [event.item_id for event in made.of(AgentAudioDone)] == [item_id]
        await made.until(AgentText)
        assert [(event.item_id, event.text) for event in made.of(AgentText)] == [(item_id, "Good morning.")]
        order = [type(event) for event in made.events]
        assert order.index(ResponseStarted) < order.index(AgentAudio) < order.index(ResponseDone)
        assert not made.session.busy
        assert made.of(Fault) == []


async def test_agent_says_what_it_is_asked_to(kind: Kind) -> None:
    async with line(kind) as made:
        made.session.speak('Say good-bye now. Say: "Good-bye."')
        answer = await made.stage.wanted()
        assert 'Say: "Good-bye."' in answer.instructions


async def test_caller_speaks_and_is_answered(kind: Kind) -> None:
    async with line(kind, lambda: Script(listens=True)) as made:
        stage = made.stage
        made.say(signal.speech_like(0.8))
        await stage.wanted()
        turn = stage.session.last_turn
        assert turn is not None
        assert turn.audio_format is not None
        assert 700 < turn.audio_format.ms(len(turn.audio)) < 2000
        stage.session.transcribed(turn, "I have a toothache.")
        await stage.say(spoken(made, HELLO), transcript="Which day?", speed=INF)
        await made.until(ResponseDone)
        await made.until(CallerText)
        assert [event.text for event in made.of(CallerText)] == ["I have a toothache."]
        assert_heard(made, HELLO)
        if kind.capabilities.turns:
            assert len(made.of(SpeechStarted)) == len(made.of(SpeechStopped)) == 1
        else:
            assert made.of(CallerActive), "something must tell that the caller is there"
            assert made.of(SpeechStarted) == []
        assert made.of(Interrupted) == []


async def test_minute_that_comes_in_a_burst_is_whole(kind: Kind) -> None:
    minute = MarkedStream(60.0)
    # OpenAI Live speaks at the pace of speech; what a stall of the network had held back comes at once.
    async with line(kind, emulator={"live": LiveOptions(lead_ms=3_600_000)}) as made:
        made.session.speak()
        await made.stage.wanted()
        await made.stage.say(spoken(made, minute), speed=INF, sizes=[100_000])
        await made.until(AgentAudioDone)
        assert_heard(made, minute)
        assert made.session.counters.audio_in_ms == pytest.approx(60_000, abs=120)


async def test_two_answers_are_two_items(kind: Kind) -> None:
    async with line(kind) as made:
        for _ in range(2):
            made.session.speak()
            await made.stage.wanted()
            await made.stage.say(spoken(made, HELLO), transcript="Yes.", speed=INF)
            await made.until(ResponseDone, 1 + len(made.of(ResponseDone)))
        assert len({event.item_id for event in made.of(AgentAudio)}) == 2
        await made.until(AgentText, 2)
        items = [event.item_id for event in made.of(AgentText)]
        assert items == [event.item_id for event in made.of(AgentAudioDone)]


# --- interruption ---


async def test_caller_interrupts(kind: Kind) -> None:
    long = MarkedStream(20.0)
    async with line(kind, lambda: Script(listens=True)) as made:
        made.session.speak()
        stage = made.stage
        await stage.wanted()
        await stage.say(spoken(made, long), transcript="A long story.", speed=4.0, wait=False)
        await made.once(lambda: received_ms(made) >= 800, "nothing is said")
        item_id = made.of(AgentAudio)[0].item_id
        made.cuts.append(Cut(item_id, 400, 800))
        made.say(signal.speech_like(0.8))
        if kind.capabilities.full_duplex:
            # The model falls silent by itself; there is nothing to be told and nothing to tell.
            done = await made.until(ResponseDone)
        else:
            await made.until(SpeechStarted if kind.capabilities.turns else Interrupted)
            done = await made.until(ResponseDone)
            assert done.status == "cancelled"
        assert received_ms(made) < 15_000, "it went on and on"
        assert len(made.of(Interrupted)) + len(made.of(SpeechStarted)) <= 1
        session = stage.session
        if kind.capabilities.truncate:
            assert isinstance(session, EmulatedOpenAI)
            await made.once(lambda: bool(session.conversation.truncations), "it was not told")
            cut = session.conversation.truncations[0]
            assert (cut.item_id, cut.audio_end_ms) == (item_id, 400)
        else:
            assert not any("truncate" in frame.kind for frame in made.record.received())
        # What the caller said is answered, and that answer is heard.
        await made.once(lambda: session.active is not None, "the caller is not answered")
        count = len(made.of(ResponseDone))
        await stage.say(spoken(made, HELLO), speed=INF)
        await made.until(ResponseDone, count + 1)
        assert_heard(made, HELLO, made.of(AgentAudio)[-1].item_id)
        assert made.record.sent("error") == []


async def test_answer_that_we_want_no_more_of_is_not_heard(kind: Kind) -> None:
    async with line(kind) as made:
        made.session.speak()
        stage = made.stage
        await stage.wanted()
        await stage.say(spoken(made, MarkedStream(4.0)), speed=3.0, wait=False)
        await made.once(lambda: received_ms(made) >= 800, "nothing is said")
        item_id = made.of(AgentAudio)[0].item_id
        made.session.interrupt([Cut(item_id, 200, 1000)], cancel=True)
        count = len(made.of(AgentAudio))
        made.session.speak('Say: "Good-bye."')
        await stage.record.until(
            lambda: stage.session.active is not None and "Good-bye" in stage.session.active.instructions
        )
        assert len(made.of(AgentAudio)) <= count + 1
        assert made.of(Interrupted) == [], "the caller has not said a word"
        before = len(made.of(ResponseDone))
        if kind.capabilities.full_duplex:
            await stage.sleep(0.4)  # nothing but a breath tells its new sentence from the old one
        await stage.say(spoken(made, HELLO), speed=INF)
        await made.until(ResponseDone, max(before + 1, 2))
        assert_heard(made, HELLO, made.of(AgentAudio)[-1].item_id)
        assert made.of(Fault) == []
        assert made.record.sent("error") == []


# --- tools ---


async def test_tool_is_called_and_its_result_is_answered(kind: Kind) -> None:
    async with line(kind) as made:
        made.session.speak()
        stage = made.stage
        await stage.wanted()
        await stage.call("move_to_state", {"state": "day"})
        called = await made.until(ToolCall)
        assert (called.name, called.arguments) == ("move_to_state", '{"state":"day"}')
        made.session.tool_result(called.call_id, '{"ok": true}')
        await made.once(lambda: bool(made.results()), "the result did not arrive")
        assert made.results() == {called.call_id: {"ok": True}}
        assert made.session.busy
        await stage.wanted()
        await stage.say(spoken(made, HELLO), transcript="Which day?", speed=INF)
        await made.until(AgentAudioDone)
        assert_heard(made, HELLO)
        await made.once(lambda: not made.session.busy, "it is not done")
        assert made.record.sent("error") == []
        assert made.of(Fault) == []


async def test_result_that_wants_no_answer_gets_none(kind: Kind) -> None:
    async with line(kind) as made:
        made.session.speak()
        stage = made.stage
        await stage.wanted()
        await stage.say(spoken(made, HELLO), transcript="Good-bye.", speed=INF, end=False)
        await stage.call("end_call", {})
        called = await made.until(ToolCall)
        made.session.tool_result(called.call_id, '{"ok": true}', answer=False)
        await made.until(AgentAudioDone)
        await made.once(lambda: not made.session.busy, "it is not done")
        made.say(signal.tone(300, 0.02))  # something passes, so that an answer would have come by now
        await stage.wait_audio(200)
        assert not made.session.busy
        assert_heard(made, HELLO)


async def test_tool_result_after_the_end_is_let_go(kind: Kind) -> None:
    async with line(kind) as made:
        await made.session.close()
        made.session.tool_result("call_x", "{}")
        made.session.speak()
        made.session.update(brief("day"))
        made.session.interrupt([])
        made.session.send_audio(made.kind.law.silence * 160)
        await made.session.close()
        assert made.session.counters.uplink_dropped_frames == 1


# --- changes in mid-call ---


async def test_change_of_instructions_takes_effect_before_the_next_answer(kind: Kind) -> None:
    async with line(kind) as made:
        made.session.update(brief("day", END))
        made.session.speak()
        stage = made.stage
        await stage.wanted()
        assert "Current state: day" in stage.session.instructions
        assert "Current state: reason" not in stage.session.instructions
        tools = {"end_call"} if kind.capabilities.update_tools else {"move_to_state", "end_call"}
        assert set(stage.session.tools) == tools
        assert made.record.sent("error") == []


async def test_change_of_state_by_a_tool_takes_effect_before_the_next_answer(kind: Kind) -> None:
    async with line(kind) as made:
        made.session.speak()
        stage = made.stage
        await stage.wanted()
        await stage.call("move_to_state", {"state": "day"})
        called = await made.until(ToolCall)
        made.session.update(brief("day", END))
        made.session.tool_result(called.call_id, '{"ok": true}')
        await made.once(lambda: bool(made.results()), "the result did not arrive")
        await stage.wanted()
        assert "Current state: day" in stage.session.instructions
        await stage.say(spoken(made, HELLO), speed=INF)
        await made.until(AgentAudioDone)
        assert_heard(made, HELLO)
        assert made.record.sent("error") == []


# --- the end ---


async def test_service_closes(kind: Kind) -> None:
    behaviours = in_turn(Script(), Script())
    async with line(kind, behaviours) as made:
        made.session.speak()
        await made.stage.wanted()
        await made.stage.say(spoken(made, HELLO), speed=INF)
        await made.until(ResponseDone)
        await made.stage.close(1011, "Internal error encountered.")
        if kind.capabilities.resume:
            again = await made.until(Reconnected)
            assert "1011" in again.cause
            assert made.of(Fault) == []
            made.session.speak()
            await made.stage.wanted()
            assert "Current state: reason" in made.stage.session.instructions
        else:
            fault = await made.until(Fault)
            assert (fault.error.code, fault.error.fatal) == ("1011", True)
            assert made.of(Reconnected) == []
            assert len(made.server.sessions) == 1


async def test_nothing_comes_after_the_close(kind: Kind) -> None:
    async with line(kind) as made:
        made.session.speak()
        await made.stage.wanted()
        await made.stage.say(spoken(made, MarkedStream(5.0)), speed=2.0, wait=False)
        await made.until(AgentAudio)
        await made.session.close()
        count = len([e for e in made.events if not isinstance(e, AgentText | CallerText)])
        await made.server.session.ended.wait()
        assert len([e for e in made.events if not isinstance(e, AgentText | CallerText)]) == count
        assert not any(event.error.fatal for event in made.of(Fault))


GARBAGE = [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"type": 7}', b'"text"', b"[" * 4000]


async def test_garbage_is_passed_over(kind: Kind) -> None:
    async with line(kind) as made:
        made.session.speak()
        await made.stage.wanted()
        for data in GARBAGE:
            made.stage.session.write("", data)
        made.stage.session.write("", b'{"type":"a.kind.of.next.year","aKeyOfNextYear":{"x":[1]}}')
        await made.stage.say(spoken(made, HELLO), speed=INF)
        await made.until(ResponseDone)
        assert_heard(made, HELLO)
        assert made.of(Fault) == []
