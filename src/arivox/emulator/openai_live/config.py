"""The session object of OpenAI's Live protocol: what ``session.start`` and ``session.update`` may hold.

The effective session is kept as the JSON object that ``session.started`` shows. Everything but delegation and
triggers is fixed from the start.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from typing import Any, Final

import msgspec
from msgspec import UNSET

from arivox.audio.format import ALAW, SLIN16, SLIN24, ULAW, AudioFormat
from arivox.emulator.openai.conversation import text_tokens
from arivox.emulator.openai.messages import RequestError, convert
from arivox.emulator.openai.response import schemas
from arivox.emulator.openai_live import shapes

DEFAULT_INSTRUCTIONS: Final = "You are a helpful assistant. Speak naturally, and keep to what you were asked."
FORMATS: Final[dict[tuple[str, int], AudioFormat]] = {
    ("audio/pcm", 16000): SLIN16,
    ("audio/pcm", 24000): SLIN24,
    ("audio/pcmu", 8000): ULAW,
    ("audio/pcma", 8000): ALAW,
}
MAX_APPEND_TOKENS: Final = 500
_MAX_INSTRUCTIONS_TOKENS: Final = 16_384
_MAX_INPUT_TOKENS: Final = 8192
_DECISIONS_DELAY_MS: Final = 400
_FUNCTION_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TOOLS: Final = frozenset(
    {
        "function",
        "web_search",
        "file_search",
        "code_interpreter",
        "shell",
        "image_generation",
        "mcp",
        "custom",
        "namespace",
        "tool_search",
        "programmatic_tool_calling",
        "computer",
        "apply_patch",
    }
)


class LiveConfig:
    """The effective session of one connection."""

    def __init__(self, wanted: dict[str, Any], models: Collection[str] | None) -> None:
        """Read the ``session`` of a ``session.start``; ``models`` None takes any model.

        Raises:
            RequestError: Something in it is not allowed.
        """
        if "client" in wanted:
            raise RequestError(
                "unknown_parameter", "'session.client' is for WebRTC sessions.", param="session.client"
            )
        start = convert(wanted, shapes.Start, ".session")
        if models is not None and start.model not in models:
            message = f'Model "{start.model}" is not supported in Live sessions.'
            raise RequestError("invalid_model", message, param="session.model")
        _check_texts(start)
        _check_triggers(start)
        given = msgspec.to_builtins(start)
        audio = given.get("audio", {})
        self._session: dict[str, Any] = {
            "id": "",
            "expires_at": 0,
            "status": "active",
            **given,
            "instructions": (given.get("instructions") or "").strip() or DEFAULT_INSTRUCTIONS,
            "audio": {
                "format": audio.get("format", {"type": "audio/pcm", "rate": 24000}),
                "output": {"voice": audio.get("output", {}).get("voice", "marin")},
            },
            "delegation": _delegation(start),
            "triggers": given.get("triggers", []),
            "store": start.store,
        }
        form = self._session["audio"]["format"]
        self.audio_format = FORMATS[form["type"], form["rate"]]

    def begin(self, session_id: str, expires_at: int) -> None:
        """Give the session what the service decides."""
        self._session["id"] = session_id
        self._session["expires_at"] = expires_at

    def update(self, wanted: dict[str, Any]) -> None:
        """Change what is present in the ``session`` of a ``session.update``.

        Raises:
            RequestError: Something in it is not allowed; nothing is changed then.
        """
        update = convert(wanted, shapes.Update, ".session")
        _check_triggers(update)
        current = self._session["delegation"]
        if update.delegation:
            new = _checked(msgspec.to_builtins(update.delegation))
            if new["type"] != current["type"]:
                raise RequestError(
                    "invalid_value",
                    f"The delegation type of a session cannot be changed; it is '{current['type']}'.",
                    param="session.delegation.type",
                )
            for key, value in new.items():
                current[key] = {**current[key], **value} if isinstance(value, dict) else value
        if update.triggers is not UNSET:
            self._session["triggers"] = msgspec.to_builtins(update.triggers)

    def as_dict(self) -> dict[str, Any]:
        """Return the session object as it is sent."""
        return copy.deepcopy(self._session)

    @property
    def instructions(self) -> str:
        """Return what the model was told at the start."""
        return str(self._session["instructions"])

    @property
    def input(self) -> list[dict[str, Any]]:
        """Return the messages that came before the session."""
        return list(self._session.get("input", ()))

    @property
    def delegation(self) -> str:
        """Return who handles what the model delegates: ``client``, ``responses`` or ``decisions``."""
        return str(self._session["delegation"]["type"])

    @property
    def responses(self) -> dict[str, Any]:
        """Return the settings of the Responses backend, empty when there is none."""
        return dict(self._session["delegation"].get("responses", {}))

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        """Return the parameters of each function of the backend, by its name."""
        return schemas(tool for tool in self.responses.get("tools", ()) if tool["type"] == "function")


def _delegation(start: shapes.Start) -> dict[str, Any]:
    """Return the resolved delegation: the client's where nothing else was asked for."""
    asked = start.delegation
    if not asked:
        return {"type": "client", "acknowledgement_delay_ms": 0}
    if isinstance(asked, shapes.ToResponses):
        if not isinstance(asked.responses, shapes.Backend):
            raise _missing("session.delegation.responses")
        if asked.responses.model is UNSET:
            raise _missing("session.delegation.responses.model")
    if isinstance(asked, shapes.ToDecisions):
        if not isinstance(asked.decisions, shapes.Decider):
            raise _missing("session.delegation.decisions")
        for key in ("model", "questions"):
            if getattr(asked.decisions, key) is UNSET:
                raise _missing(f"session.delegation.decisions.{key}")
    delay = _DECISIONS_DELAY_MS if isinstance(asked, shapes.ToDecisions) else 0
    return {"acknowledgement_delay_ms": delay, **_checked(msgspec.to_builtins(asked))}


