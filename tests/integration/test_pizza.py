"""The pizza line of the tutorial takes an order over a real call, and refuses what is sold out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args

import pytest
from rig import Rig, until
from talking import Tone, Words

from arivox.conversation import check
from arivox.conversation.tools.box import ToolBox
from arivox.conversation.tools.calendar import Calendar
from arivox.emulator.brain import Brain
from arivox.emulator.dialogue import Dialogue
from arivox.settings.settings import Provider
from arivox.testing import phone as phones
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

FOLDER = Path(__file__).parents[2] / "docs" / "pizza"
SAID = [
    "Bella Napoli, good evening! What can I bring you: a Margherita, a Funghi or a Diavola?",
    "Small or large?",
    "Shall we bring it, or do you pick it up?",
    "Where to, please? Street and number.",
    "I need a street and a house number.",
    "That is one large Funghi, 12 euros. Shall I order it?",
    "Thank you! Your order number is 1. It takes 30 minutes. Good-bye.",
]


def test_files_have_no_faults() -> None:
    box = ToolBox(FOLDER / "tools.py", Calendar(":memory:"))
    assert check.faults((FOLDER / "prompts.yaml").read_text(), box.facts) == []


@pytest.mark.asterisk
async def test_order_is_placed(asterisk: AsteriskInstance) -> None:
    words = Words("Funghi", "large", "delivery", "Main Street", "12 Main Street", "yes")
    async with Rig(
        asterisk,
        lambda: Dialogue(Brain(), Tone(), words),
        prompts_file=FOLDER / "prompts.yaml",
        tools_file=FOLDER / "tools.py",
    ) as rig:
        phone = await rig.dial()
        for count in range(1, len(SAID)):
            await heard(rig, count)
            await turn(phone)
        assert await rig.ended(timeout=15) == "completed"
        timeline = rig.timelines[0]
        assert [str(entry.data["text"]).strip() for entry in timeline.find("agent.said")] == SAID
        tools = [entry.data["name"] for entry in timeline.find("tool.started")]
        assert tools == ["price_order", "place_order"]


@pytest.mark.asterisk
@pytest.mark.parametrize("provider", get_args(Provider))
async def test_key_0_connects_with_the_kitchen(asterisk: AsteriskInstance, provider: Provider) -> None:
    """The flow transfers by itself, and each AI whispers the summary."""
    async with (
        Rig(
            asterisk,
            lambda: Dialogue(Brain(), Tone(), Words()),
            prompts_file=FOLDER / "prompts.yaml",
            tools_file=FOLDER / "tools.py",
            transfer_to="kitchen=PJSIP/peer",
            ai_service_provider=provider,
        ) as rig,
        SipPhone(
            ("127.0.0.1", asterisk.sip_port), user="peer", port=asterisk.peer_port, plan=phones.ANSWER
        ) as kitchen,
    ):
        phone = await rig.dial()
        await heard(rig, 1)
        await phone.wait_silence(800)  # OpenAI Live takes a shorter rest for a pause
        await phone.dtmf("0")
        assert await rig.ended(timeout=15) == "transferred"
        # OpenAI Live says both in one breath.
        said = " ".join(str(entry.data["text"]).strip() for entry in rig.timelines[0].find("agent.said"))
        assert said.endswith(
            "One moment, I connect you with a colleague. "
            "A caller for you. Somebody wants to order a pizza. I am connecting you now."
        )
        began = time.monotonic()
        phone.play(signal.tone(713, 0.5))
        await kitchen.wait_heard(after=began)


async def heard(rig: Rig, count: int) -> None:
    """Wait for the agent's ``count``-th sentence."""
    await until(lambda: len(rig.timelines[0].find("agent.speaks")) >= count, f"sentence {count}", 8)


async def turn(phone: SipPhone) -> None:
    """Let the caller say something, once the agent has finished."""
    await phone.wait_heard(after=time.monotonic() - 0.2)
    await phone.wait_silence(300)
    await phone.play(signal.tone(713, 0.5)).done()
