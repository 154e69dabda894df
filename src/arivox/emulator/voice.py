"""Offline voices: Debian's ``flite`` as a separate program, and tones where there is none."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
import unicodedata
import wave
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from arivox.audio.g711 import Pcm
from arivox.emulator.speech import Voice
from arivox.errors import ArivoxError, SettingsError
from arivox.testing import debian

_log = logging.getLogger(__name__)

RATES: Final = {"slt": 16000, "rms": 16000, "awb": 16000, "kal16": 16000, "kal": 8000}
"""The voices that are in flite itself, and their samples per second."""

_PACKAGES: Final = ("flite",)
_KEEP: Final = re.compile(r"^usr/bin/flite$")
_TIMEOUT_S: Final = 20.0
_RENDERING: Final = 1
"""Counts up when the same text comes to sound different, so that lines cached before are not used."""

_FRAME_S: Final = 0.01
_MARGIN_FRAMES: Final = 6
_SILENT: Final = 0.01  # of the loudest frame: 40 dB below it
_LEVEL: Final = 0.1  # -20 dBFS
_PEAK: Final = 0.95

_SYLLABLE_S: Final = 0.2  # with 1.5 syllables a word and the gap: 160 words a minute
_GAP_S: Final = 0.075
_RAMP_S: Final = 0.01
_VOWELS: Final = re.compile(r"[aeiouy]+")

_ASCII: Final = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "–": ", ", "—": ", ", "…": "...", "ß": "ss", "\u00a0": " "}
)


class VoiceError(ArivoxError):
    """A line could not be spoken: ``problem`` says why, ``hint`` what to do about it."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}. {self.hint}" if self.hint else self.problem


