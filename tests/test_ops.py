"""The op table over both engines, and bit for bit between them."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from op_table import COMPOSITES, ROWS, Edge, Engine, Row

import microgpt
from microgpt import reference
from microgpt._ops import NAMES

TOLERANCE = 1e-14  # relative, of the formulas in the table; between the engines there is none

Refusal = Callable[[type[Exception], Callable[[], Any]], str]
ALL = ROWS + COMPOSITES
POINTS = [pytest.param(row, point, id=f"{row.id}-{point}") for row in ALL for point in row.points]
FUNCTIONS = {
    **dict.fromkeys(("exp", "sinh", "cosh", "expm1"), lambda rng: rng.uniform(-700, 700)),
    **dict.fromkeys(("log", "sqrt", "log2", "log10"), lambda rng: 10 ** rng.uniform(-320, 308)),
    **dict.fromkeys(("asin", "acos"), lambda rng: rng.choice([-1, 1]) * (1 - 10 ** rng.uniform(-15, 0))),
    **dict.fromkeys(("relu", "atan", "floor", "softplus"), lambda rng: rng.choice([-1, 1]) * 10 ** rng.uniform(-320, 308)),
    **dict.fromkeys(("tanh", "sigmoid", "silu", "sin", "cos", "lgamma"), lambda rng: rng.gauss(0, 1) * 10 ** rng.uniform(-2, 3)),
    **dict.fromkeys(("erf", "gelu"), lambda rng: rng.gauss(0, 4)),
    "log1p": lambda rng: 10 ** rng.uniform(-320, 308) - rng.random(),
}
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


def test_every_function_of_one_operand_is_drawn() -> None:
    names = {row.op for row in ROWS if len(row.points[0]) == 1 and "number" not in row.id}
    assert set(FUNCTIONS) == names & set(microgpt.__all__) - {"where"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_of_a_vector_equals_reference_to_the_bit(name: str) -> None:
    rng = random.Random(11)
    xs = [FUNCTIONS[name](rng) for _ in range(5000)]
    twins = [getattr(reference, name)(reference.Value(x)) for x in xs]
    v = microgpt.Vector(xs)
    result = getattr(microgpt, name)(v)
    result.sum().backward()
    assert [x.hex() for x in result.data] == [float(twin.data).hex() for twin in twins]
    assert [g.hex() for g in v.grad] == [(0.0 + twin.local_grads[0]).hex() for twin in twins]


@pytest.mark.parametrize("name", ["atan2", "hypot"])
def test_function_of_two_operands_equals_reference_to_the_bit(name: str) -> None:
    rng = random.Random(12)
    for _ in range(1000):
        x = rng.gauss(0, 1) * 10 ** rng.uniform(-300, 300)
        y = x * rng.choice([-1, 1]) * 10 ** rng.uniform(-3, 3)
        for form in (
            lambda e, a, b: getattr(e, name)(a, b),
            lambda e, a, b: getattr(e, name)(a, b.data),
            lambda e, a, b: getattr(e, name)(a.data, b),
            lambda e, a, b: getattr(a, name)(b),
            lambda e, a, b: getattr(a, name)(b.data),
        ):
            results = []
            for e in (microgpt, reference):
                a, b = e.Value(x), e.Value(y)
                root = form(e, a, b)
                root.backward()
                results.append([float(root.data).hex(), float(a.grad).hex(), float(b.grad).hex()])
            assert results[0] == results[1]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_of_a_value_a_list_rows_and_the_method_agree(name: str) -> None:
    xs = [0.25, 0.5, 0.75]
    function = getattr(microgpt, name)
    expected = [function(microgpt.Value(x)).data for x in xs]
    assert [getattr(microgpt.Value(x), name)().data for x in xs] == expected
    assert function([microgpt.Value(x) for x in xs]).data == expected
    assert function(microgpt.Rows([xs, xs])).data == [expected, expected]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_leaf_changed_after_its_use_never_gives_other_gradients(row: Row) -> None:
    for point in row.points:
        values = [microgpt.Value(x) for x in point]
        root = row.function(microgpt, values)
        for value in values:
            value.data = 0.5 * value.data + 0.0625
        with contextlib.suppress(RuntimeError):
            root.backward()
            assert [v.grad for v in values] == run(bare, row, microgpt, point)[1]


@pytest.mark.parametrize("kind", [float, microgpt.Value])
@pytest.mark.parametrize("condition", [True, False, 1, 0, -0.0, -0.5, math.nan])
def test_where_takes_one_and_leaves_the_other_without_gradient(condition: float, kind: Callable[[float], Any]) -> None:
    """A Value as condition counts by its data: as an object it is always true."""
    kinds: list[tuple[Callable[[float], Any], Callable[[float], Any]]]
    kinds = [(microgpt.Value, microgpt.Value), (microgpt.Value, float), (float, microgpt.Value)]
    for kind_of_x, kind_of_y in kinds:
        x, y = kind_of_x(2.0), kind_of_y(3.0)
        picked, left = (x, y) if condition else (y, x)
        result = microgpt.where(kind(condition), x, y)
        assert (result.op, result.data, result.local_grads) == ("where", 2.0 if condition else 3.0, (1.0,))
        (5 * result).backward()
        assert result.children[0].grad == 5.0
        if isinstance(picked, microgpt.Value):
            assert result.children == (picked,)
        if isinstance(left, microgpt.Value):
            assert left.grad == 0.0


def test_where_is_a_node_of_its_own_in_the_search() -> None:
    """Its place in the order of backward, and so the last bits of the gradients, is that of the reference."""
    rng = random.Random(13)
    results = []
    points = [rng.gauss(0, 1) for _ in range(40)]
    for e in (microgpt, reference):
        values = [e.Value(x) for x in points]
        total = e.Value(0.0)
        for x, y in itertools.pairwise(values):
            total = e.where(e.floor(x), x * y, 0.1) * total.tanh() + e.where(x.data > y.data, x, total) * y.atan2(x)
        total.backward()
        results.append([float(total.data).hex(), *(float(v.grad).hex() for v in values)])
    assert results[0] == results[1]


def test_where_of_vectors_chooses_element_by_element() -> None:
    v, w = microgpt.Vector([1.0, 2.0, 3.0]), microgpt.Vector([-1.0, -2.0, -3.0])
    for conditions in ([True, False, 1], microgpt.Vector([0.5, 0, -1]), np.array([2, 0, 2]) > 1, (x for x in [1, 0, 1])):
        result = microgpt.where(conditions, v, w)
        assert result.data == [1.0, -2.0, 3.0]
    (result @ [2.0, 3.0, 4.0]).backward()
    assert (v.grad, w.grad) == ([2.0, 0.0, 4.0], [0.0, 3.0, 0.0])
    assert [x.op for x in result] == ["where"] * 3
    assert microgpt.where([0, 1, 0], v, 7).data == [7.0, 2.0, 7.0]
    assert microgpt.where([0, 1], microgpt.Value(1.0), 2.0).data == [2.0, 1.0]
    assert microgpt.where(False, 7, list(v)).data == [1.0, 2.0, 3.0]
    assert microgpt.where(microgpt.Value(1.0), v, microgpt.Value(4.0)).data == [1.0, 2.0, 3.0]


def test_where_of_rows_chooses_element_by_element() -> None:
    rows = microgpt.Rows([[1.0, 2.0], [3.0, 4.0]])
    for conditions in ([[True, False], [0, 1]], microgpt.Rows([[1, 0], [0, 1]]), [microgpt.Vector([1, 0]), (0.0, 1.0)]):
        result = microgpt.where(conditions, rows, 0)
        assert isinstance(result, microgpt.Rows)
        assert result.data == [[1.0, 0.0], [0.0, 4.0]]
        assert microgpt.where(conditions, [[5, 6], [7, 8]], rows).data == [[5.0, 2.0], [3.0, 8.0]]
    assert microgpt.where(True, rows, rows).data == rows.data


@pytest.mark.parametrize(
    ("exception", "words", "call"),
    [
        (ValueError, "got 2 and 3", lambda: microgpt.where([1, 0], [1.0, 2.0, 3.0], microgpt.Value(1.0))),
        (ValueError, "got 0 and 3", lambda: microgpt.where([], [1.0, 2.0, 3.0], microgpt.Value(1.0))),
        (ValueError, "got 2 and 3", lambda: microgpt.where(1, [1.0, 2.0, 3.0], [1.0, 2.0])),
        (ValueError, "length 2, got 1", lambda: microgpt.where([[1]], microgpt.Rows([[1.0, 2.0]]), 1.0)),
        (ValueError, "length 2, got Value", lambda: microgpt.where(1, microgpt.Rows([[1.0, 2.0]]), [microgpt.Value(1.0)] * 2)),
        (ValueError, "got 2 and 4", lambda: microgpt.where([[1, 0]], microgpt.Rows([[1.0, 2.0], [3.0, 4.0]]), 1.0)),
        (TypeError, "got NoneType", lambda: microgpt.where(None, microgpt.Value(1.0), 2.0)),
        (TypeError, "got str", lambda: microgpt.where("a", microgpt.Value(1.0), 2.0)),
        (TypeError, "got str", lambda: microgpt.where(True, microgpt.Value(1.0), "a")),
        (TypeError, "got complex", lambda: microgpt.where(1j, microgpt.Value(1.0), 2.0)),
        (TypeError, "got float and int", lambda: microgpt.where(True, 1.0, 2)),
        (TypeError, "got float and int", lambda: microgpt.atan2(1.0, 2)),
        (TypeError, "got str", lambda: microgpt.hypot("a", microgpt.Value(1.0))),
        (TypeError, "minimum needs a number, got list", lambda: microgpt.minimum(microgpt.Value(1.0), [])),
        (TypeError, "got str", lambda: microgpt.Value(1.0).atan2("a")),
        (TypeError, "got NoneType", lambda: microgpt.Value(1.0).hypot(None)),
    ],
)
def test_operand_of_the_wrong_kind_is_named(
    exception: type[Exception], words: str, call: Callable[[], Any], refusal: Refusal
) -> None:
    assert words in refusal(exception, call)


@pytest.mark.parametrize("row", [row for row in ALL if row.id != "dot-strided"], ids=lambda row: row.id)
def test_local_grads_are_the_partials(engine: Engine, row: Row) -> None:
    """What a node reports, applied by hand, gives the gradients of backward()."""
    for point in row.points:
        values = [engine.Value(x) for x in point]
        root = row.function(engine, values)
        grads = {id(root): 1.0}
        below = [root]
        for node in below:  # breadth first; all but an attention are trees, so a parent is complete before its children
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
