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
        ("number", 1234567.89, "1234567.89"),
        ("number", "1234567890123", "1234567890123"),
        ("integer", 1234567.0, "1234567"),
        ("phone", 4930123456.0, "4930123456"),
        ("digits", 4111111111111111, "4111111111111111"),
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
        (Field("k", "digits"), "١٢٣", "k must be digits"),
        (Field("p", "phone"), "1&2@evil", "p must be a telephone number"),
        (Field("n", "integer"), 1.5, "n must be a whole number, not '1.5'"),
        (Field("y", "yes_no"), "maybe", "y must be yes or no, not 'maybe'"),
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
    assert Field("c", choices=("7", "8")).read(7.0) == "7"


ANY = st.one_of(
    st.text(max_size=30), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text())
)


NEARLY = st.one_of(
    st.from_regex(r"[-+]?\d{1,20}([.,:eE/_-]\d{1,4}){0,3}"),
    st.dates().map(str),
    st.times().map(str),
    st.floats().map(str),
    st.text("0123456789*#+ ()./-\u0660\u00a0\n", max_size=24),
)
FIELDS = st.builds(
    Field,
    st.just("x"),
    st.sampled_from(TYPES),
    description=st.text(max_size=10),
    required=st.booleans(),
    choices=st.lists(st.text(max_size=6), max_size=3).map(tuple),
    pattern=st.sampled_from(["", ".+", r"\d{3,}", "[a-c]*"]),
    length=st.integers(0, 8),
    secret=st.booleans(),
)


@settings(max_examples=500)
@given(FIELDS, ANY | NEARLY)
def test_any_value_is_read_or_refused_and_what_is_kept_reads_to_itself(field: Field, value: Any) -> None:
    try:
        kept = field.read(value)
    except ValueError:
        return
    assert field.read(kept) == kept


@given(FIELDS)
def test_schema_is_json(field: Field) -> None:
    assert json.loads(json.dumps(field.schema)) == field.schema
    assert field.schema["type"] in ("string", "integer", "number", "boolean")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_loses_nothing(number: float) -> None:
    assert float(Field("n", "number").read(number)) == number


@given(st.text("0123456789", min_size=9))
def test_refusal_does_not_repeat_what_is_secret(digits: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        Field("k", "digits", length=8, secret=True).read(digits)
    assert digits not in str(caught.value)


@given(st.dictionaries(st.sampled_from("abcd"), ANY))
def test_any_values_are_read_at_once_or_refused(values: dict[str, Any]) -> None:
    fields = {"a": Field("a", "date"), "b": Field("b", "integer", required=False), "c": Field("c")}
    try:
        kept = read_all(fields, values)
    except ValueError:
        return
    assert {"a", "c"} <= kept.keys() <= {"a", "b", "c"}
    assert read_all(fields, kept) == kept


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
