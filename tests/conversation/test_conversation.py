"""The conversation: where it may go, what it remembers, and that a wrong tool call changes nothing."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation import prompts
from arivox.conversation.conversation import Conversation, Outcome, Work
from arivox.conversation.flow import HIDDEN, KEYS_PAUSE_S, Entered
from arivox.conversation.prompts import Prompts
from arivox.conversation.state import plain
from arivox.conversation.tools.calendar import Calendar
from arivox.conversation.tools.names import END, MOVE, NOT_UNDERSTOOD

SCRIPTS = """
openai:
  system_instruction: You are the assistant of a clinic.
  states:
    greeting: "Hello. Shall we begin?"
    gathering_reason: "What is the reason?"
    collecting_availability_days: "Which day?"
    collecting_availability_times: "What time?"
    proposing_slot: "I can offer you {day}, {time}. Does that suit you?"
    confirmation: "It is confirmed: {reason}, on {date}, {time}."
    fallback: "I am sorry, I did not quite understand."
    error_handler: "I am sorry, something went wrong on our side."
"""
PROMPTS = prompts.parse(SCRIPTS, ["openai"], "test")
WAY = PROMPTS.way


# What is asked for in the states of the scripts.
ANSWERS = {
    "gathering_reason": {"reason": "a cold"},
    "collecting_availability_days": {"day": "Monday"},
    "collecting_availability_times": {"time": "ten o'clock"},
}


def move(state: object, **values: object) -> str:
    return json.dumps({"state": state, **values})


def on(conversation: Conversation) -> Outcome:
    """Move on by the normal way, with what the state asks for."""
    return conversation.call_tool(MOVE, move(conversation.exits[0], **ANSWERS.get(conversation.state, {})))


def at(state: str) -> Conversation:
    conversation = Conversation(PROMPTS)
    while conversation.state != state:
        assert on(conversation).moved
    return conversation


def output(conversation: Conversation, name: str, arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(conversation.call_tool(name, arguments).output or "")
    return found


def test_the_normal_way_goes_state_by_state() -> None:
    conversation = Conversation(PROMPTS)
    visited = [conversation.state]
    while conversation.state != WAY[-1]:
        outcome = on(conversation)
        assert outcome.moved
        assert not outcome.end_call
        assert json.loads(outcome.output or "") == {"ok": True, "state": conversation.state}
        visited.append(conversation.state)
    assert tuple(visited) == WAY
    assert conversation.exits == ()


@pytest.mark.parametrize("state", WAY[:-1])
def test_fallback_leads_back_to_where_it_came_from(state: str) -> None:
    conversation = at(state)
    following = WAY[WAY.index(state) + 1]
    assert list(conversation.exits) == [following, "fallback"]
    assert conversation.call_tool(MOVE, move("fallback")).moved
    assert list(conversation.exits) == [following, state]
    assert "did not quite understand" in conversation.brief.instructions
    assert conversation.call_tool(MOVE, move(state)).moved
    assert list(conversation.exits) == [following, "fallback"]


def test_prompts_without_fallback_offer_none() -> None:
    conversation = Conversation(Prompts("", plain({"a": "A", "b": "B"})))
    assert conversation.exits == ("b",)
    assert Conversation(Prompts("", plain({"a": "A"}))).exits == ()


def test_what_the_caller_said_is_remembered_and_filled_in() -> None:
    conversation = at("proposing_slot")
    assert conversation.state == "proposing_slot"
    assert conversation.known == {"reason": "a cold", "day": "Monday", "time": "ten o'clock"}
    assert "I can offer you Monday, ten o'clock." in conversation.brief.instructions
    assert "It is confirmed: a cold, on Monday, ten o'clock." in at("confirmation").brief.instructions
    assert "Known so far: reason: a cold; day: Monday; time: ten o'clock" in conversation.brief.instructions


def test_values_are_not_templates_and_what_is_missing_has_other_words() -> None:
    way = plain({"gathering_reason": "Why?", "last": "You said {reason}, {nothing|no more}."})
    conversation = Conversation(Prompts("Be brief.", way))
    conversation.call_tool(MOVE, move("last", reason="{day} {reason} \\1"))
    assert "You said {day} {reason} \\1, no more." in conversation.brief.instructions


def test_a_detour_does_not_forget_or_overwrite() -> None:
    conversation = at("collecting_availability_days")
    before = {"reason": "a cold"}
    conversation.call_tool(MOVE, move("fallback"))
    assert conversation.known == before
    conversation.call_tool(MOVE, move("collecting_availability_days"))
    assert conversation.known == before
    conversation.call_tool(MOVE, move("collecting_availability_times", day="Tuesday"))
    assert conversation.known == before | {"day": "Tuesday"}


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
    "unasked_value": '{"state": "gathering_reason", "value": "x"}',
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
    assert list(json.loads(outcome.output or "")) == ["error"]
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
    assert outcome.entered == Entered("greeting", "fallback", "tries")
    answer = json.loads(outcome.output or "")
    assert answer["state"] == conversation.state == "fallback"
    assert "cannot follow" in answer["error"]


def test_bug_in_a_tool_leads_to_the_error_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Conversation, name: str, arguments: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Conversation, "_call_tool", broken)
    conversation = Conversation(PROMPTS)
    outcome = conversation.call_tool(MOVE, move("gathering_reason"))
    assert outcome.entered == Entered("greeting", "error_handler", "error")
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
        assert set(tools[MOVE]["properties"]) == {"state", *ANSWERS.get(state, {})}
        assert tools[MOVE]["required"] == ["state"]
        assert NOT_UNDERSTOOD in tools
    else:
        assert MOVE not in tools
    assert END in tools
    assert msgspec.json.encode(tools)


def test_instruction_of_the_settings_replaces_that_of_the_file() -> None:
    instruction = "Speak like a pirate. Never say {this}."
    assert Conversation(PROMPTS, instruction).brief.instructions.startswith(instruction)


names = st.sampled_from([MOVE, END, "other"])
states = st.sampled_from([*PROMPTS.states, "nowhere"])
values = st.dictionaries(st.sampled_from(["reason", "day", "time", "x"]), st.text(max_size=5))
moves = st.builds(lambda state, said: move(state, **said), states, values)
arguments = st.one_of(moves, st.text(max_size=20), st.just("{}"))


@settings(max_examples=120)
@given(st.lists(st.tuples(names, arguments), max_size=30))
def test_any_tool_calls_leave_it_in_a_declared_state(calls: list[tuple[str, str]]) -> None:
    conversation = Conversation(PROMPTS)
    for name, text in calls:
        before, exits, known = conversation.state, conversation.exits, dict(conversation.known)
        outcome = conversation.call_tool(name, text)
        assert conversation.state in PROMPTS.states
        assert conversation.state == before or conversation.state in (*exits, "fallback", "error_handler")
        assert outcome.moved == (conversation.state != before)
        forced = outcome.entered is not None and outcome.entered.cause == "tries"
        assert ("error" in (outcome.output or "")) == (forced or not (outcome.moved or name == END))
        assert outcome.end_call == (name == END)
        if not outcome.moved:
            assert (conversation.state, conversation.known) == (before, known)
        assert conversation.brief.tools
        assert conversation.exits or conversation.state == WAY[-1], "no dead end before the last state"


# --- more than prompts ---

RICH = """
common:
  system_instruction: "It is {now.weekday}, {now.date}. You speak with {caller.name|a caller}."
  defaults: {silence: {after: 6, say: "Are you there?", times: 1, to: person}}
  states:
    menu:
      prompt: "For a person press 0, {caller.name|dear caller}."
      next: [account, {state: person, anyway: true}]
      dtmf: {"0": person}
      tools: [transfer_call, collect_digits, hold_call]
    account:
      prompt: Key in your account and your PIN.
      collect:
        account: {type: digits, length: 4}
        pin: {type: digits, secret: true}
      next: size
    size:
      prompt: What size?
      collect: {size: {choices: [small, large], description: the size}}
      next: [{state: small, when: {size: [small]}}, {state: large, when: {size: [large]}}]
    small: {prompt: "A small one, {size}.", next: end}
    large: {prompt: "A large one.", next: end, on_enter: [book_slot]}
    person:
      prompt: I connect you.
      next: end
      on_enter: [{transfer_call: {destination: sales, summary: "{size}"}}]
    fallback: Sorry?
    error_handler: Oh.
