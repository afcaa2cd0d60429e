"""Multilayer perceptrons with micrograd's names: Module, Neuron, Layer, MLP.

A neuron computes ((b + w[0] * x[0]) + w[1] * x[1]) + ..., the bias first, as micrograd sums it: one dot of [b, w...] with
[1, x...]. Weights are drawn by `random.uniform(-1, 1)`, neuron by neuron in the order of micrograd, biases are 0.
Source: Andrej Karpathy, micrograd, nn.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from microgpt._functions import relu
from microgpt._matrix import Matrix
from microgpt._value import Value
from microgpt._vector import Vector

Inputs = Vector | Sequence[Value | float]


class Module:
    """Something with parameters."""

    def parameters(self) -> list[Value]:
        """Return every parameter, in the order in which it was drawn, the bias of a neuron after its weights."""
        return []

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to 0."""
        for p in self.parameters():
            p.grad = 0


class Neuron(Module):
    """relu(w . x + b), or w . x + b with `nonlin=False`."""

    def __init__(self, nin: int, nonlin: bool = True) -> None:
        at_least_one("nin", nin)
        self._matrix, self._row = Matrix([[0.0, *(random.uniform(-1, 1) for _ in range(nin))]]), 0
        self.nonlin = nonlin

    @property
    def w(self) -> tuple[Value, ...]:
        """The weights. They cannot be replaced; their data can be set."""
        return tuple(self._matrix[self._row])[1:]

    @property
    def b(self) -> Value:
        """The bias."""
        return self._matrix[self._row][0]

    def __call__(self, x: Inputs) -> Value:
        """Return the activation for the inputs `x`.

        Shape: [nin] -> scalar. Errors: ValueError for another number of inputs.
        """
        row = self._matrix[self._row]
        activation = row @ after_one(x, len(row) - 1)
        return relu(activation) if self.nonlin else activation

    def parameters(self) -> list[Value]:
        """Return the weights, then the bias."""
        return [*self.w, self.b]

    def __repr__(self) -> str:
        return f"{'ReLU' if self.nonlin else 'Linear'}Neuron({len(self._matrix[self._row]) - 1})"


class Layer(Module):
    """Neurons that share their inputs; their biases and weights are the rows of one Matrix."""

    def __init__(self, nin: int, nout: int, nonlin: bool = True) -> None:
        at_least_one("nout", nout)
        self.neurons = [Neuron(nin, nonlin) for _ in range(nout)]
        self._matrix = Matrix([neuron._matrix.data[0] for neuron in self.neurons])
        for i, neuron in enumerate(self.neurons):
            neuron._matrix, neuron._row = self._matrix, i
        self.nonlin = nonlin

    def activations(self, x: Inputs) -> Vector:
        """Return the activations for the inputs `x`.

        Shape: [nin] -> [nout]. Errors: ValueError for another number of inputs.
        """
        sums = self._matrix @ after_one(x, self._matrix.shape[1] - 1)
        return relu(sums) if self.nonlin else sums

    def __call__(self, x: Inputs) -> Vector | Value:
        """Return `activations(x)`, or the Value itself if there is only one."""
        return only(self.activations(x))

    def parameters(self) -> list[Value]:
        """Return the parameters of neuron after neuron."""
        return parameters_of(self.neurons)

    def __repr__(self) -> str:
        return f"Layer of [{', '.join(map(str, self.neurons))}]"


class MLP(Module):
    """Layers in a row, with relu between them and none after the last."""

    def __init__(self, nin: int, nouts: Sequence[int]) -> None:
        if not nouts:
            raise ValueError("an MLP needs at least one layer, got none")
        sizes = [nin, *nouts]
        self.layers = [Layer(sizes[i], sizes[i + 1], nonlin=i + 1 < len(nouts)) for i in range(len(nouts))]

    def __call__(self, x: Inputs) -> Vector | Value:
        """Return the outputs of the last layer, or the Value itself if there is only one.

        Shape: [nin] -> [nouts[-1]]. Errors: ValueError for another number of inputs.
        """
        first, *rest = self.layers
        activations = first.activations(x)
        for layer in rest:
            activations = layer.activations(activations)
        return only(activations)

    def parameters(self) -> list[Value]:
        """Return the parameters of layer after layer."""
        return parameters_of(self.layers)

    def __repr__(self) -> str:
        return f"MLP of [{', '.join(map(str, self.layers))}]"


def at_least_one(name: str, size: int) -> None:
    """Raise ValueError for a size below 1."""
    if size < 1:
        raise ValueError(f"{name} must be at least 1, got {size}")


def after_one(x: Inputs, nin: int) -> list[Value | float]:
    """Return [1, x...], to be multiplied with [b, w...]."""
    if isinstance(x, Value) or not hasattr(x, "__iter__"):
        raise TypeError(f"a list or Vector of {nin} inputs needed, got {type(x).__name__}")
    inputs = [1.0, *x]
    if len(inputs) != nin + 1:
        raise ValueError(f"{nin} inputs needed, got {len(inputs) - 1}")
    return inputs


def only(x: Vector) -> Vector | Value:
    """Return `x`, or its element if it has only one, as micrograd does."""
    return x if len(x) > 1 else x[0]


def parameters_of(modules: Iterable[Module]) -> list[Value]:
    """Return the parameters of each module, one after the other."""
    return [p for module in modules for p in module.parameters()]
