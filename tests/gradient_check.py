"""A gradient checker: backward() against central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

STEP = 1e-5  # relative to the operand
TOLERANCE = 1e-6  # absolute plus relative; the differences themselves are good to about 1e-9 for smooth functions near 1


def check_gradient(function: Callable[[Sequence[Any]], Any], value_type: type, point: Sequence[float]) -> None:
    """Raise AssertionError unless every gradient of `function` at `point` agrees with its central difference."""
    leaves = [value_type(x) for x in point]
    function(leaves).backward()
    for i, leaf in enumerate(leaves):

        def shifted(step: float, i: int = i) -> float:
            return float(function([value_type(x + step * (j == i)) for j, x in enumerate(point)]).data)

        step = STEP * (abs(point[i]) or 1.0)
        difference = (shifted(step) - shifted(-step)) / (2 * step)
        assert abs(leaf.grad - difference) <= TOLERANCE * (1 + abs(difference)), (
            f"operand {i} at {point}: backward {leaf.grad}, difference {difference}"
        )
