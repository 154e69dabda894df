"""The files of settings: every line is read or refused, with its number and the setting it belongs to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from settingsfiles import from_env, from_files

from arivox.errors import SettingsError
from arivox.settings.env_template import render
from arivox.settings.settings import load

SECRET = "5up3r-s3cret"
TEXT = "OPENAI_SYSTEM_INSTRUCTION"


@pytest.fixture(autouse=True)
def _no_files_of_the_developer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


REFUSED = {
    "quotes within quotes": (f'MAX_CALLS=3\n\n{TEXT}="Say "hello" first."\n', TEXT, 3, r"Write \""),
    "apostrophe in single quotes": (f"# one\n{TEXT}='Don't be rude'\n", TEXT, 2, "double quotes"),
    "several lines without quotes": (f"{TEXT}=You are Anna.\nBe friendly.\n", TEXT, 2, "double quotes"),
    "a later line with a colon": (f"{TEXT}=You are Anna.\nNote: be friendly.\n", TEXT, 2, "double quotes"),
    "one word on a later line": (f"{TEXT}=You are\nAnna\n", TEXT, 2, "double quotes"),
    "no equals sign": ("MAX_CALLS 3\n", "MAX_CALLS", 1, "NAME=value"),
    "name alone": ("export ARI_USERNAME\n", "ARI_USERNAME", 1, "NAME=value"),
    "as in YAML": ("\nari_username: anna\n", "ari_username", 2, "NAME=value"),
    "double quotes not closed": (f'{TEXT}="You are Anna\nMAX_CALLS=3\n', TEXT, 1, "never closed"),
    "single quotes not closed": ("MAX_CALLS=3\nHOLD_MUSIC='jazz\n", "HOLD_MUSIC", 2, "never closed"),
    "closed by the next value's quote": (
        "HOLD_MUSIC='a\nMAX_CALLS=3\nLOG_LEVEL='info'",
        "HOLD_MUSIC",
        1,
        "more",
    ),
    "swallows a setting": ("HOLD_MUSIC='a\nMAX_CALLS=3\nLOG_LEVEL='", "HOLD_MUSIC", 1, "MAX_CALLS in line 2"),
    "ends with a backslash": ('RECORDINGS_DIR="C:\\calls\\"\n', "RECORDINGS_DIR", 1, "never closed"),
    "two texts": (f"{TEXT}='one' 'two'\n", TEXT, 1, "more behind"),
    "indented with export": (f'\n\n  export {TEXT}="a" b\r\n', TEXT, 3, "more behind"),
}


@pytest.mark.parametrize(("env", "setting", "line", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_line_that_cannot_be_read_is_refused(
    tmp_path: Path, env: str, setting: str, line: int, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        from_files(tmp_path, env=env)
    assert caught.value.setting == setting
    assert str(caught.value).startswith(f"{setting} (in {tmp_path / 'some.env'}, line {line}): ")
    assert says in str(caught.value)
    assert capfd.readouterr() == ("", ""), "no other message"


def test_first_line_that_is_nothing_is_refused_by_its_number(tmp_path: Path) -> None:
    for env in ("hello there\n", "=3\n", "'\n"):
        with pytest.raises(SettingsError, match=r"some\.env, line 1: is not NAME=value"):
            from_files(tmp_path, env=env)


@pytest.mark.parametrize("line", ["{}", "OPENAI_API_KEY {}", "OPENAI_API_KEY='{}", 'OPENAI_API_KEY="a"{}'])
def test_refused_line_is_not_shown(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_files(tmp_path, env=line.format(SECRET) + "\n")
    assert SECRET not in str(caught.value) + repr(caught.value)


READ = {
    "plain": (f"{TEXT}=It's fine, isn't it?", "It's fine, isn't it?"),
    "export": (f"export {TEXT}=hello", "hello"),
    "spaces": (f"  {TEXT} = hello  ", "hello"),
    "comment behind quotes": (f'{TEXT}="call #1" # said first', "call #1"),
    "comment alone": (f"#{TEXT}=no\n{TEXT}=yes", "yes"),
    "quotes escaped": (f'{TEXT}="Say \\"hello\\"."', 'Say "hello".'),
    "other quotes": (f"{TEXT}='Say \"hello\".'", 'Say "hello".'),
    "apostrophe": (f'{TEXT}="Don\'t"', "Don't"),
    "several lines": (f'{TEXT}="One.\n\nTwo: a=b\n# Three"\nMAX_CALLS=3', "One.\n\nTwo: a=b\n# Three"),
    "lines by escapes": (f'{TEXT}="One.\\nMAX_CALLS=3"', "One.\nMAX_CALLS=3"),
    "number sign in a word": (f"{TEXT}=a#b", "a#b"),
    "dollar": (f"{TEXT}=${{HOME}}", "${HOME}"),
}


@pytest.mark.parametrize("before", ["", "\ufeff", "\ufeff\n# first\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("env", "value"), READ.values(), ids=READ.keys())
def test_line_that_is_read(tmp_path: Path, env: str, value: str, newline: str, before: str) -> None:
    (tmp_path / "e").write_bytes((before + env + "\n").replace("\n", newline).encode())
    loaded = load({}, tmp_path / "e")
    assert loaded.settings.openai_system_instruction == value
    assert loaded.warnings == []


@pytest.mark.parametrize("name", [TEXT, "ARI_PASSWORD", "RECORDINGS_DIR", "ARI_PASS"])
def test_text_cut_off_at_a_number_sign_is_told(tmp_path: Path, name: str) -> None:
    loaded = from_files(tmp_path, env=f"\n{name}={SECRET} # {SECRET}\n")
    (warning,) = loaded.warnings
    assert warning.startswith(f"{name} (in {tmp_path / 'some.env'}, line 2) is cut off at the #")
    assert "double quotes" in warning
    assert SECRET not in warning
    (warning,) = from_files(tmp_path, yaml=f"a: 1\n{name}: {SECRET} # {SECRET}\n").warnings[:1]
    assert warning.startswith(f"{name} (in {tmp_path / 'some.yaml'}, line 2) is cut off at the #")


def test_comments_behind_other_values_are_comments(tmp_path: Path) -> None:
    env = f"MAX_CALLS=3 # three\nLOG_LEVEL=debug # much\n{TEXT}= # none\nRECORDINGS_DIR='a' # b\n"
    loaded = from_files(tmp_path, env=env, yaml="max_calls: 4 # four\nopenai_voice_id: 'x' # y\n")
    assert loaded.warnings == []
    assert loaded.settings.max_calls == 3
    assert loaded.settings.openai_system_instruction == ""


def test_name_that_stands_there_twice_is_told(tmp_path: Path) -> None:
    loaded = from_files(tmp_path, env="MAX_CALLS=3\n# more\nMAX_CALLS=4\n", yaml="redis_db: 1\nREDIS_DB: 2\n")
    assert loaded.settings.max_calls == 4
    assert loaded.settings.redis_db == 2
    calls, database = loaded.warnings
    assert calls.startswith("MAX_CALLS (in ")
    assert "lines 1 and 3" in calls
    assert database.startswith("REDIS_DB (in ")
    assert "lines 1 and 2" in database


def test_quotes_of_a_word_processor_are_told(tmp_path: Path) -> None:
    (warning,) = from_files(tmp_path, env=f"OPENAI_API_KEY=“{SECRET}”\n").warnings
    assert warning.startswith("OPENAI_API_KEY (in ")
    assert SECRET not in warning


WRONG_YAML = {
    "not YAML": ("a: 1\nb: [\n", "line 3"),
    "tab": ("a: 1\n\tb: 2\n", "line 2"),
    "control character": ("a: 1\nb: \x01\n", "line 2"),
    "list": ("# settings\n- a\n", "line 2"),
    "nested": ("max_calls: 3\nopenai:\n  voice: x\n", "OPENAI (in "),
    "second document": ("a: 1\n---\nb: 2\n", "line 2"),
    "value": ("redis_db: 1\n\nmax_calls: x\n", "line 3"),
}


@pytest.mark.parametrize(("yaml", "says"), WRONG_YAML.values(), ids=WRONG_YAML.keys())
def test_fault_in_yaml_has_file_and_line(tmp_path: Path, yaml: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_files(tmp_path, yaml=yaml)
    assert "some.yaml" in str(caught.value)
    assert "line" in str(caught.value)
    assert says in str(caught.value)


def test_yaml_with_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "y").write_bytes(
        "\ufeffmax_calls: 3\r\nopenai_system_instruction: |\r\n  a\r\n  b\r\n".encode()
    )
    loaded = load({}, None, tmp_path / "y")
    assert loaded.settings.max_calls == 3
    assert loaded.settings.openai_system_instruction == "a\nb"


def test_file_that_is_not_utf_8_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"MAX_CALLS=3\nARI_USERNAME=M\xfcller\n")
    with pytest.raises(SettingsError, match=r"e, line 2: .*UTF-8"):
        load({}, tmp_path / "e")


# --- levels of other programs ---


@pytest.mark.parametrize(
    ("word", "level", "told"),
    [
        ("warn", "warning", False),
        ("WARN", "warning", False),
        ("Warning", "warning", False),
        ("verbose", "info", True),
        ("HTTP", "info", True),
        ("silly", "debug", True),
        ("fatal", "error", True),
    ],
)
def test_levels_of_the_scripts_still_work(tmp_path: Path, word: str, level: str, told: bool) -> None:
    for loaded in (from_env(LOG_LEVEL=word), from_files(tmp_path, env=f"LOG_LEVEL={word}\n")):
        assert loaded.settings.log_level == level
        assert len(loaded.warnings) == told
        assert all(text.startswith("LOG_LEVEL (in ") and level in text for text in loaded.warnings)


# --- the template ---


@hypothesis_settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("#'\"\\ \n="), max_size=12))
def test_template_is_read_back_as_it_was_filled_in(value: str) -> None:
    path = Path("written.env")
    path.write_text(render({"HOLD_MUSIC": value, "MAX_CALLS": "7"}), encoding="utf-8")
    loaded = load({}, path)
    assert loaded.settings.hold_music == (value.strip() or "default")
    assert loaded.settings.max_calls == 7


@hypothesis_settings(max_examples=200)
@given(
    st.lists(st.text("ab=: '\"#\\\n\té", max_size=10) | st.sampled_from(["MAX_CALLS=3", "A='"]), max_size=6)
)
def test_any_text_gives_settings_or_an_error_that_names_the_line(pieces: list[str]) -> None:
    path = Path("any.env")
    path.write_text("\n".join(pieces), encoding="utf-8")
    told = "any.env, line "
    try:
        load({}, path)
    except SettingsError as error:
        told = str(error)
    assert "any.env, line " in told


# --- what is no file, or no text ---


def _directory(path: Path) -> None:
    path.mkdir()  # as Docker makes of a file that is to be mounted and is missing


def _link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [_directory, _link_to_nothing, _link_to_itself])
@pytest.mark.parametrize("name", [".env", "arivox.yaml"])
def test_what_cannot_be_read_is_told_also_under_its_default_name(
    make: Callable[[Path], None], name: str
) -> None:
    make(Path(name))
    with pytest.raises(SettingsError, match=rf"^{name}: cannot be read: "):
        load({})


@pytest.mark.parametrize("name", [".env", "arivox.yaml"])
def test_file_without_an_end_is_refused(name: str) -> None:
    Path(name).symlink_to("/dev/zero")
    with pytest.raises(SettingsError, match=rf"^{name}: is larger than 1 MB"):
        load({})


def test_pipe_and_the_null_device_are_read() -> None:
    read, write = os.pipe()
    os.write(write, b"MAX_CALLS=3\n")
    os.close(write)
    try:
        loaded = load({}, Path(f"/dev/fd/{read}"), Path(os.devnull))
    finally:
        os.close(read)
    assert loaded.settings.max_calls == 3


@pytest.mark.parametrize("name", [".env", "arivox.yaml"])
@pytest.mark.parametrize("between", ["\0", "\v", "\f", "\x85", "\x1b[0m"])
def test_control_character_is_refused_by_its_line(name: str, between: str) -> None:
    sign = "=" if name == ".env" else ": "
    Path(name).write_text(
        f"MAX_CALLS{sign}3\nARI_USERNAME{sign}a{between}ARI_PASSWORD{sign}{SECRET}\n", encoding="utf-8"
    )
    with pytest.raises(SettingsError, match=rf"^{name}, line 2: holds the control character") as caught:
        load({})
    assert SECRET not in str(caught.value)


def test_text_of_two_bytes_a_letter_is_refused() -> None:
    for encoding in ("utf-16", "utf-16-le"):
        Path(".env").write_text("ARI_USERNAME=a\n", encoding=encoding)
        with pytest.raises(SettingsError, match=r"^\.env, line 1: .*UTF-8"):
            load({})


@pytest.mark.parametrize("line", ["ARI_USERNAME=a ARI_PASSWORD=b", "export ARI_USERNAME=a; ARI_PASSWORD=b"])
def test_two_settings_in_one_line_are_told(tmp_path: Path, line: str) -> None:
    (warning,) = from_files(tmp_path, env=f"\n{line}\n").warnings
    assert warning.startswith(f"ARI_USERNAME (in {tmp_path / 'some.env'}, line 2) holds ARI_PASSWORD=")


def test_quotes_that_nobody_took_away_are_told() -> None:
    for quote in "'\"":
        (warning,) = from_env(ARI_PASSWORD=f"{quote}{SECRET}{quote}").warnings
        assert warning.startswith("ARI_PASSWORD (in the environment) is in quotes")
        assert SECRET not in warning
    assert from_env(ARI_PASSWORD="it's", OPENAI_SYSTEM_INSTRUCTION='Say "x"').warnings == []


@pytest.mark.parametrize("word", ["", "~", "null", "Null"])
def test_yaml_without_a_value_is_not_set(tmp_path: Path, word: str) -> None:
    loaded = from_files(tmp_path, yaml=f"prompts_file: {word}\nmax_calls: {word}\nari_username: 'null'\n")
    assert loaded.settings.prompts_file is None
    assert loaded.settings.max_calls == 50
    assert loaded.settings.ari_username == "null"
