"""The AI's sessions of one call: what the next one is told and asked after one is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest

import arivox.call.sessions.sessions as module
from arivox.audio.format import ULAW, AudioFormat
from arivox.audio.voice import KEPT_FRAMES
from arivox.call.sessions.sessions import LASTED_S, MOST_FRUITLESS, USEFUL_S, Sessions
from arivox.errors import ProviderError
from arivox.media.playout import Cut
from arivox.providers.base import (
    AgentAudio,
    AgentText,
    Brief,
    CallerActive,
    CallerText,
    Capabilities,
    ConnectionLost,
    Fault,
    OnProviderEvent,
    ProviderEvent,
    Reconnected,
    ResponseDone,
    ResponseStarted,
    SessionCounters,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    Utterance,
)
from arivox.settings.settings import Settings

BRIEF = Brief("You are a dentist's receptionist.")
LOST = ProviderError("fake", "the server closed the connection (code 1006)", code="1006", lost=True)
SOUND = AgentAudio("item", b"\x55" * 480)
SAID = (Utterance("caller", "I have a toothache."),)


class FakeSession:
    """Notes what it is told; connects when it is let."""

    name = "fake"
    capabilities = Capabilities(True, True, True, "session", True, resume=False, full_duplex=False)

    def __init__(self, on_event: OnProviderEvent, refusal: ProviderError | None = None) -> None:
        self.emit = on_event
        self.told: list[Any] = []
        self.heard = b""
        self.kept = b""
        self.busy = False
        self.counters = SessionCounters()
        self.connecting = asyncio.Event()
        self.let = asyncio.Event()
        self.closed = False
        self.refusal = refusal

    async def connect(self, brief: Brief) -> None:
        self.connecting.set()
        await self.let.wait()
        if self.refusal is not None:
            raise self.refusal
        self.told.append(brief)

    def send_audio(self, data: bytes, *, keep: bool = False) -> None:
        self.heard += data
        self.kept += data if keep else b""

    def speak(self, instructions: str | None = None) -> None:
        self.told.append(("speak", instructions))

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        self.told.append(("interrupt", list(cuts), cancel))

    def update(self, brief: Brief) -> None:
        self.told.append(("update", brief))

    def end_turn(self) -> None:
        self.told.append("end turn")

    def renew(self, cause: str) -> None:
        self.told.append(("renew", cause))

    def tool_result(self, call_id: str, output: str, *, answer: bool = True) -> None:
        self.told.append(("result", call_id, output, answer))

    async def close(self) -> None:
        self.closed = True

    async def broken(self) -> None:
        raise RuntimeError


class DuplexSession(FakeSession):
    """Tells neither when the caller stops nor to which of their words an answer is."""

    capabilities = Capabilities(False, False, False, "append", True, resume=False, full_duplex=True)


class ResumingSession(FakeSession):
    """Goes on over other connections by itself."""

    capabilities = Capabilities(False, False, False, "note", False, resume=True, full_duplex=False)


class Line:
    """Sessions of a call, and what was heard of them."""

    def __init__(self, kind: type[FakeSession] = FakeSession) -> None:
        self.kind = kind
        self.made: list[FakeSession] = []
        self.events: list[ProviderEvent] = []
        self.refusals: list[ProviderError | None] = []
        self.sessions = Sessions(Settings(), ULAW, self.events.append, self._make, lambda: SAID)

    def _make(self, settings: Settings, audio: AudioFormat, on_event: OnProviderEvent, /) -> FakeSession:
        refusal = self.refusals.pop(0) if self.refusals else None
        self.made.append(self.kind(on_event, refusal))
        return self.made[-1]

    @property
    def latest(self) -> FakeSession:
        return self.made[-1]

    async def connected(self) -> None:
        self.latest.let.set()
        await self.sessions.connect(BRIEF)

    def emit(self, *events: ProviderEvent) -> None:
        """Let the present session tell something."""
        for event in events:
            self.latest.emit(event)

    def send(self, *parts: list[bytes]) -> None:
        """Let the caller be heard."""
        for frame in chain(*parts):
            self.sessions.send_audio(frame)

    def lose(self) -> None:
        self.latest.emit(Fault(LOST))

    async def follow(self) -> FakeSession:
        """Let the next session connect, and return it."""
        session = self.latest
        session.let.set()
        await asyncio.wait(self.sessions._tasks)
        return session

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events if not isinstance(event, ConnectionLost)]


class Clock:
    """The time that ``sessions`` sees."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "delays", lambda first, most: iter([0.0] * 99))
    return clock


