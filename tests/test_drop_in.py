"""Scripts written for the pure-Python Value: what they see here. Every row of a table is a test; its name is the row.

EDGES, SAME and NUMPY hold on both engines; DIFFERENCES are the rows of the README's table, each with what either engine does.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from op_table import Engine

import microgpt
from microgpt import reference

ROOT = Path(__file__).parent.parent
INF, NAN = math.inf, math.nan

# Expression of x, data of x, then result and gradient, or the exception.
EDGES: list[tuple[str, float, tuple[float, float] | type[Exception]]] = [
    ("x.log()", 0.0, ValueError),
    ("x.log()", -1.0, ValueError),
    ("x.exp()", 710.0, OverflowError),
    ("x.exp()", -746.0, (0.0, 0.0)),
    ("x.relu()", 0.0, (0.0, 0.0)),
    ("x.relu()", -1.0, (0.0, 0.0)),
    ("x.relu()", NAN, (0.0, 0.0)),
    ("x ** -1", 0.0, ZeroDivisionError),
    ("1 / x", 0.0, ZeroDivisionError),
    ("x ** 0.5", 0.0, ZeroDivisionError),
    ("x ** 0", 0.0, ZeroDivisionError),
    ("x ** 1", 0.0, (0.0, 1.0)),
    ("x ** 2", 0.0, (0.0, 0.0)),
    ("x ** 0.5", -2.0, ValueError),
    ("x ** 3", -2.0, (-8.0, 12.0)),
    ("x ** 2", 1e200, OverflowError),
    ("2.0 ** x", 2000.0, OverflowError),
    ("x ** -1", 1e-320, OverflowError),
    ("x + 1", INF, (INF, 1.0)),
    ("x * 2", NAN, (NAN, 2.0)),
    ("x / x", INF, (NAN, NAN)),
    ("x + 'a'", 1.0, TypeError),
    ("x / 0", 1.0, ZeroDivisionError),
]


@pytest.mark.parametrize(("expression", "data", "expected"), EDGES, ids=[f"{e} at {x}" for e, x, _ in EDGES])
def test_edge(engine: Engine, expression: str, data: float, expected: Any) -> None:
    x = engine.Value(data)
    if isinstance(expected, type):
        with pytest.raises(expected):
            eval(expression, {"x": x})
        return
    y = eval(expression, {"x": x})
    y.backward()
    assert (repr(y.data), repr(x.grad)) == tuple(map(repr, map(float, expected)))


# What scripts do with Values, numbers, lists and numpy: the same type, the same data, the same gradients on both engines.
SAME = [
    "x + 1", "1 + x", "x - 1", "1 - x", "x * 2", "2 * x", "x / 2", "2 / x", "x ** 2", "2 ** x", "-x", "x ** y",
    "x + y", "x - y", "x * y", "x / y", "x + True", "True * x", "x * Fraction(1, 4)", "Fraction(1, 4) - x",
    "sum([x, y])", "sum(i * x for i in range(3))", "sum((x * i for i in range(3)), y)", "sum([x, y]) / 2",
    "max(v.data for v in [x, y])", "max([x, y], key=lambda v: v.data)", "f'{x}'", "repr(x)", "f'{x:.2f}'", "f'{x:>9}'",
    "round(x)", "round(x, 1)",
    "int(x)", "int(-x)",
    "x < 2", "2 < x", "x <= y", "x >= 1.5", "x > y", "x > Fraction(1, 3)", "abs(x - y) < 1e-6",
    "sorted([x, y])[0] is y", "max(x, y) is x", "min(2, x) is x",
    "Value(math.nan) < 1", "sorted([x, 1.0])[0]",
    "bool(Value(0.0))", "x == Value(x.data)", "x == x", "x in [y, x]", "{x: 1}[x]", "len({x, y, x})", "x.grad", "x.data",
    "augmented(x)", "descend(x, y)", "copy.copy(x).data", "isinstance(x * 2, Value)", "Value(3.0, (x,), (0.5,)) * y",
    "Value(data=1.5, children=[x, y], local_grads=[2, 3])", "(x * y).children[1] is y",
    "(x * y).local_grads", "x.children",
    "[c.data for c in (x - y)._children]", "(x / y)._local_grads", "(x * y)._prev == {x, y}", "Value(2.0)._prev",
]  # fmt: skip
NUMPY = [
    "np.float64(2) * x", "x * np.float64(2)", "np.float32(0.5) + x", "np.int64(2) - x", "np.int8(2) / x",
    "np.float64(2) ** x", "x ** np.int64(2)", "np.True_ * x", "x + np.True_", "Value(np.float64(0.1)) * x",
    "x ** np.float64(-0.5)",
    "a * x", "a - x", "a / x", "x / np.float64(3)", "np.array(2.0) * x", "x * np.array(2.0)", "np.array([x, y]).dtype",
    "np.array([x, y]) + 1", "np.array([x, y]) * a", "np.array([x, y]) ** 2", "-np.array([x, y])", "np.array([x, y]).sum()",
    "np.array([x, y], dtype=object) @ np.array([y, x], dtype=object)", "a @ np.array([x, y])", "m @ np.array([x, y])",
    "np.dot(np.array([x, y]), a)", "np.array([x, y]) @ m", "np.exp(np.array([x, y]))", "np.log(np.array([x, y]))",
    "np.tanh(np.array([x, y]))",
    "np.sqrt(np.array([x, y]))", "np.abs(np.array([x, -y]))", "np.exp(x)",
    "np.outer(np.array([x, y]), a)", "np.array([[x, y], [y, x]]).T @ a", "np.sum([x * i for i in range(4)])",
]  # fmt: skip


def augmented(x: Any) -> Any:
    y = x
    y += 1
    y *= x
    y -= 0.5
    y /= 3
    y **= 2
    return y


def descend(x: Any, y: Any) -> list[float]:
    (x * y * x).backward()
    x.data -= 0.1 * x.grad
    y.data -= 0.1 * y.grad
    x.grad = y.grad = 0
    (x * y).backward()
    return [x.data, y.data, x.grad, y.grad]


def seen(engine: Engine, expression: str) -> Any:
    """What a script sees of an expression of two leaves: types, data, and the gradients of all Values in it."""
    x, y = engine.Value(1.5), engine.Value(0.75)
    names = {
        "x": x, "y": y, "Value": engine.Value, "np": np, "math": math, "copy": copy, "Fraction": Fraction, "augmented": augmented,
        "descend": descend, "a": np.array([0.5, -3.0]), "m": np.array([[1.0, 0.3], [-0.2, 2.0]]),
    }  # fmt: skip
    result = eval(expression, names)
    values = result.ravel().tolist() if isinstance(result, np.ndarray) else [result]
    for value in values:
        if isinstance(value, engine.Value):
            value.backward()
    shown = [("Value", value.data.hex()) if isinstance(value, engine.Value) else (type(value), value) for value in values]
    shape = result.shape if isinstance(result, np.ndarray) else None
    return shape, shown, x.data, y.data, x.grad.hex(), y.grad.hex()


@pytest.mark.parametrize("expression", SAME)
def test_same(expression: str) -> None:
    assert seen(microgpt, expression) == seen(reference, expression)


@pytest.mark.parametrize("expression", NUMPY)
def test_same_with_numpy(expression: str) -> None:
    assert seen(microgpt, expression) == seen(reference, expression)


# The README's table: what a script does, and what it then sees on the pure-Python Value and here.
Outcome = Any
DIFFERENCES: dict[str, tuple[Callable[[Engine], Any], Outcome, Outcome]] = {
    "`Value(2).data`": (lambda e: repr(e.Value(2).data), "2", "2.0"),
    '`Value("a")`': (lambda e: e.Value("a").data, "a", TypeError),
    "`Value(np.ones(2))`": (lambda e: len(e.Value(np.ones(2)).data), 2, TypeError),
    "`Value(-2.0) ** 0.5`": (lambda e: e.Value(-2.0) ** 0.5, ValueError, ValueError),
    "`(x + 1).children`": (lambda e: len((e.Value(2.0) + 1).children), 2, 1),
    "`y.data = 3` where y is computed": (lambda e: assign(e.Value(2.0) * 2), 3, AttributeError),
    "a leaf changed before `backward()`": (lambda e: changed_before_backward(e), 2.0, RuntimeError),
    "`del x.data`": (lambda e: delattr(e.Value(2.0), "data"), None, AttributeError),
    "`Value(3.0, (x, y), (1.0,))`": (lambda e: e.Value(3.0, (e.Value(1.0), e.Value(2.0)), (1.0,)).data, 3.0, ValueError),
    "a subclass with its own `__add__`": (lambda e: (1 + sub(e)).data, "mine", 2.0),
    "`x * array`": (lambda e: np.shape(e.Value(2.0) * np.ones(2)), (), (2,)),
    "`x / np.int64(2)`": (lambda e: (e.Value(3.0) / np.int64(2)).data, ValueError, 1.5),
    "`x + np.float32(0.1)`": (
        lambda e: float((e.Value(1.0) + np.float32(0.1)).data) == 1.0 + float(np.float32(0.1)),
        False,
        True,
    ),
    "`Value.cube = f`": (lambda e: add_method(e), None, TypeError),
    "`copy.deepcopy(x * 2)`": (lambda e: copy.deepcopy(e.Value(3.0) * 2).data, 6.0, TypeError),
}


def sub(engine: Engine) -> Any:
    class Sub(engine.Value):  # type: ignore[name-defined]
        def __add__(self, other: Any) -> Any:
            return Mine()

    class Mine:
        data = "mine"

    return Sub(1.0)


def assign(y: Any) -> Any:
    y.data = 3
    return y.data


def changed_before_backward(engine: Engine) -> float:
    x, y = engine.Value(1.0), engine.Value(2.0)
    z = x * y
    y.data = 5.0
    z.backward()
    return x.grad


def add_method(engine: Engine) -> None:
    engine.Value.cube = lambda self: self**3
    del engine.Value.cube


@pytest.mark.parametrize("row", DIFFERENCES)
def test_difference(engine: Engine, row: str) -> None:
    action, on_twin, here = DIFFERENCES[row]
    expected = on_twin if engine is reference else here
    if isinstance(expected, type):
        with pytest.raises(expected):
            action(engine)
    else:
        assert action(engine) == expected


def test_the_readme_lists_the_same_differences() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| a script does | on the pure-Python Value | here |\n")[2].partition("\n\n")[0]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[1:]] == list(DIFFERENCES)


def run(path: Path, *arguments: str) -> list[str]:
    result = subprocess.run([sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_script_gives_the_same_bits_on_both_engines() -> None:
    lines = run(ROOT / "examples" / "microgpt_script.py", "--steps", "20")
    assert len(lines) == 25
    assert lines == run(ROOT / "examples" / "microgpt_script.py", "--steps", "20", "--reference")


def test_script_fits_on_three_pages() -> None:
    assert len((ROOT / "examples" / "microgpt_script.py").read_text(encoding="utf-8").splitlines()) <= 150


def test_two_moons_are_told_apart_with_the_same_losses_on_scalars() -> None:
    lines = run(ROOT / "examples" / "two_moons.py")
    assert len(lines) == 100
    assert lines[-1].endswith("accuracy 100 %")
    assert lines == run(ROOT / "examples" / "two_moons.py", "--scalars")
    assert run(ROOT / "examples" / "two_moons.py", "--steps", "5") == run(
        ROOT / "examples" / "two_moons.py", "--steps", "5", "--reference"
    )
