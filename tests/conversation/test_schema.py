"""The schema of the prompts file takes what the reader takes, key by key, and explains each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from arivox.conversation import reader
from arivox.conversation.endpoint import METHODS
from arivox.conversation.field import TYPES
from arivox.conversation.reader import PROVIDERS, PromptsFile
from arivox.conversation.schema import schema

SCHEMA = schema()
PACKAGE = Path(reader.__file__).with_name("prompts.yaml")
EVERYTHING = """
common:
  system_instruction:
  defaults:
    tools: [find_slot]
    no_match: {tries: 2, say: "Sorry?", to: fallback}
    silence: {after: 7.5, say: "Hello?", times: 0, to: b}
    timeout: {after: 3600, to: error_handler}
    dtmf: {0: b, '*': a, '#': a, D: a}
  states:
    a: "Say {call.id}."
    b:
      prompt: 5
      collect: [size, seven]
      next: [c, {state: a, when: {size: [1, big], agreed: true}, anyway: yes}]
      tools: []
      no_match: {}
      silence: {after: 5}
      timeout: {after: 1, to: a}
      dtmf: {}
      on_enter: [find_slot, {send_dtmf: {digits: 12}, hold_call: {}}]
      on_leave: []
    c:
      prompt: x
      collect:
        day: {type: date, description: , required: false}
        time: a time
        nothing:
        größe: {choices: [1, true, big], pattern: 12}
        pin: {type: digits, length: 4, secret: "yes", required: True}
      next: end
    fallback: {prompt: x}
    error_handler: x
