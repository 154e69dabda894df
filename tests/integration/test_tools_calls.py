"""What the AI's tools do to a real call: a second phone is dialled, music is played, keys go both ways."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hearing import read_recording
from rig import Rig, until
from wire import LOST, UNREACHABLE, Wire, cut_off, mend

from arivox.asterisk.client import AriClient
from arivox.audio.g711 import encode
from arivox.conversation.memory.archive import Archive
from arivox.conversation.memory.spool import Spool
from arivox.conversation.memory.store import make
from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.testing import phone as phones
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk

FLOW = """
common:
  states:
    greeting:
      prompt: Hello.
      next: [pin, operator]
      tools:
        - transfer_call
        - hold_call
        - send_dtmf
        - collect_digits
        - leave_note
        - request_call_back
        - slow
        - failing
      dtmf: {"0": operator}
    pin:
      prompt: Your PIN, please.
      collect: {pin: {type: digits, length: 8, secret: true}}
      next: done
    operator:
      prompt: I connect you.
      next: end
      on_enter: [{transfer_call: {destination: peer}}]
    done: Thank you.
    fallback: Sorry?
    error_handler: Oh.
"""
TOOLS = """
import time
from arivox.tools import CallInfo, tool

@tool(timeout_s=3)
def slow(seconds: float) -> str:
    "Take its time."
    time.sleep(seconds)
    return "done"

@tool()
async def failing(call: CallInfo) -> str:
    "Break."
    raise ZeroDivisionError
"""
SECRET, WRONG = "73915826", "60413928"  # long enough that no time and no id happens to hold them
CHECK_PIN = f"""
from arivox.tools import ToolError

@tool()
def check_pin(call: CallInfo) -> None:
    "Check the PIN."
    if call.secrets["pin"] != "{SECRET}":
        raise ToolError("the PIN is wrong")
"""
MUSIC_HZ = 317
RINGING_HZ = (440, 480)  # of indications.conf, us


@pytest.fixture
def flow(tmp_path: Path) -> dict[str, Any]:
    """The settings of a flow with tools."""
    (tmp_path / "prompts.yaml").write_text(FLOW)
    (tmp_path / "tools.py").write_text(TOOLS)
    return {
        "prompts_file": tmp_path / "prompts.yaml",
        "tools_file": tmp_path / "tools.py",
        "transfer_to": "peer=PJSIP/peer, desk=650@from-sip, any=_6XX@from-sip, "
        "queue=goto:650@from-sip, gone=PJSIP/nobody",
        "transfer_ring_s": 2.0,
        "idle_caller_s": 0.0,
    }


@asynccontextmanager
async def second_phone(rig: Rig, plan: phones.AnswerPlan = phones.ANSWER) -> AsyncIterator[SipPhone]:
    server = ("127.0.0.1", rig.asterisk.sip_port)
    await rig.console("dialplan add extension 650,1,Dial,PJSIP/peer,20 into from-sip replace")
    async with SipPhone(server, user="peer", port=rig.asterisk.peer_port, plan=plan) as phone:
        yield phone


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    phone = await rig.dial()
    stage = await rig.stage()
    await stage.wait_for("response.create")
    await stage.say("Hello.", speed=20)
    await phone.wait_heard()
    return phone, stage


async def use(stage: Stage, tool: str, **arguments: Any) -> str:
    """Let the caller's words lead to a tool."""
    await stage.speech_started()
    await stage.speech_stopped("Please.")
    return await stage.call(tool, arguments)


async def somebody_please(rig: Rig) -> tuple[SipPhone, Stage]:
    """Let a caller be greeted by any AI, and ask for somebody."""
    phone = await rig.dial()
    stage = await rig.stage()
    await stage.wanted()
    await stage.say("Hello.", speed=1)
    await phone.wait_heard()
    await phone.wait_silence(900)
    await stage.speech_started()
    await stage.speech_stopped("Somebody, please.")
    return phone, stage


async def output(stage: Stage, timeout: float = 8.0) -> Any:
    """Return the next result of a tool."""
    while True:
        item = (await stage.wait_for("conversation.item.create", timeout))["item"]
        if item["type"] == "function_call_output":
            return json.loads(item["output"])


