"""A tool runs once, and only when the AI has finished asking for it."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rig import Rig, until

from arivox.emulator import sound
from arivox.emulator.answer import Answer
from arivox.emulator.behaviour import Behaviour
from arivox.emulator.script import Script, Stage, in_turn
from arivox.emulator.session import Line, Session
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
TOOLS = """
import asyncio
from pathlib import Path
from arivox.tools import tool

RUNS = Path({runs!r})

@tool(timeout_s=20)
async def book(day: str) -> str:
    "Book an appointment."
    with RUNS.open("a") as file:
        file.write(day + "\\n")
    await asyncio.sleep({seconds})
    return "booked for " + day
"""
FLOW = """
common:
  states:
    greeting: {prompt: PROMPT, tools: [book, end_call], next: end}
    fallback: Sorry?
    error_handler: Oh.
"""
LOST = ["the AI's session is lost"]


class Desk:
    """A booking tool that counts its runs."""

    def __init__(self, folder: Path, seconds: float, prompt: str = "Hello.") -> None:
        self.runs = folder / "runs"
        self.runs.touch()
        tools, prompts = folder / "tools.py", folder / "prompts.yaml"
        tools.write_text(TOOLS.format(runs=str(self.runs), seconds=seconds))
        prompts.write_text(FLOW.replace("PROMPT", f'"{prompt}"'))
        self.settings: dict[str, Any] = {
            "tools_file": tools, "prompts_file": prompts, "idle_caller_s": 0.0,
        }  # fmt: skip

    @property
    def count(self) -> int:
        return len(self.runs.read_text().split())

    async def begun(self) -> None:
        await until(lambda: self.count > 0, "the booking")


def outputs(stage: Stage) -> list[dict[str, Any]]:
    """Return the results of tools that the AI was given."""
    items = [frame.event["item"] for frame in stage.record.received("conversation.item.create")]
    return [item for item in items if item["type"] == "function_call_output"]


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    phone = await rig.dial()
    stage = await rig.stage()
    await stage.wait_for("response.create")
    await stage.say("Hello.")
    await phone.wait_heard()
    await phone.wait_silence(150)
    return phone, stage


async def test_tool_at_work_when_the_session_is_lost_runs_once(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    """The next session calls it again, for it knows of no first call: it is given that one's result."""
    desk = Desk(tmp_path, seconds=3.0)
    async with Rig(asterisk, in_turn(*[Script() for _ in range(4)]), expect_log=LOST, **desk.settings) as rig:
        _, first = await greeted(rig)
        await first.speech_started()
        await first.speech_stopped("On Monday, please.")
        await first.call("book", {"day": "Monday"})
        await desk.begun()
        await first.abort()
        second = await rig.stage(2)
        told = await second.wait_for("session.update")
        assert "still at work: do not call it again" in told["session"]["instructions"]
        await second.sleep(0.5)
        assert not second.record.received("response.create"), "the result brings the answer"
        await second.speech_started()
        await second.speech_stopped("Hello?")
        again = await second.call("book", {"day": "Monday"})
        await second.abort()
        third = await rig.stage(3)
        await third.wait_for("session.update")
        await third.speech_started()
        await third.speech_stopped("Is anybody there?")
        again = await third.call("book", {"day": "Monday"})
        await third.wait_for("response.create")
        (result,) = outputs(third)
        assert result["call_id"] == again
        assert "booked for Monday" in result["output"]
        await third.say("It is booked.")
        assert desk.count == 1


async def test_result_that_was_not_spoken_of_is_given_to_who_asks_again(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, seconds=0.0)
    async with Rig(asterisk, in_turn(Script(), Script()), expect_log=LOST, **desk.settings) as rig:
        _, first = await greeted(rig)
        await first.speech_started()
        await first.speech_stopped("On Monday, please.")
        await first.call("book", {"day": "Monday"})
        await first.wait_for("response.create")
        await first.abort()
        second = await rig.stage(2)
        told = await second.wait_for("session.update")
        assert "has returned" in told["session"]["instructions"]
        await second.wait_for("response.create")
        await second.call("book", {"day": "Monday"})
        await second.wait_for("response.create")
        assert "booked for Monday" in outputs(second)[0]["output"]
        assert desk.count == 1


async def test_call_of_an_answer_that_is_cut_off_is_not_run(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, seconds=0.0)
    async with Rig(asterisk, Script, **desk.settings) as rig:
        _, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Good-bye.")
        await stage.call("end_call", {}, end=False)
        await stage.call("book", {"day": "Monday"}, end=False)
        await stage.speech_started()  # this cuts the answer off
        await stage.speech_stopped("Wait, one more thing.")
        await stage.say("Yes?")
        await stage.sleep(1.0)
        assert rig.calls, "the caller is not hung up on"
        assert desk.count == 0
        assert outputs(stage) == []


