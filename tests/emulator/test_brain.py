from typing import Any

import pytest

from arivox.emulator.brain import DEFAULT_PROMPT, GOOD_BYE, NOT_UNDERSTOOD, Brain, Say, Situation, Use

MOVE: dict[str, Any] = {
    "type": "object",
    "properties": {"state": {"type": "string", "enum": ["day", "fallback"]}, "value": {"type": "string"}},
}
TOOLS: dict[str, Any] = {"move_to_state": MOVE, "end_call": {}}
TEXT = """You are a clinic.

Be brief.

Current state: reason
What is the reason
for your call?
Known so far: name: Ann
"""
PHRASES = {"reason": [("I have a toothache", "toothache"), ("a check up", "check-up")]}


@pytest.fixture
def brain() -> Brain:
    return Brain(PHRASES)


@pytest.fixture
def reason() -> Situation:
    return Situation(TEXT, TOOLS)


def test_instructions_are_read(reason: Situation) -> None:
    assert reason.state == "reason"
    assert reason.prompt == "What is the reason for your call?"
    assert reason.ways_on == ["day", "fallback"]
    assert not reason.is_last


@pytest.mark.parametrize(
    "text", ["", "Be nice.", "Current state: hello", "Current state: hello\nKnown so far: x"]
)
def test_without_a_prompt_it_has_something_to_say(text: str) -> None:
    assert Situation(text).prompt == DEFAULT_PROMPT


def test_a_quoted_prompt_is_said_without_its_quotes() -> None:
    assert Situation('Current state: a\nSay: "Good day." Then wait.').prompt == "Good day."


def test_asked_to_speak_first_it_says_the_prompt(brain: Brain, reason: Situation) -> None:
    assert brain.open(reason) == [Say("What is the reason for your call?")]


def test_it_says_what_it_is_told(brain: Brain, reason: Situation) -> None:
    assert brain.open(reason, 'The caller is silent. Say: "Are you there?" and wait') == [
        Say("Are you there?")
    ]
    assert brain.open(reason, "Be kind.") == [Say("What is the reason for your call?")]


def test_an_expected_phrase_moves_on_with_its_value(brain: Brain, reason: Situation) -> None:
    expected = brain.expected(reason)
    assert expected[:2] == ["I have a toothache", "a check up"]
    assert brain.answer(reason, "i have a  Toothache.") == [
        Use("move_to_state", {"state": "day", "value": "toothache"})
    ]


def test_without_phrases_any_words_will_do(reason: Situation) -> None:
    brain = Brain()
    assert brain.expected(reason) == []
    assert brain.answer(reason, "blue") == [Use("move_to_state", {"state": "day", "value": "blue"})]


def test_a_tool_without_a_value_gets_none(brain: Brain) -> None:
    move = {"properties": {"state": {"enum": ["day"]}}}
    situation = Situation(TEXT, {"move_to_state": move})
    assert brain.answer(situation, "a check up") == [Use("move_to_state", {"state": "day"})]


@pytest.mark.parametrize("heard", ["", "purple monkey"])
def test_what_it_does_not_understand_it_asks_again(brain: Brain, reason: Situation, heard: str) -> None:
    assert brain.answer(reason, heard) == [Say(f"{NOT_UNDERSTOOD} What is the reason for your call?")]


@pytest.mark.parametrize("heard", ["good bye", "Goodbye!", "bye", "well, good-bye then"])
def test_a_good_bye_ends_the_call(brain: Brain, reason: Situation, heard: str) -> None:
    assert brain.answer(reason, heard) == [Say(GOOD_BYE), Use("end_call")]


def test_good_bye_can_be_heard_in_every_state(brain: Brain, reason: Situation) -> None:
    assert any(
        brain.answer(reason, words) == [Say(GOOD_BYE), Use("end_call")] for words in brain.expected(reason)
    )


def test_a_last_state_says_good_bye_and_ends_the_call(brain: Brain) -> None:
    last = Situation("Current state: done\nYour appointment is confirmed.", {"end_call": {}})
    assert brain.open(last) == [Say("Your appointment is confirmed. Good-bye."), Use("end_call")]
    assert brain.answer(last, "") == [Say(GOOD_BYE), Use("end_call")]
    parting = Situation("Current state: done\nThanks and goodbye!", {"end_call": {}})
    assert brain.open(parting) == [Say("Thanks and goodbye!"), Use("end_call")]


def test_without_a_tool_to_end_the_call_it_stays(brain: Brain) -> None:
    last = Situation("Current state: done\nAll is done.")
    assert brain.open(last) == [Say("All is done.")]
    assert brain.answer(last, "bye") == [Say("All is done.")]


def test_without_states_it_repeats_what_it_heard(brain: Brain) -> None:
    assert brain.answer(Situation("Be nice.", {"end_call": {}}), "blue") == [Say("You said: blue.")]
