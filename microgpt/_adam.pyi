from array import array

from microgpt._matrix import Matrix
from microgpt._value import Value
from microgpt._vector import Vector

def check_leaves(parameters: Vector) -> None: ...
def holders(parameters: Vector) -> list[Matrix | Value]: ...
def grad_norm(parameters: Vector) -> float: ...
def scale_grad(parameters: Vector, scale: float) -> None: ...
def adam_step(
    parameters: Vector,
    m: array[float],
    v: array[float],
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: float,
    weight_decay: float,
) -> None: ...
