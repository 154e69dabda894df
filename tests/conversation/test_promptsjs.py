"""The scripts' prompts.js becomes a prompts file that works."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation import prompts
from arivox.conversation.prompts import Prompts
from arivox.conversation.promptsjs import convert
from arivox.errors import SettingsError

SCRIPT = """// prompts.js
/* both
   providers */
module.exports = {
    openai: {
        system_instruction: "You are a helpful voice assistant: schedule appointments...",
        states: {
            greeting: 'Hello! I\\'m here to help.',
            "gathering_reason": "Okay, and " +
                "why?",  // in two pieces
            confirmation: `Your appointment for {reason}
is confirmed \\u00e9.`,
            fallback: "I'm sorry...",
        },
    },
    gemini: { system_instruction: "Other", states: { greeting: "Hi: there" } }
};
"""


def words(found: Prompts) -> dict[str, str]:
    return {name: state.prompt for name, state in found.states.items()}


def test_script_becomes_a_file_that_says_the_same() -> None:
    text = convert(SCRIPT, "prompts.js")
    openai = prompts.parse(text, ["openai"], "x")
    assert openai.system_instruction == "You are a helpful voice assistant: schedule appointments..."
    assert words(openai) == {
        "greeting": "Hello! I'm here to help.",
        "gathering_reason": "Okay, and why?",
        "confirmation": "Your appointment for {reason} is confirmed é.",
        "fallback": "I'm sorry...",
    }
    assert list(openai.states) == ["greeting", "gathering_reason", "confirmation", "fallback"]
    assert words(prompts.parse(text, ["gemini"], "x")) == {"greeting": "Hi: there"}


def test_export_of_a_module_is_read_too() -> None:
    text = convert("export default {openai: {states: {a: 'A'}}}", "prompts.mjs")
    assert words(prompts.parse(text, ["openai"], "x")) == {"a": "A"}


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("", "ends too early"),
        ("module.exports = {", "ends too early"),
        ("module.exports = {\n  openai: {states: {a: `${x}`}}}", "line 2, column 24: text must not compute"),
        ("module.exports = {\n openai: require('x')}", "line 2, column 17: '(' is not understood"),
        ("module.exports = {\n openai: {states: {a: 7}}}", "line 2, column 23: '7' is not understood"),
        ("module.exports = {openai: {states: {a: 'A' b: 'B'}}}", "',' is expected"),
        ("module.exports = {openai: {states: {a 'A'}}}", "':' is expected"),
        ("module.exports = {openai: 'x'}", "openai has no states"),
        ("module.exports = {} + {}", "nothing may follow"),
    ],
)
def test_what_is_not_understood_is_named_with_its_place(script: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        convert(script, "my.js")
    assert problem in str(caught.value)
    assert "my.js" in str(caught.value)


@settings(max_examples=200)
@given(st.text(alphabet="module.exports={}:,'\"`+/*\\\n a$;", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        convert(text, "x")
    except SettingsError:
        return
