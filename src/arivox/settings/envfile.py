"""A file of ``NAME=value`` lines, as python-dotenv reads it. What it cannot read is refused, not left out."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Final

from dotenv.parser import Binding, parse_stream

from arivox.errors import SettingsError
from arivox.settings.source import Lines, Names, Source, read_text

_ASSIGNMENT: Final = re.compile(
    r"\s*(?:export\s+)?'?([A-Za-z_]\w*)'?[^\S\n]*(?:([=:])[^\S\n]*)?(.*)", re.DOTALL
)
_COMMENT: Final = re.compile(r"\s#")
_INNER: Final = re.compile(r"[\s;,]([A-Z]\w*)=")
_QUOTES: Final = "'\""
_PRINTED_QUOTES: Final = "“”„‘’«»"  # as word processors make them


def read(file: Path, names: Names) -> Source:
    """Return the settings of ``file``. Raises SettingsError with the line at fault."""
    lines = Lines(file, names)
    before = ""
    # Passwords may hold ${...}: nothing is replaced inside values.
    for binding in parse_stream(io.StringIO(read_text(file))):
        text = binding.original.string
        line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
        if binding.error or (binding.key is not None and binding.value is None):
            raise _fault(file, line, text, before, names)
        if binding.key is None or binding.value is None:
            continue
        lines.add(binding.key, _value(file, line, binding, lines, names), line)
        before = binding.key
    return lines.source()


def _value(file: Path, line: int, binding: Binding, lines: Lines, names: Names) -> str:
    name, value = binding.key or "", binding.value or ""
    raw = binding.original.string.lstrip().partition("=")[2].rstrip("\n")
    begun = raw.lstrip()
    if begun.startswith(tuple(_QUOTES)):
        # A quote that was forgotten ends where the next value begins one, and takes the lines between along.
        for below, text in enumerate(raw.split("\n")[1:], start=line + 1):
            match = _ASSIGNMENT.match(text)
            if match and match[2] == "=" and match[1] in names.known:
                raise SettingsError(
                    name,
                    f"the quote that begins the value is not closed before {match[1]} in line {below}",
                    source=f"{file}, line {line}",
                )
    elif begun.startswith("#") and begun != raw:
        return ""  # a comment: so later releases of python-dotenv have it, too
    else:
        if _COMMENT.search(begun):
            lines.cut(name, line)
        for inner in _INNER.findall(value):
            if inner in names.known:
                lines.warn(name, line, f"holds {inner}= in its value: each setting needs a line of its own")
    if value.startswith(tuple(_PRINTED_QUOTES)):
        lines.warn(
            name, line, f"begins with {value[0]}, which is part of the value: quotes are straight (\" or ')"
        )
    return value


def _fault(file: Path, line: int, text: str, before: str, names: Names) -> SettingsError:
    """Return the error about a line that cannot be read. Its text may hold a secret, and is not shown."""
    source = f"{file}, line {line}"
    match = _ASSIGNMENT.match(text)
    name, sign, value = (match[1], match[2], match[3]) if match else ("", None, "")
    if sign == "=":
        quote = value[:1]
        if not quote or quote not in _QUOTES:
            return SettingsError(name, "the line cannot be read", "Write NAME=value.", source)
        if not re.match(rf"{quote}(?:\\.|[^{quote}\\])*{quote}", value, re.DOTALL):
            return SettingsError(name, f"the {quote} that begins the value is never closed", source=source)
        if quote == "'":
            hint = "An apostrophe ends a value in single quotes: put it in double quotes."
        else:
            hint = 'Write \\" for a quote within double quotes, or put the value in single quotes.'
        return SettingsError(name, f"there is more behind the {quote} that ends the value", hint, source)
    if name.upper() in names.known:
        return SettingsError(name, "there is no = behind the name", "Write NAME=value.", source)
    hint = "Write NAME=value, and put a value of several lines in double quotes."
    if before:
        problem = "a line below it is not NAME=value"
        return SettingsError(before, problem, hint, source)
    return SettingsError(source, "is not NAME=value", hint)
