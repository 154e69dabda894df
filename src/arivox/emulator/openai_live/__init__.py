"""OpenAI's Live protocol (``gpt-live-1.1``) as a server speaks it: full duplex, without turns."""

from arivox.emulator.openai_live.options import MODELS, LiveOptions
from arivox.emulator.openai_live.service import LiveService
from arivox.emulator.openai_live.session import LiveSession, LiveTurn
from arivox.emulator.openai_live.speech import Speech

__all__ = ["MODELS", "LiveOptions", "LiveService", "LiveSession", "LiveTurn", "Speech"]
