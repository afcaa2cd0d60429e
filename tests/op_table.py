"""One row per op of the tape: how to write it, points, partials as formulas, edges. A new op is one row here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

INF, NAN = math.inf, math.nan

Engine = Any  # microgpt or microgpt.reference
Edge = tuple[tuple[float, ...], Any]  # operands; then (value, partials) or the exception


@dataclass
class Row:
    op: str  # name in microgpt._ops.NAMES
    id: str
    function: Callable[[Engine, Sequence[Any]], Any]
    points: Sequence[tuple[float, ...]]
    value: Callable[..., float]
    partials: Callable[..., Sequence[float]]
    edges: Sequence[Edge] = field(default_factory=list)


UNARY = [(-2.5,), (-0.3,), (0.4,), (1.0,), (3.7,)]
POSITIVE = [(1e-3,), (0.4,), (1.0,), (2.0,), (37.5,)]
INSIDE = [(-0.99,), (-0.3,), (1e-3,), (0.5,), (0.875,)]  # of (-1, 1)
PAIRS = [(1.5, 2.5), (0.3, -0.7), (4.0, 0.25)]  # the first above 0: it may be the base of a power
LISTS = [(0.5,), (1.0, 2.0, 3.0), (0.1, -0.2, 0.3, -0.4, 0.5, 0.6, -0.7, 0.8, 0.9, -1.0)]


def vector(engine: Engine, values: Sequence[Any]) -> Any:
    """A Vector of the engine; on the twin, which has none, the list."""
    return engine.Vector(values) if hasattr(engine, "Vector") else list(values)


def add_up(engine: Engine, values: Sequence[Any]) -> Any:
    return engine.Vector(values).sum() if hasattr(engine, "Vector") else engine.total(values)


def dot(engine: Engine, w: Sequence[Any], x: Sequence[Any]) -> Any:
    return engine.Vector(w) @ engine.Vector(x) if hasattr(engine, "Vector") else engine.dot(w, x)


def mean_of_columns(engine: Engine, values: Sequence[Any]) -> Any:
    """Of pairs of values, by an attention that weights all alike."""
    nothing = [engine.Value(0.0), engine.Value(0.0)]
    pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
    return engine.attention(nothing, [nothing] * len(pairs), pairs, 1)


def halves(values: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    return values[: len(values) // 2], values[len(values) // 2 :]


def digamma(x: float) -> float:
    """Gauss's closed forms for quarters, moved to `x` by the recurrence. From Euler's constant on, not by a series."""
    fraction = x - math.floor(x) or 1.0
    terms = {
        0.25: [-math.pi / 2, -3 * math.log(2)],
        0.5: [-2 * math.log(2)],
        0.75: [math.pi / 2, -3 * math.log(2)],
        1.0: [],
    }[fraction]
    steps = round(x - fraction)
    up = [1 / (fraction + k) for k in range(steps)]
    down = [-1 / (fraction - k) for k in range(1, 1 - steps)]
    return math.fsum([-0.5772156649015329, *terms, *up, *down])


def normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def custom(engine: Engine, values: Sequence[Any]) -> Any:
    """x * y + z, as a node of one's own."""
    x, y, z = values
    return engine.Value(x.data * y.data + z.data, (x, y, z), (y.data, x.data, 1.0))


def dot_partials(*values: float) -> list[float]:
    w, x = halves(values)
    return [*x, *w]


