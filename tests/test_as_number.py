"""A Value becomes a number where a number is asked for, and nowhere else: each other way is an op, or an error that says so."""

from __future__ import annotations

import array
import cmath
import decimal
import fractions
import json
import math
import random
import statistics
import struct
import time
from typing import Any

import numpy as np
import pytest
from op_table import Engine

import microgpt
from microgpt import Adam, Matrix, Value, Vector

NAMES = {
    "array": array, "cmath": cmath, "decimal": decimal, "fractions": fractions, "json": json, "math": math, "random": random,
    "statistics": statistics, "struct": struct, "time": time, "np": np, "Vector": Vector, "Matrix": Matrix, "Value": Value,
    "Adam": Adam, "microgpt": microgpt,
}  # fmt: skip

REFUSED = [
    "float(x)", "complex(x)", "math.exp(x)", "math.sqrt(x)", "math.floor(x)", "math.pow(x, 2)", "math.fsum([x])", "math.isnan(x)",
    "math.isclose(x, 2.0)", "math.hypot(x, 1.0)", "cmath.exp(x)", "'%.2f' % x", "array.array('d', [x])",
    "statistics.fmean([x, x])", "random.choices([1, 2], weights=[x, x])", "np.float64(x)", "np.float32(x)",
    "np.array([x], dtype=float)",
    "np.asarray([x]).astype(float)", "np.full(2, x, dtype=float)", "np.zeros(2).__setitem__(0, x)", "np.random.normal(x)",
    "np.interp(x, [0.0, 1.0], [0.0, 1.0])", "Adam([x]).step(x)", "Adam([x], x)", "Adam([x], betas=(x, 0.9))",
    "Adam([x], eps=x)", "Adam([x], weight_decay=x)", "Adam([x]).clip_grad_norm(x)",
]  # fmt: skip
OTHERWISE_REFUSED = [
    "statistics.mean([x, x])", "decimal.Decimal(x)", "fractions.Fraction(x)", "json.dumps(x)", "struct.pack('d', x)",
    "time.sleep(x)",
    "range(x)", "[1, 2, 3][x]", "[0] * x", "'a' * x", "bytes(x)", "Value(x)", "setattr(x, 'data', x)", "setattr(x, 'grad', x)",
    "Matrix([[x]])", "setattr(Vector([1.0]), 'data', [x])", "Vector([1.0])[x]", "microgpt.cross_entropy([x, x], x)",
    "Value(1.0, (x,), (x,))", "np.isfinite(x)", "np.asarray(Vector([x]))", "np.array(Matrix([[1.0]]))", "x < 'a'", "x >= None",
]  # fmt: skip
OPS = {
    "sum([x, 1.0])": 1.0, "sum([0.5, x, x])": 2.0, "statistics.median([x, 1.0, x * 2])": 1.0, "np.mean([x, x])": 1.0,
    "np.dot([1.0, 2.0], [x, x])": 3.0, "np.add(1.0, x)": 1.0, "np.exp(x) / x.data": math.exp(2.0) / 2, "np.sum([x, x, 1.0])": 2.0,
    "np.float64(3.0) * x": 3.0, "np.linalg.norm([x, x])": math.sqrt(2), "np.array([x, 5.0]).prod()": 5.0, "max(x, 1.0) * 2": 2.0,
    "random.gauss(x, 0.0)": 1.0, "pow(x, 2)": 4.0, "math.prod([x, 3.0])": 3.0, "np.median(np.array([x, x * 3]))": 2.0,
}  # fmt: skip
NUMBERS = {
    "int(x)": 2, "round(x)": 2, "round(x * 1.2345, 2)": 2.47, "f'{x:.2f}'": "2.00", "format(x, '>6.1f')": "   2.0",
    "'%d' % x": "2",
    "x < 3": True, "3 < x": False, "x <= np.float64(2)": True, "x > True": True, "np.float64(3) > x": True, "x < x * 2": True,
    "abs(x - 2) < 1e-6": True, "sorted([3.0, x])[0].data": 2.0, "x == 2.0": False, "x == x": True, "x != 2.0": True,
    "min([x, 5]).data": 2.0, "x > math.nan": False, "x > fractions.Fraction(3, 2)": True, "int(Value(-2.7))": -2,
}  # fmt: skip


@pytest.mark.parametrize("expression", REFUSED)
def test_conversion_that_would_lose_the_gradient_names_the_two_ways(expression: str) -> None:
    with pytest.raises(
        TypeError, match=r"take value\.data for the number, or microgpt's functions, such as microgpt\.exp\(value\)"
    ):
        eval(expression, {**NAMES, "x": Value(2.0)})


@pytest.mark.parametrize("expression", OTHERWISE_REFUSED)
def test_value_is_refused_where_a_number_is_needed(expression: str) -> None:
    with pytest.raises((TypeError, struct.error)):
        eval(expression, {**NAMES, "x": Value(2.0)})


@pytest.mark.parametrize("expression", OPS)
def test_gradient_goes_through_what_is_made_of_ops(expression: str) -> None:
    x = Value(2.0)
    y = eval(expression, {**NAMES, "x": x})
    assert isinstance(y, Value)
    y.backward()
    assert x.grad == pytest.approx(OPS[expression])


@pytest.mark.parametrize("expression", NUMBERS)
def test_number_is_what_was_asked_for(engine: Engine, expression: str) -> None:
    result = eval(expression, {**NAMES, "Value": engine.Value, "x": engine.Value(2.0)})
    assert result == NUMBERS[expression]
    assert isinstance(result, (type(NUMBERS[expression]), np.bool_))


def test_twin_refuses_float_as_the_engine_does() -> None:
    with pytest.raises(TypeError, match=r"take value\.data for the number"):
        math.exp(microgpt.reference.Value(2.0))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda x: microgpt.relu(3), "relu needs a Value, a Vector, a list of Values or Rows, got int"),
        (lambda x: microgpt.exp("a"), "exp needs a Value, a Vector, a list of Values or Rows, got str"),
        (lambda x: Value(x), "Value needs a number, got Value: take its data"),
        (lambda x: Value(1.0, x), r"children must be Values in a tuple or list, got a Value alone: write \(x,\)"),
        (lambda x: x / Value(0.0), "division by a Value whose data is 0.0"),
        (lambda x: 1 / Value(-0.0), "division by a Value whose data is -0.0"),
        (lambda x: Vector([x]) / Vector([0.0]), "division by a Value whose data is 0.0"),
        (lambda x: 1 / Vector([x, 0.0]), "division by a Value whose data is 0.0"),
        (lambda x: Vector([x]) / Value(0.0), "division by a Value whose data is 0.0"),
        (lambda x: Value(0.0) ** -1, "pow needs data other than 0 for an exponent below 1"),
    ],
)
def test_errors_speak_of_what_was_written(action: Any, message: str) -> None:
    with pytest.raises((TypeError, ZeroDivisionError), match=message):
        action(Value(2.0))


@pytest.mark.parametrize(
    ("divisors", "error"),
    [([5e-165, 0.0], OverflowError), ([0.0, 5e-165], ZeroDivisionError), ([1.0, 0.0], ZeroDivisionError)],
)
def test_error_of_a_quotient_of_vectors_is_that_of_its_first_element(divisors: list[float], error: type[Exception]) -> None:
    with pytest.raises(error):
        [1.0 / microgpt.reference.Value(divisor) for divisor in divisors]
    for quotient in (lambda: Vector([1.0, 1.0]) / Vector(divisors), lambda: 1.0 / Vector(divisors)):
        with pytest.raises(error):
            quotient()
