"""Random graphs for Programs: recorded at one input, run at others, and compared with the twin built anew for each.

    python tests/program_graphs.py --graphs 100000 --seed 1

Compared are values, the gradients of the inputs, and those of all nodes that depend on an input, all bits; or the error.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import twin

import microgpt
from microgpt import _program_code, _program_places, programs

UNARY = ("exp", "log", "relu", "tanh", "sigmoid", "sqrt", "sin", "cos", "atan", "asin", "acos", "sinh", "cosh", "log1p", "expm1")
UNARY += ("log2", "log10", "erf", "lgamma", "gelu", "silu", "softplus", "floor")
GENTLE = ("tanh", "sin", "cos", "atan", "sigmoid", "relu", "erf", "gelu", "silu", "softplus")
NUMBERS = (0.5, -1.5, 2.0, 3.0, -1.0, 0.25, 1e-3, 7.0, 0.0, -0.0, 1.0)
EXPONENTS = (2, -1, -0.5, 0.5, 3, 1, -2, 1.7, 5, 10, 2.5, 0)
SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-300, 1e300, -1e-200, math.inf, -math.inf, math.nan, 0.5, 0.5, 710.0, -745.0)
Step = Callable[[Any, list[Any]], Sequence[Any]]


def step(rng: random.Random) -> Step:
    """One thing to do with the nodes there are: how many nodes come of it does not depend on their data."""
    a, b, c = (rng.random() for _ in range(3))
    k, p, n = rng.choice(NUMBERS), rng.choice(EXPONENTS), rng.randrange(1, 5)
    name = rng.choice(UNARY if rng.random() < 0.4 else GENTLE)
    seed = rng.randrange(1 << 30)

    def one(nodes: list[Any], x: float) -> Any:
        return nodes[-1 - int(x * x * len(nodes))]  # mostly one of the last

    def some(nodes: list[Any], e: Any, salt: int) -> Any:
        local = random.Random(seed + salt)
        return e.Vector([one(nodes, local.random()) for _ in range(n)])

    def some_rows(nodes: list[Any], e: Any, salt: int, count: int, width: int) -> Any:
        local = random.Random(seed + salt)
        return [e.Vector([one(nodes, local.random()) for _ in range(width)]) for _ in range(count)]

    steps: list[Step] = [
        lambda e, v: [getattr(e, name)(one(v, a))],
        lambda e, v: [getattr(e, name)(one(v, a))],
        lambda e, v: [one(v, a) + one(v, b)],
        lambda e, v: [one(v, a) * one(v, b)],
        lambda e, v: [one(v, a) * one(v, b) + one(v, c)],
        lambda e, v: [one(v, a) - one(v, b)],
        lambda e, v: [one(v, a) / (one(v, b) * one(v, b) + 1.5)],
        lambda e, v: [one(v, a) / one(v, b)],
        lambda e, v: [one(v, a) * k + one(v, b)],
        lambda e, v: [k - one(v, a), one(v, a) + k],
        lambda e, v: [e.tanh(one(v, a)) ** p],
        lambda e, v: [abs(one(v, a)) ** e.sigmoid(one(v, b))],
        lambda e, v: [1.5 ** e.tanh(one(v, a))],
        lambda e, v: [e.minimum(one(v, a), one(v, b)), e.maximum(one(v, b), one(v, c))],
        lambda e, v: [e.minimum(one(v, a), k), e.maximum(k, one(v, b))],
        lambda e, v: [e.atan2(one(v, a), one(v, b)), e.hypot(one(v, b), one(v, c))],
        lambda e, v: [e.atan2(one(v, a), k), e.atan2(k, one(v, b)), e.hypot(one(v, c), k)],
        lambda e, v: [some(v, e, 0).sum()],
        lambda e, v: [some(v, e, 0) @ some(v, e, 1)],
        lambda e, v: [(some(v, e, 0) * some(v, e, 1)).sum()],
        lambda e, v: e.softmax(some(v, e, 0)),
        lambda e, v: e.softmax(some(v, e, 0))[:1],
        lambda e, v: e.softmax(e.tanh(some(v, e, 0)) * 3.0),
        lambda e, v: e.rmsnorm(some(v, e, 0)),
        lambda e, v: [e.cross_entropy(e.tanh(some(v, e, 0)), seed % n)],
        lambda e, v: e.attention(e.Vector(some_rows(v, e, 0, 1, 4)[0]), some_rows(v, e, 1, n, 4), some_rows(v, e, 2, n, 4), 2),
        lambda e, v: [abs(one(v, a)), -one(v, b)],
        lambda e, v: [one(v, a) * one(v, a)],
    ]
    return rng.choice(steps)


class Graph:
    """How to build one random graph, with any engine."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.n = rng.randrange(1, 5)
        self.constants = [rng.choice(NUMBERS) for _ in range(rng.randrange(3))]
        self.steps = [step(rng) for _ in range(rng.randrange(1, 14))]
        self.points = [self.point(rng) for _ in range(3)]

    def point(self, rng: random.Random) -> list[float]:
        if rng.random() < 0.15:
            return [rng.choice(SPECIAL) for _ in range(self.n)]
        return [rng.choice((rng.gauss(0, 1), rng.gauss(0, 3), rng.choice((0.0, 0.5, 1.0)))) for _ in range(self.n)]

    def build(self, e: Any, point: Sequence[float]) -> tuple[list[Any], Any]:
        """The inputs and the output, which all nodes lead to."""
        inputs = [e.Value(x) for x in point]
        nodes = [*inputs, *(e.Value(x) for x in self.constants)]
        for make in self.steps:
            nodes.extend(make(e, nodes))
        return inputs, e.Vector(nodes).sum()


