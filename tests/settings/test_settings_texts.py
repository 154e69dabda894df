"""What the settings tell people: no secrets, warnings that help, and a reference that is complete."""

from __future__ import annotations

from pathlib import Path

import pytest
from settingsfiles import from_env, from_files

from arivox.errors import SettingsError
from arivox.settings.settings import Settings, load, setting_fields

SECRET = "5up3r-s3cret"
SECRETS = [item.name.upper() for item in setting_fields() if item.metadata["secret"]]


@pytest.fixture(autouse=True)
def _no_files_of_the_developer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- secrets ---


def test_secrets_are_marked() -> None:
    assert set(SECRETS) == {
        "ARI_PASSWORD",
        "GEMINI_API_KEY",
        "MEMORY_URL",
        "OPENAI_API_KEY",
        "REDIS_PASSWORD",
    }


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_stay_out_of_texts(name: str) -> None:
    loaded = from_env(**{name: SECRET})
    assert getattr(loaded.settings, name.lower()) == SECRET
    for text in (repr(loaded.settings), str(loaded.settings), repr(loaded), str(loaded.warnings)):
        assert SECRET not in text


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_stay_out_of_errors_about_other_settings(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_files(tmp_path, env=f"{name}={SECRET}\nMAX_CALLS=x\n")
    assert SECRET not in str(caught.value) + repr(caught.value)


def test_secrets_stay_out_of_errors_about_yaml(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        from_files(tmp_path, yaml=f"openai_api_key: sk: {SECRET}\n")
    assert SECRET not in str(caught.value) + repr(caught.value)


def test_requirements_name_what_is_missing() -> None:
    with pytest.raises(SettingsError, match="ARI_USERNAME: is not set"):
        Settings().require_ari()
    with pytest.raises(SettingsError, match="ARI_PASSWORD: is not set"):
        Settings(ari_username="a").require_ari()
    Settings(ari_username="a", ari_password="b").require_ari()


# --- warnings ---


def test_unknown_names_are_told_with_a_suggestion(tmp_path: Path) -> None:
    loaded = from_files(
        tmp_path, env="OPENAI_VOICE=marin\nPATHS=x\n", yaml="max_cals: 3\n", PATH="/bin", HOME="/"
    )
    assert len(loaded.warnings) == 3
    voice, paths, calls = loaded.warnings
    assert voice.startswith("OPENAI_VOICE (in ")
    assert voice.endswith("did you mean OPENAI_VOICE_ID?")
    assert paths.startswith("PATHS (in ")
    assert "did you mean MAX_CALLS?" in calls


def test_environment_of_other_programs_is_left_alone() -> None:
    assert from_env(PATH="/bin", LANG="C", MAXIMUM="3", MY_OPENAI="x").warnings == []
    (warning,) = from_env(ARI_USERNAM="x").warnings
    assert (
        warning == "ARI_USERNAM (in the environment) is not a setting of Arivox; did you mean ARI_USERNAME?"
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("GEMINI_VAD_ENERGY_THRESHOLD", "GEMINI_VAD_START_SENSITIVITY"),
        ("GEMINI_VAD_ACTIVITY_RATIO_THRESHOLD", "GEMINI_VAD_END_SENSITIVITY"),
    ],
)
def test_names_of_the_scripts_without_effect_are_told(tmp_path: Path, name: str, says: str) -> None:
    for loaded in (from_env(**{name: SECRET}), from_files(tmp_path, env=f"{name}={SECRET}\n")):
        (warning,) = loaded.warnings
        assert warning.startswith(f"{name} (in ")
        assert says in warning
        assert SECRET not in warning


# --- the reference ---


def test_port_range_is_enough_for_the_calls() -> None:
    assert Settings(max_calls=10).rtp_ports == (12000, 12039)
    assert Settings(rtp_server_port=65000, max_calls=1000).rtp_ports == (65000, 65535)
    assert Settings(rtp_server_port_last=12001).rtp_ports == (12000, 12001)


def env_example() -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (Path(__file__).parents[2] / ".env.example").read_text(encoding="utf-8").splitlines():
        name, equals, value = line.removeprefix("#").partition("=")
        if equals and name.isidentifier() and name == name.upper():
            assert name not in found, f"{name} stands there twice"
            found[name] = value
    return found


def test_env_example_holds_every_setting_and_nothing_else() -> None:
    assert list(env_example()) == [item.name.upper() for item in setting_fields()]


def test_env_example_shows_the_defaults() -> None:
    assert load(env_example()).settings == Settings()


def test_every_setting_says_what_it_means() -> None:
    for item in setting_fields():
        assert item.metadata["doc"], item.name
