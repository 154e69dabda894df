"""The flow is drawn: every state and every way, for any names, and nothing over anything else."""

from __future__ import annotations

import itertools
import math
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arivox.conversation import reader
from arivox.conversation.diagram.edges import edges
from arivox.conversation.diagram.mermaid import mermaid
from arivox.conversation.diagram.picture import svg
from arivox.conversation.field import Field
from arivox.conversation.flow import Flow
from arivox.conversation.reader import PromptsFile
from arivox.conversation.state import (
    ASIDES,
    ERROR_HANDLER,
    FALLBACK,
    Exit,
    Silence,
    State,
    Timeout,
    plain,
)
from arivox.errors import SettingsError

PACKAGE = Path(reader.__file__).with_name("prompts.yaml")
PIZZA = """common:
  defaults:
    dtmf: {'9': greeting}
  states:
    greeting: {prompt: x, dtmf: {'0': operator}}
    size: {prompt: x, collect: [size], silence: {after: 5, to: goodbye}}
    topping:
      prompt: x
      collect: [topping, way]
      next: [{state: delivery, when: {way: delivery}}, {state: pickup, when: {way: [pickup, car]}}]
      timeout: {after: 60, to: confirm}
    delivery: {prompt: x, collect: [street], next: confirm, no_match: {tries: 1, to: operator}}
    pickup: {prompt: x, next: confirm}
    confirm:
      prompt: x
      collect: [agreed]
      dtmf: {'0': operator}
      next: [done, {state: size, anyway: true}, {state: topping, when: {agreed: "*"}}]
    done: {prompt: x, next: end}
    operator: {prompt: x, next: greeting, no_match: {to: error_handler}}
    goodbye: {prompt: x, next: end, silence: {after: 9}, no_match: {to: done}}
    fallback: {prompt: x, next: done, dtmf: {'0': operator}, silence: {after: 9}}
    error_handler: {prompt: x, silence: {after: 9}, timeout: {after: 2.5, to: done}}
"""


def flow_of(text: str) -> Flow:
    file = PromptsFile(text)
    section = file.section(["openai"])
    assert section is not None
    assert file.faults == []
    return Flow(section.states)


def lines_of(flow: Flow) -> list[str]:
    return [line.strip() for line in mermaid(flow).splitlines()]


# --- Mermaid ---


def test_diagram_has_every_state_and_the_way_through_them() -> None:
    names = ("greeting", "gathering_reason", "say good-bye", "fallback", "error_handler")
    lines = lines_of(Flow(plain(dict.fromkeys(names, "x"))))
    assert lines == [
        "stateDiagram-v2",
        'state "greeting" as greeting',
        'state "gathering_reason" as gathering_reason',
        'state "say good-bye" as say_good_bye',
        'state "fallback" as fallback',
        'state "error_handler" as error_handler',
        "[*] --> greeting",
        "greeting --> gathering_reason",
        "gathering_reason --> say_good_bye: reason",
        "say_good_bye --> [*]",
        "greeting --> fallback",
        "fallback --> greeting",
        "gathering_reason --> fallback",
        "fallback --> gathering_reason",
        "fallback --> error_handler: tries",
    ]


def test_every_kind_of_way_is_drawn() -> None:
    lines = [line for line in lines_of(flow_of(PIZZA)) if "-->" in line]
    ways = [line for line in lines if "fallback" not in line and "key 9" not in line]
    assert ways == [
        "[*] --> greeting",
        "greeting --> size",
        "greeting --> operator: key 0",
        "size --> topping: size",
        "size --> goodbye: silence",
        "topping --> delivery: topping, way [way is delivery]",
        "topping --> pickup: topping, way [way is pickup or car]",
        "topping --> confirm: after 60 s",
        "delivery --> confirm: street",
        "delivery --> operator: 1 try",
        "pickup --> confirm",
        "confirm --> done: agreed",
        "confirm --> size: anyway",
        "confirm --> topping: agreed [agreed is known]",
        "confirm --> operator: key 0",
        "operator --> greeting",
        "done --> [*]",
        "goodbye --> [*]",
        "operator --> error_handler: 3 tries",
        "error_handler --> done: after 2#46;5 s",
    ]
    assert "goodbye --> fallback: silence" in lines
    assert "size --> greeting: key 9" in lines
    assert "greeting --> greeting: key 9" not in lines  # its own keys replace those of the defaults


