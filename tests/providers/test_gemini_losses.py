"""What a Gemini session does when its connections end, hang or fall silent: the conversation goes on, the
caller is heard once, and a tool is asked for once.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import repeat
from typing import Any

import pytest
from geminiline import LOUD, SILENCE, TOOLS, Line, by_number, hurry, line, loud
from googlepeer import (
    DONE,
    READY,
    Behaviour,
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
    AgentText,
    Brief,
    CallerActive,
    CallerText,
    ConnectionLost,
    Fault,
    Reconnected,
    ResponseDone,
    ResponseStarted,
    ToolCall,
    ToolCallsCancelled,
)
from arivox.providers.gemini import opener, rotation
from arivox.providers.gemini.requests import GO_ON, MISSED, SPEAK
from arivox.providers.socket import ProviderSocket

INVALID = "Request contains an invalid argument."
GOING = {"goAway": {"timeLeft": "50s"}}
WORDS = 60 * 640  # bytes of a question of a second, and its pause


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def ask(made: Line) -> None:
    """Have the caller ask something."""
    made.hear(repeat(LOUD, 50), repeat(SILENCE, 20))


def closes(code: int, reason: str = "", *before: dict[str, Any]) -> Behaviour:
    """Return a connection that closes on the caller's question."""

    async def behave(peer: Peer) -> None:
        await peer.send(READY)
        await peer.until(lambda: len(peer.audio) > WORDS)
        await peer.send(*before)
        await peer.close(code, reason)

    return behave


def refuses(code: int, reason: str) -> Behaviour:
    async def behave(peer: Peer) -> None:
        await peer.close(code, reason)

    return behave


async def hangs(peer: Peer) -> None:
    """Take the connection, and never the session."""


async def named(peer: Peer) -> None:
    """Take the session, and give it a handle."""
    await peer.send(READY, handle(f"h{peer.number}"))


# --- whatever ends a session that was set up ---


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1013, 3000, 4000])
async def test_conversation_goes_on_after_a_close(code: int) -> None:
    async def close(peer: Peer) -> None:
        await peer.send(READY, handle("h"), sound(), DONE)
        await peer.close(code, "for a reason of its own")

    async with line(by_number(close, ready)) as made:
        second = await made.google.peer(2)
        await made.until(Reconnected)
        assert second.setup["sessionResumption"] == {"handle": "h"}
        assert made.of(Fault) == []


@pytest.mark.parametrize("reason", ["", INVALID])
async def test_what_tripped_the_service_is_not_sent_again(reason: str) -> None:
    async def once_more(peer: Peer) -> None:
        await peer.send(READY)
        await peer.until(lambda: peer.asked)
        peer.abort()

    first = closes(1007, reason, caller_said("My number is four two."))
    async with line(by_number(first, once_more, ready)) as made:
        ask(made)
        second = await made.google.peer(2)
        await second.until(lambda: second.asked)
        assert second.asked == [MISSED]
        assert "four two" in str(second.of("clientContent")), "what is known of it is told"
        third = await made.google.peer(3)
        await third.until(lambda: third.asked)
        assert not loud(second.audio)
        assert not loud(third.audio), "nor the next time"
        assert made.of(Fault) == []


async def test_caller_who_speaks_on_after_a_close_for_what_they_said_is_heard() -> None:
    opening, go_on = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        opening.set()
        await go_on.wait()
        await peer.send(READY)

    async with line(by_number(closes(1007, INVALID), slow)) as made:
        ask(made)
        await asyncio.wait_for(opening.wait(), 5)
        made.hear(repeat(LOUD, 25))
        go_on.set()
        await made.until(Reconnected)
        second = made.google.peers[1]
        await second.until(lambda: loud(second.audio))
        assert len(second.audio) < 45 * 640, "only what was said since"


