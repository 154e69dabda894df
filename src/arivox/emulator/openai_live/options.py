"""What can be different about an emulated Live service."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

MODELS: Final = frozenset({"gpt-live-1", "gpt-live-1.1"})


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Settings of the service, the same for all its sessions."""

    models: Collection[str] | None = MODELS
    """The models it knows; None takes any."""
    expires_after: float = 3600.0
    """Seconds a session may last."""
    usage_every: float = 10.0
    """Seconds between two ``session.usage.updated``."""
    continuous: bool = True
    """Fill the time between utterances with silence, so that the output is one unbroken stream."""
    frame_ms: int = 40
    """Audio in one delta."""
    lead_ms: int = 40
    """How far ahead of real time audio is written."""
