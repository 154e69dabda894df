"""Where calls may be transferred to: the allow list of the settings. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from arivox.errors import SettingsError

_NAME: Final = re.compile(r"[A-Za-z][\w-]*$")
_DIALLED: Final = re.compile(r"[A-Za-z]\w*/\S+$")
_PATTERN: Final = r"_(?!@)(?:[XZNxzn0-9*#+]|\[(?:[0-9]-[0-9]|[0-9*#+])+\])*[.!]?"
_EXTEN: Final = re.compile(rf"(?P<goto>goto:)?(?P<exten>{_PATTERN}|(?!_)[\w*#+.-]+)@(?P<context>[\w-]+)$")
_CLASSES: Final = {"X": "[0-9]", "Z": "[1-9]", "N": "[2-9]", ".": ".+", "!": ".*"}
_NUMBER: Final = re.compile(r"[0-9*#+]{1,32}$")


@dataclass(frozen=True, slots=True)
class Destination:
    """One destination, by the name the AI knows it by.

    ``PJSIP/200`` is dialled as it is; ``200@sales`` through the dialplan, as a phone of that context would;
    ``goto:200@sales`` gives the caller back to the dialplan there.
    """

    name: str
    target: str = ""
    """To be dialled as it is; else ``exten`` and ``context`` are given."""
    exten: str = ""
    context: str = ""
    goto: bool = False

    @property
    def takes_number(self) -> bool:
        """Return whether ``exten`` is a pattern of the dialplan, so that the AI gives the number."""
        return self.exten.startswith("_")

    @property
    def what(self) -> str:
        """Return what the AI is told of it."""
        return f"give the number ({self.exten[1:]})" if self.takes_number else ""

    def number(self, given: str) -> str:
        """Return the extension to reach. Raises ValueError when the number is not allowed."""
        if not self.takes_number:
            return self.exten
        number = re.sub(r"[\s()./-]", "", given)
        if not number:
            raise ValueError(f"{self.name} needs a number")
        # Only digits: what the AI writes must not become part of a dial string.
        if not _NUMBER.match(number) or not re.fullmatch(_regex(self.exten[1:]), number):
            raise ValueError(f"{number!r} is not allowed for {self.name}; it must match {self.exten[1:]}")
        return number

    def dial_string(self, number: str) -> str:
        """Return what Asterisk dials."""
        return self.target or f"Local/{number}@{self.context}"


def parse(setting: str, text: str) -> dict[str, Destination]:
    """Return the destinations of ``name=target, name=target``. Raises SettingsError."""
    found: dict[str, Destination] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, target = (part.strip() for part in entry.partition("="))
        dialplan = _EXTEN.match(target)
        if not equals or not _NAME.match(name):
            raise SettingsError(
                setting, f"{entry!r} is not name=target", "For example: sales=200@from-internal"
            )
        if name in found:
            raise SettingsError(setting, f"{name!r} stands there twice")
        if _DIALLED.match(target):
            found[name] = Destination(name, target)
        elif dialplan is not None and _compiles(dialplan["exten"]):
            found[name] = Destination(
                name,
                exten=dialplan["exten"],
                context=dialplan["context"],
                goto=dialplan["goto"] is not None,
            )
        else:
            raise SettingsError(
                setting,
                f"{target!r} is not a target",
                "There are TECHNOLOGY/RESOURCE, EXTENSION@CONTEXT and goto:EXTENSION@CONTEXT.",
            )
    return found


def _compiles(exten: str) -> bool:
    try:
        re.compile(_regex(exten))
    except re.error:  # a class that runs backwards
        return False
    return True


def _regex(pattern: str) -> str:
    """Return the regular expression of a dialplan pattern, without its underscore."""
    parts = re.findall(r"\[[^\]]*\]|.", pattern)
    return "".join(
        part if part.startswith("[") else _CLASSES.get(part.upper(), re.escape(part)) for part in parts
    )
