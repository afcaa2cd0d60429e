"""One small expression of scalars, differentiated by other scalar autograds, each beside the engine."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from measure import clock

import microgpt
from microgpt import reference

POINT = (0.7, 0.4, -0.3)
TURNS = 100
REPEATS = 4  # evaluations a round
TOLERANCE = 1e-9

# One evaluation: nanoseconds of forward and backward, the value, the gradient.
Evaluation = tuple[float, float, list[float]]


def expression(a: Any, b: Any, c: Any) -> Any:
    """The same lines on every type of scalar: TURNS times five operations, as deep as micrograd's recursion can take."""
    y = a
    for _ in range(TURNS):
        y = (y * b + c) / (y**2 + a)
    return y


def on_values(new: Callable[[float], Any]) -> Evaluation:
    """Evaluate on Values, `y.backward()` and `x.grad`: microgpt, micrograd."""
    start = clock()
    x = [new(number) for number in POINT]
    y = expression(*x)
    y.backward()
    return clock() - start, y.data, [v.grad for v in x]


def load_torch() -> Callable[[], Evaluation]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)

    def evaluate() -> Evaluation:
        start = clock()
        x = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in POINT]
        y = expression(*x)
        y.backward()
        return clock() - start, y.item(), [v.grad.item() for v in x]

    return evaluate


def load_xad() -> Callable[[], Evaluation]:
    adj_1st = importlib.import_module("xad.adj_1st")

    def evaluate() -> Evaluation:
        start = clock()
        with adj_1st.Tape() as tape:
            x = [adj_1st.Real(number) for number in POINT]
            for v in x:
                tape.registerInput(v)
            tape.newRecording()
            y = expression(*x)
            tape.registerOutput(y)
            y.derivative = 1.0
            tape.computeAdjoints()
            return clock() - start, float(y.value), [v.derivative for v in x]

    return evaluate


def load_casadi() -> Callable[[], Evaluation]:
    """The expression is a program, made once; only its runs are measured."""
    casadi = importlib.import_module("casadi")
    x = [casadi.SX.sym(name) for name in "abc"]
    y = expression(*x)
    program = casadi.Function("program", x, [y, casadi.gradient(y, casadi.vertcat(*x))])

    def evaluate() -> Evaluation:
        start = clock()
        value, gradient = program(*POINT)
        return clock() - start, float(value), [float(number) for number in gradient.nz]

    return evaluate


# Each is imported only where it is measured.
LOADERS: dict[str, Callable[[], Callable[[], Evaluation]]] = {
    "twin": lambda: partial(on_values, reference.Value),
    "micrograd": lambda: partial(on_values, importlib.import_module("micrograd.engine").Value),
    "torch": load_torch,
    "xad": load_xad,
    "casadi": load_casadi,
}


def beside(name: str) -> Iterator[tuple[float, float]]:
    """The time of a peer beside the engine's, with the same value and gradient."""
    sides: list[Callable[[], Evaluation]] = [LOADERS[name](), partial(on_values, microgpt.Value)]
    _, value, gradient = on_values(reference.Value)
    while True:
        times = [0.0, 0.0]
        for _ in range(REPEATS):
            for side, evaluate in enumerate(sides):
                took, *result = evaluate()
                times[side] += took
                assert agree(result, [value, gradient]), f"{name} gives {result}, the twin {[value, gradient]}"
        yield times[0], times[1]


def agree(result: list[Any], expected: list[Any]) -> bool:
    """Return whether value and gradient are within TOLERANCE."""
    pairs = zip([result[0], *result[1]], [expected[0], *expected[1]], strict=True)
    return all(abs(a - b) <= TOLERANCE for a, b in pairs)
