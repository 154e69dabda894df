"""Places for what a picture of a flow shows: in rows from the start downwards, with lines led around them.

``graphlay`` finds the places. To it a label is a small box on the way of its line, so no other comes near.
"""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import ModuleType
from typing import Any, Final

from arivox.conversation.diagram.edges import Edge, clean, ends
from arivox.conversation.flow import Flow
from arivox.conversation.state import ASIDES, State
from arivox.errors import SettingsError

LINE_PX: Final = 16.0
LABEL_PX: Final = 14.0
"""Heights of a line in a box and in a label."""
_NAME_PX: Final = 7.9
_TEXT_PX: Final = 6.7
"""Widths of a character; the fonts have one width for all."""
_WIDEST: Final = 36
"""Characters in a line."""
_NORMAL: Final = 8.0
_EXIT: Final = 2.0
_EVENT: Final = 1.0
"""How much the normal way, that of other exits and of what is not for the caller to choose want to be short,
straight and downwards."""
_ASIDE_PX: Final = 4.0
"""How far lines stay away from boxes that are not theirs, and from labels."""
_OPTIONS: Final[Mapping[str, Any]] = {
    "cycles": {"strategy": "follow_flow"},
    "limits": {"max_dummies": 12_000},  # rows that lines pass by; with these it is at work for some seconds
}
_TRIES: Final[Sequence[Mapping[str, Any]]] = tuple(
    {
        "spacing": {"layer_gap": gap, "node_gap": gap},
        "routing": {"port_sides": sides, "merge_edges": merged},
    }
    for gap in (34.0, 54.0)
    for sides, merged in (("long_edges_any", "joins"), ("facing_preferred", "joins"), ("facing_only", "none"))
)
"""What is asked for, in this order, until no line runs through a box: there is no promise that none does."""
_WRONG: Final = ("node_edge_hits", "node_overlaps", "inward_ends", "unrouted_edges")

Point = tuple[float, float]


@dataclass(eq=False, slots=True)
class Node:
    """Something with a place: a box, a label, or the mark of the start or of an end."""

    kind: str
    width: float
    height: float
    name: str = ""
    """Of a box's state."""
    title: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    x: float = 0.0
    """Of the middle, as ``y``."""
    y: float = 0.0


@dataclass(eq=False, slots=True)
class Line:
    """A line from one node to another."""

    source: Node
    target: Node
    style: str
    label: Node | None
    steps: list[tuple[int, int]]
    """The numbers of the nodes from which and to which it leads: once, or twice with a label between."""
    points: list[Point] = field(default_factory=list)


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
    def weight(self) -> float:
        return _NORMAL if self.normal else _EXIT if self.exit else _EVENT


