"""An HTTP endpoint that is a tool, as the prompts file declares it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from arivox.conversation.field import Field

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
TIMEOUT_S: Final = 10.0

OF_THE_CALL: Final = ("caller.number", "call.exten", "call.id")
"""Names of values that every call has."""
PLACEHOLDER: Final = re.compile(r"\{(\w+(?:\.\w+)?)\}")
ENVIRONMENT: Final = re.compile(r"\$\{(\w+)\}")
"""``${NAME}`` in a URL or header is the environment variable of that name."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A tool of the prompts file.

    In ``url``, ``query`` and ``body``, ``{name}`` stands for an argument, a value that is known, or a secret
    one; in ``url`` and ``headers``, ``${NAME}`` for an environment variable.
    """

    name: str
    description: str
    url: str = field(repr=False)
    method: Method = "GET"
    parameters: Mapping[str, Field] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Mapping[str, str] | None = None
    """Sent as JSON; None: the arguments, where the method has a body."""
    timeout_s: float = TIMEOUT_S
    say: str = ""
    """What the caller hears before it is asked."""

    @property
    def variables(self) -> list[str]:
        """Return the names of the environment variables it needs."""
        texts = (self.url, *self.headers.values())
        return list(dict.fromkeys(name for text in texts for name in ENVIRONMENT.findall(text)))

    @property
    def placeholders(self) -> list[str]:
        """Return the names of the values it speaks of."""
        texts = (self.url, *self.query.values(), *(self.body or {}).values())
        found = (name for text in texts for name in PLACEHOLDER.findall(ENVIRONMENT.sub("", text)))
        return list(dict.fromkeys(found))

    def unset(self) -> list[str]:
        """Return the environment variables it needs that are not set."""
        return [name for name in self.variables if not os.environ.get(name)]


def expand(text: str) -> str:
    """Return the text with the environment variables put in. Raises KeyError."""
    return ENVIRONMENT.sub(lambda found: os.environ[found[1]], text)
