"""The settings: where values come from, which one wins, and how a wrong one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from settingsfiles import from_env, from_files

from arivox.errors import SettingsError
from arivox.settings.settings import Settings, load, setting_fields

HINTS = get_type_hints(Settings)


@pytest.fixture(autouse=True)
def _no_files_of_the_developer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- precedence ---


def test_nothing_set_gives_the_defaults() -> None:
    loaded = load({})
    assert loaded.settings == Settings()
    assert loaded.warnings == []


def test_command_line_beats_environment_beats_env_file_beats_yaml(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("MAX_CALLS=3\nVAD_SILENCE_DURATION_MS=300\nOPENAI_SPEED=0.3\n")
    (tmp_path / "y").write_text(
        "max_calls: 4\nvad_silence_duration_ms: 400\nopenai_speed: 0.4\nredis_db: 4\n"
    )
    environ = {"MAX_CALLS": "2", "VAD_SILENCE_DURATION_MS": "200"}
    found = load(environ, tmp_path / "e", tmp_path / "y", {"MAX_CALLS": "1"}).settings
    assert (found.max_calls, found.vad_silence_duration_ms) == (1, 200)
    assert (found.openai_speed, found.redis_db) == (0.3, 4)


def test_default_files_are_found_where_the_service_is_started(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ARI_USERNAME=one\n")
    (tmp_path / "arivox.yaml").write_text("ari_password: two\n")
    found = load({}).settings
    assert (found.ari_username, found.ari_password) == ("one", "two")


@pytest.mark.parametrize("argument", ["env_file", "yaml_file"])
def test_named_file_must_be_there(tmp_path: Path, argument: str) -> None:
    with pytest.raises(SettingsError, match=r"missing\.x: no such file"):
        load({}, **{argument: tmp_path / "missing.x"})  # type: ignore[arg-type]


def test_empty_values_count_as_not_set(tmp_path: Path) -> None:
    found = from_files(tmp_path, env="MAX_CALLS=\n", yaml="max_calls: 7\nredis_db:\n", MAX_CALLS="")
    assert found.settings.max_calls == 7
    assert found.warnings == []


@pytest.mark.parametrize(("alias", "name"), [("ARI_USER", "ari_username"), ("ARI_PASS", "ari_password")])
def test_names_of_the_scripts_still_work(tmp_path: Path, alias: str, name: str) -> None:
    loaded = from_env(**{alias: "old"})
    assert getattr(loaded.settings, name) == "old"
    assert loaded.warnings == []
    both = from_env(**{alias: "old", name.upper(): "new"})
    assert getattr(both.settings, name) == "new"
    nearer = from_files(tmp_path, env=f"{name.upper()}=file\n", **{alias: "environment"})
    assert getattr(nearer.settings, name) == "environment", "the nearer source wins, whatever the name"


# --- values ---


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "On", " true "])
def test_true(text: str) -> None:
    assert from_env(ENABLE_AUDIO_RECORDING=text).settings.enable_audio_recording


@pytest.mark.parametrize("text", ["0", "false", "No", "OFF"])
def test_false(text: str) -> None:
    assert not from_env(LOG_FULL_NUMBERS=text).settings.log_full_numbers


def test_yaml_types_are_taken_as_written(tmp_path: Path) -> None:
    found = from_files(
        tmp_path, yaml="enable_audio_recording: yes\nmax_calls: 3\nopenai_speed: 1\nprompts_file: a/b.yaml\n"
    ).settings
    assert (found.enable_audio_recording, found.max_calls) == (True, 3)
    assert (found.openai_speed, found.prompts_file) == (1.0, Path("a/b.yaml"))


def test_choices_are_read_in_any_case() -> None:
    assert from_env(LOG_LEVEL="DEBUG", AI_SERVICE_PROVIDER="OpenAI").settings.log_level == "debug"


def _wrong_values() -> list[tuple[str, str, str]]:
    found = []
    for item in setting_fields():
        name, hint = item.name.upper(), HINTS[item.name]
        low, high = item.metadata["low"], item.metadata["high"]
        if get_origin(hint) is not None and get_args(hint) and isinstance(get_args(hint)[0], str):
            found.append((name, "nonsense", "is not one of"))
        elif hint is bool:
            found.append((name, "perhaps", "neither true nor false"))
        elif hint in (int, float):
            found += [(name, "many", "is not a"), (name, "1 2", "is not a"), (name, "0x10", "is not a")]
            if hint is int:
                found.append((name, "5.5", "is not a whole number"))
            else:
                found.append((name, "nan", "out of range"))
            if low is not None:
                found.append((name, str(low - 1), "out of range"))
            if high is not None:
                found.append((name, str(high + 1), "out of range"))
    return found


@pytest.mark.parametrize(("name", "value", "problem"), _wrong_values())
def test_every_wrong_value_names_its_setting_and_source(name: str, value: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        from_env(**{name: value})
    assert caught.value.setting == name
    assert caught.value.source == "the environment"
    assert value in str(caught.value)


def test_fault_in_a_file_names_the_file_and_the_name_used(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"MAX_CALLS \(in .*some\.env, line 1\): 'x' is not"):
        from_files(tmp_path, env="MAX_CALLS=x\n")
    with pytest.raises(SettingsError, match=r"LOG_LEVEL \(in .*some\.yaml, line 1\): 'loud' is not one"):
        from_files(tmp_path, yaml="log_level: loud\n")


TOGETHER = [
    ({"ARI_URL": "127.0.0.1:8088"}, "ARI_URL"),
    ({"OPENAI_REALTIME_URL": "https://api.openai.com"}, "OPENAI_REALTIME_URL"),
    ({"RTP_SERVER_PORT": "12001"}, "RTP_SERVER_PORT"),
    ({"RTP_SERVER_PORT": "12000", "RTP_SERVER_PORT_LAST": "11000"}, "RTP_SERVER_PORT_LAST"),
    ({"MAX_CALL_DURATION_S": "60", "GOODBYE_BEFORE_S": "60"}, "GOODBYE_BEFORE_S"),
    ({"FAILURE_MEDIA": "congestion"}, "FAILURE_MEDIA"),
]


@pytest.mark.parametrize(("environ", "setting"), TOGETHER)
def test_values_that_cannot_work_together_are_named(environ: dict[str, str], setting: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_env(**environ)
    assert caught.value.setting == setting


@pytest.mark.parametrize(("environ", "setting"), TOGETHER)
def test_values_that_cannot_work_together_name_the_source(environ: dict[str, str], setting: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_env(**environ)
    assert caught.value.source


WRONG_FILES = {
    "yaml_not_utf8": (b"", b"ari_username: \xff\n"),
    "env_not_utf8": (b"ARI_USERNAME=\xff\n", b""),
    "yaml_list_for_text": (b"", b"openai_voice_id: [marin]\n"),
}


@pytest.mark.parametrize(("env", "yaml"), WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_unreadable_files_are_settings_errors(tmp_path: Path, env: bytes, yaml: bytes) -> None:
    (tmp_path / "e").write_bytes(env)
    (tmp_path / "y").write_bytes(yaml)
    with pytest.raises(SettingsError):
        load({}, tmp_path / "e", tmp_path / "y")


def test_yaml_that_is_none_or_no_mapping(tmp_path: Path) -> None:
    assert from_files(tmp_path, yaml="# nothing\n").settings == Settings()
    for text in ("- a\n", "just text\n", "a: b: c\n"):
        with pytest.raises(SettingsError, match=r"some\.yaml"):
            from_files(tmp_path, yaml=text)


@pytest.mark.parametrize(
    ("text", "value"), [("no", "no"), ("0123", "0123"), ("1_000", "1_000"), ("2024-13-45", "2024-13-45")]
)
def test_yaml_text_stays_text(tmp_path: Path, text: str, value: str) -> None:
    # Norwegian is a language, and a password may begin with a zero.
    found = from_files(tmp_path, yaml=f"openai_language: {text}\nari_password: {text}\n").settings
    assert (found.openai_language, found.ari_password) == (value, value)


def test_env_file_keeps_passwords_as_they_are(tmp_path: Path) -> None:
    assert from_files(tmp_path, env="ARI_PASSWORD='pa${x}ss'\n").settings.ari_password == "pa${x}ss"


@pytest.mark.parametrize("name", ["PROVIDER_CONNECT_TIMEOUT_S", "ARI_REQUEST_TIMEOUT_S"])
def test_a_time_is_finite(name: str) -> None:
    with pytest.raises(SettingsError):
        from_env(**{name: "inf"})


@pytest.mark.parametrize(("name", "url"), [("ARI_URL", "http://[::1"), ("OPENAI_REALTIME_URL", "wss://[::1")])
def test_address_that_cannot_be_split(name: str, url: str) -> None:
    with pytest.raises(SettingsError):
        from_env(**{name: url})


texts: Any = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@hypothesis_settings(max_examples=120)
@given(st.dictionaries(st.sampled_from([item.name.upper() for item in setting_fields()]), texts, max_size=4))
def test_any_values_give_settings_or_a_settings_error(environ: dict[str, str]) -> None:
    try:
        loaded = load(environ)
    except SettingsError:
        return
    assert isinstance(loaded.settings, Settings)
    assert loaded.warnings == []
