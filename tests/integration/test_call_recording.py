"""The recording of a call holds what both sides heard, when they heard it."""

from __future__ import annotations

import asyncio
import errno
import time
from pathlib import Path

import pytest
from hearing import RATE, assert_clean_tone, assert_silent, joined, read_recording, sounding
from rig import Rig, SteadyEcho, until

from arivox.audio.g711 import Law, Pcm
from arivox.audio.wav import StereoWavWriter
from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.phone import SipPhone

pytestmark = pytest.mark.asterisk
CALLER_HZ = 613.0
AGENT_HZ = 1513.0
TONE_S = 0.4
ALIGNED_MS = 60.0


def recordings(folder: Path) -> list[Path]:
    """Return the files of a folder."""
    return list(folder.iterdir())


def starts_ms(pcm: Pcm) -> list[float]:
    """Return where each tone begins."""
    return [start for start, _ in signal.active_segments(pcm, RATE, min_ms=100.0)]


async def agent_tone(stage: Stage, phone: SipPhone) -> float:
    """Let the agent hum; return when the phone heard the first of it."""
    asked = time.monotonic()
    await stage.say(sound.tone(stage.session.output_format, TONE_S * 1000, AGENT_HZ))
    return await phone.wait_heard(after=asked)


async def caller_tone(phone: SipPhone) -> float:
    """Let the caller hum to the end; return when the first of it left."""
    said = phone.play(signal.tone(CALLER_HZ, TONE_S))
    await said.done()
    assert said.first_packet_at is not None
    return said.first_packet_at


async def talk(rig: Rig, count: int, law: Law) -> list[tuple[float, str]]:
    """Make one call in which both hum by turns and at once; return when each tone was said or heard."""
    phone = await rig.dial(law=law)
    stage = await rig.stage(count)
    await stage.wait_for("response.create")
    tones = [(await agent_tone(stage, phone), "agent")]
    await phone.wait_silence(150)
    tones.append((await caller_tone(phone), "caller"))
    # A phone that sends nothing at all must not shift what it says later.
    phone.mute()
    tones.append((await agent_tone(stage, phone), "agent"))
    await phone.wait_silence(150)
    phone.unmute()
    agent, caller = await asyncio.gather(agent_tone(stage, phone), caller_tone(phone))
    tones += [(agent, "agent"), (caller, "caller")]
    await phone.wait_silence(150)
    await phone.hangup()
    return tones


def assert_aligned(path: Path, tones: list[tuple[float, str]]) -> None:
    left, right = read_recording(path)
    found = [(start, "caller") for start in starts_ms(left)] + [
        (start, "agent") for start in starts_ms(right)
    ]
    assert len(found) == len(tones)
    for side in ("caller", "agent"):
        recorded = [start for start, who in found if who == side]
        heard = [when * 1000 for when, who in tones if who == side]
        # Both are compared with the agent's first tone: a recording says nothing of the time of day.
        first_recorded, first_heard = starts_ms(right)[0], tones[0][0] * 1000
        assert [at - first_recorded for at in recorded] == pytest.approx(
            [at - first_heard for at in heard], abs=ALIGNED_MS
        )