async def test_caller_whose_words_trip_the_service_is_not_talked_over() -> None:
    """They are asked to say it again once they pause, and have said nothing more that brings an answer."""

    async def trips(peer: Peer) -> None:
        await peer.send(READY)
        await peer.until(lambda: loud(peer.audio))
        await peer.close(1007, INVALID)

    async with line(by_number(trips, ready)) as made:
        made.hear(repeat(LOUD, 50))
        await made.until(Reconnected)
        second = made.google.peers[1]
        made.hear(repeat(SILENCE, 2))
        await second.until(lambda: second.audio)
        assert second.asked == []
        made.hear(repeat(SILENCE, 40))
        await second.until(lambda: second.asked)
        assert second.asked == [MISSED]


async def test_close_when_nobody_has_said_anything_needs_no_words() -> None:
    async def close(peer: Peer) -> None:
        await peer.send(READY)
        await peer.close(1007, INVALID)

    async with line(by_number(close, ready)) as made:
        await made.until(Reconnected)
        second = made.google.peers[1]
        made.session.speak("Say yes.")
        await second.until(lambda: second.asked)
        assert second.asked == ["Say yes."]


async def test_request_that_trips_the_service_twice_is_made_in_other_words() -> None:
    async def trip(peer: Peer) -> None:
        await peer.send(READY)
        await peer.until(lambda: "Say the forbidden." in peer.asked)
        await peer.close(1007, INVALID)

    async with line(by_number(trip, trip, ready)) as made:
        made.session.speak("Say the forbidden.")
        third = await made.google.peer(3)
        await third.until(lambda: third.asked)
        assert third.asked == [MISSED]


async def test_model_that_takes_no_notes_is_told_what_was_said_in_a_new_session() -> None:
    async def trip(peer: Peer) -> None:
        await named(peer)
        await peer.until(lambda: len(peer.audio) > WORDS)
        await peer.send(caller_said("My number is four two."))
        await peer.close(1007, INVALID)

    async with line(by_number(trip, ready), gemini_model_name="gemini-3.1-flash-live-preview") as made:
        ask(made)
        second = await made.google.peer(2)
        await second.until(lambda: second.asked)
        assert second.setup["sessionResumption"] == {}
        assert "four two" in str(second.of("clientContent"))
        assert second.asked == [MISSED]
        assert not loud(second.audio)


async def test_text_that_trips_the_service_is_not_told_again() -> None:
    async def spoken(peer: Peer) -> None:
        await peer.send(READY, caller_said("Forbidden words."), sound(), agent_said("Which day?"), DONE)
        await peer.close(1011)

    async def trips(peer: Peer) -> None:
        await peer.send(READY)
        await peer.until(lambda: peer.of("clientContent"))
        await peer.close(1007, INVALID)

    async with line(by_number(spoken, trips, ready)) as made:
        await made.until(Reconnected, 2)
        made.session.speak("Say yes.")
        third = made.google.peers[2]
        await third.until(lambda: third.asked)
        assert third.of("clientContent") == []


async def test_service_that_asks_to_wait_is_given_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(peer: Peer) -> None:
        await peer.send(READY)
        await peer.close(1011, "Too many sessions. Please retry in 0.6s.")

    async with line(by_number(busy, ready)) as made:
        await made.until(ConnectionLost)
        lost = time.monotonic()
        await made.google.peer(2)
        assert time.monotonic() - lost > 0.5


# --- a session that is not taken up ---


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1011, "Internal error encountered."),
        (1008, "Operation is not implemented, or supported, or enabled."),
        (1007, INVALID),
        (1008, "BidiGenerateContent session not found"),
        (1000, ""),
        (4001, "the session is of another region: permission denied"),
    ],
)
async def test_handle_that_is_refused_is_given_up_for_the_history(code: int, reason: str) -> None:
    async def behave(peer: Peer) -> None:
        resumes = peer.setup["sessionResumption"]
        if peer.number == 1:
            await peer.send(READY, caller_said("A toothache."), sound(), agent_said("Which day?"), DONE)
            await peer.send(handle("h"))
            await peer.close(1011, "Internal error encountered.")
        elif resumes:
            await peer.close(code, reason)
        else:
            await peer.send(READY)

    async with line(behave) as made:
        begun = time.monotonic()
        reconnected = await made.until(Reconnected)
        assert not reconnected.resumed
        assert time.monotonic() - begun < made.session._opener._timeout_s / 2
        last = made.google.peers[-1]
        assert len(made.google.peers) <= 4
        await last.until(lambda: last.of("clientContent"))
        assert "A toothache." in str(last.of("clientContent"))