async def test_call_that_is_incomplete_is_not_run(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    desk = Desk(tmp_path, seconds=0.0)
    async with Rig(asterisk, Script, expect_log=["answer failed"], **desk.settings) as rig:
        _, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("On Monday, please.")
        answer = stage.openai.active
        assert answer is not None
        item = {"type": "function_call", "call_id": "call_x", "name": "book", "arguments": '{"day": "Mon',
                "id": "item_x", "object": "realtime.item", "status": "incomplete"}  # fmt: skip
        await stage.send(
            {"type": "response.output_item.done", "response_id": answer.id, "output_index": 0, "item": item}
        )
        answer._finish("incomplete", {"type": "incomplete", "reason": "max_output_tokens"}, time.monotonic())
        await stage.wait_for("response.create", timeout=4)
        await stage.say("Which day?")
        assert desk.count == 0
        assert outputs(stage) == []


async def test_result_that_is_ready_while_the_caller_speaks_asks_for_nothing(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, seconds=1.0)
    async with Rig(asterisk, Script, **desk.settings) as rig:
        _, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("On Monday, please.")
        await stage.call("book", {"day": "Monday"})
        await desk.begun()
        await stage.speech_started()
        await stage.wait_for("conversation.item.create")
        before = stage.record.received_count["response.create"]
        await stage.sleep(0.7)
        assert stage.record.received_count["response.create"] == before, "their turn brings the answer"
        await stage.speech_stopped("At nine.")
        await stage.say("It is booked.")
        assert desk.count == 1


async def test_agent_that_hangs_up_while_the_caller_speaks_does_not(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, seconds=0.0)
    async with Rig(asterisk, Script, expect_log=["asked again"], patient=False, **desk.settings) as rig:
        _, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Good-bye.")
        answer = stage.openai.active
        assert answer is not None
        await stage.call("end_call", {}, end=False)
        await stage.send({"type": "input_audio_buffer.speech_started", "item_id": "item_late"})
        await stage.end()
        await stage.sleep(1.5)
        assert rig.calls
        await stage.send({"type": "input_audio_buffer.speech_stopped", "item_id": "item_late"})
        await stage.wait_for("response.create", timeout=4)
        await stage.say("Yes?")


# --- through anything ---


class Booker(Behaviour):
    """Books for its caller as soon as it is asked anything, until it knows the result; and is unreliable.

    At random moments its connection breaks or is closed, or the caller speaks.
    """

    def __init__(self, losses: dict[str, int], chance: random.Random, told: set[str]) -> None:
        self._losses = losses
        self._chance = chance
        self._told = told
        self._timers: list[asyncio.TimerHandle] = []
        self._session: Session
        self._connection: Line

    def opened(self, session: Session, connection: Line, now: float) -> None:
        del now
        self._session, self._connection = session, connection
        self._later(self._chance.uniform(0.2, 1.2), self._trouble)

    def wanted(self, response: Answer, now: float) -> None:
        caller = self._caller
        known = f"{self._session.instructions} {self._session.last_output}"
        if not caller or f"booked for {caller}" not in known:
            response.call("book", f'{{"day": "{caller}"}}', now)
        else:
            self._told.add(caller)
            response.say(sound.marks(response.audio_format, 400), "It is booked.", now)
        response.end(now)

    async def closed(self) -> None:
        for timer in self._timers:
            timer.cancel()

    @property
    def _caller(self) -> str:
        found = re.search(r"the number (\w+)", self._session.instructions)
        return found[1] if found is not None else ""

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, work))

    def _trouble(self) -> None:
        if self._session.closed or self._caller in self._told:
            return
        left = self._losses.setdefault(self._caller, 3)  # a fourth in a row would be given up, and rightly
        if left and self._chance.random() < 0.6:
            self._losses[self._caller] = left - 1
            if self._chance.random() < 0.5:
                self._connection.abort()
            else:
                self._session.close(1011, "internal error")
            return
        self._session.speech_started(time.monotonic())
        self._later(0.1, self._over)
        self._later(self._chance.uniform(0.3, 1.0), self._trouble)

    def _over(self) -> None:
        if not self._session.closed:
            self._session.speech_stopped(time.monotonic())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("provider", ["openai", "gemini", "openai-live"])
async def test_ten_calls_through_random_losses_and_interruptions_book_once_each(
    asterisk: AsteriskInstance, tmp_path: Path, provider: str
) -> None:
    desk = Desk(tmp_path, seconds=1.0, prompt="You serve the number {caller.number|nobody}.")
    losses: dict[str, int] = {}
    told: set[str] = set()
    chance = random.Random(10)
    rig = Rig(
        asterisk,
        lambda: Booker(losses, chance, told),
        any_log=True,
        patient=False,
        time_limit=100,
        ai_service_provider=provider,
        **desk.settings,
    )
    async with rig:
        phones = [await rig.dial() for _ in range(10)]
        await until(lambda: len(told) == len(phones), "all bookings told", timeout=60)
        await asyncio.gather(*(phone.hangup() for phone in phones))
    booked = desk.runs.read_text().split()
    assert sorted(booked) == sorted(told)
    assert len(booked) == len(phones)


@pytest.mark.parametrize("later", [False, True])
async def test_call_that_is_told_of_twice_runs_once(
    asterisk: AsteriskInstance, tmp_path: Path, later: bool
) -> None:
    """The same call in one answer, or once more after its result: the id is the same."""
    desk = Desk(tmp_path, 0.05)
    async with Rig(asterisk, Script, **desk.settings) as rig:
        _, stage = await greeted(rig)
        call = {"type": "function_call", "status": "completed", "call_id": "a", "name": "book"}
        item = {"type": "response.output_item.done", "item": {**call, "arguments": '{"day": "Monday"}'}}
        await stage.speech_started()
        await stage.speech_stopped("Monday, please.")
        for count in range(2):
            response = stage.openai.active
            assert response is not None
            await stage.send({**item, "response_id": response.id})
            if later:
                await stage.end()
                await until(lambda count=count: len(outputs(stage)) > count, "the result")  # type: ignore[misc]
                await stage.wanted()
        if not later:
            await stage.end()
            await until(lambda: len(outputs(stage)) > 0, "the result")
            await stage.wanted()
        await stage.say("It is booked.")
        assert [output["call_id"] for output in outputs(stage)] == ["a"] * (2 if later else 1)
        assert all("booked for Monday" in output["output"] for output in outputs(stage))
        assert desk.count == 1
