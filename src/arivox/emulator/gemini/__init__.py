"""Google's Gemini Live protocol as its servers speak it, on AI Studio and on Vertex AI."""

from arivox.emulator.gemini.admission import CONSTRAINED_PATH, STUDIO_PATH, VERTEX_PATH, Entrance
from arivox.emulator.gemini.credentials import TokenStore
from arivox.emulator.gemini.messages import RefusedError
from arivox.emulator.gemini.models import MODELS
from arivox.emulator.gemini.options import GeminiOptions
from arivox.emulator.gemini.service import GeminiService
from arivox.emulator.gemini.session import GeminiSession
from arivox.emulator.gemini.tokens import TokenServer
from arivox.emulator.gemini.turn import ModelTurn

__all__ = [
    "CONSTRAINED_PATH",
    "MODELS",
    "STUDIO_PATH",
    "VERTEX_PATH",
    "Entrance",
    "GeminiOptions",
    "GeminiService",
    "GeminiSession",
    "ModelTurn",
    "RefusedError",
    "TokenServer",
    "TokenStore",
]
