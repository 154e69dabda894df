"""Where settings come from: the values of one file or of the environment, and the lines they stand in."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from arivox.errors import SettingsError

_LARGEST: Final = 1 << 20  # bytes: what is larger is no file of settings, or a device without an end
# A line that ends in one of these would take the next one along, in one value that looks like two.
_NO_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85]")


@dataclass
class Source:
    """Values by name. ``lines`` are known of files alone; ``warnings`` are about how they are written."""

    name: str
    values: Mapping[str, str]
    lines: Mapping[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def where(self, setting: str) -> str:
        """Return where ``setting`` stands, for people."""
        line = self.lines.get(setting)
        return self.name if line is None else f"{self.name}, line {line}"


@dataclass(frozen=True)
class Names:
    """What a reader has to know about the settings."""

    known: Collection[str]
    """Every name and alias, in capitals."""
    texts: Collection[str]
    """Those whose values are text, in which a ``#`` may be meant."""


class Lines:
    """The values of one file as they are found, line by line."""

    def __init__(self, file: Path, names: Names) -> None:
        self._file = str(file)
        self._names = names
        self._values: dict[str, str] = {}
        self._lines: dict[str, int] = {}
        self._warnings: list[str] = []

    def add(self, name: str, value: str, line: int) -> None:
        """Take a value; of a name that stands there twice the last one counts."""
        if name in self._values:
            self._warnings.append(
                f"{name} (in {self._file}) stands there twice, in lines {self._lines[name]} and {line}; "
                "the last one counts"
            )
        self._values[name] = value
        self._lines[name] = line

    def cut(self, name: str, line: int) -> None:
        """Hear that the value of ``name`` was cut off at a ``#``: a warning, if it is a text."""
        if name in self._names.texts:
            self.warn(
                name,
                line,
                "is cut off at the # in it, which begins a comment; put the whole value in double quotes "
                "if the # belongs to it, and a comment into a line of its own",
            )

    def warn(self, name: str, line: int, problem: str) -> None:
        """Keep a warning about one value."""
        self._warnings.append(f"{name} (in {self._file}, line {line}) {problem}")

    def source(self) -> Source:
        """Return all that was found."""
        return Source(self._file, self._values, self._lines, self._warnings)


def read_text(file: Path) -> str:
    """Return the text of ``file``: UTF-8, with or without a byte order mark. Raises SettingsError."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise SettingsError(str(file), f"cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise SettingsError(str(file), f"is larger than {_LARGEST >> 20} MB: it is no file of settings")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "Save the file as UTF-8."
        raise SettingsError(f"{file}, line {line}", "cannot be read: it is not UTF-8", hint) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found = _NO_TEXT.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise SettingsError(
            f"{file}, line {line}",
            f"holds the control character U+{ord(found[0]):04X}",
            "Save the file as plain text in UTF-8.",
        )
    return text