async def test_both_sides_are_recorded_as_they_were_heard(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "when needed"
    async with Rig(asterisk, Script, enable_audio_recording=True, recordings_dir=folder) as rig:
        mu = await talk(rig, 1, "ulaw")
        await rig.ended(0)
        a = await talk(rig, 2, "alaw")
        await rig.ended(1)
        mu_call, a_call = (timeline.call_id for timeline in rig.timelines)
        seconds = [rig.counters(index)["seconds"] for index in range(2)]
    assert len(recordings(folder)) == 2, "one file a call"
    for call_id, tones, length in ((mu_call, mu, seconds[0]), (a_call, a, seconds[1])):
        (path,) = folder.glob(f"*-{call_id}.wav")
        left, right = read_recording(path)
        assert_aligned(path, tones)
        assert len(left) / RATE == pytest.approx(length, abs=0.5)
        for pcm, hz, other in ((left, CALLER_HZ, AGENT_HZ), (right, AGENT_HZ, CALLER_HZ)):
            for start in starts_ms(pcm):
                tone = pcm[round(start * RATE / 1000) :][: round(TONE_S * RATE)]
                assert_clean_tone(tone, hz, TONE_S)
                assert signal.tone_level_db(tone, other) < -50


async def test_barge_in_is_silence_on_the_right(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    async with Rig(asterisk, Script, enable_audio_recording=True, recordings_dir=tmp_path) as rig:
        phone = await rig.dial()
        stage = await rig.stage()
        await stage.wait_for("response.create")
        await stage.say(sound.tone(stage.session.output_format, 5000, AGENT_HZ), speed=10, wait=False)
        await phone.wait_heard()
        await asyncio.sleep(0.5)
        said = phone.play(signal.tone(CALLER_HZ, 0.6))
        await stage.wait_audio(100)
        await stage.speech_started()
        await said.done()
        await phone.wait_silence(200)
        await phone.hangup()
        await rig.ended()
        heard = phone.heard().pcm
    (path,) = recordings(tmp_path)
    left, right = read_recording(path)
    spoken = sounding(right)
    assert len(spoken) / RATE < 1.5, "what was never played is not recorded"
    assert len(spoken) / RATE * 1000 == pytest.approx(len(sounding(heard)) / RATE * 1000, abs=ALIGNED_MS)
    (interrupted,) = signal.active_segments(right, RATE)
    (speech,) = signal.active_segments(left, RATE)
    assert speech[0] < interrupted[1] < speech[1]
    assert_silent(right[round(interrupted[1] * RATE / 1000) + 80 :])


@pytest.mark.parametrize("fault", ["a file", "no folder can be made"])
async def test_folder_that_cannot_be_used_costs_the_recording_alone(
    asterisk: AsteriskInstance, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "recordings"
    if fault == "a file":
        folder.write_text("not a folder")
    else:
        folder = Path("/proc/arivox")  # refused to root too
    async with Rig(
        asterisk,
        SteadyEcho,
        expect_log=["the recording failed"],
        enable_audio_recording=True,
        recordings_dir=folder,
    ) as rig:
        phone = await rig.dial()
        await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
        said = phone.play(signal.tone(CALLER_HZ, TONE_S))
        await said.done()
        await phone.wait_silence(300)
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        assert_clean_tone(phone.heard().pcm, CALLER_HZ, TONE_S)
        (line,) = rig.logged("the recording failed")
        assert line["setting"] == "RECORDINGS_DIR"
        assert str(folder) in line["error"]


async def test_disk_that_fills_up_costs_the_recording_alone(
    asterisk: AsteriskInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = StereoWavWriter.append, 0

    def append(writer: StereoWavWriter, left: Pcm, right: Pcm) -> None:
        nonlocal written
        written += 1
        if written > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(writer, left, right)

    monkeypatch.setattr(StereoWavWriter, "append", append)
    async with Rig(
        asterisk,
        SteadyEcho,
        expect_log=["the recording failed; the call goes on"],
        enable_audio_recording=True,
        recordings_dir=tmp_path,
    ) as rig:
        phone = await rig.dial()
        await until(lambda: bool(rig.logged("the recording failed")), "the disk's error", timeout=6)
        said = phone.play(signal.tone(CALLER_HZ, 1.2))
        await said.done()
        await phone.wait_silence(300)
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        assert_clean_tone(phone.heard().pcm, CALLER_HZ, 1.2)
        assert len(rig.logged("the recording failed")) == 1, "told once, not every second"
    (path,) = recordings(tmp_path)
    left, right = read_recording(path)
    assert len(left) == len(right) > 0, "what was written before is kept"


async def test_callers_at_once_have_files_of_their_own(asterisk: AsteriskInstance, tmp_path: Path) -> None:
    async with Rig(asterisk, SteadyEcho, enable_audio_recording=True, recordings_dir=tmp_path) as rig:

        async def hum(hz: float) -> None:
            phone = await rig.dial()
            await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
            await phone.play(signal.tone(hz, TONE_S)).done()
            await phone.wait_silence(300)
            await phone.hangup()

        tones = signal.PROBES_HZ[:12:3]
        await asyncio.gather(*(hum(hz) for hz in tones))
        for index in range(len(tones)):
            await rig.ended(index)
    heard = []
    for path in recordings(tmp_path):
        left, right = read_recording(path)
        hz = signal.dominant_frequency(sounding(left))
        heard.append(round(hz))
        assert signal.dominant_frequency(sounding(right)) == pytest.approx(hz, abs=2)
        for other in tones:
            assert abs(other - hz) < 2 or signal.tone_level_db(joined(left, right), other) < -60
    assert sorted(heard) == [round(hz) for hz in tones]
