"""Ears: the grammar of phrases, and what is heard of real words over a telephone line."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from arivox.audio import g711
from arivox.audio.g711 import Pcm
from arivox.audio.resample import Resampler
from arivox.emulator.ears import NoEars, SphinxEars, best_ears, prepare, transitions
from arivox.emulator.phrases import PHRASES
from arivox.emulator.voice import FliteVoice
from arivox.errors import SettingsError

STATES = (
    "greeting",
    "gathering_reason",
    "collecting_availability_days",
    "collecting_availability_times",
    "proposing_slot",
    "confirmation",
    "fallback",
)
HEARD = ("On Friday morning!", "I broke a tooth", "what are my options")


def telephone(pcm: Pcm, rate: int, noise_db: float = -80.0, silence_ms: int = 100) -> Pcm:
    if rate != 8000:
        pcm = Resampler(rate, 8000).process(pcm)
    quiet = np.zeros(silence_ms * 8)
    sound = np.concatenate([quiet, pcm, quiet])
    sound += np.random.default_rng(3).normal(0, 32768 * 10 ** (noise_db / 20), len(sound))
    return g711.decode(g711.encode(np.clip(sound, -32768, 32767).astype(np.int16), "ulaw"), "ulaw")


def noise(level: float = 3000.0, seconds: float = 1.5) -> Pcm:
    return np.random.default_rng(5).normal(0, level, int(seconds * 8000)).astype(np.int16)


def tone(hz: float, seconds: float = 1.5, on_ms: int = 10_000) -> Pcm:
    time = np.arange(int(seconds * 8000)) / 8000
    on = time * 1000 % (2 * on_ms) < on_ms
    return (8000 * np.sin(2 * np.pi * hz * time) * on).astype(np.int16)


@pytest.fixture(scope="module")
def ears() -> SphinxEars:
    return SphinxEars()


@pytest.fixture(scope="module")
def voice() -> FliteVoice:
    return FliteVoice("rms")


Say = Callable[[str], Pcm]


@pytest.fixture(scope="module")
def say(voice: FliteVoice) -> Say:
    return lambda text: telephone(voice.say(text), voice.rate)


def test_a_grammar_has_one_way_through_for_each_phrase() -> None:
    arcs = transitions([("yes",), ("in", "the", "morning"), ("in", "the", "evening")])
    assert paths(arcs) == {("yes",), ("in", "the", "morning"), ("in", "the", "evening")}


def test_how_well_a_phrase_fits_does_not_depend_on_how_many_there_are() -> None:
    assert {probability for _, _, probability, _ in transitions([("a",), ("b", "c")])} == {1.0}


def paths(arcs: list[tuple[int, int, float, str]], state: int = 0) -> set[tuple[str, ...]]:
    if state == 1:
        return {()}
    return {(word, *rest) for start, end, _, word in arcs if start == state for rest in paths(arcs, end)}


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_sound_is_made_what_the_model_wants(rate: int) -> None:
    quiet = tone(700, on_ms=250) // 100
    pcm = quiet if rate == 8000 else Resampler(8000, rate).process(quiet)
    sound = prepare(pcm, rate)
    assert len(sound) == 2 * len(quiet)
    assert 20 * np.log10(np.sqrt((sound.astype(float) ** 2).mean()) / 32768) == pytest.approx(-20, abs=0.5)
    spectrum = np.abs(np.fft.rfft(sound.astype(float)))
    hertz = np.fft.rfftfreq(len(sound), 1 / 16000)
    assert hertz[spectrum.argmax()] == pytest.approx(700, abs=5)
    assert spectrum[hertz > 4600].max() < spectrum.max() / 1000


@pytest.mark.parametrize(
    "pcm", [np.zeros(8000, np.int16), np.zeros(0, np.int16), noise(), noise(10), tone(440, 0.1)]
)
def test_silence_steady_noise_and_shreds_are_not_listened_to(pcm: Pcm) -> None:
    assert len(prepare(pcm, 8000)) == 0


def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="44100"):
        prepare(noise(), 44100)


def test_no_ears_understand_nothing() -> None:
    assert NoEars().hear(noise(), 8000, HEARD) == ""


def test_every_state_has_phrases_that_brain_can_use() -> None:
    assert tuple(PHRASES) == STATES
    for state, phrases in PHRASES.items():
        assert len({phrase.text for phrase in phrases}) == len(phrases) >= 6, state
        assert all(phrase.value for phrase in phrases), state


@pytest.mark.speech
def test_the_recogniser_is_chosen_when_it_is_there() -> None:
    said: list[str] = []
    assert isinstance(best_ears(said.append), SphinxEars)
    assert said == ["Ears: pocketsphinx."]


@pytest.mark.speech
@pytest.mark.parametrize("phrase", HEARD)
def test_a_phrase_comes_back_exactly_as_it_was_given(ears: SphinxEars, say: Say, phrase: str) -> None:
    assert ears.hear(say(phrase), 8000, HEARD) == phrase


@pytest.mark.speech
@pytest.mark.parametrize("rate", [16000, 24000])
def test_other_rates_are_heard_too(ears: SphinxEars, say: Say, rate: int) -> None:
    pcm = Resampler(8000, rate).process(say("I broke a tooth"))
    assert ears.hear(pcm, rate, HEARD) == "I broke a tooth"


@pytest.mark.speech
@pytest.mark.parametrize("gain", [0.03, 3.0])
def test_quiet_and_loud_callers_are_heard(ears: SphinxEars, say: Say, gain: float) -> None:
    pcm = np.clip(say("I broke a tooth") * gain, -32768, 32767).astype(np.int16)
    assert ears.hear(pcm, 8000, HEARD) == "I broke a tooth"


@pytest.mark.speech
@pytest.mark.parametrize(
    "text",
    [
        "the weather is lovely today",
        "the train leaves from platform seven",
        "football is on television tonight",
        "I broke a record on Friday morning",
        "what are",
    ],
)
def test_another_sentence_is_not_taken_for_a_phrase(ears: SphinxEars, say: Say, text: str) -> None:
    assert ears.hear(say(text), 8000, HEARD) == ""


@pytest.mark.speech
@pytest.mark.parametrize(
    "pcm",
    [np.zeros(12000, np.int16), noise(), tone(440), tone(440, on_ms=300), tone(1000, on_ms=80)],
    ids=["silence", "noise", "tone", "ring", "beeps"],
)
def test_what_is_no_speech_is_not_taken_for_a_phrase(ears: SphinxEars, pcm: Pcm) -> None:
    assert ears.hear(pcm, 8000, (*HEARD, "yes", "no")) == ""


@pytest.mark.speech
def test_a_word_that_no_dictionary_has_is_heard(ears: SphinxEars, say: Say) -> None:
    assert (
        ears.hear(say("I need a glimflacker"), 8000, ("I need a glimflacker", *HEARD))
        == "I need a glimflacker"
    )


@pytest.mark.speech
@pytest.mark.parametrize("phrase", ["a 7up please", "?!"])
def test_a_phrase_that_cannot_be_pronounced_is_named(ears: SphinxEars, say: Say, phrase: str) -> None:
    with pytest.raises(SettingsError, match="phrases: .*" + phrase.replace("?", r"\?")):
        ears.hear(say("I broke a tooth"), 8000, (phrase, *HEARD))


@pytest.mark.speech
def test_phrases_that_sound_the_same_come_back_as_the_first(ears: SphinxEars, say: Say) -> None:
    phrases = ("I BROKE a tooth.", "I broke a tooth", *HEARD)
    assert ears.hear(say("I broke a tooth"), 8000, phrases) == "I BROKE a tooth."


@pytest.mark.speech
def test_old_grammars_are_let_go(ears: SphinxEars, say: Say) -> None:
    for number in range(20):
        ears.hear(say("I broke a tooth"), 8000, ("I broke a tooth", str(number)))
    assert len(ears._grammars) == 16
    assert ears.hear(say("I broke a tooth"), 8000, HEARD) == "I broke a tooth"


@pytest.mark.speech
def test_threads_do_not_disturb_each_other(ears: SphinxEars, say: Say) -> None:
    states = [tuple(phrase.text for phrase in phrases) for phrases in PHRASES.values()]
    texts = [phrases[0] for phrases in states]
    sounds = [say(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        heard = list(
            pool.map(lambda pair: ears.hear(pair[0], 8000, pair[1]), zip(sounds, states, strict=True))
        )
    assert heard == texts


@pytest.mark.speech
def test_dictation_understands_some_words(ears: SphinxEars, say: Say) -> None:
    assert "morning" in ears.hear(say("good morning"), 8000).split()
    assert ears.hear(noise(), 8000) == ""
