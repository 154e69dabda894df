"""The conversation: where it may go, what it remembers, and that a wrong tool call changes nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation import prompts
from arivox.conversation.conversation import END, MOVE, Conversation
from arivox.conversation.prompts import Prompts

PROMPTS = prompts.load(None, ["openai"])
WAY = PROMPTS.way


def move(state: object, value: object = "x") -> str:
    return json.dumps({"state": state, "value": value})


def at(state: str) -> Conversation:
    conversation = Conversation(PROMPTS)
    while conversation.state != state:
        assert conversation.call_tool(MOVE, move(conversation.exits[0], "")).moved
    return conversation


def output(conversation: Conversation, name: str, arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(conversation.call_tool(name, arguments).output)
    return found


def test_the_normal_way_goes_state_by_state() -> None:
    conversation = Conversation(PROMPTS)
    visited = [conversation.state]
    while conversation.state != WAY[-1]:
        outcome = conversation.call_tool(MOVE, move(conversation.exits[0]))
        assert outcome.moved
        assert not outcome.end_call
        assert json.loads(outcome.output) == {"ok": True, "state": conversation.state}
        visited.append(conversation.state)
    assert tuple(visited) == WAY
    assert conversation.exits == ()


@pytest.mark.parametrize("state", WAY[:-1])
def test_fallback_leads_back_to_where_it_came_from(state: str) -> None:
    conversation = at(state)
    following = WAY[WAY.index(state) + 1]
    assert list(conversation.exits) == [following, "fallback"]
    assert conversation.call_tool(MOVE, move("fallback")).moved
    assert list(conversation.exits) == [state]
    assert "did not quite understand" in conversation.brief.instructions
    assert conversation.call_tool(MOVE, move(state)).moved
    assert list(conversation.exits) == [following, "fallback"]


def test_prompts_without_fallback_offer_none() -> None:
    conversation = Conversation(Prompts("", {"a": "A", "b": "B"}))
    assert conversation.exits == ("b",)
    assert Conversation(Prompts("", {"a": "A"})).exits == ()


def test_what_the_caller_said_is_remembered_and_filled_in() -> None:
    conversation = Conversation(PROMPTS)
    said = ["", "  a cold ", "Monday", "ten o'clock"]
    for value in said:
        conversation.call_tool(MOVE, move(conversation.exits[0], value))
    assert conversation.state == "proposing_slot"
    assert conversation.known == {"reason": "a cold", "day": "Monday", "time": "ten o'clock"}
    assert "I can offer you Monday, ten o'clock." in conversation.brief.instructions
    assert "Known so far: reason: a cold; day: Monday; time: ten o'clock" in conversation.brief.instructions


def test_placeholders_of_what_is_not_known_are_empty_and_values_are_not_templates() -> None:
    way = {"gathering_reason": "Why?", "last": "You said {reason}, {nothing}."}
    conversation = Conversation(Prompts("Be brief.", way))
    conversation.call_tool(MOVE, move("last", "{day} {reason} \\1"))
    assert "You said {day} {reason} \\1, ." in conversation.brief.instructions


def test_a_detour_does_not_forget_or_overwrite() -> None:
    conversation = at("collecting_availability_days")
    conversation.call_tool(MOVE, move("fallback", "mumble"))
    assert conversation.known == {}
    conversation.call_tool(MOVE, move("collecting_availability_days", "mumble"))
    assert conversation.known == {}
    conversation.call_tool(MOVE, move("collecting_availability_times", "Tuesday"))
    assert conversation.known == {"day": "Tuesday"}


WRONG_ARGUMENTS = {
    "empty": "",
    "not_json": "{state: greeting}",
    "cut_off": '{"state": "gathering_rea',
    "null": "null",
    "list": "[]",
    "text": '"gathering_reason"',
    "no_state": '{"value": "x"}',
    "state_null": '{"state": null}',
    "state_number": '{"state": 7}',
    "state_list": '{"state": ["gathering_reason"]}',
    "value_number": '{"state": "gathering_reason", "value": 7}',
    "value_null": '{"state": "gathering_reason", "value": null}',
    "unknown_state": move("nowhere"),
    "empty_state": move(""),
    "same_state": move("greeting"),
    "two_states_ahead": move("collecting_availability_days"),
    "error_handler": move("error_handler"),
    "half_a_surrogate": '{"state": "\\ud800"}',
}


@pytest.mark.parametrize("arguments", WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS.keys())
def test_wrong_arguments_are_answered_and_change_nothing(arguments: str) -> None:
    conversation = Conversation(PROMPTS)
    before = conversation.brief
    outcome = conversation.call_tool(MOVE, arguments)
    assert list(json.loads(outcome.output)) == ["error"]
    assert (outcome.moved, outcome.end_call) == (False, False)
    assert (conversation.state, conversation.known) == ("greeting", {})
    assert conversation.brief == before


def test_wrong_state_is_answered_with_the_possible_ones() -> None:
    error = output(Conversation(PROMPTS), MOVE, move("confirmation"))["error"]
    assert "'confirmation' cannot follow 'greeting'" in error
    assert "gathering_reason, fallback" in error


def test_arguments_nested_too_deep_are_answered() -> None:
    deep = '{"state": "gathering_reason", "x": ' + "[" * 100_000
    assert "error" in output(Conversation(PROMPTS), MOVE, deep)


@pytest.mark.parametrize("name", ["", "move", "END_CALL", "end_call "])
def test_unknown_tools_are_answered(name: str) -> None:
    conversation = Conversation(PROMPTS)
    assert "no tool" in output(conversation, name, move("gathering_reason"))["error"]
    assert conversation.state == "greeting"


def test_model_that_gets_it_wrong_again_and_again_is_sent_to_fallback() -> None:
    conversation = Conversation(PROMPTS)
    for _ in range(2):
        assert not conversation.call_tool(MOVE, move("confirmation")).moved
    outcome = conversation.call_tool(MOVE, move("confirmation"))
    assert (outcome.moved, outcome.cause) == (True, "tries")
    answer = json.loads(outcome.output)
    assert answer["state"] == conversation.state == "fallback"
    assert "cannot follow" in answer["error"]


def test_bug_in_a_tool_leads_to_the_error_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, arguments: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("arivox.conversation.conversation._event", broken)
    conversation = Conversation(PROMPTS)
    outcome = conversation.call_tool(MOVE, move("gathering_reason"))
    assert (conversation.state, outcome.cause) == ("error_handler", "error")
    assert "went wrong" in conversation.brief.instructions


@pytest.mark.parametrize("arguments", ["", "{}", "junk"])
@pytest.mark.parametrize("state", WAY)
def test_the_call_can_be_ended_from_anywhere(state: str, arguments: str) -> None:
    conversation = at(state)
    outcome = conversation.call_tool(END, arguments)
    assert (outcome.end_call, outcome.moved, conversation.state) == (True, False, state)


@pytest.mark.parametrize("state", WAY)
def test_brief_offers_exactly_the_exits(state: str) -> None:
    conversation = at(state)
    brief = conversation.brief
    assert brief.instructions.startswith(PROMPTS.system_instruction)
    assert f"Current state: {state}" in brief.instructions
    tools = {tool.name: tool.parameters for tool in brief.tools}
    if conversation.exits:
        assert tools[MOVE]["properties"]["state"]["enum"] == list(conversation.exits)
        assert set(tools[MOVE]["required"]) <= set(tools[MOVE]["properties"])
    else:
        assert MOVE not in tools
    assert END in tools
    assert msgspec.json.encode(tools)


def test_instruction_of_the_settings_replaces_that_of_the_file() -> None:
    assert Conversation(PROMPTS, "Speak like a pirate.").brief.instructions.startswith("Speak like a pirate.")


names = st.sampled_from([MOVE, END, "other"])
states = st.sampled_from([*PROMPTS.states, "nowhere"])
arguments = st.one_of(st.builds(move, states, st.text(max_size=5)), st.text(max_size=20), st.just("{}"))


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(names, arguments), max_size=30))
def test_any_tool_calls_leave_it_in_a_declared_state(calls: list[tuple[str, str]]) -> None:
    conversation = Conversation(PROMPTS)
    for name, text in calls:
        before, exits, known = conversation.state, conversation.exits, dict(conversation.known)
        outcome = conversation.call_tool(name, text)
        assert conversation.state in PROMPTS.states
        assert conversation.state == before or conversation.state in (*exits, "fallback", "error_handler")
        assert outcome.moved == (conversation.state != before)
        assert ("error" in outcome.output) == (outcome.cause == "tries" or not (outcome.moved or name == END))
        assert outcome.end_call == (name == END)
        if not outcome.moved:
            assert (conversation.state, conversation.known) == (before, known)
        assert conversation.brief.tools
        assert conversation.exits or conversation.state == WAY[-1], "no dead end before the last state"