class Layout:
    """Places for the states of the way.

    Raises:
        SettingsError: The library is not installed, or the flow has too many ways for it.
    """

    def __init__(self, flow: Flow, drawn: Iterable[Edge], notes: Mapping[str, list[str]]) -> None:
        self.nodes: list[Node] = []
        self.lines: list[Line] = []
        self._weights: dict[tuple[int, int], float] = {}
        self._numbers: dict[Node, int] = {}
        start = self._add(Node("start", 14, 14))
        self.boxes = {name: self._add(new_box(flow.states[name], notes.get(name, []))) for name in flow.way}
        self._lead(start, self.boxes[flow.way[0]], _Pair(exit=True, normal=True))
        shared: dict[object, Node] = {}
        for (source, target), pair in _paired(flow, drawn).items():
            said = pair.lines
            label = new_label(said) if said else None
            if label is not None and not pair.exit:  # the same key, say, from many states: told once
                label = shared.setdefault((target, *said), label)
            self._lead(self.boxes[source], self.boxes[target], pair, label)
        for name in ends(flow):
            self._lead(self.boxes[name], self._add(Node("end", 18, 18)), _Pair(exit=True))
        self._place()

    def _add(self, node: Node) -> Node:
        self._numbers[node] = len(self.nodes)
        self.nodes.append(node)
        return node

    def _lead(self, source: Node, target: Node, pair: _Pair, label: Node | None = None) -> None:
        through = [source, target] if label is None else [source, label, target]
        if label is not None and label not in self._numbers:
            self._add(label)
        steps = [(self._numbers[one], self._numbers[other]) for one, other in pairwise(through)]
        for step in steps:
            self._weights[step] = max(pair.weight, self._weights.get(step, 0.0))
        self.lines.append(Line(source, target, "exit" if pair.exit else "event", label, steps))

    def _place(self) -> None:
        placed = self._placed_by(_library())
        for node, place in zip(self.nodes, placed.nodes, strict=True):
            node.x, node.y = place["center"]["x"], place["center"]["y"]
        ways = {
            step: [(point["x"], point["y"]) for point in edge["points"]]
            for step, edge in zip(self._weights, placed.edges, strict=True)
        }
        for line in self.lines:
            line.points = _through(line.label, [ways[step] for step in line.steps])

    def _placed_by(self, library: ModuleType) -> Any:
        """Return the library's best layout: its nodes and edges are ours, in the same order."""
        graph = {
            "nodes": [
                {
                    "size": {"width": node.width, "height": node.height},
                    "shape": "box" if node.kind in ("box", "label") else "ellipse",
                    "rank": "first" if node.kind == "start" else "free",
                }
                for node in self.nodes
            ],
            "edges": [
                {"source": source, "target": target, "weight": weight}
                for (source, target), weight in self._weights.items()
            ],
        }
        best, fewest = None, math.inf
        for tried in _TRIES:
            try:
                placed = library.layout(graph, preset="process_map", options={**_OPTIONS, **tried})
            except library.GraphlayError as error:
                raise SettingsError(
                    "--format", f"the flow cannot be drawn as a picture: {error}", "Use --format mermaid"
                ) from error
            found = placed.metrics()
            near = found["min_edge_node_clearance"]
            tight = near is not None and near < _ASIDE_PX
            wrong = sum(found[name] for name in _WRONG) + tight / 2
            if wrong < fewest:
                best, fewest = placed, wrong
            if not wrong:
                break
        return best


def _library() -> ModuleType:
    try:
        import graphlay
    except ImportError as error:
        raise SettingsError(
            "--format", "a picture needs graphlay", "Install the extra: pip install 'arivox[diagram]'"
        ) from error
    return graphlay


def _through(label: Node | None, pieces: Sequence[list[Point]]) -> list[Point]:
    """Return one line of the pieces before and behind a label, through its middle."""
    if label is None:
        return pieces[0]
    before, behind = pieces
    return [*before, *_inwards(before[-1], label), *reversed(_inwards(behind[0], label)), *behind]


def _inwards(border: Point, node: Node) -> list[Point]:
    """Return the way from a node's border to its middle."""
    x, y = border
    level = abs(x - node.x) * node.height > abs(y - node.y) * node.width
    return [(node.x, y) if level else (x, node.y), (node.x, node.y)]


def _paired(flow: Flow, drawn: Iterable[Edge]) -> dict[tuple[str, str], _Pair]:
    pairs: dict[tuple[str, str], _Pair] = defaultdict(_Pair)
    for edge in drawn:
        if edge.source in ASIDES or edge.target in ASIDES:
            continue
        pair = pairs[edge.source, edge.target]
        pair.labels.append(edge.label)
        pair.exit |= edge.exit
        pair.normal |= edge.exit and flow.states[edge.source].exits[0].state == edge.target
    return pairs


def new_box(state: State, notes: Iterable[str]) -> Node:
    """Return the box of a state, with a size and no place yet."""
    title = wrapped(state.name)
    text = wrapped(", ".join(one.name for one in state.collects))
    said = [line for note in notes for line in wrapped(note)]
    width = max(text_width(title, _NAME_PX), text_width(text), text_width(said), 40.0) + 28
    more = len(text) + len(said)
    height = 18 + LINE_PX * len(title) + (4 + LINE_PX * more if more else 0)
    return Node("box", width, height, state.name, title, text, said)


def new_label(lines: list[str]) -> Node:
    """Return a label, with a size and no place yet."""
    return Node("label", text_width(lines) + 16, LABEL_PX * len(lines) + 6, text=lines)


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
