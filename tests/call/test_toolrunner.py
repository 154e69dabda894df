"""Tools at work beside a call: results, failures, time-outs, and being broken off."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from arivox.call import toolrunner
from arivox.call.actions import Continued
from arivox.call.timeline import Timeline
from arivox.call.toolrunner import Result, ToolRunner
from arivox.conversation.conversation import Work
from arivox.conversation.tools import python
from arivox.conversation.tools.calendar import Calendar
from arivox.conversation.tools.tool import OwnTool
from arivox.tools import CallInfo, ToolError, tool

SECRET = "73915826"  # long enough that no time happens to hold it


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
        return CallInfo("c1", "ch", "555", "700", "menu", self.known, {"pin": SECRET})

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
    assert ended.data["output"] == result.output
    assert isinstance(ended.data["ms"], int)
    assert 0 <= ended.data["ms"] < 5000
    assert SECRET not in json.dumps(bench.timeline.as_dict())


@pytest.mark.parametrize(
    ("error", "problem", "broken", "logged"),
    [
        (ToolError("sold out"), "sold out", False, ""),
        (ToolError(), "it failed", False, ""),
        (ToolError("no \ud800"), "no ?", False, ""),
        (ToolError("x" * 20_000), "x" * 16_000, False, ""),
        (OSError("https://shop/?key=s3cret"), "it failed: OSError", True, "a tool failed by a bug"),
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
    assert "s3cret" not in result.output
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


async def test_time_out_of_a_function_in_a_thread_is_told_though_it_goes_on() -> None:
    released, ended = threading.Event(), threading.Event()

    @tool(timeout_s=0.01)
    def hang(call: CallInfo) -> None:
        """Hang."""
        released.wait(30)
        call.remember(late="yes")
        ended.set()

    bench = Bench()
    (result,) = await bench.run(Work("hang", {}, python.of_function(hang)))
    assert (result.problem, result.learned) == ("it gave no result within 0.01 s", {})
    released.set()
    assert ended.wait(5)
    assert len(bench.timeline.find("tool")) == 1


async def test_action_that_runs_out_of_time_is_told() -> None:
    async def act(name: str, arguments: dict[str, str]) -> Any:
        raise TimeoutError

    (result,) = await Bench(act).run(Work("hold_call", {}, None))
    assert (result.problem, result.broken) == ("it took too long", False)


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value", ["\ud800", LOOP, Unspeakable(), {("a", 1): Unspeakable()}, {Unspeakable(): 1}]
)
async def test_result_that_cannot_be_told_is_a_bug_of_the_tool(value: Any) -> None:
    bench = Bench()
    with structlog.testing.capture_logs() as log:
        (result,) = await bench.run(own(lambda _, __: returns(value)))
    assert result.broken
    assert result.output == '{"error":"it failed"}'
    assert bench.timeline.find("tool")[0].data["output"] == result.output
    assert [line["event"] for line in log] == ["a tool failed by a bug"]


async def test_what_cannot_be_remembered_is_a_bug_of_the_tool() -> None:
    async def remember(call: CallInfo, arguments: Any) -> None:
        call.learned["x"] = Unspeakable()  # type: ignore[assignment]

    with structlog.testing.capture_logs():
        (result,) = await Bench().run(own(remember))
    assert result.broken
    assert result.learned == {}


async def test_call_that_cannot_be_described_is_a_bug_and_is_told() -> None:
    bench = Bench()
    runner = ToolRunner(bench.timeline, bench.runner._act, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
    with structlog.testing.capture_logs():
        runner.start([own(lambda _, __: returns(1))], done.set_result)
        async with asyncio.timeout(5):
            (result,) = await done
    assert result.broken


async def test_secrets_reach_the_tool_and_nothing_else() -> None:
    bench = Bench()
    seen: list[str] = []

    async def check(call: CallInfo, arguments: Any) -> Any:
        seen.append(call.secrets["pin"])
        if len(seen) == 1:
            raise ValueError(repr(call))
        return repr(call)

    with structlog.testing.capture_logs() as log:
        failed, told = await bench.run(own(check)) + await bench.run(own(check))
    assert seen == [SECRET, SECRET]
    assert "menu" in told.output
    assert (failed.broken, told.broken) == (True, False)
    assert SECRET not in "".join((failed.output, failed.problem, told.output, str(log)))
    assert SECRET not in json.dumps(bench.timeline.as_dict())
    assert SECRET not in repr(own(check)) + repr(bench._info())


async def test_of_two_the_second_is_not_run_after_a_failure_and_is_broken_off_with_the_first() -> None:
    bench, ran = Bench(), list[str]()

    def named(name: str, problem: str = "") -> Work:
        async def work(call: CallInfo, arguments: Any) -> None:
            ran.append(name)
            if problem:
                raise ToolError(problem)
            if name == "hang":
                await asyncio.get_running_loop().create_future()

        return own(work)

    results = await bench.run(named("first", "no"), named("second"))
    assert ([result.problem for result in results], ran) == (["no"], ["first"])
    bench.runner.start([named("hang"), named("third")], lambda _: ran.append("done"), "call-1")
    while "hang" not in ran:
        await asyncio.sleep(0)
    assert bench.runner.cancel("call-1")
    await bench.runner.close()
    assert ran == ["first", "hang"]


async def test_calls_of_one_id_are_all_broken_off_and_those_of_the_flow_only_at_the_end() -> None:
    bench, stopped = Bench(), list[str]()

    def hang(name: str) -> Work:
        async def work(call: CallInfo, arguments: Any) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                stopped.append(name)

        return own(work)

    for name, call_id in (("a", "1"), ("b", "1"), ("flow", ""), ("c", "2")):
        bench.runner.start([hang(name)], lambda _: None, call_id)
    await asyncio.sleep(0)
    assert bench.runner.running == 4
    assert not bench.runner.cancel("")
    assert bench.runner.cancel("1")
    while bench.runner.running > 2:
        await asyncio.sleep(0)
    assert sorted(stopped) == ["a", "b"]
    assert not bench.runner.cancel("1")
    await bench.runner.close()
    assert sorted(stopped) == ["a", "b", "c", "flow"]
    await bench.runner.close()


async def test_tool_that_cannot_be_stopped_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolrunner, "_CLOSE_S", 0.01)
    released = asyncio.Event()

    async def cling(call: CallInfo, arguments: Any) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    bench = Bench()
    bench.runner.start([own(cling)], lambda _: None)
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as log:
        async with asyncio.timeout(5):
            await bench.runner.close()
    assert log == [{"event": "cannot be stopped", "log_level": "error", "task": "tool own"}]
    released.set()
    while bench.runner.running:
        await asyncio.sleep(0)


@pytest.mark.parametrize("in_then", [True, False])
async def test_bug_in_what_follows_is_logged_and_others_go_on(in_then: bool) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    def done(results: list[Result]) -> None:
        if not in_then:
            raise ZeroDivisionError

    async def act(name: str, arguments: dict[str, str]) -> Any:
        return Continued("Say this.", fail)

    bench = Bench(act)
    with structlog.testing.capture_logs() as log:
        bench.runner.start([Work("transfer_call", {}, None)], done)
        while bench.runner.running:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert [line["event"] for line in log] == ["what a tool led to failed by a bug of ours"]
    assert (await bench.run(own(lambda _, __: returns("still"))))[0].output == '"still"'


async def test_calendar_that_cannot_be_read_is_a_bug_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "calendar.db").write_text("not a database, but long enough to be looked at" * 20)
    find = Calendar(tmp_path / "calendar.db").tools()["find_slot"]
    with structlog.testing.capture_logs() as log:
        (result,) = await Bench().run(Work("find_slot", find.read({"day": "any"}), find))
    assert (result.output, result.problem) == ('{"error":"it failed"}', "it failed: DatabaseError")
    assert result.broken
    assert len(log) == 1


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