def _checked(delegation: dict[str, Any]) -> dict[str, Any]:
    """Return ``delegation`` if its tools are right: functions in full, others by their type alone."""
    for index, tool in enumerate(delegation.get("responses", {}).get("tools", ())):
        at = f"session.delegation.responses.tools[{index}]"
        if tool.get("type") == "function":
            function = convert(tool, shapes.Function, f".{at}")
            if not _FUNCTION_NAME.fullmatch(function.name):
                message = f"Invalid '{at}.name': it has up to 64 letters, digits, underscores and dashes."
                raise RequestError("invalid_value", message, param=f"{at}.name")
        elif tool.get("type") not in _TOOLS:
            supported = ", ".join(f"'{name}'" for name in sorted(_TOOLS))
            raise RequestError(
                "invalid_value",
                f"Invalid value: {tool.get('type')!r}. Supported values are: {supported}.",
                param=f"{at}.type",
            )
    return delegation


def _check_texts(start: shapes.Start) -> None:
    if isinstance(start.instructions, str):
        check_length(start.instructions, _MAX_INSTRUCTIONS_TOKENS, "session.instructions")
    if not isinstance(start.input, list):
        return
    check_length(
        "".join(message.content[0].text for message in start.input), _MAX_INPUT_TOKENS, "session.input"
    )
    for index, message in enumerate(start.input):
        kind = message.content[0].type
        allowed = ("output_text", "text") if message.role == "assistant" else ("input_text",)
        if kind is not UNSET and kind not in allowed:
            raise RequestError(
                "invalid_value",
                f"Invalid value: '{kind}'. A message of this role has '{allowed[0]}'.",
                param=f"session.input[{index}].content[0].type",
            )


def check_length(text: str, limit: int, param: str) -> None:
    """Refuse a text of more than ``limit`` tokens.

    Raises:
        RequestError: It is too long.
    """
    tokens = text_tokens(text)
    if tokens > limit:
        message = f"'{param}' has {tokens} tokens; the limit is {limit}."
        raise RequestError("string_above_max_length", message, param=param)


def _check_triggers(update: shapes.Update) -> None:
    if isinstance(update.triggers, list):
        kinds = [trigger.event_type for trigger in update.triggers]
        if len(set(kinds)) < len(kinds):
            message = "There is at most one trigger for each type of event."
            raise RequestError("invalid_value", message, param="session.triggers")


def _missing(param: str) -> RequestError:
    return RequestError("missing_required_parameter", f"Missing required parameter: '{param}'.", param=param)
