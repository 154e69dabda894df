"""What a turn costs, under the names and with the habits of each backend.

A report counts the whole context again. On AI Studio its total is a little more than the details; on Vertex
they agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from arivox.emulator.gemini.conversation import Conversation, Entry, text_tokens
from arivox.emulator.gemini.models import Backend
from arivox.emulator.gemini.turn import ModelTurn

_UNEXPLAINED: Final = 42
_AUDIO_TOKENS_PER_S: Final = 25
_THOUGHTS: Final = 64


def measure(
    conversation: Conversation,
    context: Iterable[Entry],
    answers: Sequence[ModelTurn],
    backend: Backend,
    *,
    thinks: bool,
) -> dict[str, Any]:
    """Return the ``usageMetadata`` of a turn of ``answers`` to ``context``."""
    preamble = conversation.system + msgspec.json.encode(conversation.tools).decode()
    text_in, audio_in = text_tokens(preamble), 0
    for entry in context:
        text_in += entry.text_tokens
        audio_in += entry.audio_tokens
    audio_out = round(sum(answer.spoken_ms for answer in answers) / 1000 * _AUDIO_TOKENS_PER_S)
    text_out = text_tokens("".join(answer.call_text for answer in answers))
    studio = backend == "studio"
    prompt = text_in + audio_in + (_UNEXPLAINED if studio else 0)
    thoughts = _THOUGHTS if thinks else 0
    answer_name = "response" if studio else "candidates"
    report: dict[str, Any] = {
        "promptTokenCount": prompt,
        f"{answer_name}TokenCount": text_out + audio_out,
        # On AI Studio the total leaves the thoughts out.
        "totalTokenCount": prompt + text_out + audio_out + (0 if studio else thoughts),
        "promptTokensDetails": _details(text_in, audio_in),
        f"{answer_name}TokensDetails": _details(text_out, audio_out),
    }
    if thoughts:
        report["thoughtsTokenCount"] = thoughts
    report |= {"serviceTier": "standard"} if studio else {"trafficType": "ON_DEMAND"}
    return report


def _details(text: int, audio: int) -> list[dict[str, Any]]:
    counts = (("TEXT", text), ("AUDIO", audio))
    return [{"modality": modality, "tokenCount": count} for modality, count in counts if count]
