"""Voices: what is said, how it is cut and levelled, and where it is kept."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest

from arivox.audio.g711 import Pcm
from arivox.emulator import voice as voices
from arivox.emulator.voice import (
    FliteVoice,
    ToneVoice,
    VoiceError,
    best_voice,
    cache_key,
    level,
    speakable,
    trim,
)
from arivox.errors import SettingsError
from arivox.testing.debian import DebianError

FAKE = """#!/bin/sh
# Speaks like flite: a second of square wave. Each line it is given goes to the log.
if [ "$1" = "--version" ]; then echo "fake {version}"; exit 1; fi
cat "$4" >> {log}
{behaviour}
cp {sound} "$6"
"""


def square(seconds: float, rate: int = 16000, height: int = 5000) -> Pcm:
    return np.where(np.arange(int(seconds * rate)) // 40 % 2, height, -height).astype(np.int16)


class Fake:
    """A program in the place of flite."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        self.sound = folder / "sound.wav"
        voices._write(self.sound, square(1.0), 16000)

    def program(self, behaviour: str = "", version: str = "1") -> Path:
        path = self.folder / "flite"
        path.write_text(
            FAKE.format(version=version, log=self.log, behaviour=behaviour, sound=self.sound),
            encoding="ascii",
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def voice(self, behaviour: str = "", version: str = "1", timeout: float = 10.0) -> FliteVoice:
        program = self.program(behaviour, version)
        return FliteVoice("slt", program=[program], cache=self.folder / "cache", timeout=timeout)

    @property
    def rendered(self) -> list[str]:
        return self.log.read_text(encoding="ascii").splitlines()

    @property
    def cached(self) -> list[Path]:
        return sorted((self.folder / "cache").iterdir())


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def test_a_line_is_rendered_once_and_then_read_from_the_cache(fake: Fake) -> None:
    first = fake.voice().say("good morning")
    again = fake.voice().say("good morning")
    assert np.array_equal(first, again)
    assert len(first) == 16000
    assert fake.rendered == ["good morning"]


def test_another_version_of_the_program_renders_anew(fake: Fake) -> None:
    fake.voice(version="1").say("hello")
    fake.voice(version="2").say("hello")
    assert fake.rendered == ["hello", "hello"]


def test_a_broken_cached_line_is_rendered_again(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    first = fake.voice().say("hello")
    fake.cached[0].write_bytes(b"RIFF of nothing")
    assert np.array_equal(fake.voice().say("hello"), first)
    assert fake.rendered == ["hello", "hello"]
    assert "is no WAV file" in caplog.text


def test_only_whole_lines_are_in_the_cache(fake: Fake) -> None:
    voice = fake.voice()
    voice.say("hello")
    assert [path.suffix for path in fake.cached] == [".wav"]
    assert not fake.cached[0].name.startswith(".")


def test_a_cache_that_cannot_be_written_does_not_silence_the_voice(
    fake: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    (fake.folder / "cache").write_text("a file, not a folder")
    assert len(fake.voice().say("hello")) == 16000
    assert "ARIVOX_CACHE" in caplog.text


@pytest.mark.parametrize("text", ["-voice kal", "--help", "$(reboot) `x` \"y\" 'z'", "a\nb\x00c"])
def test_any_text_reaches_the_program_as_one_line_and_never_as_an_option(fake: Fake, text: str) -> None:
    fake.voice().say(text)
    assert fake.rendered == [speakable(text)]


@pytest.mark.parametrize("text", ["", "  \n", "...", "日本語", "-"])
def test_a_text_without_words_is_silent(fake: Fake, text: str) -> None:
    assert len(fake.voice().say(text)) == 0
    assert fake.rendered == []


def test_a_program_that_fails_is_named_with_what_it_said(fake: Fake) -> None:
    voice = fake.voice("echo out of memory >&2; exit 3")
    with pytest.raises(VoiceError, match="flite ended with status 3: out of memory"):
        voice.say("hello")


def test_a_program_that_writes_nothing_is_an_error(fake: Fake) -> None:
    voice = fake.voice("exit 0")
    with pytest.raises(VoiceError, match=r"flite.*wrote no sound"):
        voice.say("hello")


def test_a_program_that_hangs_is_given_up(fake: Fake) -> None:
    voice = fake.voice("exec sleep 60")
    voice._timeout = 0.2
    with pytest.raises(VoiceError, match=r"flite took longer than 0\.2 s"):
        voice.say("hello")


def test_a_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match=r"nothing-here cannot be run.*Install flite"):
        FliteVoice("slt", program=[tmp_path / "nothing-here"], cache=tmp_path)


def test_an_unknown_voice_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"no voice 'nobody'.*slt, rms, awb"):
        FliteVoice("nobody")


def test_without_flite_there_are_tones_and_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> Path:
        raise DebianError("no mirror can be reached", "Go online")

    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("arivox.testing.debian.ensure_tree", unreachable)
    said: list[str] = []
    voice = best_voice(said.append)
    assert isinstance(voice, ToneVoice)
    assert said == [
        "Voice: tones instead of words, because flite cannot be had: no mirror can be reached. Go online"
    ]


def test_the_flite_on_the_path_is_used(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{fake.program().parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ARIVOX_CACHE", str(fake.folder / "own"))
    said: list[str] = []
    voice = best_voice(said.append, "rms")
    assert said == ["Voice: flite, rms."]
    voice.say("hello")
    assert [path.parent.name for path in (fake.folder / "own").rglob("*.wav")] == ["speech"]


def test_the_cache_key_tells_voice_text_and_version_apart() -> None:
    keys = {cache_key("slt", "a", "1"), cache_key("rms", "a", "1"), cache_key("slt", "b", "1")}
    keys |= {cache_key("slt", "a", "2"), cache_key("slt", "", "a1")}
    assert len(keys) == 5
    assert cache_key("slt", "a", "1") in keys


def test_typographic_marks_and_accents_become_plain() -> None:
    assert speakable("“Müller’s” café – naïve…\t\n ok") == '"Muller\'s" cafe , naive... ok'


def test_silence_around_the_sound_is_cut_to_60_ms() -> None:
    sound = np.concatenate([np.zeros(8000, np.int16), square(0.5), np.zeros(4800, np.int16)])
    cut = trim(sound, 16000)
    assert len(cut) == 8000 + 2 * 960
    assert not cut[:960].any()
    assert cut[960:8960].all()
    assert not cut[8960:].any()


def test_sound_without_silence_is_not_cut() -> None:
    assert np.array_equal(trim(square(0.333), 16000), square(0.333))


def test_silence_is_cut_to_nothing() -> None:
    assert len(trim(np.zeros(1000, np.int16), 8000)) == 0
    assert len(trim(np.zeros(0, np.int16), 8000)) == 0


@pytest.mark.parametrize("height", [30, 3000, 30000])
def test_the_level_becomes_minus_20_dbfs(height: int) -> None:
    rms = np.sqrt((level(square(0.1, height=height)).astype(float) ** 2).mean()) / 32768
    assert 20 * np.log10(rms) == pytest.approx(-20, abs=0.2)


def test_a_peak_is_not_clipped() -> None:
    sound = np.zeros(16000, np.int16)
    sound[::1600] = 100
    assert 30500 < level(sound).max() < 31200


def test_silence_stays_silence() -> None:
    assert not level(np.zeros(100, np.int16)).any()


def test_tones_last_as_long_as_speech_would() -> None:
    text = "Good morning, this is the clinic. What can I do for you today, and which day suits you best?"
    minutes = len(ToneVoice().say(text)) / ToneVoice.rate / 60
    assert 130 < len(text.split()) / minutes < 200


def test_tones_are_the_same_for_the_same_word_and_differ_for_others() -> None:
    voice = ToneVoice()
    assert np.array_equal(voice.say("Monday"), voice.say("monday!"))
    assert not np.array_equal(voice.say("cat"), voice.say("dog"))
    assert np.array_equal(voice.say("cat dog"), np.concatenate([voice.say("cat"), voice.say("dog")]))


def test_tones_have_the_level_of_speech_and_no_keys_in_them() -> None:
    sound = ToneVoice().say("the quick brown fox jumps over the lazy dog and 12 more").astype(float)
    assert 20 * np.log10(np.sqrt((sound**2).mean()) / 32768) == pytest.approx(-21, abs=1.5)
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    hertz = np.fft.rfftfreq(len(sound), 1 / 8000)
    dtmf = spectrum[((hertz > 680) & (hertz < 960)) | ((hertz > 1190) & (hertz < 1500))].sum()
    assert dtmf < 0.01 * spectrum.sum()


def test_tones_for_nothing_are_nothing() -> None:
    assert len(ToneVoice().say("")) == 0
    assert ToneVoice().say("").dtype == np.int16


@pytest.mark.speech
@pytest.mark.parametrize("name", ["slt", "rms", "awb", "kal16", "kal"])
def test_flite_speaks(name: str, tmp_path: Path) -> None:
    voice = FliteVoice(name, cache=tmp_path)
    sound = voice.say("I have a toothache")
    assert sound.dtype == np.int16
    assert 0.8 < len(sound) / voice.rate < 2.0
    assert 20 * np.log10(np.sqrt((sound.astype(float) ** 2).mean()) / 32768) == pytest.approx(-20, abs=1)


@pytest.mark.speech
def test_flite_says_every_sentence(tmp_path: Path) -> None:
    voice = FliteVoice("slt", cache=tmp_path)
    one, two = voice.say("Good morning."), voice.say("Good morning. Good morning.")
    assert len(two) > 1.8 * len(one)


@pytest.mark.speech
def test_flite_does_not_take_text_for_options(tmp_path: Path) -> None:
    voice = FliteVoice("slt", cache=tmp_path)
    assert len(voice.say("--help -o nothing")) > voice.rate / 2
    assert len(voice.say("</speak> & <b>\"x\" 'y' $(ls) %n")) > voice.rate / 2


@pytest.mark.speech
def test_fetched_flite_runs_without_being_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    voice = FliteVoice("slt", cache=tmp_path)
    assert len(voice._program) > 1
    done = subprocess.run([*voice._program, "-lv"], capture_output=True, text=True, check=False)
    assert set(voices.RATES) <= set(done.stdout.split())
