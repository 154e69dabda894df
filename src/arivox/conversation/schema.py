"""The JSON Schema of a prompts file, for editors: it completes and explains what the reader takes. Pure.

A section may say only what it changes of the common one, so hardly anything is required here. What the schema
cannot say, such as whether a state exists, the reader and ``arivox flow check`` find.
"""

from __future__ import annotations

from typing import Any, Final

from arivox.conversation.endpoint import METHODS, TIMEOUT_S
from arivox.conversation.field import TYPES
from arivox.conversation.reader import COMMON, PROVIDERS, TOOLS
from arivox.conversation.state import ERROR_HANDLER, FALLBACK, MOST_TRIES

Schema = dict[str, Any]

_NAME: Final = r"^[A-Za-z_][0-9A-Za-z_\u0080-\uffff]{0,63}$"
_SCALAR: Final = ["string", "number", "boolean"]
"""What is meant as text may look like a number, or like yes or no."""
_FIELD_NAME: Final[Schema] = {"pattern": _NAME, "not": {"const": "state"}}
_EMPTY: Final[Schema] = {"type": [*_SCALAR, "null"]}
"""Text that may be missing."""


def schema() -> Schema:
    """Return the schema (draft 2020-12) of a prompts file."""
    sections = {
        name: _said(_ref("section"), f"What {name} is told, over what is common.") for name in PROVIDERS
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Prompts of Arivox",
        "description": "What the AIs are told: a system instruction, and the states of the conversation.",
        **_mapping(
            {
                COMMON: _said(
                    _ref("section"), "What every AI is told, as far as its own section does not differ."
                ),
                **sections,
                TOOLS: {
                    "description": "Tools that are HTTP endpoints, by the names that the AI calls them by.",
                    "type": "object",
                    "propertyNames": {"pattern": _NAME},
                    "additionalProperties": _ref("endpoint"),
                },
            }
        ),
        "minProperties": 1,
        "$defs": _definitions(),
    }


def _definitions() -> Schema:
    return {
        "section": _mapping(
            {
                "system_instruction": _said(_EMPTY, "What the AI is told about itself, whatever the state."),
                "defaults": _said(
                    _ref("defaults"), "What holds in every state but the asides, unless it differs."
                ),
                "states": {
                    "description": "The states of the conversation, in the order of the normal way.",
                    "type": "object",
                    "minProperties": 1,
                    "properties": {
                        FALLBACK: _said(
                            _ref("state"), "Where the conversation goes when it does not get on."
                        ),
                        ERROR_HANDLER: _said(
                            _ref("state"), "Where it goes when that does not help, or on an error."
                        ),
                    },
                    "additionalProperties": _ref("state"),
                },
            }
        ),
        "defaults": _mapping(_anywhere()),
        "state": {
            "description": "A state: its prompt, or a mapping with more to it.",
            "anyOf": [{"type": _SCALAR}, _mapping(_state())],
        },
        "no_match": _mapping(
            {
                "say": _text("What the caller hears when they were not understood."),
                "tries": _whole(
                    "How often that may happen before the conversation moves on.", 1, 20, MOST_TRIES
                ),
                "to": _state_name("The state that follows then.", FALLBACK),
            }
        ),
        "silence": _mapping(
            {
                "after": _number("Seconds of silence after which the caller is asked again.", 1, 600),
                "say": _text("What they are asked."),
                "times": _whole("How often they are asked before the conversation moves on.", 0, 20, 1),
                "to": _state_name("The state that follows then.", FALLBACK),
            }
        ),
        "timeout": _mapping(
            {
                "after": _number("Seconds in the state after which the conversation moves on.", 1, 3600),
                "to": _state_name("The state that follows then."),
            }
        ),
        "exit": {
            **_mapping(
                {
                    "state": _state_name("The state that may follow."),
                    "when": {
                        "description": "Only when these fields have these values; '*': any value.",
                        "type": "object",
                        "additionalProperties": {"anyOf": [{"type": _SCALAR}, _texts()]},
                    },
                    "anyway": _flag("Also while something that the state asks for is not known.", False),
                }
            ),
            "required": ["state"],
        },
        "fields": {
            "type": "object",
            "propertyNames": _FIELD_NAME,
            "additionalProperties": _ref("field"),
        },
        "field": {
            "description": "What is asked for: a description, or a mapping with more to it.",
            "anyOf": [_EMPTY, _mapping(_field())],
        },
        "actions": {
            "type": "array",
            "items": {
                "anyOf": [
                    {"description": "The name of a tool.", "type": "string"},
                    {
                        "description": "The name of a tool, with arguments; {name} stands for what is known.",
                        "type": "object",
                        "additionalProperties": {"type": "object", "additionalProperties": {"type": _SCALAR}},
                    },
                ]
            },
        },
        "endpoint": {
            **_mapping(
                {
                    "description": _text("What the tool does, for the AI."),
                    "parameters": _said(_ref("fields"), "What the AI must or may tell the tool."),
                    "http": {
                        "description": "The request that is made.",
                        **_mapping(_http()),
                        "required": ["url"],
                    },
                    "say": _text("What the caller hears before the request is made."),
                }
            ),
            "required": ["description", "http"],
        },
    }


