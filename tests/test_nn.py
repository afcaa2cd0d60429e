"""microgpt.nn: whatever a script does to neurons and layers, the bits are those of micrograd's own classes."""

from __future__ import annotations

import copy
import math
import pickle
import random
from collections.abc import Callable
from typing import Any

import micrograd
import numpy as np
import pytest

import microgpt
from microgpt import nn


class Side:
    """One of the two: its classes and its Value."""

    def __init__(self, classes: Any, value: Any) -> None:
        self.Neuron, self.Layer, self.MLP, self.Value = classes.Neuron, classes.Layer, classes.MLP, value


SIDES = [Side(nn, microgpt.Value), Side(micrograd, micrograd.Value)]


def tanh_neuron(side: Side) -> Any:
    class TanhNeuron(side.Neuron):  # type: ignore[name-defined]
        def __call__(self, x: Any) -> Any:
            return sum((wi * xi for wi, xi in zip(self.w, x, strict=True)), self.b).tanh()

    return TanhNeuron


def scaled_neuron(side: Side) -> Any:
    class ScaledNeuron(side.Neuron):  # type: ignore[name-defined]
        def __init__(self, nin: int) -> None:
            super().__init__(nin)
            self.scale = side.Value(1.5)

        def __call__(self, x: Any) -> Any:
            return super().__call__(x) * self.scale

        def parameters(self) -> list[Any]:
            return [*super().parameters(), self.scale]

    return ScaledNeuron


def property_neuron(side: Side) -> Any:
    class SquaredWeights(side.Neuron):  # type: ignore[name-defined]
        def __init__(self, nin: int) -> None:
            super().__init__(nin)
            self.roots = [side.Value(0.5 + i) for i in range(nin)]

        @property
        def w(self) -> Any:
            return [root * root for root in self.roots]

        @w.setter
        def w(self, _: Any) -> None: ...

        def parameters(self) -> list[Any]:
            return [*self.roots, self.b]

    return SquaredWeights


def bare_layer(side: Side) -> Any:
    class Bare(side.Layer):  # type: ignore[name-defined]
        def __init__(self, neurons: list[Any]) -> None:
            self.neurons = neurons

    return Bare


def bare_mlp(side: Side) -> Any:
    class Bare(side.MLP):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.layers = [side.Layer(3, 4), side.Layer(4, 4), side.Layer(4, 2, nonlin=False)]

    return Bare


def doubled_value(side: Side) -> Any:
    class Doubled(side.Value):  # type: ignore[name-defined]
        def __mul__(self, other: Any) -> Any:
            return side.Value.__mul__(self, other) * 2

        def __rmul__(self, other: Any) -> Any:
            return side.Value.__mul__(other, 3.0)

        def __add__(self, other: Any) -> Any:
            return side.Value.__add__(self, other) * 5

    return Doubled


def equal_value(side: Side) -> Any:
    class Equal(side.Value):  # type: ignore[name-defined]
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = side.Value.__hash__

    return Equal


def set_parts(neuron: Any, **parts: Any) -> None:
    for name, part in parts.items():
        setattr(neuron, name, part)


