"""The tasks that the agent has handed to the backend model, and the tools they call. Pure.

A task is one response of the backend model after another. ``now`` is in seconds on any steady clock.

| what is heard of a task | what follows |
|---|---|
| it was handed over, or a response begins | it is at work; calls of one that never ended are forgotten |
| a call that says it is incomplete | it is neither run nor answered |
| any other call | it is kept until its response is over |
| the response is complete | its calls are run; the backend model goes on when all their results are in |
| the same, without a call | the agent is to speak of what came of it, unless it has begun already |
| the response is incomplete | calls that say they are complete are run; without one: as when it failed |
| it was cancelled | its calls are forgotten; the agent is to speak |
| it failed | its calls are forgotten; it goes on when the service says, or after 1 s, 2 s, 4 s |
| it failed for the fourth time in a row, or will not fare better | it is given up |
| a call that says it is complete, then nothing for 2 s | the call is run: the response's end is not told |
| nothing for 8 s | the agent is to speak meanwhile; what comes later still counts |
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from arivox.providers.refusal import LONGEST_WAIT_S

MOST_FAILURES: Final = 3
"""So many failures of a task in a row are followed by another attempt."""
UNTOLD_S: Final = 2.0
"""Without news of a response that has made a complete call: its end is not told."""
SLOW_S: Final = 8.0
"""Without news of a task that is at work."""

_NEVER: Final = float("inf")
_FIRST_WAIT_S: Final = 1.0
_SHORTEST_WAIT_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool, as the backend model's item tells it."""

    call_id: str
    name: str
    arguments: str
    status: str | None = None
    """``completed``, ``incomplete`` or ``in_progress``; None when the service does not say."""


class Ask(Enum):
    """What is asked of the AI for a task."""

    GO_ON = auto()
    """The backend model goes on."""
    SPEAK = auto()
    """The agent has something to speak of; it begins by itself."""
    SLOW = auto()
    """The agent should speak meanwhile: the task takes long, or hangs."""


Step = Call | Ask


@dataclass(slots=True)
class _Task:
    working: bool = False  # a response is in progress
    heard_at: float = -_NEVER
    calls: dict[str, Call] = field(default_factory=dict)  # of that response
    open: set[str] = field(default_factory=set)  # calls without a result
    wanted: bool = False  # it is to go on as soon as it can
    again_at: float = _NEVER  # it failed, and is to go on then
    failures: int = 0
    slow: bool = False  # that it takes long was told
    written_at: float = _NEVER  # when its response had the first words for the agent

    @property
    def due(self) -> float:
        """Return when it must be looked at again."""
        if not self.working:
            return self.again_at
        if any(call.status == "completed" for call in self.calls.values()):
            return self.heard_at + UNTOLD_S
        return _NEVER if self.slow else self.heard_at + SLOW_S


