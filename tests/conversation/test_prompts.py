"""The prompts file: what is taken, and how a fault in it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation import prompts
from arivox.conversation.conversation import Conversation
from arivox.conversation.endpoint import Endpoint
from arivox.conversation.field import Field
from arivox.conversation.prompts import Prompts
from arivox.conversation.state import Action, Exit, Silence, Timeout
from arivox.conversation.tools.calendar import Calendar
from arivox.errors import SettingsError

GOOD = """
openai:
  system_instruction: >-
    You are
    brief.
  states:
    greeting: "Hello,  who
      is calling?"
    farewell: Bye.
    fallback: Sorry?
gemini:
  states:
    greeting: Other words.
"""


def words(found: Prompts) -> dict[str, str]:
    return {name: state.prompt for name, state in found.states.items()}


def test_states_keep_the_order_of_the_file_and_text_is_one_line() -> None:
    found = prompts.parse(GOOD, ["openai"], "test")
    assert found.system_instruction == "You are brief."
    assert words(found) == {
        "greeting": "Hello, who is calling?",
        "farewell": "Bye.",
        "fallback": "Sorry?",
    }
    assert list(found.states) == ["greeting", "farewell", "fallback"]
    assert found.way == ("greeting", "farewell")


def test_each_provider_has_its_own() -> None:
    found = prompts.parse(GOOD, ["gemini"], "test")
    assert found.system_instruction == ""
    assert words(found) == {"greeting": "Other words."}


FAULTS = {
    "openai: [": "not valid YAML",
    "": "the file must have sections",
    "- a": "the file must have sections",
    "other: {}": "line 1, column 1: 'other' is not an AI",
    "gemini: {states: {a: b}}": "no section 'openai'",
    "openai: text": "line 1, column 9: openai must hold",
    "openai: {}": "openai has no states",
    "openai: {states: {}}": "line 1, column 18: states must map",
    "openai: {states: [a]}": "states must map",
    "openai: {states: {a: }}": "state 'a' must have a prompt",
    "openai: {states: {a: '  '}}": "state 'a' must have a prompt",
    "openai: {states: {a: [x]}}": "state 'a' must have a prompt",
    "openai: {states: {a: 'to {b}'}}": r"state 'a' speaks of {b}, which no state asks for",
    "openai: {states: {a: {prompt: b, next: c}}}": "'c' is not a state",
    "openai: {states: {fallback: x, error_handler: y}}": "no state besides",
    "openai: {system_instruction: [x], states: {a: b}}": "system_instruction must be text",
}


@pytest.mark.parametrize(("text", "problem"), FAULTS.items())
def test_faults_name_the_place_and_the_file(text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        prompts.parse(text, ["openai"], "my.yaml")
    assert caught.value.setting == "PROMPTS_FILE"
    assert caught.value.source == "my.yaml"


@pytest.mark.parametrize("prompt", ["no", "7", "2024-13-45", "1:30", "null", "~"])
def test_prompts_are_the_text_that_was_written(prompt: str) -> None:
    found = prompts.parse(f"openai: {{states: {{1: {prompt}}}}}", ["openai"], "my.yaml")
    assert words(found) == {"1": prompt}


def test_tags_make_nothing_but_text() -> None:
    text = "openai: {states: {a: !!python/object/apply:os.getcwd [], b: !!timestamp x}}"
    with pytest.raises(SettingsError):
        prompts.parse(text, ["openai"], "my.yaml")
    dated = prompts.parse("openai: {states: {b: !!timestamp x}}", ["openai"], "x")
    assert words(dated) == {"b": "x"}


@settings(max_examples=200)
@given(st.text(alphabet="openai: states\n\t-[]{},'\"|>&*#%@`?\\x07é", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = prompts.parse(text, ["openai"], "x")
    except SettingsError:
        return
    assert found.way


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"PROMPTS_FILE.*nowhere\.yaml"):
        prompts.load(tmp_path / "nowhere.yaml", ["openai"])
    with pytest.raises(SettingsError, match="PROMPTS_FILE"):
        prompts.load(tmp_path, ["openai"])
    (tmp_path / "latin.yaml").write_bytes("openai: {states: {a: grün}}".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"latin\.yaml"):
        prompts.load(tmp_path / "latin.yaml", ["openai"])


def test_file_of_the_user_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD, encoding="utf-8")
    assert prompts.load(tmp_path / "mine.yaml", ["openai"]).way == ("greeting", "farewell")


def test_file_of_the_package_works_to_its_end() -> None:
    found = prompts.load(None, ["openai"])
    assert found.way[0] == "greeting"
    assert {"fallback", "error_handler"} <= set(found.states)
    said: dict[str, dict[str, object]] = {
        "gathering_reason": {"reason": "a cold"},
        "collecting_availability_days": {"day": "Monday"},
        "collecting_availability_times": {"time": "morning"},
        "proposing_slot": {"agreed": True},
    }
    learned = {"slot": "Monday at nine", "booked": "Monday at nine"}
    conversation = Conversation(found, tools=Calendar(":memory:").tools())
    for state in found.way[1:]:
        arguments = {"state": state, **said.get(conversation.state, {})}
        outcome = conversation.call_tool("move_to_state", json.dumps(arguments))
        if outcome.checks is not None:
            outcome = conversation.checked(outcome.checks.request, learned)
        assert outcome.moved, outcome.output
    assert conversation.state == found.way[-1]
    assert "{" not in conversation.brief.instructions, "every placeholder was filled"


WHOLE = """
common:
  system_instruction: Be brief.
  defaults:
    no_match: {say: "Pardon?", tries: 2, to: operator}
    silence: {after: 7, say: "Hello?", times: 3, to: operator}
    timeout: {after: 90, to: operator}
    tools: [order_status]
    dtmf: {"0": operator, "#": order}
  states:
    order:
      prompt: What is your order?
      collect:
        order: {type: digits, length: 6, description: its number}
        name: the caller's name
        kind: {choices: [new, old], required: no}
        email: {pattern: '.+@.+'}
      next:
        - operator
        - {state: done, when: {kind: [new, old], name: "*"}, anyway: yes}
      on_enter: [leave_note: {text: hello}]
      on_leave: [{order_status: {order: "{order}"}}]
    operator: {prompt: I connect you., next: end, no_match: {tries: 5}}
    done: Bye.
    fallback: Sorry?
