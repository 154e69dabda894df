"""Offline ears: ``pocketsphinx`` with a grammar of phrases, and none where it is not installed."""

from __future__ import annotations

import importlib
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from arivox.audio.g711 import Pcm
from arivox.audio.resample import Resampler
from arivox.emulator.denoise import denoise
from arivox.emulator.pronunciation import pronounce, words
from arivox.emulator.speech import Ears
from arivox.errors import ArivoxError, SettingsError

_log = logging.getLogger(__name__)

_PHONE_RATE: Final = 8000
_MODEL_RATE: Final = 16000
_FRAME_S: Final = 0.01
_LEVEL: Final = 0.1  # -20 dBFS
_QUIETEST_SPEECH: Final = 10 ** (-60 / 20)
_SPEECH_SHARE: Final = 0.4  # of the level, after the steady noise is taken out
_SHORTEST_S: Final = 0.15
_GRAMMARS: Final = 16

_LOG_BASE: Final = math.log(1.0001)
_PHONES: Final = "phones"
# Wide beams: the right path must survive noise. No best path: through the lattice it would find phrases that
# were not finished. All senones: scores of two searches can only be compared when both know the best one.
_STRICT: Final = {"beam": 1e-80, "pbeam": 1e-80, "wbeam": 1e-60, "bestpath": False, "compallsen": True}
_LOWEST_FIT: Final = -5.0
_LOWEST_DIP: Final = -85.0
_DIP_FRAMES: Final = 25


