"""A Gemini session whose connections fail in ways that the emulated service does not."""

from __future__ import annotations

import asyncio
import time
from itertools import repeat

import numpy as np
import pytest
from geminiline import LOUD, SILENCE, TOOLS, by_number, hurry, line
from googlepeer import (
    DONE,
    READY,
    Peer,
    agent_said,
    caller_said,
    content,
    handle,
    ready,
    sound,
    tool_call,
)

from arivox.providers.base import (
    AgentAudio,
    AgentAudioDone,
    AgentText,
    Brief,
    CallerText,
    Fault,
    Interrupted,
    Reconnected,
    ResponseDone,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallsCancelled,
)
from arivox.providers.gemini import rotation


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


# --- connections that do not last ---


@pytest.mark.parametrize(
    ("code", "reason"), [(1011, "Internal error encountered."), (1008, "Not implemented.")]
)
async def test_service_that_drops_every_connection_is_given_up(code: int, reason: str) -> None:
    async def drop(peer: Peer) -> None:
        await peer.send(READY)
        await peer.close(code, reason)

    async with line(drop) as made:
        fault = await made.until(Fault)
        assert fault.error.fatal
        assert reason in fault.error.message
        assert len(made.google.peers) == 1 + rotation.MOST_FRUITLESS


async def test_connection_that_is_gone_as_soon_as_it_is_set_up_is_replaced() -> None:
    async def vanish(peer: Peer) -> None:
        await peer.send(READY)
        peer.abort()

    async with line(by_number(vanish, ready)) as made:
        await made.until(Reconnected)
        assert len(made.google.peers) == 2


async def test_connection_that_was_of_use_is_opened_again_each_time() -> None:
    async def answer(peer: Peer) -> None:
        await peer.send(READY, handle(f"h{peer.number}"), sound(), DONE)
        await peer.until(lambda: peer.asked or peer.number < 10)
        if peer.number < 10:
            await peer.close(1011, "Internal error encountered.")

    async with line(answer) as made:
        await made.google.peer(10)
        await made.until(Reconnected, 9)
        assert made.of(Fault) == []


async def test_going_away_at_once_again_and_again_is_no_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "_SETTLE_S", 0.2)
    monkeypatch.setattr(rotation, "_SHORTEST_S", 0.2)

    async def leave(peer: Peer) -> None:
        await peer.send(READY, {"goAway": {"timeLeft": "0s"}})

    begun = time.monotonic()
    async with line(leave) as made:
        await made.google.peer(4)
        assert time.monotonic() - begun > 3 * 0.19


async def test_bug_in_opening_another_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with line(ready) as made:

        async def broken() -> tuple[str, dict[str, str]]:
            raise RuntimeError("no")

        monkeypatch.setattr(made.session._opener._endpoint, "open", broken)
        made.google.peers[0].abort()
        fault = await made.until(Fault)
        assert fault.error.fatal


async def test_message_that_makes_a_bug_of_ours_does_not_cost_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with line(ready) as made:

        def broken(content: object) -> None:
            raise TypeError("no")

        monkeypatch.setattr(made.session, "_content", broken)
        peer = made.google.peers[0]
        await peer.send(DONE)
        await peer.send(tool_call("c1"))
        await made.until(ToolCall)
        assert len(made.google.peers) == 1


# --- what was lost with a connection ---


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("cough", [False, True])
async def test_what_was_to_be_said_is_asked_for_again(begun: bool, cough: bool) -> None:
    async def lose(peer: Peer) -> None:
        await peer.send(READY, handle("h"))
        await peer.until(lambda: peer.asked)
        if begun:
            await peer.send(sound())
        await peer.send({"usageMetadata": {}})
        await peer.until(lambda: peer.of("toolResponse"))

    async with line(by_number(lose, ready)) as made:
        if cough:
            made.hear(repeat(LOUD, 5), repeat(SILENCE, 20))
        made.session.speak("Say good-bye.")
        first = await made.google.peer(1)
        await first.until(lambda: first.asked)
        if begun:
            await made.until(AgentAudio)
        first.abort()
        second = await made.google.peer(2)
        await second.until(lambda: second.asked)
        assert second.asked == ["Say good-bye."]


async def test_answered_question_is_not_heard_again_but_told() -> None:
    async def answer(peer: Peer) -> None:
        await peer.send(READY, handle("h"))
        await peer.until(lambda: len(peer.audio) > 60 * 640)
        await peer.send(caller_said("When are you open?"), sound(), agent_said("From nine."))
        await peer.send(content(generationComplete=True))

    async with line(by_number(answer, ready)) as made:
        first = await made.google.peer(1)
        made.hear(repeat(LOUD, 50), repeat(SILENCE, 20))
        await made.until(AgentAudioDone)
        first.abort()
        second = await made.google.peer(2)
        await second.until(lambda: second.of("clientContent"))
        (told,) = second.of("clientContent")
        assert told == {
            "turns": [
                {"role": "user", "parts": [{"text": "When are you open?"}]},
                {"role": "model", "parts": [{"text": "From nine."}]},
            ],
            "turnComplete": False,
        }
        await second.until(lambda: second.audio)
        assert not np.frombuffer(second.audio, "<i2").any(), "the question is not heard a second time"
        assert second.asked == []


