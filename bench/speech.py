"""``python -m bench.speech``: how well the emulator's ears understand its voices over a telephone line.

Every phrase of the demo is said by every voice, sent through mu-law at 8 kHz with up to 200 ms of silence
before and after and with white noise, and listened to with one grammar of all phrases. Other sentences, noise
and tones go the same way, and must not be taken for a phrase.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from arivox.audio import g711
from arivox.audio.g711 import Pcm
from arivox.audio.resample import Resampler
from arivox.emulator.ears import SphinxEars
from arivox.emulator.phrases import all_phrases
from arivox.emulator.voice import FliteVoice
from arivox.errors import ArivoxError

VOICES: Final = ("slt", "rms", "awb", "kal16")
LONGEST_SILENCE_MS: Final = 200
OTHERS: Final = (
    "the weather is lovely today",
    "where did you park the car",
    "he ordered a large pizza with mushrooms",
    "the train leaves from platform seven",
    "my dog ate the newspaper",
    "turn down the music",
    "she sells sea shells by the sea shore",
    "the quick brown fox jumps over the lazy dog",
    "how much does a ticket cost",
    "we went to the beach last summer",
    "our house has a green roof",
    "nobody knows the answer",
    "put the book on the table",
    "please open the window",
    "my computer is broken",
    "yesterday it rained all day",
    "there are birds in the garden",
    "what is the name of your sister",
    "thank you for the flowers",
    "football is on television tonight",
)
NEAR_MISSES: Final = (
    "I have a headache",
    "I want to change my shoes",
    "please cancel my subscription",
    "I need a new car",
    "on Sunday",
    "my son needs glasses",
)


@dataclass(slots=True)
class Result:
    """What was said and what was heard."""

    voice: str
    said: str
    expected: str
    heard: str
    fit: float
    dip: float
    audio_s: float
    work_s: float


@dataclass(slots=True)
class Line:
    """A telephone line with noise at ``noise_db`` dBFS RMS."""

    noise_db: float
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def carry(self, pcm: Pcm, rate: int) -> Pcm:
        """Return what arrives of ``pcm`` at the other end, at 8 kHz."""
        if rate != 8000:
            pcm = Resampler(rate, 8000).process(pcm)
        before, after = self.random.integers(0, LONGEST_SILENCE_MS * 8 + 1, 2)
        sound = np.concatenate([np.zeros(before), pcm, np.zeros(after)])
        sound += self.random.normal(0, 32768 * 10 ** (self.noise_db / 20), len(sound))
        return g711.decode(g711.encode(np.clip(sound, -32768, 32767).astype(np.int16), "ulaw"), "ulaw")


def sounds(line: Line) -> Iterator[tuple[str, Pcm]]:
    """Give sounds without words, by name."""
    time_s = np.arange(12000) / 8000
    ring = np.sin(2 * np.pi * 440 * time_s) + np.sin(2 * np.pi * 480 * time_s)
    yield "(silence)", line.carry(np.zeros(12000, np.int16), 8000)
    yield "(noise)", Line(-20).carry(np.zeros(12000, np.int16), 8000)
    yield "(tone)", line.carry((8000 * np.sin(2 * np.pi * 1000 * time_s)).astype(np.int16), 8000)
    yield "(ring)", line.carry((4000 * ring * (time_s % 0.8 < 0.4)).astype(np.int16), 8000)
    click = np.zeros(12000)
    click[::4000] = 30000
    yield "(clicks)", line.carry(click.astype(np.int16), 8000)


def listen(
    ears: SphinxEars, phrases: tuple[str, ...], voice: str, said: str, expected: str, sound: Pcm
) -> Result:
    """Return what the ears made of ``sound``."""
    began = time.perf_counter()
    match = ears.match(sound, 8000, phrases)
    took = time.perf_counter() - began
    heard = match.phrase if match and match.accepted else ""
    fit, dip = (match.fit, match.dip) if match else (-np.inf, -np.inf)
    return Result(voice, said, expected, heard, fit, dip, len(sound) / 8000, took)


def measure(noise_db: float, rounds: int, voices: tuple[str, ...]) -> tuple[list[Result], list[Result]]:
    """Return the results for the phrases, and for all that is none."""
    phrases = all_phrases()
    ears = SphinxEars()
    line = Line(noise_db)
    known, foreign = [], []
    for name in voices:
        voice = FliteVoice(name)
        for _ in range(rounds):
            for text in phrases:
                sound = line.carry(voice.say(text), voice.rate)
                known.append(listen(ears, phrases, name, text, text, sound))
            for text in (*OTHERS, *NEAR_MISSES):
                sound = line.carry(voice.say(text), voice.rate)
                foreign.append(listen(ears, phrases, name, text, "", sound))
    for name, sound in sounds(line):
        foreign.append(listen(ears, phrases, "", name, "", sound))
    return known, foreign


def main(
    noise: Annotated[float, typer.Option(help="Noise on the line, dBFS RMS; speech is at -20.")] = -35.0,
    rounds: Annotated[int, typer.Option(min=1, help="Times each is said, with other noise and silence.")] = 1,
    voice: Annotated[list[str] | None, typer.Option(help="Only this voice; may be repeated.")] = None,
    every: Annotated[
        bool, typer.Option("--every", help="A row for each phrase, not for errors only.")
    ] = False,
) -> None:
    """Measure the offline speech of the emulator. Ends with status 1 if a phrase of the demo is misheard."""
    voices = tuple(voice or VOICES)
    console = Console()
    try:
        known, foreign = measure(noise, rounds, voices)
    except ArivoxError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}")
        sys.exit(1)
    console.print(errors_by_phrase(known, voices, rounds, every))
    for result in foreign:
        if result.heard:
            console.print(f"{result.voice}: {result.said!r} taken for {result.heard!r}", style="yellow")
    for text in summary(known, foreign):
        console.print(text)
    sys.exit(any(result.heard != result.expected for result in known))


def errors_by_phrase(known: list[Result], voices: tuple[str, ...], rounds: int, every: bool) -> Table:
    """Return the table: errors of ``rounds`` for each phrase and voice, and the worst fit."""
    table = Table("phrase", *voices, "worst fit", "worst dip", title=f"Errors in {rounds} of each")
    for phrase in dict.fromkeys(result.said for result in known):
        said = [result for result in known if result.said == phrase]
        wrong = [result for result in said if result.heard != phrase]
        if not wrong and not every:
            continue
        cells = []
        for name in voices:
            heard = [result.heard or "nothing" for result in wrong if result.voice == name]
            cells.append(f"{len(heard)} ({', '.join(sorted(set(heard)))})" if heard else "0")
        worst = (f"{min(result.fit for result in said):.1f}", f"{min(result.dip for result in said):.0f}")
        table.add_row(phrase, *cells, *worst)
    return table


def summary(known: list[Result], foreign: list[Result]) -> Iterator[str]:
    """Give the sentences of the result."""
    wrong = [result for result in known if result.heard != result.expected]
    missed = sum(not result.heard for result in wrong)
    yield f"phrases: {len(wrong)} of {len(known)} wrong ({missed} not heard, {len(wrong) - missed} confused)"
    for what, texts in (("other sentences", OTHERS), ("near misses", NEAR_MISSES)):
        said = [result for result in foreign if result.said in texts]
        yield f"{what}: {sum(bool(result.heard) for result in said)} of {len(said)} taken for a phrase"
    other = [result for result in foreign if not result.voice]
    yield f"other sounds: {sum(bool(result.heard) for result in other)} of {len(other)} taken for a phrase"
    spent = sum(result.work_s for result in known) / sum(result.audio_s for result in known)
    yield f"real-time factor: {spent:.2f}"


if __name__ == "__main__":
    typer.run(main)
