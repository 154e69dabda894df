"""A field: one thing that a state asks the caller for, or that a tool is given. Pure.

Values are kept as text, in the form that a store, a prompt and a tool can all use: dates as 2026-11-24, times
as 14:30, yes or no.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, time
from typing import Any, Final, Literal, get_args

Type = Literal["text", "integer", "number", "yes_no", "date", "time", "phone", "digits"]
TYPES: Final[tuple[Type, ...]] = get_args(Type)

_LONGEST: Final = 500
_YES: Final = frozenset({"yes", "true", "1"})
_NO: Final = frozenset({"no", "false", "0"})


@dataclass(frozen=True, slots=True)
class Field:
    """What is asked for."""

    name: str
    type: Type = "text"
    description: str = ""
    required: bool = True
    choices: tuple[str, ...] = ()
    pattern: str = ""
    """Regular expression that the whole value must match."""
    length: int = 0
    """Of digits: how many; 0: until ``#``, or until no more come."""
    secret: bool = False
    """Reaches neither the AI nor what is kept: only tools."""

    def read(self, value: Any) -> str:
        """Return a value as it is kept. Raises ValueError, which says what is wrong with it."""
        text = _YES_NO[value] if isinstance(value, bool) else value
        if isinstance(text, int | float):
            text = _plain(text)
        if not isinstance(text, str):
            raise ValueError(f"{self.name} must be {self.expected}")  # noqa: TRY004 - it comes from a model
        text = " ".join(text.split())
        if not text:
            raise ValueError(f"{self.name} is empty")
        if len(text) > _LONGEST:
            raise ValueError(f"{self.name} is longer than {_LONGEST} characters")
        if self.choices:
            chosen = {choice.casefold(): choice for choice in self.choices}.get(text.casefold())
            if chosen is None:
                raise ValueError(f"{self.name} must be {self.expected}, not {_shown(self, text)}")
            return chosen
        try:
            text = _READERS[self.type](text)
        except ValueError:
            raise ValueError(f"{self.name} must be {self.expected}, not {_shown(self, text)}") from None
        wrong_length = self.type == "digits" and self.length and len(text) != self.length
        if wrong_length or (self.pattern and not re.fullmatch(self.pattern, text)):
            raise ValueError(f"{self.name} must be {self.expected}, not {_shown(self, text)}")
        return text

    @property
    def expected(self) -> str:
        """Return in words what a value must be."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = f"{self.length} digits" if self.length and self.type == "digits" else _WORDS[self.type]
        return f"{words} that matches {self.pattern}" if self.pattern else words

    @property
    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a value, for an AI."""
        schema: dict[str, Any] = {"type": _JSON_TYPES.get(self.type, "string")}
        if self.choices:
            schema = {"type": "string", "enum": list(self.choices)}
        said = [self.description] if self.description else []
        if self.pattern or self.type not in ("text", "integer", "number"):
            said.append(self.expected)
        if said:
            schema["description"] = "; ".join(said)
        return schema


def parameters(fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the JSON Schema of an object of these fields."""
    return {
        "type": "object",
        "properties": {name: one.schema for name, one in fields.items()},
        "required": [name for name, one in fields.items() if one.required],
    }


def read_all(fields: Mapping[str, Field], values: Mapping[str, Any]) -> dict[str, str]:
    """Return values as they are kept. Raises ValueError, which says what is wrong or missing."""
    strangers = [name for name in values if name not in fields]
    if strangers:
        known = ", ".join(fields) or "none"
        raise ValueError(f"{', '.join(map(repr, strangers))} is not asked for; asked for: {known}")
    found = {name: fields[name].read(value) for name, value in values.items() if value not in (None, "")}
    missing = [name for name, one in fields.items() if one.required and name not in found]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing")
    return found


def _digits(text: str) -> str:
    digits = re.sub(r"[\s.-]", "", text)
    if not re.fullmatch(r"[0-9*#]+", digits):
        raise ValueError(text)
    return digits


def _phone(text: str) -> str:
    number = re.sub(r"[\s()./-]", "", text)
    if not re.fullmatch(r"\+?[0-9]{2,20}", number):
        raise ValueError(text)
    return number


def _yes_no(text: str) -> str:
    word = text.casefold()
    if word not in _YES | _NO:
        raise ValueError(text)
    return _YES_NO[word in _YES]


def _number(text: str) -> str:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return _plain(number)


def _plain(number: float) -> str:
    # Nothing is rounded: it may be a price, or a telephone number that a model wrote as a number.
    return repr(number).removesuffix(".0")


def _shown(one: Field, text: str) -> str:
    return "that" if one.secret else repr(text)


_YES_NO: Final = {True: "yes", False: "no"}
_JSON_TYPES: Final = {"integer": "integer", "number": "number", "yes_no": "boolean"}
_WORDS: Final[dict[Type, str]] = {
    "text": "text",
    "integer": "a whole number",
    "number": "a number",
    "yes_no": "yes or no",
    "date": "a date as YYYY-MM-DD",
    "time": "a time as HH:MM",
    "phone": "a telephone number",
    "digits": "digits",
}
_READERS: Final[dict[Type, Callable[[str], str]]] = {
    "text": str,
    "integer": lambda text: str(int(text)),
    "number": _number,
    "yes_no": _yes_no,
    "date": lambda text: date.fromisoformat(text).isoformat(),
    "time": lambda text: time.fromisoformat(text).strftime("%H:%M"),
    "phone": _phone,
    "digits": _digits,
}