# What a script does to an MLP of 3, 4, 4 and 2 neurons, `s` being one side.
CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "nothing": lambda m, s: None,
    "a neuron replaced": lambda m, s: m.layers[0].neurons.__setitem__(1, s.Neuron(3)),
    "all neurons replaced": lambda m, s: set_parts(m.layers[0], neurons=[s.Neuron(3) for _ in range(4)]),
    "a tuple of neurons": lambda m, s: set_parts(m.layers[0], neurons=tuple(m.layers[0].neurons)),
    "neurons reversed": lambda m, s: m.layers[1].neurons.reverse(),
    "a neuron twice": lambda m, s: m.layers[0].neurons.__setitem__(3, m.layers[0].neurons[0]),
    "the last neuron removed": lambda m, s: m.layers[2].neurons.pop(),
    "a neuron added": lambda m, s: m.layers[2].neurons.append(s.Neuron(4)),
    "all neurons of the last layer removed": lambda m, s: m.layers[2].neurons.clear(),
    "relu switched on": lambda m, s: set_parts(m.layers[2].neurons[0], nonlin=True),
    "relu switched off": lambda m, s: set_parts(m.layers[0].neurons[2], nonlin=False),
    "relu switched off by a number": lambda m, s: set_parts(m.layers[0].neurons[2], nonlin=0),
    "a weight replaced": lambda m, s: m.layers[1].neurons[2].w.__setitem__(0, s.Value(0.7)),
    "a weight replaced by a number": lambda m, s: set_parts(m.layers[1].neurons[2], w=[0.5, *m.layers[1].neurons[2].w[1:]]),
    "weights replaced": lambda m, s: set_parts(m.layers[1].neurons[2], w=[s.Value(0.1 * i - 0.2) for i in range(4)]),
    "a tuple of weights": lambda m, s: set_parts(m.layers[1].neurons[2], w=tuple(m.layers[1].neurons[2].w)),
    "weights reversed": lambda m, s: m.layers[1].neurons[2].w.reverse(),
    "weights swapped with another neuron": lambda m, s: (
        set_parts(m.layers[1].neurons[0], w=m.layers[1].neurons[1].w),
        set_parts(m.layers[1].neurons[1], w=list(m.layers[1].neurons[0].w)),
    ),
    "one weight for all inputs": lambda m, s: set_parts(m.layers[1].neurons[2], w=[s.Value(0.3)] * 4),
    "computed weights": lambda m, s: set_parts(m.layers[1].neurons[2], w=[2 * v for v in m.layers[1].neurons[2].w]),
    "weights computed from the bias": lambda m, s: set_parts(
        m.layers[1].neurons[2], b=(b := s.Value(0.4)), w=[b * 2.0, *[s.Value(0.5) for _ in range(3)]]
    ),
    "a bias replaced": lambda m, s: set_parts(m.layers[1].neurons[2], b=s.Value(0.25)),
    "a bias that is a number": lambda m, s: set_parts(m.layers[1].neurons[2], b=0.25),
    "a bias of -0.0": lambda m, s: set_parts(m.layers[1].neurons[2].b, data=-0.0),
    "the bias a weight as well": lambda m, s: m.layers[1].neurons[2].w.__setitem__(1, m.layers[1].neurons[2].b),
    "one bias for a layer": lambda m, s: [set_parts(n, b=m.layers[0].neurons[0].b) for n in m.layers[0].neurons],
    "a weight of a class with its own operator": lambda m, s: m.layers[0].neurons[1].w.__setitem__(1, doubled_value(s)(0.3)),
    "weights of such a class": lambda m, s: set_parts(
        m.layers[1].neurons[1], b=s.Value(0.3), w=[doubled_value(s)(0.1 * i) for i in range(4)]
    ),
    "a bias of such a class": lambda m, s: set_parts(
        m.layers[1].neurons[1], b=doubled_value(s)(0.3), w=[s.Value(0.1 * i) for i in range(4)]
    ),
    "a weight equal to everything": lambda m, s: m.layers[0].neurons[1].w.__setitem__(1, equal_value(s)(0.3)),
    "a neuron of another kind": lambda m, s: m.layers[0].neurons.__setitem__(2, tanh_neuron(s)(3)),
    "a neuron with a parameter more": lambda m, s: m.layers[0].neurons.append(scaled_neuron(s)(3)) or m.layers[1:2].clear()
    or [n.w.append(s.Value(0.2)) for n in m.layers[1].neurons],
    "a neuron whose weights are a property": lambda m, s: m.layers[0].neurons.__setitem__(0, property_neuron(s)(3)),
    "a neuron without parameters": lambda m, s: m.layers[2].neurons.__setitem__(1, last_only(s)()),
    "a layer replaced": lambda m, s: m.layers.__setitem__(1, s.Layer(4, 4)),
    "a layer added": lambda m, s: m.layers.append(s.Layer(2, 3)),
    "a last layer of one neuron": lambda m, s: m.layers.append(s.Layer(2, 1)),
    "a layer removed": lambda m, s: m.layers.pop(1),
    "a layer that holds neurons it was given": lambda m, s: m.layers.__setitem__(
        0, bare_layer(s)([s.Neuron(3), tanh_neuron(s)(3), s.Neuron(3, nonlin=False), s.Neuron(3)])
    ),
    "an MLP that makes its own layers": lambda m, s: set_parts(m, layers=bare_mlp(s)().layers),
    "neurons moved to another layer": lambda m, s: m.layers[2].neurons.append(m.layers[1].neurons[0]),
}  # fmt: skip


def last_only(side: Side) -> Any:
    class LastOnly(micrograd.Module):
        def __call__(self, x: Any) -> Any:
            return x[-1] * 3.0

    return LastOnly


def bits(values: list[Any]) -> list[str]:
    return [float(v).hex() for v in values]


def listed(result: Any) -> list[Any]:
    return result if isinstance(result, list) else [result]


