"""The flow of a conversation as a diagram: in Mermaid's language, or as a picture (SVG). Pure."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from xml.sax.saxutils import escape

from arivox.conversation.flow import Flow
from arivox.conversation.state import ASIDES, ERROR_HANDLER, FALLBACK, Exit, State


@dataclass(frozen=True, slots=True)
class Edge:
    """A way from one state to another."""

    source: str
    target: str
    label: str = ""
    """What it takes, besides what the state asks for."""
    collected: str = ""
    """What the state asks for, if that must be known."""
    exit: bool = False
    """Taken because of what the caller says; else by a key, by silence, after a time or after tries."""


def edges(flow: Flow) -> list[Edge]:
    """Return everything that leads from one state to another, in the order of the file."""
    drawn = [edge for state in flow.states.values() for edge in _leading_on(state)]
    for name in flow.way:
        if flow.states[name].exits:
            drawn += [Edge(name, FALLBACK), Edge(FALLBACK, name)]
            if FALLBACK not in flow.states and flow.states[name].no_match_to in ASIDES:
                drawn.append(Edge(name, ERROR_HANDLER, "tries"))
    if FALLBACK in flow.states and flow.states[FALLBACK].no_match_to in ASIDES:
        drawn.append(Edge(FALLBACK, ERROR_HANDLER, "tries"))
    there = (edge for edge in drawn if edge.source in flow.states and edge.target in flow.states)
    return list(dict.fromkeys(there))


def _leading_on(state: State) -> Iterator[Edge]:
    aside = state.name in ASIDES
    if not aside:  # an aside leads on to where the state leads that it was entered from
        yield from (_by_exit(state, way) for way in state.exits)
    yield from (Edge(state.name, to, f"key {key}") for key, to in state.keys.items())
    if state.silence is not None:
        to = state.silence.to
        if not (aside and to in ASIDES):
            yield Edge(state.name, to, "silence")
        elif state.name == FALLBACK:  # from an aside, only the one further aside follows
            yield Edge(state.name, ERROR_HANDLER, "silence")
    if state.timeout is not None:
        yield Edge(state.name, state.timeout.to, f"after {state.timeout.after_s:g} s")
    if state.no_match_to not in (ASIDES if aside else (FALLBACK,)) and (aside or state.exits):
        yield Edge(state.name, state.no_match_to, f"{state.tries} {'try' if state.tries == 1 else 'tries'}")


def _by_exit(state: State, way: Exit) -> Edge:
    words = ["anyway"] if way.anyway and state.collects else []
    words += [f"[{way.condition}]"] if way.condition else []
    collected = "" if way.anyway else ", ".join(one.name for one in state.collects)
    return Edge(state.name, way.state, " ".join(words), collected, exit=True)


def _ends(flow: Flow) -> list[str]:
    return [name for name in flow.way if not flow.states[name].exits]


# --- Mermaid ---

_MEANINGFUL: Final = frozenset(
    {"state", "note", "end", "direction", "class", "classdef", "style", "click", "scale", "hide", "default"}
    | {"fork", "join", "choice", "as", "root", "root_start", "root_end", "constructor", "__proto__"}
)
"""Words that Mermaid would not take for a state."""
_PLAIN: Final = re.compile(r"[^\w ,.\[\]-]|^-|(?<=\d)\.|\[(?=\[)|(?<=direction) ", re.IGNORECASE)
"""What would end a text, be taken for a word of the language or format the text."""


def mermaid(flow: Flow) -> str:
    """Return a state diagram: where each state leads and what it asks for, and the asides."""
    names = _mermaid_names(flow.states)
    lines = ["stateDiagram-v2"]
    lines += [
        f'    state "{_mermaid_text(state) or names[state]}" as {names[state]}' for state in flow.states
    ]
    lines.append(f"    [*] --> {names[flow.way[0]]}")
    aside: list[str] = []
    for edge in edges(flow):
        text = _mermaid_text(" ".join(filter(None, (edge.collected, edge.label))))
        line = f"    {names[edge.source]} --> {names[edge.target]}{f': {text}' if text else ''}"
        (aside if edge.source in ASIDES or edge.target in ASIDES else lines).append(line)
    lines += [f"    {names[state]} --> [*]" for state in _ends(flow)]
    return "\n".join((*lines, *aside)) + "\n"


def _mermaid_names(states: Iterable[str]) -> dict[str, str]:
    """Return a name for each state that Mermaid takes for one, and for no other's."""
    names: dict[str, str] = {}
    taken = {*ASIDES, *_MEANINGFUL}
    for state in states:
        name = wanted = state if state in ASIDES else re.sub(r"\W", "_", state) or "_"
        count = 1
        while name.casefold() in taken and state not in ASIDES:
            count += 1
            name = f"{wanted}_{count}"
        names[state] = name
        taken.add(name.casefold())
    return names


