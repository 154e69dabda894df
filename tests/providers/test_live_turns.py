"""Turns inferred from transcripts, and utterances from a stream of sound: pure, with time as a parameter."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arivox.audio.format import ALAW, ULAW, AudioFormat
from arivox.audio.g711 import Law, decode, encode
from arivox.providers.base import SessionCounters
from arivox.providers.openai_live.speech import Edge, Speech
from arivox.providers.openai_live.turns import Side, Turn, Turns

# --- turns ---


class Script:
    """Words of both sides in the order of arrival, and the turns they made."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.said: list[tuple[Side, str]] = []
        self._ids = itertools.count()

    def add(self, side: Side, text: str, start_ms: int | None, end_ms: int | None) -> None:
        self.take(self.turns.add(side, text, start_ms, end_ms, f"item-{next(self._ids)}"))

    def take(self, turns: list[Turn]) -> None:
        self.said += [(turn.side, turn.text) for turn in turns]


def test_turns_take_their_turn() -> None:
    script = Script()
    script.add("agent", "How may", 0, 500)
    script.add("agent", " I help?", 500, 1000)
    script.add("caller", "I want", 1800, 2100)
    assert script.said == [("agent", "How may I help?")]
    script.add("caller", " a table.", 2100, 2600)
    script.add("agent", "For how many?", 3300, 4000)
    assert script.said[1:] == [("caller", "I want a table.")]
    script.take(script.turns.flush())
    assert script.said[2:] == [("agent", "For how many?")]
    assert script.turns.flush() == []


def test_turn_has_the_name_its_first_piece_was_given() -> None:
    turns = Turns()
    turns.add("agent", "One", 0, 100, "live-1")
    turns.add("agent", " two", 100, 200, "live-2")
    assert turns.flush() == [Turn("agent", "live-1", "One two", 200)]


def test_backchannel_does_not_tear_the_sentence() -> None:
    script = Script()
    script.add("agent", "The price", 0, 600)
    script.add("caller", "mhm", 650, 850)
    script.add("agent", " is ten", 600, 1200)
    script.add("agent", " euros", 1200, 1800)
    script.add("agent", " a day.", 1800, 2400)
    script.take(script.turns.flush())
    assert script.said == [("caller", "mhm"), ("agent", "The price is ten euros a day.")]


def test_both_speak_at_once() -> None:
    script = Script()
    for at in range(0, 3000, 500):
        script.add("agent", f" a{at}", at, at + 500)
        script.add("caller", f" c{at}", at + 100, at + 600)
    script.take(script.turns.flush())
    assert script.said == [
        ("agent", "a0 a500 a1000 a1500 a2000 a2500"),
        ("caller", "c0 c500 c1000 c1500 c2000 c2500"),
    ]


def test_answer_that_begins_at_once_ends_the_turn_a_little_later() -> None:
    script = Script()
    script.add("caller", "Hello?", 0, 800)
    script.add("agent", "Hi", 750, 1000)
    assert script.said == []
    script.add("agent", " there", 1000, 1200)
    script.add("agent", " you", 1250, 1400)
    assert script.said == [("caller", "Hello?")]


@pytest.mark.parametrize(("gap_ms", "turns"), [(1199, 1), (1200, 2)])
def test_long_gap_ends_a_turn(gap_ms: int, turns: int) -> None:
    script = Script()
    script.add("caller", "Well", 0, 400)
    script.add("caller", " no", 400 + gap_ms, 900 + gap_ms)
    script.take(script.turns.flush())
    assert len(script.said) == turns


def test_flush_of_one_side_leaves_the_other() -> None:
    script = Script()
    script.add("caller", "But", 0, 200)
    script.add("agent", "Your order", 100, 300)
    script.take(script.turns.flush("agent"))
    assert script.said == [("agent", "Your order")]
    script.add("caller", " wait", 200, 400)
    script.take(script.turns.flush())
    assert script.said[1:] == [("caller", "But wait")]


