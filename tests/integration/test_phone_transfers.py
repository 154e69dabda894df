"""The caller's telephone transfers the call (REFER): the same AI goes on with who is on the line then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hearing import hear_fallback, milliwatt_seconds
from rig import Rig, until
from wire import LOST, UNREACHABLE, Wire, cut_off, mend

from arivox import switchboard
from arivox.call.ending import EndReason
from arivox.conversation.memory.archive import Archive
from arivox.conversation.memory.spool import Spool
from arivox.conversation.memory.store import make
from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.testing import phone as phones
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import AnswerPlan, SipPhone

pytestmark = pytest.mark.asterisk
AIS = ("openai", "gemini", "openai-live")
NEWS = "Somebody else is on the line now"
RINGS = AnswerPlan(200, 1.0)
HZ = 700.0
SAID_HZ = 500.0
FLOW = """
common:
  states:
    greeting: {prompt: Hello., next: done, tools: [transfer_call]}
    done: Thank you.
    fallback: Sorry?
    error_handler: Oh.
"""


@asynccontextmanager
async def peer(
    rig: Rig, plan: phones.AnswerPlan = phones.ANSWER, *, user: str = "peer"
) -> AsyncIterator[SipPhone]:
    """The telephone that extension 730 calls."""
    server = ("127.0.0.1", rig.asterisk.sip_port)
    async with SipPhone(server, user=user, port=rig.asterisk.peer_port, plan=plan) as phone:
        yield phone


async def say(stage: Stage, seconds: float = 0.5) -> None:
    form = stage.session.output_format
    await stage.say(sound.encode(signal.tone(HZ, seconds, rate=form.rate), form), wait=False)


async def greeted(rig: Rig, extension: str = "700", **phone: Any) -> tuple[SipPhone, Stage]:
    caller = await rig.dial(extension, **phone)
    stage = await rig.stage()
    await stage.wanted()
    await say(stage)
    await caller.wait_heard()
    await caller.wait_silence(300)
    return caller, stage


async def connected(customer: SipPhone, operator: SipPhone) -> None:
    """Have the customer call the operator, and wait until they hear each other."""
    assert await customer.call("730") == 200
    await operator.wait_heard(-130.0, predicate=lambda _: True)


def told(stage: Stage) -> str:
    """Return all that the AI was told, but for sound."""
    frames = [frame for frame in stage.record.received() if len(frame.data) < 20_000]
    return b"\n".join(frame.data for frame in frames).decode()


async def assert_goes_on(rig: Rig, stage: Stage, other: SipPhone, since: float) -> None:
    """Assert that the AI, which was told of it, and who is on the line now hear each other."""
    await until(lambda: bool(rig.timelines[0].find("caller.succeeded")), "who is on the line now")
    # Where Asterisk took its time, the agent was to go on after the hold, and is broken off before.
    await until(lambda: NEWS in told(stage), "that the AI is told")
    await stage.wanted()
    await say(stage)
    first = await other.wait_heard(
        after=since, predicate=lambda pcm: signal.tone_level_db(pcm, HZ) > -30, timeout=5
    )
    assert first > since
    await other.wait_silence(200)
    heard = len(stage.record.audio_received)
    other.play(signal.tone(SAID_HZ, 0.5))
    await stage.wait_audio(900)
    form = stage.session.input_format
    said = sound.decode(bytes(stage.record.audio_received[heard:]), form)
    assert signal.tone_level_db(said, SAID_HZ, rate=form.rate) > -40
    assert len(rig.timelines) == 1, "it is one call"
    assert len(rig.emulator.sessions) == 1, "with one AI"
    assert len(rig.calls) == 1


async def assert_ends_with(rig: Rig, other: SipPhone) -> None:
    await other.hangup()
    assert await rig.ended() == "caller_hangup"


@pytest.mark.parametrize("ai", AIS)
@pytest.mark.parametrize("holds", [False, True])
async def test_blind_transfer(asterisk: AsteriskInstance, ai: str, holds: bool) -> None:
    """At ``MAX_CALLS``, too: it is no new call. While the other telephone rings nobody is spoken to."""
    async with Rig(asterisk, Script, ai_service_provider=ai, max_calls=1) as rig, peer(rig, RINGS) as other:
        phone, stage = await greeted(rig)
        if holds:
            assert await phone.hold() == 200
        assert await phone.refer("730") == 202
        await until(lambda: bool(rig.timelines[0].find("caller.transferred")), "the transfer")
        await phone.hangup()
        await other.wait_state("ringing")
        assert stage.session.active is None
        await other.wait_state("up")
        await assert_goes_on(rig, stage, other, time.monotonic())
        await assert_ends_with(rig, other)


async def test_blind_transfer_in_the_middle_of_a_sentence(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig, peer(rig) as other:
        phone, stage = await greeted(rig)
        begun = time.monotonic()
        form = stage.session.output_format
        story = sound.encode(signal.tone(900.0, 8.0, rate=form.rate), form)
        await stage.say(story, speed=float("inf"))
        await phone.wait_heard(after=begun)
        assert await phone.refer("730") == 202
        cut = await stage.wait_for("conversation.item.truncate")
        assert cut["audio_end_ms"] < 3000
        await phone.hangup()
        await other.wait_state("up")
        await assert_goes_on(rig, stage, other, time.monotonic())
        levels = signal.tone_level_db(other.heard().pcm, 900.0)
        assert levels < -40, "what was meant for somebody else is not heard"
        await assert_ends_with(rig, other)


async def test_ai_does_not_hear_how_the_other_telephone_rings(asterisk: AsteriskInstance) -> None:
    """It would take the tone for words, and answer."""
    async with Rig(asterisk, Script) as rig, peer(rig, AnswerPlan(200, 4.0)) as other:
        phone, stage = await greeted(rig)
        assert await phone.refer("730") == 202
        await until(lambda: bool(rig.timelines[0].find("caller.transferred")), "the transfer")
        before = len(stage.record.audio_received)
        await phone.hangup()
        await other.wait_state("up")
        form = stage.session.input_format
        heard = sound.decode(bytes(stage.record.audio_received[before:]), form)
        assert len(heard) > 3 * form.rate, "time goes on for it"
        assert not heard.any()
        await assert_goes_on(rig, stage, other, time.monotonic())
        await assert_ends_with(rig, other)


@pytest.mark.parametrize("ai", AIS)
async def test_attended_transfer(asterisk: AsteriskInstance, ai: str) -> None:
    """The caller calls a colleague on a second line, and connects them with the AI."""
    async with Rig(asterisk, Script, ai_service_provider=ai, max_calls=1) as rig, peer(rig) as other:
        phone, stage = await greeted(rig)
        assert await phone.hold() == 200
        second = await rig.dial("730")
        assert await phone.refer_to(second, "730") == 202
        await until(lambda: bool(rig.timelines[0].find("caller.transferred")), "the transfer")
        await phone.hangup()
        await assert_goes_on(rig, stage, other, time.monotonic())
        await assert_ends_with(rig, other)
        await second.wait_state("down")


@pytest.mark.parametrize("refers", ["the line to the AI", "the line to the customer"])
async def test_customer_whom_an_operator_transfers_to_the_ai(
    asterisk: AsteriskInstance, refers: str, tmp_path: Path
) -> None:
    """They keep the AI that the operator had called, and are told to it by name and number."""
    url = f"sqlite:///{tmp_path}/memory.db"
    async with Rig(asterisk, Script, max_calls=1, memory_url=url) as rig, peer(rig) as operator:
        server = ("127.0.0.1", asterisk.sip_port)
        async with SipPhone(server, user="4711", display="Cora Customer") as customer:
            await connected(customer, operator)
            line, stage = await greeted(rig, "711", user="operator")
            await operator.hold()
            if refers == "the line to the AI":
                assert await line.refer_to(operator, "730") == 202
            else:
                assert await operator.refer_to(line, "711") == 202
            await until(lambda: bool(rig.timelines[0].find("caller.transferred")), "the transfer")
            await line.hangup()
            await assert_goes_on(rig, stage, customer, time.monotonic())
            timeline = rig.timelines[0]
            assert timeline.find("provider.chosen")[0].data["name"] == "gemini"
            assert timeline.find("caller.succeeded")[0].data == {"caller": "4711", "name": "Cora Customer"}
            assert "Cora Customer, telephone number 4711" in told(stage)
            await customer.dtmf("5")
            await until(lambda: bool(timeline.find("caller.dtmf")), "the key")
            await assert_ends_with(rig, customer)
        call = rig.timelines[0].call_id
    store = make(rig.settings)
    assert store is not None
    saved = await Archive(store, Spool(tmp_path / "spool")).load(call)
    await store.close()
    assert saved is not None
    assert (saved.record.caller, saved.record.exten) == ("operator", "711"), "who began the call"


async def test_customer_who_loses_the_ai_goes_on_where_the_operator_would_have(
    asterisk: AsteriskInstance,
) -> None:
    async with Rig(asterisk, Script, expect_log=["the AI failed"]) as rig, peer(rig) as operator:
        server = ("127.0.0.1", asterisk.sip_port)
        async with SipPhone(server, user="4711") as customer:
            await connected(customer, operator)
            line, stage = await greeted(rig, user="operator")
            assert await line.refer_to(operator, "730") == 202
            await line.hangup()
            await assert_goes_on(rig, stage, customer, time.monotonic())
            await stage.close(3000, "invalid_request_error.invalid_api_key")
            await hear_fallback(customer, timeout=10)
            assert await rig.ended() == "provider_failed"
            assert await rig.status_of() == "provider_failed"


async def test_customer_of_a_blind_transfer_is_a_caller(asterisk: AsteriskInstance) -> None:
    """The dialplan sends them: with its arguments, and their own number."""
    async with Rig(asterisk, Script, max_calls=1) as rig, peer(rig) as operator:
        server = ("127.0.0.1", asterisk.sip_port)
        async with SipPhone(server, user="4711") as customer:
            await connected(customer, operator)
            assert await operator.refer("711") == 202
            stage = await rig.stage()
            await stage.wanted()
            await say(stage)
            await customer.wait_heard(predicate=lambda pcm: signal.tone_level_db(pcm, HZ) > -30)
            assert rig.timelines[0].find("call.started")[0].data["caller"] == "4711"
            assert rig.timelines[0].find("provider.chosen")[0].data["name"] == "gemini"
            await assert_ends_with(rig, customer)


async def test_who_takes_the_place_of_a_caller_whose_call_is_over_is_served_anew(
    asterisk: AsteriskInstance,
) -> None:
    """As the dialplan wanted it for that caller; they are answered once they are there."""
    async with Rig(asterisk, Script) as rig, peer(rig, RINGS) as other:
        phone, _ = await greeted(rig, "711")
        (call,) = rig.calls
        call.caller.let_go = True
        assert await phone.refer("730") == 202
        await until(lambda: len(rig.timelines) == 2, "another call")
        call.end(EndReason.TRANSFERRED)
        await phone.hangup()
        stage = await rig.stage(2)
        await other.wait_state("up")
        await stage.wanted()
        await say(stage)
        await other.wait_heard(predicate=lambda pcm: signal.tone_level_db(pcm, HZ) > -30)
        started, chosen = (
            rig.timelines[1].find(kind)[0].data for kind in ("call.started", "provider.chosen")
        )
        assert (started["exten"], chosen["name"]) == ("711", "gemini")
        await other.hangup()
        assert await rig.ended(1) == "caller_hangup"


@pytest.mark.parametrize("status", [486, 603])
async def test_target_that_does_not_answer_ends_the_call(asterisk: AsteriskInstance, status: int) -> None:
    async with Rig(asterisk, Script) as rig, peer(rig, AnswerPlan(status, 0.3)):
        phone, stage = await greeted(rig)
        assert await phone.refer("730") == 202
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        assert NEWS not in told(stage)
        assert len(rig.timelines) == 1


async def test_transfer_that_is_refused_changes_nothing(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone, stage = await greeted(rig)
        await phone.refer("999")
        await until(lambda: 404 in phone.transfer_reports, "the refusal")
        phone.play(signal.tone(SAID_HZ, 0.3))
        await stage.wait_audio(300)
        assert rig.timelines[0].find("caller.transferred") == []
        await say(stage)
        await phone.wait_heard(after=time.monotonic())


async def test_telephone_that_stays_after_its_transfer_is_hung_up(
    asterisk: AsteriskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switchboard, "_SEE_OFF_S", 1.0)
    async with Rig(asterisk, Script) as rig, peer(rig) as other:
        phone, stage = await greeted(rig)
        assert await phone.refer("730") == 202
        # Asterisk does not tell the telephone, but is rid of its channel.
        await until(lambda: bool(rig.logged("stays; hanging it up")), "the end of its channel")
        async with asyncio.timeout(5):
            while "PJSIP/caller" in await rig.console("core show channels concise"):
                pass
        await assert_goes_on(rig, stage, other, time.monotonic())
        await assert_ends_with(rig, other)


async def test_transfer_that_was_not_heard_of_is_found_after_the_reconnect(
    asterisk: AsteriskInstance,
) -> None:
    async with (
        Wire(asterisk) as wire,
        Rig(asterisk, Script, ari_url=wire.url, expect_log=[LOST]) as rig,
        peer(rig) as other,
    ):
        phone, stage = await greeted(rig)
        wire.freeze()
        assert await phone.refer("730") == 202
        await other.wait_state("up")
        await phone.hangup()
        assert rig.timelines[0].find("caller.transferred") == []
        wire.mend()
        await assert_goes_on(rig, stage, other, time.monotonic())
        await assert_ends_with(rig, other)


async def test_transfer_that_asterisk_refuses_without_us_changes_nothing(asterisk: AsteriskInstance) -> None:
    async with (
        Wire(asterisk) as wire,
        Rig(asterisk, Script, ari_url=wire.url, expect_log=[LOST, UNREACHABLE]) as rig,
    ):
        phone, stage = await greeted(rig)
        await cut_off(rig, wire)
        assert await phone.refer("601") == 202
        await until(lambda: 503 in phone.transfer_reports, "the refusal")
        await mend(rig, wire)
        await rig.reconciled()
        begun = time.monotonic()
        await say(stage)
        await phone.wait_heard(after=begun)
        assert len(rig.calls) == 1
        await assert_ends_with(rig, phone)


@pytest.mark.parametrize("who", ["caller", "colleague"])
async def test_connected_pair_is_transferred_on(asterisk: AsteriskInstance, who: str, tmp_path: Path) -> None:
    """The AI has left them: who takes the place of one of them is no caller of ours either."""
    (tmp_path / "prompts.yaml").write_text(FLOW)
    settings: dict[str, Any] = {"prompts_file": tmp_path / "prompts.yaml", "transfer_to": "peer=PJSIP/peer"}
    async with Rig(asterisk, Script, **settings) as rig, peer(rig) as other:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Somebody, please.")
        await stage.call("transfer_call", {"destination": "peer"})
        assert await rig.ended() == "transferred"
        leaver, stayer = (phone, other) if who == "caller" else (other, phone)
        begun = time.monotonic()
        assert await leaver.refer("601") == 202
        await leaver.hangup()
        await stayer.wait_heard(after=begun, predicate=lambda pcm: signal.tone_level_db(pcm, 1004) > -30)
        await asyncio.sleep(1.0)
        assert milliwatt_seconds(stayer.heard_between(begun, time.monotonic()).pcm) > 0.8
        assert len(rig.timelines) == 1, "no AI takes them for a caller"
        assert rig.service.switchboard.pairs == 1
        await stayer.hangup()
        await until(lambda: rig.service.switchboard.pairs == 0, "the end of the pair")
