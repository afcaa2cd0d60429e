"""Results without a graph: no_grad() and detach()."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from microgpt import (
    Matrix,
    Rows,
    Value,
    Vector,
    attention,
    cross_entropy,
    exp,
    maximum,
    nn,
    no_grad,
    reference,
    rmsnorm,
    softmax,
    where,
)
from microgpt._tape import get_tape

OPS: dict[str, Callable[[Value, Vector, Matrix, Rows], Any]] = {
    "number": lambda x, v, w, r: x + 1,
    "pair": lambda x, v, w, r: x * x,
    "quotient": lambda x, v, w, r: 1 / x - x,
    "function": lambda x, v, w, r: x.exp(),
    "own": lambda x, v, w, r: Value(3.0, (x,), (1.0,)),
    "maximum": lambda x, v, w, r: maximum(x, 3.0),
    "where": lambda x, v, w, r: where(True, x, 0.0),
    "vector": lambda x, v, w, r: v * v + x,
    "functions": lambda x, v, w, r: exp(v),
    "dot": lambda x, v, w, r: v @ v,
    "listed dot": lambda x, v, w, r: Vector([x, v[1], x]) @ v,
    "sum": lambda x, v, w, r: v.sum(),
    "mean": lambda x, v, w, r: v.mean(),
    "product": lambda x, v, w, r: w @ v,
    "products": lambda x, v, w, r: w @ r,
    "rows": lambda x, v, w, r: r * 2.0,
    "softmax": lambda x, v, w, r: softmax(v),
    "rmsnorm": lambda x, v, w, r: rmsnorm(r),
    "cross entropy": lambda x, v, w, r: cross_entropy(v, 1),
    "cross entropies": lambda x, v, w, r: cross_entropy(r, [0, 1]),
    "attention": lambda x, v, w, r: attention(v, [v, v], [v, v], 1),
    "layer": lambda x, v, w, r: nn.Layer(3, 2)([x, 1.0, 2.0]),
}


def values_of(result: Any) -> list[Value]:
    if isinstance(result, Value):
        return [result]
    return [value for part in result for value in values_of(part)]


def arguments() -> tuple[Value, Vector, Matrix, Rows]:
    return (
        Value(2.0),
        Vector([1.0, 2.0, 0.5]),
        Matrix([[1.0, 2.0, 3.0], [0.1, 0.2, 0.3]]),
        Rows([[1.0, 2.0, 0.5], [3.0, 1.0, 2.0]]),
    )


@pytest.mark.parametrize("name", OPS)
def test_results_inside_are_leaves_with_the_data_of_outside(name: str) -> None:
    given = arguments()
    nn.random.seed(1)
    outside = values_of(OPS[name](*given))
    nn.random.seed(1)
    with no_grad():
        inside = values_of(OPS[name](*given))
    assert [v.op for v in inside] == ["leaf"] * len(inside)
    assert [v.children for v in inside] == [()] * len(inside)
    assert [v.data.hex() for v in inside] == [v.data.hex() for v in outside]
    assert "leaf" not in [v.op for v in outside]
    total = sum((v * given[0] for v in inside), Value(0.0))
    given[0].grad = 0
    total.backward()
    assert given[0].grad == pytest.approx(sum(v.data for v in inside))
    assert not any(given[1].grad)


def test_other_threads_keep_their_graphs() -> None:
    x = Value(2.0)
    ops = []
    with no_grad():
        thread = threading.Thread(target=lambda: ops.append((x * x).op))
        thread.start()
        thread.join()
        ops.append((x * x).op)
    assert ops == ["mul", "leaf"]


def test_contexts_nest_and_end_with_an_exception() -> None:
    x = Value(2.0)
    with no_grad():
        with no_grad():
            pass
        assert (x * x).op == "leaf"
        with pytest.raises(ZeroDivisionError), no_grad():
            x / 0
        assert (x * x).op == "leaf"
    assert (x * x).op == "mul"
    context = no_grad()
    with pytest.raises(RuntimeError, match="not entered"):
        context.__exit__(None, None, None)
    with context, pytest.raises(RuntimeError, match="entered already"):
        context.__enter__()
    with context:
        assert (x * x).op == "leaf"
    assert (x * x).op == "mul"


def test_a_thread_that_never_left_its_context_does_not_cut_the_next_one() -> None:
    """The system gives the number of a thread that has ended to the next one."""
    x = Value(2.0)
    entered = []

    def enter() -> None:
        entered.append(no_grad())
        entered[-1].__enter__()

    ops = []
    for target in [enter, lambda: ops.append((x * x).op)] * 10:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    ops.append((x * x).op)
    assert ops == ["mul"] * 11
    for context in entered:
        context.__exit__(None, None, None)


def test_what_a_result_was_computed_from_goes() -> None:
    gc.collect()  # what other tests left
    get_tape().collect()
    nodes = get_tape().nodes
    with no_grad():
        y = softmax(Vector([0.1] * 1000))[0] * 2.0
    get_tape().collect()
    assert get_tape().nodes == nodes + 1
    assert y.data == pytest.approx(0.002)


def test_detached_are_new_leaves() -> None:
    x, v, w, r = arguments()
    for made in (x * 2, v * 2, w, r * 2, v[::2], r[0]):
        detached = made.detach()
        assert type(detached) is type(made)
        assert detached.data == made.data
        assert all(value.op == "leaf" for value in values_of(detached))
        assert not set(values_of(detached)) & set(values_of(made))
    ((x * 3).detach() * x).backward()
    assert x.grad == 6.0
    assert (reference.Value(2.0) * 3).detach().children == ()
