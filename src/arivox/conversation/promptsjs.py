"""``prompts.js`` of the scripts that Arivox replaces, read without running it. Pure.

It is a module that exports one object literal: names, text in any quotes, joined by ``+``, and comments. What
computes something is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from arivox.errors import SettingsError

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)
      | (?P<name>[A-Za-z_$][\w$]*)
      | (?P<mark>[{}:,+;=.])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(u\{[0-9a-fA-F]+\}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|\r?\n|.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int
    column: int


def convert(text: str, source: str) -> str:
    """Return the prompts file (YAML) that says the same. Raises SettingsError with the line at fault."""
    exported = _Reader(text, source).module()
    kept: dict[str, Any] = {}
    for provider, section in exported.items():
        if not isinstance(section, dict) or not isinstance(section.get("states"), dict):
            raise SettingsError("prompts.js", f"{provider} has no states", source=source)
        instruction = section.get("system_instruction", "")
        kept[provider] = {"system_instruction": instruction, "states": section["states"]}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=100)


class _Reader:
    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._tokens = list(self._split(text))
        self._at = 0

    def module(self) -> dict[str, Any]:
        """Read ``module.exports = {...}``, or ``export default {...}``."""
        while self._peek() not in ("{", ""):
            self._next()
        exported = self._object()
        while self._peek() == ";":
            self._next()
        if self._peek():
            raise self._fault("nothing may follow the object")
        return exported

    def _object(self) -> dict[str, Any]:
        self._expect("{")
        found: dict[str, Any] = {}
        while self._peek() != "}":
            key = self._next()
            if key.kind not in ("name", "text"):
                raise self._fault("a name is expected", key)
            self._expect(":")
            found[key.text] = self._object() if self._peek() == "{" else self._text()
            if self._peek() != "}":
                self._expect(",")
        self._expect("}")
        return found

    def _text(self) -> str:
        parts = []
        while True:
            token = self._next()
            if token.kind != "text":
                raise self._fault("text in quotes is expected", token)
            parts.append(token.text)
            if self._peek() != "+":
                return "".join(parts)
            self._next()

    def _split(self, text: str) -> Iterator[_Token]:
        at = 0
        while at < len(text):
            line = text.count("\n", 0, at) + 1
            column = at - text.rfind("\n", 0, at)
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._fault(f"{text[at]!r} is not understood", _Token("", "", line, column))
            at = match.end()
            kind = str(match.lastgroup)
            if kind == "text":
                if match[0][0] == "`" and "${" in match[0]:
                    raise self._fault("text must not compute anything (${)", _Token("", "", line, column))
                yield _Token(kind, _ESCAPE.sub(_unescaped, match[0][1:-1]), line, column)
            elif kind != "space":
                yield _Token(kind, match[0], line, column)

    def _peek(self) -> str:
        """Return the mark or name that comes next, a quote for text, nothing at the end."""
        if self._at == len(self._tokens):
            return ""
        token = self._tokens[self._at]
        return '"' if token.kind == "text" else token.text

    def _next(self) -> _Token:
        if self._at == len(self._tokens):
            raise self._fault("the file ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, mark: str) -> None:
        token = self._next()
        if token.kind != "mark" or token.text != mark:
            raise self._fault(f"{mark!r} is expected", token)

    def _fault(self, problem: str, token: _Token | None = None) -> SettingsError:
        if token is None and self._at:
            token = self._tokens[min(self._at, len(self._tokens) - 1)]
        where = f"line {token.line}, column {token.column}: " if token is not None else ""
        return SettingsError("prompts.js", f"{where}{problem}", source=self._source)


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if escape[0] in "ux" and len(escape) > 1:
        return chr(int(escape[1:].strip("{}"), 16))
    if escape in ("\n", "\r\n"):
        return ""  # a line that goes on
    return _ESCAPES.get(escape, escape)