async def test_handle_that_nobody_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener, "_RESUME_S", 0.2)

    async def leave(peer: Peer) -> None:
        await named(peer)
        await peer.close(1001)

    async with line(by_number(leave, hangs, ready)) as made:
        reconnected = await made.until(Reconnected)
        assert not reconnected.resumed
        assert made.google.peers[1].setup["sessionResumption"] == {"handle": "h1"}


async def test_new_session_that_nobody_answers_in_mid_call_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a fraction of the time there is: the caller waits."""
    monkeypatch.setattr(opener, "_NEW_S", 0.2)

    async def leave(peer: Peer) -> None:
        await named(peer)
        await peer.close(1011)

    gone = refuses(1008, "BidiGenerateContent session not found")
    async with line(by_number(leave, gone, hangs, ready)) as made:
        reconnected = await made.until(Reconnected)
        assert not reconnected.resumed
        assert made.of(Fault) == []
        assert len(made.google.peers) == 4


async def test_service_that_is_slow_each_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opener, "_NEW_S", 0.1)

    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.4)
        await peer.send(READY)
        if peer.number == 1:
            await peer.close(1011)

    async with line(slow) as made:
        await made.until(Reconnected)
        assert len(made.google.peers) == 2


async def test_session_that_breaks_each_time_it_is_taken_up_is_given_up() -> None:
    async def behave(peer: Peer) -> None:
        if peer.number == 1:
            await peer.send(READY, handle("poisoned"), sound(), DONE)
            await peer.close(1011)
        elif peer.setup["sessionResumption"]:
            await peer.send(READY)
            await peer.close(1007, INVALID)
        else:
            await peer.send(READY)

    async with line(behave) as made:
        await made.once(lambda: any(not event.resumed for event in made.of(Reconnected)), "no new session")
        assert len(made.google.peers) == 4
        assert made.of(Fault) == []


async def test_new_session_that_is_refused_in_mid_call_is_tried_again() -> None:
    """The service took the like of it a moment ago."""
    behaviours = by_number(closes(1011), refuses(1007, INVALID), refuses(1008, "no"), ready)
    async with line(behaviours) as made:
        ask(made)
        await made.until(Reconnected)
        assert len(made.google.peers) == 4


async def test_new_session_that_is_refused_again_and_again_ends_it() -> None:
    async with line(by_number(closes(1011), refuses(1007, INVALID))) as made:
        ask(made)
        fault = await made.until(Fault)
        assert fault.error.code == "invalid_argument"
        assert len(made.google.peers) == 1 + opener._MOST_REFUSALS


async def test_key_that_is_refused_in_mid_call_ends_it_at_once() -> None:
    key = refuses(1007, "API key not valid. Please pass a valid API key.")
    async with line(by_number(closes(1011), key)) as made:
        ask(made)
        assert (await made.until(Fault)).error.code == "invalid_api_key"
        assert len(made.google.peers) == 2


async def test_sound_is_held_back_whatever_a_service_says_that_closes_on_it_twice() -> None:
    """While it waits for a tool: three losses in a row would be no chance."""

    async def trips(peer: Peer) -> None:
        await peer.send(READY, tool_call(f"call-{peer.number}", "book"))
        await peer.until(lambda: loud(peer.audio))
        await peer.close(1011, "Internal error encountered.")

    async def calls(peer: Peer) -> None:
        await peer.send(READY, tool_call("call-3", "book"))

    async with line(by_number(trips, trips, calls)) as made:
        for number in (1, 2):
            await made.until(ToolCall, number)
            made.hear(repeat(LOUD, 20))
            await made.until(Reconnected, number)
        await made.until(ToolCall, 3)
        made.hear(repeat(LOUD, 50))
        third = made.google.peers[2]
        for call in made.of(ToolCall):
            assert not loud(third.audio), "no sound while one is at work"
            made.session.tool_result(call.call_id, "done")
        await third.until(lambda: loud(third.audio))


# --- goAway ---


@pytest.mark.parametrize(
    "refusal", [refuses(1011, "Internal error encountered."), refuses(1008, "no"), refuses(1000, ""), hangs]
)
async def test_service_that_takes_no_second_connection_is_left_first(
    refusal: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opener, "_RESUME_S", 0.3)

    async def behave(peer: Peer) -> None:
        if peer.number > 1 and peer.peers[0].open:
            await refusal(peer)
        else:
            await peer.send(READY, handle("h"), *([GOING] if peer.number == 1 else []))

    async with line(behave) as made:
        reconnected = await made.until(Reconnected)
        assert (reconnected.cause, reconnected.resumed) == ("goAway", True)
        assert made.google.peers[0].socket.close_code == 1000, "it was closed from here"
        assert made.google.peers[-1].setup["sessionResumption"] == {"handle": "h"}
        assert made.of(ConnectionLost) == [], "at a quiet moment nothing is lost"


async def test_caller_is_heard_who_speaks_while_the_old_connection_is_closed_for_the_new() -> None:
    opening, go_on = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        opening.set()
        await go_on.wait()
        await peer.send(READY)

    async def leave(peer: Peer) -> None:
        await peer.send(READY, handle("h"), GOING)

    async with line(by_number(leave, refuses(1011, "Internal error encountered."), slow)) as made:
        await asyncio.wait_for(opening.wait(), 5)
        ask(made)
        go_on.set()
        third = await made.google.peer(3)
        await third.until(lambda: loud(third.audio))
        assert not loud(made.google.peers[0].audio)


async def test_working_connection_is_not_left_for_a_service_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rotation, "_AGAIN_S", 0.05)

    async def behave(peer: Peer) -> None:
        await peer.send(READY, handle("h"), *([GOING] if peer.number == 1 else []))

    async with line(behave) as made:
        tries = 0

        async def unreachable() -> tuple[str, dict[str, str]]:
            nonlocal tries
            tries += 1
            if tries < 4:
                return "ws://127.0.0.1:9/", {}
            return made.google.url, {}

        monkeypatch.setattr(made.session._opener._endpoint, "open", unreachable)
        first = made.google.peers[0]
        await made.once(lambda: tries >= 3, "it was not tried")
        assert first.open
        assert (await made.until(Reconnected)).gap_ms == 0


async def test_connection_that_was_opened_before_the_latest_handle_is_not_gone_on_with() -> None:
    opening, go_on = asyncio.Event(), asyncio.Event()

    async def leave(peer: Peer) -> None:
        await peer.send(READY, handle("old"), GOING)
        await opening.wait()
        await peer.send(caller_said("Monday."), sound(), agent_said("And the time?"), DONE, handle("new"))
        await peer.close(1011)

    async def slow(peer: Peer) -> None:
        opening.set()
        await go_on.wait()
        await peer.send(READY)

    async with line(by_number(leave, slow, ready)) as made:
        await made.until(ConnectionLost)
        go_on.set()
        await made.until(Reconnected)
        assert made.google.peers[-1].setup["sessionResumption"] == {"handle": "new"}


async def test_connection_that_leaves_a_question_unanswered_is_left_at_once() -> None:
    async def mute(peer: Peer) -> None:
        await peer.send(READY, handle("h"))
        await peer.until(lambda: len(peer.audio) > 150 * 640)
        await peer.send(GOING)

    async with line(by_number(mute, ready)) as made:
        made.hear(repeat(LOUD, 50), repeat(SILENCE, 110))
        second = await made.google.peer(2)
        await second.until(lambda: loud(second.audio))
        assert made.of(ConnectionLost)


async def test_question_that_is_being_answered_is_waited_for() -> None:
    async def behave(peer: Peer) -> None:
        if peer.number > 1:
            await peer.send(READY)
            return
        await peer.send(READY, handle("h"))
        await peer.until(lambda: len(peer.audio) > 150 * 640)
        await peer.send(sound(), GOING)
        await peer.until(lambda: len(peer.audio) > 200 * 640)
        assert len(peer.peers) == 1
        await peer.send(DONE, handle("h2"))

    async with line(behave) as made:
        made.hear(repeat(LOUD, 50), repeat(SILENCE, 110))
        await made.until(AgentAudio)
        made.hear(repeat(SILENCE, 60))
        await made.until(Reconnected)
        assert made.google.peers[1].setup["sessionResumption"] == {"handle": "h2"}
        assert made.of(ConnectionLost) == []


# --- a service that is mute ---


async def test_mute_connection_is_given_up_when_asked() -> None:
    async with line(by_number(named, ready)) as made:
        ask(made)
        first = made.google.peers[0]
        await first.until(lambda: len(first.audio) > WORDS)
        made.session.renew("it says nothing")
        assert isinstance(made.events[-1], ConnectionLost), "it is told at once"
        made.session.send_audio(SILENCE)
        second = await made.google.peer(2)
        await second.until(lambda: loud(second.audio))
        assert second.setup["sessionResumption"] == {"handle": "h1"}
        assert (await made.until(Reconnected)).cause == "it says nothing"
        assert first.socket.close_code == 1000


async def test_request_that_a_mute_connection_did_not_answer_is_made_again() -> None:
    async with line(by_number(named, ready)) as made:
        made.session.speak("Say good-bye.")
        first = made.google.peers[0]
        await first.until(lambda: first.asked)
        made.session.renew("it says nothing")
        second = await made.google.peer(2)
        await second.until(lambda: second.asked)
        assert second.asked == ["Say good-bye."]


def went_on(made: Line, count: int) -> bool:
    return bool(made.of(Fault)) or len(made.of(Reconnected)) >= count


async def test_pongs_may_be_as_late_as_they_are_in_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    original = ProviderSocket.open

    async def noted(*args: Any, pong_wait_s: float, **options: Any) -> ProviderSocket:
        waits.append(pong_wait_s)
        return await original(*args, pong_wait_s=pong_wait_s, **options)

    monkeypatch.setattr(ProviderSocket, "open", noted)
    async with line(ready):
        assert min(waits) > 30


async def test_mute_service_is_not_connected_to_for_ever() -> None:
    async with line(ready) as made:
        for count in range(1, 100):
            made.session.renew("it says nothing")
            await made.once(partial(went_on, made, count), "nothing came of it")
            if made.of(Fault):
                break
        assert rotation.MOST_FRUITLESS < len(made.google.peers) < 4 * rotation.MOST_FRUITLESS
        assert made.of(Fault)[0].error.code == "silent"


async def test_answer_that_we_want_no_more_of_is_not_asked_for_again() -> None:
    async def begin(peer: Peer) -> None:
        await peer.send(READY, sound())

    async with line(by_number(begin, ready)) as made:
        await made.until(AgentAudio)
        made.session.interrupt([], cancel=True)
        made.session.renew("it hangs")
        await made.until(Reconnected)
        made.session.speak("Say yes.")
        second = made.google.peers[1]
        await second.until(lambda: second.asked)
        assert second.asked == ["Say yes."]


async def test_end_of_the_callers_turn_is_told() -> None:
    async with line(ready) as made:
        made.session.end_turn()
        first = made.google.peers[0]
        await first.until(lambda: {"audioStreamEnd": True} in first.of("realtimeInput"))


# --- answers without a sound ---


async def test_turn_with_nothing_in_it_is_told_when_the_caller_was_heard_here() -> None:
    async def empty(peer: Peer) -> None:
        await peer.send(READY)
        await peer.until(lambda: len(peer.audio) > WORDS)
        await peer.send(DONE)

    async with line(empty) as made:
        ask(made)
        done = await made.until(ResponseDone)
        assert done == ResponseDone("completed")
        assert isinstance(made.events[-2], ResponseStarted)
        assert not made.session.busy


async def test_words_that_had_no_answer_are_heard_again_after_a_turn_with_nothing_in_it() -> None:
    async def empty(peer: Peer) -> None:
        await peer.send(READY, handle("h"))
        await peer.until(lambda: len(peer.audio) > WORDS)
        await peer.send(DONE)
        await peer.until(lambda: peer.asked)

    async with line(by_number(empty, ready)) as made:
        ask(made)
        await made.until(ResponseDone)
        made.google.peers[0].abort()
        second = await made.google.peer(2)
        await second.until(lambda: loud(second.audio))


def asked_so_often(peer: Peer, count: int) -> bool:
    return len(peer.asked) == count


async def test_question_is_answered_though_only_the_end_of_the_turn_is_told() -> None:
    async def answer(peer: Peer) -> None:
        await peer.send(READY, handle("h"))
        await peer.until(lambda: len(peer.audio) > WORDS)
        await peer.send(sound(), content(turnComplete=True))
        await peer.until(lambda: peer.asked)

    async with line(by_number(answer, ready)) as made:
        ask(made)
        await made.until(ResponseDone)
        made.google.peers[0].abort()
        await made.until(Reconnected)
        made.session.speak("Say yes.")
        second = made.google.peers[1]
        await second.until(lambda: second.asked)
        assert not loud(second.audio), "it has its answer"


async def test_text_in_place_of_speech_is_told() -> None:
    text = content(modelTurn={"parts": [{"text": "thinking", "thought": True}, {"text": "From nine."}]})

    async def write(peer: Peer) -> None:
        await peer.send(READY)
        for count in (1, 2):
            await peer.until(partial(asked_so_often, peer, count))
            await peer.send(text, DONE)

    async with line(write) as made:
        for count in (1, 2):
            made.session.speak()
            assert await made.until(ResponseDone, count) == ResponseDone("completed")
        assert made.of(AgentText) == []


# --- tools at work ---


def calls(*before: dict[str, Any], then: tuple[int, str] | None = None) -> Behaviour:
    """Return a connection that calls a tool for the caller's question, and may close on the next sound."""

    async def behave(peer: Peer) -> None:
        await peer.send(READY, handle("h"))
        await peer.until(lambda: len(peer.audio) > WORDS)
        await peer.send(*before, tool_call("c1"))
        if then is not None:
            size = len(peer.audio)
            await peer.until(lambda: len(peer.audio) > size)
            await peer.close(*then)

    return behave