def test_blank_pieces_begin_no_turn() -> None:
    turns = Turns()
    assert turns.add("caller", " ", 0, 10, "x") == []
    assert (turns.begun["caller"], turns.begun_ms("caller"), turns.flush()) == (0, None, [])


def test_piece_without_a_place_follows_on() -> None:
    script = Script()
    script.add("agent", "One", 5000, 5400)
    script.add("agent", " two", None, None)
    script.take(script.turns.flush())
    assert script.said == [("agent", "One two")]


def test_late_words_continue_a_turn_that_was_flushed() -> None:
    turns = Turns()
    assert not turns.continues("agent", 0)
    turns.add("agent", "One", 0, 400, "live-1")
    turns.flush()
    assert turns.continues("agent", 500)
    assert not turns.continues("agent", 1700)
    assert not turns.continues("agent", None)


PIECES = st.lists(
    st.tuples(
        st.sampled_from(["caller", "agent", "flush"]),
        st.integers(-500, 20_000) | st.none(),
        st.integers(-500, 3000) | st.none(),
    ),
    max_size=60,
)


@given(PIECES)
def test_each_word_is_told_once_and_in_order(pieces: list[tuple[str, int | None, int | None]]) -> None:
    script = Script()
    told: dict[str, list[str]] = {"caller": [], "agent": []}
    for number, (what, start_ms, length) in enumerate(pieces):
        if what == "flush":
            script.take(script.turns.flush("agent"))
            continue
        side: Side = "caller" if what == "caller" else "agent"
        told[side].append(f"w{number}")
        end_ms = start_ms + length if start_ms is not None and length is not None else None
        script.add(side, f" w{number}", start_ms, end_ms)
    script.take(script.turns.flush())
    for side in ("caller", "agent"):
        heard = " ".join(text for one, text in script.said if one == side).split()
        assert heard == told[side]
    assert all(text for _, text in script.said)


# --- speech ---


def sound(audio: AudioFormat, ms: float, level_db: float = -20.0, frequency: float = 400.0) -> bytes:
    """Return a tone; of a level below -90, silence."""
    law: Law = "alaw" if audio.law == "alaw" else "ulaw"
    count = audio.bytes_for(ms)
    if level_db < -90:
        return audio.silence * count
    amplitude = 32768 * 10 ** (level_db / 20) * 2**0.5
    wave = amplitude * np.sin(2 * np.pi * frequency * np.arange(count) / audio.rate + 0.3)
    return encode(np.rint(wave).astype(np.int16), law)


class Ear:
    """A caller who plays what ``Speech`` returns at the pace of time, and silence where there is nothing."""

    def __init__(self, audio: AudioFormat = ULAW) -> None:
        self.audio = audio
        self.counters = SessionCounters()
        self.speech = Speech(audio, self.counters)
        self.now = 100.0
        self.utterances: list[bytearray] = []
        self.over = 0
        self.heard = bytearray()
        """What the caller hears from the first sound on."""
        self._queue = bytearray()

    def feed(self, data: bytes) -> None:
        self.take(self.speech.feed(data, self.now))

    def take(self, parts: list[bytes | Edge]) -> None:
        for part in parts:
            if part is Edge.BEGUN:
                assert self.over == len(self.utterances)
                self.utterances.append(bytearray())
            elif part is Edge.ENDED:
                self.over += 1
            else:
                assert self.over == len(self.utterances) - 1, "audio only within an utterance"
                self.utterances[-1] += part
                self._queue += part

    def wait(self, ms: float) -> None:
        """Let time pass: the caller hears on."""
        size = self.audio.bytes_for(ms)
        played = bytes(self._queue[:size])
        del self._queue[:size]
        if self.heard or played:
            self.heard += played + self.audio.silence * (size - len(played))
        self.now += ms / 1000

    def stream(self, data: bytes, delta_ms: int = 40) -> None:
        """Receive ``data`` at the pace of speech, in deltas of ``delta_ms``."""
        size = self.audio.bytes_for(delta_ms)
        for start in range(0, len(data), size):
            self.feed(data[start : start + size])
            self.wait(self.audio.ms(len(data[start : start + size])))

    def burst(self, data: bytes, delta_ms: int = 40) -> None:
        """Receive ``data`` in no time."""
        size = self.audio.bytes_for(delta_ms)
        for start in range(0, len(data), size):
            self.feed(data[start : start + size])