def _mermaid_text(text: str) -> str:
    return _PLAIN.sub(lambda found: f"#{ord(found[0])};", _clean(text))


def _clean(text: str) -> str:
    """Return a text in one line, without characters that cannot be shown."""
    kept = (one for one in " ".join(text.split()) if unicodedata.category(one) not in ("Cc", "Cs", "Cn"))
    return "".join(kept).strip()


# --- the picture: what is in it ---

_MARGIN: Final = 24.0
_BETWEEN: Final = 32.0
"""Between boxes side by side."""
_NAME_PX: Final = 7.9
_TEXT_PX: Final = 6.7
"""Widths of a character; the fonts have one width for all."""
_LINE_PX: Final = 16.0
_LABEL_PX: Final = 14.0
_WIDEST: Final = 36
"""Characters in a line."""
_LANE_PX: Final = 14.0
_CORNER: Final = 8.0
_COLUMN: Final = 1e6
_NORMAL: Final = 5.0
_EVENT: Final = 0.2
"""How much the normal way from the start, that from elsewhere, and what is not for the caller to choose want
to be straight; other exits: 1."""
_SWEEPS: Final = 24
_MOVES: Final = 200


@dataclass(eq=False, slots=True)
class _Node:
    """Something with a place in a row: a box, a marker, or a line on its way to a further row."""

    kind: str
    row: int = 0
    name: str = ""
    title: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    loop: list[str] = field(default_factory=list)
    """Labels of a line from the box to itself."""
    loop_style: str = ""
    looped: bool = False
    column: bool = False
    """Of the normal way from the start."""
    width: float = 0.0
    height: float = 0.0
    x: float = 0.0
    """Of the middle, as ``y``."""
    y: float = 0.0
    ups: list[_Link] = field(default_factory=list)
    downs: list[_Link] = field(default_factory=list)

    @property
    def right(self) -> float:
        loop = 26 + _width(self.loop) if self.looped else 0.0
        return self.width / 2 + loop


@dataclass(eq=False, slots=True)
class _Link:
    """The piece of a line between two rows that follow each other."""

    upper: _Node
    lower: _Node
    label: list[str]
    weight: float
    x: float = 0.0
    """In the middle, where the labels are."""


@dataclass(eq=False, slots=True)
class _Line:
    """A line down from row to row."""

    source: _Node
    target: _Node
    style: str
    links: list[_Link]


@dataclass(eq=False, slots=True)
class _Lane:
    """A line beside the boxes, from one or more states to one: on the right down, on the left up."""

    side: int
    sources: list[_Node]
    target: _Node
    label: list[str]
    style: str
    x: float = 0.0
    label_at: int = 0


@dataclass(slots=True)
class _Pair:
    """All ways from one state to another: one line."""

    labels: list[str] = field(default_factory=list)
    exit: bool = False
    normal: bool = False

    @property
    def lines(self) -> list[str]:
        """Return the label, one line each."""
        labels = list(dict.fromkeys(filter(None, self.labels)))
        if labels and "" in self.labels:
            labels[0] = f"or {labels[0]}"
        return [line for label in labels for line in _wrapped(label)]

    @property
    def style(self) -> str:
        return "exit" if self.exit else "event"

    @property
    def weight(self) -> float:
        if self.normal:
            return _NORMAL
        return 1.0 if self.exit else _EVENT


