"""Gradients against differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from microgpt._matrix import Matrix
from microgpt._value import Value
from microgpt._vector import Vector
from microgpt.graphs import Graph, place_in

Inputs: TypeAlias = Value | Vector | Matrix | Sequence[Value | Vector | Matrix]

Found = TypeVar("Found")

NOISE = 8 * 2.0**-52  # roundings of a value, relative, that differences of two such values show
BENT = 1e-3  # relative difference of the slopes on both sides from which a kink is looked for


@dataclass(frozen=True)
class Kink:
    """An element at which `f` has no derivative, or its differences change their sizes as the step does."""

    element: str
    op: str
    left: float
    right: float

    def __str__(self) -> str:
        return f"{self.element}: slopes {self.left:.6g} to the left and {self.right:.6g} to the right, {self.op}"


@dataclass(frozen=True)
class Check:
    """What `gradcheck` found; true where it passed.

    `element`: where gradient and difference are furthest apart, such as input 0[2][5]; `error`: how far, in units of what is
    allowed. `op`: the node whose partials are wrong; "" where all is well or nothing tells. `kinks`: elements at which there is
    no derivative, where any gradient between the slopes of both sides is taken. `count`: elements checked.
    """

    passed: bool
    element: str
    gradient: float
    difference: float
    error: float
    op: str
    kinks: tuple[Kink, ...]
    count: int

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        figures = f"{self.element}: gradient {self.gradient!r}, difference {self.difference!r}"
        kinks = "".join(f"; kink at {kink}" for kink in self.kinks)
        if self.passed:
            return f"all {self.count} gradients agree; furthest apart at {figures}{kinks}"
        return f"wrong gradient at {figures}" + (f"; wrong partials in {self.op}" if self.op else "") + kinks


def gradcheck(f: Callable[..., Value], inputs: Inputs, eps: float = 1e-6, rtol: float = 1e-5, atol: float = 1e-8) -> Check:
    """Compare the gradients of `f(*inputs)` with central differences, element by element; write `assert gradcheck(f, x)`.

    `inputs`: a Value, Vector or Matrix of leaves, or a list of them. `f` is called anew for each difference, so it must compute
    the same from the same inputs. The step is `eps` times the element's size, `eps` at least. Gradient and difference may differ
    by `rtol` of the larger one, by `atol`, and by what rounding does to the difference. Inputs have their data back afterwards,
    and no grad is changed.
    Errors: TypeError for inputs that are none, or if `f` returns no Value; ValueError for computed inputs, a loss that is not
    finite or changes by itself, and numbers out of range. What `f` raises next to its inputs comes through.
    Cost: two calls of `f` for each element, more at kinks.
    """
    for name, number in (("eps", eps), ("rtol", rtol), ("atol", atol)):
        if not (math.isfinite(number) and number >= 0) or (name == "eps" and number == 0):
            raise ValueError(f"{name} must be {'above' if name == 'eps' else 'at least'} 0 and finite, got {number}")
    given: list[Any] = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    elements = list(elements_of(given))
    whole = Graph(value_of(f, given))
    loss = whole.data[0]
    if not math.isfinite(loss):
        raise ValueError(f"f must be finite at its inputs, it is {loss}")
    if value_of(f, given).data != loss:
        raise ValueError("f must return the same for the same inputs, it does not")
    gradients = {id(one): whole.indices(one) for one in given}
    worst: tuple[float, str, float, float, str] = (-1.0, "", 0.0, 0.0, "")
    kinks: list[Kink] = []
    for name, leaf, one, offset in elements:
        index = gradients[id(one)][offset]
        gradient = whole.grad[index] if index >= 0 else 0.0
        probe = Probe(f, given, leaf, loss)
        step = eps * max(1.0, abs(leaf.data))
        low, high, left, right = probe.slopes(step)
        difference = (high - low) / probe.width
        allowed = rtol * max(abs(gradient), abs(difference)) + atol + NOISE * max(abs(low), abs(high), abs(loss)) / probe.width
        bend = abs(right - left)
        if bend > BENT * max(abs(left), abs(right)) + 100 * allowed:
            *_, near_left, near_right = probe.slopes(step / 4)
            if abs(near_right - near_left) > bend / 2:  # of a smooth function it is a quarter
                kinks.append(Kink(name, probe.kinked(whole, step), left, right))
                difference = min(max(gradient, min(left, right)), max(left, right))
        error = abs(gradient - difference) / allowed if math.isfinite(gradient + difference) else math.inf
        if error > worst[0]:
            worst = error, name, gradient, difference, probe.wrong(whole, step, rtol) if error > 1 else ""
    error, name, gradient, difference, op = worst
    return Check(error <= 1, name, gradient, difference, error, op, tuple(kinks), len(elements))


def elements_of(given: Sequence[Any]) -> Iterator[tuple[str, Value, Any, int]]:
    """Yield name, leaf, input and offset of each element. TypeError and ValueError for what cannot be checked."""
    if not given:
        raise ValueError("gradcheck needs at least one input")
    for number, one in enumerate(given):
        if not isinstance(one, Value | Vector | Matrix):
            raise TypeError(f"inputs are Values, Vectors and Matrices, got {type(one).__name__}")
        leaves = [one] if isinstance(one, Value) else list(one) if isinstance(one, Vector) else [x for row in one for x in row]
        title = f"input {number}" if not isinstance(one, Value) or not one.label else str(one.label)
        for offset, leaf in enumerate(leaves):
            if leaf.op != "leaf":
                raise ValueError(f"inputs must be leaves, {title}{place_in(one, offset)} is computed (`{leaf.op}`)")
            yield title + place_in(one, offset), leaf, one, offset


def value_of(f: Callable[..., Value], given: Sequence[Any]) -> Value:
    """Return f(*given). TypeError unless it is a Value."""
    value = f(*given)
    if not isinstance(value, Value):
        raise TypeError(f"f must return a Value, it returned {type(value).__name__}")
    return value


class Probe:
    """`f` as a function of one leaf."""

    def __init__(self, f: Callable[..., Value], given: Sequence[Any], leaf: Value, loss: float) -> None:
        self.f, self.given, self.leaf, self.loss = f, given, leaf, loss
        self.at = leaf.data
        self.width = 0.0

    def at_other(self, data: float, what: Callable[[Value], Found]) -> Found:
        """Return `what` of the loss with another number in the leaf, which has its own again afterwards."""
        try:
            self.leaf.data = data
            return what(value_of(self.f, self.given))
        finally:
            self.leaf.data = self.at

    def slopes(self, step: float) -> tuple[float, float, float, float]:
        """Return the loss on both sides, and the slopes; `width` is then the distance of the two sides, as rounded."""
        before, after = self.at - step, self.at + step
        low, high = (self.at_other(data, lambda value: value.data) for data in (before, after))
        self.width = after - before
        return low, high, (self.loss - low) / (self.at - before), (high - self.loss) / (after - self.at)

    def wrong(self, whole: Graph, step: float, rtol: float) -> str:
        """Return the node whose partials are wrong, "" where that cannot be told."""
        low, high = self.at_other(self.at - step, Graph), self.at_other(self.at + step, Graph)
        return self.suspect(whole, low, high, (self.at + step) - (self.at - step), rtol)

    def kinked(self, whole: Graph, step: float) -> str:
        """Return the node whose slope on one side at least is not its partial, "" where that cannot be told."""
        low, high = self.at_other(self.at - step, Graph), self.at_other(self.at + step, Graph)
        return self.suspect(whole, whole, high, step, BENT) or self.suspect(whole, low, whole, step, BENT)

    def suspect(self, whole: Graph, low: Graph, high: Graph, width: float, rtol: float) -> str:
        """Return the node whose change from `low` to `high` is not what its partials make of its children's; the lowest one.

        Each node is judged by the changes that its children really had, so that one wrong node does not blame those above.
        """
        if any(bytes(side.ops) != bytes(whole.ops) or side.children != whole.children for side in (low, high)):
            return "the graph is another one beside: a where, or a branch of f"
        change = [(after - before) / width for after, before in zip(high.data, low.data, strict=True)]
        noise = [NOISE * abs(data) / width for data in whole.data]
        first, child, partial = whole.first_child, whole.children, whole.partials
        unknown = ""
        for i in range(len(whole) - 1, -1, -1):
            edges = range(first[i], first[i + 1])
            if not edges:
                continue
            terms = [partial[e] * change[child[e]] for e in edges]
            if any(term != term for term in terms):
                unknown = f"{self.name(whole, i)}, which has a _backward of its own"
                continue
            allowed = rtol * (abs(change[i]) + sum(map(abs, terms))) + noise[i]
            allowed += sum(abs(partial[e]) * noise[child[e]] for e in edges)
            if abs(change[i] - sum(terms)) > allowed:
                return self.name(whole, i)
        return unknown

    @staticmethod
    def name(whole: Graph, index: int) -> str:
        """Return op and label of a node."""
        name = whole.name(index)
        return f"`{whole.title(index)}`" + (f" ({name})" if name else "")