def hexes(numbers: Any) -> list[str]:
    return [x.hex() for x in numbers]


def expected(graph: Graph, point: Sequence[float]) -> Any:
    """The class of the error, or the value, the gradients of the inputs, and those of all nodes that depend on an input."""
    try:
        inputs, output = graph.build(twin, point)
    except (ArithmeticError, ValueError) as error:
        return type(error)
    output.backward()
    depends = dict.fromkeys(inputs, True)
    for node in twin.post_order(output):
        if node not in depends:
            depends[node] = any(depends.get(child, False) for child in node.children)
    return (
        output.data.hex(),
        hexes(node.grad for node in inputs),
        sorted(hexes(node.grad for node, does in depends.items() if does)),
    )


def difference(seed: int) -> str | None:
    """What differs for this graph, None if nothing does or no point could be recorded."""
    graph = Graph(seed)
    theirs = [expected(graph, point) for point in graph.points]
    good = [i for i in range(3) if not isinstance(theirs[i], type)]
    if not good:
        return None
    inputs, output = graph.build(microgpt, graph.points[good[seed % len(good)]])
    program = microgpt.record(output, inputs)
    del inputs, output
    all_nodes = [_program_places.compile_gradient(program._graph, 0, width, True) for width in (1, 8)]
    for point, wanted in zip(graph.points, theirs, strict=True):
        try:
            value, gradient = program.value_and_grad(point)
        except (ArithmeticError, ValueError) as error:
            if type(error) is not wanted:
                return f"{point}: {error!r}, the twin: {wanted}"
            continue
        if isinstance(wanted, type):
            return f"{point}: {value}, the twin: {wanted}"
        if value.hex() != wanted[0] or program(point).hex() != wanted[0]:
            return f"{point}: value {value.hex()}, the twin: {wanted[0]}"
        if hexes(gradient) != wanted[1]:
            return f"{point}: gradient {gradient}, the twin: {wanted[1]}"
        for code in all_nodes:
            out = programs.doubles(code.outputs)
            _program_code.run_rows(code, array("d"), array("d", point), out, code.outputs, array("d"), 0, 1, False, b"\0")
            ours = sorted(hexes(out[1:]))
            if ours != wanted[2]:
                return f"{point}: gradients of all nodes, {code.width} rows: {ours}, the twin: {wanted[2]}"
    count = 1 + seed % 19
    rows = [graph.points[i % 3] for i in range(count)]
    values, gradients = program.run_many(rows, errors="nan", threads=1 + seed % 2)
    for i in range(count):
        wanted = theirs[i % 3]
        wanted = ("nan", ["nan"] * graph.n) if isinstance(wanted, type) else wanted
        if values[i].hex() != wanted[0] or hexes(gradients[i]) != wanted[1]:
            return f"row {i} of {count}, {rows[i]}: {values[i]}, {gradients[i]}, the twin: {wanted}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    given = parser.parse_args()
    start = time.monotonic()
    count = 0
    for seed in range(given.seed, given.seed + given.graphs):
        found = difference(seed)
        twin.mixed.clear()
        count += 1
        if found:
            print(f"seed {seed}: {found}")
            return 1
        if time.monotonic() - start > given.seconds:
            break
    print(f"{count} graphs from seed {given.seed}: no bit differs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
