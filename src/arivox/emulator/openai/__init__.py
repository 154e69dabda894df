"""OpenAI's Realtime protocol as a server speaks it."""

from arivox.emulator.openai.admission import MODELS, admit
from arivox.emulator.openai.messages import RequestError
from arivox.emulator.openai.response import Response
from arivox.emulator.openai.service import RealtimeService
from arivox.emulator.openai.session import OpenAISession, Options

__all__ = ["MODELS", "OpenAISession", "Options", "RealtimeService", "RequestError", "Response", "admit"]
