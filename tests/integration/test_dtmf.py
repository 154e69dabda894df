"""Keys pressed in mid-call."""

from __future__ import annotations

import pytest
from hearing import assert_clean_tone
from rig import Rig, until

from arivox.emulator import sound
from arivox.emulator.script import Script
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance

pytestmark = pytest.mark.asterisk


async def test_keys_do_not_disturb_the_agent_and_are_noted(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        tone = sound.encode(signal.tone(1013, 2.0), stage.session.output_format)
        await stage.say(tone, speed=4, wait=False)
        await phone.wait_heard()
        await phone.dtmf("15#", duration_ms=120)
        await phone.wait_silence(150)
        timeline = rig.timelines[0]
        await until(lambda: len(timeline.find("caller.dtmf")) == 3, "three keys on the timeline")
        assert [entry.data["digit"] for entry in timeline.find("caller.dtmf")] == ["1", "5", "#"]
        assert_clean_tone(phone.heard().pcm, 1013, 2.0)
        assert timeline.find("barge_in") == []


async def test_key_while_the_caller_speaks_reaches_nobody_as_sound(asterisk: AsteriskInstance) -> None:
    """The key goes another way: the AI hears a stream of true length, and the tone of no key."""
    async with Rig(asterisk, Script) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await stage.wait_audio(200)
        before = len(stage.record.audio_received)
        began = len(phone.sent)
        said = phone.play(signal.tone(413, 1.0))
        await phone.dtmf("9", duration_ms=200)
        await said.done()
        await stage.wait_audio(300)
        await until(lambda: bool(rig.timelines[0].find("caller.dtmf")), "the key")
        heard = sound.decode(stage.record.audio_received[before:], stage.session.input_format)
        for hz in (852, 1477):  # the two tones of a 9 (ITU-T Q.23)
            assert signal.tone_level_db(heard, hz) < -50
        assert signal.tone_level_db(heard, 413) > -20
        elapsed_ms = (phone.sent[-1].time - phone.sent[began].time) * 1000
        assert len(heard) / 8 == pytest.approx(elapsed_ms, abs=150)
