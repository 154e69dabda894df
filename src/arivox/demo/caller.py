"""The demo's caller: listens to the agent on the line, and answers with real words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from arivox.audio.g711 import Pcm
from arivox.audio.resample import Resampler
from arivox.emulator.speech import Voice
from arivox.testing.phone import SipPhone

_PAUSE_MS: Final = 700  # silence after which the agent is taken to have finished
_AGENT_TIMEOUT_S: Final = 20.0
_LONGEST_TURN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Line:
    """What the caller says, and when: after the agent has finished, or into its sentence."""

    text: str
    interrupt_after_s: float | None = None


LINES: Final = (
    Line("yes please"),
    Line("I have a toothache"),
    # Not understood, twice: the conversation goes aside to fallback.
    Line("hang on, the dog is barking"),
    Line("well the thing is, hmm"),
    Line("on Wednesday", interrupt_after_s=1.5),
    # Taken: see stage.py.
    Line("around ten o'clock"),
    Line("in the morning"),
    Line("yes that is fine"),
)
"""Every line is one the emulated agent can hear (see ``emulator.phrases``), but for the two it is not to."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """One line as it was said."""

    text: str
    started: float
    """Monotonic seconds."""
    ended: float
    interrupted: bool


def render(voice: Voice, text: str) -> Pcm:
    """Return ``text`` spoken at 8 kHz. Blocking."""
    pcm = voice.say(text)
    if voice.rate == 8000:
        return pcm
    resampler = Resampler(voice.rate, 8000)
    return resampler.process(np.concatenate([pcm, np.zeros(voice.rate // 100, np.int16)]))


async def converse(
    phone: SipPhone,
    voice: Voice,
    lines: tuple[Line, ...] = LINES,
    say: Callable[[str], None] = lambda _: None,
) -> list[Spoken]:
    """Hold the conversation on an answered call, until the agent hangs up or nothing is left to say.

    ``say`` is told each line as it begins. Raises TimeoutError when the agent stays silent for 20 s.
    """
    sounds = [await asyncio.to_thread(render, voice, line.text) for line in lines]
    spoken = []
    since = time.monotonic()
    for line, sound in zip(lines, sounds, strict=True):
        heard = await phone.wait_heard(after=since, timeout=_AGENT_TIMEOUT_S)
        if line.interrupt_after_s is not None:
            await asyncio.sleep(max(heard + line.interrupt_after_s - time.monotonic(), 0))
        else:
            await phone.wait_silence(_PAUSE_MS, timeout=_LONGEST_TURN_S)
        if phone.state != "up":
            break
        started = time.monotonic()
        say(line.text)
        since = await phone.play(sound).done()
        spoken.append(Spoken(line.text, started, since, line.interrupt_after_s is not None))
    return spoken
