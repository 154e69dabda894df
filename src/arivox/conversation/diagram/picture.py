"""A flow as a picture (SVG), by its layout."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final
from xml.sax.saxutils import escape

from arivox.conversation.diagram.edges import Edge, clean, edges
from arivox.conversation.diagram.layout import (
    CORNER,
    LABEL_PX,
    LINE_PX,
    MARGIN,
    Lane,
    Layout,
    Node,
    half_width,
    label_height,
    new_box,
    text_width,
    wrapped,
)
from arivox.conversation.flow import Flow
from arivox.conversation.state import ASIDES, ERROR_HANDLER, FALLBACK

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
        self._layout = Layout(flow, drawn, notes)
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
        self._draw_asides(notes, [line for label in onward for line in wrapped(label)])

    def text(self) -> str:
        left = self._layout.left - MARGIN
        width, height = self._right + MARGIN - left, self._bottom + MARGIN
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
                    pen.across_to(lane.x - side * CORNER)
                    pen.turn_to(lane.x, y + side * CORNER, by_x=True)
                else:
                    pen = _Pen(source.x + side * source.width / 4, source.y + side * source.height / 2)
                    pen.down_to(layout.tops[source.row] + (layout.heights[source.row] if side > 0 else 0))
                    pen.bend_to(lane.x, self._turn(source.row, side))
                if (y := ports.get((lane, target))) is not None:
                    pen.down_to(y - side * CORNER)
                    pen.turn_to(lane.x - side * CORNER, y, by_x=False)
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

    def _ports(self) -> dict[tuple[Lane, Node], float]:
        """Return where lanes meet the sides of boxes, so that lines to the same side do not cross."""
        meeting: dict[tuple[Node, int], list[tuple[tuple[bool, float], Lane]]] = defaultdict(list)
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

    def _draw_node(self, node: Node) -> None:
        if node.kind == "start":
            self._boxes.append(f'<circle class="mark" cx="{_n(node.x)}" cy="{_n(node.y)}" r="7"/>')
        elif node.kind == "end":
            self._boxes.append(f'<circle class="ring" cx="{_n(node.x)}" cy="{_n(node.y)}" r="8"/>')
            self._boxes.append(f'<circle class="mark" cx="{_n(node.x)}" cy="{_n(node.y)}" r="4.5"/>')
        elif node.kind == "box":
            self._draw_box(node, "box")
            if node.looped:
                pen = _Pen(node.x + node.width / 2, node.y - 8)
                self._label(node.loop, pen.x + 21 + text_width(node.loop) / 2, node.y)
                pen.loop_to(node.y + 8)
                self._line(node.loop_style, pen, node, node)

    def _draw_box(self, node: Node, kind: str) -> None:
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
        layout = self._layout
        rows = [layout.boxes[name].row for name in self._flow.way if self._flow.states[name].exits]
        top = layout.tops[min(rows, default=1)]
        bottom = layout.tops[max(rows, default=1)] + layout.heights[max(rows, default=1)]
        trunk = self._right + 20
        left = trunk + max(map(text_width, self._all.values()), default=0.0) + 56
        apart = 44 + label_height(between)
        heights = [max(box.height, label_height(self._all.get(box.name, []))) for box in boxes]
        tall = sum(heights) + apart * (len(boxes) - 1)
        y = max(top, (top + bottom - tall) / 2)
        for box, height in zip(boxes, heights, strict=True):
            box.x = left + max(one.width for one in boxes) / 2
            box.y = y + height / 2
            y += height + apart
            self._draw_box(box, box.name)
            self._right = max(self._right, box.x + box.width / 2)
        self._bottom = max(self._bottom, y - apart)
        for box in boxes:
            if box.name in self._all:
                style = "aside" if box.name == FALLBACK else "error"
                x = box.x - box.width / 2
                start = min(max(box.y, top + CORNER), bottom - CORNER)
                pen = _Pen(trunk, start)
                pen.down_to(box.y)
                pen.across_to(x)
                self._line(style, pen, None, box, both=box.name == FALLBACK)
                self._label(self._all[box.name], (trunk + x) / 2, box.y)
        if self._all:
            pen = _Pen(trunk - CORNER, top)
            pen.turn_to(trunk, top + CORNER, by_x=True)
            pen.down_to(bottom - CORNER)
            pen.turn_to(trunk - CORNER, bottom, by_x=False)
            style = "aside" if FALLBACK in self._all else "error"
            self._lines.append(f'<path class="line {style}" d="{pen.path}"/>')
        if between and len(boxes) == len(ASIDES):
            first, second = boxes
            pen = _Pen(first.x, first.y + first.height / 2)
            end = second.y - second.height / 2
            self._label(between, first.x, (pen.y + end) / 2 - 3)
            pen.down_to(end)
            self._line("error", pen, first, second)

    def _line(self, style: str, pen: _Pen, source: Node | None, target: Node, *, both: bool = False) -> None:
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
        width, height = 2 * half_width(lines), label_height(lines)
        self._labels.append(
            f'<rect class="behind" x="{_n(x - width / 2)}" y="{_n(y - height / 2)}" width="{_n(width)}" '
            f'height="{_n(height)}" rx="4"/>'
        )
        for at, line in enumerate(lines):
            self._labels.append(_text("label", line, x, y - height / 2 + 13 + at * LABEL_PX))


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
