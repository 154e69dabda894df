"""The text of ``.env``: every setting with its meaning and default, ready to be filled in."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from arivox.settings.settings import Settings, setting_fields

# Each heading stands before the first setting of its group.
_HEADINGS: Final = {
    "ari_url": "Asterisk",
    "rtp_server_ip": "Media",
    "answer": "The call",
    "ai_service_provider": "The AI",
    "openai_api_key": "OpenAI",
    "gemini_api_key": "Gemini",
    "prompts_file": "The conversation",
    "redis_host": "The store",
    "log_level": "Logs",
}
_INTRO: Final = (
    "Settings of Arivox. Remove the # in front of a setting to change it; what stands there is the default. "
    "The environment wins over this file."
)


def render(values: Mapping[str, str] | None = None) -> str:
    """Return the file with ``values`` (by setting name in capitals) filled in, and defaults as comments."""
    values = values or {}
    hints = get_type_hints(Settings)
    lines = [*_comment(_INTRO)]
    for item in setting_fields():
        name = item.name.upper()
        if item.name in _HEADINGS:
            lines += ["", f"# --- {_HEADINGS[item.name]} ---"]
        meaning = item.metadata["doc"] + _choices(hints[item.name])
        lines += ["", *_comment(meaning)]
        if item.metadata["aliases"]:
            lines += _comment(f"Also accepted: {', '.join(item.metadata['aliases'])}")
        if name in values:
            lines.append(f"{name}={_quoted(values[name])}")
        else:
            lines.append(f"#{name}={_text(item.default)}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    """Return ``value`` as it is read back unchanged."""
    if not re.search(r"""\s\#|^\s|\s$|^['"#]|\n""", value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _choices(hint: Any) -> str:
    if get_origin(hint) is not Literal:
        return ""
    choices = [choice for choice in get_args(hint) if choice]
    return f" [{' | '.join(choices)}]" if len(choices) > 1 else ""


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