openai: {system_instruction: 5}
gemini: {states: {b: {silence: {say: now}}}}
openai-live: {states: {d: {prompt: x, next: a}}}
tools:
  one:
    description: x
    parameters: {pin: , day: {type: date}}
    say: wait
    http:
      url: "${BASE}/x/{pin}"
      method: post
      query: {a: 1, b: }
      headers: {a: "${TOKEN}"}
      body: {a: true}
      timeout: 0.1
  two: {description: x, http: {url: http://x}}
"""
MORE = "zzz"
"""A key that nobody takes."""
PLACES = {
    "": "{zzz: 1}",
    "section": "openai: {zzz: 1, states: {a: x}}",
    "defaults": "common: {defaults: {zzz: 1}, states: {a: x}}",
    "state": "gemini: {states: {a: {prompt: x, zzz: 1}}}",
    "no_match": "openai: {states: {a: {prompt: x, no_match: {zzz: 1}}}}",
    "silence": "openai: {states: {a: {prompt: x, silence: {after: 5, to: a, zzz: 1}}}}",
    "timeout": "openai: {defaults: {timeout: {after: 5, to: a, zzz: 1}}, states: {a: x}}",
    "exit": "openai-live: {states: {a: {prompt: x, next: [{state: a, zzz: 1}]}}}",
    "field": "openai: {states: {a: {prompt: x, collect: {b: {zzz: 1}}}}}",
    "endpoint": "tools: {a: {description: x, http: {url: http://x}, zzz: 1}}\nopenai: {states: {a: x}}",
    "http": "tools: {a: {description: x, http: {url: http://x, zzz: 1}}}\nopenai: {states: {a: x}}",
}
"""Every mapping of known keys, with one that is not."""


# --- as the reader, and as an editor, see a file ---


def faults(text: str) -> list[str]:
    file = PromptsFile(text)
    for name in file.names:
        file.section([name])
    return [fault.problem for fault in file.faults]


def takes(text: str) -> bool:
    return fits(yaml.safe_load(text), SCHEMA)


def fits(value: Any, of: dict[str, Any]) -> bool:
    """Return whether a value is as the schema says, as far as this schema goes."""
    if "$ref" in of:
        return fits(value, SCHEMA["$defs"][of["$ref"].removeprefix("#/$defs/")])
    if "anyOf" in of and not any(fits(value, one) for one in of["anyOf"]):
        return False
    if "enum" in of and not any(value == one and isinstance(value, type(one)) for one in of["enum"]):
        return False
    if "const" in of and value != of["const"]:
        return False
    types = of.get("type", [])
    if types and not any(KINDS[kind](value) for kind in ([types] if isinstance(types, str) else types)):
        return False
    if "pattern" in of and not re.search(of["pattern"], value):
        return False
    if "not" in of and fits(value, of["not"]):
        return False
    if not of.get("minimum", -math.inf) <= (value if "minimum" in of else 0) <= of.get("maximum", math.inf):
        return False
    if isinstance(value, list):
        return all(fits(item, of.get("items", {})) for item in value)
    return not isinstance(value, dict) or fits_mapping({str(key): one for key, one in value.items()}, of)


def fits_mapping(value: dict[str, Any], of: dict[str, Any]) -> bool:
    if len(value) < of.get("minProperties", 0) or not value.keys() >= set(of.get("required", ())):
        return False
    for key, one in value.items():
        named = [part for name, part in of.get("properties", {}).items() if name == key]
        named += [part for name, part in of.get("patternProperties", {}).items() if re.search(name, key)]
        other = of.get("additionalProperties", {})
        if not named and (other is False or not fits(one, other)):
            return False
        if not all(fits(one, part) for part in named) or not fits(key, of.get("propertyNames", {})):
            return False
    return True


KINDS = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}


def parts(of: Any = None) -> Iterator[dict[str, Any]]:
    """Yield all schemas in the schema."""
    of = SCHEMA if of is None else of
    yield of
    for keyword in ("properties", "patternProperties", "$defs"):
        for one in of.get(keyword, {}).values():
            yield from parts(one)
    for keyword in ("additionalProperties", "propertyNames", "items", "not"):
        if isinstance(of.get(keyword), dict):
            yield from parts(of[keyword])
    for one in of.get("anyOf", ()):
        yield from parts(one)


def keys_at(place: str) -> dict[str, Any]:
    """Return the keys, with their schemas, that the schema knows in a place."""
    if not place:
        of = SCHEMA
    elif place == "http":
        of = keys_at("endpoint")["http"]
    else:
        of = SCHEMA["$defs"][place]
    mapping = next((one for one in of.get("anyOf", ()) if "properties" in one), of)
    properties: dict[str, Any] = mapping["properties"]
    return properties


# --- tests ---


@pytest.mark.parametrize("place", PLACES)
def test_schema_and_reader_know_the_same_keys(place: str) -> None:
    (fault,) = faults(PLACES[place])
    found = re.match(r"'zzz' is not (?:known.*|an AI); there are (.*)", fault)
    assert found is not None, fault
    assert set(re.split(", | and ", found[1])) == set(keys_at(place))
    assert not takes(PLACES[place])
    assert takes(re.sub(r", zzz: 1|zzz: 1, ", "", PLACES[place]).replace("zzz: 1", "")) == (place != "")


def test_every_mapping_of_known_keys_is_compared() -> None:
    closed = [one for one in parts() if "properties" in one and one.get("additionalProperties") is False]
    compared = [keys_at(place) for place in PLACES]
    assert len(compared) == len(closed)
    assert all(one["properties"] in compared for one in closed)


@pytest.mark.parametrize("text", [EVERYTHING, PACKAGE.read_text()])
def test_file_that_can_be_read_fits(text: str) -> None:
    assert faults(text) == []
    assert takes(text)


def test_every_key_is_used_in_the_example() -> None:
    written = set(re.findall(r"([\w-]+): ?", EVERYTHING))
    assert {key for place in PLACES for key in keys_at(place)} <= written


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "openai: text",
        "openai: {states: []}",
        "openai: {states: {}}",
        "openai: {states: {a: [x]}}",
        "openai: {system_instruction: [a], states: {a: x}}",
        "openai: {states: {a: {prompt: [x]}}}",
        "openai: {states: {a: {prompt: x, collect: size}}}",
        "openai: {states: {a: {prompt: x, collect: {state: x}}}}",
        "openai: {states: {a: {prompt: x, collect: {9a: x}}}}",
        "openai: {states: {a: {prompt: x, collect: {a b: x}}}}",
        "openai: {states: {a: {prompt: x, collect: {a: [x]}}}}",
        "openai: {states: {a: {prompt: x, collect: {a: {type: int}}}}}",
        "openai: {states: {a: {prompt: x, collect: {a: {required: maybe}}}}}",
        "openai: {states: {a: {prompt: x, collect: {a: {choices: b}}}}}",
        "openai: {states: {a: {prompt: x, collect: {a: {choices: [[b]]}}}}}",
        "openai: {states: {a: {prompt: x, next: {state: a}}}}",
        "openai: {states: {a: {prompt: x, next: [{when: {}}]}}}",
        "openai: {states: {a: {prompt: x, next: [{state: a, when: {b: {c: d}}}]}}}",
        "openai: {states: {a: {prompt: x, next: [[a]]}}}",
        "openai: {states: {a: {prompt: x, dtmf: {12: a}}}}",
        "openai: {states: {a: {prompt: x, dtmf: {E: a}}}}",
        "openai: {states: {a: {prompt: x, dtmf: {0: [a]}}}}",
        "openai: {states: {a: {prompt: x, tools: find_slot}}}",
        "openai: {states: {a: {prompt: x, on_enter: find_slot}}}",
        "openai: {states: {a: {prompt: x, on_leave: [{find_slot: day}]}}}",
        "openai: {states: {a: {prompt: x, on_leave: [{find_slot: {day: [a]}}]}}}",
        "openai: {states: {a: {prompt: x, silence: 5}}}",
        "tools: {a: {description: x}}\nopenai: {states: {a: x}}",
        "tools: {a: {http: {url: http://x}}}\nopenai: {states: {a: x}}",
        "tools: {9a: {description: x, http: {url: http://x}}}\nopenai: {states: {a: x}}",
        "tools: {a: {description: x, http: {method: GET}}}\nopenai: {states: {a: x}}",
        "tools: {a: {description: x, http: {url: ftp://x}}}\nopenai: {states: {a: x}}",
        "tools: {a: {description: x, http: {url: http://x, method: SEND}}}\nopenai: {states: {a: x}}",
        "tools: {a: {description: x, http: {url: http://x, query: [a]}}}\nopenai: {states: {a: x}}",
        "tools: {a: {description: x, parameters: [b], http: {url: http://x}}}\nopenai: {states: {a: x}}",
    ],
)
def test_what_the_reader_refuses_does_not_fit(text: str) -> None:
    assert faults(text)
    assert not takes(text)


LIMITED = [
    ("no_match", "tries", "openai: {states: {a: {prompt: x, no_match: {tries: N}}}}"),
    ("silence", "times", "openai: {states: {a: {prompt: x, silence: {after: 5, to: a, times: N}}}}"),
    ("silence", "after", "openai: {states: {a: {prompt: x, silence: {after: N, to: a}}}}"),
    ("timeout", "after", "openai: {states: {a: {prompt: x, timeout: {after: N, to: a}}}}"),
    ("field", "length", "openai: {states: {a: {prompt: x, collect: {b: {type: digits, length: N}}}}}"),
    (
        "http",
        "timeout",
        "tools: {a: {description: x, http: {url: http://x, timeout: N}}}\nopenai: {states: {a: x}}",
    ),
]


@pytest.mark.parametrize(("place", "key", "text"), LIMITED)
def test_numbers_have_the_same_limits(place: str, key: str, text: str) -> None:
    limits = keys_at(place)[key]
    low, high = limits["minimum"], limits["maximum"]
    step = 1 if limits["type"] == "integer" else 0.01
    for number, good in ((low, True), (high, True), (low - step, False), (high + step, False)):
        written = text.replace("N", f"{number:g}" if step == 1 else f"{number:.2f}")
        assert (faults(written) == []) == good, written
        assert takes(written) == good, written


def test_all_limits_are_compared() -> None:
    limited = {(place, key) for place in PLACES for key, one in keys_at(place).items() if "minimum" in one}
    assert limited == {(place, key) for place, key, _ in LIMITED}


def test_words_to_choose_from_are_those_of_the_reader() -> None:
    assert keys_at("field")["type"]["enum"] == list(TYPES)
    assert set(keys_at("http")["method"]["enum"]) == {*METHODS, *map(str.lower, METHODS)}
    assert set(PROVIDERS) < set(keys_at(""))


def test_defaults_named_are_those_of_the_reader() -> None:
    text = "openai: {states: {a: {prompt: x, collect: {b: {}}, silence: {after: 5}}, fallback: x}}"
    section = PromptsFile(text + "\ntools: {t: {description: x, http: {url: http://x}}}").section(["openai"])
    assert section is not None
    state = section.states["a"]
    (field,) = state.collects
    endpoint = PromptsFile("tools: {t: {description: x, http: {url: http://x}}}").endpoints["t"]
    assert state.silence is not None
    read = {
        ("no_match", "tries"): state.tries,
        ("no_match", "to"): state.no_match_to,
        ("silence", "times"): state.silence.times,
        ("silence", "to"): state.silence.to,
        ("field", "type"): field.type,
        ("field", "required"): field.required,
        ("field", "secret"): field.secret,
        ("exit", "anyway"): False,
        ("http", "method"): endpoint.method,
        ("http", "timeout"): endpoint.timeout_s,
    }
    named = {
        (place, key): one["default"]
        for place in PLACES
        for key, one in keys_at(place).items()
        if "default" in one
    }
    assert named == read


def test_every_key_is_explained_in_one_sentence() -> None:
    for place in PLACES:
        for key, one in keys_at(place).items():
            assert re.fullmatch(r"[A-Z'][^\n]{8,}\.", one.get("description", "")), (place, key)
            assert ". " not in one["description"], (place, key)


def test_schema_is_one() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    words = {
        *("$schema", "$ref", "$defs", "title", "description", "default", "type", "enum", "const", "pattern"),
        *("minimum", "maximum", "anyOf", "not", "items", "properties", "patternProperties", "propertyNames"),
        *("additionalProperties", "minProperties", "required"),
    }
    names = {f"#/$defs/{name}" for name in SCHEMA["$defs"]}
    assert {one["$ref"] for one in parts() if "$ref" in one} == names
    for one in parts():
        assert set(one) <= words
        assert set(one.get("required", ())) <= set(one.get("properties", ()))
        types = one.get("type", [])
        assert {types} <= set(KINDS) if isinstance(types, str) else set(types) <= set(KINDS)
        for pattern in (one.get("pattern", ""), *one.get("patternProperties", ())):
            re.compile(pattern)