def train_and_note(model: Any, value: Any, points: list[list[float]], steps: int) -> list[Any]:
    """Outputs and gradients of every step of plain gradient descent, bit for bit."""
    notes = []
    for step in range(steps):
        outs = [listed(model([value(v) for v in point] if step % 2 else point)) for point in points]
        loss = sum((v * v - 0.3 * v for out in outs for v in out), value(0.0))
        parameters = [p for p in model.parameters() if isinstance(p, value)]
        for p in parameters:
            p.grad = 0.0
        loss.backward()
        notes.append((bits([v.data for out in outs for v in out]), bits([p.grad for p in parameters])))
        for p in [p for p in parameters if not p._prev]:
            p.data -= 0.05 * p.grad
    return notes


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("when", ["before the first call", "after a call"])
def test_what_the_objects_hold_is_what_is_computed_and_trained(name: str, when: str) -> None:
    notes = []
    points = [[0.3, -1.2, 0.7], [1.0, 0.5, -0.25], [-0.6, 0.1, 0.9]]
    for side in SIDES:
        random.seed(4)
        model = side.MLP(3, [4, 4, 2])
        for i, p in enumerate(model.parameters()):
            p.data += 0.01 * i  # biases other than 0
        if when == "after a call":
            model(points[0])
        CHANGES[name](model, side)
        notes.append(train_and_note(model, side.Value, points, 4))
    assert notes[0] == notes[1]
    assert name == "all neurons of the last layer removed" or any(any(g != "0x0.0p+0" for g in grads) for _, grads in notes[0])


def mlp_of(nouts: list[int], *, side: Side) -> Any:
    random.seed(5)
    model = side.MLP(3, nouts)
    for i, p in enumerate(model.parameters()):
        p.data += 0.01 * i  # biases other than 0
    return model


@pytest.mark.parametrize("nouts", [[1], [3], [4, 1], [5, 4, 2], [16, 16, 1]])
def test_mlp_equals_micrograds_sums_to_the_bit(nouts: list[int]) -> None:
    ours, theirs = (mlp_of(nouts, side=side) for side in SIDES)
    assert bits([p.data for p in ours.parameters()]) == bits([p.data for p in theirs.parameters()])
    result = ours([0.3, -1.2, 0.7])
    assert type(result) is (microgpt.Value if nouts[-1] == 1 else list)
    points = [[0.3, -1.2, 0.7], [0.0, -0.0, 2.0]]
    assert train_and_note(ours, microgpt.Value, points, 3) == train_and_note(theirs, micrograd.Value, points, 3)
    ours.zero_grad()
    assert not any(p.grad for p in ours.parameters())


def test_a_layer_of_one_neuron_leads_to_the_next() -> None:
    """micrograd's own layers cannot follow one: its Value is no list."""
    ours, theirs = (mlp_of([1, 1], side=side) for side in SIDES)
    value = theirs.layers[1]([theirs.layers[0]([0.3, -1.2, 0.7])])
    assert ours([0.3, -1.2, 0.7]).data.hex() == value.data.hex()


