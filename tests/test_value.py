"""Value as users hold it: gradients over time, identity, what can be set, what is refused, memory of temporaries."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from op_table import Engine

import microgpt
from microgpt import Matrix, Rows, Value, Vector
from microgpt._tape import get_tape

Refusal = Callable[[type[Exception], Callable[[], Any]], str]


def test_backward_twice_passes_on_interior_gradients(engine: Engine) -> None:
    x = engine.Value(3.0)
    y = x * x * x
    y.backward()
    assert x.grad == 27
    y.backward()
    assert x.grad == 72


def test_backward_twice_with_the_leaf_zeroed_in_between(engine: Engine) -> None:
    x = engine.Value(3.0)
    y = x * x * x
    y.backward()
    x.grad = 0
    y.backward()
    assert x.grad == 45


def test_backward_twice_through_one_node_adds(engine: Engine) -> None:
    x = engine.Value(3.0)
    y = x**3
    y.backward()
    y.backward()
    assert x.grad == 54


def test_zero_grad_clears_the_whole_graph() -> None:
    x, w = Value(3.0), Value(2.0)
    y = x * x * x
    z = Vector([y, w, x]) @ Vector([w, x, y])
    z.backward()
    first = x.grad, w.grad, y.grad
    z.zero_grad()
    assert (x.grad, w.grad, y.grad, z.grad) == (0, 0, 0, 0)
    z.backward()
    assert (x.grad, w.grad, y.grad) == first


def test_backward_of_a_leaf(engine: Engine) -> None:
    x = engine.Value(3.0)
    x.backward()
    assert x.grad == 1


def test_unused_leaf_keeps_its_gradient(engine: Engine) -> None:
    x, unused = engine.Value(3.0), engine.Value(4.0)
    unused.grad = 7
    (x * 2).backward()
    assert unused.grad == 7


def test_numbers_of_every_kind_are_operands() -> None:
    x = Value(2.0)
    for three in (3, 3.0, np.float64(3), np.float32(3), np.int64(3), np.int8(3)):
        assert [(x + three).data, (three + x).data, (three - x).data, (x / three).data] == [5, 5, 1, 2 * 3**-1]
        assert isinstance(three * x, Value)
    assert (x + True).data == 3
    assert Value(True).data == 1.0
    assert isinstance(Value(1).data, float)


def test_a_node_has_at_most_one_live_value() -> None:
    x, y = Value(2.0), Value(3.0)
    z = x * y
    assert z.children == (x, y)
    assert z.children[0] is x
    u = (x + 1) * y
    assert u.children[0] is u.children[0]
    assert len({x, y, *z.children}) == 2


def test_a_walk_over_children_finds_each_node_once() -> None:
    x = Value(2.0)
    y = x * x + x
    z = y * y - x
    seen: set[Value] = set()
    order: list[Value] = []

    def walk(node: Value) -> None:
        if node not in seen:
            seen.add(node)
            for child in node._children:
                walk(child)
            order.append(node)

    walk(z)
    assert len(order) == 6
    assert order[-1] is z
    z.grad = 1
    for node in reversed(order):
        for child, local_grad in zip(node._children, node._local_grads, strict=True):
            child.grad += local_grad * node.grad
    by_hand = x.grad
    z.zero_grad()
    z.backward()
    assert x.grad == by_hand


def test_names_of_micrograd() -> None:
    x, y = Value(2.0), Value(3.0)
    nodes = [x, x + y, x * y, x**2, x.relu(), x.exp(), x - y, x / y]
    assert [v._op for v in nodes] == ["", "+", "*", "**2", "ReLU", "exp", "+", "*"]
    assert (x * y)._prev == {x, y}
    assert repr(Value(2)) == "Value(data=2.0, grad=0.0)"


def test_truth_and_equality_are_those_of_objects(engine: Engine) -> None:
    x = engine.Value(0.0)
    assert bool(x) is True
    assert x != engine.Value(0.0)
    assert x == x
    assert x < 1


def test_data_of_a_leaf_can_be_set() -> None:
    x = Value(2.0)
    x.data -= 0.5
    assert x.data == 1.5
    x.data = 3
    assert (x * x).data == 9


def test_data_of_a_computed_node_is_read_only() -> None:
    y = Value(2.0) * 3
    with pytest.raises(AttributeError, match="`mul`"):
        y.data = 1


@pytest.mark.parametrize(
    "use",
    [
        lambda x, y: x * y,
        lambda x, y: x**2,
        lambda x, y: x.relu() + y,
        lambda x, y: microgpt.minimum(x, y),
        lambda x, y: Vector([y, x]) @ Vector([y, y]),
        lambda x, y: Vector([y, x]) @ Vector([x, y]),
        lambda x, y: (x * y) + 1,
    ],
)
def test_leaf_changed_after_use_is_refused(use: Callable[[Value, Value], Value]) -> None:
    x, y = Value(2.0), Value(3.0)
    root = use(x, y)
    x.data = 5.0
    with pytest.raises(RuntimeError, match="changed after"):
        root.backward()
    assert (x.grad, y.grad) == (0, 0)
    again = use(x, y)
    again.backward()
    assert root.data != again.data
    over = root * 1.0 + again  # the refused search left no mark behind
    with pytest.raises(RuntimeError, match="changed after"):
        over.backward()


def test_local_grads_of_a_changed_leaf_are_refused_too() -> None:
    x = Value(2.0)
    y = x * x
    assert y.local_grads == (2.0, 2.0)
    x.data = 9.0
    with pytest.raises(RuntimeError, match="changed after"):
        _ = y.local_grads


def test_leaf_changed_where_no_partial_needs_it_is_fine() -> None:
    x, y = Value(2.0), Value(3.0)
    root = 2 * x + y - 1
    curve = x.exp() + x.tanh() + x.sqrt() + microgpt.softmax([y, x])[0]
    expected = math.exp(2) + 1 - math.tanh(2) ** 2 + 0.5 / math.sqrt(2) - math.e / (1 + math.e) ** 2
    x.data = 5.0
    root.backward()
    assert (x.grad, y.grad) == (2, 1)
    x.grad = 0
    curve.backward()
    assert x.grad == pytest.approx(expected)


def test_other_leaves_may_change_between_forward_and_backward() -> None:
    """Two models trained in turn, their graphs interleaved, temporaries dropped in between."""
    models = [[Value(0.1 * i + m) for i in range(5)] for m in range(2)]
    for _ in range(20):
        roots = [Vector(p) @ Vector(p) for p in models]
        for p, root in zip(models, roots, strict=True):
            root.backward()
            for v in p:
                v.data -= 0.01 * v.grad
                v.grad = 0
        _ = (models[0][0] * 2).data
    assert all(v.grad == 0 for p in models for v in p)


def test_write_log_survives_rewinds() -> None:
    """A leaf written high on the tape, the tape rewound: newer nodes are not taken for older ones, older ones still are."""
    x, other = Value(2.0), Value(1.0)
    old = x * x
    tall = other * 1
    for _ in range(100):
        tall = tall * 1.0
    x.data = 3.0
    del tall
    new = x * x
    other.data = 2.0
    new.backward()
    assert x.grad == 6
    with pytest.raises(RuntimeError):
        old.backward()


def test_temporaries_give_their_nodes_back() -> None:
    nodes = get_tape().nodes
    x = Value(1.5)
    for _ in range(1000):
        _ = ((x * 2 + x.exp()).log() * x).data
    assert get_tape().nodes == nodes + 1
    del x
    assert get_tape().nodes == nodes


def test_custom_blocks_give_their_memory_back() -> None:
    x = Value(1.5)
    for n in (1, 2, 3, 50):
        y = Value(2.0, [x] * n, [0.5] * n)
        y.backward()
        assert x.grad == 0.5 * n
        x.grad = 0
    Value(2.0, [x, x, x], [1, 2, 3])
    size = get_tape().nbytes
    for _ in range(10_000):
        Value(2.0, [x, x, x], [1, 2, 3])
    assert get_tape().nbytes == size


@pytest.mark.parametrize(
    ("exception", "function"),
    [
        (TypeError, lambda: Value("a")),
        (TypeError, lambda: Value("1.5")),
        (TypeError, lambda: Value(None)),
        (TypeError, lambda: Value(1j)),
        (TypeError, lambda: Value([1.0])),
        (TypeError, lambda: Value()),
        (OverflowError, lambda: Value(10**400)),
        (OverflowError, lambda: Value(1.0) + 10**400),
        (TypeError, lambda: Value(1.0, [2.0], [1.0])),
        (TypeError, lambda: Value(1.0, [Value(2.0)], ["a"])),
        (TypeError, lambda: Value(1.0, 3, [1.0])),
        (ValueError, lambda: Value(1.0, [Value(2.0)], [])),
        (ValueError, lambda: Value(1.0, [], [1.0])),
        (TypeError, lambda: Value(1.0).__init__(2.0)),
        (TypeError, lambda: setattr(Value(1.0), "data", "a")),
        (TypeError, lambda: setattr(Value(1.0), "grad", None)),
        (TypeError, lambda: microgpt.minimum(1.0, 2.0)),
        (TypeError, lambda: microgpt.maximum(Value(1.0), "a")),
        (TypeError, lambda: microgpt.exp(1.0)),
        (TypeError, lambda: microgpt.exp("abc")),
        (TypeError, lambda: pow(Value(2.0), 2, 3)),
    ],
)
def test_wrong_input_gets_a_sentence_and_leaves_no_node(
    exception: type[Exception], function: Callable[[], Any], refusal: Refusal
) -> None:
    assert len(refusal(exception, function)) > 10


def test_messages_say_what_was_given_and_what_is_allowed(refusal: Refusal) -> None:
    assert refusal(ValueError, lambda: Value(-0.25).log()) == "log needs data > 0, got -0.25"
    assert refusal(OverflowError, lambda: Value(710.0).exp()) == "exp of 710.0 is too large for a float"
    assert "0.0 ** -1.0" in refusal(ZeroDivisionError, lambda: Value(0.0) ** -1)
    assert "fractional exponent 0.5, got -2.0" in refusal(ValueError, lambda: Value(-2.0) ** 0.5)
    assert refusal(TypeError, lambda: Value("a")) == "Value needs a number, got str"
    assert "'str'" in refusal(TypeError, lambda: Value(1.0) + "a")


@pytest.mark.parametrize("wrong", [5, None])
def test_children_and_partials_that_are_no_lists_are_told(refusal: Refusal, wrong: Any) -> None:
    name = type(wrong).__name__
    for make in (lambda: Value(1.0, wrong), lambda: Value(1.0, _children=wrong)):
        assert refusal(TypeError, make) == f"children must be Values in a tuple or list, got {name}"
    x = Value(1.0)
    message = refusal(TypeError, lambda: Value(1.0, (x,), wrong))
    assert message == f"local_grads must be numbers in a tuple or list, got {name}"


@pytest.mark.parametrize(
    ("thing", "name"),
    [(Value(1.0), "data"), (Value(1.0), "grad"), (Value(1.0), "_op")]
    + [(thing, name) for thing in (Vector([1.0]), Matrix([[1.0]]), Rows([[1.0]])) for name in ("data", "grad")],
)
def test_what_cannot_be_deleted_is_told_as_python_tells_it(thing: Any, name: str) -> None:
    with pytest.raises(AttributeError):
        delattr(thing, name)


def test_the_name_of_an_op_is_deleted_like_any_attribute() -> None:
    y = Value(1.0) * Value(2.0)
    y._op = "mine"
    assert (y._op, y.op) == ("mine", "mine")
    del y._op
    assert (y._op, y.op) == ("*", "mul")
    with pytest.raises(AttributeError, match="no _op of its own"):
        del y._op


def test_subclass_that_forgets_to_make_itself_is_told(refusal: Refusal) -> None:
    class Forgetful(Value):
        def __init__(self, data: float) -> None:
            self.label = data

    x, y = Forgetful(1.0), Value(2.0)
    in_expressions = [lambda: x + 1, lambda: y * x, lambda: x.exp(), lambda: Vector([x]), lambda: Vector([y]) * x]
    made_into = [
        lambda: Value(1.0, [x], [1.0]),
        lambda: int(x),
        lambda: x < 1,
        lambda: x._backward,
        lambda: repr(x),
        lambda: x.backward(),
        lambda: x.children,
    ]
    looked_at = [lambda: x.data, lambda: setattr(x, "data", 1.0), lambda: setattr(x, "grad", 1.0)]
    for use in in_expressions + made_into + looked_at:
        assert "this Forgetful was never made" in refusal(RuntimeError, use)
    assert "never made" in refusal(RuntimeError, lambda: Vector.__new__(Vector) + 1)
    assert "never made" in refusal(RuntimeError, lambda: Vector.__new__(Vector).sum())
    assert Matrix.__new__(Matrix).shape == (0, 0)


def test_a_value_on_its_way_out_is_not_handed_out_again() -> None:
    class Watched(Value):
        pass

    x = Watched(2.0)
    y = x * 3
    got: list[Value] = []
    watch = weakref.ref(x, lambda _: got.append(y.children[0]))
    del x
    assert watch() is None
    y.backward()
    assert [(v.data, v.grad) for v in got] == [(2.0, 3.0)]


def test_init_called_from_within_init_is_refused() -> None:
    value, vector = Value.__new__(Value), Vector.__new__(Vector)

    class Sly:
        def __init__(self, action: Callable[[], None]) -> None:
            self.action = action

        def __iter__(self) -> Any:
            self.action()
            return iter([Value(1.0)])

    with pytest.raises(TypeError, match="made once"):
        value.__init__(2.0, Sly(lambda: value.__init__(1.0)), [1.0])
    with pytest.raises(TypeError, match="made once"):
        vector.__init__(Sly(lambda: vector.__init__([1.0, 2.0])))
    assert (value.data, vector.data) == (1.0, [1.0, 2.0])


def test_many_handles_of_one_node_die_in_any_order() -> None:
    """In time that grows with their number, not with its square."""
    w = Matrix([[1.0, 2.0]])
    rows = [w[0] for _ in range(200_000)]
    for i in range(0, len(rows), 2):
        rows[i] = None
    rows.reverse()
    while rows:
        rows.pop()
    assert w[0].data == [1.0, 2.0]


def test_subclass_of_value_works() -> None:
    class Named(Value):
        def __init__(self, name: str, data: float) -> None:
            super().__init__(data)
            self.name = name

    x = Named("x", 2.0)
    y = x * x
    assert y.children[0] is x
    y.backward()
    assert (x.name, x.grad, type(y)) == ("x", 4.0, Value)


def test_two_subclasses_of_value_can_be_bases_of_one_class() -> None:
    class Named(Value):
        name = ""

    class Slotted(Value):
        __slots__ = ()

    class Both(Named, Slotted):
        pass

    x = Both(2.0)
    x.name = "x"
    assert ((x * x).data, vars(x)) == (4.0, {"name": "x"})


def test_numpy_arrays_of_values() -> None:
    xs = [Value(1.0), Value(2.0)]
    scaled = np.array([3.0, 4.0]) * xs[0]
    assert scaled.dtype == object
    root = scaled.sum() + (np.array(xs, dtype=object) @ np.array([5.0, 6.0]))
    root.backward()
    assert [x.grad for x in xs] == [12.0, 6.0]


def test_infinities_and_nan_travel() -> None:
    x = Value(math.inf)
    y = x / x
    y.backward()
    assert math.isnan(y.data)
    assert math.isnan(x.grad)


def test_operands_keep_their_order_with_a_subclass(engine: Engine) -> None:
    class Named(engine.Value):  # type: ignore[name-defined]
        def __add__(self, other: Any) -> Any:
            return super().__add__(other)

        def __mul__(self, other: Any) -> Any:
            return super().__mul__(other)

    x, named = engine.Value(2.0), Named(3.0)
    assert list((x + named).children) == [x, named]
    assert list((x * named).children) == [x, named]
    assert list((named + x).children) == [named, x]


@pytest.mark.parametrize("threshold", [1, 2, 3, 5])
def test_children_and_data_are_right_though_the_tape_collects_while_they_are_read(threshold: int) -> None:
    """The cyclic collector, which runs other people's code, can start wherever a list is made."""

    def collect(phase: str, info: dict[str, int]) -> None:
        get_tape().collect()

    for name in ("children", "local_grads", "data", "grad"):
        dead = [Value(float(i)) for i in range(50)]
        keep = Value(7.0)
        v = Vector([1.0, 2.0, 3.0])
        holder, expected = (v, [1.0, 2.0, 3.0]) if name == "data" else (v, [0.0] * 3)
        if name in ("children", "local_grads"):
            holder, expected = v @ v, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
        del dead
        held = [[] for _ in range(300)]  # so that lists are allocated anew, which is what the cyclic collector counts
        gc.collect(0)
        before = gc.get_threshold()
        gc.callbacks.append(collect)
        gc.set_threshold(threshold)
        read = getattr(holder, name)
        gc.set_threshold(*before)
        gc.callbacks.remove(collect)
        others = [Value(-1.0) for _ in range(60)]  # over whatever stood above the top
        assert [x.data if isinstance(x, Value) else x for x in read] == expected
        del others, keep, held


def test_values_made_again_from_dead_ones_are_new() -> None:
    class Tagged(Value):
        pass

    for count in (10, 1000):
        values: list[Value] = [Tagged(2.0) if i % 7 == 0 else Value(2.0) for i in range(count)]
        for value in values:
            value.grad = 5.0
        views = [Vector([value]) for value in values]
        del values[::2]
        with pytest.raises(ValueError, match="log"):
            (values[0] - 2.0).log()
        del values, value, views
        fresh = [Value(3.0) * 1 for _ in range(count)]
        assert {(type(v), v.data, v.grad, len(v.children)) for v in fresh} == {(Value, 3.0, 0.0, 1)}
        assert len(set(fresh)) == count


class Named(Value):
    """A leaf with attributes of its own."""


def test_a_copy_of_a_leaf_that_refers_to_itself_refers_to_itself() -> None:
    leaf = Named(2.0)
    leaf.me, leaf.grad = leaf, 3.0
    for copied in (copy.deepcopy(leaf), pickle.loads(pickle.dumps(leaf))):
        assert copied.me is copied is not leaf
        assert (copied.data, copied.grad) == (2.0, 3.0)
