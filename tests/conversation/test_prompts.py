"""The prompts file: what is taken, and how a fault in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation import prompts
from arivox.conversation.conversation import Conversation
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


def test_states_keep_the_order_of_the_file_and_text_is_one_line() -> None:
    found = prompts.parse(GOOD, ["openai"], "test")
    assert found.system_instruction == "You are brief."
    assert found.states == {
        "greeting": "Hello, who is calling?",
        "farewell": "Bye.",
        "fallback": "Sorry?",
    }
    assert list(found.states) == ["greeting", "farewell", "fallback"]
    assert found.way == ("greeting", "farewell")


def test_each_provider_has_its_own() -> None:
    found = prompts.parse(GOOD, ["gemini"], "test")
    assert found.system_instruction == ""
    assert found.states == {"greeting": "Other words."}


FAULTS = {
    "openai: [": "not valid YAML",
    "": "no section 'openai'",
    "- a": "no section 'openai'",
    "other: {}": "no section 'openai'",
    "openai: text": "no section 'openai'",
    "openai: {}": "openai.states must map",
    "openai: {states: {}}": "openai.states must map",
    "openai: {states: [a]}": "openai.states must map",
    "openai: {states: {a: }}": "openai.states.a must be a prompt",
    "openai: {states: {a: '  '}}": "openai.states.a must be a prompt",
    "openai: {states: {a: [x]}}": "openai.states.a must be a prompt",
    "openai: {states: {fallback: x, error_handler: y}}": "no state besides",
    "openai: {system_instruction: [x], states: {a: b}}": "openai.system_instruction must be text",
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
    assert found.states == {"1": prompt}


def test_tags_make_nothing_but_text() -> None:
    text = "openai: {states: {a: !!python/object/apply:os.getcwd [], b: !!timestamp x}}"
    with pytest.raises(SettingsError):
        prompts.parse(text, ["openai"], "my.yaml")
    assert prompts.parse("openai: {states: {b: !!timestamp x}}", ["openai"], "x").states == {"b": "x"}


@settings(max_examples=200, deadline=None)
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
    conversation = Conversation(found)
    for state in found.way[1:]:
        assert conversation.call_tool("move_to_state", f'{{"state": "{state}", "value": "v"}}').moved
    assert conversation.state == found.way[-1]
    assert "{" not in conversation.brief.instructions, "every placeholder was filled"
