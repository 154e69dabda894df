"""Python functions as tools: what an AI is told of them, and what it may not do with them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from arivox.conversation.tools import python
from arivox.conversation.tools.box import ToolBox
from arivox.conversation.tools.calendar import Calendar
from arivox.errors import SettingsError
from arivox.tools import CallInfo, ToolError, tool

CALL = CallInfo("c1", "ch1", "555", "700", "menu", {"pizza": "Funghi"}, {"pin": "1234"})


@tool(timeout_s=2, say="One moment.", finds=["price"])
def price(
    call: CallInfo,
    pizza: Annotated[str, "Which pizza"],
    count: int = 1,
    size: Literal["small", "large"] = "small",
    extras: list[str] | None = None,
) -> dict[str, Any]:
    """Say what it costs.

    Whatever it is.
    """
    call.remember(price="9")
    return {"pizza": pizza, "count": count, "size": size, "extras": extras, "pin": call.secrets["pin"]}


def test_signature_is_what_the_ai_is_told() -> None:
    own = python.of_function(price)
    assert (own.name, own.timeout_s, own.say, own.finds) == ("price", 2, "One moment.", ("price",))
    assert own.description == "Say what it costs.\n\nWhatever it is."
    assert own.parameters["required"] == ["pizza"]
    properties = own.parameters["properties"]
    assert list(properties) == ["pizza", "count", "size", "extras"]
    assert properties["pizza"] == {"type": "string", "description": "Which pizza"}
    assert properties["size"]["enum"] == ["large", "small"]


async def test_arguments_are_read_and_the_call_is_given() -> None:
    own = python.of_function(price)
    arguments = own.read({"pizza": "Funghi", "count": "2"})
    assert await own.work(CALL, arguments) == {
        "pizza": "Funghi",
        "count": 2,
        "size": "small",
        "extras": None,
        "pin": "1234",
    }
    assert CALL.learned == {"price": "9"}
    assert "1234" not in repr(CALL)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"pizza": ["x"]},
        {"pizza": "x", "count": "many"},
        {"pizza": "x", "size": "huge"},
        {"pizza": "x", "extras": [7]},
        {"pizza": "x", "sauce": "hot"},
        {"pizza": "x", "call": {}},
    ],
)
def test_wrong_arguments_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        python.of_function(price).read(values)


async def test_plain_function_does_not_block_the_loop_and_its_errors_come_through() -> None:
    released = threading.Event()

    @tool()
    def wait() -> str:
        """Wait until the loop has gone on."""
        assert released.wait(5)
        raise ToolError("done")

    working = asyncio.ensure_future(python.of_function(wait).work(CALL, {}))
    await asyncio.sleep(0)
    released.set()  # only a loop that goes on gets here
    with pytest.raises(ToolError, match="done"):
        await working


async def test_async_function_runs_in_the_loop() -> None:
    @tool()
    async def where() -> bool:
        """Say where it runs."""
        return threading.current_thread() is threading.main_thread()

    assert await python.of_function(where).work(CALL, {})


def test_tool_that_never_returns_does_not_keep_the_process() -> None:
    code = """
import asyncio, threading
from arivox.conversation.tools import python
from arivox.tools import CallInfo, tool

@tool()
def hang() -> None:
    "Hang."
    threading.Event().wait()

async def main():
    try:
        await asyncio.wait_for(python.of_function(hang).work(CallInfo("", "", "", "", "", {}), {}), 0.05)
    except TimeoutError:
        print("given up")

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "given up\n", "")


def no_docstring(x: str) -> None: ...


def no_hint(x) -> None:  # type: ignore[no-untyped-def]
    """Have no hint."""


def nested(x: CallInfo | None, y: dict[str, CallInfo]) -> None:
    """Take what no AI can write."""


def many(*x: str) -> None:
    """Take as many as there are."""


def unknown(x: "Nothing") -> None:  # type: ignore[name-defined] # noqa: F821, UP037
    """Have a hint that is nowhere."""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (no_docstring, "tool 'no_docstring' has no docstring"),
        (no_hint, "tool 'no_hint' has no type hint for 'x'"),
        (nested, "tool 'nested' cannot take"),
        (many, "has a parameter that cannot be named"),
        (unknown, "has type hints that cannot be read"),
    ],
)
def test_function_that_cannot_be_told_is_refused(function: Callable[..., Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        python.of_function(tool()(function))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def (", "failed: SyntaxError"),
        ("1 / 0", "failed: ZeroDivisionError"),
        ("x = 1", "has no tool"),
        (
            "from arivox.tools import tool\n@tool()\ndef hold_call() -> None:\n    'Hold.'\n",
            "'hold_call' is the name of a tool of Arivox",
        ),
    ],
)
def test_file_that_cannot_be_loaded_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "tools.py"
    file.write_text(text)
    with pytest.raises(SettingsError, match=problem) as caught:
        ToolBox(file, Calendar(":memory:"))
    assert caught.value.setting == "TOOLS_FILE"


@pytest.mark.parametrize("name", ["none.py", "folder", "tools.txt"])
def test_what_is_no_python_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "tools.txt").write_text("x = 1")
    with pytest.raises(SettingsError, match="is not a file of Python code"):
        python.load_file(tmp_path / name)


def test_own_tool_replaces_one_of_the_package(tmp_path: Path) -> None:
    file = tmp_path / "tools.py"
    file.write_text(
        "from arivox.tools import tool\n@tool(finds=['slot'])\ndef find_slot() -> None:\n    'Mine.'\n"
    )
    box = ToolBox(file, Calendar(":memory:"))
    assert box.with_endpoints({})["find_slot"].description == "Mine."
    assert box.finds["find_slot"] == ("slot",)