"""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rich(clock: Clock) -> Conversation:
    return Conversation(
        prompts.parse(RICH, ["gemini"], "test"),
        variables={"caller.name": "Ann", "caller.number": ""},
        tools=Calendar(":memory:").tools(),
        destinations={"sales": "", "any": "give the number (2XX)"},
        clock=clock,
        now=lambda: datetime.fromisoformat("2026-11-24T08:05"),
    )


def keyed(conversation: Conversation, digits: str) -> Outcome:
    for digit in digits[:-1]:
        assert conversation.key(digit) == Outcome()
    return conversation.key(digits[-1])


def test_variables_are_filled_in(rich: Conversation) -> None:
    assert rich.brief.instructions.startswith("It is Tuesday, 2026-11-24. You speak with Ann.")
    assert "For a person press 0, Ann." in rich.brief.focus


def test_tools_of_the_state_are_offered_with_the_destinations(rich: Conversation) -> None:
    tools = {tool.name: tool.parameters for tool in rich.brief.tools}
    assert list(tools) == [MOVE, NOT_UNDERSTOOD, "transfer_call", "collect_digits", "hold_call", END]
    destination = tools["transfer_call"]["properties"]["destination"]
    assert destination["enum"] == ["sales", "any"]
    assert "any: give the number (2XX)" in destination["description"]
    rich.call_tool(MOVE, move("account"))
    assert [tool.name for tool in rich.brief.tools] == [MOVE, NOT_UNDERSTOOD, END]


def test_tool_that_takes_time_is_work_with_read_arguments(rich: Conversation) -> None:
    outcome = rich.call_tool("hold_call", '{"seconds": 20}')
    assert outcome == Outcome(work=Work("hold_call", {"seconds": "20"}, None))
    assert "seconds" in output(rich, "hold_call", '{"seconds": "long"}')["error"]
    assert "seconds is missing" in output(rich, "hold_call", "{}")["error"]


def test_tool_of_another_state_is_refused(rich: Conversation) -> None:
    rich.call_tool(MOVE, move("account"))
    assert "cannot be used here" in output(rich, "hold_call", '{"seconds": 20}')["error"]


def test_ai_with_fixed_tools_is_told_of_all_from_the_first(rich: Conversation) -> None:
    rich.fixed_tools = True
    tools = {tool.name: tool.parameters for tool in rich.brief.tools}
    assert {"transfer_call", "hold_call", MOVE, NOT_UNDERSTOOD, END} <= set(tools)
    assert set(tools[MOVE]["properties"]) == {"state", "account", "size"}, "no secret among them"
    rich.call_tool(MOVE, move("account"))
    assert {tool.name for tool in rich.brief.tools} == set(tools)


def test_key_leads_on_and_the_flow_runs_its_tool(rich: Conversation) -> None:
    outcome = rich.key("0")
    assert outcome.entered == Entered("menu", "person", "key")
    assert outcome.output is None
    assert outcome.runs == (Work("transfer_call", {"destination": "sales"}, None),), (
        "what is empty is left out"
    )


def test_digits_lead_on_and_secret_ones_are_nowhere(rich: Conversation) -> None:
    rich.call_tool(MOVE, move("account"))
    assert not rich.private
    outcome = keyed(rich, "1234")
    assert outcome.keyed is not None
    assert outcome.changed
    assert outcome.say == "The caller has keyed in account: 1234. Go on from there."
    assert rich.private
    outcome = keyed(rich, "987654#")
    assert outcome.entered == Entered("account", "size", "digits")
    assert not rich.private
    assert rich.known == {"account": "1234", "pin": HIDDEN}
    assert rich.secrets == {"pin": "987654"}
    assert "987654" not in repr(rich.brief)
    assert "987654" not in repr(outcome)


def test_secret_cannot_be_said(rich: Conversation) -> None:
    rich.call_tool(MOVE, move("account"))
    assert "pin" not in str(next(tool for tool in rich.brief.tools if tool.name == MOVE).parameters)
    assert "Ask for: account" in rich.brief.focus
    assert "'pin' is not asked for" in output(rich, MOVE, move("size", account="1234", pin="1"))["error"]


def test_what_a_tool_asks_for_is_as_secret_as_the_flow_says(rich: Conversation) -> None:
    assert rich.digits("pin", 0, secret=False).secret
    assert not rich.digits("card", 0, secret=False).secret
    assert not rich.hides_keys
    rich.call_tool(MOVE, move("account"))
    assert rich.hides_keys


def test_values_are_filled_into_what_is_said_again(rich: Conversation) -> None:
    text = "common: {states: {a: {prompt: A, next: b, no_match: {say: 'Well, {caller.name|you}?'}}, b: B}}"
    conversation = Conversation(prompts.parse(text, ["openai"], "x"), variables={"caller.name": "Ann"})
    assert output(conversation, NOT_UNDERSTOOD, "{}")["ask_again"] == 'Say: "Well, Ann?"'
    assert 'Say: "Well, Ann?"' in output(conversation, MOVE, move("nowhere"))["error"]


def test_keys_without_a_use_are_told_after_a_pause(rich: Conversation, clock: Clock) -> None:
    assert rich.key("5") == Outcome()
    assert rich.key("6") == Outcome()
    assert rich.tick() == Outcome()
    clock.now = KEYS_PAUSE_S
    outcome = rich.tick()
    assert outcome.say == "The caller has pressed 5 6 on their telephone. Go on from there."
    assert "The caller has pressed 5 6" in rich.brief.focus
    assert rich.tick() == Outcome()


def test_silence_is_asked_about_and_acted_on(rich: Conversation) -> None:
    assert rich.silence is not None
    assert rich.silence.after_s == 6
    assert rich.silent().say == 'Say: "Are you there?"'
    outcome = rich.silent()
    assert outcome.entered == Entered("menu", "person", "silence")
    assert [work.name for work in outcome.runs] == ["transfer_call"]


def test_move_that_a_tool_has_a_say_in(rich: Conversation) -> None:
    for state in ("account", "size"):
        rich.call_tool(MOVE, move(state, **({"account": "1234"} if state == "size" else {})))
        if state == "account":
            keyed(rich, "1234")
            keyed(rich, "1#")
    assert rich.state == "size"
    assert "Conditions: small only when size is small; large only when size is large" in rich.brief.focus
    assert "Ask for: size (the size; one of small, large)" in rich.brief.focus
    outcome = rich.call_tool(MOVE, move("large", size="large"))
    assert outcome.output is None
    assert outcome.checks is not None
    assert [work.name for work in outcome.checks.works] == ["book_slot"]
    refused = rich.checked(outcome.checks.request, {}, "it is sold out")
    assert json.loads(refused.output or "") == {"error": "it is sold out"}
    again = rich.call_tool(MOVE, move("large", size="large"))
    assert again.checks is not None
    rich.withdraw(again.checks.request)
    late = rich.checked(again.checks.request, {})
    assert "moved on meanwhile" in (late.output or "")
    once_more = rich.call_tool(MOVE, move("large", size="large"))
    assert once_more.checks is not None
    moved = rich.checked(once_more.checks.request, {"booked": "now"})
    assert json.loads(moved.output or "") == {"ok": True, "state": "large"}
    assert rich.known["booked"] == "now"


def test_what_the_flow_ran_is_told(rich: Conversation) -> None:
    assert rich.ran("hold_call", '{"ok":true}').changed
    assert 'Result of hold_call: {"ok":true}' in rich.brief.focus
    rich.call_tool(MOVE, move("account"))
    assert "Result of" not in rich.brief.focus


def test_first_prompt_without_a_value_goes_to_the_error_handler() -> None:
    text = "common: {states: {a: 'Hello {channel.CUSTOMER}.', b: B, error_handler: Oh.}}"
    found = prompts.parse(text, ["openai"], "test")
    assert found.channel_variables == ("CUSTOMER",)
    assert Conversation(found).begin().entered == Entered("a", "error_handler", "error")
    greeted = Conversation(found, variables={"channel.CUSTOMER": "Ann"})
    assert greeted.begin().entered is None
    assert "Hello Ann." in greeted.brief.focus


def test_resumed_conversation_has_forgotten_its_secrets(rich: Conversation) -> None:
    rich.resume("size", {"account": "1234", "pin": HIDDEN}, ())
    assert (rich.state, rich.known) == ("menu", {}), "who showed a secret then has not shown it now"
    rich.resume("size", {"account": "1234"}, ())
    assert (rich.state, rich.known) == ("size", {"account": "1234"})
    rich.resume("large", {}, ())
    assert rich.state == "size", "the conversation was over there"


def test_news_of_the_line_are_told_in_every_state_until_there_are_others() -> None:
    conversation = at("greeting")
    assert conversation.told("Somebody else is on the line: Ann.").changed
    for _ in range(2):
        assert "Somebody else is on the line: Ann." in conversation.brief.focus
        assert "Somebody else is on the line: Ann." in conversation.brief.instructions
        on(conversation)
    conversation.told("Somebody else is on the line: Bob.")
    assert "Ann" not in conversation.brief.instructions
    assert "Bob" in conversation.brief.focus