async def talk(one: SipPhone, other: SipPhone) -> None:
    """Two phones hear each other, each its own tone."""
    for speaker, listener, hz in ((one, other, 713), (other, one, 1613)):
        began = time.monotonic()
        said = speaker.play(signal.tone(hz, 0.4))
        await listener.wait_heard(after=began + 0.1)
        await said.done()
        heard = listener.heard_between(began + 0.1, time.monotonic()).pcm
        assert signal.dominant_frequency(heard) == pytest.approx(hz, abs=5)


def heard_level(phone: SipPhone, hz: float, since: float) -> float:
    return signal.tone_level_db(phone.heard_between(since, time.monotonic()).pcm, hz)


def music(asterisk: AsteriskInstance) -> None:
    """Give the class of music on hold something to play."""
    folder = asterisk.run_dir / "moh"
    folder.mkdir(exist_ok=True)
    (folder / "hold.sln").unlink(missing_ok=True)  # which of two comes first is the file system's choice
    (folder / "tone.ulaw").write_bytes(encode(signal.tone(MUSIC_HZ, 8.0), "ulaw"))
    asterisk.cli("moh reload")


# --- transfers ---


@pytest.mark.parametrize("destination", [{"destination": "peer"}, {"destination": "any", "number": "650"}])
async def test_blind_transfer_is_answered(
    asterisk: AsteriskInstance, flow: dict[str, Any], destination: dict[str, str]
) -> None:
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig, phones.NO_ANSWER) as peer:
        phone, stage = await greeted(rig)
        began = time.monotonic()
        await use(stage, "transfer_call", **destination)
        await peer.wait_incoming()
        assert "tester1" in str(peer.incoming)
        # The caller hears it ring, and not the AI.
        await phone.wait_heard(after=began)
        await until(lambda: heard_level(phone, RINGING_HZ[0], began) > -30, "ringing")
        peer.answer()
        assert await rig.ended() == "transferred"
        await talk(phone, peer)
        assert rig.service.switchboard.pairs == 1
        assert rig.service.ports.in_use == 0
        await peer.hangup()
        await phone.wait_state("down")
        await until(lambda: rig.service.switchboard.pairs == 0, "the end of the pair")


@pytest.mark.parametrize("destination", ["peer", "desk"])
async def test_colleague_who_answers_unheard(
    asterisk: AsteriskInstance, flow: dict[str, Any], destination: str
) -> None:
    """A network that tells nobody: they would wait for a caller who hears it ring."""
    async with (
        Wire(asterisk) as wire,
        Rig(asterisk, Script, ari_url=wire.url, expect_log=[LOST], **flow) as rig,
        second_phone(rig, phones.NO_ANSWER) as peer,
        AriClient(asterisk.ari_url, asterisk.ari_user, asterisk.ari_password, asterisk.app) as ari,
    ):
        phone, stage = await greeted(rig)
        await use(stage, "transfer_call", destination=destination)
        await peer.wait_incoming()
        await until(lambda: rig.calls[0].legs.out_made, "the answer to the request to dial")
        wire.freeze()
        peer.answer()
        await peer.wait_state("up")
        out = f"arivox-{rig.calls[0].id}-out1"
        while (await ari.channel(out)).dialplan.app_name != "Stasis":
            await asyncio.sleep(0.01)
        wire.mend()
        assert await rig.ended() == "transferred"
        await talk(phone, peer)
        # And once more, while they talk.
        wire.drop()
        await until(lambda: len(rig.logged(LOST)) == 2, "the loss")
        await mend(rig, wire)
        await rig.reconciled()
        await talk(phone, peer)
        assert len(rig.timelines) == 1, "no leg of a pair is taken for a caller"


async def test_colleague_who_is_busy_while_asterisk_is_out_of_reach(
    asterisk: AsteriskInstance, flow: dict[str, Any]
) -> None:
    async with (
        Wire(asterisk) as wire,
        Rig(asterisk, Script, ari_url=wire.url, expect_log=[LOST, UNREACHABLE], **flow) as rig,
        second_phone(rig, phones.NO_ANSWER) as peer,
    ):
        phone, stage = await greeted(rig)
        await use(stage, "transfer_call", destination="peer")
        await peer.wait_incoming()
        await cut_off(rig, wire)
        await peer.hangup()
        await mend(rig, wire)
        assert "nobody answers" in str(await output(stage))
        await stage.wait_for("response.create")
        began = time.monotonic()
        await stage.say("They do not answer.", speed=1, wait=False)
        await phone.wait_heard(after=began)