def voiced_ms(data: bytes | bytearray, audio: AudioFormat = ULAW) -> float:
    """Return how much of ``data`` is not silence, in pieces of 20 ms."""
    law: Law = "alaw" if audio.law == "alaw" else "ulaw"
    pcm = np.abs(decode(data, law).astype(np.int32))
    pieces = [pcm[start : start + 160] for start in range(0, len(pcm), 160)]
    return sum(20.0 for piece in pieces if len(piece) and int(piece.max()) > 104)


def pauses_ms(data: bytes | bytearray) -> list[float]:
    """Return the lengths of the pauses between voices."""
    pcm = np.abs(decode(data, "ulaw").astype(np.int32))
    loud = [bool(pcm[start : start + 160].max() > 104) for start in range(0, len(pcm) - 159, 160)]
    runs = [(key, len(list(group)) * 20.0) for key, group in itertools.groupby(loud)]
    inner = runs[1:] if runs and not runs[0][0] else runs
    inner = inner[:-1] if inner and not inner[-1][0] else inner
    return [length for key, length in inner if not key]


VOICE = sound(ULAW, 600)


def quiet(ms: float, audio: AudioFormat = ULAW) -> bytes:
    return audio.silence * audio.bytes_for(ms)


@pytest.mark.parametrize("audio", [ULAW, ALAW], ids=["ulaw", "alaw"])
@pytest.mark.parametrize(("level_db", "heard"), [(-20, True), (-44, True), (-56, False), (-99, False)])
def test_level_decides_what_is_a_voice(audio: AudioFormat, level_db: float, heard: bool) -> None:
    ear = Ear(audio)
    ear.stream(quiet(200, audio) + sound(audio, 400, level_db) + quiet(800, audio))
    assert bool(ear.utterances) is heard


def test_click_is_not_a_voice() -> None:
    click = bytearray(quiet(200))
    click[500:504] = b"\x00\x80\x00\x80"
    ear = Ear()
    ear.stream(bytes(click))
    assert ear.utterances == []


@pytest.mark.parametrize("audio", [ULAW, ALAW], ids=["ulaw", "alaw"])
@pytest.mark.parametrize("delta_ms", [10, 20, 37, 40, 100, 200])
def test_utterance_is_passed_on_and_silence_around_it_is_not(audio: AudioFormat, delta_ms: int) -> None:
    voice = sound(audio, 600)
    ear = Ear(audio)
    ear.stream(quiet(2000, audio) + voice + quiet(3000, audio), delta_ms)
    assert (len(ear.utterances), ear.over) == (1, 1)
    assert bytes(ear.utterances[0]) == voice + quiet(100, audio)
    assert ear.counters.skipped_silence_ms == 0


@pytest.mark.parametrize("silence_ms", [680, 700])
def test_utterance_ends_after_700_ms_of_silence(silence_ms: int) -> None:
    ear = Ear()
    ear.stream(VOICE + quiet(silence_ms))
    assert ear.over == (1 if silence_ms == 700 else 0)


def test_utterance_ends_when_nothing_comes() -> None:
    ear = Ear()
    ear.stream(VOICE + b"\x10" * 70, 20)
    ear.wait(660)
    ear.take(ear.speech.idle(ear.now))
    assert ear.over == 0
    ear.wait(40)
    ear.take(ear.speech.idle(ear.now))
    assert ear.over == 1
    assert bytes(ear.utterances[0]) == VOICE + b"\x10" * 70, "to the last byte"
    ear.stream(VOICE)
    assert len(ear.utterances) == 2
    assert bytes(ear.utterances[1]) == VOICE


