"""A conversation with every kind of transition, on each AI: what is said next is always of the new state."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import pytest
from rig import Rig, until
from talking import Tone, Words

from arivox.emulator.brain import Brain
from arivox.emulator.dialogue import Dialogue
from arivox.settings.settings import Provider
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk

FLOW = """
common:
  states:
    greeting: {prompt: Welcome., next: size, dtmf: {"9": hours}}
    hours: {prompt: We are open all day., next: size}
    size:
      prompt: Which size?
      collect: {size: {choices: [small, large]}}
      next: [{state: small, when: {size: [small]}}, {state: large, when: {size: [large]}}]
      no_match: {say: "Small or large, please."}
      silence: {after: 2, say: "Are you there?", to: hint}
    hint:
      prompt: Say small or large.
      collect: {size: {choices: [small, large]}}
      next: small
      on_leave: [stock]
    small: {prompt: "A {size} one, {left} are left.", next: large, timeout: {after: 3, to: large}}
    large: {prompt: That is all. Good-bye., next: end}
    fallback: Sorry?
    error_handler: Oh.
"""
TOOLS = """
from arivox.tools import CallInfo, tool

@tool(finds=["left"])
def stock(call: CallInfo) -> str:
    "How many are left."
    call.remember(left="seven")
    return "seven"
"""
SAID = [
    "Welcome.",
    "We are open all day.",
    "Which size?",
    "Small or large, please.",
    "Are you there?",
    "Say small or large.",
    "A small one, seven are left.",
    "That is all. Good-bye.",
]
MOVES = [
    ("greeting", "hours", "key"),
    ("hours", "size", "moved"),
    ("size", "hint", "silence"),
    ("hint", "small", "moved"),
    ("small", "large", "timeout"),
]


async def turn(phone: SipPhone) -> None:
    """Let the caller say something, once the agent has finished."""
    await phone.wait_silence(300)
    await phone.play(signal.tone(713, 0.5)).done()


@pytest.mark.parametrize("provider", get_args(Provider))
async def test_each_transition_is_heard_in_the_next_sentence(
    asterisk: AsteriskInstance, tmp_path: Path, provider: Provider
) -> None:
    (tmp_path / "prompts.yaml").write_text(FLOW)
    (tmp_path / "tools.py").write_text(TOOLS)
    async with Rig(
        asterisk,
        lambda: Dialogue(Brain(), Tone(), Words("go on", "huge", "small")),
        ai_service_provider=provider,
        prompts_file=tmp_path / "prompts.yaml",
        tools_file=tmp_path / "tools.py",
        idle_caller_s=0.0,
    ) as rig:
        phone = await rig.dial()

        async def heard(count: int) -> None:
            """Wait for the agent's ``count``-th sentence."""
            await until(lambda: len(rig.timelines[0].find("agent.speaks")) >= count, f"sentence {count}", 8)
            await phone.wait_heard(after=time.monotonic() - 0.2)

        await heard(1)
        await phone.wait_silence(800)  # OpenAI Live takes a shorter rest for a pause
        await phone.dtmf("9")
        await heard(2)
        await turn(phone)
        await heard(3)
        await turn(phone)
        await heard(4)  # then the caller is silent, twice
        await heard(6)
        await turn(phone)
        await heard(7)  # and then does nothing until the state has lasted too long
        assert await rig.ended(timeout=15) == "completed"
        timeline = rig.timelines[0]
        moves = [(e.data["before"], e.data["after"], e.data["cause"]) for e in timeline.find("state")]
        assert moves == MOVES
        said = [str(entry.data["text"]).strip() for entry in timeline.find("agent.said")]
        assert said == SAID
