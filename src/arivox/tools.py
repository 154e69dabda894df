"""Tools of your own, as Python functions in the file that TOOLS_FILE names::

    from typing import Annotated

    from arivox.tools import CallInfo, ToolError, tool

    @tool(say="One moment, I am looking it up.")
    def order_status(call: CallInfo, order: Annotated[str, "Number of the order"]) -> dict[str, str]:
        "Say where an order is."
        if order not in ORDERS:
            raise ToolError("there is no such order")
        return {"status": ORDERS[order]}

The AI is told the docstring, and the parameters by their type hints: ``str``, ``int``, ``float``, ``bool``,
``Literal``, lists of these, ``| None``. Its arguments are validated before the function is called. A
parameter of type ``CallInfo`` is given the call. A plain function runs in a thread of its own, an ``async``
one in the event loop of all calls, where it must never block. What is returned is told to the AI as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

TIMEOUT_S: Final = 10.0
MARK: Final = "__arivox_tool__"
"""Attribute of a decorated function."""


class ToolError(Exception):
    """What the AI is told instead of a result: it is the caller's problem or the AI's, not a bug."""


@dataclass(slots=True)
class CallInfo:
    """The call that a tool is used in."""

    call: str
    """Arivox's id of the call, as the log has it."""
    channel: str
    """Asterisk's id of the caller's channel."""
    caller: str
    """The caller's number; empty when withheld."""
    exten: str
    state: str
    known: Mapping[str, str]
    """What the caller has said that the flow asked for."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Digits that were keyed in and that the AI does not know."""
    learned: dict[str, str] = field(default_factory=dict)

    def remember(self, **values: str) -> None:
        """Make values known to the flow: its conditions and prompts may speak of them."""
        self.learned.update(values)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the decorator was given."""

    timeout_s: float
    say: str
    finds: tuple[str, ...]


def tool(*, timeout_s: float = TIMEOUT_S, say: str = "", finds: Sequence[str] = ()) -> Callable[[F], F]:
    """Mark a function as a tool.

    ``timeout_s``: after so long the AI is told that it failed. ``say``: what the caller hears first.
    ``finds``: the names it may ``remember``, for the check of the prompts file.
    """

    def mark(function: F) -> F:
        setattr(function, MARK, Declaration(timeout_s, say, tuple(finds)))
        return function

    return mark
