"""The backend of a session with Responses delegation: it calls functions, and takes what they return.

The model hands a task over (``session.delegation.created``). A nested stream of Responses events, each in a
``response.event``, calls the functions and completes. The client gives every output back
(``response.item.create``) and has the backend go on (``response.create``); a second response of the same
delegation completes then, and the model speaks about the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Literal

from msgspec import Struct

from arivox.emulator.openai.conversation import text_tokens
from arivox.emulator.openai.messages import RequestError, convert
from arivox.emulator.openai_live.config import LiveConfig
from arivox.emulator.openai_live.outlet import LiveOutlet

_ARGUMENTS_CHUNK: Final = 12


class _CallOutput(Struct, tag_field="type", tag="function_call_output", forbid_unknown_fields=True):
    call_id: str
    output: str | list[dict[str, Any]]
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


@dataclass(eq=False)
class Task:
    """One delegation: its calls, and what is still missing before it can go on."""

    id: str
    response: NestedResponse
    missing: list[str] = field(default_factory=list)
    """The ids of the calls without an output."""
    ended: bool = False
    """True when no more calls will come: the calling response is complete."""
    asked: bool = False
    """True when the client wants it to go on."""


class Backend:
    """Everything that was delegated in one session."""

    def __init__(
        self,
        outlet: LiveOutlet,
        config: LiveConfig,
        received_ms: Callable[[], float],
        on_result: Callable[[float], None],
    ) -> None:
        """``on_result`` is called when the model has a result to speak about."""
        self.outputs: dict[str, Any] = {}
        """What the client returned, by the id of the call."""
        self._outlet = outlet
        self._config = config
        self._received_ms = received_ms
        self._on_result = on_result
        self._waiting: list[Task] = []

    # The model's side.

    def delegate(self) -> Task:
        """Hand a task over to the backend, which begins to work on it."""
        task_id = self._outlet.new_id("deleg")
        response = self._respond(task_id)
        delegation = {
            "id": task_id,
            "target": "responses",
            "type": "delegation",
            "response_id": response.id,
        }
        self._outlet.emit(
            "session.delegation.created", delegation=delegation, offset_ms=int(self._received_ms())
        )
        response.begin()
        task = Task(task_id, response)
        self._waiting.append(task)
        return task

    def call(self, task: Task, name: str, arguments: str, call_id: str) -> None:
        """Call a function in the task's response."""
        task.missing.append(call_id)
        task.response.call(name, arguments, call_id)

    def end(self, task: Task, now: float) -> None:
        """Complete the response that made the calls."""
        task.ended = True
        task.response.complete()
        self._go_on(task, now)

    # The client's side.

    def put(self, item: dict[str, Any]) -> None:
        """Take an item of the client.

        Raises:
            RequestError: It is the output of no open call.
        """
        if item.get("type") != "function_call_output":
            if not isinstance(item.get("type", "message"), str):
                raise RequestError("invalid_type", "The type of an item is a string.", param="item.type")
            return
        output = convert(item, _CallOutput, ".item")
        for task in self._waiting:
            if output.call_id in task.missing:
                task.missing.remove(output.call_id)
                self.outputs[output.call_id] = output.output
                return
        raise RequestError(
            "invalid_value", f"No tool call found with call_id '{output.call_id}'.", param="item.call_id"
        )

    def proceed(self, now: float) -> None:
        """Go on with every task that has its outputs; without any task, work on what the client has put.

        Raises:
            RequestError: Every task waits for an output.
        """
        ready = [task for task in self._waiting if not task.missing]
        if self._waiting and not ready:
            call_id = self._waiting[0].missing[0]
            raise RequestError("invalid_value", f"No tool output found for function call {call_id}.")
        for task in ready:
            task.asked = True
            self._go_on(task, now)
        if not ready:
            self._result(None, now)

    def _go_on(self, task: Task, now: float) -> None:
        if task.asked and task.ended and not task.missing:
            self._waiting.remove(task)
            self._result(task.id, now)

    def _result(self, task_id: str | None, now: float) -> None:
        response = self._respond(task_id)
        response.begin()
        response.complete()
        self._on_result(now)

    def _respond(self, task_id: str | None) -> NestedResponse:
        return NestedResponse(self._outlet, task_id, self._config.responses)


class NestedResponse:
    """One response of the backend: its Responses events, numbered, inside ``response.event``."""

    def __init__(self, outlet: LiveOutlet, task_id: str | None, settings: dict[str, Any]) -> None:
        """``settings`` are those of the delegation: model, tools and the like."""
        self.id = outlet.new_id("resp")
        self._outlet = outlet
        self._task_id = task_id
        self._settings = dict(settings)
        self._created_at = int(time.time())
        self._numbers = count()
        self._items = 0
        self._output_tokens = 0

    def begin(self) -> None:
        """Write ``response.created`` and ``response.in_progress``."""
        self._emit("response.created", response=self._snapshot("in_progress"))
        self._emit("response.in_progress", response=self._snapshot("in_progress"))

    def call(self, name: str, arguments: str, call_id: str) -> None:
        """Write one call of a function."""
        index, self._items = self._items, self._items + 1
        self._output_tokens += text_tokens(name + arguments)
        item = {
            "id": self._outlet.new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        }
        place = {"item_id": item["id"], "output_index": index}
        self._emit("response.output_item.added", output_index=index, item=item)
        for start in range(0, len(arguments), _ARGUMENTS_CHUNK):
            delta = arguments[start : start + _ARGUMENTS_CHUNK]
            self._emit("response.function_call_arguments.delta", **place, delta=delta)
        self._emit("response.function_call_arguments.done", **place, arguments=arguments)
        done = {**item, "status": "completed", "arguments": arguments}
        self._emit("response.output_item.done", output_index=index, item=done)

    def complete(self) -> None:
        """Write ``response.completed``."""
        self._emit("response.completed", response=self._snapshot("completed"))

    def _emit(self, type_: str, **fields: Any) -> None:
        event = {"type": type_, "sequence_number": next(self._numbers), **fields}
        self._outlet.emit("response.event", delegation_id=self._task_id, event=event)

    def _snapshot(self, status: str) -> dict[str, Any]:
        """Return the response without what Live leaves out: input, instructions, tools and output."""
        settings = self._settings
        usage = None
        if status == "completed":
            tokens = text_tokens(str(settings.get("instructions")) + str(settings.get("tools")))
            usage = {
                "input_tokens": tokens,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": self._output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": tokens + self._output_tokens,
            }
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created_at,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "model": settings["model"],
            "output": [],
            "parallel_tool_calls": settings.get("parallel_tool_calls") is not False,
            "tool_choice": settings.get("tool_choice", "auto"),
            "tools": [],
            "usage": usage,
        }