async def test_tool_at_work_is_no_longer_waited_for_and_the_next_connection_is_not_asked() -> None:
    opening, go_on = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        opening.set()
        await go_on.wait()
        await peer.send(READY)

    async with line(by_number(calls(caller_said("Book it.")), slow)) as made:
        made.reactions[ConnectionLost] = lambda: made.session.update(Brief("day: it is at work", TOOLS))
        ask(made)
        call = await made.until(ToolCall)
        made.google.peers[0].abort()
        await made.until(ConnectionLost)
        assert not made.session.busy
        await asyncio.wait_for(opening.wait(), 5)
        go_on.set()
        await made.until(Reconnected)
        second = made.google.peers[1]
        assert second.setup["systemInstruction"]["parts"][0]["text"] == "day: it is at work"
        made.session.tool_result(call.call_id, '{"ok": true}')
        made.session.update(Brief("day, and the tool has returned", TOOLS))
        made.session.speak()
        await second.until(lambda: second.asked)
        assert second.asked == [SPEAK]
        assert second.of("toolResponse") == []
        assert not loud(second.audio), "to hear it again would be to book it again"
        assert "Book it." in str(second.of("clientContent"))
        assert [event.text for event in made.of(CallerText)] == ["Book it."]
        assert len(made.of(ToolCall)) == 1