class FliteVoice:
    """One of flite's voices. Every line is rendered once and then read from the cache.

    The program is the ``flite`` on the path, or else Debian's, fetched into the cache. Safe from any thread.
    """

    def __init__(
        self,
        name: str = "slt",
        *,
        program: Sequence[str | Path] | None = None,
        cache: Path | None = None,
        timeout: float = _TIMEOUT_S,
        report: Callable[[str], None] = _log.info,
    ) -> None:
        """Find the program. ``program`` is the start of its command line, ``cache`` the folder of lines.

        ``timeout`` is in seconds, for each line. Raises SettingsError for a voice there is not, DebianError
        where the program cannot be fetched, VoiceError where it does not run.
        """
        if name not in RATES:
            # flite itself would speak with another voice and say nothing about it.
            raise SettingsError("voice", f"flite has no voice {name!r}", f"Choose one of {', '.join(RATES)}")
        self.name = name
        self.rate = RATES[name]
        self._timeout = timeout
        self._program = [str(word) for word in program or _find(report)]
        self._cache = cache or debian.cache_dir() / "speech"
        self._version = self._run("--version").decode(errors="replace").strip()

    def __repr__(self) -> str:
        return f"<FliteVoice {self.name}>"

    def say(self, text: str) -> Pcm:
        """Return ``text`` spoken: shape (n,), int16, mono, at ``rate``; no samples where nothing can be said.

        Blocking: about 2 % of the length of the speech, nothing when it is cached. Raises VoiceError.
        """
        words = speakable(text)
        if not any(character.isalnum() for character in words):
            return np.zeros(0, np.int16)
        path = self._cache / f"{cache_key(self.name, words, self._version)}.wav"
        try:
            return _read(path, self.rate)
        except FileNotFoundError:
            pass
        except (VoiceError, OSError) as error:
            _log.warning("a cached line cannot be read and is rendered again: %s", error)
        pcm = level(trim(self._render(words), self.rate))
        try:
            _write(path, pcm, self.rate)
        except OSError as error:
            _log.warning("spoken lines cannot be kept in %s: %s. Set ARIVOX_CACHE", self._cache, error)
        return pcm

    def _render(self, words: str) -> Pcm:
        with tempfile.TemporaryDirectory(prefix="arivox-flite-") as folder:
            # By file, because flite takes a text that starts with a dash for an option.
            source, sound = Path(folder, "text"), Path(folder, "sound.wav")
            source.write_text(words + "\n", encoding="ascii")
            self._run("-voice", self.name, "-f", str(source), "-o", str(sound))
            try:
                return _read(sound, self.rate)
            except FileNotFoundError as error:
                raise VoiceError(f"{self._program[-1]} wrote no sound for {words!r}") from error

    def _run(self, *arguments: str) -> bytes:
        command = [*self._program, *arguments]
        name = self._program[-1]
        try:
            done = subprocess.run(  # noqa: S603 - no shell, and only our own words in the command
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=self._timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise VoiceError(f"{name} took longer than {self._timeout:g} s") from error
        except OSError as error:
            raise VoiceError(f"{name} cannot be run: {error}", "Install flite") from error
        # flite --version ends with status 1 in some releases, and a failed flite with 0 in all.
        if done.returncode < 0 or (done.returncode and arguments != ("--version",)):
            said = done.stderr.decode(errors="replace").strip()
            raise VoiceError(f"{name} ended with status {done.returncode}: {said or 'no message'}")
        return done.stdout


class ToneVoice:
    """Babble that needs nothing: two tones for each syllable, of about the length the words would have.

    A word always sounds the same, and different words differ.
    """

    rate: Final = 8000

    def __repr__(self) -> str:
        return "<ToneVoice>"

    def say(self, text: str) -> Pcm:
        """Return ``text`` as tones: shape (n,), int16, mono, 8 kHz."""
        words = re.findall(r"[a-z0-9']+", speakable(text).lower())
        return np.concatenate([np.zeros(0, np.int16), *(_babble(word, self.rate) for word in words)])


def best_voice(report: Callable[[str], None] = _log.info, name: str = "slt") -> Voice:
    """Return flite's voice ``name``, or tones where flite cannot be had. ``report`` is told which and why.

    Raises SettingsError for a voice there is not. Blocking: it may download the program.
    """
    try:
        voice = FliteVoice(name, report=report)
    except (debian.DebianError, VoiceError) as error:
        report(f"Voice: tones instead of words, because flite cannot be had: {error}")
        return ToneVoice()
    report(f"Voice: flite, {name}.")
    return voice


def speakable(text: str) -> str:
    """Return ``text`` in the ASCII that flite reads: accents go, typographic marks become plain ones."""
    plain = unicodedata.normalize("NFKD", text.translate(_ASCII)).encode("ascii", "ignore").decode()
    return " ".join(re.sub(r"[^ -~]", " ", plain).split())


def cache_key(voice: str, words: str, version: str) -> str:
    """Return the name under which ``words`` of ``voice`` are kept; ``version`` is the program's."""
    key = "\0".join((str(_RENDERING), version, voice, words))
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def trim(pcm: Pcm, rate: int) -> Pcm:
    """Return ``pcm`` with at most 60 ms before and after its sound; what is silent throughout becomes empty.

    Silent is a frame of 10 ms that is 40 dB below the loudest.
    """
    size = int(rate * _FRAME_S)
    frames = -(-len(pcm) // size)
    padded = np.zeros(frames * size)
    padded[: len(pcm)] = pcm
    loudness = np.sqrt((padded.reshape(frames, size) ** 2).mean(axis=1))
    sounding = np.flatnonzero(loudness > max(loudness.max(initial=0.0) * _SILENT, 1.0))
    if not len(sounding):
        return pcm[:0]
    first = max(int(sounding[0]) - _MARGIN_FRAMES, 0)
    return pcm[first * size : (int(sounding[-1]) + 1 + _MARGIN_FRAMES) * size]


def level(pcm: Pcm) -> Pcm:
    """Return ``pcm`` at -20 dBFS RMS, or less where a peak would come within 0.5 dB of full scale."""
    samples = pcm.astype(np.float64) / 32768
    peak = np.abs(samples).max(initial=0.0)
    if not peak:
        return pcm
    gain = min(_LEVEL / float(np.sqrt((samples**2).mean())), _PEAK / float(peak))
    return np.rint(samples * (gain * 32767)).astype(np.int16)


def _find(report: Callable[[str], None]) -> list[str]:
    if program := shutil.which("flite"):
        return [program]
    tree = debian.ensure_tree("flite", _PACKAGES, keep=_KEEP, report=report)
    return [*debian.loader(tree), str(tree / "usr/bin/flite")]


def _read(path: Path, rate: int) -> Pcm:
    try:
        with wave.open(str(path)) as sound:
            shape = (sound.getframerate(), sound.getnchannels(), sound.getsampwidth())
            data = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        raise VoiceError(f"{path} is no WAV file: {error}") from error
    if shape != (rate, 1, 2):
        raise VoiceError(
            f"{path} has {shape[0]} Hz, {shape[1]} channels and {8 * shape[2]} bits, not {rate}, 1, 16"
        )
    return np.frombuffer(data, "<i2").astype(np.int16)


def _write(path: Path, pcm: Pcm, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file, wave.open(file) as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(rate)
            sound.writeframes(pcm.astype("<i2").tobytes())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _babble(word: str, rate: int) -> Pcm:
    syllables = max(len(_VOWELS.findall(word)), 1)
    size, ramp = int(rate * _SYLLABLE_S), int(rate * _RAMP_S)
    envelope = np.ones(size)
    envelope[:ramp] = np.sin(np.linspace(0, np.pi / 2, ramp)) ** 2
    envelope[-ramp:] = envelope[:ramp][::-1]
    time = np.arange(size) / rate
    sounds = []
    for number in range(syllables):
        seed = zlib.crc32(f"{word}/{number}".encode())
        # Neither lies where DTMF does (697-941 and 1209-1633 Hz): Asterisk must not take words for keys.
        low, high = 250 + seed % 701 // 2, 1750 + (seed >> 12) % 701
        wave_form = np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time)
        sounds.append(np.rint(wave_form * envelope * (_LEVEL * 32767)).astype(np.int16))
    return np.concatenate([*sounds, np.zeros(int(rate * _GAP_S), np.int16)])
