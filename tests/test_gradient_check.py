"""Every op against central differences; and the checker itself, which must reject a slightly wrong derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from gradient_check import check_gradient
from op_table import COMPOSITES, ROWS, Engine, Row


@pytest.mark.parametrize("row", [row for row in ROWS + COMPOSITES if row.id != "custom"], ids=lambda row: row.id)
def test_backward_agrees_with_differences(engine: Engine, row: Row) -> None:
    for point in row.points:
        check_gradient(lambda values: row.function(engine, values), engine.Value, point)


@pytest.mark.parametrize("factor", [1.001, 0.999])
def test_checker_rejects_a_wrong_derivative(engine: Engine, factor: float) -> None:
    def cube(values: Sequence[Any]) -> Any:
        x = values[0]
        return engine.Value(x.data**3, (x,), (factor * 3 * x.data**2,))

    with pytest.raises(AssertionError, match="operand 0"):
        check_gradient(cube, engine.Value, [1.3])


@pytest.mark.parametrize("row", [row for row in ROWS if row.op != "floor"], ids=lambda row: row.id)
def test_checker_rejects_each_op_with_a_wrong_derivative(engine: Engine, row: Row) -> None:
    """The points of the table would show it: at one of them at least the derivative is not too small to tell."""

    def slightly_wrong(values: Sequence[Any]) -> Any:
        return engine.Value(row.function(engine, values).data, values, partials)

    rejected = 0
    for point in row.points:
        partials = [1.001 * partial for partial in row.partials(*point)]
        try:
            check_gradient(slightly_wrong, engine.Value, point)
        except AssertionError:
            rejected += 1
    assert rejected > 0


def test_checker_accepts_the_right_derivative(engine: Engine) -> None:
    check_gradient(lambda v: engine.Value(v[0].data ** 3, (v[0],), (3 * v[0].data ** 2,)), engine.Value, [1.3])


def test_composites_agree_with_differences(engine: Engine) -> None:
    point = [0.3, -0.8, 1.1, 0.05, 0.7, -0.2, 0.9, -1.3]
    check_gradient(lambda v: engine.softmax(v)[2], engine.Value, point)
    check_gradient(lambda v: engine.rmsnorm(v)[2], engine.Value, point)
    check_gradient(lambda v: engine.cross_entropy(v, 3), engine.Value, point)
    check_gradient(lambda v: engine.attention(v[:4], [v[2:6], v[4:]], [v[1:5], v[3:7]], 2)[1], engine.Value, point)
