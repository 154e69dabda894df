"""What a response costs, at the documented rates: the whole context again for each, most of it from cache."""

from __future__ import annotations

from typing import Any, Final

from arivox.emulator.openai.conversation import Item, text_tokens

_CACHE_BLOCK: Final = 64  # the service caches prefixes in blocks of tokens


class Meter:
    """Counts tokens, and remembers what the last response had in its context."""

    def __init__(self) -> None:
        self._prompt = ""
        self._context = 0

    def measure(self, prompt: str, context: list[Item], output: list[Item]) -> dict[str, Any]:
        """Return the ``usage`` of a response to ``context`` (without its own items) under ``prompt``."""
        text_in = text_tokens(prompt) + sum(item.tokens[0] for item in context)
        audio_in = sum(item.tokens[1] for item in context)
        text_out = sum(item.tokens[0] for item in output)
        audio_out = sum(item.tokens[1] for item in output)
        total_in = text_in + audio_in
        # Other instructions or tools stand before everything else, so nothing of the old context fits.
        known = min(self._context, total_in) if prompt == self._prompt else 0
        cached = known // _CACHE_BLOCK * _CACHE_BLOCK
        cached_audio = cached * audio_in // total_in if total_in else 0
        self._prompt, self._context = prompt, total_in
        return {
            "total_tokens": total_in + text_out + audio_out,
            "input_tokens": total_in,
            "output_tokens": text_out + audio_out,
            "input_token_details": {
                "text_tokens": text_in,
                "audio_tokens": audio_in,
                "image_tokens": 0,
                "cached_tokens": cached,
                "cached_tokens_details": {
                    "text_tokens": cached - cached_audio,
                    "audio_tokens": cached_audio,
                    "image_tokens": 0,
                },
            },
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }
