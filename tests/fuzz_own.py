"""What programs of the fuzzer call beside the engine: own ops, as micrograd writes them, and what is written on nodes."""

from __future__ import annotations

import math
from typing import Any

import twin


def children(a: Any) -> list[Any]:
    return twin.children(a) if isinstance(a, twin.Value) else list(a.children)


def friends(value: Any) -> list[Any]:
    friend = getattr(value, "friend", [])
    return friend if isinstance(friend, list) else [friend]


def friend(a: Any) -> Any:
    return [*friends(a), a][0]


def child(a: Any, i: int) -> Any:
    """A child, of a leaf itself."""
    return ([*children(a)] or [a])[i % (len(children(a)) or 1)]


def own(e: Any, a: Any) -> Any:
    out = e.Value(math.tanh(a.data), (a,), "tanh")

    def backward() -> None:
        a.grad += (1 - out.data * out.data) * out.grad

    out._backward = backward
    return out


def hook(a: Any) -> None:
    """Have a node pass on something else, and a leaf halve its gradient."""
    below = children(a)

    def backward() -> None:
        for v in below:
            v.grad += 0.25 * a.grad
        if not below:
            a.grad = 0.5 * a.grad

    a._backward = backward


def nested(e: Any, a: Any) -> Any:
    """An op that asks for gradients in the middle of backward(), which is refused if `a` is computed."""
    out = e.Value(a.data, (a,), "nested")

    def backward() -> None:
        try:
            (a * 2.0).backward()
        except RuntimeError:
            out.note = "refused"
        a.grad += out.grad

    out._backward = backward
    return out


def setting(e: Any, a: Any, leaf: Any) -> Any:
    """An op that changes a leaf in the middle of backward()."""
    out = e.Value(a.data, (a,), "setting")

    def backward() -> None:
        leaf.data = leaf.data + 1.0
        a.grad += out.grad

    out._backward = backward
    return out


def flicker(a: Any) -> None:
    """Set a leaf to many values, each of them used, and back."""
    first, squares = a.data, []
    for i in range(1100):
        a.data = float(i)
        squares.append(a * a)
    a.data = first


HELPERS = (friend, child, own, hook, nested, setting, flicker)
