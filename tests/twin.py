"""The twin under the engine's interface: Vectors, Rows and Matrices that are lists of Values, so that a program runs on both.

It is a copy of `microgpt.reference` of its own, in which each Value knows when it was made. One thing is modelled: the engine
has one node for a dot or a sum. What the twin makes in between, products and partial sums, is `hidden`, and its gradients do not
last from one backward() to the next.
"""

from __future__ import annotations

import importlib.util
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

spec = importlib.util.find_spec("microgpt.reference")
assert spec is not None
assert spec.loader is not None
plain: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plain)

hidden: list[Value] = []
clock = 0  # counts the writes of leaves


class Value(plain.Value):  # type: ignore[misc, name-defined]
    __slots__ = ("made", "written")

    def __init__(self, data: float, children: Sequence[Value] = (), local_grads: Sequence[float] = ()) -> None:
        self.data = data
        self.grad = 0.0
        self.children = children
        self.local_grads = local_grads
        self.made = clock
        self.written = 0

    def backward(self) -> None:
        for node in hidden:
            node.grad = 0.0
        super().backward()

    def zero_grad(self) -> None:
        for node in below(self):
            node.grad = 0.0


class Constant(Value):
    """The leaf that the twin makes for a number; the engine has none."""

    __slots__ = ()


def unless_vector(name: str) -> Callable[[Any, Any], Any]:
    """An operator that leaves Vectors and Rows to their own."""
    function = getattr(plain.Value, name)
    return lambda x, y: NotImplemented if isinstance(y, list) else function(x, y)


for name in ("__add__", "__sub__", "__mul__", "__truediv__", "__pow__"):
    setattr(Value, name, unless_vector(name))


def below(root: Value) -> list[Value]:
    """All nodes that `root` reaches, itself the first."""
    nodes, seen = [root], {root}
    for node in nodes:
        for child in node.children:
            if child not in seen:
                seen.add(child)
                nodes.append(child)
    return nodes


def is_stale(root: Value) -> bool:
    """Whether a leaf that `root` reaches was written after a node that uses it was made."""
    return any(child.written > node.made for node in below(root) for child in node.children)


def written(leaves: Any) -> None:
    """Note that the data of leaves was changed."""
    global clock
    clock += 1
    for leaf in flat(leaves):
        leaf.written = clock


def total(values: Iterable[Value]) -> Value:
    values = list(values)
    result = node = reference_total(values)
    for _ in values[1:]:
        node = node.children[0]
        hidden.append(node)
    return result


def dot(w: Sequence[Value], x: Sequence[Value]) -> Value:
    products = [wi * xi for wi, xi in zip(w, x, strict=True)]
    hidden.extend(products)
    return total(products)


reference_total = plain.total
plain.Value, plain.total, plain.dot = Value, total, dot
plain.as_value = lambda x: x if isinstance(x, plain.Value) else Constant(x)