def test_aside_leads_only_where_a_conversation_goes_from_there() -> None:
    from_asides = [line for line in lines_of(flow_of(PIZZA)) if line.startswith(ASIDES)]
    back = [f"fallback --> {name}" for name in flow_of(PIZZA).way if name not in ("done", "goodbye")]
    assert sorted(from_asides) == sorted(
        [
            *back,
            "fallback --> operator: key 0",
            "fallback --> error_handler: silence",
            "fallback --> error_handler: tries",
            "error_handler --> done: after 2#46;5 s",
        ]
    )


def test_without_fallback_tries_lead_to_the_error_handler() -> None:
    lines = lines_of(Flow(plain({"a": "x", "b": "x", ERROR_HANDLER: "x"})))
    assert "a --> error_handler: tries" in lines
    assert "b --> error_handler: tries" not in lines
    assert not any("fallback" in line for line in lines)
    assert lines_of(Flow(plain({"a": "x"}))) == [
        "stateDiagram-v2",
        'state "a" as a',
        "[*] --> a",
        "a --> [*]",
    ]


def test_where_the_fallback_sends_callers_on_nothing_leads_to_the_error_handler() -> None:
    states = plain(dict.fromkeys(("a", "b", FALLBACK, ERROR_HANDLER), "x"))
    lines = lines_of(Flow({**states, FALLBACK: State(FALLBACK, "x", tries=2, no_match_to="b")}))
    assert "fallback --> b: 2 tries" in lines
    assert "fallback --> error_handler: tries" not in lines


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('say "hi"', "say #34;hi#34;"),
        ("a: b; c", "a#58; b#59; c"),
        ("<b>&amp;</b>", "#60;b#62;#38;amp#59;#60;#47;b#62;"),
        ("two\nlines\t\x07", "two lines"),
        ("direction TB", "direction#32;TB"),
        ("- a", "#45; a"),
        ("1. a", "1#46; a"),
        ("[[fork]]", "#91;[fork]]"),
        ("\x00", "_"),
        ("größe", "größe"),
    ],
)
def test_any_name_can_be_drawn(name: str, shown: str) -> None:
    states = {name: State(name, "x", (Field(name),), (Exit("b"),)), "b": State("b", "x")}
    lines = lines_of(Flow(states))
    assert lines[1].startswith(f'state "{shown}" as ')
    edge = next(line for line in lines if line.endswith(f"--> b: {shown}" if shown != "_" else "--> b"))
    assert re.fullmatch(r"\w+ --> b(: [^:;\"<>&\\%{}`*]*(#\d+;[^:;\"<>&\\%{}`*]*)*)?", edge)


def test_no_two_states_have_one_name() -> None:
    names = ["a b", "a-b", "a_b", "A b", "fallback!", "fallback_", FALLBACK, "state", "style", "", "_", "\n"]
    lines = lines_of(Flow(plain(dict.fromkeys(names, "x"))))
    given = [line.rsplit(" as ", 1)[1] for line in lines if line.startswith("state ")]
    assert len({name.casefold() for name in given}) == len(names)
    assert FALLBACK in given
    assert not {"state", "style"} & set(given)
    assert all(re.fullmatch(r"\w+", name) for name in given)


# --- the picture ---

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            min(self.right, other.right) - max(self.left, other.left) > 0.2
            and min(self.bottom, other.bottom) - max(self.top, other.top) > 0.2
        )

    @property
    def middle(self) -> Point:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def grown(self, by: float) -> Box:
        return Box(self.left - by, self.top - by, self.right + by, self.bottom + by)

    def holds(self, point: Point) -> bool:
        x, y = point
        return self.left + 0.2 < x < self.right - 0.2 and self.top + 0.2 < y < self.bottom - 0.2

    def touches(self, point: Point) -> bool:
        x, y = point
        return (
            not self.holds(point)
            and self.left - 0.2 <= x <= self.right + 0.2
            and self.top - 0.2 <= y <= self.bottom + 0.2
        )


