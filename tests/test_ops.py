"""The op table over both engines, and bit for bit between them."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from op_table import COMPOSITES, ROWS, Edge, Engine, Row

import microgpt
from microgpt import reference
from microgpt._ops import NAMES

TOLERANCE = 1e-14  # relative, of the formulas in the table; between the engines there is none

Refusal = Callable[[type[Exception], Callable[[], Any]], str]
ALL = ROWS + COMPOSITES
POINTS = [pytest.param(row, point, id=f"{row.id}-{point}") for row in ALL for point in row.points]
EDGES = [pytest.param(row, edge, id=f"{row.id}-{edge[0]}") for row in ALL for edge in row.edges]


def bare(row: Row, engine: Engine, values: list[Any]) -> Any:
    return row.function(engine, values)


def nested(row: Row, engine: Engine, values: list[Any]) -> Any:
    return 2.3 * row.function(engine, values) + values[0]


def run(form: Callable[..., Any], row: Row, engine: Engine, point: tuple[float, ...]) -> tuple[float, list[float]]:
    values = [engine.Value(x) for x in point]
    root = form(row, engine, values)
    root.backward()
    return float(root.data), [float(v.grad) for v in values]


def equal(x: float, y: float) -> bool:
    return x == y or (math.isnan(x) and math.isnan(y))


def test_every_op_has_one_row() -> None:
    assert Counter(row.op for row in ROWS) == Counter(NAMES[1:])
    made = Counter()
    for row in ROWS:
        root = row.function(microgpt, [microgpt.Value(x) for x in row.points[0]])
        assert root.op == row.op
        made[root.op] += 1
    assert made == Counter(NAMES[1:])


@pytest.mark.parametrize(("row", "point"), POINTS)
def test_value_and_partials_equal_the_formulas(engine: Engine, row: Row, point: tuple[float, ...]) -> None:
    value, grads = run(bare, row, engine, point)
    assert value == pytest.approx(row.value(*point), rel=TOLERANCE)
    assert grads == pytest.approx(list(row.partials(*point)), rel=TOLERANCE)
    value, grads = run(nested, row, engine, point)
    expected = [2.3 * partial for partial in row.partials(*point)]
    expected[0] += 1
    assert value == pytest.approx(2.3 * row.value(*point) + point[0], rel=TOLERANCE)
    assert grads == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("form", [bare, nested])
@pytest.mark.parametrize(("row", "point"), POINTS)
def test_engine_equals_reference_to_the_bit(row: Row, point: tuple[float, ...], form: Callable[..., Any]) -> None:
    value, grads = run(form, row, microgpt, point)
    twin_value, twin_grads = run(form, row, reference, point)
    assert value.hex() == twin_value.hex()
    assert [g.hex() for g in grads] == [g.hex() for g in twin_grads]


@pytest.mark.parametrize(("row", "edge"), EDGES)
def test_edges(engine: Engine, row: Row, edge: Edge, refusal: Refusal) -> None:
    point, expected = edge
    if isinstance(expected, type):
        assert refusal(expected, lambda: run(bare, row, engine, point)), "a sentence says what was given"
        return
    value, grads = run(bare, row, engine, point)
    assert equal(value, pytest.approx(expected[0], rel=TOLERANCE) if math.isfinite(expected[0]) else expected[0])
    for grad, partial in zip(grads, expected[1], strict=True):
        assert equal(grad, pytest.approx(partial, rel=1e-11) if math.isfinite(partial) else partial)


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.id)
def test_local_grads_are_the_partials(engine: Engine, row: Row) -> None:
    """What a node reports, applied by hand, gives the gradients of backward()."""
    for point in row.points:
        values = [engine.Value(x) for x in point]
        root = row.function(engine, values)
        grads = {id(root): 1.0}
        below = [root]
        for node in below:  # breadth first; every row is a tree, so a parent is complete before its children
            for child, local_grad in zip(node.children, node.local_grads, strict=True):
                grads[id(child)] = grads.get(id(child), 0.0) + local_grad * grads[id(node)]
                below.append(child)
        root.backward()
        assert [grads[id(v)] for v in values] == [v.grad for v in values]


def operators(x: Any, other: Any) -> list[Callable[[], Any]]:
    return [
        lambda: x + other,
        lambda: other + x,
        lambda: x - other,
        lambda: other - x,
        lambda: x * other,
        lambda: other * x,
        lambda: x / other,
        lambda: other / x,
        lambda: x**other,
        lambda: other**x,
    ]


@pytest.mark.parametrize("other", ["a", None, [1.0], {}, 1j, b"1"], ids=repr)
def test_foreign_operand_is_a_type_error_that_names_it(other: Any, refusal: Refusal) -> None:
    for operator in operators(microgpt.Value(2.0), other):
        assert "Value" in refusal(TypeError, operator)


def test_square_equals_pow() -> None:
    """x * x stands in for pow except near a tie of rounding; test_adam_equals_reference_on_wild_gradients tries sqrt."""
    rng = random.Random(7)
    xs = [rng.gauss(0, 1) * 10 ** rng.uniform(-40, 40) for _ in range(200_000)]
    differ = [x for x in xs if x * x != x**2]
    assert differ, "these arguments never needed pow: the test proves nothing"
    squares = (microgpt.Vector(xs) ** 2).data
    assert squares == [x**2 for x in xs]
