"""A graph as a picture: SVG, PNG, PDF, DOT or text, without any other program."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from microgpt._value import Value
from microgpt.cli import printable
from microgpt.files import write_atomically
from microgpt.graphs import Graph, Names, as_graph, check_limits
from microgpt.layout import MARGIN, Layout, Point, layout

FORMATS = (".svg", ".png", ".pdf", ".dot", ".txt")
THEMES = ("auto", "light", "dark")
WHOLE = 8  # operands of a sum, pairs of a dot twice, that are drawn one by one unless asked for

FONT = 12.0  # px; of a monospaced font, whose letters are 0.602 as wide as it is high
LETTER = 0.602 * FONT
LINE = 15.0
PADDING = 6.0
RADIUS = 13.0  # of the circle with the op
PLUS = 12.0  # room for the + that stands for what is left out
LONGEST = 34  # letters of a line; what is longer is cut

LIGHT = {
    "back": "#ffffff",
    "box": "#ffffff",
    "leaf": "#e8f0fb",
    "edge": "#8a8f98",
    "ink": "#1b1d21",
    "op": "#fdf0dc",
    "dim": "#5b6068",
}
DARK = {
    "back": "#15171b",
    "box": "#1f2227",
    "leaf": "#1d2b40",
    "edge": "#7d838d",
    "ink": "#eceef1",
    "op": "#453218",
    "dim": "#a6acb5",
}


@dataclass
class Box:
    """What is drawn as one: a node, or several of one op that are operands of the same sum or dot."""

    nodes: tuple[int, ...]
    op: str
    lines: list[str]
    uses: list[tuple[int, int]] = field(default_factory=list)  # number of a box that it uses, and how many of its nodes
    hidden: int = 0  # operands that are not drawn

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, with the circle of its op."""
        width = max(len(line) for line in self.lines) * LETTER + 2 * PADDING
        return width + (self.circle + 6 if self.op else 0) + (PLUS if self.hidden else 0), len(self.lines) * LINE + 2 * PADDING

    @property
    def circle(self) -> float:
        """Width of the op's circle, which is longer where the name is."""
        return max(2 * RADIUS, len(self.op) * LETTER + 12)


