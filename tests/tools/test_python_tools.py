"""Python functions as tools: what an AI is told of them, and what it may not do with them."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        {"pizza": "x", "count": True},
        {"pizza": "x", "count": 1.5},
        {"pizza": "x", "count": "1" * 5000},
        {"pizza": "x", "extras": "cheese"},
        {"pizza": None},
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


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(["pizza", "count", "size", "extras", "call", "\n"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_any_arguments_are_read_or_refused(values: dict[str, Any]) -> None:
    try:
        read = python.of_function(price).read(values)
    except ValueError:
        return
    assert list(read) == ["pizza", "count", "size", "extras"]
    assert isinstance(read["pizza"], str)
    assert type(read["count"]) is int


async def test_tools_that_hang_leave_room_for_others_and_for_the_look_up_of_names() -> None:
    released = threading.Event()

    @tool()
    def hang() -> None:
        """Hang."""
        released.wait(30)

    @tool()
    def work() -> str:
        """Work."""
        return "done"

    hanging = [asyncio.ensure_future(python.of_function(hang).work(CALL, {})) for _ in range(64)]
    try:
        async with asyncio.timeout(5):
            assert await python.of_function(work).work(CALL, {}) == "done"
            assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
    finally:
        for one in hanging:
            one.cancel()
        assert all(isinstance(one, asyncio.CancelledError) for one in await _results(hanging))
        released.set()  # what they return now is nobody's


async def _results(working: Sequence[asyncio.Future[Any]]) -> list[Any]:
    return await asyncio.gather(*working, return_exceptions=True)


def stop_iteration() -> None:
    """Look for one that is not there."""
    next(iter(()))


def sys_exit() -> None:
    """End the program."""
    sys.exit(3)


async def sys_exit_in_the_loop() -> None:
    """End the service."""
    sys.exit(3)


def cancelled() -> None:
    """Seem to be broken off."""
    raise asyncio.CancelledError


async def cancelled_in_the_loop() -> None:
    """Wait for what was broken off."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@pytest.mark.parametrize(
    "function", [stop_iteration, sys_exit, sys_exit_in_the_loop, cancelled, cancelled_in_the_loop]
)
async def test_odd_ends_of_a_tool_are_errors_like_others(function: Callable[..., Any]) -> None:
    own = python.of_function(tool()(function))
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError):
            await own.work(CALL, {})


@pytest.mark.parametrize("blocks", [True, False])
async def test_tool_that_is_broken_off_ends_as_such(blocks: bool) -> None:
    released = threading.Event()

    def wait() -> None:
        """Wait in a thread."""
        released.wait(30)

    async def wait_in_the_loop() -> None:
        """Wait in the loop."""
        await asyncio.get_running_loop().create_future()

    own = python.of_function(tool()(wait if blocks else wait_in_the_loop))
    working = asyncio.ensure_future(own.work(CALL, {}))
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    released.set()


async def test_async_function_behind_a_plain_decorator_is_awaited() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return call

    @tool()
    @logged
    async def look(order: str) -> str:
        """Look."""
        await asyncio.sleep(0)
        return order

    own = python.of_function(look)
    assert await own.work(CALL, own.read({"order": "7"})) == "7"


