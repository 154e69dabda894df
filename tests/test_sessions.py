"""The AI's sessions of one call: what the next one is told and asked after one is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

import arivox.sessions as module
from arivox.audio.format import ULAW, AudioFormat
from arivox.errors import ProviderError
from arivox.media.playout import Cut
from arivox.providers.base import (
    AgentAudio,
    AgentText,
    Brief,
    CallerActive,
    CallerText,
    Capabilities,
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
from arivox.sessions import LASTED_S, MOST_FRUITLESS, Sessions
from arivox.settings import Settings

BRIEF = Brief("You are a dentist's receptionist.")
LOST = ProviderError("fake", "the server closed the connection (code 1006)", code="1006", lost=True)
SAID = (Utterance("caller", "I have a toothache."),)


class FakeSession:
    """Notes what it is told; connects when it is let."""

    name = "fake"
    capabilities = Capabilities(True, True, True, "session", True, resume=False, full_duplex=False)

    def __init__(self, on_event: OnProviderEvent, refusal: ProviderError | None = None) -> None:
        self.emit = on_event
        self.told: list[Any] = []
        self.heard = b""
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

    def send_audio(self, data: bytes) -> None:
        self.heard += data

    def speak(self, instructions: str | None = None) -> None:
        self.told.append(("speak", instructions))

    def interrupt(self, cuts: Sequence[Cut], *, cancel: bool = False) -> None:
        self.told.append(("interrupt", list(cuts), cancel))

    def update(self, brief: Brief) -> None:
        self.told.append(("update", brief))

    def tool_result(self, call_id: str, output: str, *, answer: bool = True) -> None:
        self.told.append(("result", call_id, output, answer))

    async def close(self) -> None:
        self.closed = True


class Line:
    """Sessions of a call, and what was heard of them."""

    def __init__(self) -> None:
        self.made: list[FakeSession] = []
        self.events: list[ProviderEvent] = []
        self.refusals: list[ProviderError | None] = []
        self.sessions = Sessions(Settings(), ULAW, self.events.append, self._make, lambda: SAID)

    def _make(self, settings: Settings, audio: AudioFormat, on_event: OnProviderEvent, /) -> FakeSession:
        refusal = self.refusals.pop(0) if self.refusals else None
        self.made.append(FakeSession(on_event, refusal))
        return self.made[-1]

    @property
    def latest(self) -> FakeSession:
        return self.made[-1]

    async def connected(self) -> None:
        self.latest.let.set()
        await self.sessions.connect(BRIEF)

    def lose(self) -> None:
        self.latest.emit(Fault(LOST))

    async def follow(self) -> FakeSession:
        """Let the next session connect, and return it."""
        session = self.latest
        session.let.set()
        await asyncio.wait(self.sessions._tasks)
        return session

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


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


async def test_next_session_is_told_what_was_said(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.lose()
    clock.now += 0.4
    second = await line.follow()
    assert second.told == [Brief(BRIEF.instructions, history=SAID)], "nobody waits for an answer"
    assert line.made[0].closed
    (event,) = line.events
    assert event == Reconnected(LOST.message, False, 400)
    assert line.sessions.counters.reconnects == 1


async def test_answer_that_was_lost_is_asked_for(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.latest.emit(ResponseStarted())
    line.latest.emit(AgentAudio("item", b"\x55" * 160))
    line.latest.busy = True
    line.lose()
    assert line.events[-1] == ResponseDone("cancelled"), "the rest of it will not come"
    assert line.sessions.busy
    second = await line.follow()
    assert [what for what, *_ in second.told[1:]] == ["speak"]
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


async def test_what_was_asked_for_meanwhile_is_asked_for_then(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.latest.busy = True
    line.lose()
    new = Brief("Now confirm the appointment.")
    line.sessions.update(new)
    line.sessions.speak("Say that it is booked.")
    assert line.sessions.busy
    second = await line.follow()
    assert second.told[0].instructions == new.instructions
    assert second.told[1:] == [("speak", "Say that it is booked.")], "in place of going on"


async def test_instructions_that_change_while_it_connects_are_told_then(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.lose()
    await asyncio.wait_for(line.latest.connecting.wait(), 1)
    new = Brief("Now confirm the appointment.")
    line.sessions.update(new)
    second = await line.follow()
    assert second.told == [Brief(BRIEF.instructions, history=SAID), ("update", new)]


async def test_words_that_nobody_answered_are_heard_again(clock: Clock) -> None:
    line = Line()
    await line.connected()
    frames = [bytes([count]) * 160 for count in range(200)]
    for frame in frames[:100]:
        line.sessions.send_audio(frame)
    line.latest.emit(SpeechStarted())
    for frame in frames[100:120]:
        line.sessions.send_audio(frame)
    line.lose()
    assert line.events[-1] == SpeechStopped()
    for frame in frames[120:130]:
        line.sessions.send_audio(frame)
    second = await line.follow()
    assert second.heard == b"".join(frames[50:130]), "a second before the AI noticed, and all since"
    assert len(second.told) == 1, "the words themselves bring the answer"


@pytest.mark.parametrize("sign", [SpeechStarted(), CallerActive()])
async def test_words_that_are_written_down_are_not_heard_again_but_answered(
    clock: Clock, sign: ProviderEvent
) -> None:
    line = Line()
    await line.connected()
    line.sessions.send_audio(b"\x01" * 160)
    line.latest.emit(sign)
    line.latest.emit(CallerText("caller-1", "I have a toothache."))
    line.lose()
    second = await line.follow()
    assert second.heard == b""
    assert [what for what, *_ in second.told[1:]] == ["speak"]


async def test_words_that_were_answered_are_not_heard_again(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.sessions.send_audio(b"\x01" * 160)
    for event in (SpeechStarted(), SpeechStopped(), ResponseStarted(), ResponseDone("completed")):
        line.latest.emit(event)
    line.latest.emit(CallerText("caller-1", "Hello."))
    line.lose()
    second = await line.follow()
    assert second.heard == b""
    assert len(second.told) == 1


async def test_result_of_a_tool_of_the_lost_session_is_told_in_words(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.latest.emit(ToolCall("call-1", "book", "{}"))
    line.latest.emit(ToolCall("call-2", "note", "{}"))
    line.latest.busy = True
    line.lose()
    second = await line.follow()
    assert len(second.told) == 1, "the result is still to come, and with it the answer"
    line.sessions.tool_result("call-2", "noted", answer=False)
    assert len(second.told) == 1
    line.sessions.tool_result("call-1", "booked for Monday")
    ((what, words),) = second.told[1:]
    assert what == "speak"
    assert "book" in words
    assert "booked for Monday" in words
    second.emit(ToolCall("call-1", "book", "{}"))
    line.sessions.tool_result("call-1", "again")
    assert second.told[-1] == ("result", "call-1", "again", True)


async def test_items_of_two_sessions_are_told_apart(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.latest.emit(AgentAudio("live-1", b"\x01"))
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


async def test_fault_that_another_session_would_not_mend_is_told(clock: Clock) -> None:
    line = Line()
    await line.connected()
    fault = Fault(ProviderError("fake", "no credit", code="insufficient_quota"))
    line.latest.emit(fault)
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
    assert [type(told).__name__ for told in second.told] in ([], ["Brief"])
    assert [what for what, *_ in third.told[1:]] == ["speak"], "still owed"
    assert line.kinds().count("Reconnected") == 1


async def test_nothing_is_opened_after_the_end(clock: Clock) -> None:
    line = Line()
    await line.connected()
    line.lose()
    await line.sessions.close()
    assert not line.sessions._tasks
    assert line.latest.closed
    line.lose()
    assert len(line.made) == 2


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