async def test_caller_who_hangs_up_after_a_transfer_takes_the_other_down(
    asterisk: AsteriskInstance, flow: dict[str, Any]
) -> None:
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig) as peer:
        phone, stage = await greeted(rig)
        await use(stage, "transfer_call", destination="desk")
        await rig.ended()
        await talk(phone, peer)
        await phone.hangup()
        await peer.wait_state("down")


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        (phones.BUSY, "the line is busy"),
        (phones.NO_ANSWER, "nobody answers"),
        (phones.AnswerPlan(480, 0.3), "nobody answers"),
    ],
)
@pytest.mark.parametrize("summary", [{}, {"summary": "It is about a toothache."}])
async def test_caller_who_is_not_answered_comes_back_to_the_agent(
    asterisk: AsteriskInstance,
    flow: dict[str, Any],
    plan: phones.AnswerPlan,
    problem: str,
    summary: dict[str, str],
) -> None:
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig, plan):
        phone, stage = await greeted(rig)
        await use(stage, "transfer_call", destination="peer", **summary)
        assert problem in (await output(stage))["error"]
        await stage.wait_for("response.create")
        began = time.monotonic()
        await stage.say(sound.encode(signal.tone(1013, 0.5), stage.session.output_format), speed=10)
        heard_at = await phone.wait_heard(after=began)
        await phone.wait_silence(200)
        heard = phone.heard_between(heard_at, time.monotonic()).pcm
        assert signal.dominant_frequency(heard) == pytest.approx(1013, abs=5)
        # And the agent hears the caller again.
        before = len(stage.record.audio_received)
        phone.play(signal.tone(413, 0.5))
        await stage.wait_audio(900)
        back = sound.decode(stage.record.audio_received[before:], stage.session.input_format)
        assert signal.tone_level_db(back, 413) > -25
        assert len(rig.calls) == 1


async def test_attended_transfer_whispers_the_summary_and_then_connects(
    asterisk: AsteriskInstance, flow: dict[str, Any]
) -> None:
    music(asterisk)
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig, phones.NO_ANSWER) as peer:
        phone, stage = await greeted(rig)
        began = time.monotonic()
        await use(stage, "transfer_call", destination="peer", summary="It is about a toothache.")
        await peer.wait_incoming()
        await until(lambda: heard_level(phone, MUSIC_HZ, began) > -30, "music")
        peer.answer()
        told = await output(stage)
        assert 'Say: "A caller for you. It is about a toothache. I am connecting you now."' in told["say"]
        await stage.wait_for("response.create")
        whispered = time.monotonic()
        # What the colleague says meanwhile reaches neither the AI nor the caller.
        before = len(stage.record.audio_received)
        peer.play(signal.tone(413, 0.6))
        await stage.say(
            sound.encode(signal.tone(1013, 1.0), stage.session.output_format), speed=10, wait=False
        )
        await peer.wait_heard(after=whispered)
        assert await rig.ended() == "transferred"
        connected = time.monotonic()
        assert signal.tone_level_db(peer.heard_between(whispered, connected).pcm, 1013) > -25
        for hz in (413, 1013):
            assert heard_level(phone, hz, whispered) < -50
        heard = sound.decode(stage.record.audio_received[before:], stage.session.input_format)
        assert signal.tone_level_db(heard, 413) < -50
        await talk(phone, peer)


