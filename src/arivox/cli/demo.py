"""``arivox demo``: a stand-in for OpenAI Realtime on this machine."""

from __future__ import annotations


def demo() -> None:
    """Run the emulator."""
    raise NotImplementedError