class Tasks:
    """The tasks of one session, by the service's ids; what it cannot assign has an empty one."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}
        self._seen: deque[str] = deque(maxlen=64)  # ids of tasks
        self._known: deque[str] = deque(maxlen=64)  # ids of calls that were run

    @property
    def busy(self) -> bool:
        """Return whether a task is at work, or is to go on as soon as it can."""
        return any(
            (task.working and not task.slow) or task.wanted or task.again_at < _NEVER
            for task in self._tasks.values()
        )

    @property
    def due(self) -> float:
        """Return when ``check`` has something to do, as far as is known; infinite: never."""
        return min((task.due for task in self._tasks.values()), default=_NEVER)

    def waits_for(self, call_id: str) -> bool:
        """Return whether a task waits for the result of a call."""
        return any(call_id in task.open for task in self._tasks.values())

    # --- from the service ---

    def handed_over(self, task_id: str, now: float) -> None:
        """Hear that the agent has handed a task over."""
        if task_id not in self._seen:
            self.begun(task_id, now)

    def begun(self, task_id: str, now: float) -> None:
        """Hear that a response of the task is in progress."""
        task = self._of(task_id)
        task.working, task.heard_at, task.again_at = True, now, _NEVER
        task.slow = False
        task.written_at = _NEVER
        task.calls.clear()

    def heard(self, task_id: str, now: float) -> None:
        """Hear that the response of the task is alive."""
        task = self._tasks.get(self._name(task_id))
        if task is not None and task.working:
            task.heard_at = now

    def written(self, task_id: str, now: float) -> None:
        """Hear that the response has words for the agent."""
        task = self._tasks.get(self._name(task_id))
        if task is not None:
            task.written_at = min(task.written_at, now)

    def called(self, task_id: str, call: Call, now: float) -> None:
        """Hear of a call, once or several times."""
        if call.status not in (None, "completed") or call.call_id in self._known:
            return
        task = self._of(task_id)
        task.working, task.heard_at, task.again_at = True, now, _NEVER
        task.calls[call.call_id] = call

    def completed(self, task_id: str, spoke_at: float = -_NEVER) -> list[Step]:
        """Hear that the response of the task is complete. Return what to do now.

        ``spoke_at`` is when the agent last began to speak.
        """
        task = self._of(task_id)
        task.failures = 0
        return self._over(task, list(task.calls.values()), spoke_at)

    def incomplete(self, task_id: str) -> list[Step]:
        """Hear that the response of the task broke off. Return what to do now; nothing: it has failed."""
        task = self._of(task_id)
        calls = [call for call in task.calls.values() if call.status == "completed"]
        return self._over(task, calls) if calls else []

    def cancelled(self, task_id: str, spoke_at: float = -_NEVER) -> list[Step]:
        """Hear that the response of the task was cancelled. Return what to do now, as ``completed`` does."""
        return self._over(self._of(task_id), [], spoke_at)

    def failed(self, task_id: str, now: float, wait_s: float | None = None, *, lasting: bool = False) -> bool:
        """Hear that the response of the task has failed. Return whether the task is asked to go on later.

        ``wait_s`` is how long the service asks to wait; ``lasting`` says that it will not fare better.
        """
        task = self._of(task_id)
        task.working = task.wanted = False
        task.calls.clear()
        task.failures += 1
        again = not lasting and task.failures <= MOST_FAILURES
        if again:
            wait = wait_s if wait_s is not None else _FIRST_WAIT_S * 2 ** (task.failures - 1)
            task.again_at = now + min(max(wait, _SHORTEST_WAIT_S), LONGEST_WAIT_S)
        else:
            task.failures = 0
        self._tidy()
        return again

    # --- from the tools ---

    def answered(self, call_id: str, *, go_on: bool) -> bool:
        """Hear of a result, and whether it is reason to go on. Return whether to tell so now."""
        for task in self._tasks.values():
            if call_id in task.open:
                task.open.discard(call_id)
                task.wanted = task.wanted or go_on
                return self._goes_on(task)
        return False

    # --- the clock ---

    def check(self, now: float) -> list[Step]:
        """Return what is to be done at ``now``."""
        steps: list[Step] = []
        for task in list(self._tasks.values()):
            if now < task.due:
                continue
            if not task.working:
                task.again_at = _NEVER
                task.wanted = True
                if self._goes_on(task):
                    steps.append(Ask.GO_ON)
            elif calls := [call for call in task.calls.values() if call.status == "completed"]:
                steps += self._over(task, calls)
            else:
                task.slow = True
                steps.append(Ask.SLOW)
        return steps

    # --- inside ---

    def _name(self, task_id: str) -> str:
        """Return the name of a task; one that the service cannot name is the latest that is at work."""
        return task_id or next((name for name in reversed(self._tasks) if self._tasks[name].working), "")

    def _of(self, task_id: str) -> _Task:
        task_id = self._name(task_id)
        if task_id not in self._tasks:
            self._tasks[task_id] = _Task()
            self._seen.append(task_id)
        return self._tasks[task_id]

    def _over(self, task: _Task, calls: list[Call], spoke_at: float = -_NEVER) -> list[Step]:
        task.working = False
        task.calls.clear()
        for call in calls:
            self._known.append(call.call_id)
            task.open.add(call.call_id)
        if calls:
            return [*calls]
        if task.open:
            return []
        if self._goes_on(task):
            return [Ask.GO_ON]
        return [] if spoke_at >= task.written_at else [Ask.SPEAK]

    def _goes_on(self, task: _Task) -> bool:
        now = task.wanted and not task.working and not task.open
        if now:
            task.wanted = False
        self._tidy()
        return now

    def _tidy(self) -> None:
        """Forget the tasks of which nothing is expected but another response, should it come."""
        for name in [
            name
            for name, task in self._tasks.items()
            if not (task.working or task.open or task.wanted or task.failures) and task.again_at == _NEVER
        ]:
            del self._tasks[name]
