"""Logs: structlog, for people in a terminal and JSON otherwise.

Every line carries the call's id (bound as a context variable by the call) and, where it is about a provider's
messages, an ``origin``: ``to provider``, ``from provider``; the terminal colours them apart.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

from arivox.settings.settings import Settings

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_COLOURS: Final = {"to provider": "\x1b[36m", "from provider": "\x1b[35m"}
_RESET: Final = "\x1b[0m"

TO_PROVIDER: Final = "to provider"
FROM_PROVIDER: Final = "from provider"


def mask(number: str) -> str:
    """Return a phone number with all but its last two digits hidden. Short names stay as they are."""
    digits = sum(character.isdigit() for character in number)
    if digits < 5:
        return number
    return "".join("*" if character.isdigit() else character for character in number[:-2]) + number[-2:]


def setup(settings: Settings, stream: TextIO | None = None) -> None:
    """Configure structlog, and Python's logging for the libraries, to write to ``stream`` (stderr)."""
    stream = stream or sys.stderr
    human = settings.log_format == "human" or (settings.log_format == "auto" and stream.isatty())
    level = _LEVELS[settings.log_level]
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
    ]
    if human:
        processors += [
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            _OriginArrow(stream.isatty()),
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(),
                pad_event_to=36,
                sort_keys=False,
                # The default shows the values of local variables: secrets among them.
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    else:
        processors += [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=stream, level=logging.WARNING, format="%(name)s: %(message)s", force=True)


class _OriginArrow:
    """Shows the origin of a line about the provider's messages as an arrow, in colour where there is any."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def __call__(self, logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        origin = event.pop("origin", None)
        if origin is not None:
            text = f"{'->' if origin == TO_PROVIDER else '<-'} AI {event['event']}"
            event["event"] = f"{_COLOURS.get(origin, '')}{text}{_RESET}" if self._colours else text
        return event
