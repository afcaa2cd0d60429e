"""Values as micrograd has them, in plain Python: an op is a function that makes a node and says what the node does backward.

What scripts written for micrograd see must be the same here and on the engine, so it has micrograd's names and no others. Unlike
there, the search of `backward` is a loop that takes operands in the order given, so that sums have the same bits each time, and
data and gradients are floats.
Source: Andrej Karpathy, micrograd.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any


class Value:
    def __init__(self, data: float, _children: Any = (), _op: str = "", label: str = "") -> None:
        self.data, self.grad = float(data), 0.0
        self.operands: tuple[Value, ...] = tuple(_children)
        self._op, self.label = _op, label
        self._backward: Callable[[], None] = lambda: None

    @property
    def _prev(self) -> set[Value]:
        return set(self.operands)

    def __repr__(self) -> str:
        return f"Value(data={self.data}, grad={self.grad})"

    def __add__(self, other: Any) -> Value:
        return op("+", lambda a, b: (a + b, 1.0, 1.0), self, other)

    def __mul__(self, other: Any) -> Value:
        return op("*", lambda a, b: (a * b, b, a), self, other)

    def __pow__(self, k: float) -> Value:
        return op(f"**{k}", lambda a: (a**k, k * a ** (k - 1)), self)

    def relu(self) -> Value:
        return op("ReLU", lambda a: (max(0.0, a), float(a > 0)), self)

    def exp(self) -> Value:
        return op("exp", lambda a: (math.exp(a), math.exp(a)), self)

    def tanh(self) -> Value:
        return op("tanh", lambda a: (math.tanh(a), 1 - math.tanh(a) * math.tanh(a)), self)

    def __neg__(self) -> Value:
        return self * -1

    def __sub__(self, other: Any) -> Value:
        return self + (-other)

    def __truediv__(self, other: Any) -> Value:
        return self * other**-1

    def __radd__(self, other: float) -> Value:
        return self + other

    def __rmul__(self, other: float) -> Value:
        return self * other

    def __rsub__(self, other: float) -> Value:
        return (-self) + other

    def __rtruediv__(self, other: float) -> Value:
        return self**-1 * other

    def backward(self) -> None:
        self.grad = 1.0
        for node in reversed(in_order(self)):
            node._backward()


def op(name: str, rule: Callable[..., tuple[float, ...]], *operands: Any) -> Value:
    """Return the node whose data and partials `rule` computes from the data of `operands`."""
    nodes = [x if isinstance(x, Value) else Value(x) for x in operands]
    data, *partials = rule(*(node.data for node in nodes))
    out = Value(data, nodes, name)

    def step() -> None:
        for node, partial in zip(nodes, partials, strict=True):
            node.grad += partial * out.grad

    out._backward = step
    return out


def in_order(root: Value) -> list[Value]:
    """Every node that `root` reaches, its operands before each."""
    order: list[Value] = []
    met = {root}
    path: list[tuple[Value, Iterator[Value]]] = [(root, iter(root.operands))]
    while path:
        node, rest = path[-1]
        child = next((child for child in rest if child not in met), None)
        if child is None:
            order.append(node)
            path.pop()
        else:
            met.add(child)
            path.append((child, iter(child.operands)))
    return order


class Module:
    def parameters(self) -> list[Value]:
        return []

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.grad = 0.0


class Neuron(Module):
    def __init__(self, nin: int, nonlin: bool = True) -> None:
        self.w = [Value(random.uniform(-1, 1)) for _ in range(nin)]
        self.b, self.nonlin = Value(0.0), nonlin

    def __call__(self, x: Any) -> Value:
        total = sum((w * v for w, v in zip(self.w, x, strict=True)), self.b)
        return total.relu() if self.nonlin else total

    def parameters(self) -> list[Value]:
        return [*self.w, self.b]


class Layer(Module):
    def __init__(self, nin: int, nout: int, nonlin: bool = True) -> None:
        self.neurons = [Neuron(nin, nonlin) for _ in range(nout)]

    def __call__(self, x: Any) -> Any:
        out = [neuron(x) for neuron in self.neurons]
        return out[0] if len(out) == 1 else out

    def parameters(self) -> list[Value]:
        return [p for neuron in self.neurons for p in neuron.parameters()]


class MLP(Module):
    def __init__(self, nin: int, nouts: list[int]) -> None:
        sizes = [nin, *nouts]
        self.layers = [Layer(sizes[i], sizes[i + 1], i + 1 < len(nouts)) for i in range(len(nouts))]

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def parameters(self) -> list[Value]:
        return [p for layer in self.layers for p in layer.parameters()]