class Drawing:
    """A picture of a graph, made by `draw`. In a notebook it shows itself; `save(path)` writes it."""

    def __init__(self, graph: Graph, boxes: list[Box], depth: int | None, max_nodes: int, theme: str) -> None:
        self.graph = graph
        self.boxes = boxes
        self._limits = depth, max_nodes
        self._theme = theme
        self._layout: Layout | None = None

    @property
    def caption(self) -> str:
        """What is shown, and how much is not."""
        drawn = len({node for box in self.boxes for node in box.nodes})
        whole = len(self.graph)
        if drawn == whole:
            return ""
        return f"{drawn:,} of {whole:,} nodes, in {len(self.boxes)} boxes; what is below + is left out"

    @property
    def layout(self) -> Layout:
        """Where the boxes stand."""
        if self._layout is None:
            edges = [(user, used) for user, box in enumerate(self.boxes) for used, _ in box.uses]
            self._layout = layout([box.size for box in self.boxes], edges)
        return self._layout

    def save(self, path: str | Path) -> None:
        """Write the picture; the end of the name says how: .svg, .png, .pdf, .dot or .txt.

        Errors: ValueError for another end, and for .png and .pdf without matplotlib; OSError if the file cannot be written.
        """
        end = os.path.splitext(path)[1].lower()
        if end not in FORMATS:
            raise ValueError(f"a drawing is saved as {', '.join(FORMATS)}, got {os.fspath(path)!r}")
        if end in (".png", ".pdf"):
            content = self.render(end[1:])
        else:
            content = {".svg": self.svg, ".dot": self.dot, ".txt": self.text}[end]().encode()
        write_atomically(path, content)

    def text(self) -> str:
        """Return the graph as a tree of lines."""
        depth, max_nodes = self._limits
        return "".join(plain(line) + "\n" for line in self.graph.tree(depth or len(self.graph), max_nodes).split("\n"))

    def svg(self) -> str:
        """Return the picture as SVG. It follows the reader's light or dark mode unless `theme` was given."""
        at = self.layout
        caption = self.caption
        height = at.height + (LINE if caption else 0)
        width = max(at.width, len(caption) * LETTER + 2 * MARGIN)
        parts = list(self.svg_parts(at))
        if caption:
            parts.append(f'<text class="dim" x="{MARGIN:g}" y="{height - MARGIN:.1f}">{escape(caption)}</text>')
        mark = "g" + hashlib.sha256("".join(parts).encode()).hexdigest()[:10]  # styles of an inline SVG reach the whole page
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{mark}" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" role="img"><title>{markup(repr(self.graph)[1:-1])}</title>'
            f"<style>{self.style(mark)}</style>"
            f'<rect class="back" width="100%" height="100%"/>{"".join(parts)}</svg>'
        )

    _repr_svg_ = svg

    def style(self, mark: str) -> str:
        """Return the style sheet of the SVG whose class is `mark`."""
        light, dark = (
            f"svg.{mark}{{" + "".join(f"--{name}:{value};" for name, value in theme.items()) + "}" for theme in (LIGHT, DARK)
        )
        colours = {"light": light, "dark": dark, "auto": f"{light}@media(prefers-color-scheme:dark){{{dark}}}"}[self._theme]
        rules = {
            "text": f"font:{FONT:g}px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:var(--ink);white-space:pre",
            ".name": "font-weight:bold",
            ".dim": "fill:var(--dim)",
            ".op": "text-anchor:middle",
            ".back": "fill:var(--back)",
            ".box": "fill:var(--box);stroke:var(--ink)",
            ".leaf": "fill:var(--leaf)",
            ".root": "stroke-width:2.5",
            ".ring": "fill:var(--op);stroke:var(--ink)",
            ".edge": "fill:none;stroke:var(--edge);stroke-width:1.3",
            ".tip": "fill:var(--edge)",
        }
        return colours + "".join(f"svg.{mark} {selector}{{{rule}}}" for selector, rule in rules.items())

    def svg_parts(self, at: Layout) -> Iterator[str]:
        """Yield the elements: lines, then boxes."""
        for points, label in self.curves(at):
            (x0, y0), *rest = points
            curve = " ".join(f"{x:.1f},{y:.1f}" for x, y in rest)
            yield f'<path class="edge" d="M{x0:.1f},{y0:.1f}C{curve}"/>'
            x, y = points[-1]
            yield f'<path class="tip" d="M{x:.1f},{y:.1f}l-7,-3.5v7z"/>'
            if label:
                yield f'<text class="dim" x="{x0 + 4:.1f}" y="{y0 - 4:.1f}">{label}</text>'
        for number, box in enumerate(self.boxes):
            (x, y), (width, height) = at.centers[number], box.size
            left, top = x - width / 2, y - height / 2
            if box.hidden:
                yield f'<text class="dim" x="{left:.1f}" y="{y + 4:.1f}">+</text>'
                left += PLUS
                width -= PLUS
            kind = "box" + (" leaf" if not box.op else "") + (" root" if number == 0 else "")
            yield f"<g><title>{markup(self.tip(box))}</title>"
            if box.op:
                yield (
                    f'<rect class="ring" x="{left:.1f}" y="{y - RADIUS:.1f}" width="{box.circle:.1f}" height="{2 * RADIUS:g}" '
                    f'rx="{RADIUS:g}"/>'
                    f'<text class="op" x="{left + box.circle / 2:.1f}" y="{y + 4:.1f}">{markup(box.op)}</text>'
                )
                left += box.circle + 6
                width -= box.circle + 6
                yield f'<path class="edge" d="M{left - 6:.1f},{y:.1f}h6"/>'
            for behind in (3, 0) if len(box.nodes) > 1 else (0,):
                corner = f'x="{left + behind:.1f}" y="{top - behind:.1f}"'
                yield f'<rect class="{kind}" {corner} width="{width:.1f}" height="{height:.1f}" rx="3"/>'
            for k, line in enumerate(box.lines):
                style = ' class="name"' if k == 0 and len(box.lines) > 2 else ""
                yield f'<text{style} x="{left + PADDING:.1f}" y="{top + PADDING + (k + 0.8) * LINE:.1f}">{markup(line)}</text>'
            yield "</g>"

    def tip(self, box: Box) -> str:
        """Return what a reader sees who rests on a box."""
        lines = [self.graph.line(node) for node in box.nodes[:20]]
        if len(box.nodes) > 20:
            lines.append(f"and {len(box.nodes) - 20:,} more")
        if box.hidden:
            lines.append(f"{box.hidden:,} operands below are left out")
        return "\n".join(lines)

    def curves(self, at: Layout) -> Iterator[tuple[list[Point], str]]:
        """Yield the lines as Bezier curves, start and then three points each, and what is written at their ends."""
        routes = iter(at.routes)
        ends: list[list[tuple[float, int, list[Point], str]]] = [[] for _ in self.boxes]
        for user, box in enumerate(self.boxes):
            for order, (used, count) in enumerate(box.uses):
                route = next(routes)
                ends[user].append((route[-2][1], order, route, f"{count:,}" if count > 1 else ""))
                route[0] = (at.centers[used][0] + self.boxes[used].size[0] / 2, route[0][1])
        for user, box in enumerate(self.boxes):
            x, y = at.centers[user]
            spread = min(8.0, 2 * (RADIUS - 3) / max(1, len(box.uses) - 1))
            for place, (_, order, route, label) in enumerate(sorted(ends[user], key=lambda end: end[:2])):
                shift = spread * (place - (len(box.uses) - 1) / 2)
                twin = [used for used, _ in box.uses].count(box.uses[order][0]) > 1  # two lines between the same boxes are two
                points = [(px, py + (shift if twin else 0)) for px, py in route[:-1]] + [(x - box.size[0] / 2, y + shift)]
                curve = [points[0]]
                for (x0, y0), (x1, y1) in pairwise(points):
                    bend = (x1 - x0) / 2
                    curve += [(x0 + bend, y0), (x1 - bend, y1), (x1, y1)]
                yield curve, label

    def dot(self) -> str:
        """Return the graph in Graphviz's language, for those who have its program: `dot -Tsvg graph.dot`."""
        lines = ["digraph {", "  rankdir=LR;", '  node [shape=record, fontname="monospace", fontsize=10];']
        for number, box in enumerate(self.boxes):
            label = "|".join(record(line) for line in box.lines)
            lines.append(f'  n{number} [label="{{{label}}}"];')
            if box.op:
                lines.append(f'  o{number} [shape=oval, label="{quoted(box.op)}"];')
                lines.append(f"  o{number} -> n{number};")
            for used, count in box.uses:
                lines.append(f"  n{used} -> o{number}" + (f' [label="{count}"]' if count > 1 else "") + ";")
            if box.hidden:
                lines.append(f'  h{number} [shape=plaintext, label="+ {box.hidden}"];')
                lines.append(f"  h{number} -> o{number};")
        if self.caption:
            lines.append(f'  label="{quoted(self.caption)}";')
        return "\n".join([*lines, "}", ""])

    def render(self, form: str) -> bytes:
        """Return the picture in a format of matplotlib, from the places that the SVG has."""
        try:
            from matplotlib.figure import Figure
            from matplotlib.patches import FancyBboxPatch, PathPatch
            from matplotlib.path import Path as Curve
        except ImportError as error:
            raise ValueError(f"a drawing is saved as .{form} with matplotlib ({error}): pip install matplotlib") from None
        colours = DARK if self._theme == "dark" else LIGHT
        at, caption = self.layout, self.caption
        width = max(at.width, len(caption) * LETTER + 2 * MARGIN)
        height = at.height + (LINE if caption else 0)
        figure = Figure(figsize=(width / 96, height / 96), facecolor=colours["back"])
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        font: dict[str, Any] = {"family": "monospace", "size": FONT * 0.75, "color": colours["ink"], "parse_math": False}

        def box(x: float, y: float, wide: float, high: float, fill: str, rounding: float, line: float = 1) -> None:
            style = f"round,pad=0,rounding_size={rounding}"
            axes.add_patch(
                FancyBboxPatch(
                    (x, y), wide, high, boxstyle=style, facecolor=colours[fill], edgecolor=colours["ink"], linewidth=0.75 * line
                )
            )

        for points, label in self.curves(at):
            codes = [Curve.MOVETO] + [Curve.CURVE4] * (len(points) - 1)
            axes.add_patch(PathPatch(Curve(points, codes), facecolor="none", edgecolor=colours["edge"], linewidth=1))
            x, y = points[-1]
            axes.fill([x, x - 7, x - 7], [y, y - 3.5, y + 3.5], color=colours["edge"], linewidth=0)
            if label:
                axes.text(points[0][0] + 4, points[0][1] - 4, label, **{**font, "color": colours["dim"]})
        for number, one in enumerate(self.boxes):
            (x, y), (wide, high) = at.centers[number], one.size
            left, top = x - wide / 2, y - high / 2
            if one.hidden:
                axes.text(left, y + 4, "+", **{**font, "color": colours["dim"]})
                left += PLUS
                wide -= PLUS
            if one.op:
                box(left, y - RADIUS, one.circle, 2 * RADIUS, "op", RADIUS)
                axes.text(left + one.circle / 2, y + 4, printable(one.op), ha="center", **font)
                axes.plot([left + one.circle, left + one.circle + 6], [y, y], color=colours["edge"], linewidth=1)
                left += one.circle + 6
                wide -= one.circle + 6
            fill = "box" if one.op else "leaf"
            if len(one.nodes) > 1:
                box(left + 3, top - 3, wide, high, fill, 3)
            box(left, top, wide, high, fill, 3, 2.5 if number == 0 else 1)
            for k, line in enumerate(one.lines):
                weight = "bold" if k == 0 and len(one.lines) > 2 else "normal"
                axes.text(left + PADDING, top + PADDING + (k + 0.8) * LINE, printable(line), weight=weight, **font)
        if caption:
            axes.text(MARGIN, height - MARGIN, caption, **{**font, "color": colours["dim"]})
        content = io.BytesIO()
        figure.savefig(content, format=form, dpi=min(192, 30_000 / max(figure.get_size_inches())))
        return content.getvalue()