class Picture:
    """An SVG, read back."""

    def __init__(self, flow: Flow) -> None:
        text = svg(flow)
        self.root = ElementTree.fromstring(text)
        names = list(flow.states)
        groups = self._all("g", "state")
        self.boxes = {
            names[int(one.attrib["data-state"])]: box_of(one.findall("{*}rect")[0]) for one in groups
        }
        self.texts = {
            names[int(one.attrib["data-state"])]: [found.text or "" for found in one.findall("{*}text")]
            for one in groups
        }
        self.titles = {names[int(one.attrib["data-state"])]: one.findtext("{*}title", "") for one in groups}
        self.labels = [box_of(one) for one in self._all("rect", "behind")]
        self.words = [one.text for one in self.root.findall("{*}text")]
        self.page = box_of(self._all("rect", "page")[0])
        self.lines = [
            (
                names[int(one.attrib["data-from"])] if "data-from" in one.attrib else None,
                names[int(one.attrib["data-to"])] if "data-to" in one.attrib else None,
                list(points(one.attrib["d"])),
            )
            for one in self._all("path", "line")
        ]
        self.size = len(text)

    def _all(self, tag: str, kind: str) -> list[ElementTree.Element]:
        return [one for one in self.root.iter() if local(one) == tag and kind in one.get("class", "").split()]


def local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def box_of(element: ElementTree.Element) -> Box:
    x, y, width, height = (float(element.attrib[name]) for name in ("x", "y", "width", "height"))
    return Box(x, y, x + width, y + height)


def points(path: str) -> Iterator[Point]:
    """Yield points along a path, close to each other."""
    x = y = 0.0
    for command, rest in re.findall(r"([A-Z])([^A-Z]*)", path):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", rest)]
        match command:
            case "M":
                x, y = numbers
                yield x, y
                continue
            case "L" | "Q":
                through = [(x, y), *zip(numbers[::2], numbers[1::2], strict=True)]
            case _:
                raise AssertionError(path)
        length = sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in itertools.pairwise(through))
        steps = 2 + int(length / 6)
        for step in range(1, steps + 1):
            yield between(through, step / steps)
        x, y = through[-1]


def between(through: list[Point], part: float) -> Point:
    while len(through) > 1:
        through = [
            (a[0] + (b[0] - a[0]) * part, a[1] + (b[1] - a[1]) * part) for a, b in itertools.pairwise(through)
        ]
    return through[0]


def clean(text: str) -> str:
    shown = (one for one in " ".join(text.split()) if unicodedata.category(one) not in ("Cc", "Cs", "Cn"))
    return "".join(shown).strip()


def squeezed(text: str) -> str:
    return "".join(text.split())


def check_picture(flow: Flow) -> Picture:
    """Check that a picture shows everything, and nothing over anything else."""
    picture = Picture(flow)
    assert set(picture.boxes) == set(flow.states)
    for name, texts in picture.texts.items():
        assert squeezed("".join(texts)).startswith(squeezed(clean(name)))
        assert picture.titles[name] == clean(name)
        assert all(
            squeezed(clean(one.name)) in squeezed("".join(texts)) for one in flow.states[name].collects
        )
    boxes, labels = list(picture.boxes.values()), picture.labels
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].grown(20).overlaps(pair[1])]
    assert not [pair for pair in itertools.product(boxes, labels) if pair[0].overlaps(pair[1])]
    assert not [pair for pair in itertools.combinations(labels, 2) if pair[0].overlaps(pair[1])]
    for box in (*boxes, *labels):
        assert picture.page.left <= box.left < box.right <= picture.page.right
        assert picture.page.top <= box.top < box.bottom <= picture.page.bottom
    for source, target, along in picture.lines:
        assert source is None or picture.boxes[source].touches(along[0]), (source, target)
        assert target is None or picture.boxes[target].touches(along[-1]), (source, target)
        assert not [box for box in boxes for point in along if box.holds(point)], (source, target)
        assert all(not picture.page.touches(point) and picture.page.holds(point) for point in along)
        for label in labels:  # its own line leads to its middle, where the text hides it; no other comes near
            within = [point for point in along if label.holds(point)]
            assert not within or min(math.dist(label.middle, point) for point in within) < 6, (source, target)
    drawn = {(source, target) for source, target, _ in picture.lines}
    wanted = {
        (edge.source, edge.target) for edge in edges(flow) if not {edge.source, edge.target} & set(ASIDES)
    }
    if any((edge.source, edge.target) == ASIDES for edge in edges(flow)):
        wanted.add(ASIDES)
    named = {pair for pair in drawn if None not in pair}
    assert named == wanted
    assert (None, flow.way[0]) in drawn
    ends = [name for name in flow.way if not flow.states[name].exits]
    ended = [source for source, target, _ in picture.lines if target is None and source is not None]
    assert sorted(ended) == sorted(ends)
    return picture


