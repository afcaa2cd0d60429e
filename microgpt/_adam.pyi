from array import array

from microgpt._vector import Vector

def check_leaves(parameters: Vector) -> None: ...
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
