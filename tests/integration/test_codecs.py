"""Codecs for which Asterisk has no transcoder, and an Asterisk that is about to stop."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from rig import Rig, until

from arivox import doctor
from arivox.asterisk.client import AriClient
from arivox.emulator.script import Script, Stage
from arivox.errors import AsteriskError, ChannelGoneError
from arivox.settings.settings import Settings
from arivox.testing import phone as phones
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone
from arivox.testing.sdp import G729

pytestmark = pytest.mark.asterisk
LOOKS_S = 1.5
UNTRANSLATABLE = "Asterisk cannot translate a codec"
ENDPOINTS = """
[g729phone](local)
disallow = all
allow = g729

[mixedphone](local)
disallow = all
allow = ulaw,g729,g722,h264

[g729peer](local)
disallow = all
allow = g729
aors = peer
"""
FLOW = """
common:
  states:
    greeting: {prompt: Hello., next: done, tools: [transfer_call]}
    done: Thank you.
    fallback: Sorry?
    error_handler: Oh.
"""


@pytest.fixture(scope="module")
def asterisk() -> Iterator[AsteriskInstance]:
    """An Asterisk with endpoints that allow what it cannot translate, as many a configuration does."""
    with AsteriskInstance() as instance:
        file = instance.run_dir / "etc/pjsip.conf"
        file.write_text(file.read_text() + ENDPOINTS)
        instance.cli("module reload res_pjsip.so")
        deadline = time.monotonic() + 5
        while "g729peer" not in instance.cli("pjsip show endpoints"):
            assert time.monotonic() < deadline
        yield instance


def g729_phone(rig: Rig, **options: Any) -> SipPhone:
    return SipPhone(("127.0.0.1", rig.asterisk.sip_port), foreign=G729, **options)


async def greeted(rig: Rig) -> tuple[SipPhone, Stage]:
    phone = await rig.dial()
    stage = await rig.stage()
    await stage.wait_for("response.create")
    await stage.say("Hello.", speed=20)
    await phone.wait_heard()
    return phone, stage


async def test_caller_whom_the_ai_cannot_be_translated_to_is_sent_on(asterisk: AsteriskInstance) -> None:
    """Asterisk answers and bridges such a call, says nothing, and nothing is ever heard."""
    async with (
        Rig(asterisk, Script, expect_log=[UNTRANSLATABLE]) as rig,
        g729_phone(rig, user="g729phone") as phone,
    ):
        begun = time.monotonic()
        assert await phone.call("700") == 200
        assert await rig.ended() == "asterisk_failed"
        assert time.monotonic() - begun < 3
        assert await rig.status_of() == "asterisk_failed"
        (line,) = rig.logged(UNTRANSLATABLE)
        assert (line["codec"], line["who"]) == ("g729", "the caller")
        assert "take g729 out of allow=" in line["hint"]
        assert rig.logged("no RTP from Asterisk") == [], "neither the address nor the firewall is at fault"
        assert rig.counters()["agent_heard_s"] < 0.5
        await phone.wait_state("down")


async def test_colleague_whom_the_caller_cannot_be_translated_to(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    """Asterisk does not even call them; the caller stays with the AI."""
    (tmp_path / "prompts.yaml").write_text(FLOW)
    settings: dict[str, Any] = {
        "prompts_file": tmp_path / "prompts.yaml",
        "transfer_to": "peer=PJSIP/g729peer",
    }
    told = ["no codec in common"]
    async with (
        Rig(asterisk, Script, expect_log=told, **settings) as rig,
        g729_phone(rig, user="peer", port=asterisk.peer_port, plan=phones.ANSWER),
    ):
        phone, stage = await greeted(rig)
        await stage.speech_started()
        await stage.speech_stopped("Somebody, please.")
        await stage.call("transfer_call", {"destination": "peer"})
        result = (await stage.wait_for("conversation.item.create"))["item"]["output"]
        assert "cannot be reached" in result
        begun = time.monotonic()
        await stage.wanted()
        await stage.say("They cannot be reached.", speed=20)
        await phone.wait_heard(after=begun)


@asynccontextmanager
async def stop_pending(rig: Rig) -> AsyncIterator[None]:
    """Tell Asterisk to stop once its calls have ended; and then, not to."""
    ari = AriClient(rig.asterisk.ari_url, rig.asterisk.ari_user, rig.asterisk.ari_password, "nobody")
    async with ari, rig.phone() as keeper:
        assert await keeper.call("600") == 200  # without any call it would stop at once
        stopping = asyncio.create_task(rig.console("core stop gracefully"))
        try:
            async with asyncio.timeout(5):
                while await makes_channels(ari):
                    pass
            yield
        finally:
            await rig.console("core abort shutdown")
            with suppress(AsteriskError):
                await stopping
            # It looks once a second whether it is still to stop; without a call just then, it does.
            await asyncio.sleep(LOOKS_S)
            assert await makes_channels(ari)


async def makes_channels(ari: AriClient) -> bool:
    try:
        await ari.external_media("x", "127.0.0.1", 9, "ulaw")
    except AsteriskError:
        return False
    with suppress(AsteriskError):  # nobody listens to its application: it may be gone
        await ari.hang_up("x")
    while True:
        try:
            await ari.channel("x")
        except ChannelGoneError:
            return True


async def test_transfer_while_a_stop_of_asterisk_is_pending(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    (tmp_path / "prompts.yaml").write_text(FLOW)
    settings: dict[str, Any] = {
        "prompts_file": tmp_path / "prompts.yaml",
        "transfer_to": "peer=PJSIP/peer, gone=PJSIP/nobody",
    }
    told = ["a stop or restart of Asterisk is pending", "could not dial"]
    async with Rig(asterisk, Script, expect_log=told, **settings) as rig:
        phone, stage = await greeted(rig)

        async def transfer(to: str) -> str:
            await stage.speech_started()
            await stage.speech_stopped("Somebody, please.")
            await stage.call("transfer_call", {"destination": to})
            output = (await stage.wait_for("conversation.item.create"))["item"]["output"]
            begun = time.monotonic()
            await stage.wanted()
            await stage.say("I am sorry.", speed=20)
            await phone.wait_heard(after=begun)
            await phone.wait_silence(200)
            return str(output)

        async with stop_pending(rig):
            output = await transfer("peer")
            assert "restart" in output
            assert "pending" in output
        assert "cannot be reached" in await transfer("gone"), "the same answer of Asterisk, another cause"
        assert re.search("pending", str(rig.logged("could not dial")[-1])) is None


async def test_call_that_comes_in_while_a_stop_of_asterisk_is_pending(asterisk: AsteriskInstance) -> None:
    """It was taken before: the dialplan had it."""
    async with Rig(asterisk, Script, expect_log=["the call could not be set up"]) as rig:
        await rig.console("dialplan add extension 790,1,Wait,2 into from-sip replace")
        await rig.console("dialplan add extension 790,2,Stasis,arivox into from-sip replace")
        await rig.console("dialplan add extension 790,3,Goto,after-stasis,790,1 into from-sip replace")
        phone = await rig.open_phone()
        calling = asyncio.create_task(phone.call("790"))
        async with asyncio.timeout(5):
            while "!790!1!" not in await rig.console("core show channels concise"):
                pass
        async with stop_pending(rig):
            assert await rig.ended() == "asterisk_failed"
            (line,) = rig.logged("the call could not be set up")
            assert "core stop gracefully" in line["error"]
        with suppress(TimeoutError):
            await calling
        await phone.hangup()


async def test_doctor_names_the_codecs_that_cannot_be_translated(asterisk: AsteriskInstance) -> None:
    settings = Settings(
        ari_url=asterisk.ari_url, ari_username=asterisk.ari_user, ari_password=asterisk.ari_password
    )
    found = [one async for one in doctor.examine(settings) if one.name == "codecs"]
    told = {one.state: one for one in found}
    assert set(told) == {"failed", "warning"}, found
    assert "g729phone" in told["failed"].text
    assert "g729" in told["failed"].text
    assert "g729peer" in told["failed"].text
    assert "mixedphone" not in told["failed"].text
    assert "mixedphone" in told["warning"].text
    assert "h264" not in str(found)
    assert "allow=" in told["failed"].hint
    await until(
        lambda: "arivox-doctor" not in asterisk.cli("core show channels concise"), "its channels' end"
    )
    assert "arivox-doctor" not in asterisk.cli("bridge show all")