@pytest.mark.parametrize("pause_ms", [40, 100, 200, 260, 400, 460, 600])
@pytest.mark.parametrize("delta_ms", [20, 40, 100, 200])
def test_words_keep_their_distance(pause_ms: int, delta_ms: int) -> None:
    ear = Ear()
    ear.stream(quiet(400) + (VOICE + quiet(pause_ms)) * 6 + quiet(1000), delta_ms)
    assert len(ear.utterances) == 1
    assert voiced_ms(ear.utterances[0]) == 3600
    # A piece is 20 ms.
    assert pauses_ms(ear.heard) == pytest.approx([pause_ms] * 5, abs=20)
    assert sum(pauses_ms(ear.heard)) == pytest.approx(5 * pause_ms, abs=80)
    assert ear.counters.skipped_silence_ms == 0


def test_soft_onset_is_kept_before_each_word() -> None:
    soft = sound(ULAW, 60, -56)
    ear = Ear()
    ear.stream(quiet(500) + soft + VOICE + quiet(440) + soft + VOICE + quiet(800))
    assert bytes(ear.utterances[0]).count(soft + VOICE) == 2


def test_soft_onset_is_kept_after_a_stall() -> None:
    soft = sound(ULAW, 60, -56)
    ear = Ear()
    ear.stream(VOICE + quiet(240))
    ear.wait(500)
    ear.stream(soft + VOICE)
    assert soft + VOICE in bytes(ear.utterances[0])


def test_soft_onset_is_kept_right_after_the_end_of_an_utterance() -> None:
    soft = sound(ULAW, 60, -56)
    ear = Ear()
    ear.stream(VOICE + quiet(640) + soft + VOICE)
    assert bytes(ear.utterances[1]) == soft + VOICE


def test_words_of_a_burst_are_all_there_and_its_pauses_are_short() -> None:
    generator = random.Random(5)
    talk = b""
    voices = 0.0
    while len(talk) < ULAW.bytes_for(60_000):
        length = generator.randrange(200, 1500, 20)
        talk += sound(ULAW, length) + quiet(generator.randrange(100, 640, 20))
        voices += length
    ear = Ear()
    ear.burst(talk + quiet(2000))
    passed = b"".join(ear.utterances)
    assert voiced_ms(passed) == voices
    pauses = pauses_ms(passed)
    assert max(pauses[3:]) <= 160
    assert min(pauses) >= 100, "the gap of a stop consonant is part of its word"
    assert ear.counters.skipped_silence_ms > 5000


def test_stall_and_burst_are_caught_up() -> None:
    talk = (VOICE + quiet(300)) * 40
    ear = Ear()
    head = ULAW.bytes_for(3000)
    ear.stream(talk[:head])
    ear.wait(600)  # nothing comes, but not for long enough to end the utterance
    ear.burst(talk[head : head + ULAW.bytes_for(600)])
    for _ in range(5):
        ear.burst(talk[head + ULAW.bytes_for(600) : head + ULAW.bytes_for(1500)])
    deep = ear.speech.ahead_ms(ear.now)
    ear.stream(talk[head + ULAW.bytes_for(1500) :] + quiet(60))
    assert deep > 1500
    assert ear.speech.ahead_ms(ear.now) < 250


def test_one_giant_delta_is_taken_as_a_burst() -> None:
    ear = Ear()
    ear.feed((VOICE + quiet(400)) * 20)
    assert voiced_ms(ear.utterances[0]) == 600 * 20
    assert ear.counters.skipped_silence_ms > 3000