class EarsError(ArivoxError):
    """Speech could not be listened to: ``problem`` says why, ``hint`` what to do about it."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}. {self.hint}" if self.hint else self.problem


@dataclass(frozen=True, slots=True)
class Match:
    """The likeliest phrase, and how well it fits compared with any sequence of phones at all.

    The numbers are log likelihood ratios for each 10 ms, in units of the recogniser.
    """

    phrase: str
    fit: float
    """Over the whole utterance; below 0 phones explain it better."""
    dip: float
    """Over the quarter of a second that fits worst."""

    @property
    def accepted(self) -> bool:
        """Return whether this is what was said, rather than what sounds least unlike it."""
        return self.fit >= _LOWEST_FIT and self.dip >= _LOWEST_DIP


class SphinxEars:
    """CMU Sphinx with the model in its wheel. Safe from any thread; one utterance at a time.

    With phrases, a grammar of exactly these competes with a free loop of phones; a phrase is heard when it
    explains the whole sound about as well as the loop does. Without, it is dictation: 7 to 44 % of the words
    are wrong on a telephone line. pocketsphinx holds Python's lock while it works.
    """

    def __init__(self) -> None:
        """Load the model. Raises SettingsError without the extra ``speech``, EarsError without its model."""
        try:
            self._sphinx: Any = importlib.import_module("pocketsphinx")
        except ImportError as error:
            raise SettingsError(
                "ears", "pocketsphinx is not installed", "Install the extra: pip install 'arivox[speech]'"
            ) from error
        self._model = Path(self._sphinx.get_model_path()) / "en-us"
        self._lock = threading.Lock()
        self._grammars: OrderedDict[tuple[str, ...], tuple[str, dict[str, str]]] = OrderedDict()
        self._built = 0
        self._dictation: Any = None
        self._decoder = self._load(lm=None, **_STRICT)
        self._decoder.add_allphone_file(_PHONES, str(self._model / "en-us-phone.lm.bin"))

    def __repr__(self) -> str:
        return f"<SphinxEars {len(self._grammars)} grammars>"

    def hear(self, pcm: Pcm, rate: int, phrases: Sequence[str] = ()) -> str:
        """Return the words in ``pcm``, or the one of ``phrases`` that it is; ``""`` when there is none.

        Raises SettingsError for a phrase that cannot be pronounced, ValueError for another ``rate`` than
        8000, 16000 and 24000.
        """
        if phrases:
            match = self.match(pcm, rate, phrases)
            return match.phrase if match and match.accepted else ""
        sound = prepare(pcm, rate)
        if not len(sound):
            return ""
        with self._lock:
            if self._dictation is None:
                self._dictation = self._load(lm=str(self._model / "en-us.lm.bin"))
            found = self._decode(self._dictation, sound)
            return str(found.hypstr) if found else ""

    def match(self, pcm: Pcm, rate: int, phrases: Sequence[str]) -> Match | None:
        """Return the phrase that ``pcm`` resembles most, and how well it fits; ``None`` for silence.

        Raises as ``hear`` does.
        """
        with self._lock:
            name, meant = self._grammar(tuple(phrases))
            sound = prepare(pcm, rate)
            if not len(sound):
                return None
            self._decoder.activate_search(name)
            found = self._decode(self._decoder, sound)
            if found is None or found.hypstr not in meant:
                return None
            path = _path(self._decoder)
            score = _log_score(found.best_score)
            self._decoder.activate_search(_PHONES)
            free = self._decode(self._decoder, sound)
            if free is None:
                return None
            frames = len(sound) / (_MODEL_RATE * _FRAME_S)
            fit = (score - _log_score(free.best_score)) / frames
            return Match(meant[found.hypstr], fit, _dip(path, _path(self._decoder)))

    def _load(self, **options: Any) -> Any:
        try:
            return self._sphinx.Decoder(
                hmm=str(self._model / "en-us"),
                dict=str(self._model / "cmudict-en-us.dict"),
                loglevel="FATAL",
                **options,
            )
        except (RuntimeError, ValueError) as error:
            raise EarsError(
                f"pocketsphinx cannot load its model in {self._model}", "Install pocketsphinx again"
            ) from error

    def _decode(self, decoder: Any, sound: Pcm) -> Any:
        try:
            decoder.start_utt()
            decoder.process_raw(sound.tobytes(), full_utt=True)
            decoder.end_utt()
        except RuntimeError as error:
            raise EarsError(f"pocketsphinx cannot decode {len(sound)} samples: {error}") from error
        return decoder.hyp()

    def _grammar(self, phrases: tuple[str, ...]) -> tuple[str, dict[str, str]]:
        if phrases in self._grammars:
            self._grammars.move_to_end(phrases)
            return self._grammars[phrases]
        meant: dict[str, str] = {}
        for phrase in phrases:
            said = words(phrase)
            if not said:
                raise SettingsError("phrases", f"{phrase!r} has no words to listen for")
            for word in said:
                self._learn(word, phrase)
            meant.setdefault(" ".join(said), phrase)
        self._built += 1
        name = f"phrases-{self._built}"
        arcs = transitions([tuple(said.split()) for said in meant])
        self._decoder.add_fsg(name, self._decoder.create_fsg(name, 0, 1, arcs))
        self._grammars[phrases] = name, meant
        if len(self._grammars) > _GRAMMARS:
            _, (oldest, _) = self._grammars.popitem(last=False)
            self._decoder.remove_search(oldest)
        return name, meant

    def _learn(self, word: str, phrase: str) -> None:
        if self._decoder.lookup_word(word) is not None:
            return
        phones = pronounce(word, self._decoder.lookup_word)
        if not phones:
            raise SettingsError(
                "phrases",
                f"{word!r} in {phrase!r} cannot be pronounced",
                "Write it in letters, as it is said",
            )
        _log.info("%r is not in the dictionary and is taken to sound like %s", word, phones)
        self._decoder.add_word(word, phones, True)


class NoEars:
    """Understands nothing."""

    def __repr__(self) -> str:
        return "<NoEars>"

    def hear(self, pcm: Pcm, rate: int, phrases: Sequence[str] = ()) -> str:
        """Return ``""``."""
        del pcm, rate, phrases
        return ""


def best_ears(report: Callable[[str], None] = _log.info) -> Ears:
    """Return the recogniser, or ears that hear nothing without it. ``report`` is told which and why.

    Blocking: it loads the model.
    """
    try:
        ears = SphinxEars()
    except (SettingsError, EarsError) as error:
        report(f"Ears: none, the agent understands nothing: {error}")
        return NoEars()
    report("Ears: pocketsphinx.")
    return ears


def transitions(said: Sequence[tuple[str, ...]]) -> list[tuple[int, int, float, str]]:
    """Return the arcs (from, to, probability, word) of a grammar of alternatives, from state 0 to state 1.

    Every probability is 1, so that how well a phrase fits does not depend on how many others there are.
    """
    arcs = []
    newest = 1
    for alternative in said:
        state = 0
        for word in alternative[:-1]:
            newest += 1
            arcs.append((state, newest, 1.0, word))
            state = newest
        arcs.append((state, 1, 1.0, alternative[-1]))
    return arcs


def prepare(pcm: Pcm, rate: int) -> Pcm:
    """Return ``pcm`` as the model wants it: 16 kHz, telephone band, less noise, speech near -20 dBFS.

    Returns no samples when there is only steady noise, or it is too short for a word. Raises ValueError
    for a rate that is not 8000, 16000 or 24000.
    """
    if rate != _PHONE_RATE:
        pcm = Resampler(rate, _PHONE_RATE).process(pcm)
    if len(pcm) < _SHORTEST_S * _PHONE_RATE:
        return pcm[:0]
    raw = pcm.astype(np.float64)
    samples = denoise(raw)
    rms = _rms(samples)
    if rms < max(_QUIETEST_SPEECH * 32768, _SPEECH_SHARE * _rms(raw)):
        return pcm[:0]
    samples = np.clip(np.rint(samples * (_LEVEL * 32768 / rms)), -32768, 32767)
    return Resampler(_PHONE_RATE, _MODEL_RATE).process(samples.astype(np.int16))


def _rms(samples: Any) -> float:
    return float(np.sqrt((samples**2).mean()))


def _log_score(probability: float) -> float:
    return math.log(probability) / _LOG_BASE if probability > 0 else -math.inf


def _path(decoder: Any) -> list[tuple[int, int, float]]:
    """Return first frame, last frame and acoustic score of each part of the decoder's result."""
    return [(part.start_frame, part.end_frame, _log_score(part.ascore)) for part in decoder.seg()]


def _dip(path: list[tuple[int, int, float]], free: list[tuple[int, int, float]]) -> float:
    size = max(last for _, last, _ in path + free) + 1
    behind = np.cumsum(_by_frame(path, size) - _by_frame(free, size))
    width = min(_DIP_FRAMES, size - 1)
    return float((behind[width:] - behind[:-width]).min()) / width


def _by_frame(path: list[tuple[int, int, float]], size: int) -> Any:
    scores = np.zeros(size)
    for first, last, score in path:
        if score:
            scores[first : last + 1] = score / (last - first + 1)
    return scores
