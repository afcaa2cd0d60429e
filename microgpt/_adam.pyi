from array import array

from microgpt._vector import Vector

def check_leaves(parameters: Vector) -> None: ...
def adam_step(
    parameters: Vector,
    m: array[float],
    v: array[float],
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    correction1: float,
    correction2: float,
) -> None: ...
