"""Every fault of a prompts file is found, with its line and column; and the flow is drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation import check, prompts
from arivox.conversation.reader import Fault
from arivox.conversation.tools.box import package_facts


def faults(text: str) -> list[Fault]:
    return check.faults(text, package_facts())


FAULTY = """openai:
  system_instruction: [a]
  sates: {}
  states:
    greeting: "Hello {name}."
    collecting_availability_days: "Which day, at {time}?"
    collecting_availability_times:
    greeting: "Hello."
opnai: {}
gemini: text
"""


def test_all_faults_are_found_with_their_places() -> None:
    assert list(map(str, faults(FAULTY))) == [
        "line 2, column 23: system_instruction must be text",
        "line 3, column 3: 'sates' is not known here; there are system_instruction, defaults and states "
        "(do you mean 'states'?)",
        "line 7, column 35: state 'collecting_availability_times' must have a prompt (text)",
        "line 8, column 5: 'greeting' stands here for the second time; only the last would count",
        "line 9, column 1: 'opnai' is not an AI; there are common, openai, gemini, openai-live, tools "
        "(do you mean 'openai'?)",
        "line 10, column 9: gemini must hold system_instruction, defaults and states",
    ]


def test_file_of_the_package_has_none() -> None:
    assert faults(prompts.default_text()) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{}", "line 1, column 1: the file must have sections"),
        ("openai:\n  states: {[a]: b}", "line 2, column 12: the name must be text"),
        ("", "line 1, column 1: the file must have sections"),
        ("openai: {}", "line 1, column 9: openai has no states"),
        ("openai:\n  states: []", "line 2, column 11: states must map"),
        ("openai:\n  states: {fallback: x}", "line 2, column 11: there is no state besides"),
        ("openai: [", "line 1, column 10: not valid YAML"),
        ("a: b: c", "line 1, column 5: not valid YAML"),
    ],
)
def test_one_fault(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert str(found).startswith(fault)


@settings(max_examples=200)
@given(st.text(alphabet="openai: states\n\t-[]{},'\"|>&*#%@`?\\x07é", max_size=60))
def test_any_text_has_faults_or_can_be_loaded(text: str) -> None:
    if not faults(text):
        assert any(prompts.parse(text, [name], "x") for name in ("openai", "gemini") if f"{name}:" in text)


FLOW = """common:
  states:
    a:
      prompt: "A"
      collect: {{size: {{choices: [small, large]}}, day: {{type: date}}}}
      next: [b, {{state: c, when: {{size: [small]}}}}]
      tools: [find_slot]
    b: {{prompt: "B {{size}}", next: end}}
    c: {{prompt: "C", next: b}}
{more}"""


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("", ""),
        ("    d: {prompt: D, next: end}", "line 10, column 5: state 'd' cannot be reached from 'a'"),
        ("    d: {prompt: D, next: e}", "line 10, column 26: 'e' is not a state"),
        ("    c: {prompt: C, next: [gretting]}", "'c' stands here for the second time"),
        (
            "    fallback: {prompt: F, no_match: {to: bb}}",
            "line 10, column 42: 'bb' is not a state (do you mean",
        ),
        (
            "  defaults: {silence: {after: 5}}",
            "line 10, column 23: there is no state 'fallback' in this file",
        ),
        (
            "  defaults: {timeout: {after: 0, to: b}}",
            "line 10, column 31: after must be a number from 1 to 3600",
        ),
        ("  defaults: {dtmf: {'12': b}}", "line 10, column 21: '12' is not a key of a telephone"),
        (
            "  defaults: {tools: [find_slto]}",
            "line 10, column 22: 'find_slto' is not a tool; there are book_slot",
        ),
        (
            "  system_instruction: 'Hello {caller.number}'",
            "line 10, column 23: the system instruction speaks of",
        ),
        ("    fallback: 'Sorry, {caller.name}'", "may be withheld: write {caller.name|what to say then}"),
        ("    error_handler: 'Oh {colour}'", "speaks of {colour}, which no state asks for"),
        (
            "gemini: {states: {a: 'About {size}?'}}",
            "speaks of {size}, which has no value at the beginning",
        ),
        ("gemini: {states: {b: {next: c}}}", "from state 'a' no way leads to an end"),
        (
            "gemini: {states: {c: {next: [{state: b, when: {size: [huge]}}]}}}",
            "line 10, column 48: the condition can never hold: size must be one of small, large, not 'huge'",
        ),
        (
            "gemini: {states: {c: {next: [{state: b, when: {shape: [round]}}]}}}",
            "the condition is about 'shape', which no state asks for",
        ),
        ("gemini: {states: {c: {collect: {state: x}}}}", "'state' cannot be the name of a field"),
        ("gemini: {states: {c: {collect: [a b]}}}", "'a b' cannot be the name of a field"),
        (
            "gemini: {states: {c: {collect: {x: {type: int}}}}}",
            "'int' is not a type; there are text, integer",
        ),
        ("gemini: {states: {c: {collect: {x: {pattern: '('}}}}}", "pattern is not a regular expression"),
        ("gemini: {states: {c: {collect: {x: {secret: yes}}}}}", "secret is for digits keyed in"),
        ("gemini: {states: {c: {next: {}}}}", "next must be a state, a list of them, or end"),
        (
            "gemini: {states: {c: {on_enter: [transfer_call]}}}",
            "line 10, column 34: 'transfer_call' needs destination",
        ),
        (
            "gemini: {states: {c: {on_enter: [hold_call: {seconds: 3, music: x}]}}}",
            "'hold_call' takes no music",
        ),
        ("gemini: {states: {c: {on_leave: [find_slot: {time: any}]}}}", "'find_slot' needs day"),
        ("gemini: {states: {c: {collect: [size]}}}", "state 'c' asks for another 'size' than an earlier"),
        (
            "gemini: {states: {a: 'About {day}?', c: {next: [a, b]}}}",
            "state 'a' speaks of {day}, which has no value at the beginning",
        ),
        ("gemini: {states: {b: {no_match: {say: 'Hm, {colour}?'}}}}", "asks again with {colour}, which no"),
        ("tools: {hold_call: {description: y}}", "'hold_call' is the name of a tool of Arivox"),
        ("tools: {größe: {description: y}}", "cannot be the name of a tool: letters of ASCII"),
        (
            "tools: {x: {description: y, http: {url: 'https://z/{colour}'}}}",
            "line 10, column 9: tool 'x' speaks of {colour}, which nobody asks for",
        ),
        ("tools: {x: {description: y}}", "line 10, column 9: tool 'x' needs description and http"),
        ("tools: {x: {description: y, http: {url: ftp://z}}}", "url must begin with https:// or http://"),
    ],
)
def test_faults_of_a_flow(more: str, fault: str) -> None:
    found = [str(one) for one in faults(FLOW.format(more=more))]
    assert any(fault in one for one in found) if fault else found == [], found


def test_prompt_may_speak_of_what_a_tool_finds_out_before() -> None:
    text = FLOW.format(more="gemini: {states: {b: 'It is {slot}.'}}")
    assert faults(text) == []
    assert "asked for only later" in str(faults(text.replace("      tools: [find_slot]\n", ""))[0])


def test_key_or_silence_or_a_tool_is_a_way_too() -> None:
    text = FLOW.format(
        more="    d: {prompt: D, next: a, tools: [transfer_call]}\n  defaults: {dtmf: {'0': d}}\n"
    )
    assert faults(text) == []


def arivox(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "arivox", "flow", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_commands(tmp_path: Path) -> None:
    good, bad, script = tmp_path / "good.yaml", tmp_path / "bad.yaml", tmp_path / "prompts.js"
    good.write_text(prompts.default_text())
    bad.write_text(FAULTY)
    script.write_text('module.exports = {openai: {states: {greeting: "Hello."}}};')
    assert (arivox("check", str(good)).returncode, arivox("check", str(good)).stdout) == (
        0,
        f"{good}: no faults\n",
    )
    checked = arivox("check", str(bad))
    assert checked.returncode == 1
    assert len(checked.stdout.splitlines()) == 6
    assert "greeting --> gathering_reason" in arivox("draw", str(good)).stdout
    converted = prompts.parse(arivox("convert", str(script)).stdout, ["openai"], "x")
    assert converted.states["greeting"].prompt == "Hello."
    missing = arivox("check", str(tmp_path / "none.yaml"))
    assert missing.returncode == 2
    assert "none.yaml" in missing.stderr
