"""Every fault of a prompts file is found, with its line and column; and the flow is drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation import prompts
from arivox.conversation.check import faults
from arivox.conversation.diagram import mermaid
from arivox.conversation.flow import Flow

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
        "line 3, column 3: 'sates' is not known here; there are system_instruction and states",
        "line 5, column 15: state 'greeting' speaks of {name}, which no state asks for",
        "line 6, column 35: state 'collecting_availability_days' speaks of {time}, "
        "which is asked for only later",
        "line 7, column 35: state 'collecting_availability_times' must have a prompt (text)",
        "line 8, column 5: 'greeting' stands here for the second time; only the last would count",
        "line 9, column 1: 'opnai' is not an AI; there are openai, gemini, openai-live",
        "line 10, column 9: gemini must hold system_instruction and states",
    ]


def test_file_of_the_package_has_none() -> None:
    assert faults(prompts.default_text()) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{}", "line 1, column 1: the file must have sections"),
        ("openai:\n  states: {[a]: b}", "line 2, column 12: the name of a state must be text"),
        ("", "line 1, column 1: the file must have sections"),
        ("openai: {}", "line 1, column 1: openai has no states"),
        ("openai:\n  states: []", "line 2, column 11: states must map"),
        ("openai:\n  states: {fallback: x}", "line 2, column 11: there is no state besides"),
        ("openai: [", "line 1, column 10: not valid YAML"),
        ("a: b: c", "line 1, column 5: not valid YAML"),
    ],
)
def test_one_fault(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert str(found).startswith(fault)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="openai: states\n\t-[]{},'\"|>&*#%@`?\\x07é", max_size=60))
def test_any_text_has_faults_or_can_be_loaded(text: str) -> None:
    if not faults(text):
        assert any(prompts.parse(text, [name], "x") for name in ("openai", "gemini") if f"{name}:" in text)


def test_diagram_has_every_state_and_the_way_through_them() -> None:
    drawn = mermaid(Flow(("greeting", "gathering_reason", "say good-bye", "fallback", "error_handler")))
    lines = [line.strip() for line in drawn.splitlines()]
    assert lines[0] == "stateDiagram-v2"
    assert "[*] --> greeting" in lines
    assert "gathering_reason --> say_good_bye: reason" in lines
    assert 'state "say good-bye" as say_good_bye' in lines
    assert "say_good_bye --> [*]" in lines
    assert "gathering_reason --> fallback" in lines
    assert "fallback --> error_handler: tries" in lines


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
    assert len(checked.stdout.splitlines()) == 8
    assert "greeting --> gathering_reason" in arivox("draw", str(good)).stdout
    assert prompts.parse(arivox("convert", str(script)).stdout, ["openai"], "x").states == {
        "greeting": "Hello."
    }
    missing = arivox("check", str(tmp_path / "none.yaml"))
    assert missing.returncode == 2
    assert "none.yaml" in missing.stderr
