"""Tools at work beside a call: results, failures, time-outs, and being broken off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog

from arivox.actions import Continued
from arivox.conversation.conversation import Work
from arivox.conversation.tools.tool import OwnTool
from arivox.timeline import Timeline
from arivox.toolrunner import Result, ToolRunner
from arivox.tools import CallInfo, ToolError


def own(work: Callable[[CallInfo, Any], Awaitable[Any]], timeout_s: float = 5.0) -> Work:
    return Work("own", {"a": "b"}, OwnTool("own", "Own.", {}, dict, work, timeout_s))


class Bench:
    """A runner, and what it was told to do."""

    def __init__(self, act: Callable[[str, dict[str, str]], Awaitable[Any]] | None = None) -> None:
        self.timeline = Timeline("c1")
        self.known: dict[str, str] = {"k": "v"}
        self.runner = ToolRunner(self.timeline, act or self._act, self._info)

    async def _act(self, name: str, arguments: dict[str, str]) -> Any:
        raise ToolError(f"cannot {name}")

    def _info(self) -> CallInfo:
        return CallInfo("c1", "ch", "555", "700", "menu", self.known, {"pin": "7391"})

    async def run(self, *works: Work) -> list[Result]:
        done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self.runner.start(works, done.set_result)
        async with asyncio.timeout(5):
            return await done


async def returns(value: Any) -> Any:
    return value


async def test_result_is_json_and_on_the_timeline_with_its_time() -> None:
    bench = Bench()
    (result,) = await bench.run(own(lambda call, _: returns({"known": dict(call.known)})))
    assert json.loads(result.output) == {"known": {"k": "v"}}
    started, ended = bench.timeline.find("tool.started") + bench.timeline.find("tool")
    assert started.data == {"name": "own", "arguments": '{"a":"b"}'}
    assert (ended.data["output"], ended.data["ms"]) == (result.output, 0)
    assert "7391" not in json.dumps(bench.timeline.as_dict())


@pytest.mark.parametrize(
    ("error", "problem", "broken", "logged"),
    [
        (ToolError("sold out"), "sold out", False, ""),
        (ToolError(), "it failed", False, ""),
        (ZeroDivisionError(), "it failed: ZeroDivisionError", True, "a tool failed by a bug"),
    ],
)
async def test_failure_is_told(error: Exception, problem: str, broken: bool, logged: str) -> None:
    async def fail(call: CallInfo, arguments: Any) -> None:
        raise error

    with structlog.testing.capture_logs() as log:
        (result,) = await Bench().run(own(fail))
    assert (result.problem, result.broken) == (problem, broken)
    assert "error" in json.loads(result.output)
    assert [line["event"] for line in log] == ([logged] if logged else [])


async def test_time_out_stops_the_tool() -> None:
    stopped = asyncio.Event()

    async def hang(call: CallInfo, arguments: Any) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()

    (result,) = await Bench().run(own(hang, 0.01))
    assert result.problem == "it gave no result within 0.01 s"
    assert not result.broken
    assert stopped.is_set()


@pytest.mark.parametrize("value", ["x" * 20_000, {"x": "é" * 16_001}])
async def test_result_that_is_too_long_is_an_error(value: Any) -> None:
    (result,) = await Bench().run(own(lambda _, __: returns(value)))
    assert result.problem == "its result is longer than 16000 characters"


async def test_any_object_is_told_as_text() -> None:
    (result,) = await Bench().run(own(lambda _, __: returns({"x": CallInfo})))
    assert "CallInfo" in result.output


async def test_what_one_finds_out_the_next_knows_and_the_first_failure_ends_it() -> None:
    async def find(call: CallInfo, arguments: Any) -> None:
        call.remember(slot="nine")

    async def refuse(call: CallInfo, arguments: Any) -> None:
        raise ToolError(f"{call.known['slot']} is taken")

    results = await Bench().run(own(find), own(refuse), own(find))
    assert [result.problem for result in results] == ["", "nine is taken"]
    assert results[0].learned == {"slot": "nine"}


async def test_tools_that_act_on_the_call_are_run_there() -> None:
    (result,) = await Bench().run(Work("hold_call", {"seconds": "3"}, None))
    assert result.problem == "cannot hold_call"


async def test_action_goes_on_after_it_was_told() -> None:
    order: list[str] = []

    async def act(name: str, arguments: dict[str, str]) -> Any:
        return Continued("Say this.", then)

    async def then() -> None:
        order.append("then")

    bench = Bench(act)
    bench.runner.start([Work("transfer_call", {}, None)], lambda results: order.append(results[-1].output))
    while bench.runner.running:
        await asyncio.sleep(0)
    assert order == ['{"say":"Say this."}', "then"]


async def test_tool_that_is_broken_off_says_nothing() -> None:
    said: list[Any] = []

    async def hang(call: CallInfo, arguments: Any) -> None:
        await asyncio.get_running_loop().create_future()

    bench = Bench()
    bench.runner.start([own(hang)], said.append, "call-1")
    await asyncio.sleep(0)
    assert bench.runner.cancel("call-1")
    assert not bench.runner.cancel("call-2")
    await bench.runner.close()
    assert (said, bench.runner.running) == ([], 0)
    assert bench.timeline.find("tool")[0].data["output"] == '{"error":"it was broken off"}'