@pytest.mark.parametrize("provider", ["gemini", "openai-live"])
async def test_attended_transfer_with_the_other_ais(
    asterisk: AsteriskInstance, flow: dict[str, Any], provider: str
) -> None:
    """The AI asks for it by its own kind of tool call, and is told of the colleague by its result."""
    async with Rig(asterisk, Script, ai_service_provider=provider, **flow) as rig, second_phone(rig) as peer:
        phone, stage = await somebody_please(rig)
        await stage.call("transfer_call", {"destination": "peer", "summary": "It is about a toothache."})
        await peer.wait_state("up")
        await until(lambda: bool(rig.timelines[0].find("tool")), "the result of the tool")
        assert "It is about a toothache." in str(rig.timelines[0].find("tool")[0].data["output"])
        await stage.wanted()
        whispered = time.monotonic()
        tone = sound.tone(stage.session.output_format, 1000, 1013)
        await stage.say(tone, speed=1, wait=False)
        await peer.wait_heard(after=whispered)
        assert await rig.ended() == "transferred"
        assert signal.tone_level_db(peer.heard_between(whispered, time.monotonic()).pcm, 1013) > -25
        assert heard_level(phone, 1013, whispered) < -50
        await talk(phone, peer)


@pytest.mark.parametrize("provider", ["gemini", "openai-live"])
async def test_busy_line_gives_the_caller_back_to_the_other_ais(
    asterisk: AsteriskInstance, flow: dict[str, Any], provider: str
) -> None:
    async with (
        Rig(asterisk, Script, ai_service_provider=provider, **flow) as rig,
        second_phone(rig, phones.BUSY),
    ):
        phone, stage = await somebody_please(rig)
        await stage.call("transfer_call", {"destination": "peer"})
        await until(lambda: bool(rig.timelines[0].find("tool")), "the result of the tool")
        assert "the line is busy" in str(rig.timelines[0].find("tool")[0].data["output"])
        await stage.wanted()
        began = time.monotonic()
        await stage.say("They are busy.", speed=1, wait=False)
        await phone.wait_heard(after=began)


async def test_colleague_who_hangs_up_in_the_whisper_gives_the_caller_back(
    asterisk: AsteriskInstance, flow: dict[str, Any]
) -> None:
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig) as peer:
        phone, stage = await greeted(rig)
        await use(stage, "transfer_call", destination="peer", summary="A toothache.")
        await output(stage)
        await stage.wait_for("response.create")
        await stage.say(
            sound.encode(signal.tone(1013, 1.0), stage.session.output_format), speed=10, wait=False
        )
        await peer.wait_heard()
        await peer.hangup()
        create = await stage.wait_for("response.create")
        assert "they hung up" in create["response"]["instructions"]
        began = time.monotonic()
        await stage.say("They are gone.", speed=10)
        await phone.wait_heard(after=began)


async def test_caller_who_hangs_up_while_it_rings_leaves_nothing_behind(
    asterisk: AsteriskInstance, flow: dict[str, Any]
) -> None:
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig, phones.NO_ANSWER) as peer:
        phone, stage = await greeted(rig)
        await use(stage, "transfer_call", destination="peer")
        await peer.wait_incoming()
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        await peer.wait_state("down")


async def test_transfer_into_the_dialplan_lets_go(asterisk: AsteriskInstance, flow: dict[str, Any]) -> None:
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig) as peer:
        phone, stage = await greeted(rig)
        await use(stage, "transfer_call", destination="queue", summary="A toothache.")
        assert await rig.ended() == "transferred"
        await peer.wait_state("up")
        await talk(phone, peer)
        assert rig.service.switchboard.pairs == 0
        await phone.hangup()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"destination": "boss"}, "there is no destination 'boss'; there are: peer, desk, any, queue, gone"),
        ({"destination": "any"}, "any needs a number"),
        ({"destination": "any", "number": "911"}, "'911' is not allowed for any; it must match 6XX"),
        ({"destination": "gone"}, "the line cannot be reached"),
    ],
)
async def test_transfer_elsewhere_is_refused(
    asterisk: AsteriskInstance, flow: dict[str, Any], arguments: dict[str, str], problem: str
) -> None:
    expected = ["could not dial"] if arguments["destination"] == "gone" else []
    async with Rig(asterisk, Script, expect_log=expected, **flow) as rig:
        _, stage = await greeted(rig)
        await use(stage, "transfer_call", **arguments)
        assert problem in (await output(stage))["error"]