def frames(count: int, *, loud: bool = True, first: int = 0) -> list[bytes]:
    """Return frames of a voice, or of silence, no two the same."""
    code = 0x20 if loud else 0xFE
    return [bytes([code, (first + index) % 2 + code]) * 80 for index in range(count)]


async def test_next_session_is_told_what_was_said(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.lose()
    clock.now += 0.4
    second = await line.follow()
    (brief,) = second.told
    assert brief.instructions.startswith(BRIEF.instructions)
    assert "lost for a moment" in brief.instructions
    assert brief.history == SAID
    assert brief.begun
    assert line.made[0].closed
    assert line.events == [ConnectionLost(), Reconnected(LOST.message, False, 400)]
    assert line.sessions.counters.reconnects == 1


async def test_answer_that_was_lost_is_asked_for(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.emit(ResponseStarted(), AgentAudio("item", b"\x55" * 160))
    line.latest.busy = True
    line.lose()
    assert line.events[-1] == ResponseDone("cancelled"), "the rest of it will not come"
    assert line.sessions.busy
    second = await line.follow()
    assert second.told[1:] == [("speak", None)]
    assert not line.sessions.busy


@pytest.mark.parametrize("words", [None, "Say good-bye."])
async def test_answer_that_was_asked_for_is_asked_for_again(clock: Clock, words: str | None) -> None:
    line = Line()
    await line.connected()
    line.sessions.speak(words)
    line.latest.busy = True
    line.lose()
    assert line.sessions.busy
    second = await line.follow()
    assert second.told[1:] == [("speak", words)]
    second.emit(ResponseStarted())
    second.emit(ResponseDone("completed"))
    line.lose()
    third = await line.follow()
    assert third.told[1:] == [], "once it was given, nobody asks again"


async def test_all_that_was_asked_for_is_asked_for_again_in_order(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.sessions.speak("A")
    line.sessions.speak("B")
    line.latest.busy = True
    line.emit(ResponseStarted())
    line.lose()
    line.sessions.speak("C")
    second = await line.follow()
    assert second.told[1:] == [("speak", "A"), ("speak", "B"), ("speak", "C")]


async def test_good_bye_over_an_answer_is_asked_for_again(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.sessions.speak()
    line.emit(ResponseStarted())
    line.latest.busy = True
    line.sessions.interrupt([], cancel=True)
    line.sessions.speak("Say good-bye.")
    line.emit(ResponseDone("cancelled"))
    line.lose()
    second = await line.follow()
    assert second.told[1:] == [("speak", "Say good-bye.")]


async def test_request_outlives_an_answer_that_the_ai_gave_of_its_own(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.sessions.speak("Say good-bye.")
    line.latest.busy = True
    line.emit(ResponseStarted(), SOUND, ResponseDone("completed"))
    line.lose()
    second = await line.follow()
    assert second.told[1:] == [("speak", "Say good-bye.")]


async def test_what_is_cancelled_meanwhile_is_not_asked_for(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.emit(ResponseStarted())
    line.latest.busy = True
    line.lose()
    line.sessions.speak("The colleague is busy.")
    line.sessions.interrupt([], cancel=True)
    second = await line.follow()
    assert second.told[1:] == [("speak", "The colleague is busy.")], "but what waits still is"


async def test_instructions_that_change_while_it_connects_are_told_then(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.lose()
    await asyncio.wait_for(line.latest.connecting.wait(), 1)
    line.sessions.update(Brief("Now confirm the appointment."))
    second = await line.follow()
    (what, brief) = second.told[1]
    assert what == "update"
    assert brief.instructions.startswith("Now confirm the appointment.")


async def test_words_that_nobody_answered_are_heard_again(clock: Clock) -> None:
    line = Line()
    await line.connected()
    silence, voice = frames(100, loud=False), frames(60)
    line.send(silence, voice[:30])
    line.emit(SpeechStarted())
    line.sessions.send_audio(voice[30])
    line.lose()
    assert line.events[-1] == SpeechStopped()
    line.send(voice[31:])
    second = await line.follow()
    assert second.heard == b"".join([*silence[-15:], *voice]), "300 ms before the first sound, and all since"
    assert len(second.told) == 1, "the words themselves bring the answer"


async def test_words_that_the_ai_had_not_noticed_are_heard_by_the_next(clock: Clock) -> None:
    line = Line()
    await line.connected()
    voice = frames(40)
    line.send(voice)
    line.lose()
    second = await line.follow()
    assert second.heard == b"".join(voice)


async def test_question_without_a_text_is_heard_again_in_place_of_going_on(clock: Clock) -> None:
    """The answer had begun, and the words were not written down: nobody could tell of them."""
    line = Line()
    await line.connected()
    voice = frames(40)
    line.emit(SpeechStarted())
    line.send(voice)
    line.emit(SpeechStopped(), ResponseStarted(), CallerText("caller-1", ""))
    line.latest.busy = True
    line.lose()
    second = await line.follow()
    assert second.heard == b"".join(voice)
    assert len(second.told) == 1


async def test_late_text_of_the_turn_before_does_not_lose_the_present_one(clock: Clock) -> None:
    line = Line()
    await line.connected()
    voice = frames(40)
    line.emit(SpeechStarted())
    line.send(voice)
    line.emit(CallerText("caller-1", "Yes."), ResponseStarted())
    line.lose()
    second = await line.follow()
    assert second.heard == b"".join(voice)


@pytest.mark.parametrize("sign", [[SpeechStarted(), SpeechStopped()], [CallerActive()]])
async def test_words_that_are_written_down_are_not_heard_again_but_answered(
    clock: Clock, sign: list[ProviderEvent]
) -> None:
    line = Line()
    await line.connected()
    line.send(frames(40))
    line.emit(*sign, CallerText("caller-1", "I have a toothache."))
    line.lose()
    second = await line.follow()
    assert second.heard == b""
    assert second.told[1:] == [("speak", None)]


async def test_words_that_were_answered_are_not_heard_again(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.send(frames(40))
    line.emit(SpeechStarted(), SpeechStopped(), ResponseStarted(), SOUND, ResponseDone("completed"))
    line.lose()
    second = await line.follow()
    assert second.heard == b""
    assert len(second.told) == 1


async def test_late_text_of_an_earlier_turn_is_not_that_of_the_latest(clock: Clock) -> None:
    line = Line()
    await line.connected()
    second_turn = frames(40, first=1)
    line.emit(SpeechStarted(), SpeechStopped(), ResponseStarted(), SpeechStarted())
    line.emit(ResponseDone("cancelled"))
    line.send(second_turn)
    line.emit(SpeechStopped(), CallerText("caller-1", "On Monday."))
    line.lose()
    second = await line.follow()
    assert second.heard == b"".join(second_turn)
    assert len(second.told) == 1


async def test_answer_is_not_to_what_was_said_while_it_was_given(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.emit(SpeechStarted(), SpeechStopped(), CallerText("1", "Monday."), ResponseStarted())
    line.emit(SpeechStarted())
    voice = frames(40)
    line.send(voice)
    line.emit(SpeechStopped(), SOUND, ResponseDone("completed"))
    line.lose()
    second = await line.follow()
    assert second.heard == b"".join(voice)


async def test_rest_of_a_sentence_is_heard_by_the_next_session(clock: Clock) -> None:
    """Its beginning is written down: the transcript lags a second or two behind the sound."""
    line = Line(DuplexSession)
    await line.connected()
    beginning, rest = frames(60), frames(40, first=1)
    line.send(beginning, rest)
    line.emit(CallerActive(), CallerText("caller-1", "I would like", unwritten_ms=800))
    line.lose()
    second = await line.follow()
    assert second.heard == b"".join(rest)
    assert second.told[1:] == [("speak", None)]


async def test_rest_that_is_silence_is_not_heard_again(clock: Clock) -> None:
    line = Line(DuplexSession)
    await line.connected()
    line.send(frames(60), frames(40, loud=False))
    line.emit(CallerActive(), CallerText("caller-1", "I would like a pizza.", unwritten_ms=800))
    line.lose()
    second = await line.follow()
    assert second.heard == b""
    assert second.told[1:] == [("speak", None)]


async def test_words_before_an_answer_are_answered_by_it_however_late_they_are_told(clock: Clock) -> None:
    line = Line(DuplexSession)
    await line.connected()
    line.emit(ResponseStarted(), SOUND, CallerActive(earlier=True), ResponseDone("completed"))
    line.emit(CallerText("caller-1", "When are you open?"))
    line.lose()
    second = await line.follow()
    assert second.told[1:] == []


async def test_words_within_an_answer_are_not_answered_by_it(clock: Clock) -> None:
    line = Line(DuplexSession)
    await line.connected()
    line.emit(ResponseStarted(), SOUND, CallerActive(), ResponseDone("completed"))
    line.emit(CallerText("caller-1", "With ham."))
    line.lose()
    second = await line.follow()
    assert second.told[1:] == [("speak", None)]


async def test_words_right_after_an_answer_are_heard_again(clock: Clock) -> None:
    """That the answer is over is known later than they begin, and their text later still."""
    line = Line(DuplexSession)
    await line.connected()
    line.emit(CallerActive(), ResponseStarted())
    line.send(frames(100, loud=False))
    quick = frames(50)
    line.send(quick[:30])
    line.emit(ResponseDone("completed"))
    line.send(quick[30:])
    line.lose()
    second = await line.follow()
    assert second.heard.endswith(b"".join(quick))
    assert second.kept == second.heard, "a socket that stalls must not cost the caller's words"


async def test_text_that_never_comes_does_not_tell_later_ones_twice(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.emit(SpeechStarted(), SpeechStopped(), ResponseStarted(), SOUND, ResponseDone("completed"))
    line.emit(SpeechStarted())
    line.send(frames(40))
    line.emit(SpeechStopped(), CallerText("caller-2", "On Monday."))
    line.lose()
    second = await line.follow()
    assert second.heard == b""
    assert second.told[1:] == [("speak", None)]


async def test_no_more_than_15_s_are_kept_and_what_is_dropped_is_counted(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.lose()
    many = [count.to_bytes(2, "big") * 80 for count in range(KEPT_FRAMES + 7)]
    line.send(many)
    second = await line.follow()
    assert second.heard == b"".join(many[7:])
    assert line.sessions.counters.uplink_dropped_frames == 7


async def test_result_that_the_agent_had_not_spoken_of_is_told_to_the_next(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.emit(ResponseStarted(), ToolCall("call-1", "book", "{}"))
    line.sessions.tool_result("call-1", "booked for Monday")
    line.emit(ResponseDone("completed"))
    line.latest.busy = True
    line.lose()
    second = await line.follow()
    assert "book" in second.told[0].instructions
    assert "booked for Monday" in second.told[0].instructions
    assert second.told[1:] == [("speak", None)]


async def test_result_that_the_agent_has_spoken_of_is_not_told_again(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.emit(ToolCall("call-1", "book", "{}"))
    line.sessions.tool_result("call-1", "booked for Monday")
    line.emit(ResponseStarted(), SOUND, ResponseDone("completed"))
    line.lose()
    second = await line.follow()
    assert "booked for Monday" not in second.told[0].instructions


async def test_results_of_tools_of_the_lost_session_are_told_in_words_and_bring_one_answer(
    clock: Clock,
) -> None:
    line = Line()
    await line.connected()
    line.emit(ToolCall("call-1", "book", "{}"), ToolCall("call-2", "note", "{}"))
    line.latest.busy = True
    line.lose()
    second = await line.follow()
    assert len(second.told) == 1, "the results are still to come, and with them the answer"
    assert "book that you called is still at work" in second.told[0].instructions
    line.sessions.tool_result("call-1", "booked for Monday")
    assert len(second.told) == 1
    line.sessions.tool_result("call-2", "noted", answer=False)
    (what, brief), ask = second.told[1:]
    assert what == "update"
    assert "booked for Monday" in brief.instructions
    assert "noted" in brief.instructions
    assert "still at work" not in brief.instructions
    assert ask == ("speak", None)
    second.emit(ToolCall("call-1", "book", "{}"))
    line.sessions.tool_result("call-1", "again")
    assert second.told[-1] == ("result", "call-1", "again", True)


async def test_result_that_comes_while_it_connects_is_told_then(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.emit(ToolCall("call-1", "book", "{}"))
    line.lose()
    await asyncio.wait_for(line.latest.connecting.wait(), 1)
    line.sessions.tool_result("call-1", "booked for Monday")
    line.sessions.interrupt([], cancel=True)
    second = await line.follow()
    (what, brief), ask = second.told[1:]
    assert (what, ask) == ("update", ("speak", None))
    assert "booked for Monday" in brief.instructions


async def test_items_of_two_sessions_are_told_apart(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.emit(AgentAudio("live-1", b"\x01"))
    line.lose()
    second = await line.follow()
    line.made[0].emit(AgentText("live-1", "Good morning."))
    line.made[0].emit(AgentAudio("live-1", b"\x02"))
    second.emit(AgentAudio("live-1", b"\x03"))
    first, *_, last = (event for event in line.events if isinstance(event, AgentAudio))
    assert first.item_id != last.item_id
    assert [event.data for event in line.events if isinstance(event, AgentAudio)] == [b"\x01", b"\x03"]
    assert AgentText("live-1", "Good morning.") in line.events, "the last words of the first one"
    line.sessions.interrupt([Cut("live-1", 10, 20), Cut(last.item_id, 30, 40)])
    assert second.told[-1] == ("interrupt", [Cut("live-1", 30, 40)], False), "of its own items alone"


async def test_session_that_cannot_be_had_ends_it(clock: Clock) -> None:
    line = Line()
    await line.connected()
    refusal = ProviderError("fake", "the key is refused", code="401")
    line.refusals.append(refusal)
    line.lose()
    await line.follow()
    assert line.events[-1] == Fault(refusal)


@pytest.mark.parametrize("code", ["1000", "1008", "4008"])
async def test_session_that_is_closed_before_it_is_set_up_is_followed_by_another(
    clock: Clock, code: str
) -> None:
    """No refusal was named, and the service took the same a moment ago."""
    line = Line()
    await line.connected()
    line.refusals.append(ProviderError("fake", "the server closed the connection", code=code))
    line.lose()
    await line.follow()
    await line.follow()
    assert not [event for event in line.events if isinstance(event, Fault)]
    assert isinstance(line.events[-1], Reconnected)


async def test_sessions_that_are_all_closed_before_they_are_set_up_are_given_up(clock: Clock) -> None:
    line = Line()
    await line.connected()
    closed = ProviderError("fake", "the server closed the connection", code="1000")
    line.refusals += [closed] * MOST_FRUITLESS
    line.lose()
    for _ in range(MOST_FRUITLESS):
        await line.follow()
    assert line.events[-1] == Fault(closed)


async def test_fault_that_another_session_would_not_mend_is_told(clock: Clock) -> None:
    line = Line()
    await line.connected()
    fault = Fault(ProviderError("fake", "no credit", code="insufficient_quota"))
    line.emit(fault)
    line.lose()
    assert line.events[0] == fault
    assert len(line.made) == 1, "what is over is not replaced"


async def test_sessions_that_are_lost_one_after_another_are_given_up(clock: Clock) -> None:
    line = Line()
    await line.connected()
    for _ in range(MOST_FRUITLESS):
        line.lose()
        await line.follow()
    line.lose()
    assert line.events[-1] == Fault(LOST)
    assert len(line.made) == MOST_FRUITLESS + 1


async def test_session_that_lasted_forgives_those_before_it(clock: Clock) -> None:
    line = Line()
    await line.connected()
    for _ in range(2 * MOST_FRUITLESS):
        clock.now += LASTED_S
        line.lose()
        await line.follow()
    assert line.kinds() == ["Reconnected"] * 2 * MOST_FRUITLESS


async def test_session_that_is_lost_before_it_is_ready_is_replaced(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.latest.busy = True
    line.lose()
    second = line.latest
    line.lose()
    second.let.set()
    third = await line.follow()
    assert second.closed
    assert third.told[1:] == [("speak", None)], "still owed"
    assert line.kinds().count("Reconnected") == 1


async def test_sessions_in_which_the_agent_spoke_bring_the_call_forward(clock: Clock) -> None:
    line = Line()
    await line.connected()
    for _ in range(3 * MOST_FRUITLESS):
        line.emit(ResponseStarted(), SOUND, ResponseDone("completed"))
        clock.now += USEFUL_S
        line.lose()
        await line.follow()
    assert not [event for event in line.events if isinstance(event, Fault)]


async def test_session_that_was_ended_for_what_was_said_does_not_make_the_next_hear_it(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.emit(SpeechStarted())
    line.send(frames(20))
    line.emit(SpeechStopped())
    line.emit(Fault(ProviderError("fake", "content", code="content", lost=True, rejected=True)))
    second = await line.follow()
    assert second.heard == b""
    assert ("speak", None) in second.told, "somebody must go on"


async def test_mute_session_is_replaced_and_the_caller_heard_again(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.sessions.speak()
    line.emit(SpeechStarted())
    line.send(frames(20))
    line.emit(SpeechStopped())
    line.sessions.renew("mute", again=True)
    second = await line.follow()
    assert second.kept.endswith(b"".join(frames(20)))
    assert ("speak", None) not in second.told, "the words bring the answer"


async def test_mute_session_that_was_asked_is_replaced_by_one_that_is(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.sessions.speak("Greet.")
    line.sessions.renew("mute", again=False)
    line.sessions.speak("Greet.")
    second = await line.follow()
    assert second.told[1:] == [("speak", "Greet.")]


async def test_session_that_goes_on_over_another_connection_is_told_of_tools(clock: Clock) -> None:
    line = Line(ResumingSession)
    await line.connected()
    line.emit(ToolCall("a", "book", '{"day": "Monday"}'))
    line.emit(ConnectionLost())
    update = line.latest.told[-1]
    assert "still at work: do not call it again" in update[1].instructions
    assert "was lost for a moment" not in update[1].instructions
    line.emit(ToolCall("b", "book", '{"day":"Monday"}'))
    assert line.kinds() == ["ToolCall"], "it runs once"
    assert line.sessions.tool_result("a", "booked")
    assert line.latest.told[-2:] == [("result", "a", "booked", False), ("result", "b", "booked", True)]


async def test_result_of_a_tool_that_nobody_asked_again_is_told_in_words(clock: Clock) -> None:
    line = Line(ResumingSession)
    await line.connected()
    line.emit(ToolCall("a", "book", "{}"))
    line.emit(ConnectionLost())
    assert line.sessions.tool_result("a", "booked")
    update, result, asked = line.latest.told[-3:]
    assert "has returned: booked" in update[1].instructions
    assert (result, asked) == (("result", "a", "booked", False), ("speak", None))


async def test_sessions_that_are_lost_before_they_are_ready_are_given_up(clock: Clock) -> None:
    line = Line()
    await line.connected()
    clock.now += LASTED_S
    for _ in range(MOST_FRUITLESS + 1):
        line.lose()
    assert line.events == [ConnectionLost(), Fault(LOST)]
    for session in line.made:
        session.let.set()
    await asyncio.wait(line.sessions._tasks)
    assert line.events == [ConnectionLost(), Fault(LOST)], "once is enough"


async def test_bug_in_closing_the_lost_one_ends_the_call(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.latest.close = line.latest.broken  # type: ignore[method-assign]
    line.lose()
    await line.follow()
    fault = line.events[-1]
    assert isinstance(fault, Fault)
    assert "RuntimeError" in fault.error.message


async def test_nothing_is_opened_after_the_end(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.lose()
    await line.sessions.close()
    assert not line.sessions._tasks
    assert line.latest.closed
    line.lose()
    assert len(line.made) == 2


async def test_lost_session_is_closed_though_the_call_ends_at_once(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.lose()
    await line.sessions.close()
    assert [session.closed for session in line.made] == [True, True]


async def test_counters_are_those_of_all_sessions(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.latest.counters.messages_in = 5
    line.latest.counters.usage["seconds"] = 40
    line.lose()
    second = await line.follow()
    second.counters.messages_in = 2
    second.counters.usage["seconds"] = 3
    total = line.sessions.counters
    assert (total.messages_in, total.usage, total.reconnects) == (7, {"seconds": 43}, 1)