def draw(
    root: Value | Graph,
    *,
    names: Names | None = None,
    depth: int | None = None,
    max_nodes: int = 150,
    expand: bool | Iterable[Value] = False,
    theme: str = "auto",
) -> Drawing:
    """Return a picture of the graph below `root`, which a notebook shows and `.save("graph.svg")` writes.

    A box is a node: its label or name, data, gradient (of this root, whether or not backward() was called) and op. The operands
    of a sum or dot of many are boxes of several nodes of one op, with the range of their numbers; `expand=True` draws each, a
    list of Values those below these alone (what others use, too, is then in two boxes). `names` as in `graph`. At most
    `max_nodes` boxes, and `depth` of them in a row, those nearest to the root first; the picture says what is left out.
    Errors: TypeError for what is no Value; ValueError for limits below 1 and for another theme than auto, light and dark.
    Cost: that of `graph`, and that of what is drawn.
    """
    check_limits(depth, max_nodes)
    if theme not in THEMES:
        raise ValueError(f"theme must be {', '.join(THEMES)}, got {theme!r}")
    graph = as_graph(root, names)
    expanded = expand if isinstance(expand, bool) else {graph.index(value) for value in expand}
    return Drawing(graph, Chooser(graph, expanded).boxes(depth or len(graph), max_nodes), depth, max_nodes, theme)


