"""Measure a script that was written for the pure-Python Value and now imports the compiled one.

    python benchmarks/script.py [--rounds N] [--steps N]

First each operator, called from Python: nanoseconds on the engine, on the twin and on plain floats, the cost of the empty loop
taken off. Then examples/microgpt_script.py, twenty steps in turns on both engines, with the same losses (checked), with the
cyclic garbage collector on and off. CPU time: medians of the operators and of the ratios, these with the middle half; means of
the milliseconds.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import microgpt
from microgpt import data, reference

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
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
        start = time.process_time_ns()
        turns()
        return (time.process_time_ns() - start) / TURNS

    return measure


def report_operations(rounds: int) -> None:
    print(f"{'ns, from Python':16}{'engine':>10}{'twin':>10}{'float':>10}{'twin / engine':>16}")
    empty = loop("pass", float)
    for on_values, on_floats in OPERATIONS.items():
        loops = [loop(on_values, microgpt.Value), loop(on_values, reference.Value)]
        if on_floats is not None:
            loops.append(loop(on_floats, float))
        times: list[list[float]] = [[] for _ in loops]
        for _ in range(rounds):
            floor = empty()
            for samples, measure in zip(times, loops, strict=True):
                samples.append(measure() - floor)
        medians = [statistics.median(samples) for samples in times]
        columns = "".join(f"{median:10.0f}" for median in medians).ljust(30)
        print(f"{on_values:16}{columns}{medians[1] / medians[0]:16.1f}")


class Training:
    """The script in training on one engine: CPU seconds of each step's forward, backward and Adam."""

    def __init__(self, make: Callable[[float], Any], tokens: Sequence[Sequence[int]]) -> None:
        self.weights = script.new_weights(make, 27, random.Random(42))
        self.parameters = [p for matrix in self.weights.values() for row in matrix for p in row]
        self.moments = [[0.0, 0.0] for _ in self.parameters]
        self.tokens = tokens
        self.loss: Any = None
        self.losses: list[float] = []
        self.times: list[list[float]] = []

    def step(self) -> None:
        step = len(self.losses)
        times = [time.process_time()]
        self.loss = script.loss_of(self.weights, self.tokens[step])  # lets the graph of the step before go, as in the script
        times.append(time.process_time())
        self.loss.backward()
        times.append(time.process_time())
        script.adam(self.parameters, self.moments, step, 0.01)
        times.append(time.process_time())
        self.losses.append(self.loss.data)
        self.times.append([later - earlier for earlier, later in pairwise(times)])


def spread(values: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.1f} [{low:.1f} .. {high:.1f}]"


def report_script(rounds: int, steps: int, *, collector: bool) -> None:
    documents = data.load_names()
    random.Random(42).shuffle(documents)
    tokenizer = microgpt.CharTokenizer(documents)
    tokens = [tokenizer.encode(document) for document in documents[: rounds * steps]]
    engine, twin = Training(microgpt.Value, tokens), Training(reference.Value, tokens)
    gc.collect()
    if not collector:
        gc.disable()
    for _ in range(rounds):
        for training in (engine, twin):
            for _ in range(steps):
                training.step()
    gc.enable()
    assert engine.losses == twin.losses, "the engines disagree"
    print(f"examples/microgpt_script.py, collector {'on' if collector else 'off'}")
    print(f"    {'CPU ms a step':18}{'engine':>8}{'twin':>9}   twin / engine, round by round")
    for name, parts in PARTS.items():
        ours, theirs = (by_round(t.times, parts, rounds) for t in (engine, twin))
        ratios = [slow / fast for fast, slow in zip(ours, theirs, strict=True)]
        print(f"    {name:18}{statistics.mean(ours):8.2f}{statistics.mean(theirs):9.2f}   {spread(ratios)} times")


def by_round(times: Sequence[Sequence[float]], parts: Sequence[int], rounds: int) -> list[float]:
    """Return the mean milliseconds of some parts of a step, for each round: the collector comes in some steps, not in all."""
    sums = [1000 * sum(step[i] for i in parts) for step in times]
    steps = len(sums) // rounds
    return [statistics.mean(sums[i : i + steps]) for i in range(0, len(sums), steps)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure operators from Python, and a script that uses Value alone.")
    parser.add_argument("--rounds", type=int, default=5, choices=range(2, 41), metavar="N", help="2 to 40 (default: 5)")
    parser.add_argument("--steps", type=int, default=20, choices=range(1, 101), metavar="N", help="a round (default: 20)")
    args = parser.parse_args()
    report_operations(args.rounds)
    for collector in (True, False):
        report_script(args.rounds, args.steps, collector=collector)


if __name__ == "__main__":
    main()
