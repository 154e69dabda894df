"""The flow: whatever happens, the conversation is in a declared state, and tries are bounded."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation.field import Field
from arivox.conversation.flow import (
    HIDDEN,
    KEYS_PAUSE_S,
    Again,
    Breakdown,
    Check,
    Checked,
    Effect,
    Entered,
    Event,
    Flow,
    Key,
    Keyed,
    Learned,
    Mistake,
    Move,
    NotUnderstood,
    Position,
    Pressed,
    Refused,
    Run,
    Silent,
    Spoke,
    Tick,
    Waited,
    Want,
    step,
)
from arivox.conversation.state import (
    ASIDES,
    ERROR_HANDLER,
    FALLBACK,
    MOST_TRIES,
    Action,
    Exit,
    Silence,
    State,
    Timeout,
    plain,
)

SCRIPTS = (
    "greeting",
    "gathering_reason",
    "collecting_availability_days",
    "collecting_availability_times",
    "proposing_slot",
    "confirmation",
    "fallback",
    "error_handler",
)
SMALL = [("a", "b", "fallback"), ("a", "b", "error_handler"), ("a", "b"), ("a",)]


def flow_of(*names: str) -> Flow:
    return Flow(plain(dict.fromkeys(names, "A prompt.")))


# Every way in which a conversation can go on, in one flow.
RICH = Flow(
    {
        state.name: state
        for state in (
            State(
                "menu", "Press 1.", exits=(Exit("account"), Exit("person", anyway=True)), keys={"0": "person"}
            ),
            State(
                "account",
                "Key it in.",
                collects=(Field("account", "digits", length=4), Field("pin", "digits", secret=True)),
                exits=(Exit("order"),),
                tries=2,
                no_match_say="Four digits, please.",
                no_match_to="person",
                silence=Silence(5, "Are you there?", 2, "person"),
                timeout=Timeout(60, "person"),
                on_leave=(Action("look_up"), Action("leave_note", {"text": "left"})),
            ),
            State(
                "order",
                "What size?",
                collects=(Field("size", choices=("small", "large")), Field("extra", required=False)),
                exits=(Exit("cheap", {"size": ("small",)}), Exit("dear", {"size": ("large",)})),
                silence=Silence(5, to=ERROR_HANDLER),
            ),
            State("cheap", "A {size} one for {account}.", exits=(Exit("order"), Exit("done"))),
            State("dear", "Sure? {price}", exits=(Exit("done"),), on_enter=(Action("ask_price"),)),
            State("person", "I connect you.", on_enter=(Action("transfer_call", {"destination": "x"}),)),
            State("done", "Bye."),
            State(FALLBACK, "Sorry?"),
            State(ERROR_HANDLER, "Oh."),
        )
    }
)
FLOWS = [flow_of(*SCRIPTS), RICH, *(flow_of(*names) for names in SMALL)]


def after(flow: Flow, *events: Event) -> Position:
    position = flow.start
    for event in events:
        position, _ = step(flow, position, event)
    return position


def states(flow: Flow, position: Position) -> list[str]:
    return [way.state for way in flow.exits(position)]


def test_tries_lead_to_fallback_and_from_there_to_the_error_handler() -> None:
    flow = FLOWS[0]
    wrong = Mistake("what?")
    assert after(flow, *[wrong] * (MOST_TRIES - 1)).state == "greeting"
    aside = after(flow, *[wrong] * MOST_TRIES)
    assert (aside.state, aside.back, aside.tries) == ("fallback", "greeting", 0)
    broken = after(flow, *[wrong] * 2 * MOST_TRIES)
    assert (broken.state, broken.back) == ("error_handler", "greeting")
    assert states(flow, broken) == ["gathering_reason", "greeting", "fallback"]


def test_last_try_is_answered_with_what_was_wrong_and_where_it_led() -> None:
    flow = FLOWS[0]
    position = after(flow, *[Mistake("no")] * (MOST_TRIES - 1))
    _, effects = step(flow, position, Move("confirmation"))
    refused, entered = effects
    assert isinstance(refused, Refused)
    assert "'confirmation' cannot follow 'greeting'" in refused.problem
    assert entered == Entered("greeting", "fallback", "tries")


def test_move_forgets_the_tries() -> None:
    flow = FLOWS[0]
    position = after(flow, Mistake("no"), Mistake("no"), Move("gathering_reason"))
    assert position == Position("gathering_reason")


def test_error_of_ours_leads_to_the_error_handler_and_back() -> None:
    flow = FLOWS[0]
    position = after(flow, Move("gathering_reason"), Breakdown("oh"))
    assert position.state == "error_handler"
    position = after(flow, Move("gathering_reason"), Breakdown("oh"), Move("gathering_reason"))
    assert position == Position("gathering_reason")


@pytest.mark.parametrize("states", [("a", "b"), ("a",)])
def test_flow_without_asides_stays_where_it_is(states: tuple[str, ...]) -> None:
    position = after(flow_of(*states), *[Mistake("no")] * 9, Breakdown("oh"))
    assert (position.state, position.tries) == ("a", MOST_TRIES)


def test_nothing_leads_out_of_the_last_state_but_an_error() -> None:
    flow = FLOWS[0]
    said = {
        "gathering_reason": "reason",
        "collecting_availability_days": "day",
        "collecting_availability_times": "time",
    }
    way = [*zip(flow.way, flow.way[1:], strict=False)]
    events = [Move(state, {said[before]: "x"} if before in said else {}) for before, state in way]
    assert after(flow, *events, *[Move("greeting")] * 9).state == "confirmation"
    assert after(flow, *events, Breakdown("oh")).state == "error_handler"


# --- what a state asks for ---


def test_state_is_not_left_before_the_caller_has_answered() -> None:
    flow = FLOWS[0]
    position = after(flow, Move("gathering_reason"))
    refused, (told,) = step(flow, position, Move("collecting_availability_days"))
    assert (refused.state, refused.tries) == ("gathering_reason", 1)
    assert told == Refused("reason is missing; ask the caller for it")
    moved, _ = step(flow, refused, Move("collecting_availability_days", {"reason": " a  cold "}))
    assert moved == Position("collecting_availability_days", {"reason": "a cold"})


def test_answer_may_be_given_early_and_corrected_later() -> None:
    flow = FLOWS[0]
    position = after(flow, Move("gathering_reason", {"day": "Monday"}))
    assert position.known == {"day": "Monday"}
    position, _ = step(
        flow, position, Move("collecting_availability_days", {"reason": "x", "day": "Tuesday"})
    )
    assert position.known == {"day": "Tuesday", "reason": "x"}


@pytest.mark.parametrize(
    "values", [{"size": "huge"}, {"size": ["small"]}, {"colour": "red"}, {"pin": "1234"}]
)
def test_wrong_value_changes_nothing_and_counts(values: dict[str, object]) -> None:
    position = Position("order")
    refused, (told,) = step(RICH, position, Move("cheap", values))
    assert (refused.state, refused.known, refused.tries) == ("order", {}, 1)
    assert isinstance(told, Refused)


def test_fallback_goes_on_with_what_was_asked_for() -> None:
    flow = FLOWS[0]
    aside = after(flow, Move("gathering_reason"), Move("fallback"))
    assert states(flow, aside) == ["collecting_availability_days", "gathering_reason"]
    assert step(flow, aside, Move("collecting_availability_days"))[0].tries == 1
    assert step(flow, aside, Move("collecting_availability_days", {"reason": "x"}))[0].known == {
        "reason": "x"
    }


def test_caller_who_is_not_understood_is_asked_again_and_then_led_aside() -> None:
    position = Position("account")
    position, effects = step(RICH, position, NotUnderstood())
    assert (position.state, effects) == ("account", (Again("Four digits, please."),))
    position, effects = step(RICH, position, NotUnderstood())
    assert effects[:2] == (Again("Four digits, please."), Run(Action("leave_note", {"text": "left"})))
    assert effects[2] == Entered("account", "person", "tries")


def test_tries_may_lead_past_fallback() -> None:
    states = dict(flow_of("a", "b", FALLBACK, ERROR_HANDLER).states)
    states["a"] = State("a", "A", exits=(Exit("b"),), tries=1, no_match_to=ERROR_HANDLER)
    assert step(Flow(states), Position("a"), NotUnderstood())[0].state == ERROR_HANDLER


def test_condition_decides_the_way() -> None:
    position = Position("order", {"account": "1234"})
    refused, (told,) = step(RICH, position, Move("dear", {"size": "small"}))
    assert refused.state == "order"
    assert told == Refused("'dear' is only possible when size is large")
    moved, _ = step(RICH, position, Move("cheap", {"size": "SMALL"}))
    assert (moved.state, moved.known["size"]) == ("cheap", "small")


def test_way_whose_condition_cannot_hold_any_more_is_not_offered() -> None:
    flow = Flow(
        {
            "a": State("a", "A", exits=(Exit("b", {"kind": ("x",)}), Exit("c", {"kind": ("*",)}))),
            "b": State("b", "B", (Field("kind"),)),
            "c": State("c", "C"),
        }
    )
    assert states(flow, Position("a")) == []
    assert states(flow, Position("a", {"kind": "y"})) == ["c"]
    assert states(flow, Position("a", {"kind": "x"})) == ["b", "c"]


# --- prompts that speak of what is not known ---


def test_state_whose_prompt_has_no_value_is_not_entered() -> None:
    position = Position("order", {"size": "small"})
    refused, (told,) = step(RICH, position, Move("cheap"))
    assert refused.state == "order"
    assert told == Refused("'cheap' speaks of account, which is not known yet")


def test_sent_there_all_the_same_it_goes_to_the_error_handler() -> None:
    flow = Flow(
        {
            "a": State("a", "A", keys={"1": "b"}, exits=(Exit("b"),)),
            "b": State("b", "B {x}"),
            ERROR_HANDLER: State(ERROR_HANDLER, "Oh."),
        }
    )
    position, effects = step(flow, Position("a"), Key("1"))
    assert position.state == ERROR_HANDLER
    assert effects[-1] == Entered("a", ERROR_HANDLER, "error")


# --- what needs no model ---


def test_key_of_the_menu_leads_on_without_a_model() -> None:
    position, effects = step(RICH, RICH.start, Key("0"))
    assert position.state == "person"
    assert effects == (
        Entered("menu", "person", "key"),
        Run(Action("transfer_call", {"destination": "x"})),
    )
    assert step(RICH, RICH.start, Key("7")) == (RICH.start, (Pressed("7"),))


def test_key_of_the_menu_works_aside_too() -> None:
    aside, _ = step(RICH, RICH.start, Move(FALLBACK))
    assert step(RICH, aside, Key("0"))[0].state == "person"


def test_digits_are_collected_until_they_are_complete() -> None:
    position = Position("account")
    for digit in "123":
        position, effects = step(RICH, position, Key(digit), 1.0)
        assert effects == ()
    position, effects = step(RICH, position, Key("4"), 2.0)
    assert effects == (Keyed("account", "1234", wanted=False),)
    assert position.known == {"account": "1234"}


def test_secret_digits_are_hidden_and_lead_on() -> None:
    position = Position("account", {"account": "1234"})
    assert RICH.keying(position) == Field("pin", "digits", secret=True)
    for digit in "98765":
        position, _ = step(RICH, position, Key(digit), 1.0)
    position, effects = step(RICH, position, Key("#"), 2.0)
    keyed, check = effects
    assert keyed == Keyed("pin", HIDDEN, wanted=False)
    assert isinstance(check, Check), "what the state asks on leaving comes first"
    assert check.actions == (Action("look_up"),)
    assert position.known["pin"] == HIDDEN
    assert position.secrets == {"pin": "98765"}
    assert "98765" not in repr(position)
    position, effects = step(RICH, position, Checked(check.leaving), 3.0)
    assert effects == (Run(Action("leave_note", {"text": "left"})), Entered("account", "order", "digits"))
    assert position.secrets == {"pin": "98765"}


def test_pause_ends_the_digits() -> None:
    position, _ = step(RICH, Position("account", {"account": "1234"}), Key("1"), 10.0)
    assert step(RICH, position, Tick(), 10.0 + KEYS_PAUSE_S - 0.1) == (position, ())
    done, effects = step(RICH, position, Tick(), 10.0 + KEYS_PAUSE_S)
    assert effects[0] == Keyed("pin", HIDDEN, wanted=False)
    assert done.keyed == ""


def test_wrong_digits_count_as_a_try_and_begin_anew() -> None:
    position = Position("account")
    for digit in "12":
        position, _ = step(RICH, position, Key(digit))
    position, (told,) = step(RICH, position, Key("#"))
    assert isinstance(told, Refused)
    assert told.problem.startswith("account must be 4 digits, not '12'")
    assert (position.keyed, position.tries) == ("", 1)


def test_digits_that_a_tool_wants_come_first() -> None:
    position, _ = step(RICH, RICH.start, Want(Field("card", "digits", length=2, secret=True)))
    position, _ = step(RICH, position, Key("0"))
    assert position.state == "menu", "it is no key of the menu now"
    position, effects = step(RICH, position, Key("5"))
    assert effects == (Keyed("card", HIDDEN, wanted=True),)
    assert (position.wanted, position.secrets) == (None, {"card": "05"})
    assert step(RICH, position, Key("0"))[0].state == "person"


def test_silence_is_asked_about_and_then_acted_on() -> None:
    position = Position("account")
    for _ in range(2):
        position, effects = step(RICH, position, Silent())
        assert effects == (Again("Are you there?"),)
    position, effects = step(RICH, position, Silent())
    assert position.state == "person"
    assert Entered("account", "person", "silence") in effects
    order = Position("order")
    order, _ = step(RICH, order, Silent())
    assert step(RICH, order, Silent())[0].state == ERROR_HANDLER
    assert step(RICH, RICH.start, Silent()) == (RICH.start, ())


def test_time_out_leads_on() -> None:
    position = Position("account", entered=100.0)
    assert step(RICH, position, Tick(), 159.9) == (position, ())
    position, effects = step(RICH, position, Tick(), 160.0)
    assert (position.state, position.entered) == ("person", 160.0)
    assert Entered("account", "person", "timeout") in effects


# --- tools that are asked before ---


def test_tool_that_is_asked_first_can_refuse_the_move() -> None:
    position = Position("order", {"account": "1"})
    position, (check,) = step(RICH, position, Move("dear", {"size": "large"}))
    assert isinstance(check, Check)
    assert check.actions == (Action("ask_price"),)
    assert (position.state, position.known) == ("order", {"account": "1"})
    refused, (told,) = step(RICH, position, Checked(check.leaving, problem="sold out"))
    assert (refused.state, refused.tries, refused.known) == ("order", 1, {"account": "1"})
    assert told == Refused("sold out")


def test_tool_that_is_asked_first_can_find_out_what_the_prompt_speaks_of() -> None:
    position, (check,) = step(RICH, Position("order"), Move("dear", {"size": "large"}))
    assert isinstance(check, Check)
    nothing, (told,) = step(RICH, position, Checked(check.leaving))
    assert (nothing.state, told) == ("order", Refused("'dear' speaks of price, which is not known yet"))
    moved, effects = step(RICH, position, Checked(check.leaving, {"price": "9"}))
    assert (moved.state, moved.known) == ("dear", {"size": "large", "price": "9"})
    assert effects == (Entered("order", "dear", "moved"),), "it is not asked again"


def test_answer_that_comes_too_late_changes_nothing() -> None:
    position, (check,) = step(RICH, Position("order"), Move("dear", {"size": "large"}))
    assert isinstance(check, Check)
    elsewhere, _ = step(RICH, position, Breakdown("oh"))
    late, (told,) = step(RICH, elsewhere, Checked(check.leaving, {"price": "9"}))
    assert told == Refused("the conversation has moved on meanwhile")
    assert (late.state, late.known) == ("error_handler", {"price": "9"}), "what was found out is kept"


def test_move_that_waits_is_not_begun_again() -> None:
    position, (check,) = step(RICH, Position("order"), Move("dear", {"size": "large"}))
    again, effects = step(RICH, position, Move("dear", {"size": "large"}))
    assert again == position
    assert effects == (Refused("a move is being looked into already; wait for its result"),)
    assert isinstance(check, Check)


PIN = Flow(
    {
        "pin": State(
            "pin",
            "Your PIN.",
            (Field("pin", "digits", secret=True),),
            (Exit("in"),),
            on_leave=(Action("check_pin"),),
        ),
        "in": State("in", "Welcome.", exits=(Exit("pin"),), keys={"1": "in"}),
    }
)


def keys(flow: Flow, position: Position, digits: str, now: float = 0.0) -> tuple[Position, list[Effect]]:
    found: list[Effect] = []
    for digit in digits:
        position, effects = step(flow, position, Key(digit), now)
        found += effects
    return position, found


def test_what_is_not_possible_is_told_without_what_is_said_to_the_not_understood() -> None:
    flow = Flow({**RICH.states, "dear": State("dear", "D {price}", on_enter=(Action("ask_price"),))})
    states = {**flow.states, "order": replace(flow.states["order"], no_match_say="Pardon?")}
    position, (check,) = step(Flow(states), Position("order"), Move("dear", {"size": "large"}))
    assert isinstance(check, Check)
    _, (told,) = step(Flow(states), position, Checked(check.leaving, problem="sold out"))
    assert told == Refused("sold out")


def test_refused_secret_is_asked_for_again_and_stays_one() -> None:
    position, (_, check) = keys(PIN, PIN.start, "1111#")
    assert isinstance(check, Check)
    position, _ = step(PIN, position, Checked(check.leaving, problem="wrong"))
    assert (position.known, position.secrets) == ({}, {})
    position, (keyed, check) = keys(PIN, position, "7391#")
    assert keyed == Keyed("pin", HIDDEN, wanted=False)
    assert isinstance(check, Check)
    position, _ = step(PIN, position, Checked(check.leaving))
    assert (position.state, position.secrets) == ("in", {"pin": "7391"})
    position, _ = step(PIN, position, Move("pin"))
    assert PIN.keying(position) is not None, "who comes back is asked anew"
    assert position.secrets == {}


def test_rest_of_a_secret_after_a_pause_is_shown_to_nobody() -> None:
    position, _ = keys(PIN, PIN.start, "73", 10.0)
    position, (_, check) = step(PIN, position, Tick(), 10.0 + KEYS_PAUSE_S)
    assert isinstance(check, Check)
    position, _ = step(PIN, position, Checked(check.leaving), 14.1)
    position, effects = keys(PIN, position, "91#", 14.5)
    assert (position.state, effects) == ("in", [])


def test_hash_key_that_was_not_needed_is_nothing_and_menu_keys_work_at_once() -> None:
    flow = Flow(
        {
            "a": State("a", "A", (Field("n", "digits", length=2),), (Exit("b"),)),
            "b": State("b", "B", keys={"1": "a"}),
        }
    )
    position, _ = keys(flow, Position("a"), "12")
    assert keys(flow, position, "#") == (position, [])
    assert keys(flow, position, "1")[0].state == "a"


def test_silences_are_forgotten_when_the_caller_is_heard() -> None:
    position, _ = step(RICH, Position("account"), Silent())
    position, _ = step(RICH, position, Silent())
    position, effects = step(RICH, position, Spoke())
    assert (position.silences, effects) == (0, ())
    assert step(RICH, position, Silent())[0].state == "account"


def test_time_on_hold_does_not_count() -> None:
    position, _ = step(RICH, Position("account", entered=100.0), Waited(50.0))
    assert step(RICH, position, Tick(), 200.0)[0].state == "account"
    assert step(RICH, position, Tick(), 210.0)[0].state == "person"


def test_what_a_tool_finds_out_is_known() -> None:
    assert step(RICH, RICH.start, Learned({"a": "b"}))[0].known == {"a": "b"}


# --- whatever happens ---


def check(flow: Flow, position: Position, event: Event, now: float = 0.0) -> Position:
    after, effects = step(flow, position, event, now)
    assert after.state in flow.states
    assert 0 <= after.tries <= flow.states[after.state].tries
    assert after.back == "" or (after.state in ASIDES and after.back in flow.way)
    entered = [effect for effect in effects if isinstance(effect, Entered)]
    if after.state != position.state:
        assert [(one.before, one.after) for one in entered] == [(position.state, after.state)]
        if after.state not in ASIDES and after.state != flow.home(position).name:
            acts = [action for action in flow.states[after.state].on_enter if action.tool == "transfer_call"]
            assert [e.action for e in effects if isinstance(e, Run) and e.action in acts] == acts
        assert flow.missing(after.state, after.known) == ()
    else:
        # To where it is already it may go again, if the flow says so.
        assert all(one.before == one.after for one in entered)
    if isinstance(event, Mistake | Breakdown | NotUnderstood | Move):
        assert effects, "the model is never left without an answer"
    for name, value in after.secrets.items():
        assert after.known.get(name, HIDDEN) == HIDDEN
        assert len(value) < 4 or value not in repr(after)
    return after


VALUES = st.dictionaries(
    st.sampled_from(["reason", "day", "time", "size", "account", "pin", "nothing"]),
    st.sampled_from(["", "x", "small", "large", "1234", 7, None, True, ["x"]]),
    max_size=3,
)
NAMES = st.sampled_from([*SCRIPTS, *RICH.states, "a", "b", "nowhere", ""])
OTHERS: list[Event] = [NotUnderstood(), Silent(), Tick()]
EVENTS = st.one_of(
    st.builds(Move, NAMES, VALUES),
    st.builds(Mistake, st.just("no")),
    st.builds(Breakdown, st.just("oh")),
    st.builds(Key, st.sampled_from("0123456789*#")),
    st.builds(Want, st.sampled_from([None, Field("card", "digits", length=3, secret=True)])),
    st.builds(Learned, st.dictionaries(st.sampled_from(["price", "size"]), st.just("9"), max_size=1)),
    st.sampled_from(OTHERS),
)


def play(flow: Flow, events: list[tuple[Event, float]], answers: random.Random) -> list[str]:
    position, now, visited = flow.start, 0.0, [flow.start.state]
    for event, passed in events:
        now += passed
        position = check(flow, position, event, now)
        if position.leaving is not None and answers.random() < 0.7:
            problem = answers.choice(["", "", "no"])
            found = Checked(position.leaving, {"price": "9"}, problem)
            position = check(flow, position, found, now)
        visited.append(position.state)
    return visited


@settings(max_examples=300)
@given(
    st.sampled_from(FLOWS),
    st.lists(st.tuples(EVENTS, st.floats(0, 40)), max_size=60),
    st.randoms(use_true_random=False),
)
def test_any_events_end_in_a_declared_state(
    flow: Flow, events: list[tuple[Event, float]], answers: random.Random
) -> None:
    assert set(play(flow, events, answers)) <= set(flow.states)


def test_ten_thousand_random_events() -> None:
    chance = random.Random(4)

    def value(name: str) -> str:
        return {"size": chance.choice(["small", "large", "odd"]), "account": "1234"}.get(name, "x")

    for flow in FLOWS[:2]:
        position, now, visited = flow.start, 0.0, set()
        for _ in range(10_000):
            now += chance.random() * 3
            asked = [field.name for field in flow.home(position).collects if not field.secret]
            kinds: list[Event] = [
                Move(chance.choice(list(flow.states)), {name: value(name) for name in asked}),
                Mistake("no"),
                Breakdown("oh"),
                Key(chance.choice("0123456789#")),
                chance.choice(OTHERS),
            ]
            keyed = 40 if flow.keying(position) is not None else 1
            event = chance.choices(kinds, [16, 1, 0.2, keyed, 1])[0]
            if not flow.exits(position):
                position = flow.start
            position = check(flow, position, event, now)
            if position.leaving is not None:
                found = Checked(position.leaving, {"price": "9"}, chance.choice(["", "", "no"]))
                position = check(flow, position, found, now)
            visited.add(position.state)
        assert visited == set(flow.states)


@settings(max_examples=100)
@given(st.sampled_from(FLOWS), st.integers(1, 30))
def test_mistakes_alone_come_to_rest(flow: Flow, count: int) -> None:
    """Tries are bounded: from any state they lead aside, and there they end."""
    states = [flow.start.state]
    position = flow.start
    for _ in range(count * 3):
        position = check(flow, position, Mistake("no"))
        if position.state != states[-1]:
            states.append(position.state)
    assert len(states) <= 3
    assert len(set(states)) == len(states)
