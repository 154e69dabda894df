"""The turns of a call: as far as the other side heard them, in the order of hearing, each once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arivox.conversation.memory.record import Turn, iso
from arivox.conversation.memory.transcript import Transcript, heard
from arivox.providers.base import Utterance

TEXT = "The quick brown fox jumps over the lazy dog"


def made() -> tuple[Transcript, list[Turn]]:
    turns: list[Turn] = []
    return Transcript("c1", turns.append, "openai"), turns


def words(turns: list[Turn]) -> list[tuple[str, str, bool]]:
    return [(turn.speaker, turn.text, turn.cut) for turn in turns]


def test_answer_is_a_turn_once_it_was_heard() -> None:
    transcript, turns = made()
    transcript.agent_said("i1", "Hello.", "greeting", 10.0)
    transcript.agent_speaks("i1", "greeting", 10.1)
    assert turns == []
    transcript.agent_quiet()
    assert turns == [Turn("1970-01-01T00:00:10.100Z", "ai", "Hello.", "greeting", "c1", "openai")]
    transcript.agent_quiet()
    assert len(turns) == 1


def test_words_may_come_after_their_sound() -> None:
    transcript, turns = made()
    transcript.agent_speaks("i1", "greeting", 10.0)
    transcript.agent_quiet()
    transcript.agent_said("i1", "Hello.", "gathering_reason", 14.0)
    assert turns == [Turn("1970-01-01T00:00:10.000Z", "ai", "Hello.", "greeting", "c1", "openai")]


def test_next_item_says_that_the_one_before_was_heard() -> None:
    transcript, turns = made()
    transcript.agent_said("i1", "One.", "a", 1.0)
    transcript.agent_speaks("i1", "a", 1.0)
    transcript.agent_said("i2", "Two.", "a", 1.5)
    transcript.agent_speaks("i2", "a", 2.0)
    assert words(turns) == [("ai", "One.", False)]
    assert transcript.being_heard == ("i2",)


@pytest.mark.parametrize("text_first", [True, False])
def test_interruption_cuts_the_words(text_first: bool) -> None:
    transcript, turns = made()
    transcript.agent_speaks("i1", "a", 1.0)
    if text_first:
        transcript.agent_said("i1", TEXT, "a", 1.1)
    transcript.cut("i1", 1000, 2000)
    if not text_first:
        transcript.agent_said("i1", TEXT, "a", 3.0)
    assert words(turns) == [("ai", "The quick brown fox jumps", True)]


def test_what_was_not_heard_is_no_turn() -> None:
    transcript, turns = made()
    transcript.agent_said("i1", TEXT, "a", 1.0)
    transcript.cut("i1", 0, 2000)
    transcript.agent_said("i2", "Never spoken.", "a", 2.0)
    transcript.agent_quiet()
    assert turns == []


def test_caller_is_in_the_state_in_which_they_began() -> None:
    transcript, turns = made()
    transcript.caller_speaks("greeting", 5.0)
    transcript.caller_speaks("greeting", 5.5)
    transcript.caller_said("Yes please. ", "gathering_reason", 7.0)
    transcript.caller_said("", "gathering_reason", 8.0)
    transcript.caller_said("A toothache.", "gathering_reason", 9.0)
    assert [(turn.timestamp[17:23], turn.state, turn.text) for turn in turns] == [
        ("05.000", "greeting", "Yes please."),
        ("09.000", "gathering_reason", "A toothache."),
    ]


@given(st.text(st.sampled_from("ab  ."), max_size=60), st.floats(0, 1.2))
def test_what_was_heard_is_a_beginning(text: str, share: float) -> None:
    part = heard(text, share)
    assert text.strip().startswith(part)
    assert (part == text.strip()) if share >= 1 else len(part) <= len(text.strip())


def test_latest_of_what_was_said_can_be_told_again() -> None:
    transcript = Transcript("c1", lambda _: None, "openai", remembered=3)
    transcript.goes_on_from([Utterance("caller", "Earlier."), Utterance("agent", "In another call.")])
    transcript.caller_said("I have a toothache.", "a", 1.0)
    transcript.agent_said("i1", "Monday, or would you rather come on Tuesday?", "a", 2.0)
    transcript.agent_speaks("i1", "a", 2.0)
    transcript.cut("i1", 100, 1000)
    transcript.agent_said("i2", "It waits in the queue.", "a", 3.0)
    assert transcript.said() == (
        Utterance("agent", "In another call."),
        Utterance("caller", "I have a toothache."),
        Utterance("agent", "Monday,"),
        Utterance("agent", "It waits in the queue."),
    )


def test_words_belong_to_their_turns_in_whatever_order_they_come() -> None:
    turns: list[Turn] = []
    transcript = Transcript("call", turns.append, remembered=9)
    transcript.caller_speaks("greeting", 1.0, "one")
    transcript.caller_speaks("reason", 5.0, "two")
    transcript.caller_said("A toothache.", "reason", 6.0, "two")
    assert turns == [], "the words of the turn before are not there yet"
    assert [said.text for said in transcript.said()] == ["A toothache."]
    transcript.caller_said("Yes please.", "reason", 6.5, "one")
    assert [(turn.text, turn.state) for turn in turns] == [
        ("Yes please.", "greeting"),
        ("A toothache.", "reason"),
    ]
    assert [turn.timestamp for turn in turns] == [iso(1.0), iso(5.0)]


def test_turn_whose_words_never_come_holds_no_other_up_for_long() -> None:
    turns: list[Turn] = []
    transcript = Transcript("call", turns.append)
    transcript.caller_speaks("greeting", 1.0, "one")
    transcript.caller_speaks("reason", 5.0, "two")
    transcript.caller_said("A toothache.", "reason", 6.0, "two")
    transcript.caller_speaks("reason", 11.5, "three")
    transcript.caller_said("On Monday.", "reason", 12.0, "three")
    assert [turn.text for turn in turns] == ["A toothache.", "On Monday."]


def test_turn_that_waits_for_the_words_of_another_is_told_at_the_end_of_the_call() -> None:
    turns: list[Turn] = []
    transcript = Transcript("call", turns.append)
    transcript.caller_speaks("greeting", 1.0, "one")
    transcript.caller_speaks("greeting", 2.0, "two")
    transcript.caller_said("Hello?", "greeting", 3.0, "two")
    transcript.wait_no_longer()
    assert [turn.text for turn in turns] == ["Hello?"]


def test_turn_without_words_is_none() -> None:
    turns: list[Turn] = []
    transcript = Transcript("call", turns.append)
    transcript.caller_speaks("greeting", 1.0, "one")
    transcript.caller_speaks("greeting", 2.0, "two")
    transcript.caller_said("", "greeting", 3.0, "one")
    transcript.caller_said("Hello?", "greeting", 3.0, "two")
    assert [turn.text for turn in turns] == ["Hello?"]
