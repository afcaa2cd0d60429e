"""Second derivatives of Programs: to the bit those of a twin in plain Python, and near differences of gradients."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import pytest
from op_table import COMPOSITES, ROWS, Row
from program_graphs import hexes

import microgpt
from microgpt import Value, Vector, record

NO_SECOND = {"where", "custom"}


class Node:
    """A value, its partials and its second partials, `second[i][k]` by child i and child k; None for what is 0 for all data."""

    def __init__(self, data: float, children: Sequence[Node] = (), partials: Any = (), second: Any = None) -> None:
        self.data, self.children, self.partials, self.second = data, children, partials, second
        self.grad = 0.0
        self.tangent: float | None = None  # None where no input is below
        self.grad_tangent: float | None = None

    def __add__(self, other: Any) -> Node:
        other = as_node(other)
        return Node(self.data + other.data, (self, other), (1, 1))

    def __mul__(self, other: Any) -> Node:
        other = as_node(other)
        return Node(self.data * other.data, (self, other), (other.data, self.data), ((None, 1), (1, None)))

    def __pow__(self, k: float) -> Node:
        x = self.data
        second = 0.0 if k in (0, 1) else k * (k - 1.0) * x ** (k - 2.0)
        return Node(x**k, (self,), (k * x ** (k - 1),), ((second,),))

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Node:
        return self * -1

    def __sub__(self, other: Any) -> Node:
        return self + -other

    def __truediv__(self, other: Any) -> Node:
        return self * other**-1


def as_node(x: Any) -> Node:
    return x if isinstance(x, Node) else Node(x)


class Twin:
    """The functions that the graphs below use."""

    Value = Node

    @staticmethod
    def exp(x: Node) -> Node:
        y = math.exp(x.data)
        return Node(y, (x,), (y,), ((y,),))

    @staticmethod
    def log(x: Node) -> Node:
        return Node(math.log(x.data), (x,), (1 / x.data,), ((-1 / (x.data * x.data),),))

    @staticmethod
    def tanh(x: Node) -> Node:
        y = math.tanh(x.data)
        return Node(y, (x,), (1 - y * y,), ((-2.0 * y * (1 - y * y),),))

    @staticmethod
    def sin(x: Node) -> Node:
        y = math.sin(x.data)
        return Node(y, (x,), (math.cos(x.data),), ((-y,),))

    @staticmethod
    def relu(x: Node) -> Node:
        return Node(max(0.0, x.data), (x,), (1.0 if x.data > 0 else 0.0,))

    @staticmethod
    def softmax(xs: Sequence[Node]) -> list[Node]:
        top = max(x.data for x in xs)
        exps = [Twin.exp(x + -top) for x in xs]
        total: Any = 0
        for e in exps:
            total = total + e
        return [e / total for e in exps]

    @staticmethod
    def dot(xs: Sequence[Node], ys: Sequence[Node]) -> Node:
        total: Any = 0
        for x, y in zip(xs, ys, strict=True):
            total = total + x * y
        return as_node(total)


class Engine:
    """The same of the engine."""

    Value = Value
    exp, log, tanh, sin, relu, softmax = (
        staticmethod(f) for f in (microgpt.exp, microgpt.log, microgpt.tanh, microgpt.sin, microgpt.relu, microgpt.softmax)
    )

    @staticmethod
    def dot(xs: Sequence[Value], ys: Sequence[Value]) -> Value:
        return Vector(xs) @ Vector(ys)


def post_order(root: Node) -> list[Node]:
    order: list[Node] = []
    seen = {root}

    def visit(node: Node) -> None:
        for child in node.children:
            if child not in seen:
                seen.add(child)
                visit(child)
        order.append(node)

    visit(root)
    return order


def plus(total: float | None, partial: float, tangent: float) -> float:
    return (0.0 if total is None else total) + partial * tangent


def product(inputs: list[Node], root: Node, v: Sequence[float]) -> list[float]:
    """The Hessian times `v`, in the documented order."""
    order = post_order(root)
    for node, direction in zip(inputs, v, strict=True):
        node.tangent = 0.0 + direction
    for node in order:
        for child, partial in zip(node.children, node.partials, strict=True):
            if child.tangent is not None:
                node.tangent = plus(node.tangent, partial, child.tangent)
    root.grad = 1.0
    for node in reversed(order):
        for i, (child, partial) in enumerate(zip(node.children, node.partials, strict=True)):
            if child.tangent is None:
                continue
            child.grad += partial * node.grad
            slope = None
            for k, other in enumerate(node.children if node.second else ()):
                if other.tangent is not None and node.second[i][k] is not None:
                    slope = plus(slope, node.second[i][k], other.tangent)
            if slope is not None:
                child.grad_tangent = plus(child.grad_tangent, slope, node.grad)
            if node.grad_tangent is not None:
                child.grad_tangent = plus(child.grad_tangent, partial, node.grad_tangent)
    return [0.0 if node.grad_tangent is None else node.grad_tangent for node in inputs]


def build(e: Any, seed: int, point: Sequence[float]) -> tuple[list[Any], Any]:
    rng = random.Random(seed)
    inputs = [e.Value(x) for x in point]
    nodes = [*inputs, e.Value(0.75)]
    for _ in range(rng.randrange(2, 20)):
        a, b, c, d = (rng.choice(nodes[-6:] if rng.random() < 0.7 else nodes) for _ in range(4))
        kind = rng.randrange(11)
        k = rng.choice((2, -1, 3, 0.5, 1, -2.5))
        new = [
            lambda a=a, b=b: a + b,
            lambda a=a, b=b: a * b,
            lambda a=a, b=b, c=c: a * b + c,
            lambda a=a, b=b: a - b * 0.5,
            lambda a=a, k=k: (e.tanh(a) + 2.5) ** k,
            lambda a=a, b=b: a / (b * b + 1.5),
            lambda a=a: e.exp(e.sin(a)),
            lambda a=a: e.log(a * a + 0.5),
            lambda a=a: e.relu(a),
            lambda a=a, b=b, c=c: e.softmax([a, b, c])[1],
            lambda a=a, b=b, c=c, d=d: e.dot([a, b, c], [d, c, a]),
        ][kind]()
        nodes.append(new)
    return inputs, e.dot(nodes, nodes[::-1])


@pytest.mark.parametrize("part", range(4))
def test_products_with_the_hessian_have_the_bits_of_the_twin(part: int) -> None:
    for seed in range(part * 100, part * 100 + 100):
        rng = random.Random(-seed)
        n = 1 + seed % 4
        point, other, v = ([rng.gauss(0, 1) for _ in range(n)] for _ in range(3))
        inputs, output = build(Engine, seed, other)
        p = record(output, inputs)
        nodes, root = build(Twin, seed, point)
        assert hexes(p.hessian_vector_product(point, v)) == hexes(product(nodes, root, v)), f"seed {seed}"
        rows = p.hessian(point)
        for i in range(n):
            nodes, root = build(Twin, seed, point)
            assert hexes(rows[i]) == hexes(product(nodes, root, [float(i == k) for k in range(n)])), f"seed {seed}, row {i}"


DIFFERENTIABLE = [row for row in ROWS + COMPOSITES if row.op not in NO_SECOND]


def graph_of(row: Row) -> Callable[[Any], Any]:
    return lambda x: row.function(microgpt, list(x)) * 1.25 + microgpt.sin(x[0])


@pytest.mark.parametrize("row", DIFFERENTIABLE, ids=[row.id for row in DIFFERENTIABLE])
def test_the_second_derivative_of_every_op_is_that_of_its_gradient(row: Row) -> None:
    for point in row.points:
        x = Vector(point)
        p = record(graph_of(row)(x), x)
        ours = numpy.array(p.hessian(list(point)))
        for i in range(len(point)):
            h = min(max(1e-5 * abs(point[i]), 1e-6), 1e-3)
            up, down = list(point), list(point)
            up[i] += h
            down[i] -= h
            theirs = (numpy.array(p.value_and_grad(up)[1]) - numpy.array(p.value_and_grad(down)[1])) / (up[i] - down[i])
            scale = numpy.abs(numpy.array(p.value_and_grad(list(point))[1])).max() + numpy.abs(theirs).max() + 1
            if row.op in ("minimum", "maximum", "floor", "relu", "abs"):
                theirs = theirs if numpy.abs(theirs).max() < 1e3 else ours[i]  # the difference stepped over a jump
            assert numpy.abs(ours[i] - theirs).max() < 2e-6 * scale, (point, ours[i], theirs)


def test_a_hessian_solves_a_quadratic_in_one_step() -> None:
    x = Vector([1.0, 2.0, 3.0])
    p = record(x[0] * x[0] * 2.0 + x[1] * x[1] + x[0] * x[2] + x[2] * x[2] * 3.0 - x[1], x)
    point = numpy.array([5.0, -3.0, 1.0])
    step = numpy.linalg.solve(p.hessian(point), p.value_and_grad(point)[1])
    assert numpy.abs(p.value_and_grad(point - step)[1]).max() < 1e-14


def test_a_hessian_names_what_has_no_value() -> None:
    x = Vector([1.0, 2.0])
    p = record(microgpt.log(x[0]) * x[1], x)
    for call in (p.hessian, lambda point: p.hessian_vector_product(point, [1.0, 0.0])):
        with pytest.raises(ValueError, match=r"^log needs data > 0, got -1\.0$"):
            call([-1.0, 2.0])
    with pytest.raises(ValueError, match="2 numbers of v, got 1"):
        p.hessian_vector_product([1.0, 2.0], [1.0])