gemini:
  system_instruction: Be kind.
  states:
    order: {prompt: "Which order?", timeout: {after: 30, to: done}}
    done: "Good bye, {name}."
    more: Anything else?
tools:
  order_status:
    description: Say where an order is.
    parameters: {order: {type: digits}}
    say: One moment.
    http:
      url: https://shop.example/{order}?key=${SHOP_KEY}
      method: post
      query: {a: "{order}"}
      headers: {Authorization: "Bearer ${SHOP_KEY}"}
      body: {id: "{order}"}
      timeout: 3
"""


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SHOP_KEY", "k")
    return WHOLE


def test_state_can_be_more_than_a_prompt(whole: str) -> None:
    state = prompts.parse(whole, ["openai"], "test").states["order"]
    assert state.collects == (
        Field("order", "digits", "its number", length=6),
        Field("name", description="the caller's name"),
        Field("kind", choices=("new", "old"), required=False),
        Field("email", pattern=".+@.+"),
    )
    assert state.exits == (
        Exit("operator"),
        Exit("done", {"kind": ("new", "old"), "name": ("*",)}, anyway=True),
    )
    assert (state.no_match_say, state.tries, state.no_match_to) == ("Pardon?", 2, "operator")
    assert state.silence == Silence(7, "Hello?", 3, "operator")
    assert state.timeout == Timeout(90, "operator")
    assert state.tools == ("order_status",)
    assert state.keys == {"0": "operator", "#": "order"}
    assert state.on_enter == (Action("leave_note", {"text": "hello"}),)
    assert state.on_leave == (Action("order_status", {"order": "{order}"}),)


def test_state_has_its_own_instead_of_the_defaults_and_asides_have_none(whole: str) -> None:
    states = prompts.parse(whole, ["openai"], "test").states
    assert (states["operator"].tries, states["operator"].no_match_say) == (5, "")
    assert states["operator"].silence == states["order"].silence
    assert (states["fallback"].silence, states["fallback"].keys, states["fallback"].tries) == (None, {}, 3)


def test_conditions_are_in_the_form_of_what_is_kept() -> None:
    text = """
    common:
      states:
        a: {prompt: A, collect: {ok: {type: yes_no}}, next: [{state: b, when: {ok: true}}]}
        b: B
    """
    (way,) = prompts.parse(text, ["openai"], "test").states["a"].exits
    assert way == Exit("b", {"ok": ("yes",)})


def test_section_of_an_ai_refines_the_common_one(whole: str) -> None:
    common = prompts.parse(whole, ["openai-live", "openai"], "test")
    gemini = prompts.parse(whole.replace("next: end", "next: more"), ["gemini"], "test")
    assert (common.system_instruction, gemini.system_instruction) == ("Be brief.", "Be kind.")
    assert words(gemini) == words(common) | {
        "order": "Which order?",
        "done": "Good bye, {name}.",
        "more": "Anything else?",
    }
    assert gemini.states["order"].collects == common.states["order"].collects
    assert gemini.states["order"].timeout == Timeout(30, "done")
    assert list(gemini.states) == ["order", "operator", "done", "fallback", "more"]


def test_http_tools_belong_to_every_ai(whole: str) -> None:
    (endpoint,) = prompts.parse(whole, ["openai"], "test").endpoints.values()
    assert endpoint == Endpoint(
        "order_status",
        "Say where an order is.",
        "https://shop.example/{order}?key=${SHOP_KEY}",
        "POST",
        {"order": Field("order", "digits")},
        {"a": "{order}"},
        {"Authorization": "Bearer ${SHOP_KEY}"},
        {"id": "{order}"},
        3.0,
        "One moment.",
    )


def test_what_an_http_tool_needs_must_be_set() -> None:
    with pytest.raises(SettingsError, match="tool 'order_status' needs the environment variable SHOP_KEY"):
        prompts.parse(WHOLE, ["openai"], "test")