class _Layout:
    """Places for the states of the way: in rows by their distance from the start."""

    def __init__(self, flow: Flow, drawn: Sequence[Edge], notes: dict[str, list[str]]) -> None:
        self._flow = flow
        self.boxes = {name: _box(flow.states[name], notes.get(name, [])) for name in flow.way}
        self._pairs = _paired(flow, drawn)
        self.lines: list[_Line] = []
        self.lanes: list[_Lane] = []
        forward = self._without_cycles()
        self._put_in_rows(forward)
        self.rows: list[list[_Node]] = [[] for _ in range(1 + max(box.row for box in self.boxes.values()))]
        for box in self.boxes.values():
            self.rows[box.row].append(box)
        self._connect(forward)
        self._mark_column()
        self._order()
        self._align()
        self._place_labels()
        self._place_lanes()
        self._place_rows()

    # --- rows ---

    def _without_cycles(self) -> list[tuple[str, str]]:
        """Return the pairs that lead forward: all but those that would close a circle."""
        exits: dict[str, list[str]] = defaultdict(list)
        for (source, target), ways in self._pairs.items():
            if ways.exit:
                exits[source].append(target)
        normal = _reached(exits, self._flow.way[0])
        met = {name: at for at, name in enumerate(self._visited())}

        def late(pair: tuple[str, str]) -> tuple[bool, bool, int]:
            # What is only there for a key, say, must not decide what comes before what.
            return pair[0] not in normal, not self._pairs[pair].exit, met[pair[0]]

        after: dict[str, list[str]] = defaultdict(list)
        forward = []
        for source, target in sorted(self._pairs, key=late):
            if source not in _reached(after, target):
                after[source].append(target)
                forward.append((source, target))
        return forward

    def _visited(self) -> list[str]:
        """Return the states as one meets them from the start, by the normal way first."""
        after: dict[str, list[str]] = defaultdict(list)
        for by_exit in (True, False):
            for (source, target), ways in self._pairs.items():
                if ways.exit == by_exit:
                    after[source].append(target)
        visited: dict[str, None] = {}
        left = list(reversed(self._flow.way))
        while left:
            name = left.pop()
            if name not in visited:
                visited[name] = None
                left += reversed(after[name])
        return list(visited)

    def _put_in_rows(self, forward: Sequence[tuple[str, str]]) -> None:
        waiting = dict.fromkeys(self.boxes, 0)
        for _, target in forward:
            waiting[target] += 1
        left = [name for name, count in waiting.items() if not count]
        for name in self.boxes:
            self.boxes[name].row = 1  # below the marker of the start
        while left:
            name = left.pop()
            for source, target in forward:
                if source == name:
                    self.boxes[target].row = max(self.boxes[target].row, self.boxes[name].row + 1)
                    waiting[target] -= 1
                    if not waiting[target]:
                        left.append(target)

    def _connect(self, forward: Sequence[tuple[str, str]]) -> None:
        start = _Node("start", 0, width=14, height=14)
        self.rows[0].append(start)
        self._lead(start, self.boxes[self._flow.way[0]], _Pair(exit=True, normal=True))
        lanes: dict[tuple[int, str, tuple[str, ...], str], _Lane] = {}
        ahead = set(forward)
        for (source, target), pair in self._pairs.items():
            upper, lower = self.boxes[source], self.boxes[target]
            if source == target:
                upper.looped, upper.loop, upper.loop_style = True, pair.lines, pair.style
            elif (source, target) in ahead and (pair.exit or lower.row == upper.row + 1):
                self._lead(upper, lower, pair)
            else:
                side = 1 if (source, target) in ahead else -1
                key = (side, target, tuple(pair.lines), pair.style)
                lane = lanes.setdefault(key, _Lane(side, [], lower, pair.lines, pair.style))
                lane.sources.append(upper)
        self.lanes = list(lanes.values())
        for name in _ends(self._flow):
            end = _Node("end", self.boxes[name].row + 1, width=18, height=18)
            if end.row == len(self.rows):
                self.rows.append([])
            self.rows[end.row].append(end)
            self._lead(self.boxes[name], end, _Pair(exit=True))

    def _lead(self, source: _Node, target: _Node, pair: _Pair) -> None:
        links = []
        upper = source
        for row in range(source.row + 1, target.row + 1):
            lower = target if row == target.row else _Node("bend", row, width=2)
            if lower is not target:
                self.rows[row].append(lower)
            link = _Link(upper, lower, pair.lines if upper is source else [], pair.weight)
            upper.downs.append(link)
            lower.ups.append(link)
            links.append(link)
            upper = lower
        self.lines.append(_Line(source, target, pair.style, links))

    def _mark_column(self) -> None:
        node: _Node | None = self.rows[0][0]
        while node is not None:
            node.column = True
            lines = [line for line in self.lines if line.source is node and line.style == "exit"]
            for link in lines[0].links if lines else ():
                link.lower.column = True
            node = lines[0].target if lines else None

    # --- places in the rows ---

    def _order(self) -> None:
        """Order the rows so that few lines cross."""
        met = {name: at for at, name in enumerate(self._visited())}
        for row in self.rows:
            row.sort(key=lambda node: (not node.column, not node.ups, met.get(node.name, len(met))))
            _pack(row)
        best, fewest = [list(row) for row in self.rows], self._crossings()
        for sweep in range(_SWEEPS):
            if not fewest:
                break
            down = sweep % 2 == 0
            for row in self.rows if down else reversed(self.rows):
                near = {
                    node: [link.upper.x for link in node.ups]
                    if down
                    else [link.lower.x for link in node.downs]
                    for node in row
                }
                wanted = {node: sum(xs) / len(xs) if xs else node.x for node, xs in near.items()}
                row.sort(key=wanted.__getitem__)
                _pack(row)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(row) for row in self.rows], crossings
        self.rows = best
        for row in self.rows:
            _pack(row)

    def _crossings(self) -> int:
        count = 0
        for row in range(len(self.rows)):
            passed: list[float] = []
            for _, x in sorted((link.upper.x, link.lower.x) for link in self.gap(row)):
                at = bisect_right(passed, x)
                count += len(passed) - at
                passed.insert(at, x)
        return count

    def _align(self) -> None:
        """Move everything, in its order, to where its lines are as straight as can be."""
        for _ in range(_MOVES):
            before = [node.x for row in self.rows for node in row]
            for row in self.rows:
                wanted, weights = [], []
                for node in row:
                    near = [(link.upper.x, link.weight) for link in node.ups]
                    near += [(link.lower.x, link.weight) for link in node.downs]
                    near += [(0.0, _COLUMN)] if node.column else []
                    weight = sum(one for _, one in near)
                    wanted.append(sum(x * one for x, one in near) / weight if near else node.x)
                    weights.append(weight or 0.01)
                _move(row, wanted, weights)
            after = (node.x for row in self.rows for node in row)
            if all(abs(one - other) < 0.05 for one, other in zip(before, after, strict=True)):
                break
        for row in self.rows:  # what is almost straight looks like a mistake
            for node in row:
                for link in node.ups:
                    close = abs(link.upper.x - node.x) < _BETWEEN
                    if close and (link.weight == _NORMAL or len(node.ups) == 1):
                        self._put(node, link.upper.x)

    def _put(self, node: _Node, x: float) -> None:
        """Move a node to a place if that is free."""
        row = self.rows[node.row]
        at = row.index(node)
        left = not at or row[at - 1].x + _apart(row[at - 1], node) <= x
        right = at + 1 == len(row) or x <= row[at + 1].x - _apart(node, row[at + 1])
        if left and right and not node.column:
            node.x = x

    def gap(self, row: int) -> list[_Link]:
        """Return the pieces of lines below a row."""
        return [link for node in self.rows[row] for link in node.downs]

    def _place_labels(self) -> None:
        for row in range(len(self.rows)):
            links = sorted(self.gap(row), key=lambda link: link.upper.x + link.lower.x)
            for link in links:
                forks, joins = len(link.upper.downs) > 1, len(link.lower.ups) > 1
                link.x = (link.upper.x + link.lower.x) / 2
                if forks != joins:
                    link.x = link.lower.x if forks else link.upper.x
            links.sort(key=lambda link: link.x)
            halves = [_width(link.label) / 2 + 6 for link in links]
            weights = [_COLUMN if abs(link.upper.x - link.lower.x) < 1 else 1.0 for link in links]
            apart = [a + b for a, b in pairwise(halves)]
            for link, x in zip(links, _spread([link.x for link in links], apart, weights), strict=True):
                link.x = x
                if link.label and link.lower.kind == "bend":
                    self._put(link.lower, x)

    def _place_lanes(self) -> None:
        """Give each lane the nearest place beside all that it passes; short ones first."""
        edge = {side: [0.0] * (2 * len(self.rows)) for side in (1, -1)}
        for at, row in enumerate(self.rows):
            for node in row:
                edge[1][2 * at] = max(edge[1][2 * at], node.x + node.right)
                edge[-1][2 * at] = max(edge[-1][2 * at], node.width / 2 - node.x)
            for link in self.gap(at):
                for side in (1, -1):
                    out = side * link.x + _width(link.label) / 2
                    edge[side][2 * at + 1] = max(edge[side][2 * at + 1], out)
        for lane in sorted(
            self.lanes, key=lambda lane: max(abs(one.row - lane.target.row) for one in lane.sources)
        ):
            passed = self._passed(lane)
            # Where all sources have joined it, or else near the one.
            near = lane.target if len(lane.sources) > 1 else lane.sources[0]
            above = (near is lane.target) == (lane.side > 0)
            lane.label_at = 2 * near.row - 1 if above else 2 * near.row + 1
            out = max(edge[lane.side][at] for at in passed) + _LANE_PX
            out = max(out, edge[lane.side][lane.label_at] + _width(lane.label) / 2 + 6)
            lane.x = lane.side * out
            for at in passed:
                edge[lane.side][at] = max(edge[lane.side][at], out)
            edge[lane.side][lane.label_at] = out + _width(lane.label) / 2
        self.left = -max(edge[-1])
        self.right = max(edge[1])

    def _passed(self, lane: _Lane) -> range:
        """Return what the lane passes: rows (even), and the labels below them (odd)."""
        ends = [
            2 * node.row + (0 if self.beside(node, lane.side) else inward * lane.side)
            for node, inward in ((lane.target, -1), *((source, 1) for source in lane.sources))
        ]
        return range(min(ends), max(ends) + 1)

    def beside(self, node: _Node, side: int) -> bool:
        """Return whether nothing stands between the node and the lanes on that side."""
        if side > 0 and node.looped:
            return False
        return not any(side * (other.x - node.x) > 0 for other in self.rows[node.row] if other.kind != "bend")

    def _place_rows(self) -> None:
        self.tops: list[float] = []
        self.heights = [max((node.height for node in row), default=0.0) for row in self.rows]
        self.label_tops: list[float] = []
        self.label_heights: list[float] = []
        y = _MARGIN
        for at, row in enumerate(self.rows):
            self.tops.append(y)
            for node in row:
                node.y = y + self.heights[at] / 2
            y += self.heights[at]
            links = self.gap(at)
            labels = [link.label for link in links] + [
                lane.label for lane in self.lanes if lane.label_at == 2 * at + 1
            ]
            bends = [abs(node.x - link.x) for link in links for node in (link.upper, link.lower)]
            room = 14 + min(max(bends, default=0.0) * 0.08, 22)
            self.label_tops.append(y + room)
            self.label_heights.append(max(map(_height, labels), default=0.0))
            y += room + self.label_heights[at] + room + 4
        self.bottom = self.tops[-1] + self.heights[-1]