async def test_transferred_call_outlives_the_service(
    asterisk: AsteriskInstance, flow: dict[str, Any]
) -> None:
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig) as peer:
        phone, stage = await greeted(rig)
        await use(stage, "transfer_call", destination="peer")
        await rig.ended()
        await rig.stop_service()
        await talk(phone, peer)
        await rig.start_service()
        assert (rig.service.switchboard.pairs, rig.calls) == (1, ())
        await talk(phone, peer)
        await phone.hangup()
        await peer.wait_state("down")


# --- keys, music, notes ---


async def test_key_transfers_without_a_model(asterisk: AsteriskInstance, flow: dict[str, Any]) -> None:
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig) as peer:
        phone, stage = await greeted(rig)
        tone = sound.encode(signal.tone(1013, 5.0), stage.session.output_format)
        await stage.say(tone, speed=10, wait=False)
        await phone.wait_heard()
        await phone.dtmf("0")
        pressed = time.monotonic()
        create = await stage.wait_for("response.create")
        told = stage.record.received("session.update")[-1].event["session"]["instructions"]
        assert "Current state: operator" in told
        assert create is not None
        assert heard_level(phone, 1013, pressed + 0.1) < -50, "the agent falls silent at once"
        await stage.say("I connect you.", speed=20)
        assert await rig.ended() == "transferred"
        (state,) = rig.timelines[0].find("state")
        assert state.data == {"before": "greeting", "after": "operator", "cause": "key"}
        await talk(phone, peer)


async def test_second_transfer_of_a_state_is_for_when_the_first_fails(
    asterisk: AsteriskInstance, flow: dict[str, Any], tmp_path: Path
) -> None:
    two = "[{transfer_call: {destination: gone}}, {transfer_call: {destination: peer}}]"
    (tmp_path / "prompts.yaml").write_text(FLOW.replace("[{transfer_call: {destination: peer}}]", two))
    async with Rig(asterisk, Script, expect_log=["could not dial"], **flow) as rig, second_phone(rig) as peer:
        phone, stage = await greeted(rig)
        await phone.dtmf("0")
        await stage.wanted()
        await stage.say("I connect you.", speed=20)
        assert await rig.ended() == "transferred"
        answers = [entry.data["answer"] for entry in rig.timelines[0].find("transfer.answer")]
        assert answers == ["failed", "answered"]
        await talk(phone, peer)


async def test_transfer_comes_before_the_end_of_the_call(
    asterisk: AsteriskInstance, flow: dict[str, Any]
) -> None:
    slowly = phones.AnswerPlan(200, 1.0)  # longer than a good-bye takes
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig, slowly) as peer:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Please.")
        await stage.call("transfer_call", {"destination": "peer"}, end=False)
        await stage.call("end_call", {})
        assert await rig.ended() == "transferred"
        await talk(phone, peer)


async def test_key_in_the_good_bye_is_no_good_bye(asterisk: AsteriskInstance, flow: dict[str, Any]) -> None:
    async with Rig(asterisk, Script, **flow) as rig, second_phone(rig) as peer:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Bye.")
        await stage.call("end_call", {}, end=False)
        began = time.monotonic()
        tone = sound.encode(signal.tone(1013, 4.0), stage.session.output_format)
        await stage.say(tone, speed=10, wait=False)
        await phone.wait_heard(after=began)
        await phone.dtmf("0")
        await until(lambda: bool(rig.timelines[0].find("state")), "the state of the key")
        await stage.wait_for("response.create")
        await stage.say("I connect you.", speed=20)
        assert await rig.ended() == "transferred"
        await talk(phone, peer)


async def test_wrong_secret_is_keyed_in_again_and_stays_one(
    asterisk: AsteriskInstance, flow: dict[str, Any], tmp_path: Path
) -> None:
    prompts = FLOW.replace("secret: true}}", "secret: true}}\n      on_leave: [check_pin]")
    (tmp_path / "prompts.yaml").write_text(prompts)
    with (tmp_path / "tools.py").open("a") as file:
        file.write(CHECK_PIN)
    async with Rig(asterisk, Script, log_level="debug", **flow) as rig:
        phone, stage = await greeted(rig)
        await use(stage, "move_to_state", state="pin")
        await stage.wait_for("response.create")
        await stage.say("Your PIN.", speed=20)
        await phone.dtmf(WRONG)
        create = await stage.wait_for("response.create")
        assert "the PIN is wrong" in create["response"]["instructions"]
        await stage.say("That is wrong.", speed=20)
        await phone.dtmf(SECRET + "#")
        await until(lambda: len(rig.timelines[0].find("state")) == 2, "the next state")
        assert rig.timelines[0].find("state")[1].data["cause"] == "digits"
        told = b"".join(f.data for f in stage.record.received() if f.kind != "input_audio_buffer.append")
        for digits in (SECRET, " ".join(SECRET), WRONG, " ".join(WRONG)):
            assert digits.encode() not in told
            assert digits not in json.dumps(rig.timelines[0].as_dict())
        assert {entry.data["digit"] for entry in rig.timelines[0].find("caller.dtmf")} == {"****"}


