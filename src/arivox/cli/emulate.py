"""``arivox emulate``: a stand-in for OpenAI Realtime on this machine."""

from __future__ import annotations


def emulate() -> None:
    """Run the emulator."""
    raise NotImplementedError