class Chooser:
    """Chooses the boxes of a drawing, from the root on."""

    def __init__(self, graph: Graph, expanded: bool | set[int]) -> None:
        self.graph = graph
        self.expanded = expanded
        self.depths = graph.depths()
        self.tensor = graph.tensor

    def is_expanded(self, node: int) -> bool:
        """Whether each operand of a node is to be drawn."""
        return self.expanded if isinstance(self.expanded, bool) else node in self.expanded

    def sides(self, node: int, whole: int = WHOLE) -> list[list[int]]:
        """Return the children of a node: each apart, or those of a sum or of each side of a dot together if above `whole`."""
        children = list(self.graph.children[self.graph.first_child[node] : self.graph.first_child[node + 1]])
        if len(children) <= whole or self.is_expanded(node):
            return [[child] for child in children]
        return [children[::2], children[1::2]] if self.graph.op(node) == "dot" else [children]

    def below(self, nodes: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the nodes of each box that one of these nodes uses; a box that a single node uses twice comes twice.

        Nodes in one box are of one op, tensor and depth: then no box is below itself.
        """
        if len(nodes) == 1:
            sides = self.sides(nodes[0])
        else:
            sides = []
            for node in nodes:
                for k, side in enumerate(self.sides(node, 2)):
                    if k == len(sides):
                        sides.append([])
                    sides[k].extend(side)
        boxes: list[tuple[int, ...]] = []
        for side in sides:
            alike: dict[tuple[int, ...], dict[int, None]] = {}
            for child in side:
                leaf = self.graph.first_child[child] == self.graph.first_child[child + 1]
                alone = (child,) if not isinstance(self.expanded, bool) and child in self.expanded else ()
                kind = (self.graph.ops[child], self.tensor[child], 0 if leaf else self.depths[child], *alone)
                alike.setdefault(kind, {})[child] = None
            boxes.extend(tuple(sorted(members)) for members in alike.values())
        return boxes

    def boxes(self, depth: int, max_nodes: int) -> list[Box]:
        """Return the boxes, each after those that use it."""
        uses: dict[tuple[int, ...], list[tuple[int, ...]]] = {(0,): []}
        hidden: dict[tuple[int, ...], int] = {}
        level: list[tuple[int, ...]] = [(0,)]
        for distance in range(depth):
            following: list[tuple[int, ...]] = []
            for nodes in level:
                if distance + 1 == depth:
                    hidden[nodes] = sum(self.graph.first_child[node + 1] - self.graph.first_child[node] for node in nodes)
                    continue
                for used in self.below(nodes):
                    if used not in uses and len(uses) < max_nodes:
                        uses[used] = []
                        following.append(used)
                    if used in uses:
                        uses[nodes].append(used)
                    else:
                        hidden[nodes] = hidden.get(nodes, 0) + len(used)
            level = following
            if not level:
                break
        order = sorted(uses, key=lambda nodes: (self.depths[nodes[0]], nodes))
        number = {nodes: i for i, nodes in enumerate(order)}
        return [
            Box(
                nodes,
                self.op(nodes),
                self.lines(nodes),
                [(number[used], len(used)) for used in uses[nodes]],
                hidden.get(nodes, 0),
            )
            for nodes in order
        ]

    def op(self, nodes: tuple[int, ...]) -> str:
        """Return what stands in the circle, as micrograd writes it: nothing for leaves."""
        titles = {self.graph.title(node) for node in nodes[:100]}
        op = self.graph.op(nodes[0])
        title = titles.pop() if len(titles) == 1 else op
        if title == "leaf":
            return ""
        if op != "custom":
            title = " ".join({"add": "+", "mul": "*", "pow": "**"}.get(word, word) for word in title.split())
        return title[:LONGEST]

    def lines(self, nodes: tuple[int, ...]) -> list[str]:
        """Return name, data and gradient."""
        graph = self.graph
        if len(nodes) == 1:
            name = graph.name(nodes[0])
            lines = [shorten(name)] if name else []
            return [*lines, f"data {graph.data[nodes[0]]:.4f}", f"grad {graph.grad[nodes[0]]:.4f}"]
        name = graph.span(nodes)
        lines = [*([shorten(name)] if name else []), f"{len(nodes):,} {'leaves' if graph.op(nodes[0]) == 'leaf' else 'nodes'}"]
        for word, numbers in (("data", graph.data), ("grad", graph.grad)):
            values = [numbers[node] for node in nodes]
            lines.append(f"{word} {min(values):.4f} .. {max(values):.4f}")
        return lines


def shorten(text: str) -> str:
    """Return `text` with its middle cut where it is long."""
    half = LONGEST // 2 - 1
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def plain(text: str) -> str:
    """Return `text` with all shown escaped that XML has no place for, or that turns or hides what follows."""
    return printable(text).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def markup(text: str) -> str:
    """Return `text` for an SVG, where it is text and nothing else."""
    return escape("\n".join(plain(line) for line in text.split("\n")))


def quoted(text: str) -> str:
    """Return `text` for a string of DOT."""
    return plain(text).replace("\\", "\\\\").replace('"', '\\"')


def record(text: str) -> str:
    """Return `text` for a field of a record of DOT."""
    return "".join(f"\\{letter}" if letter in "{}|<> " else letter for letter in quoted(text))
