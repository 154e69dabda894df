"""The providers there are: what each needs of the settings, and how a session with it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from arivox.errors import SettingsError
from arivox.providers.base import SessionFactory
from arivox.providers.gemini.endpoint import check as check_gemini
from arivox.providers.gemini.session import GeminiSession
from arivox.providers.openai.session import OpenAISession
from arivox.providers.openai_live.session import LiveSession
from arivox.settings.settings import Settings


@dataclass(frozen=True)
class Provider:
    """One provider, as the rest of Arivox knows it."""

    name: str
    """As ``AI_SERVICE_PROVIDER`` has it."""
    title: str
    new_session: SessionFactory
    check: Callable[[Settings], None]
    """Raises SettingsError unless the settings suffice."""
    model: Callable[[Settings], str]
    instruction: Callable[[Settings], str]
    """The system instruction of the settings; empty: that of the prompts file."""
    history_turns: Callable[[Settings], int]
    """How many turns of an earlier call it is told."""
    sections: tuple[str, ...]
    """Its sections of the prompts file; the first that is there counts."""
    prefix: str
    """What its settings begin with."""
    key_setting: str
    model_setting: str
    url_setting: str


def _check_openai(settings: Settings) -> None:
    _require_key(settings, settings.openai_realtime_url)


def _check_live(settings: Settings) -> None:
    _require_key(settings, settings.openai_live_url)


def _require_key(settings: Settings, url: str) -> None:
    if not settings.openai_api_key and url.startswith("wss://api.openai.com"):
        raise SettingsError(
            "OPENAI_API_KEY", "is not set", "Put the key into .env, or try without one: arivox demo."
        )


PROVIDERS: Final[dict[str, Provider]] = {
    provider.name: provider
    for provider in (
        Provider(
            "openai",
            "OpenAI Realtime",
            OpenAISession,
            _check_openai,
            lambda settings: settings.openai_model,
            lambda settings: settings.openai_system_instruction,
            lambda settings: settings.openai_history_max_turns,
            ("openai",),
            "OPENAI_",
            "OPENAI_API_KEY",
            "OPENAI_MODEL",
            "OPENAI_REALTIME_URL",
        ),
        Provider(
            "gemini",
            "Gemini Live",
            GeminiSession,
            check_gemini,
            lambda settings: settings.gemini_model_name,
            lambda settings: settings.gemini_system_instruction,
            lambda settings: settings.gemini_history_max_turns,
            ("gemini", "openai"),
            "GEMINI_",
            "GEMINI_API_KEY",
            "GEMINI_MODEL_NAME",
            "GEMINI_LIVE_URL",
        ),
        Provider(
            "openai-live",
            "OpenAI Live",
            LiveSession,
            _check_live,
            lambda settings: settings.openai_live_model,
            lambda settings: settings.openai_system_instruction,
            lambda settings: settings.openai_history_max_turns,
            ("openai-live", "openai"),
            "OPENAI_",
            "OPENAI_API_KEY",
            "OPENAI_LIVE_MODEL",
            "OPENAI_LIVE_URL",
        ),
    )
}


def find(name: str, where: str = "AI_SERVICE_PROVIDER") -> Provider:
    """Return a provider by its name. Raises SettingsError, which names ``where`` the name stood."""
    provider = PROVIDERS.get(name.strip().lower())
    if provider is None:
        raise SettingsError(where, f"{name!r} is not one of {', '.join(PROVIDERS)}")
    return provider
