"""Four shapes of graphs, built from Python: nanoseconds per node."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import measure
from measure import clock, spread

from microgpt import Matrix, Value, Vector

LENGTH = 3000  # operations of the first three shapes
WIDTH, DEPTH = 64, 30  # of the last
REPEATS = 3  # values a round, after one that warms the caches


def chain() -> Value:
    """y = y * c, again and again."""
    y = Value(1.0)
    for _ in range(LENGTH):
        y = y * 1.0001
    return y


def fan_out() -> Value:
    """One leaf, used by many products, and their sum."""
    x = Value(1.0)
    return Vector([x * 1.0001 for _ in range(LENGTH - 1)]).sum()


def diamonds() -> Value:
    """y = y * c + y * d, again and again."""
    y = Value(1.0)
    for _ in range(LENGTH // 3):
        y = y * 0.4 + y * 0.6
    return y


def new_dots() -> Callable[[], Value]:
    """Return the shape of matrix products one after the other, WIDTH dots of length WIDTH each."""
    rng = random.Random(1)
    matrix = Matrix([[rng.gauss(0, WIDTH**-0.5) for _ in range(WIDTH)] for _ in range(WIDTH)])
    first = Vector([rng.gauss(0, 1) for _ in range(WIDTH)])

    def dots() -> Value:
        x = first
        for _ in range(DEPTH):
            x = matrix @ x
        return x.sum()

    return dots


class Shape:
    """Nanoseconds per node of building and of differentiating one shape."""

    def __init__(self, build: Callable[[], Value], nodes: int) -> None:
        self.build, self.nodes = build, nodes
        self.forward: list[float] = []
        self.backward: list[float] = []

    def run(self) -> None:
        for repeat in range(REPEATS + 1):
            start = clock()
            root = self.build()
            built = clock()
            root.backward()
            end = clock()
            del root
            if repeat > 0:
                self.forward.append((built - start) / self.nodes)
                self.backward.append((end - built) / self.nodes)


def run(rounds: int) -> dict[str, Any]:
    """Measure, all shapes in turns."""
    shapes = {
        "chain": Shape(chain, LENGTH),
        "fan-out": Shape(fan_out, LENGTH),
        "diamonds": Shape(diamonds, LENGTH),
        f"dots of {WIDTH}": Shape(new_dots(), WIDTH * DEPTH + 1),
    }
    controls = measure.take_turns(rounds, [shape.run for shape in shapes.values()])
    by_shape = {name: {"forward": spread(shape.forward), "backward": spread(shape.backward)} for name, shape in shapes.items()}
    return {"control": controls, "shapes": by_shape}


def report(results: dict[str, Any]) -> Iterator[str]:
    """Return the table of the results."""
    for name, parts in results["shapes"].items():
        for part, values in parts.items():
            yield measure.line(f"{name}, {part}", values, " ns", 1)
    yield f"    forward: from Python, one call per node, except dots: one call per {WIDTH} nodes, {WIDTH} multiply-adds each"