@pytest.mark.parametrize("text", [PACKAGE.read_text(), PIZZA])
def test_picture_shows_everything(text: str) -> None:
    flow = flow_of(text)
    picture = check_picture(flow)
    bundles = [target for source, target, _ in picture.lines if source is None and target in ASIDES]
    assert bundles == [FALLBACK]
    assert svg(flow) == svg(flow)


def test_normal_way_is_a_column_and_leads_down() -> None:
    flow = flow_of(PIZZA)
    boxes = check_picture(flow).boxes
    way = [boxes[name] for name in ("greeting", "size", "topping", "delivery", "confirm", "done")]
    assert len({round((box.left + box.right) / 2) for box in way}) == 1
    assert all(upper.bottom < lower.top for upper, lower in itertools.pairwise(way))
    assert boxes["pickup"].top < boxes["delivery"].bottom
    assert boxes["delivery"].top < boxes["pickup"].bottom
    right = max(box.right for name, box in boxes.items() if name not in ASIDES)
    assert all(boxes[name].left > right for name in ASIDES)


def test_what_leads_aside_from_every_state_is_told_once_and_the_rest_in_the_state() -> None:
    flow = flow_of(PIZZA)
    picture = check_picture(flow)
    assert picture.words.count("not understood") == 1
    assert "silence \u2192 fallback" in picture.texts["goodbye"]
    assert "3 tries \u2192 error_handler" in picture.texts["operator"]
    assert "key 0 \u2192 operator" in picture.texts[FALLBACK]
    assert "after 2.5 s \u2192 done" in picture.texts[ERROR_HANDLER]
    assert {"silence", "tries", "1 try", "after 60 s", "anyway", "[way is delivery]"} <= set(picture.words)
    by_default = flow_of(PIZZA.replace("dtmf: {'9': greeting}", "silence: {after: 8}"))
    picture = check_picture(by_default)
    assert "silence \u2192 fallback" in picture.texts["greeting"]  # size goes elsewhere
    everywhere = flow_of(
        "common: {defaults: {silence: {after: 8}, timeout: {after: 99, to: error_handler}},"
        " states: {a: x, b: x, c: x, fallback: x, error_handler: x}}"
    )
    picture = check_picture(everywhere)
    assert picture.texts["a"] == ["a"]
    assert {"not understood", "silence", "after 99 s"} <= set(picture.words)


def test_lines_for_one_key_from_many_states_share_a_lane() -> None:
    names = [f"state_{number}" for number in range(8)]
    states = plain(dict.fromkeys((*names, "operator"), "x"))
    states["operator"] = State("operator", "x")
    keyed = {
        name: State(name, "x", exits=states[name].exits if name != names[-1] else (), keys={"0": "operator"})
        for name in names
    }
    picture = check_picture(Flow({**keyed, "operator": states["operator"]}))
    assert picture.words.count("key 0") <= 2


def test_state_that_leads_to_itself_for_many_reasons_has_room_for_them() -> None:
    keys = dict.fromkeys("0123456789", "b")
    states = {"a": State("a", "x", exits=(Exit("b"),)), "b": State("b", "x", exits=(Exit("b"),), keys=keys)}
    picture = check_picture(Flow(states))
    assert "or key 0" in picture.words
    assert "key 9" in picture.words


def test_why_a_state_leads_to_itself_is_told_beside_its_other_ways() -> None:
    states = plain(dict.fromkeys("abc", "x"))
    states["a"] = State("a", "x", exits=states["a"].exits, keys={"0": "a", "1": "c"})
    picture = check_picture(Flow(states))
    assert sorted(word for word in picture.words if word) == ["key 0", "key 1"]


