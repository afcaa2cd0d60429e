from collections.abc import Iterable, Sequence
from typing import Any

from typing_extensions import disjoint_base

from microgpt._value import Value
from microgpt._vector import Vector

@disjoint_base
class Parts:
    b: Value
    w: list[Value]
    nonlin: bool

def activation(neuron: Parts, x: Vector | Sequence[Value | float]) -> Value | None: ...
def activations(neurons: Iterable[Any], kind: type[Parts] | None, x: Vector | Sequence[Value | float]) -> list[Value]: ...
