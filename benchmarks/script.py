"""Scripts that were written for the pure-Python Value and now import the compiled one: operators, and a whole script.

    python benchmarks/script.py [--rounds N]

Each operator, called from Python: nanoseconds on the engine, on the twin and on plain floats, the cost of the empty loop taken
off. And examples/microgpt_script.py in turns on both engines, with the same losses (checked).
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any

import measure
from measure import ROOT, clock

import microgpt
from microgpt import reference

sys.path.insert(0, str(ROOT / "examples"))
import microgpt_script as script  # type: ignore[import-not-found]

# What is measured on a Value, and the same on a float where there is such a thing.
ON_BOTH = ["x + y", "x * y", "x - y", "x / y", "-x", "x**2", "x**-0.5", "x + 1.5", "1.5 * x", "x * 2", "2 - x", "1 / x"]
OPERATIONS: dict[str, str | None] = {
    **dict(zip(ON_BOTH, ON_BOTH, strict=True)),
    "x * y + z": "x * y + z",
    "sum(xs)": "sum(xs)",
    "x.exp()": "math.exp(x)",
    "x.log()": "math.log(x)",
    "x.tanh()": "math.tanh(x)",
    "x.relu()": "max(0.0, x)",
    "Value(1.5)": "float(1.5)",
    "x.data": None,
    "x.data = 1.5": None,
    "x.grad = 0": None,
}
LENGTH = 16  # of xs
TURNS = 2000  # of the loop around one operation
STEPS = 10  # of the script, a round


def loop(operation: str, make: Callable[[float], Any]) -> Callable[[], float]:
    """Return a function that runs a loop around `operation` and tells its CPU nanoseconds a turn; `make` makes the operands."""
    names = {"x": make(1.5), "y": make(0.7), "z": make(0.3), "xs": [make(0.1)] * LENGTH, "Value": make, "math": math}
    exec(f"def turns():\n    for _ in range({TURNS}):\n        {operation}\n", names)
    turns: Any = names["turns"]

    def measure() -> float:
        start = clock()
        turns()
        return (clock() - start) / TURNS

    return measure


def run(rounds: int) -> dict[str, dict[str, float]]:
    """Return the median nanoseconds of the operators by engine."""
    empty = loop("pass", float)
    loops: dict[tuple[str, str], Callable[[], float]] = {}
    for on_values, on_floats in OPERATIONS.items():
        loops[on_values, "engine"] = loop(on_values, microgpt.Value)
        loops[on_values, "twin"] = loop(on_values, reference.Value)
        if on_floats is not None:
            loops[on_values, "float"] = loop(on_floats, float)
    times = {key: [nanoseconds() - empty()] for key, nanoseconds in loops.items()}
    for _ in range(rounds - 1):
        for key, nanoseconds in loops.items():
            times[key].append(nanoseconds() - empty())
    medians: dict[str, dict[str, float]] = {operation: {} for operation in OPERATIONS}
    for (operation, engine), values in times.items():
        medians[operation][engine] = statistics.median(values)
    return medians


def report(results: dict[str, dict[str, float]]) -> Iterator[str]:
    """Return the table of the operators."""
    yield f"{'ns, from Python':16}{'engine':>10}{'twin':>10}{'float':>10}{'twin / engine':>16}"
    for name, medians in results.items():
        columns = "".join(f"{median:10.0f}" for median in medians.values()).ljust(30)
        yield f"{name:16}{columns}{medians['twin'] / medians['engine']:16.1f}"


def operators() -> Iterator[float]:
    """Nanoseconds of all operators together."""
    loops = [loop(operation, microgpt.Value) for operation in OPERATIONS]
    while True:
        yield sum(nanoseconds() for nanoseconds in loops)


class Training:
    """The script in training on one engine."""

    def __init__(self, make: Callable[[float], Any]) -> None:
        start = measure.start()
        self.weights = script.new_weights(make, start.vocab_size, start.rng())
        self.parameters = [p for matrix in self.weights.values() for row in matrix for p in row]
        self.moments = [[0.0, 0.0] for _ in self.parameters]
        self.tokens = start.documents
        self.loss: Any = None
        self.losses: list[float] = []

    def run(self, *, whole: bool) -> float:
        """Make STEPS steps and return the nanoseconds of forward and backward, or of the `whole` steps, with Adam in Python."""
        took = 0.0
        for _ in range(STEPS):
            step = len(self.losses)
            start = clock()
            # As in the script, the new loss lets the graph of the step before go.
            self.loss = script.loss_of(self.weights, self.tokens[step % len(self.tokens)])
            self.loss.backward()
            differentiated = clock()
            script.adam(self.parameters, self.moments, step, 0.01)
            took += (clock() if whole else differentiated) - start
            self.losses.append(self.loss.data)
        return took


def steps() -> Iterator[tuple[float, str]]:
    """Nanoseconds of the script's steps."""
    training = Training(microgpt.Value)
    while True:
        yield training.run(whole=True), training.losses[-1].hex()


def twin_beside(*, whole: bool, collector: bool) -> Iterator[tuple[float, float]]:
    """The script on the twin beside the script on the engine, with Python's cyclic garbage collector or without."""
    twin, engine = Training(reference.Value), Training(microgpt.Value)
    while True:
        if not collector:
            gc.disable()
        theirs, ours = twin.run(whole=whole), engine.run(whole=whole)
        gc.enable()
        assert twin.losses == engine.losses, "the engines disagree"
        yield theirs, ours


if __name__ == "__main__":
    import run as runner

    names = ["operators", "script", "script-alone", "script-whole", "script-whole-alone"]
    sys.exit(runner.main(["--only", *names, *sys.argv[1:]]))
