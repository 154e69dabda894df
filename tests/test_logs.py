"""Logs: numbers are masked, levels hold, and each format is what its reader expects."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from arivox import logs
from arivox.logs import FROM_PROVIDER, TO_PROVIDER, mask
from arivox.settings.settings import Settings


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers.clear()  # setup() would close those of pytest
    config = structlog.get_config()
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.configure(**config)


def written(settings: Settings, *, tty: bool = False) -> io.StringIO:
    stream = io.StringIO()
    if tty:
        stream.isatty = lambda: True  # type: ignore[method-assign]
    logs.setup(settings, stream)
    return stream


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("+15551234567", "+*********67"),
        ("0151 234-5678", "**** ***-**78"),
        ("12345", "***45"),
        ("1234", "1234"),
        ("700", "700"),
        ("tester", "tester"),
        ("", ""),
        ("anonymous", "anonymous"),
        ("sip:4915112345678@example.org", "sip:*************@example.org"),
    ],
)
def test_mask(number: str, shown: str) -> None:
    assert mask(number) == shown


@given(st.text(alphabet="0123456789+- ().abc", max_size=30))
def test_mask_never_shows_more_than_two_digits_of_a_number(number: str) -> None:
    shown = mask(number)
    assert len(shown) == len(number)
    if sum(character.isdigit() for character in number) >= 5:
        assert sum(character.isdigit() for character in shown) <= 2
        assert mask(shown) == shown
    else:
        assert shown == number


def test_json_lines_hold_level_call_and_values() -> None:
    stream = written(Settings(log_format="json"))
    with structlog.contextvars.bound_contextvars(call="7f3a"):
        structlog.get_logger().info("agent", text="Grüß Gott", port=12000)
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "agent", "level": "info", "call": "7f3a", "text": "Grüß Gott", "port": 12000}


def test_json_holds_the_traceback_of_a_bug() -> None:
    stream = written(Settings(log_format="json"))
    structlog.get_logger().error("failed", exc_info=ZeroDivisionError("by us"))
    assert "ZeroDivisionError: by us" in json.loads(stream.getvalue())["exception"]


@pytest.mark.parametrize("form", ["human", "json"])
def test_traceback_shows_no_values(form: Literal["human", "json"]) -> None:
    stream = written(Settings(log_format=form))
    secret = "7391"
    try:
        int(secret + "?")
    except ValueError:
        structlog.get_logger().exception("failed")
    text = stream.getvalue()
    assert "test_traceback_shows_no_values" in text
    assert "'7391'" not in text


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_level_hides_what_is_below_it(level: str) -> None:
    stream = written(Settings(log_format="json", log_level=level))  # type: ignore[arg-type]
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), name)(name)
    names = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    all_names = ["debug", "info", "warning", "error"]
    assert names == all_names[all_names.index(level) :]


def test_auto_is_json_for_programs_and_text_for_people() -> None:
    stream = written(Settings())
    structlog.get_logger().info("hello")
    assert json.loads(stream.getvalue())["event"] == "hello"
    stream = written(Settings(), tty=True)
    structlog.get_logger().info("hello")
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_terminal_tells_the_two_directions_apart_by_colour() -> None:
    stream = written(Settings(log_format="human"), tty=True)
    structlog.get_logger().info("sent", origin=TO_PROVIDER)
    structlog.get_logger().info("received", origin=FROM_PROVIDER)
    sent, received = stream.getvalue().splitlines()
    assert "-> AI sent" in sent
    assert "<- AI received" in received
    assert "\x1b[36m" in sent
    assert "\x1b[35m" in received


def test_text_in_a_file_has_no_colours() -> None:
    stream = written(Settings(log_format="human"))
    structlog.get_logger().info("sent", origin=TO_PROVIDER)
    assert "\x1b" not in stream.getvalue()


def test_libraries_are_heard_from_warnings_up() -> None:
    stream = written(Settings(log_format="json"))
    logging.getLogger("aiohttp").info("chatter")
    logging.getLogger("aiohttp").warning("trouble")
    assert stream.getvalue() == "aiohttp: trouble\n"