async def test_question_without_an_answer_is_heard_again_and_not_told() -> None:
    async def begin(peer: Peer) -> None:
        await peer.send(READY, handle("h"))
        await peer.until(lambda: len(peer.audio) > 60 * 640)
        await peer.send(caller_said("When are you open?"), sound())

    async with line(by_number(begin, ready)) as made:
        first = await made.google.peer(1)
        made.hear(repeat(LOUD, 50), repeat(SILENCE, 20))
        await made.until(AgentAudio)
        first.abort()
        second = await made.google.peer(2)
        await second.until(lambda: second.audio)
        assert np.abs(np.frombuffer(second.audio, "<i2")).max() > 7000
        assert second.of("clientContent") == []
        assert second.asked == []


async def test_connection_that_was_made_ready_before_a_turn_is_not_used_after_it() -> None:
    """While the next connection is being opened the caller moves to another state."""
    opening, go_on = asyncio.Event(), asyncio.Event()

    async def first(peer: Peer) -> None:
        await peer.send(READY, handle("old"), {"goAway": {"timeLeft": "50s"}})

    async def slow(peer: Peer) -> None:
        opening.set()
        await go_on.wait()
        await peer.send(READY)

    async with line(by_number(first, slow, ready)) as made:
        await asyncio.wait_for(opening.wait(), 5)
        peer = made.google.peers[0]
        await peer.send(tool_call("c1"))
        await made.until(ToolCall)
        made.session.update(Brief("time", TOOLS))
        made.session.tool_result("c1", '{"ok": true}')
        await peer.send(sound(), DONE, handle("new"))
        await made.until(ResponseDone)
        go_on.set()
        third = await made.google.peer(3)
        assert third.setup["sessionResumption"] == {"handle": "new"}
        assert third.setup["systemInstruction"]["parts"] == [{"text": "time"}]
        await made.until(Reconnected)


async def test_instructions_that_changed_while_there_was_no_connection_are_told() -> None:
    opening, go_on = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        opening.set()
        await go_on.wait()
        await peer.send(READY)

    async with line(by_number(ready, slow)) as made:
        (await made.google.peer(1)).abort()
        await asyncio.wait_for(opening.wait(), 5)
        made.session.update(Brief("time", TOOLS))
        go_on.set()
        await made.until(Reconnected)
        second = made.google.peers[1]
        await second.until(lambda: second.of("clientContent"))
        assert "time" in str(second.of("clientContent"))


async def test_caller_who_was_speaking_is_not_taken_to_speak_for_ever() -> None:
    async def speaking(peer: Peer) -> None:
        await peer.send(READY, {"voiceActivity": {"type": "ACTIVITY_START"}})

    async def interrupted(peer: Peer) -> None:
        await peer.send(READY, sound(), content(interrupted=True), content(turnComplete=True))

    async with line(by_number(speaking, interrupted)) as made:
        await made.until(SpeechStarted)
        made.google.peers[0].abort()
        await made.until(Interrupted)
        assert len(made.of(SpeechStopped)) == 1


# --- tools ---


async def test_result_that_nobody_reads_takes_no_instructions_with_it() -> None:
    async def cancel(peer: Peer) -> None:
        await peer.send(READY, tool_call("c1"))
        await peer.until(lambda: peer.of("toolResponse"))
        await peer.send({"toolCallCancellation": {"ids": ["c1"]}}, content(interrupted=True))
        await peer.send(content(turnComplete=True))

    async with line(cancel) as made:
        await made.until(ToolCall)
        made.session.update(Brief("time", TOOLS))
        made.session.tool_result("c1", '{"ok": true}')
        assert (await made.until(ToolCallsCancelled)).call_ids == ("c1",)
        peer = made.google.peers[0]
        await peer.until(lambda: peer.of("clientContent"))
        assert "time" in str(peer.of("clientContent"))


# --- words ---


@pytest.mark.parametrize("end", ["close", "refusal"])
async def test_last_words_are_told_when_the_session_ends(end: str) -> None:
    async def speak(peer: Peer) -> None:
        await peer.send(READY, caller_said("Forget it."), sound(), agent_said("As you"))

    async with line(speak) as made:
        await made.until(AgentAudio)
        if end == "close":
            await made.once(lambda: made.session._turns._agent_words, "no words")
            await made.session.close()
        else:
            await made.once(lambda: made.session._turns._agent_words, "no words")
            await made.google.peers[0].close(1008, "Permission denied on resource project x.")
            await made.until(Fault)
        assert [event.text for event in made.of(CallerText)] == ["Forget it."]
        assert [event.text for event in made.of(AgentText)] == ["As you"]


async def test_late_words_of_the_caller_are_told_in_one_piece() -> None:
    async def speak(peer: Peer) -> None:
        await peer.send(READY, caller_said("I would "))
        for words in ("like to ", "book a ", "table"):
            await peer.send(sound(20), caller_said(words))
        await peer.send(DONE)

    async with line(speak) as made:
        await made.until(ResponseDone)
        assert [event.text for event in made.of(CallerText)] == ["I would", "like to book a table"]


async def test_only_sound_is_played() -> None:
    picture = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}

    async def draw(peer: Peer) -> None:
        await peer.send(READY, content(modelTurn={"parts": [picture]}), DONE)

    async with line(draw) as made:
        await made.google.peers[0].until(lambda: True)
        made.google.peers[0].abort()
        await made.until(Reconnected)
        assert made.of(AgentAudio) == []