async def test_hold_plays_music_and_brings_the_caller_back(
    asterisk: AsteriskInstance, flow: dict[str, Any]
) -> None:
    music(asterisk)
    async with Rig(asterisk, Script, **flow) as rig:
        phone, stage = await greeted(rig)
        began = time.monotonic()
        await use(stage, "hold_call", seconds=2)
        assert await output(stage) == {"ok": "the caller is back"}
        assert time.monotonic() - began > 2
        assert heard_level(phone, MUSIC_HZ, began) > -30
        await stage.wait_for("response.create")
        spoken = time.monotonic()
        await stage.say(sound.encode(signal.tone(1013, 0.5), stage.session.output_format), speed=10)
        await phone.wait_heard(after=spoken)
        await phone.wait_silence(200)
        assert signal.tone_level_db(phone.heard_between(spoken, time.monotonic()).pcm, 1013) > -30


async def test_keys_go_to_the_far_end(asterisk: AsteriskInstance, flow: dict[str, Any]) -> None:
    async with Rig(asterisk, Script, **flow) as rig:
        phone, stage = await greeted(rig)
        await use(stage, "send_dtmf", digits="42#")
        assert await output(stage) == {"ok": True}
        await until(lambda: phone.heard_digits() == "42#", "the keys")


async def test_digits_reach_the_model(asterisk: AsteriskInstance, flow: dict[str, Any]) -> None:
    async with Rig(asterisk, Script, **flow) as rig:
        phone, stage = await greeted(rig)
        await use(stage, "collect_digits", name="account")
        await until(lambda: bool(rig.timelines[0].find("tool.started")), "the tool")
        await phone.dtmf("8150#")
        assert await output(stage) == {"account": "8150"}


async def test_secret_digits_reach_nobody_but_tools(
    asterisk: AsteriskInstance, flow: dict[str, Any], tmp_path: Path
) -> None:
    """By the tool, and by the state that asks: no log, timeline, store, recording or model has them."""
    async with Rig(
        asterisk,
        Script,
        memory_url=f"sqlite:///{tmp_path}/memory.db",
        memory_spool_dir=tmp_path / "spool",
        enable_audio_recording=True,
        recordings_dir=tmp_path / "recordings",
        log_level="debug",
        **flow,
    ) as rig:
        phone, stage = await greeted(rig)
        await phone.play(signal.tone(1209, 0.4)).done()
        await use(stage, "collect_digits", name="card", length=8, secret=True)
        await until(lambda: bool(rig.timelines[0].find("tool.started")), "the tool")
        before = len(stage.record.audio_received)
        # A phone that sends its keys as sound is not listened to either.
        phone.play(signal.tone(697, 0.15))  # over before the last key is
        await phone.dtmf(SECRET)
        assert await output(stage) == {"ok": "card was keyed in; nobody may read it"}
        heard = sound.decode(stage.record.audio_received[before:], stage.session.input_format)
        assert signal.tone_level_db(heard, 697) < -50
        await stage.wait_for("response.create")
        await stage.say("And your PIN.", speed=20)
        await use(stage, "move_to_state", state="pin")
        await stage.wait_for("response.create")
        await stage.say("Now.", speed=20)
        phone.play(signal.tone(697, 0.15))  # over before the last key is
        await phone.dtmf(SECRET)
        await until(lambda: bool(rig.timelines[0].find("state")[1:]), "the next state")
        assert rig.calls[0].conversation is not None
        assert rig.calls[0].conversation.secrets == {"card": SECRET, "pin": SECRET}
        assert rig.timelines[0].find("state")[1].data["cause"] == "digits"
        await stage.wait_for("response.create")
        await phone.hangup()
        await rig.ended()
        call = rig.timelines[0].call_id
        told = b"".join(
            frame.data for frame in stage.record.received() if frame.kind != "input_audio_buffer.append"
        )
        assert SECRET.encode() not in told
        assert SECRET not in json.dumps(rig.timelines[0].as_dict())
        assert SECRET not in str([line for line in rig.log if "packet" not in line["event"]])
    (recording,) = (tmp_path / "recordings").iterdir()
    caller = read_recording(recording)[0]
    start, end = (round(ms * 8) for ms in signal.active_segments(caller)[0])
    assert signal.tone_level_db(caller[start:end], 1209) > -30, "what is no secret is recorded"
    assert max(signal.tone_level_db(part, 697) for part in np.array_split(caller[end:], 20)) < -60
    store = make(rig.settings)
    assert store is not None
    saved = await Archive(store, Spool(tmp_path / "spool")).load(call)
    assert saved is not None
    assert saved.record.known == {"card": "****", "pin": "****"}
    assert SECRET not in repr(saved.turns)
    await store.close()


