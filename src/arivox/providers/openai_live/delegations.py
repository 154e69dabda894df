"""The backend model's side of a session: joins its events and the clock to ``Tasks``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from arivox.errors import ProviderError
from arivox.providers.base import Fault, OnProviderEvent, SessionCounters, ToolCall
from arivox.providers.openai.protocol import add_usage
from arivox.providers.openai_live.errors import PROVIDER, Error
from arivox.providers.openai_live.protocol import Delegated, NestedResponse
from arivox.providers.openai_live.tasks import Ask, Call, Step, Tasks

_ENDS: Final = frozenset(
    {
        "response.cancelled",
        "response.completed",
        "response.done",
        "response.failed",
        "response.incomplete",
    }
)


class Delegations:
    """The backend model's side of one session.

    ``go_on`` has the backend model go on, ``speak`` hears that the agent has something to speak of. ``slow``
    is told of a task that takes long, ``give_up`` of one of which nothing more comes.
    """

    def __init__(
        self,
        counters: SessionCounters,
        on_event: OnProviderEvent,
        *,
        go_on: Callable[[], None],
        speak: Callable[[], None],
        slow: Callable[[ProviderError], None],
        give_up: Callable[[ProviderError], None],
    ) -> None:
        self.tasks = Tasks()
        self._counters = counters
        self._on_event = on_event
        self._go_on = go_on
        self._speak = speak
        self._slow = slow
        self._give_up = give_up
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        self._over = False

    def handed_over(self, task: str) -> None:
        """Hear that the agent has handed a task over."""
        self.tasks.handed_over(task, time.monotonic())
        self._watch()

    def hear(self, message: Delegated, spoke_at: float) -> None:
        """Take an event of the backend model; ``spoke_at`` is when the agent's latest utterance began."""
        task, event, now = message.delegation_id, message.event, time.monotonic()
        self.tasks.heard(task, now)
        if message.type == "response.created":
            self.tasks.begun(task, now)
        elif message.type == "response.output_item.done":
            item = event.item
            if item.type == "function_call" and item.call_id:
                arguments = item.arguments if isinstance(item.arguments, str) else ""
                call = Call(item.call_id, item.name or "", arguments or "{}", item.status)
                self.tasks.called(task, call, now)
        elif message.type.startswith("response.output_text."):
            self.tasks.written(task, now)
        elif message.type in _ENDS:
            self._ended(task, event, event.status(message.type), spoke_at)
        elif message.type == "error":
            self._failed(task, event)
        self._watch()

    def stop(self) -> None:
        """Hear that the session is over: nothing is done any more."""
        self._over = True
        self._stop_watching()

    def _ended(self, task: str, event: NestedResponse, status: str, spoke_at: float) -> None:
        if event.response is not None and event.response.usage:
            add_usage(self._counters.usage, event.response.usage, "delegated.")
        if status == "completed":
            self._take(self.tasks.completed(task, spoke_at))
        elif status == "cancelled":
            self._take(self.tasks.cancelled(task, spoke_at))
        elif status == "incomplete" and (steps := self.tasks.incomplete(task)):
            self._take(steps)
        else:
            self._failed(task, event.as_error())

    def _failed(self, task: str, error: Error) -> None:
        problem = error.as_provider_error()
        problem.fatal = problem.lost = False  # the voice goes on
        lasting = error.lasts or error.rejected or error.type == "invalid_request_error"
        if self.tasks.failed(task, time.monotonic(), problem.retry_after_s, lasting=lasting):
            self._on_event(Fault(problem))
        else:
            self._give_up(problem)

    def _take(self, steps: Iterable[Step]) -> None:
        """Do what the tasks ask for."""
        for step in steps:
            if self._over:
                return
            if isinstance(step, Call):
                self._on_event(ToolCall(step.call_id, step.name, step.arguments))
            elif step is Ask.GO_ON:
                self._go_on()
            elif step is Ask.SPEAK:
                self._speak()
            else:
                self._slow(ProviderError(PROVIDER, "a task takes long", code="task_slow", fatal=False))

    # --- the clock ---

    def _watch(self) -> None:
        due = self.tasks.due
        if self._over or due >= self._due:
            return
        self._stop_watching()
        self._due = due
        wait = max(0.0, due - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(wait, self._check)

    def _check(self) -> None:
        self._stop_watching()
        self._take(self.tasks.check(time.monotonic()))
        self._watch()

    def _stop_watching(self) -> None:
        timer, self._timer = self._timer, None
        self._due = float("inf")
        if timer is not None:
            timer.cancel()
