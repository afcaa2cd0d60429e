"""The twin under the engine's interface: Vectors, Rows and Matrices that are lists of Values, so that a program runs on both.

It is a copy of `microgpt.reference` of its own, in which each Value knows when it was made. One thing is modelled: the engine
has one node for a dot or a sum. What the twin makes in between, products and partial sums, is hidden, and its gradients do not
last from one backward() to the next.
"""

from __future__ import annotations

import importlib.util
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

spec = importlib.util.find_spec("microgpt.reference")
assert spec is not None
assert spec.loader is not None
plain: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plain)

FUNCTIONS = (
    *("exp", "log", "relu", "tanh", "sigmoid", "sqrt", "sin", "cos", "atan", "asin", "acos", "sinh", "cosh", "log1p", "expm1"),
    *("log2", "log10", "erf", "lgamma", "gelu", "silu", "softplus", "floor"),
)
clock = 0  # counts the steps of optimizers
under_way: set[Value] = set()  # the nodes of each backward() that is in the middle


class Value(plain.Value):  # type: ignore[misc, name-defined]
    __slots__ = ("__dict__", "made", "operands", "own", "part_of", "stepped", "then")
    label = ""

    def __init__(self, data: float, children: Sequence[Value] = (), local_grads: Any = (), label: str | None = None) -> None:
        self.data = data
        self.grad = 0.0
        self.children = children
        self.local_grads = local_grads
        self.operands: list[Value] | None = None  # those of a dot or a sum
        self.part_of: Value | None = None  # the dot or sum that this is hidden in
        self.own: Callable[[], None] | None = None  # what was set as `_backward`
        self.then = [child.data for child in children]
        self.made = clock
        self.stepped = 0
        if isinstance(local_grads, str):
            self.local_grads, self._op = (), local_grads
        if label is not None:
            self.label = label

    def _set_own(self, function: Callable[[], None]) -> None:
        self.own = function

    _backward = property(None, _set_own)

    def backward(self) -> None:
        """As the reference's; a node with its own `_backward` does what that does, and what is hidden in it does nothing."""
        order = post_order(self)
        nodes = {node for node in order if node.children or node.own is not None}
        if nodes & under_way or any(lacks_partials(node) for node in order):
            raise RuntimeError
        for node in order:
            if node.part_of is not None:
                node.grad = 0.0
        self.grad = 1.0
        under_way.update(nodes)
        try:
            for node in reversed(order):
                if node.own is not None:
                    node.own()
                elif node.part_of is None or node.part_of.own is None:
                    for child, local_grad in zip(node.children, node.local_grads, strict=True):
                        child.grad += local_grad * node.grad
        finally:
            under_way.difference_update(nodes)

    def zero_grad(self) -> None:
        for node in post_order(self):
            node.grad = 0.0


class Constant(Value):
    """The leaf that the twin makes for a number; the engine has none."""

    __slots__ = ()


def unless_vector(name: str) -> Callable[[Any, Any], Any]:
    """An operator that leaves Vectors and Rows to their own."""
    function = getattr(plain.Value, name)
    return lambda x, y: NotImplemented if hasattr(y, "__len__") else function(x, y)


for name in ("__add__", "__sub__", "__mul__", "__truediv__", "__pow__"):
    setattr(Value, name, unless_vector(name))


def post_order(root: Value) -> list[Value]:
    """All nodes that `root` reaches, each after its children: depth first."""
    order: list[Value] = []
    seen = {root}
    path = [(root, iter(root.children))]
    while path:
        node, rest = path[-1]
        for child in rest:
            if child not in seen:
                seen.add(child)
                path.append((child, iter(child.children)))
                break
        else:
            order.append(node)
            path.pop()
    return order


def lacks_partials(node: Value) -> bool:
    return len(node.local_grads) < len(node.children) and node.own is None


def may_be_refused(root: Value) -> bool:
    """Whether a leaf that `root` reaches has other data than a node was computed from, or an optimizer has been there since; or
    whether a node cannot pass its gradient on."""
    return any(lacks_partials(node) or any(map(partial(is_changed, node), node.children, node.then)) for node in post_order(root))


def is_changed(user: Value, child: Value, then: float) -> bool:
    return child.stepped > user.made or repr(child.data) != repr(then)


def stepped(leaves: Any) -> None:
    """Note that an optimizer has changed these leaves."""
    global clock
    clock += 1
    for leaf in leaves:
        leaf.stepped = clock


def total(values: Iterable[Value]) -> Value:
    values = list(values)
    result = node = reference_total(values)
    for _ in values[1:]:
        node = node.children[0]
        node.part_of = result
    result.operands = values
    return result


def dot(w: Sequence[Value], x: Sequence[Value]) -> Value:
    products = [wi * xi for wi, xi in zip(w, Vector(x), strict=True)]
    result = total(products)
    for product in products:
        product.part_of = result
    result.operands = [factor for product in products for factor in product.children]
    return result


reference_total = plain.total
plain.Value, plain.total, plain.dot = Value, total, dot
plain.as_value = lambda x: x if isinstance(x, plain.Value) else Constant(x)


def children(node: Value) -> list[Value]:
    """The children that a node has in the engine."""
    return [child for child in node.operands or node.children if not isinstance(child, Constant)]


mixed: dict[Value, list[Value]] = {}  # the elements of the values that a result of `attention` was computed from


def reached(handles: Sequence[Any], *, whole_rows: bool = False) -> set[Value]:
    """The nodes that the engine has for these handles: through children, and through what was written on nodes.

    `whole_rows`: and all of the values that an attention's result was computed from, which it may keep.
    """
    found: set[Value] = set()
    left: list[Any] = [handles]
    while left:
        x = left.pop()
        if isinstance(x, list):
            left.extend(x)
        elif isinstance(x, Adam):
            left.extend(x.parameters)
        elif isinstance(x, Value) and x not in found:
            found.add(x)
            left.extend(children(x))
            left.extend(x.__dict__.values())
            left.extend(mixed.get(x, ()) if whole_rows else ())
            if x.own is not None:
                left.extend(cell.cell_contents for cell in x.own.__closure__ or ())
    return found


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
        others: Any = [y] * len(x)
        if hasattr(y, "__len__"):
            others = y if isinstance(y, Vector) else type(x)(y)
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


for name in FUNCTIONS:
    globals()[name] = of_each(name)
minimum, maximum, atan2, hypot = plain.minimum, plain.maximum, plain.atan2, plain.hypot


def where(condition: Any, x: Any, y: Any) -> Any:
    given = (condition, x, y)
    one = next((z for z in given[1:] if isinstance(z, list)), None)
    if one is None:
        return plain.where(*(z if isinstance(z, Value) else Value(z) for z in given))
    return type(one)(map(where, *(z if isinstance(z, list) else [z] * len(one) for z in given)))


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
    past = len(keys) - (len(query) if isinstance(query, Rows) else 1)
    length = len(query[0] if isinstance(query, Rows) else query)
    if any(len(row) != length for row in (*keys, *values)):
        raise ValueError(f"attention needs keys and values of the query's length {length}")
    result: Any
    if isinstance(query, Rows):
        result = Rows(plain.attention(q, keys[: past + t + 1], values[: past + t + 1], n_head) for t, q in enumerate(query))
    else:
        result = Vector(plain.attention(query, keys, values, n_head))
    all_values = [v for row in values for v in row]
    mixed.update((v, all_values) for v in flat([result]))
    return result


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
        stepped(self.parameters)


def flat(x: Any) -> list[Value]:
    return [value for item in x for value in flat(item)] if isinstance(x, list) else [x]