async def test_goaway_that_does_not_wait_for_a_tool_leaves_an_orphan() -> None:
    async def first(peer: Peer) -> None:
        await peer.send(READY, handle("h"), tool_call("c1"))
        await peer.until(lambda: peer.audio)
        await peer.send({"goAway": {"timeLeft": "0s"}})

    async with line(by_number(first, ready)) as made:
        await made.until(ToolCall)
        made.hear(repeat(SILENCE, 1))
        await made.until(Reconnected)
        kinds = [type(event) for event in made.events]
        assert kinds.index(ConnectionLost) < kinds.index(Reconnected)
        made.session.tool_result("c1", "{}")
        made.session.speak("Say yes.")
        second = made.google.peers[1]
        await second.until(lambda: second.asked)
        assert second.asked == ["Say yes."]
        assert second.of("toolResponse") == []


@pytest.mark.parametrize("close", [(1008, "Operation is not implemented."), (1007, INVALID)])
async def test_sound_waits_for_the_results_where_it_breaks_the_connection(close: tuple[int, str]) -> None:
    async def takes(peer: Peer) -> None:
        await peer.send(READY, handle("h2"))
        await peer.until(lambda: peer.asked)
        await peer.send(sound(), DONE, handle("h3"), tool_call("c2"))

    async with line(by_number(calls(then=close), takes)) as made:
        ask(made)
        await made.until(ToolCall)
        made.hear(repeat(SILENCE, 1))
        await made.until(Reconnected)
        second = made.google.peers[1]
        made.hear(repeat(SILENCE, 20), repeat(LOUD, 25), repeat(SILENCE, 20))
        made.session.update(Brief("day: the tool has returned", TOOLS))
        await second.until(lambda: second.of("clientContent"))
        assert second.audio == b"", "nothing is sent while the tool is at work"
        made.session.tool_result("c1", "{}")
        made.session.speak()
        await second.until(lambda: second.asked)
        assert loud(second.audio), "what was said meanwhile is heard now"
        # The same holds for the next tool of this connection.
        await made.until(ToolCall, 2)
        size = len(second.audio)
        made.hear(repeat(LOUD, 25), repeat(SILENCE, 20))
        made.session.tool_result("c2", "{}")
        await second.until(lambda: len(second.audio) > size)
        order = [next(iter(one)) for one in second.got]
        assert order.index("toolResponse") == len(order) - 2, "the sound came after the result"
        size = len(second.audio)
        made.hear(repeat(SILENCE, 1))
        await second.until(lambda: len(second.audio) > size)


