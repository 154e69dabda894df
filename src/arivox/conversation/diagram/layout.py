"""Places for the states and lines of a flow: in rows, by their distance from the start."""

from __future__ import annotations

import textwrap
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from arivox.conversation.diagram.edges import Edge, clean, ends
from arivox.conversation.flow import Flow
from arivox.conversation.state import ASIDES, State

MARGIN: Final = 24.0
_BETWEEN: Final = 32.0
"""Between boxes side by side."""
_NAME_PX: Final = 7.9
_TEXT_PX: Final = 6.7
"""Widths of a character; the fonts have one width for all."""
LINE_PX: Final = 16.0
LABEL_PX: Final = 14.0
_WIDEST: Final = 36
"""Characters in a line."""
_LANE_PX: Final = 14.0
CORNER: Final = 8.0
_COLUMN: Final = 1e6
_NORMAL: Final = 5.0
_EVENT: Final = 0.2
"""How much the normal way from the start, that from elsewhere, and what is not for the caller to choose want
to be straight; other exits: 1."""
_SWEEPS: Final = 24
_MOVES: Final = 200


@dataclass(eq=False, slots=True)
class Node:
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
        """Return how far it reaches from its middle, with its loop."""
        loop = 26 + text_width(self.loop) if self.looped else 0.0
        return self.width / 2 + loop


@dataclass(eq=False, slots=True)
class _Link:
    """The piece of a line between two rows that follow each other."""

    upper: Node
    lower: Node
    label: list[str]
    weight: float
    x: float = 0.0
    """In the middle, where the labels are."""


@dataclass(eq=False, slots=True)
class _Line:
    """A line down from row to row."""

    source: Node
    target: Node
    style: str
    links: list[_Link]


@dataclass(eq=False, slots=True)
class Lane:
    """A line beside the boxes, from one or more states to one: on the right down, on the left up."""

    side: int
    sources: list[Node]
    target: Node
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
        return [line for label in labels for line in wrapped(label)]

    @property
    def style(self) -> str:
        return "exit" if self.exit else "event"

    @property
    def weight(self) -> float:
        if self.normal:
            return _NORMAL
        return 1.0 if self.exit else _EVENT


class Layout:
    """Places for the states of the way: in rows by their distance from the start."""

    def __init__(self, flow: Flow, drawn: Sequence[Edge], notes: dict[str, list[str]]) -> None:
        self._flow = flow
        self.boxes = {name: new_box(flow.states[name], notes.get(name, [])) for name in flow.way}
        self._pairs = _paired(flow, drawn)
        self.lines: list[_Line] = []
        self.lanes: list[Lane] = []
        forward = self._without_cycles()
        self._put_in_rows(forward)
        self.rows: list[list[Node]] = [[] for _ in range(1 + max(box.row for box in self.boxes.values()))]
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
        start = Node("start", 0, width=14, height=14)
        self.rows[0].append(start)
        self._lead(start, self.boxes[self._flow.way[0]], _Pair(exit=True, normal=True))
        lanes: dict[tuple[int, str, tuple[str, ...], str], Lane] = {}
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
                lane = lanes.setdefault(key, Lane(side, [], lower, pair.lines, pair.style))
                lane.sources.append(upper)
        self.lanes = list(lanes.values())
        for name in ends(self._flow):
            end = Node("end", self.boxes[name].row + 1, width=18, height=18)
            if end.row == len(self.rows):
                self.rows.append([])
            self.rows[end.row].append(end)
            self._lead(self.boxes[name], end, _Pair(exit=True))

    def _lead(self, source: Node, target: Node, pair: _Pair) -> None:
        links = []
        upper = source
        for row in range(source.row + 1, target.row + 1):
            lower = target if row == target.row else Node("bend", row, width=2)
            if lower is not target:
                self.rows[row].append(lower)
            link = _Link(upper, lower, pair.lines if upper is source else [], pair.weight)
            upper.downs.append(link)
            lower.ups.append(link)
            links.append(link)
            upper = lower
        self.lines.append(_Line(source, target, pair.style, links))

    def _mark_column(self) -> None:
        node: Node | None = self.rows[0][0]
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

    def _put(self, node: Node, x: float) -> None:
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
            halves = [half_width(link.label) + 2 for link in links]
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
                    out = side * link.x + half_width(link.label)
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
            out = max(out, edge[lane.side][lane.label_at] + half_width(lane.label) + 2)
            lane.x = lane.side * out
            for at in passed:
                edge[lane.side][at] = max(edge[lane.side][at], out)
            edge[lane.side][lane.label_at] = out + half_width(lane.label)
        self.left = -max(edge[-1])
        self.right = max(edge[1])

    def _passed(self, lane: Lane) -> range:
        """Return what the lane passes: rows (even), and the labels below them (odd)."""
        ends = [
            2 * node.row + (0 if self.beside(node, lane.side) else inward * lane.side)
            for node, inward in ((lane.target, -1), *((source, 1) for source in lane.sources))
        ]
        return range(min(ends), max(ends) + 1)

    def beside(self, node: Node, side: int) -> bool:
        """Return whether nothing stands between the node and the lanes on that side."""
        if side > 0 and node.looped:
            return False
        return not any(side * (other.x - node.x) > 0 for other in self.rows[node.row] if other.kind != "bend")

    def _place_rows(self) -> None:
        self.tops: list[float] = []
        self.heights = [
            max((max(node.height, label_height(node.loop)) for node in row), default=0.0) for row in self.rows
        ]
        self.label_tops: list[float] = []
        self.label_heights: list[float] = []
        y = MARGIN
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
            self.label_heights.append(max(map(label_height, labels), default=0.0))
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


def _apart(one: Node, other: Node) -> float:
    bends = (one.kind == "bend") + (other.kind == "bend")
    return one.right + other.width / 2 + _BETWEEN / (1 + bends)


def _pack(row: Sequence[Node]) -> None:
    _move(row, [0.0] * len(row), [1.0] * len(row))


def _move(row: Sequence[Node], wanted: Sequence[float], weights: Sequence[float]) -> None:
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


def new_box(state: State, notes: Iterable[str]) -> Node:
    """Return the box of a state, with a size and no place yet."""
    title = wrapped(state.name)
    text = wrapped(", ".join(one.name for one in state.collects))
    said = [line for note in notes for line in wrapped(note)]
    width = max(text_width(title, _NAME_PX), text_width(text), text_width(said), 40.0) + 28
    more = len(text) + len(said)
    height = 18 + LINE_PX * len(title) + (4 + LINE_PX * more if more else 0)
    return Node("box", name=state.name, title=title, text=text, notes=said, width=width, height=height)


def wrapped(text: str) -> list[str]:
    """Return a text in lines of a box or a label."""
    return textwrap.wrap(clean(text), _WIDEST)


def text_width(lines: Iterable[str], character: float = _TEXT_PX) -> float:
    """Return the width of the longest line."""
    return max((sum(map(_columns, line)) * character for line in lines), default=0.0)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def half_width(label: Sequence[str]) -> float:
    """Return half the width of a label."""
    return text_width(label) / 2 + 4


def label_height(label: Sequence[str]) -> float:
    """Return the height of a label; of none: 0."""
    return LABEL_PX * len(label) + 6 if label else 0.0
