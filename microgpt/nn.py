"""Multilayer perceptrons with micrograd's names: Module, Neuron, Layer, MLP.

A neuron computes ((b + w[0] * x[0]) + w[1] * x[1]) + ..., the bias first, as micrograd sums it. Weights are drawn by
`random.uniform(-1, 1)`, neuron by neuron in the order of micrograd, biases are 0. Everything may be replaced, added, removed and
subclassed as there: each call reads what the objects hold. Neurons whose biases and weights stand as they were made go together,
as one product; the bits are the same, but where a layer's inputs were computed with its own biases: their gradients may then be
added in another sequence.
Source: Andrej Karpathy, micrograd, nn.py.
"""

from __future__ import annotations

import copyreg
import random
from collections.abc import Iterable, Sequence
from typing import Any

from microgpt._nn import Parts, activation, activations
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


class Neuron(Module, Parts):
    """relu(w . x + b), or w . x + b with `nonlin=False`."""

    def __init__(self, nin: int, nonlin: bool = True) -> None:
        at_least_one("nin", nin)
        self.b = Value(0.0)  # before the weights, as a row of the matrix that a layer multiplies with
        self.w = [Value(random.uniform(-1, 1)) for _ in range(nin)]
        self.nonlin = nonlin

    def __call__(self, x: Inputs) -> Value:
        """Return the activation for the inputs `x`.

        Shape: [nin] -> scalar. Errors: TypeError for a single Value; ValueError for another number of inputs.
        """
        if type(self) is Neuron and (value := activation(self, x)) is not None:
            return value
        inputs = several(x, len(self.w))
        total = sum((wi * xi for wi, xi in zip(self.w, inputs, strict=True)), self.b)
        return total.relu() if self.nonlin else total

    def parameters(self) -> list[Value]:
        """Return the weights, then the bias."""
        return [*self.w, self.b]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the parameters, and what a subclass has added."""
        # The bias first again.
        return copyreg.__newobj__, (type(self),), {"b": self.b, "w": self.w, "nonlin": self.nonlin, **vars(self)}  # type: ignore[attr-defined]

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        return f"{'ReLU' if self.nonlin else 'Linear'}Neuron({len(self.w)})"


NEURON_CALL = Neuron.__call__  # a script may set another one, then products are not what it computes


class Layer(Module):
    """Neurons that share their inputs."""

    def __init__(self, nin: int, nout: int, nonlin: bool = True) -> None:
        at_least_one("nout", nout)
        self.neurons = [Neuron(nin, nonlin) for _ in range(nout)]

    def __call__(self, x: Inputs) -> Any:
        """Return the list of the neurons' activations, or the one Value if there is only one neuron.

        Shape: [nin] -> [nout]. Errors: as of a neuron.
        """
        if hasattr(x, "__next__"):
            x = list(x)  # each neuron goes through it
        values = activations(self.neurons, Neuron if Neuron.__call__ is NEURON_CALL else None, x)
        return values[0] if len(values) == 1 else values

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

    def __call__(self, x: Inputs) -> Any:
        """Return what the last layer returns: a list of Values, or the one Value if there is only one.

        Shape: [nin] -> [nouts[-1]]. Errors: as of a neuron.
        """
        result: Any = x
        for i, layer in enumerate(self.layers):
            # A layer of one neuron returns its Value alone, which in micrograd no layer can follow.
            result = layer([result] if i > 0 and isinstance(result, Value) else result)
        return result

    def parameters(self) -> list[Value]:
        """Return the parameters of layer after layer."""
        return parameters_of(self.layers)

    def __repr__(self) -> str:
        return f"MLP of [{', '.join(map(str, self.layers))}]"


def at_least_one(name: str, size: int) -> None:
    """Raise ValueError for a size below 1."""
    if size < 1:
        raise ValueError(f"{name} must be at least 1, got {size}")


def several(x: Inputs, nin: int) -> list[Value | float]:
    """Return the `nin` inputs `x` as a list."""
    if isinstance(x, Value) or not hasattr(x, "__iter__"):
        raise TypeError(f"a list or Vector of {nin} inputs needed, got {type(x).__name__}")
    inputs = list(x)
    if len(inputs) != nin:
        raise ValueError(f"{nin} inputs needed, got {len(inputs)}")
    return inputs


def parameters_of(modules: Iterable[Module]) -> list[Value]:
    """Return the parameters of each module, one after the other."""
    return [p for module in modules for p in module.parameters()]