KINDS: dict[str, Callable[[list[float]], Any]] = {
    "list": list, "tuple": tuple, "Vector": microgpt.Vector, "array": np.array, "float32": np.float32, "iterator": iter,
    "Values": lambda x: [microgpt.Value(v) for v in x], "with an int": lambda x: [int(x[0]), *x[1:]],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_inputs_may_come_in_any_sequence(kind: Callable[[list[float]], Any]) -> None:
    model = mlp_of([4, 2], side=SIDES[0])
    point = [1.0, -1.5, 0.25]
    assert bits([v.data for v in model(kind(point))]) == bits([v.data for v in model(point)])
    neuron = model.layers[0].neurons[0]
    assert neuron(kind(point)).data == neuron(point).data


def test_inputs_with_operators_of_their_own_use_them() -> None:
    class Mine:
        def __rmul__(self, other: Any) -> Any:
            return other * 3.0

    layer = mlp_of([2], side=SIDES[0]).layers[0]
    for inputs in ([Mine(), 1.0, 2.0], [doubled_value(SIDES[0])(2.0), 1.0, 2.0]):
        sums = [n.b + n.w[0] * inputs[0] + n.w[1] * 1.0 + n.w[2] * 2.0 for n in layer.neurons]
        assert [v.data for v in layer(inputs)] == [total.data for total in sums]


def test_zeros_keep_their_signs() -> None:
    for side in SIDES:
        layer = side.Layer(2, 2, nonlin=False)
        for neuron in layer.neurons:
            neuron.w[0].data, neuron.w[1].data = 1.0, 2.0
        layer.neurons[1].b.data = -0.0
        assert bits([v.data for v in layer([-0.0, -0.0])]) == bits([0.0, -0.0])


def test_without_inputs_the_bias_is_left() -> None:
    for side in SIDES:
        neuron = side.Neuron(1, nonlin=False)
        neuron.w.clear()
        assert neuron([]) is neuron.b


def test_a_bias_among_the_inputs_gets_its_gradients_in_micrograds_sequence() -> None:
    notes = []
    for side in SIDES:
        layer = mlp_of([3], side=side).layers[0]
        b = layer.neurons[0].b
        outs = layer([b, b, side.Value(0.3)])
        sum((v * v for v in [*outs, b * 0.7]), side.Value(0.0)).backward()
        notes.append(bits([p.grad for p in layer.parameters()]))
    assert notes[0] == notes[1]


def test_what_a_layer_returns_is_a_list() -> None:
    layer = mlp_of([2], side=SIDES[0]).layers[0]
    h = layer([1.0, 2.0, 3.0])
    assert len(h + h) == len(h * 2) == 4


def test_neurons_that_stand_as_they_were_made_go_as_one_product() -> None:
    model = mlp_of([4, 4], side=SIDES[0])
    layer = model.layers[0]

    def ops(x: list[float]) -> list[str]:
        return [out.op for out in (v.children[0] if v.op == "relu" else v for v in layer(x))]

    point = [0.3, -1.2, 0.7]
    assert ops(point) == ["dot"] * 4
    layer.neurons[1].w[0] = microgpt.Value(1.0)
    assert ops(point) == ["dot", "add", "dot", "dot"]
    layer.neurons[1] = nn.Neuron(3)  # its own row
    layer.neurons.append(nn.Neuron(3, nonlin=False))
    assert ops(point) == ["dot"] * 5
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        layer = copied
        assert ops(point) == ["dot"] * 5


def test_a_method_that_is_replaced_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp_of([4, 2], side=SIDES[0])
    monkeypatch.setattr(nn.Neuron, "__call__", lambda self, x: self.b * 2.0)
    assert [v.data for v in model([1.0, 2.0, 3.0])] == [2.0 * neuron.b.data for neuron in model.layers[1].neurons]


@pytest.mark.parametrize("way", [copy.deepcopy, *(lambda m, p=p: pickle.loads(pickle.dumps(m, p)) for p in range(6))])
def test_copies_are_equal_and_independent(way: Callable[[Any], Any]) -> None:
    model = mlp_of([3, 1], side=SIDES[0])
    model.layers[0].neurons[1] = Labelled(3)
    model.layers[1].neurons[0].w[2] = model.layers[0].neurons[0].b
    copied = way(model)
    assert bits([p.data for p in copied.parameters()]) == bits([p.data for p in model.parameters()])
    assert copied([0.3, 0.4, 0.5]).data == model([0.3, 0.4, 0.5]).data
    assert copied.layers[0].neurons[1].label == "second"
    assert copied.layers[1].neurons[0].w[2] is copied.layers[0].neurons[0].b
    copied.layers[0].neurons[1].b.data = 5.0
    assert copied.layers[0]([0.0, 0.0, 0.0])[1].data == 5.0
    assert model.layers[0].neurons[1].b.data == 0.0


class Labelled(nn.Neuron):
    def __init__(self, nin: int) -> None:
        super().__init__(nin)
        self.label = "second"


def test_nn_has_micrograds_names() -> None:
    model = nn.MLP(2, [3, 1])
    assert repr(model) == ("MLP of [Layer of [ReLUNeuron(2), ReLUNeuron(2), ReLUNeuron(2)], Layer of [LinearNeuron(3)]]")
    neuron = model.layers[0].neurons[1]
    assert isinstance(neuron, nn.Module)
    assert (type(neuron.w), type(neuron.b)) == (list, microgpt.Value)
    assert neuron.parameters() == [*neuron.w, neuron.b] == model.parameters()[3:6]
    assert neuron([1.0, 2.0]).data == model.layers[0]([1.0, 2.0])[1].data
    assert nn.Module().parameters() == []


def test_mistakes_are_told() -> None:
    for sizes, message in (((2, []), "at least one layer"), ((0, [1]), "nin must be at least 1, got 0"), ((2, [3, 0]), "nout")):
        with pytest.raises(ValueError, match=message):
            nn.MLP(*sizes)
    model = nn.MLP(2, [3, 1])
    for x in (microgpt.Value(1.0), 1.0):
        with pytest.raises(TypeError, match=f"list or Vector of 2 inputs needed, got {type(x).__name__}"):
            model(x)
    for inputs in ([1.0, 2.0, 3.0], [1.0], []):
        with pytest.raises(ValueError, match=f"2 inputs needed, got {len(inputs)}"):
            model(inputs)
    model.layers[0].neurons[2].w.pop()
    with pytest.raises(ValueError, match="1 inputs needed, got 2"):
        model([1.0, 2.0])
    with pytest.raises(TypeError, match="multiply sequence"):
        model(["a", "b"])
    with pytest.raises(ValueError, match="4 inputs needed, got 2"):
        nn.Layer(4, 2)([1.0, math.inf])
