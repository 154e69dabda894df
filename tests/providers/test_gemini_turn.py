"""The turns of a Gemini session: which audio, which words and which end belong together. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from arivox.errors import ProviderError
from arivox.providers.base import (
    AgentAudioDone,
    AgentText,
    CallerActive,
    CallerText,
    Interrupted,
    ProviderEvent,
    ResponseDone,
    ResponseStarted,
    ToolCall,
    Utterance,
)
from arivox.providers.gemini.protocol import Message, ServerContent
from arivox.providers.gemini.turn import OpenCall, Turns


def turns(*, idle_status: bool = False) -> Turns:
    return Turns(40, idle_status=idle_status)


def content(**fields: Any) -> ServerContent:
    message = msgspec.convert({"serverContent": fields}, Message)
    assert message.server_content is not None
    return message.server_content


def take(of: Turns, **fields: Any) -> list[ProviderEvent]:
    """Return what a message says, in the order in which a session asks."""
    message = content(**fields)
    return [*of.transcripts(message), *of.ends(message)]


def sound(of: Turns) -> list[ProviderEvent]:
    """Have audio come; return what that says."""
    events = list(of.began())
    of.audio_item()
    return events


def words(text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, **more}


def call(of: Turns, *calls: dict[str, Any]) -> list[ProviderEvent]:
    message = msgspec.convert({"toolCall": {"functionCalls": list(calls)}}, Message)
    assert message.tool_call is not None
    return list(of.called(message.tool_call))


def cancelled(of: Turns, *ids: str) -> tuple[str, ...]:
    message = msgspec.convert({"toolCallCancellation": {"ids": list(ids)}}, Message)
    assert message.tool_call_cancellation is not None
    return of.calls_cancelled(message.tool_call_cancellation)


def test_an_answer_has_one_start_one_item_and_one_end() -> None:
    of = turns()
    assert sound(of) == [ResponseStarted()]
    assert sound(of) == []
    assert of.generating
    assert take(of, outputTranscription=words("Good ")) == []
    assert take(of, outputTranscription=words("morning."), generationComplete=True) == [
        AgentAudioDone("item-1")
    ]
    assert not of.generating
    assert not of.quiet, "the service takes it to be playing"
    assert take(of, turnComplete=True) == [AgentText("item-1", "Good morning."), ResponseDone("completed")]
    assert of.quiet
    sound(of)
    assert take(of, turnComplete=True)[0] == AgentAudioDone("item-2")


def test_all_in_one_message() -> None:
    of = turns()
    sound(of)
    events = take(of, outputTranscription=words("Yes."), generationComplete=True, turnComplete=True)
    assert events == [AgentAudioDone("item-1"), AgentText("item-1", "Yes."), ResponseDone("completed")]


def test_words_may_come_before_the_sound_they_belong_to() -> None:
    of = turns()
    take(of, outputTranscription=words("Hello."))
    sound(of)
    assert AgentText("item-1", "Hello.") in take(of, turnComplete=True)


def test_caller_is_told_of_as_soon_as_something_is_known() -> None:
    of = turns()
    assert take(of, inputTranscription=words("I have ")) == [CallerActive()]
    assert take(of, inputTranscription=words("a toothache")) == [CallerActive()]
    # The service seldom says that they have finished: the answer does.
    assert sound(of) == [CallerText("caller-0", "I have a toothache"), ResponseStarted()]
    assert of.history[-1] == Utterance("caller", "I have a toothache")


def test_late_words_of_the_caller_await_no_answer() -> None:
    of = turns()
    sound(of)
    assert take(of, inputTranscription=words("Thursday")) == []
    assert take(of, inputTranscription=words(".", finished=True)) == [CallerText("caller-1", "Thursday.")]


def test_interruption_cuts_words_and_ends_the_answer() -> None:
    of = turns()
    sound(of)
    take(of, outputTranscription=words("Which day would"))
    assert take(of, interrupted=True) == [
        AgentText("item-1", "Which day would"),
        Interrupted(),
        AgentAudioDone("item-1"),
    ]
    assert not of.generating
    assert take(of, turnComplete=True) == [ResponseDone("cancelled")]
    sound(of)
    assert of.audio_item() == ("item-2", False)


def test_our_own_cut_is_no_interruption_by_the_caller() -> None:
    of = turns()
    sound(of)
    of.cut(cancel=True)
    assert of.late
    assert of.may_ask, "what comes of the answer is not waited for"
    of.ask()
    assert take(of, outputTranscription=words("never said"), interrupted=True) == [AgentAudioDone("item-1")]
    assert not of.late
    assert take(of, turnComplete=True) == [ResponseDone("cancelled")]
    assert of.asked, "the answer we asked for is still to come"
    assert not of.may_ask
    assert sound(of) == [ResponseStarted()]
    assert not of.asked


def test_cut_after_the_last_sound_waits_for_nothing() -> None:
    of = turns()
    sound(of)
    take(of, generationComplete=True)
    of.cut(cancel=True)
    assert not of.late
    assert of.may_ask


def test_question_waits_for_the_end_of_an_answer() -> None:
    of = turns()
    sound(of)
    assert not of.may_ask
    take(of, generationComplete=True)
    assert not of.may_ask, "it would interrupt what is playing"
    take(of, turnComplete=True)
    assert of.may_ask


def test_tool_calls_close_what_was_said_before_them() -> None:
    of = turns()
    sound(of)
    take(of, outputTranscription=words("One moment."))
    events = call(of, {"id": "a", "name": "look", "args": {"x": 1}}, {"name": "find"})
    assert events == [
        AgentAudioDone("item-1"),
        AgentText("item-1", "One moment."),
        ToolCall("a", "look", '{"x":1}'),
        ToolCall("call-2", "find", "{}"),
    ]
    assert not of.generating
    assert not of.quiet
    assert not of.may_ask
    assert of.tool_answered("a") == OpenCall("a", "look")
    assert of.tool_answered("a") is None
    assert cancelled(of, "call-2", "unknown") == ("call-2",)
    assert cancelled(of, "call-2") == ()
    sound(of)
    assert of.audio_item() == ("item-2", False)


def test_tool_call_without_a_word_begins_an_answer() -> None:
    of = turns()
    of.ask()
    take(of, inputTranscription=words("yes please"))
    assert call(of, {"id": "a", "name": "look"}) == [
        CallerText("caller-0", "yes please"),
        ResponseStarted(),
        ToolCall("a", "look", "{}"),
    ]
    assert not of.asked


REJECTED = {
    "RESPONSE_REJECTED": True,
    "GENERATED_AUDIO_SAFETY": True,
    "PROHIBITED_INPUT_CONTENT": True,
    "GENERATED_CONTENT_BLOCKLIST": True,
    "MALFORMED_FUNCTION_CALL": False,
    "MAX_REGENERATION_REACHED": False,
}


@pytest.mark.parametrize("reason", REJECTED)
def test_turn_that_went_wrong(reason: str) -> None:
    of = turns()
    of.ask()
    [done] = take(of, turnComplete=True, turnCompleteReason=reason)
    assert isinstance(done, ResponseDone)
    assert done.status == "failed"
    assert isinstance(done.error, ProviderError)
    assert (done.error.code, done.error.fatal) == (reason, False)
    assert done.error.rejected is REJECTED[reason]
    assert not of.asked
    sound(of)
    last = take(of, turnComplete=True, turnCompleteReason=reason)[-1]
    assert isinstance(last, ResponseDone)
    assert last.status == "incomplete"


@pytest.mark.parametrize("reason", ["", "NEED_MORE_INPUT", "TURN_COMPLETE_REASON_UNSPECIFIED"])
def test_turn_that_wants_more_of_the_caller_is_in_order(reason: str) -> None:
    of = turns()
    sound(of)
    assert take(of, turnComplete=True, turnCompleteReason=reason)[-1] == ResponseDone("completed")


# --- answers without a sound ---

MUTE = [ResponseStarted(), ResponseDone("completed")]


def test_answer_that_was_asked_for_and_has_no_sound_is_told() -> None:
    of = turns()
    of.ask()
    assert take(of, generationComplete=True) == []
    assert take(of, turnComplete=True) == MUTE
    assert of.mute
    assert of.quiet, "it may be asked for again"
    of.ask()
    sound(of)
    assert not of.mute
    assert take(of, turnComplete=True)[-1:] == [ResponseDone("completed")]


def test_caller_who_said_something_waits_for_an_answer() -> None:
    of = turns()
    take(of, inputTranscription=words("Hello?", finished=True))
    assert take(of, turnComplete=True) == MUTE
    take(of, inputTranscription=words("Are you there?"))
    assert take(of, turnComplete=True) == [CallerText("caller-0", "Are you there?"), *MUTE]


def test_caller_who_was_only_heard_here_waits_for_an_answer() -> None:
    of = turns()
    message = content(turnComplete=True)
    assert list(of.ends(message)) == [], "nobody waits for anything"
    assert list(of.ends(message, voice=True)) == MUTE


def test_caller_who_interrupted_waits_for_an_answer() -> None:
    of = turns()
    sound(of)
    take(of, interrupted=True, inputTranscription=words("Stop, no"))
    assert take(of, turnComplete=True) == [ResponseDone("cancelled")]
    assert take(of, turnComplete=True) == [CallerText("caller-1", "Stop, no"), *MUTE]


def test_caller_who_is_in_the_middle_of_something_waits_only_once_they_say_no_more() -> None:
    of = turns()
    take(of, inputTranscription=words("My number is", finished=True))
    assert take(of, turnComplete=True, turnCompleteReason="NEED_MORE_INPUT") == [CallerActive()]
    assert take(of, turnComplete=True) == MUTE, "that was all they had to say"
    of.ask()
    assert take(of, turnComplete=True, turnCompleteReason="NEED_MORE_INPUT") == MUTE, "we asked"


def test_words_that_were_never_spoken_were_not_said() -> None:
    of = turns()
    of.ask()
    take(of, outputTranscription=words("Good morning."))
    assert take(of, turnComplete=True) == MUTE
    assert not of.history


def test_text_in_place_of_speech_is_an_answer_without_a_sound() -> None:
    of = turns()
    of.wrote_text()
    assert take(of, turnComplete=True) == MUTE
    assert take(of, turnComplete=True) == []


def test_answer_after_a_tool_that_has_no_sound_is_told() -> None:
    of = turns()
    sound(of)
    call(of, {"id": "a", "name": "look"})
    of.tool_answered("a")
    of.ask()
    assert take(of, turnComplete=True) == [ResponseDone("completed"), *MUTE]
    call(of, {"id": "b", "name": "look"})
    of.tool_answered("b")
    of.ask()
    sound(of)
    assert take(of, turnComplete=True)[-2:] == [AgentAudioDone("item-2"), ResponseDone("completed")]


def test_answer_that_fails_after_a_tool_had_no_sound() -> None:
    of = turns()
    call(of, {"id": "a", "name": "look"})
    of.tool_answered("a")
    of.ask()
    done = take(of, turnComplete=True, turnCompleteReason="RESPONSE_REJECTED")[-1]
    assert isinstance(done, ResponseDone)
    assert done.status == "failed"


def test_model_that_was_idle_all_the_time_gave_no_answer() -> None:
    of = turns(idle_status=True)
    of.ask()
    assert take(of, turnComplete=True, interactionStatus="IN_PROGRESS") == []
    assert take(of, interactionStatus="IDLE") == MUTE


# --- calls of tools ---


def test_call_that_is_not_finished_is_not_told() -> None:
    of = turns()
    of.ask()
    assert call(of, {"id": "a", "name": "end_call", "willContinue": True}) == []
    assert of.open_tools == {}
    assert take(of, turnComplete=True) == MUTE, "and nothing came of it"
    assert call(of, {"id": "b", "name": "book", "args": {"day": "Monday"}, "willContinue": True}) == []
    assert call(of, {"id": "b", "args": {"time": "10:00"}}) == [
        ResponseStarted(),
        ToolCall("b", "book", '{"day":"Monday","time":"10:00"}'),
    ]


def test_call_that_comes_once_more_is_told_once() -> None:
    of = turns()
    call(of, {"id": "a", "name": "book"})
    assert call(of, {"id": "a", "name": "book"}) == []


def test_calls_of_two_connections_have_ids_of_their_own() -> None:
    of = turns()
    call(of, {"id": "a", "name": "book"})
    of.lost()
    [_, again] = call(of, {"id": "a", "name": "look"})
    assert isinstance(again, ToolCall)
    assert again.call_id != "a"
    assert of.tool_answered("a") is None
    assert cancelled(of, "a") == (again.call_id,)


def test_model_that_thinks_on_is_not_done() -> None:
    of = turns(idle_status=True)
    sound(of)
    assert take(of, turnComplete=True, interactionStatus="IN_PROGRESS") == [AgentAudioDone("item-1")]
    assert not of.quiet
    assert not of.may_ask
    sound(of)
    assert take(of, turnComplete=True, interactionStatus="IDLE") == [
        AgentAudioDone("item-2"),
        ResponseDone("completed"),
    ]
    sound(of)
    take(of, turnComplete=True, interactionStatus="IN_PROGRESS")
    assert take(of, interactionStatus="IDLE") == [ResponseDone("completed")]


def test_lost_connection_ends_what_was_open() -> None:
    of = turns()
    sound(of)
    take(of, outputTranscription=words("Which day"))
    owed, events = of.lost()
    assert owed
    assert events == [
        AgentAudioDone("item-1"),
        AgentText("item-1", "Which day"),
        ResponseDone("cancelled"),
    ]
    assert of.quiet
    assert of.lost() == (False, [])
    of.ask()
    assert of.lost() == (True, [])
    call(of, {"id": "a", "name": "look"})
    owed, _ = of.lost()
    assert owed
    assert of.open_tools == {}


def test_history_keeps_the_newest_of_both_sides() -> None:
    of = Turns(3, idle_status=False)
    for number in range(3):
        take(of, inputTranscription=words(f"q{number}", finished=True))
        sound(of)
        take(of, outputTranscription=words(f"a{number}"), turnComplete=True)
    assert list(of.history) == [Utterance("agent", "a1"), Utterance("caller", "q2"), Utterance("agent", "a2")]


def test_caller_of_whom_no_word_was_written_down_is_not_forgotten_when_more_is_needed() -> None:
    of = turns()
    message = content(turnComplete=True, turnCompleteReason="NEED_MORE_INPUT")
    assert list(of.ends(message, voice=True)) == [CallerActive()]
    assert list(of.ends(message, voice=False)) == [], "nobody said anything"


def test_turn_that_ends_while_the_caller_talks_is_no_answer_to_them() -> None:
    """Another turnComplete of the answer before, for instance: to ask again would talk over them."""
    of = turns()
    message = content(turnComplete=True)
    take(of, inputTranscription=words("My number is"))
    assert ResponseDone("completed") not in list(of.ends(message, voice=True, talking=True))
    assert list(of.ends(message, voice=True)) == MUTE
    of.ask()
    assert list(of.ends(message, voice=True, talking=True)) == MUTE, "we asked"
