"""Measure a script that was written for the pure-Python Value and now imports the compiled one.

    python benchmarks/script.py [--rounds N] [--steps N]

First each operator, called from Python: nanoseconds on the engine, on the twin and on plain floats, the cost of the empty loop
taken off. Then examples/microgpt_script.py, twenty steps in turns on both engines, with the same losses (checked), with the
cyclic garbage collector on and off. CPU time: medians of the operators and of the ratios, these with the middle half; means of
the milliseconds.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import measure
from measure import ROOT, clock, spread

import microgpt
from microgpt import reference
from microgpt.cli import Parser, whole_number

sys.path.insert(0, str(ROOT / "examples"))
import microgpt_script as script  # type: ignore[import-not-found]

# What is measured on a Value, and the same on a float where there is such a thing.
OPERATIONS = {
    "x + y": "x + y",
    "x * y": "x * y",
    "x - y": "x - y",
    "x / y": "x / y",
    "-x": "-x",
    "x**2": "x**2",
    "x**-0.5": "x**-0.5",
    "x + 1.5": "x + 1.5",
    "1.5 * x": "1.5 * x",
    "x * 2": "x * 2",
    "2 - x": "2 - x",
    "1 / x": "1 / x",
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
PARTS = {"forward": [0], "backward": [1], "forward, backward": [0, 1], "Adam in Python": [2], "whole step": [0, 1, 2]}


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


def run_operations(rounds: int) -> dict[str, Any]:
    """Measure the operators. Medians in nanoseconds by engine."""
    empty = loop("pass", float)
    loops: dict[str, dict[str, Callable[[], float]]] = {}
    for on_values, on_floats in OPERATIONS.items():
        loops[on_values] = {"engine": loop(on_values, microgpt.Value), "twin": loop(on_values, reference.Value)}
        if on_floats is not None:
            loops[on_values]["float"] = loop(on_floats, float)
    times: dict[str, dict[str, list[float]]] = {name: {engine: [] for engine in loops[name]} for name in loops}

    def measure_all() -> None:
        for name, engines in loops.items():
            floor = empty()
            for engine, nanoseconds in engines.items():
                times[name][engine].append(nanoseconds() - floor)

    controls = measure.take_turns(rounds, [measure_all])
    medians = {name: {engine: statistics.median(values) for engine, values in engines.items()} for name, engines in times.items()}
    return {"control": controls, "operations": medians}


def report_operations(results: dict[str, Any]) -> Iterator[str]:
    """Return the table of the operators."""
    yield f"    {'ns, from Python':16}{'engine':>10}{'twin':>10}{'float':>10}{'twin / engine':>16}"
    for name, medians in results["operations"].items():
        columns = "".join(f"{median:10.0f}" for median in medians.values()).ljust(30)
        yield f"    {name:16}{columns}{medians['twin'] / medians['engine']:16.1f}"


class Training:
    """The script in training on one engine: CPU nanoseconds of each step's forward, backward and Adam."""

    def __init__(self, make: Callable[[float], Any], start: measure.Start) -> None:
        self.weights = script.new_weights(make, start.vocab_size, start.rng())
        self.parameters = [p for matrix in self.weights.values() for row in matrix for p in row]
        self.moments = [[0.0, 0.0] for _ in self.parameters]
        self.tokens = start.documents
        self.loss: Any = None
        self.losses: list[float] = []
        self.times: list[list[float]] = []

    def step(self) -> None:
        step = len(self.losses)
        times = [clock()]
        # As in the script, the new loss lets the graph of the step before go.
        self.loss = script.loss_of(self.weights, self.tokens[step % len(self.tokens)])
        times.append(clock())
        self.loss.backward()
        times.append(clock())
        script.adam(self.parameters, self.moments, step, 0.01)
        times.append(clock())
        self.losses.append(self.loss.data)
        self.times.append([later - earlier for earlier, later in pairwise(times)])


def run_script(rounds: int, steps: int, *, collector: bool) -> dict[str, Any]:
    """Measure the script, both engines in turns of `steps` steps. Means in milliseconds, ratios round by round."""
    start = measure.start()
    engine, twin = Training(microgpt.Value, start), Training(reference.Value, start)

    def train(training: Training) -> None:
        if not collector:
            gc.disable()
        for _ in range(steps):
            training.step()
        gc.enable()

    gc.collect()
    controls = measure.take_turns(rounds, [lambda: train(engine), lambda: train(twin)])
    assert engine.losses == twin.losses, "the engines disagree"
    results: dict[str, Any] = {"control": controls}
    for name, parts in PARTS.items():
        ours, theirs = (by_round(training.times, parts, rounds) for training in (engine, twin))
        ratios = [slow / fast for fast, slow in zip(ours, theirs, strict=True)]
        results[name] = {"engine": statistics.mean(ours), "twin": statistics.mean(theirs), "ratio": spread(ratios)}
    return results


def report_script(results: dict[str, Any], *, collector: bool) -> Iterator[str]:
    """Return the table of the script."""
    yield f"examples/microgpt_script.py, collector {'on' if collector else 'off'}"
    yield f"    {'CPU ms a step':18}{'engine':>8}{'twin':>9}   twin / engine, round by round"
    for name in PARTS:
        row = results[name]
        ratio = row["ratio"]
        ratios = f"{ratio['median']:.1f} [{ratio['low']:.1f} .. {ratio['high']:.1f}] times"
        yield f"    {name:18}{row['engine']:8.2f}{row['twin']:9.2f}   {ratios}"


def by_round(times: Sequence[Sequence[float]], parts: Sequence[int], rounds: int) -> list[float]:
    """Return the mean milliseconds of some parts of a step, for each round: the collector comes in some steps, not in all."""
    sums = [sum(step[i] for i in parts) / 1e6 for step in times]
    steps = len(sums) // rounds
    return [statistics.mean(sums[i : i + steps]) for i in range(0, len(sums), steps)]


def run(rounds: int, steps: int) -> dict[str, Any]:
    """Measure operators and script."""
    return run_operations(rounds) | {
        "collector on": run_script(rounds, steps, collector=True),
        "collector off": run_script(rounds, steps, collector=False),
    }


def report(results: dict[str, Any]) -> Iterator[str]:
    """Return the tables of the results."""
    yield from report_operations(results)
    yield from report_script(results["collector on"], collector=True)
    yield from report_script(results["collector off"], collector=False)


def main() -> None:
    parser = Parser(description="Measure operators from Python, and a script that uses Value alone.")
    parser.add_argument("--rounds", type=whole_number(2, 40), default=5, metavar="N", help="2 to 40 (default: 5)")
    parser.add_argument("--steps", type=whole_number(1, 100), default=20, metavar="N", help="1 to 100 a round (default: 20)")
    args = parser.parse_args()
    print(*measure.header(measure.machine()), sep="\n")
    results = run(args.rounds, args.steps)
    print(measure.line("control loop", results["control"], " ms"))
    print(*report(results), sep="\n")


if __name__ == "__main__":
    main()