def _paired(flow: Flow, drawn: Iterable[Edge]) -> dict[tuple[str, str], _Pair]:
    pairs: dict[tuple[str, str], _Pair] = {}
    for edge in drawn:
        if edge.source in ASIDES or edge.target in ASIDES:
            continue
        pair = pairs.setdefault((edge.source, edge.target), _Pair())
        pair.labels.append(edge.label)
        pair.exit |= edge.exit
        first = flow.states[edge.source].exits[:1]
        pair.normal |= edge.exit and not edge.label and first[0].state == edge.target
    return pairs


def _reached(after: dict[str, list[str]], start: str) -> set[str]:
    reached: set[str] = set()
    left = [start]
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left += after.get(name, ())
    return reached


def _apart(one: _Node, other: _Node) -> float:
    bends = (one.kind == "bend") + (other.kind == "bend")
    return one.right + other.width / 2 + _BETWEEN / (1 + bends)


def _pack(row: Sequence[_Node]) -> None:
    _move(row, [0.0] * len(row), [1.0] * len(row))


def _move(row: Sequence[_Node], wanted: Sequence[float], weights: Sequence[float]) -> None:
    apart = [_apart(one, other) for one, other in pairwise(row)]
    for node, x in zip(row, _spread(wanted, apart, weights), strict=True):
        node.x = x