async def test_sound_that_waits_is_sent_when_the_call_is_taken_back() -> None:
    async def takes(peer: Peer) -> None:
        await peer.send(READY, tool_call("c2"))
        await peer.until(lambda: peer.asked)
        await peer.send({"toolCallCancellation": {"ids": ["c2"]}})

    async with line(by_number(calls(then=(1008, "no")), takes)) as made:
        ask(made)
        await made.until(ToolCall)
        made.hear(repeat(SILENCE, 1))
        await made.until(ToolCall, 2)
        made.session.tool_result("c1", "{}")
        made.hear(repeat(LOUD, 25))
        second = made.google.peers[1]
        assert second.audio == b""
        made.session.interrupt([], cancel=True)
        second.got.append({"realtimeInput": {"text": "now"}})
        second.news.set()
        await made.until(ToolCallsCancelled)
        await second.until(lambda: loud(second.audio))


async def test_connection_that_is_lost_for_another_reason_holds_no_sound_back() -> None:
    async with line(by_number(calls(then=(1011, "Internal error encountered.")), ready)) as made:
        ask(made)
        await made.until(ToolCall)
        made.hear(repeat(SILENCE, 1))
        await made.until(Reconnected)
        made.hear(repeat(LOUD, 25))
        second = made.google.peers[1]
        await second.until(lambda: loud(second.audio))


async def test_agent_who_was_speaking_is_asked_to_go_on() -> None:
    async def speak(peer: Peer) -> None:
        await peer.send(READY, sound())

    async with line(by_number(speak, ready)) as made:
        await made.until(AgentAudio)
        made.google.peers[0].abort()
        second = await made.google.peer(2)
        await second.until(lambda: second.asked)
        assert second.asked == [GO_ON]


async def test_what_comes_whether_the_caller_was_heard_or_not_is_no_sign_of_it() -> None:
    """The end of the answer before, a handle, a count of tokens: a deaf service sends them, too."""

    async def housekeeping(peer: Peer) -> None:
        await peer.send(READY, sound(), DONE, handle("h"), {"usageMetadata": {"totalTokenCount": 7}}, GOING)
        await peer.send(content(turnComplete=True), caller_said("Hello?"))

    async with line(by_number(housekeeping, ready)) as made:
        await made.until(CallerActive)
        assert made.session.counters.messages_in == 2, "a sound and the caller's words"
