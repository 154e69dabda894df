"""The tasks that the agent has handed to the backend model, and the tools they call. Pure.

The backend model goes on with a task when it is told to, once: when all calls of the task have their results
and its response, which might call more, is complete.
"""

from __future__ import annotations

from collections import deque


class Tasks:
    """The tasks of one session, by the service's ids; what it cannot assign has an empty one."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}  # calls without a result, and their tasks
        self._known: deque[str] = deque(maxlen=64)
        self._working: set[str] = set()
        self._wanted: set[str] = set()

    @property
    def wanted(self) -> bool:
        """Return whether a task is to go on as soon as it can."""
        return bool(self._wanted)

    def begun(self, task: str) -> None:
        """Hear that a response of the task is in progress."""
        self._working.add(task)

    def called(self, task: str, call_id: str) -> bool:
        """Hear of a call. Return False when it is known already."""
        if call_id in self._known:
            return False
        self._known.append(call_id)
        self._open[call_id] = task
        return True

    def answered(self, call_id: str, *, go_on: bool) -> bool:
        """Hear of a result, and whether it is reason to go on. Return whether to tell so now."""
        task = self._open.pop(call_id, "")
        if go_on:
            self._wanted.add(task)
        return self._may_go_on(task)

    def ended(self, task: str) -> bool:
        """Hear that the response of the task is complete. Return whether to tell now that it is to go on."""
        self._working.discard(task)
        return self._may_go_on(task)

    def failed(self, task: str) -> None:
        """Hear that the task has failed: there is nothing to go on with."""
        self._working.discard(task)
        self._wanted.discard(task)

    def _may_go_on(self, task: str) -> bool:
        if task not in self._wanted or task in self._working or task in self._open.values():
            return False
        self._wanted.discard(task)
        return True