def test_types_that_an_ai_can_fill_in() -> None:
    @tool()
    def order(
        number: Annotated[int, "Number of the order"],
        note: Annotated[str, "What to tell the cook"] | None = None,
        sizes: list[Literal["small", "large"]] | None = None,
        kind: Literal[1, 2] = 1,
        sure: bool = False,
        weight: Optional[float] = None,  # noqa: UP045 - people write this too
        *,
        call: CallInfo,
    ) -> None:
        """Order."""

    own = python.of_function(order)
    properties = own.parameters["properties"]
    assert own.parameters["required"] == ["number"]
    assert json.loads(json.dumps(own.parameters)) == own.parameters
    assert list(properties) == ["number", "note", "sizes", "kind", "sure", "weight"]
    assert properties["number"] == {"type": "integer", "description": "Number of the order"}
    assert {"type": "string", "description": "What to tell the cook"} in properties["note"]["anyOf"]
    read = own.read({"number": "7", "note": None, "sizes": ["large"], "kind": 2, "sure": "true", "weight": 1})
    assert read == {"number": 7, "note": None, "sizes": ["large"], "kind": 2, "sure": True, "weight": 1.0}
    for wrong in ({"sizes": ["huge"]}, {"kind": 3}, {"sure": "perhaps"}, {"weight": "much"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            own.read({"number": 7, **wrong})


def test_default_that_is_a_list_is_not_shared() -> None:
    @tool()
    def order(extras: list[str] = []) -> None:  # noqa: B006 - this is what is tried
        """Order."""

    own = python.of_function(order)
    own.read({})["extras"].append("cheese")
    assert own.read({}) == {"extras": []}


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


def größe() -> None:
    """Have a name that an AI cannot write."""


def shared(x: list[str] = ["a"]) -> None:  # noqa: B006 - this is what is tried
    """Have a default that calls would share."""


def odd(x: Callable[[], None]) -> None:
    """Take a function."""


def long_name() -> None:
    """Have a name that is too long."""


long_name.__name__ = "x" * 65


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (größe, "tool 'größe' has a name that an AI cannot call"),
        (long_name, "has a name that an AI cannot call"),
        (lambda: None, "tool '<lambda>' has a name that an AI cannot call"),
        (shared, "tool 'shared' cannot be called: .*unsafe"),
        (odd, "tool 'odd' cannot take 'x'"),
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


DEFINED = "from arivox.tools import tool\n@tool()\ndef f() -> None:\n    'F.'\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def (", "failed: SyntaxError"),
        ("1 / 0", "failed: ZeroDivisionError"),
        ("x = 1", "has no tool"),
        ("raise SystemExit(0)", "failed: SystemExit"),
        ("import nothing_of_this_name", "failed: ModuleNotFoundError"),
        ("x = '\0'", "failed: (ValueError|SyntaxError)"),
        ("from arivox.tools import tool\n@tool\ndef f() -> None:\n    'F.'\n", "failed: TypeError"),
        (
            f"{DEFINED}first = f\n@tool()\ndef f(x: int) -> None:\n    'Another.'\n",
            "there are two tools 'f'",
        ),
        *(
            (DEFINED.replace(" f(", f" {name}("), f"{name!r} is the name of a tool of Arivox")
            for name in ("hold_call", "end_call", "transfer_call", "move_to_state", "not_understood")
        ),
    ],
)
def test_file_that_cannot_be_loaded_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "tools.py"
    file.write_text(text)
    with pytest.raises(SettingsError, match=problem) as caught:
        ToolBox(file, Calendar(":memory:"))
    assert caught.value.setting == "TOOLS_FILE"


def test_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tools.py"
    file.write_bytes(b"x = '\xff'\n")
    with pytest.raises(SettingsError, match="failed: SyntaxError"):
        python.load_file(file)


def test_whatever_else_a_file_has_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "my tools-1.0.py"
    file.write_text(
        DEFINED + "class Proxy:\n"
        "    def __getattr__(self, name): raise RuntimeError('outside of a request')\n"
        "    def __hash__(self): raise RuntimeError('outside of a request')\n"
        "request = Proxy()\nalias = f\n@tool()\nclass Thing: 'A class.'\n"
    )
    assert list(python.load_file(file)) == ["f"]


def test_types_of_the_file_itself_are_found(tmp_path: Path) -> None:
    file = tmp_path / "tools.py"
    file.write_text(
        "from __future__ import annotations\nfrom typing import Literal\n"
        "from arivox.tools import CallInfo, tool\n"
        "Size = Literal['small', 'large']\n"
        "@tool()\ndef order(call: CallInfo, size: Size = 'small') -> None:\n    'Order.'\n"
    )
    assert set(python.load_file(file)["order"].parameters["properties"]["size"]["enum"]) == {"small", "large"}


@pytest.mark.parametrize("name", ["none.py", "folder", "folder.py", "tools.txt"])
def test_what_is_no_python_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.py").mkdir()
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
    assert box.facts["find_slot"].finds == ("slot",)