ROWS = [
    Row(
        "exp",
        "exp",
        lambda e, v: e.exp(v[0]),
        UNARY,
        math.exp,
        lambda x: [math.exp(x)],
        [
            ((710.0,), OverflowError),
            ((-746.0,), (0.0, [0.0])),
            ((INF,), (INF, [INF])),
            ((-INF,), (0.0, [0.0])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "log",
        "log",
        lambda e, v: e.log(v[0]),
        POSITIVE,
        math.log,
        lambda x: [1 / x],
        [((0.0,), ValueError), ((-1.0,), ValueError), ((-INF,), ValueError), ((INF,), (INF, [0.0])), ((NAN,), (NAN, [NAN]))],
    ),
    Row(
        "relu",
        "relu",
        lambda e, v: e.relu(v[0]),
        UNARY,
        lambda x: max(0.0, x),
        lambda x: [float(x > 0)],
        [
            ((0.0,), (0.0, [0.0])),
            ((-1.0,), (0.0, [0.0])),
            ((NAN,), (0.0, [0.0])),
            ((INF,), (INF, [1.0])),
            ((-INF,), (0.0, [0.0])),
        ],
    ),
    Row(
        "tanh",
        "tanh",
        lambda e, v: e.tanh(v[0]),
        UNARY,
        math.tanh,
        lambda x: [1 / math.cosh(x) ** 2],
        [((1000.0,), (1.0, [0.0])), ((-1000.0,), (-1.0, [0.0])), ((INF,), (1.0, [0.0])), ((NAN,), (NAN, [NAN]))],
    ),
    Row(
        "sigmoid",
        "sigmoid",
        lambda e, v: e.sigmoid(v[0]),
        UNARY,
        lambda x: 1 / (1 + math.exp(-x)),
        lambda x: [math.exp(-x) / (1 + math.exp(-x)) ** 2],
        [
            ((1000.0,), (1.0, [0.0])),
            ((-1000.0,), (0.0, [0.0])),
            ((40.0,), (1.0, [math.exp(-40)])),
            ((INF,), (1.0, [0.0])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "sqrt",
        "sqrt",
        lambda e, v: e.sqrt(v[0]),
        POSITIVE,
        math.sqrt,
        lambda x: [0.5 / math.sqrt(x)],
        [((0.0,), ValueError), ((-1.0,), ValueError), ((INF,), (INF, [0.0])), ((NAN,), (NAN, [NAN]))],
    ),
    Row(
        "sin",
        "sin",
        lambda e, v: e.sin(v[0]),
        UNARY,
        math.sin,
        lambda x: [math.cos(x)],
        [((INF,), ValueError), ((-INF,), ValueError), ((NAN,), (NAN, [NAN]))],
    ),
    Row(
        "cos",
        "cos",
        lambda e, v: e.cos(v[0]),
        UNARY,
        math.cos,
        lambda x: [-math.sin(x)],
        [((INF,), ValueError), ((-INF,), ValueError), ((NAN,), (NAN, [NAN]))],
    ),
    Row(
        "abs",
        "abs",
        lambda e, v: abs(v[0]),
        UNARY,
        abs,
        lambda x: [math.copysign(1, x)],
        [((0.0,), (0.0, [0.0])), ((-0.0,), (0.0, [0.0])), ((-INF,), (INF, [-1.0])), ((NAN,), (NAN, [0.0]))],
    ),
    Row(
        "atan",
        "atan",
        lambda e, v: e.atan(v[0]),
        [*UNARY, (1e6,)],
        math.atan,
        lambda x: [1 / (1 + x**2)],
        [
            ((INF,), (math.pi / 2, [0.0])),
            ((-INF,), (-math.pi / 2, [0.0])),
            ((1e200,), (math.pi / 2, [0.0])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "asin",
        "asin",
        lambda e, v: e.asin(v[0]),
        INSIDE,
        math.asin,
        lambda x: [1 / math.sqrt((1 - x) * (1 + x))],
        [
            ((1.0,), ValueError),
            ((-1.0,), ValueError),
            ((1.5,), ValueError),
            ((-INF,), ValueError),
            ((1 - 2**-53,), (math.asin(1 - 2**-53), [2**26])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "acos",
        "acos",
        lambda e, v: e.acos(v[0]),
        INSIDE,
        math.acos,
        lambda x: [-1 / math.sqrt((1 - x) * (1 + x))],
        [
            ((1.0,), ValueError),
            ((-1.0,), ValueError),
            ((-1.5,), ValueError),
            ((INF,), ValueError),
            ((2**-53 - 1,), (math.acos(2**-53 - 1), [-(2**26)])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "sinh",
        "sinh",
        lambda e, v: e.sinh(v[0]),
        UNARY,
        math.sinh,
        lambda x: [math.cosh(x)],
        [
            ((711.0,), OverflowError),
            ((-711.0,), OverflowError),
            ((INF,), (INF, [INF])),
            ((-INF,), (-INF, [INF])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "cosh",
        "cosh",
        lambda e, v: e.cosh(v[0]),
        UNARY,
        math.cosh,
        lambda x: [math.sinh(x)],
        [
            ((711.0,), OverflowError),
            ((-711.0,), OverflowError),
            ((INF,), (INF, [INF])),
            ((-INF,), (INF, [-INF])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "log1p",
        "log1p",
        lambda e, v: e.log1p(v[0]),
        [*INSIDE, (1e-10,), (37.5,)],
        math.log1p,
        lambda x: [1 / (1 + x)],
        [
            ((-1.0,), ValueError),
            ((-1.5,), ValueError),
            ((-INF,), ValueError),
            ((1e-20,), (1e-20, [1.0])),
            ((INF,), (INF, [0.0])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "expm1",
        "expm1",
        lambda e, v: e.expm1(v[0]),
        [*UNARY, (1e-10,)],
        math.expm1,
        lambda x: [math.exp(x)],
        [
            ((710.0,), OverflowError),
            ((1e-20,), (1e-20, [1.0])),
            ((-40.0,), (-1.0, [math.exp(-40)])),
            ((INF,), (INF, [INF])),
            ((-INF,), (-1.0, [0.0])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "log2",
        "log2",
        lambda e, v: e.log2(v[0]),
        POSITIVE,
        math.log2,
        lambda x: [1 / (x * math.log(2))],
        [((0.0,), ValueError), ((-1.0,), ValueError), ((-INF,), ValueError), ((INF,), (INF, [0.0])), ((NAN,), (NAN, [NAN]))],
    ),
    Row(
        "log10",
        "log10",
        lambda e, v: e.log10(v[0]),
        POSITIVE,
        math.log10,
        lambda x: [1 / (x * math.log(10))],
        [((0.0,), ValueError), ((-1.0,), ValueError), ((-INF,), ValueError), ((INF,), (INF, [0.0])), ((NAN,), (NAN, [NAN]))],
    ),
    Row(
        "erf",
        "erf",
        lambda e, v: e.erf(v[0]),
        UNARY,
        math.erf,
        lambda x: [2 / math.sqrt(math.pi) * math.exp(-(x**2))],
        [((1000.0,), (1.0, [0.0])), ((-INF,), (-1.0, [0.0])), ((1e200,), (1.0, [0.0])), ((NAN,), (NAN, [NAN]))],
    ),
    Row(
        "lgamma",
        "lgamma",
        lambda e, v: e.lgamma(v[0]),
        [(0.25,), (0.5,), (1.0,), (3.75,), (37.5,), (1234.25,), (-0.25,), (-2.5,), (-7.75,)],
        math.lgamma,
        lambda x: [digamma(x)],
        [
            ((0.0,), ValueError),
            ((-0.0,), ValueError),
            ((-1.0,), ValueError),
            ((-3.0,), ValueError),
            ((-1e300,), ValueError),
            ((-INF,), ValueError),
            ((1e306,), OverflowError),
            ((1e-300,), (math.lgamma(1e-300), [-1e300])),
            ((-1e-300,), (math.lgamma(-1e-300), [1e300])),
            ((1e300,), (math.lgamma(1e300), [math.log(1e300)])),
            ((INF,), (INF, [INF])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "gelu",
        "gelu",
        lambda e, v: e.gelu(v[0]),
        [*UNARY, (-9.0,)],
        lambda x: x * normal(x),
        lambda x: [normal(x) + x * math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)],
        [
            ((0.0,), (0.0, [0.5])),
            ((1000.0,), (1000.0, [1.0])),
            ((-1000.0,), (0.0, [0.0])),
            ((1e200,), (1e200, [1.0])),
            ((INF,), (INF, [1.0])),
            ((-INF,), (0.0, [0.0])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "silu",
        "silu",
        lambda e, v: e.silu(v[0]),
        [*UNARY, (-40.0,)],
        lambda x: x * logistic(x),
        lambda x: [logistic(x) * (1 + x * logistic(-x))],
        [
            ((0.0,), (0.0, [0.5])),
            ((1000.0,), (1000.0, [1.0])),
            ((-1000.0,), (0.0, [0.0])),
            ((-700.0,), (-700 * math.exp(-700), [-699 * math.exp(-700)])),
            ((INF,), (INF, [1.0])),
            ((-INF,), (0.0, [0.0])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "softplus",
        "softplus",
        lambda e, v: e.softplus(v[0]),
        UNARY,
        lambda x: math.log(1 + math.exp(x)),
        lambda x: [logistic(x)],
        [
            ((1000.0,), (1000.0, [1.0])),
            ((-1000.0,), (0.0, [0.0])),
            ((-40.0,), (math.exp(-40), [math.exp(-40)])),
            ((INF,), (INF, [1.0])),
            ((-INF,), (0.0, [0.0])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "floor",
        "floor",
        lambda e, v: e.floor(v[0]),
        [(-2.5,), (-0.3,), (0.4,), (3.7,)],
        math.floor,
        lambda x: [0.0],
        [
            ((2.0,), (2.0, [0.0])),
            ((-1e-20,), (-1.0, [0.0])),
            ((1e15 + 0.5,), (1e15, [0.0])),
            ((INF,), (INF, [0.0])),
            ((-INF,), (-INF, [0.0])),
            ((NAN,), (NAN, [0.0])),
        ],
    ),
    Row(
        "where",
        "where",
        lambda e, v: e.where(v[0], v[0], 2.5),
        UNARY,
        lambda x: x,
        lambda x: [1.0],
        [((0.0,), (2.5, [0.0])), ((-0.0,), (2.5, [0.0])), ((INF,), (INF, [1.0])), ((NAN,), (NAN, [1.0]))],
    ),
    Row(
        "add",
        "add-number",
        lambda e, v: v[0] + 2.5,
        UNARY,
        lambda x: x + 2.5,
        lambda x: [1.0],
        [((INF,), (INF, [1.0])), ((NAN,), (NAN, [1.0]))],
    ),
    Row(
        "mul",
        "mul-number",
        lambda e, v: v[0] * -2.5,
        UNARY,
        lambda x: x * -2.5,
        lambda x: [-2.5],
        [((INF,), (-INF, [-2.5])), ((NAN,), (NAN, [-2.5])), ((1e308,), (-INF, [-2.5]))],
    ),
    Row(
        "pow",
        "pow-number",
        lambda e, v: v[0] ** 3,
        UNARY,
        lambda x: x**3,
        lambda x: [3 * x**2],
        [
            ((-2.0,), (-8.0, [12.0])),
            ((0.0,), (0.0, [0.0])),
            ((1e150,), OverflowError),
            ((INF,), (INF, [INF])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "pow",
        "number-pow",
        lambda e, v: 2.5 ** v[0],
        UNARY,
        lambda x: 2.5**x,
        lambda x: [2.5**x * math.log(2.5)],
        [((2000.0,), OverflowError), ((-2000.0,), (0.0, [0.0])), ((NAN,), (NAN, [NAN]))],
    ),
    Row(
        "minimum",
        "minimum-number",
        lambda e, v: e.minimum(v[0], 0.5),
        UNARY,
        lambda x: min(x, 0.5),
        lambda x: [float(x < 0.5)],
        [((0.5,), (0.5, [0.5])), ((NAN,), (0.5, [0.0])), ((-INF,), (-INF, [1.0])), ((INF,), (0.5, [0.0]))],
    ),
    Row(
        "maximum",
        "maximum-number",
        lambda e, v: e.maximum(0.5, v[0]),
        UNARY,
        lambda x: max(x, 0.5),
        lambda x: [float(x > 0.5)],
        [((0.5,), (0.5, [0.5])), ((NAN,), (0.5, [0.0])), ((INF,), (INF, [1.0]))],
    ),
    Row(
        "atan2",
        "atan2-number",
        lambda e, v: e.atan2(v[0], -2.5),
        UNARY,
        lambda y: math.atan2(y, -2.5),
        lambda y: [-2.5 / (y**2 + 6.25)],
        [
            ((0.0,), (math.pi, [-0.4])),
            ((-0.0,), (-math.pi, [-0.4])),
            ((INF,), (math.pi / 2, [0.0])),
            ((1e200,), (math.pi / 2, [0.0])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "atan2",
        "number-atan2",
        lambda e, v: e.atan2(2.5, v[0]),
        UNARY,
        lambda x: math.atan2(2.5, x),
        lambda x: [-2.5 / (x**2 + 6.25)],
        [((0.0,), (math.pi / 2, [-0.4])), ((-INF,), (math.pi, [0.0])), ((NAN,), (NAN, [NAN]))],
    ),
    Row(
        "hypot",
        "hypot-number",
        lambda e, v: e.hypot(2.5, v[0]),
        UNARY,
        lambda x: math.sqrt(x**2 + 6.25),
        lambda x: [x / math.sqrt(x**2 + 6.25)],
        [
            ((0.0,), (2.5, [0.0])),
            ((-1e200,), (1e200, [-1.0])),
            ((-INF,), (INF, [-1.0])),
            ((NAN,), (NAN, [NAN])),
        ],
    ),
    Row(
        "add",
        "add",
        lambda e, v: v[0] + v[1],
        PAIRS,
        lambda x, y: x + y,
        lambda x, y: [1.0, 1.0],
        [((INF, -INF), (NAN, [1.0, 1.0])), ((1e308, 1e308), (INF, [1.0, 1.0]))],
    ),
    Row(
        "mul",
        "mul",
        lambda e, v: v[0] * v[1],
        PAIRS,
        lambda x, y: x * y,
        lambda x, y: [y, x],
        [((INF, 0.0), (NAN, [0.0, INF])), ((1e200, 1e200), (INF, [1e200, 1e200]))],
    ),
    Row(
        "pow",
        "pow",
        lambda e, v: v[0] ** v[1],
        PAIRS,
        lambda x, y: x**y,
        lambda x, y: [y * x ** (y - 1), x**y * math.log(x)],
        [
            ((0.0, 2.0), (0.0, [0.0, 0.0])),
            ((0.0, 1.0), (0.0, [1.0, 0.0])),
            ((0.0, 0.5), ZeroDivisionError),
            ((0.0, -1.0), ZeroDivisionError),
            ((-2.0, 3.0), ValueError),
            ((2.0, 2000.0), OverflowError),
        ],
    ),
    Row(
        "minimum",
        "minimum",
        lambda e, v: e.minimum(v[0], v[1]),
        PAIRS,
        min,
        lambda x, y: [float(x < y), float(y < x)],
        [
            ((2.0, 2.0), (2.0, [0.5, 0.5])),
            ((NAN, 1.0), (1.0, [0.0, 1.0])),
            ((1.0, NAN), (1.0, [1.0, 0.0])),
            ((NAN, NAN), (NAN, [0.5, 0.5])),
            ((0.0, -0.0), (0.0, [0.5, 0.5])),
        ],
    ),
    Row(
        "maximum",
        "maximum",
        lambda e, v: e.maximum(v[0], v[1]),
        PAIRS,
        max,
        lambda x, y: [float(x > y), float(y > x)],
        [((2.0, 2.0), (2.0, [0.5, 0.5])), ((NAN, 1.0), (1.0, [0.0, 1.0])), ((1.0, NAN), (1.0, [1.0, 0.0]))],
    ),
    Row(
        "atan2",
        "atan2",
        lambda e, v: e.atan2(v[0], v[1]),
        [*PAIRS, (-1.5, -2.0), (3.0, 3.0)],
        math.atan2,
        lambda y, x: [x / (x**2 + y**2), -y / (x**2 + y**2)],
        [
            ((0.0, 0.0), ValueError),
            ((-0.0, -0.0), ValueError),
            ((0.0, 2.0), (0.0, [0.5, 0.0])),
            ((2.0, 0.0), (math.pi / 2, [0.0, -0.5])),
            ((-0.0, -2.0), (-math.pi, [-0.5, 0.0])),
            ((1e200, 1e200), (math.pi / 4, [5e-201, -5e-201])),
            ((3e-200, 4e-200), (math.atan2(3, 4), [1.6e199, -1.2e199])),
            ((INF, 1.0), (math.pi / 2, [0.0, 0.0])),
            ((1.0, -INF), (math.pi, [0.0, 0.0])),
            ((INF, INF), (math.pi / 4, [0.0, 0.0])),
            ((NAN, 0.0), (NAN, [NAN, NAN])),
            ((0.0, NAN), (NAN, [NAN, NAN])),
            ((NAN, INF), (NAN, [NAN, NAN])),
        ],
    ),
    Row(
        "hypot",
        "hypot",
        lambda e, v: e.hypot(v[0], v[1]),
        [*PAIRS, (-3.0, -4.0)],
        lambda x, y: math.sqrt(x**2 + y**2),
        lambda x, y: [x / math.sqrt(x**2 + y**2), y / math.sqrt(x**2 + y**2)],
        [
            ((0.0, 0.0), (0.0, [0.0, 0.0])),
            ((0.0, -2.0), (2.0, [0.0, -1.0])),
            ((3e200, -4e200), (5e200, [0.6, -0.8])),
            ((3e-200, 4e-200), (5e-200, [0.6, 0.8])),
            ((1.7e308, 1.7e308), OverflowError),
            ((-INF, 1.0), (INF, [-1.0, 0.0])),
            ((INF, INF), (INF, [1.0, 1.0])),
            ((NAN, 1.0), (NAN, [NAN, NAN])),
        ],
    ),
    Row(
        "sum",
        "sum",
        add_up,
        LISTS,
        lambda *x: math.fsum(x),
        lambda *x: [1.0] * len(x),
        [((-0.0,), (0.0, [1.0])), ((INF, -INF), (NAN, [1.0, 1.0]))],
    ),
    Row(
        "dot",
        "dot",
        lambda e, v: dot(e, *halves(v)),
        [(0.5, 2.0), (1.0, 2.0, 3.0, 4.0), tuple(0.1 * i - 0.9 for i in range(20))],
        lambda *v: math.fsum(w * x for w, x in zip(*halves(v), strict=True)),
        dot_partials,
        [((INF, 1.0, 0.0, 1.0), (NAN, [0.0, 1.0, INF, 1.0]))],
    ),
    Row(
        "sum",
        "sum-listed",
        lambda e, v: add_up(e, v[::-1]),
        LISTS[1:],
        lambda *x: math.fsum(x),
        lambda *x: [1.0] * len(x),
        [((1.0, INF), (INF, [1.0, 1.0]))],
    ),
    Row(
        "dot",
        "dot-listed",
        lambda e, v: dot(e, *halves(v[::-1])),
        [(1.0, 2.0, 3.0, 4.0), tuple(0.1 * i - 0.9 for i in range(20))],
        lambda *v: math.fsum(w * x for w, x in zip(*halves(v), strict=True)),
        dot_partials,
        [((INF, 1.0, 0.0, 1.0), (NAN, [0.0, 1.0, INF, 1.0]))],
    ),
    Row(
        "dot",
        "dot-strided",
        lambda e, v: mean_of_columns(e, v)[0],
        [(1.0, 2.0, 3.0, 4.0), tuple(0.1 * i - 0.9 for i in range(20))],
        lambda *v: math.fsum(v[::2]) / len(v[::2]),
        lambda *v: [1 / len(v[::2]), 0.0] * len(v[::2]),
        [((INF, 1.0, 0.0, 1.0), (INF, [0.5, 0.0, 0.5, 0.0]))],
    ),
    Row(
        "custom",
        "custom",
        custom,
        [(2.0, 3.0, 4.0), (-0.5, 0.25, 1e3)],
        lambda x, y, z: x * y + z,
        lambda x, y, z: [y, x, 1.0],
        [((INF, 1.0, 2.0), (INF, [1.0, INF, 1.0]))],
    ),
]

# What is written with the ops above, as the reference writes it: same table, no op of its own.
COMPOSITES = [
    Row("mul", "neg", lambda e, v: -v[0], UNARY, lambda x: -x, lambda x: [-1.0]),
    Row("add", "sub", lambda e, v: v[0] - v[1], PAIRS, lambda x, y: x - y, lambda x, y: [1.0, -1.0]),
    Row("add", "sub-number", lambda e, v: v[0] - 1.25, UNARY, lambda x: x - 1.25, lambda x: [1.0]),
    Row("add", "number-sub", lambda e, v: 1.25 - v[0], UNARY, lambda x: 1.25 - x, lambda x: [-1.0]),
    Row(
        "mul",
        "div",
        lambda e, v: v[0] / v[1],
        PAIRS,
        lambda x, y: x / y,
        lambda x, y: [1 / y, -x / y**2],
        [((1.0, 0.0), ZeroDivisionError), ((INF, INF), (NAN, [0.0, NAN])), ((1.0, 1e-320), OverflowError)],
    ),
    Row("mul", "div-number", lambda e, v: v[0] / 1.25, UNARY, lambda x: x / 1.25, lambda x: [1 / 1.25]),
    Row("mul", "div-zero", lambda e, v: v[0] / 0, [], abs, abs, [((1.0,), ZeroDivisionError)]),
    Row(
        "mul",
        "number-div",
        lambda e, v: 1.25 / v[0],
        UNARY,
        lambda x: 1.25 / x,
        lambda x: [-1.25 / x**2],
        [((0.0,), ZeroDivisionError), ((-0.0,), ZeroDivisionError), ((1e-200,), OverflowError)],
    ),
    Row(
        "pow",
        "square",
        lambda e, v: v[0] ** 2,
        UNARY,
        lambda x: x * x,
        lambda x: [2 * x],
        [((0.0,), (0.0, [0.0])), ((1e200,), OverflowError), ((-1e-200,), (0.0, [-2e-200]))],
    ),
    Row(
        "pow",
        "root",
        lambda e, v: v[0] ** 0.5,
        POSITIVE,
        math.sqrt,
        lambda x: [0.5 / math.sqrt(x)],
        [((0.0,), ZeroDivisionError), ((-2.0,), ValueError), ((-INF,), (INF, [0.0]))],
    ),
    Row("pow", "pow-0", lambda e, v: v[0] ** 0, UNARY, lambda x: 1.0, lambda x: [0.0], [((0.0,), ZeroDivisionError)]),
    Row("pow", "pow-1", lambda e, v: v[0] ** 1, UNARY, lambda x: x, lambda x: [1.0], [((0.0,), (0.0, [1.0]))]),
    Row(
        "pow", "reciprocal", lambda e, v: v[0] ** -1, UNARY, lambda x: 1 / x, lambda x: [-1 / x**2], [((1e-320,), OverflowError)]
    ),
    Row("pow", "pow-2000", lambda e, v: v[0] ** 2000, [], abs, abs, [((2.0,), OverflowError)]),
    Row("pow", "pow-999.5", lambda e, v: v[0] ** 999.5, [], abs, abs, [((-3.0,), ValueError), ((3.0,), OverflowError)]),
]
