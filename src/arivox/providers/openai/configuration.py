"""What a session is configured with, and what of it is left out where the service refuses it. Pure.

A call without a transcript, or with a little more noise, is better than none: what a session can do without
is left out once it is refused. The audio format, the voice and the turns are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from arivox.providers.openai.protocol import ErrorBody, SessionOptions


@dataclass(frozen=True, slots=True)
class Optional:
    """A part of the configuration that a session can do without."""

    name: str
    """As the session's fields are called."""
    setting: str
    option: str


PARTS: Final = (
    Optional("transcription", "OPENAI_TRANSCRIPTION_MODEL", "transcription_model"),
    Optional("noise_reduction", "OPENAI_NOISE_REDUCTION", "noise_reduction"),
    Optional("reasoning", "OPENAI_REASONING_EFFORT", "reasoning_effort"),
)


class Configuration:
    """The options of one session. ``left_out`` are the parts that it does without."""

    def __init__(self, options: SessionOptions) -> None:
        self.options = options
        self.left_out: list[Optional] = []

    def refused(self, error: ErrorBody) -> tuple[Optional, ...]:
        """Leave out what the error is about, or all that is optional where it does not say. Return what.

        Nothing is returned when there is nothing to leave out: then the refusal is final.
        """
        present = tuple(part for part in PARTS if getattr(self.options, part.option))
        named = tuple(part for part in present if part.name in (error.param or ""))
        # The parameter says best what is wrong; some servers name it in the text alone, or not at all.
        if not named and not (error.param or ""):
            text = (error.message or "").lower().replace(" ", "_")
            named = tuple(
                part
                for part in present
                if part.name in text or str(getattr(self.options, part.option)).lower() in text
            )
            named = named or present
        for part in named:
            self.options = msgspec.structs.replace(self.options, **{part.option: ""})
        self.left_out += named
        return named
