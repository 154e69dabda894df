"""A flow as a picture (SVG), by its layout."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final
from xml.sax.saxutils import escape

from arivox.conversation.diagram.edges import Edge, clean, edges
from arivox.conversation.diagram.layout import (
    LABEL_PX,
    LINE_PX,
    Layout,
    Node,
    Point,
    new_box,
    new_label,
    text_width,
    wrapped,
)
from arivox.conversation.flow import Flow
from arivox.conversation.state import ASIDES, ERROR_HANDLER, FALLBACK

_MARGIN: Final = 24.0
_CORNER: Final = 6.0
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


class _Picture:
    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        drawn = edges(flow)
        self._all, notes = _to_asides(flow, drawn)
        self._layout = Layout(flow, drawn, notes)
        self._number = {name: at for at, name in enumerate(flow.states)}
        self._lines: list[str] = []
        self._labels: list[str] = []
        self._boxes: list[str] = []
        self._left = self._top = self._right = self._bottom = 0.0
        for line in self._layout.lines:
            self._line(line.style, line.points, line.source, line.target)
        for node in self._layout.nodes:
            self._draw_node(node)
        onward = [edge.label for edge in drawn if (edge.source, edge.target) == ASIDES]
        self._draw_asides(notes, [line for label in onward for line in wrapped(label)])

    def text(self) -> str:
        left, top = self._left - _MARGIN, self._top - _MARGIN
        width, height = self._right + _MARGIN - left, self._bottom + _MARGIN - top
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
                f'viewBox="{_n(left)} {_n(top)} {_n(width)} {_n(height)}" role="img">',
                "<title>The flow of the conversation</title>",
                f"<style>{_STYLE}</style>",
                "<defs>",
                *markers,
                "</defs>",
                f'<rect class="page" x="{_n(left)}" y="{_n(top)}" {size}/>',
                *self._lines,
                *self._labels,
                *self._boxes,
                "</svg>\n",
            )
        )

    def _reach(self, x: float, y: float) -> None:
        """Have the page reach to a point at least."""
        self._left, self._right = min(self._left, x), max(self._right, x)
        self._top, self._bottom = min(self._top, y), max(self._bottom, y)

    def _reach_around(self, node: Node) -> None:
        for side in (-1, 1):
            self._reach(node.x + side * node.width / 2, node.y + side * node.height / 2)

    def _draw_node(self, node: Node) -> None:
        self._reach_around(node)
        at = f'cx="{_n(node.x)}" cy="{_n(node.y)}"'
        if node.kind == "start":
            self._boxes.append(f'<circle class="mark" {at} r="7"/>')
        elif node.kind == "end":
            self._boxes.append(f'<circle class="ring" {at} r="8"/>')
            self._boxes.append(f'<circle class="mark" {at} r="4.5"/>')
        elif node.kind == "label":
            self._label(node)
        else:
            self._draw_box(node, node.name if node.name in ASIDES else "box")

    def _draw_box(self, node: Node, kind: str) -> None:
        x, y = node.x - node.width / 2, node.y - node.height / 2
        number = self._number[node.name]
        self._boxes.append(f'<g class="state" data-state="{number}"><title>{_xml(node.name)}</title>')
        self._boxes.append(
            f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(node.width)}" '
            f'height="{_n(node.height)}" rx="5"/>'
        )
        y += 9
        for line in node.title:
            self._boxes.append(_text("name", line, node.x, y + 12))
            y += LINE_PX
        y += 4
        for style, lines in (("text", node.text), ("note", node.notes)):
            for line in lines:
                self._boxes.append(_text(style, line, node.x, y + 11))
                y += LINE_PX
        self._boxes.append("</g>")

    def _draw_asides(self, notes: dict[str, list[str]], between: list[str]) -> None:
        """Draw the asides in a column, with one line for all states that lead there."""
        boxes = [
            new_box(self._flow.states[name], notes.get(name, []))
            for name in ASIDES
            if name in self._flow.states
        ]
        if not boxes:
            return
        on = [self._layout.boxes[name] for name in self._flow.way if self._flow.states[name].exits]
        top = min((box.y - box.height / 2 for box in on), default=0.0)
        bottom = max((box.y + box.height / 2 for box in on), default=0.0)
        trunk = self._right + 20
        left = trunk + max(map(text_width, self._all.values()), default=0.0) + 56
        apart = 44 + new_label(between).height
        heights = [max(box.height, new_label(self._all.get(box.name, [])).height) for box in boxes]
        tall = sum(heights) + apart * (len(boxes) - 1)
        y = max(top, (top + bottom - tall) / 2)
        for box, height in zip(boxes, heights, strict=True):
            box.x = left + max(one.width for one in boxes) / 2
            box.y = y + height / 2
            y += height + apart
            self._draw_node(box)
        for box in boxes:
            if box.name in self._all:
                style = "aside" if box.name == FALLBACK else "error"
                start = min(max(box.y, top + _CORNER), bottom - _CORNER)
                way = [(trunk, start), (trunk, box.y), (box.x - box.width / 2, box.y)]
                self._line(style, way, None, box, both=box.name == FALLBACK)
                self._told(self._all[box.name], (trunk + way[-1][0]) / 2, box.y)
        if self._all:
            style = "aside" if FALLBACK in self._all else "error"
            bracket = [(trunk - _CORNER, top), (trunk, top), (trunk, bottom), (trunk - _CORNER, bottom)]
            self._lines.append(f'<path class="line {style}" d="{_path(bracket)}"/>')
        if between and len(boxes) == len(ASIDES):
            first, second = boxes
            start, end = first.y + first.height / 2, second.y - second.height / 2
            self._line("error", [(first.x, start), (first.x, end)], first, second)
            self._told(between, first.x, (start + end) / 2 - 3)

    def _line(
        self, style: str, way: Sequence[Point], source: Node | None, target: Node, *, both: bool = False
    ) -> None:
        """Draw a line with an arrow, or one at both ends; only states are named as its ends."""
        for x, y in way:
            self._reach(x, y)
        ends = "".join(
            f' data-{key}="{self._number[node.name]}"'
            for key, node in (("from", source), ("to", target))
            if node is not None and node.kind == "box"
        )
        arrows = f' marker-start="url(#arrow-{style})"' if both else ""
        arrows += f' marker-end="url(#arrow-{style})"'
        self._lines.append(f'<path class="line {style}"{ends}{arrows} d="{_path(way)}"/>')

    def _told(self, lines: list[str], x: float, y: float) -> None:
        label = new_label(lines)
        label.x, label.y = x, y
        self._reach_around(label)
        self._label(label)

    def _label(self, node: Node) -> None:
        width = node.width - 8  # the rest keeps lines away
        top = node.y - node.height / 2
        self._labels.append(
            f'<rect class="behind" x="{_n(node.x - width / 2)}" y="{_n(top)}" width="{_n(width)}" '
            f'height="{_n(node.height)}" rx="4"/>'
        )
        for at, line in enumerate(node.text):
            self._labels.append(_text("label", line, node.x, top + 13 + at * LABEL_PX))


def _path(way: Sequence[Point]) -> str:
    """Return a path along the points, with round corners, without pieces that have no length: an arrow there
    would have no direction.
    """
    points = [way[0]]
    for here, then in pairwise(way):
        if (_n(here[0]), _n(here[1])) != (_n(then[0]), _n(then[1])):
            points.append(then)
    path = f"M{_at(points[0])}"
    for before, corner, behind in zip(points, points[1:], points[2:], strict=False):
        into, out = _towards(corner, before), _towards(corner, behind)
        path += f" L{_at(into)} Q{_at(corner)} {_at(out)}"
    return path + (f" L{_at(points[-1])}" if len(points) > 1 else "")


def _towards(corner: Point, other: Point) -> Point:
    """Return where a corner begins on the way to the next: half-way at most."""
    part = min(_CORNER / math.dist(corner, other), 0.5)
    return corner[0] + (other[0] - corner[0]) * part, corner[1] + (other[1] - corner[1]) * part


def _at(point: Point) -> str:
    return f"{_n(point[0])},{_n(point[1])}"


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
            for_all[target] += wrapped(label or "not understood")
        for name in names:
            back = name == FALLBACK and not label
            onward = (name, target) == (FALLBACK, ERROR_HANDLER)
            if not back and not onward and not (shared and name not in ASIDES):
                notes[name].append(f"{label} \u2192 {target}".strip())
    return for_all, notes


def _text(style: str, text: str, x: float, y: float) -> str:
    return f'<text class="{style}" x="{_n(x)}" y="{_n(y)}">{_xml(text)}</text>'


def _xml(text: str) -> str:
    return escape(clean(text))


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