def test_cut_ends_the_utterance_and_a_voice_that_goes_on_begins_another() -> None:
    ear = Ear()
    ear.burst(VOICE * 3)
    assert ear.speech.ahead_ms(ear.now) == pytest.approx(1800)
    assert ear.speech.cut(ear.now, drop=False)
    ear.over += 1
    assert ear.speech.ahead_ms(ear.now) == 0
    assert not ear.speech.cut(ear.now, drop=False)
    ear.burst(VOICE)
    assert bytes(ear.utterances[1]) == VOICE
    assert ear.counters.late_audio_ms == 0


def test_dropped_utterance_is_dropped_to_its_end() -> None:
    ear = Ear()
    ear.stream(VOICE)
    assert ear.speech.cut(ear.now, drop=True)
    ear.over += 1
    ear.stream(VOICE + quiet(280) + VOICE + quiet(320) + sound(ULAW, 200, -10))
    assert ear.counters.late_audio_ms == 1200
    assert bytes(ear.utterances[1]) == sound(ULAW, 200, -10)


def test_nothing_is_dropped_for_longer_than_three_seconds() -> None:
    ear = Ear()
    ear.stream(VOICE)
    ear.speech.cut(ear.now, drop=True)
    ear.over += 1
    ear.stream(VOICE * 10)
    assert ear.counters.late_audio_ms == 3000
    assert voiced_ms(ear.utterances[1]) == 3000


def test_answer_to_a_new_request_is_not_taken_for_the_old_one() -> None:
    new = sound(ULAW, 400, -10)
    ear = Ear()
    ear.stream(VOICE)
    ear.speech.cut(ear.now, drop=True)
    ear.over += 1
    ear.stream(VOICE)
    ear.speech.expect(ear.now)
    ear.stream(VOICE + quiet(100) + new)
    assert ear.counters.late_audio_ms == 1200
    assert bytes(ear.utterances[1]) == new


def test_answer_that_follows_without_a_rest_loses_no_more_than_a_second() -> None:
    ear = Ear()
    ear.stream(VOICE)
    ear.speech.cut(ear.now, drop=True)
    ear.over += 1
    ear.speech.expect(ear.now)
    ear.stream(VOICE * 5)
    assert ear.counters.late_audio_ms == 1000
    ear.stream(quiet(700))
    # The next one is dropped as long as any.
    ear.stream(VOICE)
    ear.speech.cut(ear.now, drop=True)
    ear.over += 1
    ear.stream(VOICE + quiet(100) + VOICE)
    assert ear.counters.late_audio_ms == 2200


@pytest.mark.parametrize(("gap_ms", "heard"), [(250, False), (310, True)])
def test_dropping_ends_when_nothing_comes(gap_ms: int, heard: bool) -> None:
    ear = Ear()
    ear.stream(VOICE)
    ear.speech.cut(ear.now, drop=True)
    ear.over += 1
    ear.stream(VOICE)
    ear.wait(gap_ms - 40)  # a delta is played for 40 ms
    ear.stream(VOICE)
    assert len(ear.utterances) == (2 if heard else 1)
    assert ear.counters.late_audio_ms == (600 if heard else 1200)


def test_nothing_is_dropped_when_nobody_speaks() -> None:
    ear = Ear()
    ear.stream(VOICE + quiet(400))
    assert ear.speech.cut(ear.now, drop=True)
    ear.over += 1
    ear.stream(VOICE)
    assert len(ear.utterances) == 2
    assert ear.counters.late_audio_ms == 0


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 45), st.sampled_from([0, 20, 300, 1500])), max_size=25)
)
def test_no_voice_is_ever_lost(stretches: list[tuple[bool, int, int]]) -> None:
    ear = Ear()
    said = 0.0
    for voice, pieces, wait_ms in stretches:
        ear.burst(sound(ULAW, pieces * 20) if voice else quiet(pieces * 20), 100)
        said += pieces * 20 if voice else 0
        ear.wait(wait_ms)
        ear.take(ear.speech.idle(ear.now))
    assert voiced_ms(b"".join(ear.utterances)) == said
