"""What is kept of calls on a real Asterisk: in a real Redis and in SQLite, as far as it was heard."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hearing import assert_whole
from rig import Rig, until

from arivox.conversation.memory.archive import Archive
from arivox.conversation.memory.spool import Spool
from arivox.conversation.memory.store import make
from arivox.emulator import sound
from arivox.emulator.script import Script, Stage
from arivox.testing.asterisk import AsteriskInstance
from arivox.testing.marked import MarkedStream
from arivox.testing.phone import SipPhone
from arivox.testing.redis_server import RedisServer

pytestmark = pytest.mark.asterisk
LONG = MarkedStream(8.0)
SENTENCE = "We are open from Monday to Friday and every second Saturday in the month as well."


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder) as running:
        yield running


def list_of(server: RedisServer, channel: str) -> list[dict[str, Any]]:
    """Return what an old reader gets."""
    lines = redis.Redis(port=server.port, decode_responses=True).lrange(f"conv:{channel}", 0, -1)
    assert isinstance(lines, list)
    return [json.loads(line) for line in lines]


def texts(turns: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(turn["speaker"], turn["text"], turn["state"]) for turn in turns]


async def greeted(rig: Rig, user: str = "", words: str = "Shall we begin?") -> tuple[SipPhone, Stage]:
    phone = await rig.dial(user=user)
    stage = await rig.stage(len(rig.timelines))
    await stage.wait_for("response.create")
    await stage.say(words, speed=20)
    await phone.wait_heard()
    await phone.wait_silence(200)
    return phone, stage


async def caller_says(stage: Stage, words: str) -> None:
    await stage.speech_started()
    await stage.speech_stopped(words)


async def test_turns_are_in_redis_as_they_were_heard(
    asterisk: AsteriskInstance, server: RedisServer, tmp_path: Path
) -> None:
    async with Rig(
        asterisk, Script, memory_url=server.url, memory_spool_dir=tmp_path / "spool", idle_caller_s=0.0
    ) as rig:
        phone, stage = await greeted(rig)
        channel = rig.calls[0].channel.id
        await caller_says(stage, "Yes please.")
        await stage.call("move_to_state", {"state": "gathering_reason"})
        await stage.wait_for("response.create")
        audio = sound.encode(LONG.pcm(), stage.session.output_format)
        began = time.monotonic()
        await stage.say(audio, transcript=SENTENCE, speed=10, wait=False)
        await phone.wait_heard(after=began)
        await asyncio.sleep(2.0)
        await stage.speech_started()  # into the middle
        heard_ms = LONG.position_ms(phone.heard_between(began, time.monotonic()).pcm)
        await stage.speech_stopped("A toothache.")
        await phone.hangup()
        await rig.ended()
        await until(lambda: len(list_of(server, channel)) == 4, "four turns")
    turns = list_of(server, channel)
    assert [text[:2] for text in texts(turns)[:2]] == [("ai", "Shall we begin?"), ("user", "Yes please.")]
    assert [turn["state"] for turn in turns] == [
        "greeting",
        "greeting",
        "gathering_reason",
        "gathering_reason",
    ]
    cut = turns[2]
    assert SENTENCE.startswith(cut["text"])
    assert len(cut["text"]) / len(SENTENCE) == pytest.approx(heard_ms / 8000, abs=0.12)
    assert cut["cut"] is True
    assert turns[3]["text"] == "A toothache."
    stamps = [turn["timestamp"] for turn in turns]
    assert stamps == sorted(stamps)
    assert all(turn["call"] == rig.timelines[0].call_id and turn["provider"] == "openai" for turn in turns)


async def test_transcripts_that_come_in_another_order_are_stored_under_their_turns(
    asterisk: AsteriskInstance, server: RedisServer, tmp_path: Path
) -> None:
    """What was said in one state is not kept as said in the next, nor in another order."""
    async with Rig(
        asterisk, Script, memory_url=server.url, memory_spool_dir=tmp_path / "spool", idle_caller_s=0.0
    ) as rig:
        phone, stage = await greeted(rig)
        channel = rig.calls[0].channel.id
        await stage.speech_started()
        first = await stage.speech_stopped()
        await stage.call("move_to_state", {"state": "gathering_reason"})
        await stage.wait_for("response.create")
        await stage.say("Why?", speed=20)
        await phone.wait_heard()
        await phone.wait_silence(200)
        await stage.speech_started()
        second = await stage.speech_stopped()
        stage.session.transcribed(second, "A toothache.")
        await stage.say("I see.", speed=20)
        stage.session.transcribed(first, "Yes please.")
        await until(lambda: len(rig.timelines[0].find("caller.said")) == 2, "both transcripts")
        await phone.hangup()
        await rig.ended()
        await until(lambda: len(list_of(server, channel)) >= 4, "the turns")
    said = [text[1:] for text in texts(list_of(server, channel)) if text[0] == "user"]
    assert said == [("Yes please.", "greeting"), ("A toothache.", "gathering_reason")]


async def test_words_of_a_caller_who_hangs_up_in_the_middle(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    """In the embedded store, with the part of the answer that was heard."""
    url = f"sqlite:///{tmp_path}/memory.db"
    async with Rig(
        asterisk, Script, memory_url=url, enable_audio_recording=True, recordings_dir=tmp_path
    ) as rig:
        phone, stage = await greeted(rig)
        await caller_says(stage, "When are you open?")
        await stage.wanted()
        began = time.monotonic()
        audio = sound.encode(LONG.pcm(), stage.session.output_format)
        await stage.say(audio, transcript=SENTENCE, speed=10, wait=False)
        await phone.wait_heard(after=began)
        await asyncio.sleep(2.0)
        await phone.hangup()
        assert await rig.ended() == "caller_hangup"
        call = rig.timelines[0].call_id
    store = make(rig.settings)
    assert store is not None
    archive = Archive(store, Spool(tmp_path / "spool"))
    saved = await archive.load(call)
    assert saved is not None
    assert [turn.speaker for turn in saved.turns] == ["ai", "user", "ai"]
    last = saved.turns[-1]
    assert last.cut
    assert SENTENCE.startswith(last.text)
    assert 0.1 < len(last.text) / len(SENTENCE) < 0.6
    assert saved.record.reason == "caller_hangup"
    assert saved.record.ended > saved.record.started
    recording = Path(saved.record.recording)
    assert recording.parent == tmp_path
    assert len(await archive.erase(saved.record)) == 2
    assert await archive.load(call) is None
    assert not await asyncio.to_thread(recording.exists)
    await store.close()


async def test_redis_that_dies_in_the_middle_is_not_heard(
    asterisk: AsteriskInstance, server: RedisServer, tmp_path: Path
) -> None:
    answer = MarkedStream(3.0)
    async with Rig(
        asterisk,
        Script,
        expect_log=["conversations cannot be stored"],
        memory_url=server.url,
        memory_spool_dir=tmp_path / "spool",
        idle_caller_s=0.0,
    ) as rig:
        phone, stage = await greeted(rig)
        channel = rig.calls[0].channel.id
        await until(lambda: len(list_of(server, channel)) == 1, "the first turn")
        await asyncio.to_thread(server.kill)
        for number in range(2):
            await caller_says(stage, f"Question {number}.")
            await stage.wanted()
            began = time.monotonic()
            audio = sound.encode(answer.pcm(), stage.session.output_format)
            await stage.say(audio, transcript=f"Answer {number}.", speed=4)
            await phone.wait_heard(after=began)
            await phone.wait_silence(300)
            assert_whole(phone.heard_between(began, time.monotonic()).pcm, answer)
        await asyncio.to_thread(server.start)
        await caller_says(stage, "Good-bye.")
        await until(lambda: len(list_of(server, channel)) == 6, "all turns", timeout=10)
        await phone.hangup()
        await rig.ended()
    assert [text[1] for text in texts(list_of(server, channel))] == [
        "Shall we begin?",
        "Question 0.",
        "Answer 0.",
        "Question 1.",
        "Answer 1.",
        "Good-bye.",
    ]


async def test_caller_who_was_cut_off_goes_on_where_they_were(
    asterisk: AsteriskInstance, server: RedisServer, tmp_path: Path
) -> None:
    async with Rig(
        asterisk,
        Script,
        memory_url=server.url,
        memory_spool_dir=tmp_path / "spool",
        memory_resume="caller",
        openai_history_max_turns=2,
        idle_caller_s=0.0,
    ) as rig:
        phone, stage = await greeted(rig, user="tester1")
        await caller_says(stage, "Yes please.")
        await stage.call("move_to_state", {"state": "gathering_reason"})
        await stage.wait_for("response.create")
        asked = time.monotonic()
        await stage.say("What is the reason?", speed=20)
        await phone.wait_heard(after=asked)
        await phone.wait_silence(300)
        await caller_says(stage, "A toothache.")
        await stage.call("move_to_state", {"state": "collecting_availability_days", "reason": "a toothache"})
        await stage.wait_for("response.create")
        await phone.hangup()
        await rig.ended(0)
        # Another caller knows nothing of it.
        stranger, elsewhere = await greeted(rig, user="tester2")
        update = elsewhere.record.received("session.update")[0].event["session"]
        assert "Current state: greeting" in update["instructions"]
        assert elsewhere.record.received("conversation.item.create") == []
        await stranger.hangup()
        _, again = await greeted(rig, user="tester1")
        update = again.record.received("session.update")[0].event["session"]
        assert "Current state: collecting_availability_days" in update["instructions"]
        assert "reason: a toothache" in update["instructions"]
        items = [frame.event["item"] for frame in again.record.received("conversation.item.create")]
        assert [(item["role"], item["content"][0]["text"]) for item in items] == [
            ("assistant", "What is the reason?"),
            ("user", "A toothache."),
        ]
        (entry,) = rig.timelines[2].find("memory.resumed")
        assert entry.data["turns"] == 2


async def test_two_calls_at_once_keep_their_turns_apart(
    asterisk: AsteriskInstance, server: RedisServer, tmp_path: Path
) -> None:
    async with Rig(
        asterisk, Script, memory_url=server.url, memory_spool_dir=tmp_path / "spool", idle_caller_s=0.0
    ) as rig:
        pairs = [await greeted(rig, words=f"Agent {number}.") for number in range(2)]
        channels = [call.channel.id for call in rig.calls]
        for turn in range(3):
            for number, (_, stage) in enumerate(pairs):
                await caller_says(stage, f"Caller {number} says {turn}.")
        await until(lambda: all(len(list_of(server, channel)) == 4 for channel in channels), "all turns")
    for number, channel in enumerate(channels):
        said = [text[1] for text in texts(list_of(server, channel))]
        assert said == [f"Agent {number}."] + [f"Caller {number} says {turn}." for turn in range(3)]


async def test_store_that_is_too_slow_to_resume_from_holds_nobody(
    asterisk: AsteriskInstance, tmp_path: Path
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    hole = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{hole.sockets[0].getsockname()[1]}/0"
    async with Rig(
        asterisk,
        Script,
        expect_log=["what was said earlier is not known", "kept in the spool", "cannot be stored"],
        memory_url=url,
        memory_spool_dir=tmp_path / "spool",
        memory_resume="caller",
    ) as rig:
        began = time.monotonic()
        phone, _ = await greeted(rig)
        assert time.monotonic() - began < 3
        await phone.hangup()
        await rig.ended()
        await rig.stop_service()
        (saved,) = [Spool(tmp_path / "spool").read(path) for path in Spool(tmp_path / "spool").files()]
        assert [turn.text for turn in saved.turns] == ["Shall we begin?"]
    hole.close()