def _spread(wanted: Sequence[float], apart: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the places nearest to those wanted that are in order and as far apart as they must be."""
    offsets = [0.0]
    for distance in apart:
        offsets.append(offsets[-1] + distance)
    blocks: list[tuple[float, float, int]] = []  # that touch each other: place, weight, count
    for place, offset, weight in zip(wanted, offsets, weights, strict=False):
        block = (place - offset, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            x, other, count = blocks.pop()
            both = other + block[1]
            block = ((x * other + block[0] * block[1]) / both, both, count + block[2])
        blocks.append(block)
    places = [x for x, _, count in blocks for _ in range(count)]
    return [place + offset for place, offset in zip(places, offsets, strict=False)]


def _box(state: State, notes: Iterable[str]) -> _Node:
    title = _wrapped(state.name)
    text = _wrapped(", ".join(one.name for one in state.collects))
    said = [line for note in notes for line in _wrapped(note)]
    width = max(_width(title, _NAME_PX), _width(text), _width(said), 40.0) + 28
    more = len(text) + len(said)
    height = 18 + _LINE_PX * len(title) + (4 + _LINE_PX * more if more else 0)
    return _Node("box", name=state.name, title=title, text=text, notes=said, width=width, height=height)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(_clean(text), _WIDEST)


def _width(lines: Iterable[str], character: float = _TEXT_PX) -> float:
    return max((sum(map(_columns, line)) * character for line in lines), default=0.0)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _height(label: Sequence[str]) -> float:
    return _LABEL_PX * len(label) + 6 if label else 0.0


# --- the picture: how it is drawn ---

_STYLE: Final = """
text { font: 11px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
text { text-anchor: middle; fill: #2f3d4a; }
.name { font-size: 13px; font-weight: bold; fill: #14202c; }
.note { font-style: italic; fill: #66747f; }
.page, .behind { fill: #ffffff; }
.box, .fallback, .error_handler { stroke-width: 1.5; }
.box { fill: #f3f6fa; stroke: #5b6b7d; }
.fallback { fill: #fff6e5; stroke: #b07714; }
.error_handler { fill: #fdeeee; stroke: #b5403a; }
.line, .ring { fill: none; stroke-width: 1.4; }
.exit, .ring { stroke: #3f5063; }
.event { stroke: #2f6fb3; }
.aside { stroke: #b07714; stroke-dasharray: 5 4; }
.error { stroke: #b5403a; stroke-dasharray: 5 4; }
.of-exit, .mark { fill: #3f5063; }
.of-event { fill: #2f6fb3; }
.of-aside { fill: #b07714; }
.of-error { fill: #b5403a; }
@media (prefers-color-scheme: dark) {
text { fill: #d3dde7; }
.name { fill: #eef3f8; }
.note { fill: #98a6b3; }
.page, .behind { fill: #12171d; }
.box { fill: #1e2731; stroke: #8fa1b5; }
.fallback { fill: #2d2415; stroke: #d9a040; }
.error_handler { fill: #331d1d; stroke: #e0736d; }
.exit, .ring { stroke: #a9b9ca; }
.event { stroke: #6aa7e8; }
.aside { stroke: #d9a040; }
.error { stroke: #e0736d; }
.of-exit, .mark { fill: #a9b9ca; }
.of-event { fill: #6aa7e8; }
.of-aside { fill: #d9a040; }
.of-error { fill: #e0736d; }
}
"""
_STYLES: Final = ("exit", "event", "aside", "error")


def svg(flow: Flow) -> str:
    """Return a picture of the flow: the way from top to bottom, the asides at its right."""
    return _Picture(flow).text()


class _Pen:
    """Draws a path, without pieces that have no length: an arrow there would have no direction."""

    def __init__(self, x: float, y: float) -> None:
        self.path = f"M{_n(x)},{_n(y)}"
        self.x = x
        self.y = y

    def down_to(self, y: float) -> None:
        if _n(y) != _n(self.y):
            self.path += f" V{_n(y)}"
        self.y = y

    def across_to(self, x: float) -> None:
        if _n(x) != _n(self.x):
            self.path += f" H{_n(x)}"
        self.x = x

    def bend_to(self, x: float, y: float) -> None:
        """Draw a curve that leaves and arrives vertically."""
        if _n(x) != _n(self.x):
            middle = _n((self.y + y) / 2)
            self.path += f" C{_n(self.x)},{middle} {_n(x)},{middle} {_n(x)},{_n(y)}"
            self.x, self.y = x, y
        self.down_to(y)

    def turn_to(self, x: float, y: float, *, by_x: bool) -> None:
        """Draw a corner, first along x or along y."""
        corner = f"{_n(x)},{_n(self.y)}" if by_x else f"{_n(self.x)},{_n(y)}"
        self.path += f" Q{corner} {_n(x)},{_n(y)}"
        self.x, self.y = x, y

    def loop_to(self, y: float) -> None:
        """Draw a curve out to the right and back."""
        self.path += (
            f" C{_n(self.x + 18)},{_n(self.y - 10)} {_n(self.x + 18)},{_n(y + 10)} {_n(self.x)},{_n(y)}"
        )
        self.y = y


class _Picture:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        drawn = edges(flow)
        self._all, notes = _to_asides(flow, drawn)
        self._layout = _Layout(flow, drawn, notes)
        self._number = {name: at for at, name in enumerate(flow.states)}
        self._lines: list[str] = []
        self._labels: list[str] = []
        self._boxes: list[str] = []
        self._right = self._layout.right
        self._bottom = self._layout.bottom
        self._draw_lines()
        self._draw_lanes()
        for row in self._layout.rows:
            for node in row:
                self._draw_node(node)
        onward = [edge.label for edge in drawn if (edge.source, edge.target) == ASIDES]
        self._draw_asides(notes, [line for label in onward for line in _wrapped(label)])

    def text(self) -> str:
        left = self._layout.left - _MARGIN
        width, height = self._right + _MARGIN - left, self._bottom + _MARGIN
        size = f'width="{_n(width)}" height="{_n(height)}"'
        markers = [
            f'<marker id="arrow-{style}" viewBox="0 0 8 8" refX="7.4" refY="4" markerWidth="8" '
            f'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto-start-reverse">'
            f'<path class="of-{style}" d="M0,0.6 L8,4 L0,7.4 z"/></marker>'
            for style in _STYLES
        ]
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
                f'viewBox="{_n(left)} 0 {_n(width)} {_n(height)}" role="img">',
                "<title>The flow of the conversation</title>",
                f"<style>{_STYLE}</style>",
                "<defs>",
                *markers,
                "</defs>",
                f'<rect class="page" x="{_n(left)}" y="0" {size}/>',
                *self._lines,
                *self._labels,
                *self._boxes,
                "</svg>\n",
            )
        )

    def _draw_lines(self) -> None:
        layout = self._layout
        for line in layout.lines:
            source, target = line.source, line.target
            pen = _Pen(source.x, source.y + source.height / 2)
            for link in line.links:
                row = link.upper.row
                pen.down_to(layout.tops[row] + layout.heights[row])
                if height := layout.label_heights[row]:
                    top = layout.label_tops[row]
                    pen.bend_to(link.x, top)
                    pen.down_to(top + height)
                    self._label(link.label, link.x, top + height / 2)
                pen.bend_to(link.lower.x, layout.tops[row + 1])
            pen.down_to(target.y - target.height / 2)
            self._line(line.style, pen, source, target)

    def _draw_lanes(self) -> None:
        layout = self._layout
        ports = self._ports()
        for lane in layout.lanes:
            side, target = lane.side, lane.target
            edge = side * target.width / 2
            for source in lane.sources:
                if (y := ports.get((lane, source))) is not None:
                    pen = _Pen(source.x + side * source.width / 2, y)
                    pen.across_to(lane.x - side * _CORNER)
                    pen.turn_to(lane.x, y + side * _CORNER, by_x=True)
                else:
                    pen = _Pen(source.x + side * source.width / 4, source.y + side * source.height / 2)
                    pen.down_to(layout.tops[source.row] + (layout.heights[source.row] if side > 0 else 0))
                    pen.bend_to(lane.x, self._turn(source.row, side))
                if (y := ports.get((lane, target))) is not None:
                    pen.down_to(y - side * _CORNER)
                    pen.turn_to(lane.x - side * _CORNER, y, by_x=False)
                    pen.across_to(target.x + edge)
                else:
                    pen.down_to(self._turn(target.row, -side))
                    into = layout.tops[target.row] + (0 if side > 0 else layout.heights[target.row])
                    pen.bend_to(target.x + edge / 2, into)
                    pen.down_to(target.y - side * target.height / 2)
                self._line(lane.style, pen, source, target)
            gap = lane.label_at // 2
            self._label(lane.label, lane.x, layout.label_tops[gap] + layout.label_heights[gap] / 2)

    def _turn(self, row: int, down: int) -> float:
        """Return where a line from a row to a lane, or back, has turned: the edge of the labels."""
        if down > 0:
            return self._layout.label_tops[row]
        return self._layout.label_tops[row - 1] + self._layout.label_heights[row - 1]

    def _ports(self) -> dict[tuple[_Lane, _Node], float]:
        """Return where lanes meet the sides of boxes, so that lines to the same side do not cross."""
        meeting: dict[tuple[_Node, int], list[tuple[tuple[bool, float], _Lane]]] = defaultdict(list)
        for lane in self._layout.lanes:
            for node in (lane.target, *lane.sources):
                if self._layout.beside(node, lane.side):
                    above = (node is lane.target) == (lane.side > 0)
                    out = abs(lane.x)
                    meeting[node, lane.side].append(((not above, out if above else -out), lane))
        ports = {}
        for (node, _), lanes in meeting.items():
            step = min(12.0, (node.height - 14) / len(lanes))
            for at, (_, lane) in enumerate(sorted(lanes, key=lambda one: one[0])):
                ports[lane, node] = node.y + step * (at - (len(lanes) - 1) / 2)
        return ports

    def _draw_node(self, node: _Node) -> None:
        if node.kind == "start":
            self._boxes.append(f'<circle class="mark" cx="{_n(node.x)}" cy="{_n(node.y)}" r="7"/>')
        elif node.kind == "end":
            self._boxes.append(f'<circle class="ring" cx="{_n(node.x)}" cy="{_n(node.y)}" r="8"/>')
            self._boxes.append(f'<circle class="mark" cx="{_n(node.x)}" cy="{_n(node.y)}" r="4.5"/>')
        elif node.kind == "box":
            self._draw_box(node, "box")
            if node.looped:
                pen = _Pen(node.x + node.width / 2, node.y - 8)
                self._label(node.loop, pen.x + 21 + _width(node.loop) / 2, node.y)
                pen.loop_to(node.y + 8)
                self._line(node.loop_style, pen, node, node)

    def _draw_box(self, node: _Node, kind: str) -> None:
        x, y = node.x - node.width / 2, node.y - node.height / 2
        number = self._number[node.name]
        self._boxes.append(f'<g class="state" data-state="{number}"><title>{_xml(node.name)}</title>')
        self._boxes.append(
            f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(node.width)}" '
            f'height="{_n(node.height)}" rx="8"/>'
        )
        y += 9
        for line in node.title:
            self._boxes.append(_text("name", line, node.x, y + 12))
            y += _LINE_PX
        y += 4
        for style, lines in (("text", node.text), ("note", node.notes)):
            for line in lines:
                self._boxes.append(_text(style, line, node.x, y + 11))
                y += _LINE_PX
        self._boxes.append("</g>")

    def _draw_asides(self, notes: dict[str, list[str]], between: list[str]) -> None:
        """Draw the asides in a column, with one line for all states that lead there."""
        boxes = [
            _box(self._flow.states[name], notes.get(name, [])) for name in ASIDES if name in self._flow.states
        ]
        if not boxes:
            return
        layout = self._layout
        rows = [layout.boxes[name].row for name in self._flow.way if self._flow.states[name].exits]
        top = layout.tops[min(rows, default=1)]
        bottom = layout.tops[max(rows, default=1)] + layout.heights[max(rows, default=1)]
        trunk = self._right + 20
        left = trunk + max(map(_width, self._all.values()), default=0.0) + 56
        apart = 44 + _height(between)
        tall = sum(box.height for box in boxes) + apart * (len(boxes) - 1)
        y = max(top, (top + bottom - tall) / 2)
        for box in boxes:
            box.x = left + max(one.width for one in boxes) / 2
            box.y = y + box.height / 2
            y += box.height + apart
            self._draw_box(box, box.name)
            self._right = max(self._right, box.x + box.width / 2)
        self._bottom = max(self._bottom, y - apart)
        for box in boxes:
            if box.name in self._all:
                style = "aside" if box.name == FALLBACK else "error"
                x = box.x - box.width / 2
                start = min(max(box.y, top + _CORNER), bottom - _CORNER)
                pen = _Pen(trunk, start)
                pen.down_to(box.y)
                pen.across_to(x)
                self._line(style, pen, None, box, both=box.name == FALLBACK)
                self._label(self._all[box.name], (trunk + x) / 2, box.y)
        if self._all:
            pen = _Pen(trunk - _CORNER, top)
            pen.turn_to(trunk, top + _CORNER, by_x=True)
            pen.down_to(bottom - _CORNER)
            pen.turn_to(trunk - _CORNER, bottom, by_x=False)
            style = "aside" if FALLBACK in self._all else "error"
            self._lines.append(f'<path class="line {style}" d="{pen.path}"/>')
        if between and len(boxes) == len(ASIDES):
            first, second = boxes
            pen = _Pen(first.x, first.y + first.height / 2)
            end = second.y - second.height / 2
            self._label(between, first.x, (pen.y + end) / 2 - 3)
            pen.down_to(end)
            self._line("error", pen, first, second)

    def _line(
        self, style: str, pen: _Pen, source: _Node | None, target: _Node, *, both: bool = False
    ) -> None:
        """Draw a line with an arrow, or one at both ends; only states are named as its ends."""
        ends = "".join(
            f' data-{key}="{self._number[node.name]}"'
            for key, node in (("from", source), ("to", target))
            if node is not None and node.kind == "box"
        )
        arrows = f' marker-start="url(#arrow-{style})"' if both else ""
        arrows += f' marker-end="url(#arrow-{style})"'
        self._lines.append(f'<path class="line {style}"{ends}{arrows} d="{pen.path}"/>')

    def _label(self, lines: Sequence[str], x: float, y: float) -> None:
        if not lines:
            return
        width, height = _width(lines) + 8, _height(lines)
        self._labels.append(
            f'<rect class="behind" x="{_n(x - width / 2)}" y="{_n(y - height / 2)}" width="{_n(width)}" '
            f'height="{_n(height)}" rx="4"/>'
        )
        for at, line in enumerate(lines):
            self._labels.append(_text("label", line, x, y - height / 2 + 13 + at * _LABEL_PX))


def _to_asides(flow: Flow, drawn: Iterable[Edge]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return what leads from every state that goes on to each aside; and in words, by state, what from some.

    What leads from an aside is in words too, but for the way back and the one further aside.
    """
    going_on = {name for name in flow.way if flow.states[name].exits}
    sources: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for edge in drawn:
        if edge.source in ASIDES or edge.target in ASIDES:
            sources[edge.target, edge.label][edge.source] = None
    for_all: dict[str, list[str]] = defaultdict(list)
    notes: dict[str, list[str]] = defaultdict(list)
    for (target, label), names in sorted(sources.items(), key=lambda one: bool(one[0][1])):
        shared = target in ASIDES and going_on and going_on <= names.keys()
        if shared:
            for_all[target] += _wrapped(label or "not understood")
        for name in names:
            back = name == FALLBACK and not label
            onward = (name, target) == (FALLBACK, ERROR_HANDLER)
            if not back and not onward and not (shared and name not in ASIDES):
                notes[name].append(f"{label} \u2192 {target}".strip())
    return for_all, notes


def _text(style: str, text: str, x: float, y: float) -> str:
    return f'<text class="{style}" x="{_n(x)}" y="{_n(y)}">{_xml(text)}</text>'


def _xml(text: str) -> str:
    return escape(_clean(text))


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