def _anywhere() -> Schema:
    return {
        "tools": _said(_texts(), "The tools that the AI may call."),
        "no_match": _said(_ref("no_match"), "What happens when the caller is not understood."),
        "silence": _said(_ref("silence"), "What happens when the caller stays silent."),
        "timeout": _said(_ref("timeout"), "Where the conversation goes when it stays in the state too long."),
        "dtmf": {
            "description": "Keys of the phone, and the states that they lead to.",
            "type": "object",
            "patternProperties": {"^[0-9*#A-D]$": _state_name("The state that the key leads to.")},
            "additionalProperties": False,
        },
    }


def _state() -> Schema:
    return {
        "prompt": _text("What the AI says or does in the state; {name} stands for what is known."),
        "collect": {
            "description": "What the state asks the caller for.",
            "anyOf": [
                {
                    "description": "The names of what is asked for.",
                    "type": "array",
                    "items": {"type": "string", **_FIELD_NAME},
                },
                _ref("fields"),
            ],
        },
        "next": {
            "description": "The states that may follow, the normal way first; else the next in the file.",
            "anyOf": [
                {"description": "The state that follows, or end.", "type": _SCALAR},
                {"type": "array", "items": {"anyOf": [{"type": _SCALAR}, _ref("exit")]}},
            ],
        },
        **_anywhere(),
        "on_enter": _said(
            _ref("actions"), "Tools that run when the state is entered; one that refuses keeps it out."
        ),
        "on_leave": _said(
            _ref("actions"), "Tools that run when the state is left; one that refuses keeps it there."
        ),
    }


def _field() -> Schema:
    return {
        "type": {"description": "What kind of value it is.", "enum": list(TYPES), "default": "text"},
        "description": _said(_EMPTY, "What it is, for the AI."),
        "required": _flag("Whether the state can only be left once it is known.", True),
        "choices": _said(_texts(), "The only values that it may have."),
        "pattern": {"description": "Regular expression that the whole value must match.", "type": _SCALAR},
        "length": _whole("How many digits it has.", 1, 32),
        "secret": _flag("Whether neither the AI nor the record of the call sees it; only for digits.", False),
    }


def _http() -> Schema:
    values = {"type": "object", "additionalProperties": _EMPTY}
    return {
        "url": {
            "description": "Where it goes; {name} stands for a value, ${NAME} for an environment variable.",
            "type": "string",
            "pattern": r"^\s*(https?://|\$\{)",
        },
        "method": {
            "description": "How it goes there.",
            "enum": [*METHODS, *map(str.lower, METHODS)],
            "default": "GET",
        },
        "query": _said(values, "What is added to the URL; {name} stands for a value."),
        "headers": _said(values, "Its headers; ${NAME} stands for an environment variable."),
        "body": _said(values, "What is sent, as JSON; {name} stands for a value; by default the arguments."),
        "timeout": _number("Seconds after which the answer is no longer awaited.", 0.1, 120, TIMEOUT_S),
    }


def _mapping(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _said(schema: Schema, description: str) -> Schema:
    return {"description": description, **schema}


def _text(description: str) -> Schema:
    return {"description": description, "type": _SCALAR}


def _texts() -> Schema:
    return {"type": "array", "items": {"type": _SCALAR}}


def _state_name(description: str, default: str | None = None) -> Schema:
    return _text(description) if default is None else {**_text(description), "default": default}


def _number(description: str, low: float, high: float, default: float | None = None) -> Schema:
    number = {"description": description, "type": "number", "minimum": low, "maximum": high}
    return number if default is None else {**number, "default": default}


def _whole(description: str, low: int, high: int, default: int | None = None) -> Schema:
    return {**_number(description, low, high, default), "type": "integer"}


def _flag(description: str, default: bool) -> Schema:
    return {"description": description, "enum": [True, False, "yes", "no"], "default": default}
