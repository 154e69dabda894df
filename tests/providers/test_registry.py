"""Which settings each provider needs before a call is taken with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accounts import service_account

from arivox.errors import SettingsError
from arivox.providers import registry
from arivox.settings.settings import Settings

LOCAL = "ws://127.0.0.1:1/x"
ENOUGH: list[tuple[str, dict[str, Any]]] = [
    ("openai", {"openai_api_key": "k"}),
    ("openai", {"openai_realtime_url": LOCAL}),
    ("openai-live", {"openai_api_key": "k"}),
    ("openai-live", {"openai_live_url": LOCAL}),
    ("gemini", {"gemini_api_key": "k"}),
    ("gemini", {"gemini_live_url": LOCAL}),
    ("gemini", {"gemini_api_key": "k", "gemini_auth": "token"}),
]
TOO_LITTLE: list[tuple[str, dict[str, Any], str]] = [
    ("openai", {}, "OPENAI_API_KEY: is not set"),
    ("openai", {"gemini_api_key": "k", "openai_live_url": LOCAL}, "OPENAI_API_KEY: is not set"),
    ("openai-live", {"openai_realtime_url": LOCAL}, "OPENAI_API_KEY: is not set"),
    ("gemini", {"openai_api_key": "k"}, "GEMINI_API_KEY: is not set"),
    ("gemini", {"gemini_auth": "token", "gemini_live_url": LOCAL}, "GEMINI_API_KEY: is not set"),
    ("gemini", {"gemini_auth": "vertex"}, "GEMINI_PROJECT_ID: is not set"),
    (
        "gemini",
        {"gemini_project_id": "p", "google_application_credentials": Path("/nowhere.json")},
        "GOOGLE_APPLICATION_CREDENTIALS: /nowhere.json: no such file",
    ),
]


@pytest.mark.parametrize(("name", "given"), ENOUGH)
def test_provider_has_what_it_needs(name: str, given: dict[str, Any]) -> None:
    registry.find(name).check(Settings(**given))


@pytest.mark.parametrize(("name", "given", "problem"), TOO_LITTLE)
def test_provider_names_what_it_lacks(name: str, given: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        registry.find(name).check(Settings(**given))


def test_vertex_needs_a_key_file_that_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text('{"type": "service_account"}', encoding="utf-8")
    with pytest.raises(SettingsError, match="GOOGLE_APPLICATION_CREDENTIALS: cannot be used"):
        registry.find("gemini").check(Settings(gemini_project_id="p", google_application_credentials=file))
    good = service_account(tmp_path)
    registry.find("gemini").check(Settings(gemini_project_id="p", google_application_credentials=good))


def test_unknown_provider_is_told_with_where_it_stood() -> None:
    with pytest.raises(SettingsError, match="provider=gemni: 'gemni' is not one of openai, gemini"):
        registry.find("gemni", "provider=gemni")
    assert registry.find(" Gemini ").name == "gemini"
