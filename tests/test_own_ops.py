"""Ops of one's own by `_backward`, as micrograd's scripts make them: the same bits as there, and a tape that stays whole."""

from __future__ import annotations

import copy
import gc
import itertools
import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import micrograd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from process import printed_by

import microgpt
from microgpt import Matrix, Value, Vector
from microgpt._tape import get_tape


def own(engine: Any, name: str, data: float, children: tuple[Any, ...], partials: tuple[float, ...]) -> Any:
    """A node that passes its gradient on by a `_backward` of its own, which refers to it."""
    out = engine.Value(data, children, name)

    def step() -> None:
        for child, partial in zip(children, partials, strict=True):
            child.grad += partial * out.grad

    out._backward = step
    return out


def squash(engine: Any, x: Any) -> Any:
    t = math.tanh(x.data)
    return own(engine, "squash", t, (x,), (1 - t * t,))


def blend(engine: Any, x: Any, y: Any) -> Any:
    """An op that takes one operand twice."""
    return own(engine, "blend", 0.7 * x.data + 0.3 * y.data - 0.1 * x.data, (x, y, x), (0.7, 0.3, -0.1))


def leak(node: Any, target: Any) -> None:
    """Let `node` give a part of its gradient to `target` as well."""
    before = node._backward

    def step() -> None:
        before()
        target.grad += 0.3 * node.grad

    node._backward = step


def instead(node: Any, target: Any) -> None:
    def step() -> None:
        target.grad += node.grad * node.grad

    node._backward = step


MAKE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "leaf": lambda e, x, y: e.Value(x.data * 0.9 + 0.05),
    "add": lambda e, x, y: x + y,
    "mul": lambda e, x, y: x * y,
    "sub": lambda e, x, y: x - y,
    "div": lambda e, x, y: x / y,
    "neg": lambda e, x, y: -x,
    "pow": lambda e, x, y: x**3,
    "constants": lambda e, x, y: 1.5 - 0.3 * x + 2 / y,
    "exp": lambda e, x, y: x.exp(),
    "tanh": lambda e, x, y: x.tanh(),
    "relu": lambda e, x, y: x.relu(),
    "squash": lambda e, x, y: squash(e, x),
    "blend": blend,
}
CHANGE: dict[str, Callable[[Any, Any], Any]] = {
    "leak": leak,
    "instead": instead,
    "step": lambda x, y: x._backward(),
    "backward": lambda x, y: x.backward(),
    "reset": lambda x, y: setattr(x, "grad", 0.0),
}
Instructions = list[tuple[str, int, int]]


def run(engine: Any, program: Instructions) -> Iterator[Any]:
    """After each instruction all that is still held: bits of data and gradients, or the exception."""
    values = [engine.Value(0.3), engine.Value(-1.7), engine.Value(2.0)]
    for name, i, j in program:
        x, y = values[-1 - i % len(values)], values[-1 - j % len(values)]
        try:
            if name in MAKE:
                values.append(MAKE[name](engine, x, y))
            elif name in CHANGE:
                CHANGE[name](x, y)
            elif name == "forget" and len(values) > 1:
                values.remove(x)
            elif engine is microgpt:
                x = y = None
                get_tape().collect()
        except ArithmeticError as error:
            yield type(error)
        yield [(v.data.hex(), v.grad.hex()) for v in values]
    values[-1].backward()
    yield [(v.data.hex(), v.grad.hex(), v._op) for v in values]


programs = st.lists(
    st.tuples(st.sampled_from([*MAKE, *MAKE, *CHANGE, "forget", "collect"]), st.integers(0, 9), st.integers(0, 9)), max_size=40
)


@given(program=programs)
def test_programs_with_own_ops_have_the_bits_of_micrograd(program: Instructions) -> None:
    assert list(run(microgpt, program)) == list(run(micrograd, program))


