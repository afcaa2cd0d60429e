"""Adam."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any

from microgpt._adam import adam_step, check_leaves, grad_norm, holders, scale_grad
from microgpt._matrix import Matrix
from microgpt._value import Value
from microgpt._vector import Vector


class Adam:
    """Adam over leaves, with microgpt.py's defaults.

    `parameters`: Values, Vectors or Matrices of leaves, in any mixture.
    `m`, `v`: running means of gradient and squared gradient, one number per parameter. `steps`: how many were made.
    `weight_decay`: in each step every parameter first loses learning_rate * weight_decay of itself, apart from the gradient.
    Errors: ValueError for parameters that are missing or computed, and for numbers out of range; TypeError for what are no
    parameters or numbers.
    Source: Kingma & Ba 2015, with bias correction, written as in microgpt.py; decay as in Loshchilov & Hutter 2019 (AdamW).
    """

    def __init__(
        self,
        parameters: Iterable[Value | Vector | Matrix],
        learning_rate: float = 0.01,
        betas: tuple[float, float] = (0.85, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not hasattr(parameters, "__iter__"):
            advice = ": take its parameters()" if hasattr(parameters, "parameters") else ""
            raise TypeError(f"Adam needs a list of parameters, got {type(parameters).__name__}{advice}")
        leaves = [value for parameter in parameters for value in values_of(parameter)]
        if not leaves:
            raise ValueError("Adam needs at least one parameter")
        self.parameters = Vector(leaves)
        check_leaves(self.parameters)
        self._set_numbers(learning_rate, betas, eps, weight_decay)
        self.m = array("d", bytes(8 * len(leaves)))
        self.v = array("d", bytes(8 * len(leaves)))
        self.steps = 0

    def _set_numbers(self, learning_rate: float, betas: Sequence[float], eps: float, weight_decay: float) -> None:
        if not hasattr(betas, "__len__"):
            raise TypeError(f"betas must be two numbers, got {type(betas).__name__}")
        if len(betas) != 2:
            raise ValueError(f"betas must be two numbers, got {betas}")
        beta1, beta2 = (number("each of betas", beta) for beta in betas)
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise ValueError(f"betas must be at least 0 and below 1, got {betas}")
        eps, weight_decay = number("eps", eps), number("weight_decay", weight_decay)
        if not (math.isfinite(eps) and eps > 0):
            raise ValueError(f"eps must be above 0 and finite, got {eps}")
        if not (math.isfinite(weight_decay) and weight_decay >= 0):
            raise ValueError(f"weight_decay must be finite and at least 0, got {weight_decay}")
        self.learning_rate = checked_rate(learning_rate)
        self.betas = beta1, beta2
        self.eps = eps
        self.weight_decay = weight_decay

    def step(self, learning_rate: float | None = None) -> None:
        """Move every parameter against its gradient, then set the gradient to 0.

        `learning_rate` replaces the one given at the start, for this step.
        Errors: OverflowError if the square of a gradient is too large for a float; nothing has changed then.
        """
        rate = checked_rate(self.learning_rate if learning_rate is None else learning_rate)
        beta1, beta2 = self.betas
        adam_step(self.parameters, self.m, self.v, rate, beta1, beta2, self.eps, self.steps + 1, self.weight_decay)
        self.steps += 1

    def clip_grad_norm(self, max_norm: float) -> float:
        """Scale all gradients down so that their norm is at most `max_norm`, and return the norm before.

        The norm is that of all of them together: the root of the sum of their squares. Call it between backward and step.
        Errors: ValueError unless max_norm is finite and above 0; OverflowError if the norm is not finite. Nothing changes then.
        Source: Pascanu et al. 2013.
        """
        limit = number("max_norm", max_norm)
        if not (math.isfinite(limit) and limit > 0):
            raise ValueError(f"max_norm must be finite and above 0, got {max_norm}")
        norm = grad_norm(self.parameters)
        if not math.isfinite(norm):
            raise OverflowError(f"the norm of the gradients is {norm}")
        if norm > limit:
            scale_grad(self.parameters, limit / norm)
        return norm

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to 0, as `step` also does."""
        self.parameters.grad = [0.0] * len(self.parameters)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the optimizer holds beside its parameters, as plain numbers and lists, which JSON can hold."""
        return {
            "learning_rate": self.learning_rate,
            "betas": list(self.betas),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "steps": self.steps,
            "m": list(self.m),
            "v": list(self.v),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the optimizer whose `state_dict` this is has stopped, on as many parameters.

        Errors: ValueError for other keys, other numbers of parameters, and numbers out of range; TypeError for what are no
        numbers. Nothing has changed then.
        """
        names = list(self.state_dict())
        if set(state) != set(names):
            raise ValueError(f"the state of an Adam has {', '.join(names)}, got {', '.join(map(str, state))}")
        m, v = array("d", state["m"]), array("d", state["v"])
        steps = index(state["steps"])
        if not len(m) == len(v) == len(self.parameters):
            raise ValueError(f"{len(self.parameters)} parameters need as many m and v, got {len(m)} and {len(v)}")
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        if not all(mean >= 0 for mean in v):
            raise ValueError(f"v are means of squares, got {next(mean for mean in v if not mean >= 0)}")
        self._set_numbers(*(state[name] for name in ("learning_rate", "betas", "eps", "weight_decay")))
        self.m, self.v, self.steps = m, v, steps

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={getattr(self, name)}" for name in ("learning_rate", "betas", "eps", "weight_decay"))
        return f"<Adam of {len(self.parameters):,} parameters after {self.steps} steps: {numbers}>"

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle the optimizer with its parameters: those of a model that is copied along are the copied model's."""
        return {**vars(self), "parameters": holders(self.parameters)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.parameters = Vector([value for parameter in state["parameters"] for value in values_of(parameter)])
        self.m, self.v = self.m[:], self.v[:]  # a shallow copy has its own, too


def checked_rate(learning_rate: float) -> float:
    """Return `learning_rate` as a float. ValueError unless it is finite and at least 0."""
    rate = learning_rate if type(learning_rate) is float else number("learning_rate", learning_rate)  # in every step
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"learning_rate must be finite and at least 0, got {learning_rate}")
    return rate


def number(name: str, given: float) -> float:
    """Return `given` as a plain float, which JSON can hold. TypeError unless it is a number."""
    try:
        math.isfinite(given)  # of what has a float, so not of a string
    except TypeError:
        if isinstance(given, Value):
            raise  # it says why
        raise TypeError(f"{name} must be a number, got {type(given).__name__}") from None
    return float(given)


def values_of(parameter: Value | Vector | Matrix) -> list[Value]:
    """Return the Values of one parameter, row by row."""
    if isinstance(parameter, Value):
        return [parameter]
    if isinstance(parameter, Vector):
        return list(parameter)
    if isinstance(parameter, Matrix):
        return [value for row in parameter for value in row]
    raise TypeError(f"a parameter is a Value, Vector or Matrix, got {type(parameter).__name__}")
