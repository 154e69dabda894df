"""A YAML file of settings: one mapping of names to single values, each taken as the text it is written as."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import yaml

from arivox.errors import SettingsError
from arivox.settings.source import Lines, Names, Source, read_text

_COMMENT: Final = re.compile(r"[^\S\n]+#")
_NOTHING: Final = frozenset({"~", "null", "Null", "NULL"})  # YAML's words for no value


def read(file: Path, names: Names) -> Source:
    """Return the settings of ``file``. Raises SettingsError with the line at fault."""
    text = read_text(file)
    lines = Lines(file, names)
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        # The error's own text would quote the line, which may hold a secret.
        raise SettingsError(str(file), f"is not valid YAML{_place(error, text)}") from None
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        return lines.source()
    if not isinstance(root, yaml.MappingNode):
        where = f"{file}, line {root.start_mark.line + 1}"
        raise SettingsError(where, "must be a mapping of setting names to values")
    for key, value in root.value:
        line = key.start_mark.line + 1
        name = key.value.upper() if isinstance(key, yaml.ScalarNode) else ""
        if not name or not isinstance(value, yaml.ScalarNode):
            raise SettingsError(name or "a name", "must be a single value", source=f"{file}, line {line}")
        empty = value.style is None and value.value in _NOTHING
        lines.add(name, "" if empty else value.value, line)
        if value.style is None and _COMMENT.match(text, value.end_mark.index) and value.value:
            lines.cut(name, line)
    return lines.source()


def _place(error: Exception, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f" in line {mark.line + 1}, column {mark.column + 1}"
    position = getattr(error, "position", None)
    return f" in line {text.count(chr(10), 0, position) + 1}" if isinstance(position, int) else ""
