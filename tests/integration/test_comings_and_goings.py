"""Callers who enter at an awkward moment, or a second time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from hearing import assert_whole, hear_fallback
from rig import Rig, SteadyEcho, until

from arivox.asterisk.messages import Application
from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.errors import AsteriskError
from arivox.service import Service
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream

pytestmark = pytest.mark.asterisk
GREETING = MarkedStream(0.6)


async def say(stage: Stage) -> None:
    await stage.say(sound.encode(GREETING.pcm(), stage.session.output_format), end=False)


def reconnect(rig: Rig) -> None:
    """Let the service compare notes with Asterisk, as after each connect."""
    rig.service.switchboard.on_up()


async def test_caller_who_enters_while_notes_are_compared_is_kept(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        ask, asked = rig.service.ari.application, asyncio.Event()

        async def application() -> Application:
            before = await ask()
            asked.set()
            await until(lambda: bool(rig.calls), "the caller")
            return before

        rig.service.ari.application = application  # type: ignore[method-assign]
        reconnect(rig)
        await asked.wait()
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await say(stage)
        await phone.wait_heard()
        await phone.wait_silence(150)
        assert_whole(phone.heard().pcm, GREETING)
        assert len(rig.timelines) == 1, "served once"


async def test_notes_are_compared_again_when_asterisk_fails(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, SteadyEcho, expect_log=["could not ask Asterisk for our calls"]) as rig:
        phone = await rig.dial()
        ask, answers = rig.service.ari.application, [0, 0, 1]

        async def application() -> Application:
            if not answers.pop(0):
                raise AsteriskError("Allocation failed", status=500, request="GET /ari/applications/arivox")
            held = await ask()
            answers.append(2)
            return held

        rig.service.ari.application = application  # type: ignore[method-assign]
        reconnect(rig)
        await until(lambda: answers == [2], "the third attempt")
        assert phone.state == "up"
        assert len(rig.logged("could not ask Asterisk")) == 2


async def test_second_arivox_on_one_asterisk_leaves_the_calls_of_the_first_alone(
    asterisk: AsteriskInstance,
) -> None:
    """It compares notes with Asterisk, which has bridges that are none of its own."""
    async with Rig(asterisk, SteadyEcho) as rig:
        phone = await rig.dial()
        await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
        other = Service(replace(rig.settings, ari_app_name="second"))
        running = asyncio.create_task(other.run())
        await other.switchboard.connected.wait()
        await rig.reconciled()
        other.stop()
        await running
        begun = time.monotonic()
        phone.play(signal.tone(613.0, 0.3))
        await phone.wait_heard(after=begun)
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"


async def test_caller_who_comes_back_is_served_again(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, after_call="continue") as rig:
        for priority, step in enumerate([f"Stasis,{asterisk.app}", f"Stasis,{asterisk.app}", "Hangup"], 1):
            await rig.console(f"dialplan add extension 720,{priority},{step} into from-sip replace")
        phone = await rig.dial("720")
        for count in (1, 2):
            connection = await rig.emulator.wait_session(count)
            stage = await rig.stage(count)
            await stage.wait_for("response.create")
            begun = time.monotonic()
            await say(stage)
            await stage.call("end_call", {})
            assert await rig.ended(count - 1) == "completed"
            assert_whole(phone.heard_between(begun, time.monotonic()).pcm, GREETING)
            await connection.ended.wait()
        await phone.wait_state("down")


async def test_caller_who_was_answered_before(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone = await rig.dial("702")
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await say(stage)
        await stage.call("end_call", {})
        assert await rig.ended() == "completed"
        assert_whole(phone.heard().pcm, GREETING)


async def test_caller_while_the_service_shuts_down(asterisk: AsteriskInstance) -> None:
    """Who is there is sent on to the dialplan; who comes then falls to it."""
    async with Rig(asterisk, SteadyEcho) as rig:
        phone = await rig.dial()
        await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
        await rig.stop_service()
        late = await rig.dial()
        await asyncio.gather(hear_fallback(phone), hear_fallback(late))
        assert await rig.ended() == "shutdown"
        assert len(rig.timelines) == 1


async def test_service_that_drains_lets_its_callers_finish(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, drain_s=30.0, expect_log=["sent on to the dialplan"]) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        rig.service.stop()
        await hear_fallback(await rig.dial())
        assert await rig.status_of() == "shutdown"
        await say(stage)
        await phone.wait_heard()
        await phone.wait_silence(150)
        assert_whole(phone.heard().pcm, GREETING)
        await phone.hangup()
        await rig.service_end()
        assert await rig.ended() == "caller_hangup"
        assert len(rig.timelines) == 1


@pytest.mark.parametrize("way", ["told again", "in time"])
async def test_drain_has_an_end(asterisk: AsteriskInstance, way: str) -> None:
    async with Rig(asterisk, SteadyEcho, drain_s=30.0 if way == "told again" else 0.2) as rig:
        phone = await rig.dial()
        await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
        rig.service.stop()
        if way == "told again":
            await until(lambda: bool(rig.logged("no more callers are taken")), "the drain")
            rig.service.stop()
        await hear_fallback(phone)
        await rig.service_end()
        assert await rig.ended() == "shutdown"


async def test_media_channel_that_vanishes(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, SteadyEcho, expect_log=["Asterisk took the media channel down"]) as rig:
        phone = await rig.dial()
        await until(lambda: bool(rig.timelines[0].find("media.up")), "the media")
        await rig.service.ari.hang_up(rig.calls[0].media_id)
        await hear_fallback(phone)
        assert await rig.ended() == "asterisk_failed"
        assert await rig.status_of() == "asterisk_failed"


async def test_bug_of_ours_costs_one_call(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, SteadyEcho, expect_log=["bug"]) as rig:
        other = await rig.dial()
        phone = await rig.open_phone()
        real = rig.service.ari.create_bridge

        async def create_bridge(bridge_id: str) -> Any:
            if bridge_id == rig.calls[-1].bridge_id:
                raise ZeroDivisionError("a bug made for this test")
            return await real(bridge_id)

        rig.service.ari.create_bridge = create_bridge  # type: ignore[method-assign]
        await phone.call("700")
        await hear_fallback(phone)
        assert await rig.ended(1) == "internal_error"
        assert other.state == "up"
