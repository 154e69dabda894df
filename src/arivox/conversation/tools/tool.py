"""A tool that takes time: what the AI is told of it, and how it is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arivox.tools import CallInfo

Work = Callable[[CallInfo, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the check of a prompts file needs to know of a tool."""

    finds: tuple[str, ...] = ()
    """Names of values that it may make known."""
    required: frozenset[str] = frozenset()
    """Names of arguments that it cannot do without."""
    optional: frozenset[str] = frozenset()


def facts_of(parameters: Mapping[str, Any], finds: Sequence[str] = ()) -> Facts:
    """Return the facts of a tool with these parameters (JSON Schema of an object)."""
    required = frozenset(parameters.get("required", ()))
    return Facts(tuple(finds), required, frozenset(parameters.get("properties", {})) - required)


@dataclass(frozen=True, slots=True)
class OwnTool:
    """A Python function or an HTTP endpoint."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON Schema of the arguments."""
    read: Callable[[Mapping[str, Any]], Any]
    """Validates arguments and returns them as ``work`` takes them. Raises ValueError."""
    work: Work
    """Raises ToolError for what the AI is told, anything else for a bug."""
    timeout_s: float
    say: str = ""
    finds: tuple[str, ...] = ()
