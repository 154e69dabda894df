"""What callers of the emulated appointment line can say in each state, and what it stands for.

The phrases are chosen to be told apart by sound alone, in one grammar of all of them and in every voice of
``voice.py``; ``bench/speech.py`` measures that. A phrase is heard whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words a caller may say, and the value they stand for in the place of the prompts that asks for it."""

    text: str
    value: str


_YES: Final = (
    Phrase("yes please", "yes"),
    Phrase("yes that is fine", "yes"),
)
_AGAIN: Final = Phrase("sorry could you repeat that", "repeat")

PHRASES: Final[Mapping[str, tuple[Phrase, ...]]] = {
    "greeting": (
        *_YES,
        Phrase("hello I would like to make an appointment", "appointment"),
        Phrase("I need to see a doctor", "appointment"),
        Phrase("good morning can I book a visit", "appointment"),
        Phrase("I want to change my appointment", "change"),
        Phrase("please cancel my appointment", "cancel"),
        Phrase("when are you open", "opening hours"),
        Phrase("can I speak to a person", "person"),
    ),
    "gathering_reason": (
        Phrase("I have a toothache", "toothache"),
        Phrase("I need a check up", "check-up"),
        Phrase("a cleaning please", "cleaning"),
        Phrase("my filling fell out", "lost filling"),
        Phrase("I broke a tooth", "broken tooth"),
        Phrase("my gums are bleeding", "bleeding gums"),
        Phrase("my son needs braces", "braces"),
        Phrase("it is about my knee", "knee"),
    ),
    "collecting_availability_days": (
        Phrase("on Monday", "Monday"),
        Phrase("Tuesday would be best", "Tuesday"),
        Phrase("on Wednesday", "Wednesday"),
        Phrase("Thursday is good for me", "Thursday"),
        Phrase("on Friday", "Friday"),
        Phrase("Monday or Tuesday", "Monday or Tuesday"),
        Phrase("any day next week", "any day next week"),
        Phrase("tomorrow if possible", "tomorrow"),
        Phrase("as soon as possible", "the first free day"),
    ),
    "collecting_availability_times": (
        Phrase("in the morning", "in the morning"),
        Phrase("after three in the afternoon", "after three in the afternoon"),
        Phrase("around ten o'clock", "around ten o'clock"),
        Phrase("before nine", "before nine"),
        Phrase("in the evening after work", "in the evening"),
        Phrase("at lunch time", "at lunch time"),
        Phrase("any time is fine with me", "any time"),
    ),
    "proposing_slot": (
        *_YES,
        Phrase("yes that works for me", "yes"),
        Phrase("that sounds perfect", "yes"),
        Phrase("no thank you", "no"),
        Phrase("no that does not suit me", "no"),
        Phrase("do you have anything later", "no"),
        Phrase("is there something earlier", "no"),
        Phrase("could we try another day", "no"),
    ),
    "confirmation": (
        Phrase("yes that is correct", "yes"),
        Phrase("please go ahead and book it", "yes"),
        Phrase("no I made a mistake", "no"),
        Phrase("can you send me a text message", "message"),
        Phrase("that will be all", "done"),
        Phrase("thank you good bye", "goodbye"),
    ),
    "fallback": (
        _AGAIN,
        Phrase("I did not understand you", "repeat"),
        Phrase("please speak more slowly", "slower"),
        Phrase("let me talk to somebody", "person"),
        Phrase("what can you do for me", "help"),
        Phrase("never mind I will call back later", "goodbye"),
    ),
}
"""State to what can be said in it. States are those of ``conversation/prompts.yaml``."""


def all_phrases() -> tuple[str, ...]:
    """Return the words of every phrase once, in the order of the states."""
    return tuple(dict.fromkeys(phrase.text for said in PHRASES.values() for phrase in said))
