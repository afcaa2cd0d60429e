"""microgpt.draw: which boxes there are, where they stand, and the files that they become."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from process import printed_by
from test_inspect import random_root

import microgpt
from microgpt import GPT, GPTConfig, Matrix, Value, Vector, relu
from microgpt.drawing import Drawing, draw
from microgpt.graphs import graph
from microgpt.layout import BOX_GAP, LAYER_GAP, crossings, isotonic, layout, ordered_layers

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script> \"'&]]> \x1b[31m \ufffe \u202e {a|b} \\"


def lecture_root() -> Value:
    a, b, c, f = (Value(data, label=label) for data, label in ((2.0, "a"), (-3.0, "b"), (10.0, "c"), (-2.0, "f")))
    e = a * b
    d = e + c
    root = d * f
    e.label, d.label, root.label = "e", "d", "L"
    return root


def texts(drawing: Drawing) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(drawing.svg()).iter(f"{SVG}text")]


def lines_of(drawing: Drawing) -> list[tuple[str, str]]:
    """Title lines of the boxes that each line goes between."""
    return [
        (drawing.boxes[used].lines[0], drawing.boxes[user].lines[0])
        for user in range(len(drawing.boxes))
        for used, _ in drawing.boxes[user].uses
    ]


def test_a_small_graph_is_drawn_as_micrograd_draws_it() -> None:
    drawing = draw(lecture_root())
    assert sorted(lines_of(drawing)) == [("a", "e"), ("b", "e"), ("c", "d"), ("d", "L"), ("e", "d"), ("f", "L")]
    assert {box.lines[0]: (box.op, *box.lines[1:]) for box in drawing.boxes} == {
        "L": ("*", "data -8.0000", "grad 1.0000"),
        "d": ("+", "data 4.0000", "grad -2.0000"),
        "f": ("", "data -2.0000", "grad 4.0000"),
        "e": ("*", "data -6.0000", "grad -2.0000"),
        "c": ("", "data 10.0000", "grad -2.0000"),
        "a": ("", "data 2.0000", "grad 6.0000"),
        "b": ("", "data -3.0000", "grad -4.0000"),
    }
    assert drawing.caption == ""
    assert set(texts(drawing)) >= {"a", "L", "*", "+", "data -8.0000"}


def test_a_square_has_two_lines() -> None:
    x = Value(3.0)
    drawing = draw(x * x)
    assert [used for used, _ in drawing.boxes[0].uses] == [1, 1]
    curves = [tuple(points) for points, _ in drawing.curves(drawing.layout)]
    assert len(set(curves)) == 2
    assert drawing.dot().count("n1 -> o0;") == 2


def test_drawing_changes_no_gradient() -> None:
    x = Value(3.0)
    x.grad = 0.5
    draw((x * x).exp()).svg()
    assert x.grad == 0.5


def test_long_dots_and_sums_are_collapsed_and_can_be_expanded() -> None:
    w, x = Matrix([[0.1 * i for i in range(10)]] * 3), Vector([1.0] * 10)
    h = relu(w @ x)
    loss = Vector([*h, *h, *h]).sum()
    drawing = draw(loss, names={"w": w, "x": x, "h": h})
    assert [(box.op, len(box.nodes), box.lines[0]) for box in drawing.boxes] == [
        ("sum", 1, "data 40.5000"),
        ("relu", 3, "h[0..2]"),
        ("dot", 3, "3 nodes"),
        ("", 30, "w[0..2][0..9]"),
        ("", 10, "x[0..9]"),
    ]
    assert drawing.boxes[3].lines[1:] == ["30 leaves", "data 0.0000 .. 0.9000", "grad 3.0000 .. 3.0000"]
    assert len(draw(loss, expand=True).boxes) == len(graph(loss))
    one = draw(loss, names={"w": w, "x": x, "h": h}, expand=[h[1], h[1].children[0]])
    single = [box.lines[0] for box in one.boxes if len(box.nodes) == 1]
    assert {"h[1]", "w[1][0]", "x[9]"} <= set(single)
    assert "w[0][0]" not in single
    assert [box.lines[0] for box in one.boxes if len(box.nodes) == 2] == ["h[0..2]", "2 nodes"]


@pytest.mark.parametrize("seed", range(40))
def test_no_box_is_below_itself_and_none_covers_another(seed: int) -> None:
    drawing = draw(random_root(seed), expand=seed % 2 == 0)
    assert all(used > user for user, box in enumerate(drawing.boxes) for used, _ in box.uses)
    at = drawing.layout
    frames = []
    for (x, y), box in zip(at.centers, drawing.boxes, strict=True):
        width, height = box.size
        frames.append((x - width / 2, x + width / 2, y - height / 2, y + height / 2))
        assert 0 < x - width / 2 < x + width / 2 < at.width
        assert 0 < y - height / 2 < y + height / 2 < at.height
    for a, b in itertools.combinations(frames, 2):
        assert a[1] <= b[0] or b[1] <= a[0] or a[3] + BOX_GAP <= b[2] + 1e-6 or b[3] + BOX_GAP <= a[2] + 1e-6
    for user, box in enumerate(drawing.boxes):
        for used, _ in box.uses:
            assert frames[used][1] + LAYER_GAP <= frames[user][0] + 1e-6
    drawn = {node for box in drawing.boxes for node in box.nodes}
    assert drawn == set(range(len(drawing.graph)))


def test_a_tree_is_drawn_without_crossings() -> None:
    rng = random.Random(3)
    edges = [(rng.randrange(i), i) for i in range(1, 60)]
    rank = [0] * 60
    neighbours: list[tuple[list[int], list[int]]] = [([], []) for _ in range(60)]
    for user, used in edges:
        rank[used] = rank[user] + 1
        neighbours[user][1].append(used)
        neighbours[used][0].append(user)
    assert crossings(ordered_layers(rank, neighbours), neighbours) == 0


@pytest.mark.parametrize("seed", range(20))
def test_crossings_are_counted_and_sweeps_never_add_any(seed: int) -> None:
    rng = random.Random(seed)
    upper, lower = list(range(6)), list(range(6, 13))
    neighbours: list[tuple[list[int], list[int]]] = [([], []) for _ in range(13)]
    pairs = [(rng.choice(upper), rng.choice(lower)) for _ in range(14)]
    for a, b in pairs:
        neighbours[a][1].append(b)
        neighbours[b][0].append(a)
    crossed = sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(pairs, 2))
    assert crossings([upper, lower], neighbours) == crossed
    layers = ordered_layers([0] * 6 + [1] * 7, neighbours)
    assert crossings(layers, neighbours) <= crossed + 14
    assert sorted(itertools.chain(*layers)) == sorted({*upper, *(b for _, b in pairs)})


@pytest.mark.parametrize("seed", range(20))
def test_isotonic_regression_is_the_nearest(seed: int) -> None:
    rng = random.Random(seed)
    wanted = [rng.uniform(-3, 3) for _ in range(8)]
    found = isotonic(wanted)
    assert found == sorted(found)
    for _ in range(200):
        other = sorted(at + rng.gauss(0, 0.3) for at in found)
        assert sum((a - b) ** 2 for a, b in zip(found, wanted, strict=True)) <= sum(
            (a - b) ** 2 for a, b in zip(other, wanted, strict=True)
        )


def test_a_line_over_several_layers_goes_round_the_boxes() -> None:
    at = layout([(50.0, 40.0)] * 3, [(0, 1), (1, 2), (0, 2)])
    longest = next(route for route in at.routes if len(route) == 3)
    assert abs(longest[1][1] - at.centers[1][1]) >= 20 + BOX_GAP


def test_limits_are_kept_and_said() -> None:
    model = GPT(GPTConfig(9, n_embd=8, n_head=2, block_size=8), random.Random(1))
    trace = model.trace([8, 0, 1, 2, 8])
    drawing = draw(trace.loss, names=trace.names, max_nodes=20)
    assert len(drawing.boxes) == 20
    nodes = len({node for box in drawing.boxes for node in box.nodes})
    caption = f"{nodes:,} of {len(drawing.graph):,} nodes, in 20 boxes; what is below + is left out"
    assert caption == drawing.caption
    assert caption in texts(drawing)
    assert "+" in texts(drawing)
    assert len(draw(trace.loss, depth=1).boxes) == 1
    assert len(draw(trace.loss, depth=3).boxes) == 2 + 4
    with pytest.raises(ValueError, match="max_nodes must be at least 1, got 0"):
        draw(trace.loss, max_nodes=0)
    with pytest.raises(ValueError, match="depth must be at least 1, got -1"):
        draw(trace.loss, depth=-1)


def test_labels_never_become_markup(tmp_path: Path) -> None:
    x = Value(2.0, label=HOSTILE)
    y = x.exp()
    y.color = "red"
    drawing = draw(y, names={HOSTILE * 2: y})
    root = ElementTree.fromstring(drawing.svg())
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {"svg", "title", "style", "rect", "path", "text", "g"}
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]
    assert "<script>alert(1)" in "".join(root.itertext())
    assert "\x1b" not in drawing.svg()
    drawing.save(tmp_path / "x.dot")
    if shutil.which("dot"):
        out = subprocess.run(["dot", "-Tsvg", tmp_path / "x.dot"], capture_output=True, text=True, check=True, timeout=60)
        assert "{a|b}" in "".join(ElementTree.fromstring(out.stdout).itertext()).replace("\xa0", " ")


@pytest.mark.parametrize(
    ("end", "start"),
    [(".svg", b"<svg "), (".dot", b"digraph {"), (".txt", b"L = mul: data -8"), (".PNG", b"\x89PNG"), (".pdf", b"%PDF")],
)
def test_the_end_of_the_name_gives_the_format(end: str, start: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"graph{end}"
    draw(lecture_root(), theme="dark").save(path)
    assert path.read_bytes().startswith(start)


def test_other_ends_and_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = draw(lecture_root())
    with pytest.raises(ValueError, match=r"a drawing is saved as \.svg, \.png, \.pdf, \.dot, \.txt, got '.*graph\.gif'"):
        drawing.save(tmp_path / "graph.gif")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"saved as \.png with matplotlib .*: pip install matplotlib"):
        drawing.save(tmp_path / "graph.png")
    assert list(tmp_path.iterdir()) == []


def test_themes() -> None:
    root = lecture_root()
    auto, light, dark = (draw(root, theme=theme).svg() for theme in ("auto", "light", "dark"))
    assert "prefers-color-scheme:dark" in auto
    assert "prefers-color-scheme" not in light + dark
    assert light != dark
    with pytest.raises(ValueError, match="theme must be auto, light, dark, got 'blue'"):
        draw(root, theme="blue")


def test_a_notebook_shows_the_svg() -> None:
    drawing = microgpt.draw(lecture_root())
    assert drawing._repr_svg_() == drawing.svg()
    assert drawing.svg() == draw(lecture_root()).svg()


@pytest.mark.parametrize("given", [None, 1.0, Vector([1.0])], ids=str)
def test_only_a_value_is_drawn(given: Any) -> None:
    with pytest.raises(TypeError, match="a graph is that of a Value, got"):
        draw(given)


@pytest.mark.parametrize("end", [".svg", ".dot", ".txt", ".png"])
def test_half_a_character_is_shown_escaped(end: str, tmp_path: Path) -> None:
    draw(Value(2.0, label="half \ud800 of one").exp()).save(tmp_path / f"graph{end}")
    if end != ".png":
        assert "ud800 of one" in (tmp_path / f"graph{end}").read_text(encoding="utf-8").replace("\\ ", " ")


def test_a_graph_is_drawn_with_its_own_names() -> None:
    x = Value(3.0)
    g = graph(x.exp(), {"input": x})
    assert [box.lines[0] for box in draw(g).boxes] == ["data 20.0855", "input"]
    with pytest.raises(ValueError, match="a Graph has its names: give them to"):
        draw(g, names={"x": x})


def test_a_million_nodes_in_a_row_are_drawn_within_the_limits() -> None:
    code = """
import threading, microgpt
def show():
    x = microgpt.Value(1.0)
    for _ in range(10**6):
        x = x + 1e-6
    d = microgpt.draw(x)
    print(d.caption, len(d.svg()) < 10**6, len(d.dot()) < 10**5, len(d.text()) < 10**5)
threading.stack_size(256 * 1024)
thread = threading.Thread(target=show)
thread.start()
thread.join()
"""
    assert printed_by(code) == "150 of 1,000,001 nodes, in 150 boxes; what is below + is left out True True True\n"