def test_the_picture_is_the_same_in_every_process() -> None:
    code = (
        "import sys\nfrom arivox.conversation.diagram.picture import svg\n"
        "from arivox.conversation.flow import Flow\nfrom arivox.conversation.reader import PromptsFile\n"
        "print(svg(Flow(PromptsFile(sys.stdin.read()).section(['openai']).states)), end='')"
    )
    drawn = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=PIZZA,
            capture_output=True,
            check=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert drawn == {svg(flow_of(PIZZA))}


def test_only_a_picture_needs_the_extra_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphlay", None)
    flow = flow_of(PIZZA)
    assert mermaid(flow).startswith("stateDiagram-v2")
    with pytest.raises(SettingsError, match=re.escape("pip install 'arivox[diagram]'")):
        svg(flow)


def test_more_ways_than_can_be_drawn_are_refused_at_once() -> None:
    names = [f"state_{number}" for number in range(60)]
    everywhere = tuple(map(Exit, names))
    with pytest.raises(SettingsError, match=r"cannot be drawn as a picture: .*Use --format mermaid"):
        svg(Flow({name: State(name, "x", exits=everywhere) for name in names}))


def test_picture_needs_nothing_from_outside_and_knows_dark() -> None:
    text = svg(flow_of(PIZZA))
    root = ElementTree.fromstring(text)
    assert not {"script", "image", "use", "foreignObject", "a"} & {local(one) for one in root.iter()}
    assert not re.search(r"@import|url\((?!#)|href|\bon\w+=", text)
    assert text.count("http") == 1  # the namespace
    assert "prefers-color-scheme: dark" in text


def test_markup_in_a_name_is_text() -> None:
    name = '<script>alert("&amp;")</script>\x00\x1b'
    picture = check_picture(Flow(plain({name: "x", "b": "x"})))
    assert picture.titles[name] == '<script>alert("&amp;")</script>'


def test_large_flows_are_drawn_too() -> None:
    names = [f"state_{number}" for number in range(1200)]
    picture = Picture(Flow(plain(dict.fromkeys(names, "x"))))
    assert len(picture.boxes) == len(names)
    crowd = names[:40]
    everywhere = {
        name: State(name, "x", exits=tuple(Exit(other) for other in crowd[at % 7 :: 7]))
        for at, name in enumerate(crowd)
    }
    check_picture(Flow(everywhere))


# --- any flow ---

NAMES = st.one_of(
    st.text(max_size=8),
    st.text(alphabet="ab _-:;<&>\"'#%{}\n\t\x00\x1b\ufffe\u202e\u0301日é", max_size=60),
    st.sampled_from(["state", "end", "direction TB", "a b", "a-b"]),
)


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    way = draw(st.lists(NAMES.filter(lambda name: name not in ASIDES), min_size=1, max_size=9, unique=True))
    names = [*way, *draw(st.sampled_from([(), (FALLBACK,), (ERROR_HANDLER,), ASIDES]))]
    name = st.sampled_from(names)
    values = st.dictionaries(NAMES, st.tuples(NAMES), max_size=1)
    exits = st.lists(st.builds(Exit, name, values, st.booleans()), max_size=4).map(tuple)
    state: Mapping[str, st.SearchStrategy[object]] = {
        "collects": st.lists(st.builds(Field, NAMES), max_size=2).map(tuple),
        "exits": exits,
        "tries": st.integers(1, 3),
        "no_match_to": st.one_of(st.just(FALLBACK), name),
        "silence": st.one_of(st.none(), st.builds(Silence, st.just(5.0), to=name)),
        "timeout": st.one_of(st.none(), st.builds(Timeout, st.floats(1, 600), name)),
        "keys": st.dictionaries(st.sampled_from("09*#"), name, max_size=2),
    }
    return Flow({one: draw(st.builds(State, st.just(one), st.just("x"), **state)) for one in names})


@settings(max_examples=150)
@given(flows())
def test_any_flow_can_be_drawn(flow: Flow) -> None:
    check_picture(flow)
    lines = mermaid(flow).splitlines()
    assert sum(line.startswith('    state "') for line in lines) == len(flow.states)
    ends = sum(not flow.states[name].exits for name in flow.way)
    assert sum(" --> " in line for line in lines) == len(edges(flow)) + 1 + ends
    assert all(
        re.fullmatch(r'stateDiagram-v2|    state "[^"]+" as \w+|    \S+ --> \S+(: .+)?', x) for x in lines
    )
