"""The caller's voice on its way to the AI: whole, in order, of true length, and never stale for long."""

from __future__ import annotations

import asyncio
import socket
import time

import numpy as np
import pytest
from hearing import RATE, joined, sounding
from rig import Rig, until

from arivox.audio.g711 import Pcm, encode
from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.testing import signal
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone
from arivox.testing.talker import DOUBLED, LOST, SWAPPED, Impairment, burst, fates

pytestmark = pytest.mark.asterisk
VOICE = MarkedStream(3.0)
TRUE_LENGTH_MS = 60.0
BACKLOG_MS = 2000.0
FRAME_MS = 20.0


def heard_by_ai(stage: Stage) -> Pcm:
    """Return all that reached the AI, at 8 kHz."""
    audio = stage.session.input_format
    return sound.resample(sound.decode(stage.record.audio_received, audio), audio.rate, RATE)


def hears_nothing(stage: Stage) -> bool:
    """Return whether the last tenth of a second that reached the AI is silent."""
    audio = stage.session.input_format
    return signal.level_dbfs(sound.decode(stage.record.audio_received, audio)[-audio.rate // 10 :]) < -50


async def dial(rig: Rig) -> tuple[SipPhone, Stage]:
    """Return a phone whose call is up, and the stage of its AI, which hears it and has greeted."""
    phone = await rig.dial()
    stage = await rig.stage(len(rig.timelines))
    await stage.wait_for("response.create")
    await stage.say(sound.tone(stage.session.output_format, 100))
    await stage.wait_audio(100)
    return phone, stage


# --- an AI that stops reading ---


def shrink_receive_buffer(rig: Rig) -> None:
    """Let the AI's kernel take little: it would swallow seconds of audio before anyone noticed a stall."""
    listening = rig.emulator._socket
    assert listening is not None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)


async def test_stalled_ai_costs_the_oldest_audio_alone(asterisk: AsteriskInstance) -> None:
    stream = MarkedStream(7.0)
    # At 24 kHz the kernels' buffers hold a second, not five.
    async with Rig(asterisk, Script, openai_audio_format="pcm") as rig:
        shrink_receive_buffer(rig)
        phone, stage = await dial(rig)
        said = phone.play(stream.pcm())
        await stage.wait_audio(500)
        await stage.stop_reading()
        await asyncio.sleep(5.0)
        await stage.resume_reading()
        assert said.first_packet_at is not None
        resumed_ms = (time.monotonic() - said.first_packet_at) * 1000
        last_left = await said.done()
        await until(lambda: hears_nothing(stage), "the stream's end")
        late_ms = (time.monotonic() - last_left) * 1000
        voice = sounding(heard_by_ai(stage))
        await phone.hangup()
        await rig.ended()
    ((_, lost_ms),) = stream.jumps(voice)
    assert rig.counters()["uplink_dropped"] * FRAME_MS == pytest.approx(lost_ms, abs=25)
    assert len(voice) / RATE * 1000 == pytest.approx(stream.seconds * 1000 - lost_ms, abs=TRUE_LENGTH_MS)
    track = stream.track(voice)
    seam = int(np.argmax(np.diff(track[:, 1] - track[:, 0])))
    beyond = track[track[:, 0] > track[seam, 0] + 120][0]  # a reading that is surely behind the seam
    taken_up_ms = beyond[1] - (beyond[0] - track[seam, 0])
    assert resumed_ms - taken_up_ms == pytest.approx(BACKLOG_MS, abs=300), "the newest two seconds are kept"
    assert late_ms < 1500, "what is said after the stall comes at once"


async def test_stall_stays_bounded_when_other_messages_are_sent(asterisk: AsteriskInstance) -> None:
    """Telling the AI something else meanwhile (how much of its answer was heard) does not undo the bound."""
    async with Rig(asterisk, Script, openai_audio_format="pcm") as rig:
        shrink_receive_buffer(rig)
        phone, stage = await dial(rig)
        await stage.say(sound.tone(stage.session.output_format, 6000), speed=100)
        await phone.wait_heard()
        await stage.stop_reading()
        counters = rig.calls[0]._exchange.session.counters  # type: ignore[union-attr]
        stalled_frames = counters.audio_out_frames
        await asyncio.sleep(3.0)
        await stage.speech_started()
        await asyncio.sleep(2.2)
        stalled_frames = counters.audio_out_frames - stalled_frames
        await stage.resume_reading()
        await stage.wait_for("conversation.item.truncate")
        await phone.hangup()
        await rig.ended()
    kept_ms = (stalled_frames - rig.counters()["uplink_dropped"]) * FRAME_MS
    assert kept_ms < BACKLOG_MS + 1500, "two seconds, and what the kernels took"


# --- a bad network ---

IMPAIRMENTS: dict[str, Impairment] = {
    "one packet in ten lost": fates(LOST, range(5, 150, 10)),
    "200 ms lost at once": fates(LOST, range(70, 80)),
    "60 ms lost twice": fates(LOST, [*range(70, 73), *range(90, 93)]),
    "neighbours swapped": fates(SWAPPED, range(5, 150, 7)),
    "packets doubled": fates(DOUBLED, range(5, 150, 5)),
    "60 ms held and sent at once": burst(75, 2),
}


def assert_true(name: str, heard: Pcm) -> None:
    """Assert that the AI heard the voice in its length, and every part of it in its place."""
    voice = sounding(heard)
    assert len(voice) / RATE * 1000 == pytest.approx(VOICE.seconds * 1000, abs=TRUE_LENGTH_MS), name
    track = VOICE.track(voice)
    assert len(track) > 20, name
    # A window with a seam in it reads wildly; all others say how far the voice is from its place.
    off = np.abs(track[:, 1] - track[:, 0])
    assert np.median(off) < 10, name
    assert off[0] < TRUE_LENGTH_MS, name
    assert off[-1] < TRUE_LENGTH_MS, name
    assert np.mean(off < TRUE_LENGTH_MS) > 0.8, name


async def hear_through(rig: Rig, impairments: dict[str, Impairment]) -> dict[str, Pcm]:
    """Let a caller speak through each impairment, all at once; return what their AIs heard."""
    callers = {name: await dial(rig) for name in impairments}

    async def speak(name: str, phone: SipPhone, stage: Stage) -> Pcm:
        phone.talker.packets = 0
        phone.talker.impairment = impairments[name]
        await phone.play(VOICE.pcm()).done()
        phone.talker.impairment = None
        await stage.wait_audio(300)
        return heard_by_ai(stage)

    heard = await asyncio.gather(*(speak(name, *caller) for name, caller in callers.items()))
    return dict(zip(impairments, heard, strict=True))


async def test_bad_network_keeps_length_and_order(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        for name, heard in (await hear_through(rig, IMPAIRMENTS)).items():
            assert_true(name, heard)


async def test_packets_held_up_for_longer_move_nothing_for_good(asterisk: AsteriskInstance) -> None:
    """Silence is put in while they are awaited. The next pause makes up for it."""
    first, second = signal.tone(1013, 1.0), signal.tone(613, 0.4)
    async with Rig(asterisk, Script) as rig:
        phone, stage = await dial(rig)
        phone.talker.packets = 0
        phone.talker.impairment = burst(20, 8)
        await phone.play(joined(first, signal.silence(0.6), second)).done()
        await stage.wait_audio(300)
        segments = signal.active_segments(heard_by_ai(stage), RATE, min_ms=60)
        await phone.hangup()
        await rig.ended()
    assert rig.counters()["rtp_filled"] >= 4, "they were held for long enough to be missed"
    assert segments[-1][1] - segments[-1][0] == pytest.approx(400, abs=5)
    assert segments[-1][0] - segments[0][0] == pytest.approx(1600, abs=TRUE_LENGTH_MS)
    spoken_ms = sum(end - start for start, end in segments[:-1])
    assert spoken_ms == pytest.approx(1000, abs=TRUE_LENGTH_MS), "no word is taken out for it"


# --- a phone that sends nothing ---


async def test_muted_phone_is_heard_as_silence_of_true_length(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script) as rig:
        phone, stage = await dial(rig)
        said = phone.play(VOICE.pcm()[: 2 * RATE])
        await stage.wait_audio(700)
        phone.mute()
        muted = time.monotonic()
        await asyncio.sleep(1.0)
        phone.unmute()
        muted_ms = (time.monotonic() - muted) * 1000
        await said.done()
        await stage.wait_audio(300)
        voice = sounding(heard_by_ai(stage))
    assert len(voice) / RATE * 1000 == pytest.approx(2000 + muted_ms, abs=TRUE_LENGTH_MS)
    ((_, before), (after, _)) = signal.active_segments(voice, RATE, min_ms=200)
    assert after - before == pytest.approx(muted_ms, abs=TRUE_LENGTH_MS)


@pytest.mark.parametrize("pause_ms", [60, 300])
async def test_silence_suppression_keeps_the_pauses(asterisk: AsteriskInstance, pause_ms: int) -> None:
    """A phone that sends words and no silence between them: their RTP timestamps tell the pauses."""
    word = signal.tone(1013, 0.14)
    async with Rig(asterisk, Script) as rig:
        phone, stage = await dial(rig)
        phone.talker.discontinuous = True
        await stage.wait_audio(300)
        begun: float | None = None
        ended = 0.0
        while begun is None or ended - begun < 1.5:
            said = phone.play(word)
            ended = await said.done()
            begun = begun or said.first_packet_at
            await asyncio.sleep(pause_ms / 1000)
        await stage.wait_audio(300)
        voice = sounding(heard_by_ai(stage))
    assert begun is not None
    assert len(voice) / RATE * 1000 == pytest.approx((ended - begun) * 1000 + FRAME_MS, abs=TRUE_LENGTH_MS)


# --- a caller who speaks before the AI is there ---


async def test_caller_who_speaks_before_the_session_is_ready(asterisk: AsteriskInstance) -> None:
    async with Rig(asterisk, Script, emulator={"handshake_delay": 3.0}) as rig:
        phone = await rig.dial()
        await phone.wait_heard(predicate=lambda pcm: len(pcm) > 0)
        said = phone.play(VOICE.pcm())
        stage = await rig.stage()
        await stage.wait_for("session.update")
        ready = time.monotonic()
        await said.done()
        await stage.wait_audio(200)
        received = bytes(stage.record.audio_received)
        kinds = [frame.kind for frame in stage.record.received()]
    assert said.first_packet_at is not None
    assert ready - said.first_packet_at > 1.0, "most of it was said before"
    assert encode(VOICE.pcm(), "ulaw") in received
    assert kinds[0] == "session.update", "audio before the configuration would be taken for another format"