async def test_notes_and_call_backs_are_kept(
    asterisk: AsteriskInstance, flow: dict[str, Any], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/memory.db"
    async with Rig(asterisk, Script, memory_url=url, memory_spool_dir=tmp_path / "spool", **flow) as rig:
        phone, stage = await greeted(rig)
        for name, arguments in (
            ("leave_note", {"text": "Has a dog."}),
            ("request_call_back", {"when": "2001-01-01 10:00"}),
            ("request_call_back", {"when": "2101-01-01 10:00", "about": "the dog"}),
        ):
            await use(stage, name, **arguments)
            await output(stage)
            await stage.wait_for("response.create")
            await stage.say("Well.", speed=20)
        outputs = [json.loads(str(entry.data["output"])) for entry in rig.timelines[0].find("tool")]
        assert "is over" in outputs[1]["error"]
        await phone.hangup()
        await rig.ended()
        call = rig.timelines[0].call_id
    store = make(rig.settings)
    assert store is not None
    saved = await Archive(store, Spool(tmp_path / "spool")).load(call)
    assert saved is not None
    assert saved.record.notes == ["Has a dog."]
    assert saved.record.call_back == "2101-01-01 10:00 tester1, about the dog"
    await store.close()


# --- tools of one's own ---


async def test_slow_tool_does_not_stop_the_audio(asterisk: AsteriskInstance, flow: dict[str, Any]) -> None:
    async with Rig(asterisk, Script, **flow) as rig:
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Please.")
        tone = sound.encode(signal.tone(1013, 2.0), stage.session.output_format)
        began = time.monotonic()
        await stage.say(tone, speed=10, end=False)
        await stage.call("slow", {"seconds": 1.5})
        heard_at = await phone.wait_heard(after=began)
        await until(lambda: bool(rig.timelines[0].find("tool")), "the result")
        gaps = [
            (later.time - one.time) * 1000
            for one, later in zip(phone.received, phone.received[1:], strict=False)
            if one.time > heard_at
        ]
        assert len(gaps) > 40
        assert sorted(gaps)[len(gaps) * 95 // 100] < 30, "the packets go on in their rhythm"
        assert await output(stage) == "done"


async def test_tool_that_hangs_or_breaks_is_told(asterisk: AsteriskInstance, flow: dict[str, Any]) -> None:
    expected = ["a tool gave no result in time", "a tool failed by a bug"]
    async with Rig(asterisk, Script, expect_log=expected, **flow) as rig:
        _, stage = await greeted(rig)
        await use(stage, "slow", seconds=20)
        assert await output(stage) == {"error": "it gave no result within 3 s"}
        await stage.wait_for("response.create")
        await stage.say("Well.", speed=20)
        await use(stage, "failing")
        assert (await output(stage))["state"] == "error_handler"
        told = stage.record.received("session.update")[-1].event["session"]["instructions"]
        assert "Current state: error_handler" in told