@pytest.fixture(params=[microgpt, micrograd], ids=["engine", "micrograd"])
def grad_engine(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


def test_a_node_that_nobody_held_passes_on_by_its_own_function(grad_engine: Any) -> None:
    x = grad_engine.Value(0.5)
    y = squash(grad_engine, squash(grad_engine, x)) * 3.0
    gc.collect()
    get_tape().collect()
    y.backward()
    (outer,) = {v for v in y._prev if v._op}
    assert (outer._op, outer.grad) == ("squash", 3.0)
    t = math.tanh(0.5)
    assert x.grad == (1 - t * t) * ((1 - outer.data * outer.data) * 3.0)


def test_leaf_with_its_own_backward_is_called_once_when_its_gradient_is_there(grad_engine: Any) -> None:
    x, y = grad_engine.Value(2.0), grad_engine.Value(3.0)
    seen = []

    def step() -> None:
        seen.append(x.grad)
        y.grad += 10 * x.grad

    x._backward = step
    z = x * x + x * y
    z.backward()
    assert seen == [7.0]
    assert y.grad == 2.0 + 70.0
    x.backward()
    assert seen == [7.0, 1.0]


def test_own_steps_can_be_replaced_and_deleted_on_leaves_and_computed_nodes() -> None:
    x = Value(3.0)
    y = x * 2.0
    root = y * 5.0
    calls: list[str] = []

    def gradients() -> tuple[list[str], float]:
        calls.clear()
        root.zero_grad()
        root.backward()
        return list(calls), x.grad

    for node, by_engine in ((y, 10.0), (x, 10.0)):
        node._backward = lambda: calls.append("first")
        assert gradients() == (["first"], 0.0 if node is y else by_engine)
        node._backward = lambda: calls.append("second")
        assert gradients() == (["second"], 0.0 if node is y else by_engine)
        assert "_backward" in vars(node)
        del node._backward
        assert gradients() == ([], by_engine)
        with pytest.raises(AttributeError, match=r"has no _backward of its own"):
            del node._backward


@pytest.mark.parametrize("wrong", [None, 3, "f"])
def test_own_step_that_cannot_be_called_is_refused(wrong: Any) -> None:
    x = Value(1.0)
    with pytest.raises(TypeError, match=f"_backward must be a function of no arguments, got {type(wrong).__name__}"):
        x._backward = wrong
    x.backward()
    assert vars(x) == {}


def test_every_node_does_its_own_step_alone() -> None:
    x, y = Value(2.0), Value(5.0)
    for node, expected in (
        (x * y, [5.0, 2.0]),
        (x + y, [1.0, 1.0]),
        (x**3, [12.0, 0.0]),
        (Vector([x, y, x]).sum(), [2.0, 1.0]),
        (Vector([x, y]) @ Vector([y, x]), [10.0, 4.0]),
        (Value(1.0, (x, y, x), (1.0, 2.0, 3.0)), [4.0, 2.0]),
        (x, [0.0, 0.0]),
    ):
        x.grad = y.grad = 0.0
        node.grad = 1.0
        node._backward()
        assert [x.grad, y.grad] == [1.0 + expected[0] if node is x else expected[0], expected[1]]
    stale = x * y
    x.data = 7.0
    y.grad = 0.0
    with pytest.raises(RuntimeError, match="was changed after it was used"):
        stale._backward()
    assert y.grad == 0.0


def tripled(node: Value, operands: list[Value], calls: list[str]) -> None:
    """Let `node`, an ordinary one, pass on three times what it should."""
    partials = node.local_grads

    def step() -> None:
        calls.append(node.op)
        for operand, partial in zip(operands, partials, strict=True):
            operand.grad += 3 * partial * node.grad

    node._backward = step


@pytest.mark.parametrize("place", [0, 1, 3])
def test_own_steps_of_computed_nodes_in_runs_are_called(place: int) -> None:
    calls: list[str] = []
    x, w = Vector([1.0, 2.0, 3.0, 4.0]), Vector([5.0, 6.0, 7.0, 8.0])
    v = (x * w) * 2.0
    product = x * w
    root = (v + product).sum()
    node = v[place].children[0]
    tripled(node, list(node.children), calls)
    get_tape().collect()
    root.backward()
    assert calls == ["mul"]
    assert x.grad == [(1 + 2 * (3 if i == place else 1)) * w.data[i] for i in range(4)]
    assert w.grad == [(1 + 2 * (3 if i == place else 1)) * x.data[i] for i in range(4)]


@pytest.mark.parametrize("place", [0, 2, 4])
def test_own_steps_of_leaves_in_runs_are_called(place: int) -> None:
    other = Value(0.0)
    x = Vector([1.0, 2.0, 3.0, 4.0, 5.0])
    leaf = x[place]
    leaf._backward = lambda: setattr(other, "grad", other.grad + leaf.grad)
    root = (x * 7.0).sum() + x @ x
    get_tape().collect()
    root.backward()
    assert other.grad == 7.0 + 2 * (place + 1)
    assert x.grad == [7.0 + 2 * (i + 1) for i in range(5)]


@pytest.mark.parametrize("row", [0, 1, 2])
def test_own_steps_of_rows_of_a_product_are_called(row: int) -> None:
    calls: list[str] = []
    w = Matrix([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    x = Vector([7.0, 8.0])
    y = w @ x
    node = y[row]
    tripled(node, list(node.children), calls)
    (y * Vector([1.0, 10.0, 100.0])).sum().backward()
    factor = [10.0**i * (3 if i == row else 1) for i in range(3)]
    assert calls == ["dot"]
    assert w.grad == [[7.0 * f, 8.0 * f] for f in factor]
    assert x.grad == [sum(f * (2 * i + k) for i, f in enumerate(factor)) for k in (1, 2)]


@pytest.mark.usefixtures("small_graphs")
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("k", range(2))
def test_own_steps_are_called_where_products_of_one_matrix_are_taken_together(place: int, k: int) -> None:
    calls: list[str] = []
    w, x = Matrix([[1.0, 2.0], [3.0, 4.0]]), Matrix([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    for _ in range(4):  # the second takes the plan of the first
        w.grad, x.grad = [[0.0] * 2] * 2, [[0.0] * 2] * 4
        calls.clear()
        ys = w @ x[:]
        node = ys[place][k]
        tripled(node, list(node.children), calls)
        (Vector([y for row in ys for y in row]) @ Vector([float(i) for i in range(8)])).backward()
        assert calls == ["dot"]
        g = [[(2.0 * i + r) * (3 if (i, r) == (place, k) else 1) for r in range(2)] for i in range(4)]
        assert w.grad == [[sum(g[i][r] * x.data[i][j] for i in range(4)) for j in range(2)] for r in range(2)]
        assert x.grad == [[sum(g[i][r] * w.data[r][j] for r in range(2)) for j in range(2)] for i in range(4)]


@pytest.mark.parametrize("product", [False, True])
def test_own_step_of_a_sum_whose_operands_are_computed_from_each_other_is_called_once(product: bool) -> None:
    """backward() takes such a sum in parts, between which the operands come."""
    calls: list[str] = []
    x = Value(2.0) * 1.0
    operands = [x, x * 3.0, x * x, x * 5.0]
    vector = Vector(operands)
    total = vector @ Vector([1.0] * 4) if product else vector.sum()
    root = total * 1.0
    root.backward()
    assert x.grad == 1.0 + 3.0 + 4.0 + 5.0
    root.zero_grad()
    tripled(total, list(total.children), calls)
    root.backward()
    assert calls == [total.op]
    assert x.grad == 3 * (1.0 + 3.0 + 4.0 + 5.0)


def interrupted(error: type[BaseException], nodes: int) -> None:
    x = Value(3.0)
    y = x * 2.0
    z = Value(1.0, (y,), "z")
    root = z * z
    steps = [error("stop"), None]

    def step() -> None:
        wrong = steps.pop(0)
        if wrong is not None:
            raise wrong
        y.grad += 5 * z.grad

    z._backward = step
    with pytest.raises(error, match="stop"):
        root.backward()
    assert (root.grad, z.grad, y.grad, x.grad) == (1.0, 2.0, 0.0, 0.0)
    junk = [x * i for i in range(10_000)]
    del junk
    get_tape().collect()
    assert get_tape().nodes == nodes + 4
    root.zero_grad()
    root.backward()
    assert (z.grad, y.grad, x.grad) == (2.0, 10.0, 20.0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_exception_in_an_own_step_leaves_the_tape_usable(error: type[BaseException]) -> None:
    gc.collect()
    get_tape().collect()
    nodes = get_tape().nodes
    interrupted(error, nodes)
    gc.collect()  # the traceback
    get_tape().collect()
    assert get_tape().nodes == nodes


def test_own_steps_may_build_graphs_and_go_through_others() -> None:
    x, other = Value(3.0), Value(0.5)
    z = Value(6.0, (x,), "double")
    made: list[Value] = []

    def step() -> None:
        graph = sum((other * i for i in range(3000)), other.exp())
        graph.backward()
        made.append(graph)
        get_tape().collect()
        x.grad += 2 * z.grad

    z._backward = step
    root = sum((x * i for i in range(2000)), z) * 1.0
    get_tape().collect()
    for times in (1, 2):
        root.zero_grad()
        root.backward()
        assert x.grad == 2 + sum(range(2000))
        assert len(made) == times
        assert other.grad == times * (math.exp(0.5) + sum(range(3000)))
    with pytest.raises(RuntimeError, match="shares computed nodes"):
        nested(root, z)
    root.zero_grad()
    root.backward()
    assert x.grad == 2 + sum(range(2000))


def nested(root: Value, z: Value) -> None:
    """A step that calls backward() on the graph which is under way."""
    before = z._backward
    z._backward = lambda: (z * 1.0).backward()
    try:
        root.backward()
    finally:
        z._backward = before


def test_leaf_changed_by_an_own_step_is_told_if_partials_below_need_it() -> None:
    """A leaf that partials below need makes the rest wrong: told. One that nothing needs any more does not matter."""
    w, x, needed_no_more = Value(2.0), Value(3.0), Value(5.0)
    y = w * x
    z = Value(y.data, (y,), "same")
    root = z * needed_no_more
    change: list[Value] = []

    def step() -> None:
        y.grad += z.grad
        for leaf in change:
            leaf.data += 1.0

    z._backward = step
    change.append(needed_no_more)
    root.backward()
    assert (w.grad, x.grad) == (15.0, 10.0)
    needed_no_more.data = 5.0
    change[:] = [w]
    root.zero_grad()
    with pytest.raises(RuntimeError, match="a leaf used by `mul` was changed after it was used"):
        root.backward()
    assert (w.grad, x.grad) == (0.0, 0.0)
    w.data = 2.0
    change.clear()
    root.zero_grad()
    root.backward()
    assert (w.grad, x.grad) == (15.0, 10.0)


def test_own_steps_may_drop_what_was_held() -> None:
    x = Value(3.0)
    held = [x * 1.0]
    for _ in range(50):
        held.append(squash(microgpt, held[-1]))
    root = held[-1] * 2.0
    held.append(Value(0.0))
    expected = math.prod(1 - v.data * v.data for v in held[1:51]) * 2.0

    def step() -> None:
        held.clear()
        gc.collect()
        get_tape().collect()
        root.children[0].children[0].grad += (1 - root.children[0].data ** 2) * root.children[0].grad

    root.children[0]._backward = step
    root.backward()
    assert held == []
    assert math.isclose(x.grad, expected, rel_tol=1e-12)


def test_own_step_taken_away_before_its_turn_is_told() -> None:
    """A node that nothing passes on for would lose its gradient unnoticed."""
    x = Value(2.0)
    below = Value(4.0, (x,), "below")
    above = own(microgpt, "above", 4.0, (below,), (1.0,))
    take, root = above._backward, above * 1.0

    def step() -> None:
        take()
        del below._backward

    above._backward = step
    for held in (True, False):
        below._backward = lambda: None
        root.zero_grad()
        if not held:
            below = None  # type: ignore[assignment]
            step_of_above = above._backward
            above._backward = lambda: delattr(above.children[0], "_backward")
            assert step_of_above is step
        with pytest.raises(RuntimeError, match=r"the node `below` cannot pass its gradient on"):
            root.backward()
        assert x.grad == 0.0


def test_node_without_partials_is_refused_with_both_ways_named_before_anything_changes() -> None:
    x, y = Value(2.0), Value(3.0)
    for arguments, name in ((("power",), "power"), ((), "custom")):
        lost = Value(8.0, (x, y), *arguments)
        root = lost * x + y * y
        x.grad, y.grad, lost.grad, root.grad = 1.0, 2.0, 3.0, 4.0
        for call in (root.backward, lost.backward, lost._backward):
            with pytest.raises(RuntimeError) as raised:
                call()
            assert str(raised.value) == (
                f"the node `{name}` cannot pass its gradient on: give its partials, Value(data, children, local_grads), or set "
                "a function that adds to the grad of its children, node._backward = f"
            )
            assert (x.grad, y.grad, lost.grad, root.grad) == (1.0, 2.0, 3.0, 4.0)
        with pytest.raises(RuntimeError, match=f"the node `{name}` was made without local_grads"):
            _ = lost.local_grads
        assert (lost.children, lost._prev, lost.op) == ((x, y), {x, y}, name)
        root.zero_grad()
        assert (x.grad, y.grad, lost.grad) == (0.0, 0.0, 0.0)
        lost._backward = lambda: None
        root.backward()
        assert (x.grad, y.grad) == (8.0, 6.0)
        with pytest.raises(RuntimeError, match="without local_grads"):
            _ = lost.local_grads
        del lost._backward
        with pytest.raises(RuntimeError, match="cannot pass its gradient on"):
            root.backward()


def test_node_without_partials_is_refused_where_no_other_node_ever_had_a_function_of_its_own() -> None:
    """Also where the tape learnt of such nodes long before, and where the node is deep in a graph of runs."""
    x = Vector([1.0, 2.0, 3.0])
    lost = Value(1.0, (x[0],))
    root = (x * lost).sum() + (x @ x)
    get_tape().collect()
    with pytest.raises(RuntimeError, match="the node `custom`"):
        root.backward()
    assert x.grad == [0.0] * 3


def test_the_same_in_a_process_where_no_leaf_ever_had_a_function_of_its_own() -> None:
    """There backward() goes by runs and shapes of graphs met before."""
    chosen = "computed_nodes_in_runs or rows_of_a_product or products_of_one_matrix or sum_whose or refused_where"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen]
    result = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout


class Doubled:
    """A step that travels: it gives twice the gradient of one leaf to another."""

    def __init__(self, source: Value, target: Value) -> None:
        self.source, self.target = source, target

    def __call__(self) -> None:
        self.target.grad += 2 * self.source.grad


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda leaf: pickle.loads(pickle.dumps(leaf))])
def test_leaves_travel_with_their_functions(travel: Callable[[Any], Any]) -> None:
    source, target = Value(1.0), Value(2.0)
    source._backward = Doubled(source, target)
    copied, beside = travel([source, target])
    assert copied is copied._backward.source is not source
    assert beside is copied._backward.target is not target
    (copied * 5.0).backward()
    assert (copied.grad, beside.grad) == (5.0, 10.0)
    assert (source.grad, target.grad) == (0.0, 0.0)
    alike = copy.copy(source)
    assert alike._backward is source._backward
    (alike * 5.0).backward()
    assert (alike.grad, source.grad, target.grad) == (5.0, 0.0, 0.0)


NAMES = {
    "data": {"data": 4.0},
    "children": {"children": True, "_children": True},
    "third": {"local_grads": (1.0,), "_op": "twice", "local_grads as a name": "twice"},
    "label": {"label": "x"},
}


def ways() -> Iterator[tuple[int, list[tuple[str, Any]]]]:
    """Every way to give the arguments: how many by position, and the others by which keyword."""
    choices = [[*kinds.items(), None] for kinds in NAMES.values()]
    for choice in itertools.product(*choices):
        if choice[0] is None:
            continue
        for positional in range(5):
            if None not in choice[:positional]:
                yield positional, list(choice)


@pytest.mark.parametrize(("positional", "choice"), list(ways()))
def test_constructor_takes_either_set_of_names(positional: int, choice: list[tuple[str, Any]]) -> None:
    child = Value(2.0)
    arguments: list[Any] = []
    keywords: dict[str, Any] = {}
    for i, chosen in enumerate(choice):
        if chosen is None:
            continue
        name, value = chosen
        value = (child,) if i == 1 else value
        if i < positional:
            arguments.append(value)
        else:
            keywords[name.partition(" ")[0]] = value
    third = choice[2][1] if choice[2] else None
    if third == (1.0,) and not choice[1]:
        with pytest.raises(ValueError, match="got 0 children and 1 local_grads"):
            Value(*arguments, **keywords)
        return
    value = Value(*arguments, **keywords)
    assert value.data == 4.0
    assert value.children == ((child,) if choice[1] else ())
    assert value.label == ("x" if choice[3] else "")
    name = "twice" if third == "twice" else None
    assert value.op == (name or ("custom" if choice[1] else "leaf"))
    assert value._op == (name or ("custom" if choice[1] else ""))
    if choice[1] and third != (1.0,):
        with pytest.raises(RuntimeError, match="cannot pass its gradient on"):
            value.backward()
    else:
        value.backward()
        assert child.grad == (1.0 if choice[1] else 0.0)


X = Value(1.0)
TWICE: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((1.0, (X,)), {"_children": (X,)}, "children once"),
    ((1.0,), {"children": (X,), "_children": (X,)}, "children once"),
    ((1.0, [X]), {"_children": [X]}, "children once"),
    ((1.0, (X,), "a"), {"_op": "b"}, "the name of the op once"),
    ((1.0, (X,), "a"), {"_op": "a"}, "the name of the op once"),
    ((1.0, (X,)), {"local_grads": "a", "_op": "b"}, "the name of the op once"),
    ((1.0, (X,)), {"children": (X,)}, "children"),
    ((1.0, (X,), "a"), {"local_grads": "b"}, "local_grads"),
    ((1.0, (X,), "a", "b"), {"label": "c"}, "label"),
    ((1.0,), {"data": 1.0}, "data"),
    ((1.0, (X,), (1.0,), "b", "c"), {}, "argument"),
    ((1.0,), {"op": "a"}, "op"),
    ((1.0,), {"_label": "a"}, "_label"),
    ((), {}, "at least 1 positional argument"),
]


@pytest.mark.parametrize(("arguments", "keywords", "message"), TWICE)
def test_constructor_takes_nothing_twice(
    arguments: tuple[Any, ...], keywords: dict[str, Any], message: str, refusal: Callable[..., str]
) -> None:
    assert message in refusal(TypeError, lambda: Value(*arguments, **keywords))


@pytest.mark.parametrize("wrong", [None, 3, b"a", ("a",), X])
def test_the_name_of_an_op_is_a_string(wrong: Any, refusal: Callable[..., str]) -> None:
    for keywords in ({}, {"_children": (X,)}, {"children": (X,), "local_grads": (1.0,)}):
        message = refusal(TypeError, lambda keywords=keywords: Value(1.0, **keywords, _op=wrong))
        assert message == f"the name of an op must be a string, got {type(wrong).__name__}"


def test_partials_and_a_name_go_together() -> None:
    x = Value(3.0)
    y = Value(9.0, (x,), (6.0,), "y", _op="square")
    y.backward()
    assert (y.op, y._op, y.label, y.local_grads, x.grad) == ("square", "square", "y", (6.0,), 6.0)


def test_children_may_be_any_iterable() -> None:
    x, y = Value(1.0), Value(2.0)
    for children in ([x, y], iter((x, y)), {x: 0, y: 1}, Vector([x, y])):
        assert Value(3.0, children, "+").children == (x, y)
    assert Value(3.0, {x, y}, "+")._prev == {x, y}
    for wrong in ((1.0,), "x", [None]):
        with pytest.raises(TypeError, match="children must be Values"):
            Value(3.0, wrong, "+")


@pytest.mark.parametrize("make", [lambda s: 2.5**s, lambda s: s * 0.5, lambda s: s - 2.0, lambda s: s * s, microgpt.tanh])
def test_own_step_in_a_graph_whose_sums_are_in_segments_is_called_once(make: Callable[[Value], Value]) -> None:
    """Below a later operand of the dot an earlier one is used. A number in a node is not how many operands it has."""
    called: list[float] = []
    v = Vector([0.3, -0.7, 1.1])
    node = make((v[1:] * v[:-1]) @ v[1:])
    node._backward = lambda: called.append(node.grad)
    node.backward()
    assert called == [1.0]
    assert v.grad == [0.0] * 3


def in_segments() -> tuple[Value, Value, list[Value]]:
    """A sum that backward() takes in parts, the leaf below it, and the operands, computed from each other."""
    leaf = Value(2.0)
    x = leaf * 1.0
    operands = [x, x * 3.0, x * x, x * 5.0]
    return leaf, Vector(operands).sum(), operands


def test_a_sum_whose_own_step_ends_itself_is_called_once() -> None:
    leaf, total, operands = in_segments()
    root = total * 1.0
    called: list[float] = []

    def step() -> None:
        node = root.children[0]
        called.append(node.grad)
        operands[0].grad += 10.0
        del node._backward

    total._backward = step
    del total
    root.backward()
    assert (called, leaf.grad) == ([1.0], 10.0)
    root.zero_grad()
    root.backward()
    assert (called, leaf.grad) == ([1.0], 1.0 + 3.0 + 4.0 + 5.0)


def test_a_sum_that_is_passed_on_in_part_goes_on_so() -> None:
    """What is set on it meanwhile counts from the next backward() on."""
    leaf, total, operands = in_segments()
    calls: list[str] = []

    def step() -> None:
        calls.append("operand")
        operands[0].grad += 5.0 * operands[3].grad
        total._backward = lambda: calls.append("sum")

    operands[3]._backward = step
    total.backward()
    assert (calls, leaf.grad) == (["operand"], 1.0 + 3.0 + 4.0 + 5.0)
    total.zero_grad()
    total.backward()
    assert (calls[1:], leaf.grad) == (["sum", "operand"], 0.0)


def run_alone(code: str) -> str:
    """Run `code` in a process of its own, where no node ever had a step of its own, and return what it prints."""
    return printed_by("from microgpt import Value, Vector\nfrom microgpt._tape import get_tape\n" + code)


def test_own_steps_written_into_the_dict_of_a_value_count() -> None:
    code = """
x = Vector([1.0, 2.0, 3.0])
leaf, inner = x[1], (x * 2.0)[0]
root = (x * 3.0).sum() + inner
of_leaf, of_inner = vars(leaf), vars(inner)
calls = []
for _ in range(2):
    of_leaf["_backward"] = lambda: calls.append("leaf")
    of_inner.update(_backward=lambda: calls.append("inner"))
    root.backward()
    print(*sorted(calls), x.grad)
    root.zero_grad()
    calls.clear()
    of_leaf.clear()
    del of_inner["_backward"]
    root.backward()
    print(*calls, x.grad)
    root.zero_grad()
"""
    assert run_alone(code) == 2 * "inner leaf [3.0, 3.0, 3.0]\n[5.0, 3.0, 3.0]\n"


def test_a_leaf_whose_step_went_with_its_dict_is_an_ordinary_leaf() -> None:
    code = """
x, others = Value(2.0), Vector([0.0] * 9)
y = x * 3.0
y.backward()                        # y, node 11, keeps a gradient
v = Vector([5.0, 6.0, 7.0])
leaf = v[0]
leaf._backward = lambda: None
x.data, others.data = 2.0, [1.0] * 9
leaf.data = 5.0                     # what a leaf was set from, for the eleventh time
vars(leaf).clear()
del leaf
get_tape().collect()
v.sum().backward()
(v * 2.0).sum().backward()
print(x.grad, v.grad)
"""
    assert run_alone(code) == "3.0 [3.0, 3.0, 3.0]\n"
