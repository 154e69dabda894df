"""Runs the tools of one call, beside its audio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from arivox.call.actions import Continued
from arivox.call.timeline import Timeline
from arivox.conversation.conversation import Work
from arivox.tools import CallInfo, ToolError

log = structlog.get_logger()

_LONGEST: Final = 16_000
"""Characters of a result that an AI is told."""
_CLOSE_S: Final = 15.0
"""Longer than an action takes to bring the caller back, where Asterisk answers."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a tool."""

    output: str
    """For the AI: JSON."""
    problem: str = ""
    learned: dict[str, str] = field(default_factory=dict)
    broken: bool = False
    """It failed by a bug, of ours or of the tool."""
    continued: Continued | None = None
    """It goes on once this was said."""


class ToolRunner:
    """``act`` runs the tools that act on the call, ``info`` describes the call to the others."""

    def __init__(
        self,
        timeline: Timeline,
        act: Callable[[str, dict[str, str]], Awaitable[Any]],
        info: Callable[[], CallInfo],
    ) -> None:
        self._timeline = timeline
        self._act = act
        self._info = info
        self._tasks: dict[asyncio.Task[None], tuple[str, bool]] = {}  # the AI's call, and if it can be undone

    @property
    def running(self) -> int:
        """Return how many tools, or rows of them, are at work."""
        return len(self._tasks)

    def start(self, works: Sequence[Work], done: Callable[[list[Result]], None], call_id: str = "") -> None:
        """Run tools one after another, until one fails; ``done`` is told what came of them."""
        name = f"tool {', '.join(work.name for work in works)}"
        task = asyncio.get_running_loop().create_task(self._run(works, done), name=name)
        self._tasks[task] = (call_id, all(work.own is None for work in works))
        task.add_done_callback(self._ended)

    def goes_on(self, call_id: str) -> bool:
        """Return whether a tool of the user's own is at work for a call of the AI: nobody can undo it."""
        return any(key == call_id and not undone for key, undone in self._tasks.values())

    def cancel(self, call_id: str) -> bool:
        """Stop the tools of a call of the AI; return whether there were any."""
        tasks = [task for task, (key, _) in self._tasks.items() if call_id and key == call_id]
        for task in tasks:
            task.cancel()
        return bool(tasks)

    async def close(self) -> None:
        """Stop all tools, and wait until they have stopped, but not for one that will not."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, stubborn = await asyncio.wait(tasks, timeout=_CLOSE_S)
            for task in stubborn:
                log.error("cannot be stopped", task=task.get_name())

    async def _run(self, works: Sequence[Work], done: Callable[[list[Result]], None]) -> None:
        results: list[Result] = []
        learned: dict[str, str] = {}
        for work in works:
            result = await self._work(work, learned)
            results.append(result)
            learned |= result.learned
            if result.problem:
                break
        done(results)
        if results and (continued := results[-1].continued) is not None:
            await continued.then()

    async def _work(self, work: Work, learned: dict[str, str]) -> Result:
        begun = time.monotonic()
        arguments = _json(work.arguments)
        self._timeline.add("tool.started", name=work.name, arguments=arguments)
        result = Result(_json({"error": "it was broken off"}), "it was broken off")
        try:
            result = await self._result(work, learned)
        finally:
            ms = round((time.monotonic() - begun) * 1000)
            self._timeline.add("tool", name=work.name, arguments=arguments, output=result.output, ms=ms)
        return result

    async def _result(self, work: Work, learned: dict[str, str]) -> Result:
        own = work.own
        try:
            info = self._info()
            info.known = {**info.known, **learned}
            if own is None:
                value = await self._act(work.name, work.arguments)
                if isinstance(value, Continued):
                    return Result(_json({"say": value.say}), continued=value)
            else:
                async with asyncio.timeout(own.timeout_s):
                    value = await own.work(info, work.arguments)
            output = _json({"ok": True} if value is None else value)
            result = Result(output, learned={name: str(value) for name, value in info.learned.items()})
        except ToolError as error:
            return _failed(str(error) or "it failed")
        except TimeoutError:
            log.warning("a tool gave no result in time", tool=work.name)
            return _failed(f"it gave no result within {own.timeout_s:g} s" if own else "it took too long")
        except Exception as error:
            log.exception("a tool failed by a bug", tool=work.name)
            return Result(_json({"error": "it failed"}), f"it failed: {type(error).__name__}", broken=True)
        if len(output) > _LONGEST:
            log.warning("a tool's result is too long for an AI", tool=work.name, characters=len(output))
            return _failed(f"its result is longer than {_LONGEST} characters")
        return result

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("what a tool led to failed by a bug of ours", exc_info=error)


def _failed(problem: str) -> Result:
    problem = problem[:_LONGEST].encode(errors="replace").decode()
    return Result(_json({"error": problem}), problem)


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
