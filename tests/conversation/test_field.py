"""Values of fields: what is taken, in which form it is kept, and how a wrong one is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation.field import TYPES, Field, Type, parameters, read_all


@pytest.mark.parametrize(
    ("type_", "value", "kept"),
    [
        ("text", "  a \n cold ", "a cold"),
        ("text", 7, "7"),
        ("integer", "12", "12"),
        ("integer", 12, "12"),
        ("number", "1.50", "1.5"),
        ("number", 3, "3"),
        ("yes_no", True, "yes"),
        ("yes_no", "No", "no"),
        ("yes_no", "false", "no"),
        ("date", "2026-11-24", "2026-11-24"),
        ("time", "09:30:00", "09:30"),
        ("phone", "+49 (30) 123-45", "+493012345"),
        ("digits", "12 34", "1234"),
    ],
)
def test_value_is_kept_in_one_form(type_: Type, value: Any, kept: str) -> None:
    assert Field("x", type_).read(value) == kept


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        (Field("x"), " ", "x is empty"),
        (Field("x"), "a" * 501, "x is longer than 500 characters"),
        (Field("x"), None, "x must be text"),
        (Field("x"), ["a"], "x must be text"),
        (Field("n", "integer"), "many", "n must be a whole number, not 'many'"),
        (Field("n", "number"), "nan", "n must be a number, not 'nan'"),
        (Field("n", "number"), "1e999", "n must be a number"),
        (Field("d", "date"), "Wednesday", "d must be a date as YYYY-MM-DD, not 'Wednesday'"),
        (Field("t", "time"), "25:00", "t must be a time as HH:MM"),
        (Field("p", "phone"), "call me", "p must be a telephone number"),
        (Field("k", "digits", length=4), "123", "k must be 4 digits, not '123'"),
        (Field("k", "digits", length=4, secret=True), "123", "k must be 4 digits, not that"),
        (Field("c", choices=("a", "b")), "d", "c must be one of a, b, not 'd'"),
        (Field("e", pattern=".+@.+"), "me", r"e must be text that matches .+@.+, not 'me'"),
    ],
)
def test_wrong_value_is_named(field: Field, value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^\w") as caught:
        field.read(value)
    assert str(caught.value).startswith(problem)


def test_choice_is_taken_in_any_case_and_kept_as_it_is_written() -> None:
    assert Field("c", choices=("Funghi",)).read("FUNGHI") == "Funghi"


ANY = st.one_of(
    st.text(max_size=30), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text())
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TYPES), ANY)
def test_any_value_is_read_or_refused_and_what_is_kept_reads_to_itself(type_: Type, value: Any) -> None:
    field = Field("x", type_)
    try:
        kept = field.read(value)
    except ValueError:
        return
    assert field.read(kept) == kept


def test_all_values_are_read_at_once() -> None:
    fields = {"a": Field("a"), "b": Field("b", "integer", required=False)}
    assert read_all(fields, {"a": "x", "b": None}) == {"a": "x"}
    with pytest.raises(ValueError, match="a is missing"):
        read_all(fields, {"b": 1})
    with pytest.raises(ValueError, match="'c' is not asked for; asked for: a, b"):
        read_all(fields, {"a": "x", "c": 1})


def test_schema_says_what_a_value_must_be() -> None:
    fields = {
        "size": Field("size", choices=("small", "large"), description="which"),
        "count": Field("count", "integer", required=False),
        "day": Field("day", "date"),
    }
    assert json.loads(json.dumps(parameters(fields))) == {
        "type": "object",
        "properties": {
            "size": {"type": "string", "enum": ["small", "large"], "description": "which"},
            "count": {"type": "integer"},
            "day": {"type": "string", "description": "a date as YYYY-MM-DD"},
        },
        "required": ["size", "day"],
    }
