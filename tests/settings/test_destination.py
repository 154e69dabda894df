"""Where calls may be transferred to: what the setting takes, and what an AI cannot get out of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation.field import read_all
from arivox.conversation.tools.builtin import ALLOWED
from arivox.conversation.tools.names import TRANSFER
from arivox.errors import SettingsError
from arivox.settings.destination import Destination, parse
from arivox.settings.settings import Settings


def one(target: str) -> Destination:
    return parse("TRANSFER_TO", f"x={target}")["x"]


def test_kinds_of_targets() -> None:
    found = parse("TRANSFER_TO", " a = PJSIP/200, b=300@from-internal,c=goto:s@queues, d=_NXX@out ,")
    assert list(found) == ["a", "b", "c", "d"]
    assert found["a"].dial_string(found["a"].number("")) == "PJSIP/200"
    assert found["b"].dial_string(found["b"].number("999")) == "Local/300@from-internal"
    assert (found["c"].goto, found["c"].exten, found["c"].context) == (True, "s", "queues")
    assert found["d"].dial_string(found["d"].number("2 34")) == "Local/234@out"
    assert [name for name, to in found.items() if to.takes_number] == ["d"]
    assert parse("TRANSFER_TO", "") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("200", "'200' is not name=target"),
        ("a b=PJSIP/200", "is not name=target"),
        ("=PJSIP/200", "is not name=target"),
        ("a=", "'' is not a target"),
        ("a=200", "'200' is not a target"),
        ("a=PJSIP/1,a=PJSIP/2", "'a' stands there twice"),
        ("a=_@out", "is not a target"),
        ("a=_sales@out", "is not a target"),
        ("a=_[9-2]XX@out", "is not a target"),
        ("a=_[2X@out", "is not a target"),
        ("a=_[]X@out", "is not a target"),
        ("a=_[0-z]@out", "is not a target"),
        ("a=_9.XX@out", "is not a target"),
        ("a=200@out&200@in", "is not a target"),
        ("a=200@out/n", "is not a target"),
        ("a=goto:PJSIP/200", "is not a target"),
    ],
)
def test_wrong_setting_is_named(text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        Settings(transfer_to=text)
    assert caught.value.setting == "TRANSFER_TO"


@pytest.mark.parametrize(
    ("pattern", "fits", "not_"),
    [
        ("_2XX", ["200", "299"], ["20", "2000", "300", "2a0"]),
        ("_ZN[15-7].", ["1211", "9273"], ["0211", "1111", "123", "1230"]),
        ("_9!", ["9", "912"], ["8"]),
        ("_+49X.", ["+4930"], ["4930", "+49"]),
        ("_xzn", ["012"], ["002", "011"]),
        ("_[24-6*]#", ["2#", "5#", "*#"], ["3#", "-#"]),
        ("_" + "X" * 40, [], ["1" * 40]),
        ("_.", ["1" * 32], ["1" * 33]),
    ],
)
def test_number_must_match_the_pattern(pattern: str, fits: list[str], not_: list[str]) -> None:
    destination = one(f"{pattern}@out")
    assert [destination.number(number) for number in fits] == fits
    for number in not_:
        with pytest.raises(ValueError, match="is not allowed for x"):
            destination.number(number)


@given(st.text(max_size=20))
def test_number_of_an_ai_is_never_more_than_a_number(text: str) -> None:
    try:
        number = one("_.@out").number(text)
    except ValueError:
        return
    assert set(number) <= set("0123456789*#+")


@pytest.mark.parametrize("given", ["999", "1@evil", "", "x" * 999])
def test_number_for_one_fixed_extension_changes_nothing(given: str) -> None:
    assert one("300@sales").number(given) == "300"
    assert one("PJSIP/200").dial_string(one("PJSIP/200").number(given)) == "PJSIP/200"


@pytest.mark.parametrize(("pattern", "given"), [("_X", "0"), ("_*9X", "*97"), ("_+X.", "+49 (30) 12.34-5")])
def test_any_extension_can_be_asked_for(pattern: str, given: str) -> None:
    values = read_all(ALLOWED[TRANSFER].fields, {"destination": "x", "number": given})
    assert one(f"{pattern}@out").number(values["number"]) == re.sub(r"[^0-9*+]", "", given)


@pytest.mark.parametrize("given", ["", " ", "()/-"])
def test_number_that_is_none_is_asked_for(given: str) -> None:
    with pytest.raises(ValueError, match="x needs a number"):
        one("_.@out").number(given)


@settings(max_examples=300)
@given(st.text(",=@/_:[]!.-*#+XZNgoto219 &|()\\^$", max_size=20), st.text("0123456789*#+-[]@&,", max_size=8))
def test_any_setting_is_taken_or_refused_and_never_fails_in_a_call(target: str, number: str) -> None:
    try:
        found = parse("TRANSFER_TO", f"x=PJSIP/1, y={target}")
    except SettingsError:
        return
    for destination in found.values():
        try:
            reached = destination.number(number)
        except ValueError:
            continue
        if destination.takes_number:
            assert re.fullmatch(r"[0-9*#+]{1,32}", reached)
        else:
            assert reached == destination.exten


@pytest.mark.parametrize(
    "number", ["1@evil", "1&PJSIP/2", "1,,G", "1/n", "1\n2x", "١٢", "s", "1\u200b2", "1^2", "1;2", "1|2"]
)
def test_number_cannot_become_part_of_a_dial_string(number: str) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        one("_.@out").number(number)