def children_of(node: Value, op: str, n: int) -> list[Value]:
    """The `n` children that a node of this op has in the engine."""
    if op == "sum":
        return terms(node, n)
    if op == "dot":
        return [factor for product in terms(node, n // 2) for factor in product.children]
    return [child for child in node.children if not isinstance(child, Constant)]


def terms(node: Value, n: int) -> list[Value]:
    """The operands of a chain of `n` additions, ((0 + v0) + v1) + ..."""
    last: list[Value] = []
    for _ in range(n - 1):
        last.append(node.children[1])
        node = node.children[0]
    return [node.children[0], *reversed(last)]


class Vector(list):  # type: ignore[type-arg]
    def __init__(self, items: Iterable[Value | float]) -> None:
        super().__init__(x if isinstance(x, Value) else Value(x) for x in items)
        if not self:
            raise ValueError("empty")

    def __getitem__(self, index: Any) -> Any:
        return Vector(list.__getitem__(self, index)) if isinstance(index, slice) else list.__getitem__(self, index)

    @property
    def data(self) -> list[float]:
        return [v.data for v in self]

    @data.setter
    def data(self, data: Sequence[float]) -> None:
        for v, number in zip(self, data, strict=True):
            v.data = number

    @property
    def grad(self) -> list[float]:
        return [v.grad for v in self]

    @grad.setter
    def grad(self, grad: Sequence[float]) -> None:
        for v, number in zip(self, grad, strict=True):
            v.grad = number

    def sum(self) -> Value:
        return total(self)

    def mean(self) -> Value:
        return total(self) / len(self)

    def __matmul__(self, other: Sequence[Value]) -> Value:
        return dot(self, other)

    def __neg__(self) -> Any:
        return self * -1.0

    def __abs__(self) -> Any:
        return type(self)(abs(x) for x in self)


class Rows(Vector):
    def __init__(self, rows: Iterable[Iterable[Value]]) -> None:
        list.__init__(self, map(Vector, rows))
        if len({len(row) for row in self}) != 1:
            raise ValueError("empty, or not of one length")

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Rows(list.__getitem__(self, index))
        return Rows(self[i] for i in index) if isinstance(index, list) else list.__getitem__(self, index)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), len(self[0])

    @property
    def data(self) -> list[list[float]]:
        return [row.data for row in self]

    @data.setter
    def data(self, data: Sequence[Sequence[float]]) -> None:
        for row, numbers in zip(self, data, strict=True):
            row.data = numbers

    @property
    def grad(self) -> list[list[float]]:
        return [row.grad for row in self]

    @grad.setter
    def grad(self, grad: Sequence[Sequence[float]]) -> None:
        for row, numbers in zip(self, grad, strict=True):
            row.grad = numbers


class Matrix(Rows):
    def __matmul__(self, x: Any) -> Any:
        return Rows(self @ row for row in x) if isinstance(x, Rows) else Vector(plain.linear(x, self))


def elementwise(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def apply(x: Any, y: Any) -> Any:
        others = y if isinstance(y, list) else [y] * len(x)
        return type(x)(function(a, b) for a, b in zip(x, others, strict=True))

    return apply


def reflected(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return elementwise(lambda a, b: function(b, a))


for name in ("add", "sub", "mul", "truediv", "pow"):
    setattr(Vector, f"__{name}__", elementwise(getattr(operator, name)))
    setattr(Vector, f"__r{name}__", reflected(getattr(operator, name)))


def of_each(name: str) -> Callable[[Any], Any]:
    function = getattr(plain, name)

    def apply(x: Any) -> Any:
        if isinstance(x, Rows):
            return Rows(apply(row) for row in x)
        return Vector(function(v) for v in x) if isinstance(x, list) else function(x)

    return apply


exp, log, relu, tanh, sigmoid, sqrt, sin, cos = map(of_each, ("exp", "log", "relu", "tanh", "sigmoid", "sqrt", "sin", "cos"))
minimum, maximum = plain.minimum, plain.maximum


def softmax(x: Any) -> Any:
    return Rows(map(softmax, x)) if isinstance(x, Rows) else Vector(plain.softmax(x))


def rmsnorm(x: Any) -> Any:
    return Rows(map(rmsnorm, x)) if isinstance(x, Rows) else Vector(plain.rmsnorm(x))


def cross_entropy(logits: Any, target: Any) -> Any:
    if isinstance(logits, Rows):
        return Vector(plain.cross_entropy(row, t) for row, t in zip(logits, target, strict=True))
    return plain.cross_entropy(logits, target)


def attention(query: Any, keys: Sequence[Any], values: Sequence[Any], n_head: int) -> Any:
    keys, values = ([row for x in given for row in (x if isinstance(x, Rows) else [x])] for given in (keys, values))
    if not isinstance(query, Rows):
        return Vector(plain.attention(query, keys, values, n_head))
    past = len(keys) - len(query)
    return Rows(plain.attention(q, keys[: past + t + 1], values[: past + t + 1], n_head) for t, q in enumerate(query))


class Adam(plain.Adam):  # type: ignore[misc, name-defined]
    def __init__(self, parameters: Iterable[Any], **options: float) -> None:
        super().__init__(flat(parameters), **options)

    def step(self, learning_rate: float) -> None:
        """As the engine's: a step that is refused changes nothing."""
        before = [(p, p.data, p.grad) for p in self.parameters]
        moments = self.m[:], self.v[:], self.steps
        try:
            super().step(learning_rate)
        except OverflowError:
            for p, data, grad in before:
                p.data, p.grad = data, grad
            self.m, self.v, self.steps = moments
            raise
        written(self.parameters)


def flat(x: Any) -> list[Value]:
    return [value for item in x for value in flat(item)] if isinstance(x, list) else [x]
