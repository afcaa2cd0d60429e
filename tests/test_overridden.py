"""Whatever a subclass overrides, no operation reads or writes beyond its nodes, and its result stays that of the class."""

from __future__ import annotations

import contextlib
import copy
import operator
import threading
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import microgpt
from microgpt import Adam, Matrix, Rows, Value, Vector
from microgpt._adam import adam_step, check_leaves, grad_norm, scale_grad
from microgpt._tape import get_tape

OPERATORS = {name: getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "pow", "matmul")}
FUNCTIONS = ("exp", "log", "relu", "tanh", "sigmoid", "sqrt", "sin", "cos", "softmax", "rmsnorm")
NUMBERS = {
    "Value": 0.5,
    "Vector": [0.5, 0.25, 0.75],
    "Matrix": [[0.5, 0.25, 0.75], [0.1, 0.2, 0.3], [0.7, 0.8, 0.9]],
    "Rows": [[0.5, 0.25, 0.75], [0.1, 0.2, 0.3], [0.7, 0.8, 0.9]],
}
CLASSES: dict[str, Any] = {"Value": Value, "Vector": Vector, "Matrix": Matrix, "Rows": Rows}
LIE = object()


def liar(answer: Any) -> Callable[..., Any]:
    return lambda *_: answer


def few(_: Any) -> Iterator[Any]:
    return iter([Value(3.0), Value(4.0)])


def few_vectors(_: Any) -> Iterator[Any]:
    return iter([Vector([3.0]), Vector([4.0])])


def one_item(_: Any, index: Any) -> Any:
    if index == 0:
        return LIE
    raise IndexError


def refuse(*_: Any) -> Any:
    raise LookupError("overridden")


OVERRIDES: dict[str, dict[str, Any]] = {
    "length": {"__len__": liar(10**8)},
    "short length": {"__len__": liar(1)},
    "no length": {"__len__": liar(0)},
    "iterator": {"__iter__": few},
    "iterator of vectors": {"__iter__": few_vectors},
    "iterator of numbers": {"__iter__": lambda _: iter([1.0] * 100)},
    "empty iterator": {"__iter__": lambda _: iter([])},
    "index": {"__index__": liar(10)},
    "float": {"__float__": liar(7.0)},
    "class": {"__class__": property(liar(int))},
    "item": {"__getitem__": one_item},
    **{f"{name} of one": {name: property(liar([1.0]), liar(None))} for name in ("data", "grad")},
    **{f"{name} of many": {name: property(liar([[1.0] * 100] * 100), liar(None))} for name in ("data", "grad", "shape")},
    **{name: {name: property(liar(()))} for name in ("shape", "children", "local_grads", "op", "_children", "_local_grads")},
    **{name: {name: liar(LIE)} for name in ("sum", "mean", "backward", "zero_grad", "tolist", "__array__", "__repr__")},
    **{f"__{side}{name}__": {f"__{side}{name}__": liar(LIE)} for name in OPERATORS for side in ("", "r")},
    **{name: {name: liar(LIE)} for name in ("__neg__", "__abs__", "__bool__", "__eq__", "__contains__", "__reduce__")},
}
OVERRIDES |= {
    f"refused {names}": {name: property(refuse) if isinstance(member, property) else refuse}
    for names, members in OVERRIDES.items()
    for name, member in members.items()
    if name not in ("__class__", "__repr__")
}


def both(x: Any, other: Any) -> Iterator[tuple[str, set[str], Callable[[], Any]]]:
    """Every operator, with the other on either side, and the methods that Python itself calls then."""
    for name, function in OPERATORS.items():
        methods = {f"__{name}__", f"__r{name}__"}
        yield name, methods, lambda function=function: function(x, other)
        yield f"reflected {name}", methods, lambda function=function: function(other, x)


def operations(kind: str, x: Any, others: dict[str, Any]) -> Iterator[tuple[str, set[str], Callable[[], Any]]]:
    """Operations of `x` as (name, methods that Python or the caller calls by itself, function)."""
    value, vector, matrix, rows = others.values()
    for partner, other in others.items():
        for name, methods, function in both(x, other):
            yield f"{name} {partner}", methods, function
    for partner, other in (
        ("itself", x),
        ("number", 2.0),
        ("list", [1.0, 2.0, 3.0]),
        ("rows", [[1.0, 2.0, 3.0]] * 3),
        ("none", None),
    ):
        for name, methods, function in both(x, other):
            yield f"{name} {partner}", methods, function
    for name in FUNCTIONS:
        yield name, set(), lambda name=name: getattr(microgpt, name)(x)
        yield f"{name} of list", set(), lambda name=name: getattr(microgpt, name)([x, x])
    for index in (0, 3, -1, 10**7, 10**30, slice(0, 2), slice(None, None, -1), slice(1, 10**8), [1, 0], [10**7], [10**30], x):
        yield f"[{type(index).__name__}]", {"__getitem__", "__index__"}, lambda index=index: x[index]
        yield f"vector[{type(index).__name__}]", {"__index__"}, lambda index=index: vector[index]
        yield f"matrix[{type(index).__name__}]", {"__index__", "__iter__"}, lambda index=index: matrix[index]
    for name, make in CLASSES.items():
        yield name, {"__float__"}, lambda make=make: make(x)
        yield f"{name} of list", {"__float__"}, lambda make=make: make([x, x])
        yield f"{name} of tuple", {"__float__"}, lambda make=make: make((x,))
    yield "list", {"__iter__", "__len__", "__getitem__"}, lambda: list(x)
    yield "len", {"__len__"}, lambda: len(x)
    yield "neg", {"__neg__"}, lambda: -x
    yield "abs", {"__abs__"}, lambda: abs(x)
    yield "repr", {"__repr__"} | ({"data", "grad"} if kind == "Value" else set()), lambda: repr(x)
    yield "shape", {"shape"}, lambda: x.shape
    yield "sum", {"sum"}, lambda: x.sum()
    yield "mean", {"mean"}, lambda: x.mean()
    yield "float", {"__float__"}, lambda: float(x)
    yield "modulo", {"__pow__"}, lambda: pow(2, 3, x)
    yield "children", {"children"}, lambda: x.children
    yield "custom", set(), lambda: Value(1.0, [x, x], [1.0, 2.0])
    yield "custom of partials", set(), lambda: Value(1.0, [value], [x])
    yield "custom of itself", {"__iter__", "__float__", "__len__"}, lambda: Value(1.0, x, x)
    for function in (microgpt.minimum, microgpt.maximum):
        yield function.__name__, {"__float__"}, lambda function=function: function(x, value)
        yield f"{function.__name__} of a number", set(), lambda function=function: function(1.0, x)
    yield "cross_entropy", set(), lambda: microgpt.cross_entropy(x, 1)
    yield "cross_entropies", set(), lambda: microgpt.cross_entropy(x, [0, 2, 1])
    yield "target", {"__index__"}, lambda: microgpt.cross_entropy(vector, x)
    yield "targets", {"__index__", "__iter__"}, lambda: microgpt.cross_entropy(rows, x)
    yield "attention", {"__iter__"}, lambda: microgpt.attention(x, x, x, 1)
    yield "attention to", set(), lambda: microgpt.attention(vector, [x, x], [x, x], 3)
    yield "attention of rows", {"__iter__"}, lambda: microgpt.attention(rows, x, x, 1)
    yield "attention of query", set(), lambda: microgpt.attention(x, [rows], [rows], 1)
    yield "attention of heads", {"__index__"}, lambda: microgpt.attention(vector, rows, rows, x)
    yield "set data of others", set(), lambda: setattr(vector, "data", x)
    yield "set grad of others", set(), lambda: setattr(rows, "grad", x)
    yield "set data of a matrix", set(), lambda: setattr(matrix, "data", x)
    yield "set grad", {"grad"}, lambda: setattr(x, "grad", NUMBERS[kind])
    yield "set data", {"data"}, lambda: setattr(x, "data", NUMBERS[kind])
    yield "copy", {"__reduce__", "data", "grad", "__class__"}, lambda: copy.deepcopy(x)
    yield "state", set(), lambda: x.__setstate__(NUMBERS[kind])
    yield "Adam", {"__iter__"}, lambda: step(Adam([x]).parameters)
    yield "parameters", set(), lambda: step(x)
    yield "check_leaves", set(), lambda: check_leaves(x)


def step(parameters: Any) -> float:
    """What Adam does with the Vector that it holds."""
    m, v = (array("d", bytes(8 * len(NUMBERS["Vector"]))) for _ in range(2))
    adam_step(parameters, m, v, 0.1, 0.9, 0.99, 1e-8, 1.0, 0.0)
    scale_grad(parameters, 0.5)
    return grad_norm(parameters)


def really(x: Any) -> Any:
    """What `x` holds, read past every override."""
    if isinstance(x, list | tuple):
        return [really(item) for item in x]
    for name, kind in CLASSES.items():
        if kind in type(x).__mro__:
            return name, kind.data.__get__(x), kind.grad.__get__(x)
    return x


def reset(kind: str, x: Any) -> None:
    CLASSES[kind].grad.__set__(x, NUMBERS[kind])
    if kind != "Rows":
        CLASSES[kind].data.__set__(x, NUMBERS[kind])


def outcome(function: Callable[[], Any]) -> Any:
    """What `function` returns, once its last element has gone backward, or the exception."""
    try:
        result = function()
    except Exception as error:
        return error
    if isinstance(result, Value):
        Value.backward(result)
    elif isinstance(result, Vector):
        Value.backward(Vector.__getitem__(result, -1))
    return really(result)


def outcomes(kind: str, members: dict[str, Any]) -> dict[str, Any]:
    """The outcome of every operation that calls no overridden method by itself; Values below and above keep their data."""
    below = [Value(float(i)) for i in range(9)]
    x = type(kind, (CLASSES[kind],), members)(NUMBERS[kind])
    others = {name: make(NUMBERS[name]) for name, make in CLASSES.items()}
    above = [Value(float(i)) for i in range(9)]
    results = {}
    for name, methods, function in operations(kind, x, others):
        if not members.keys().isdisjoint(methods):
            continue
        for other, made in [(kind, x), *others.items()]:
            reset(other, made)
        results[name] = outcome(function), really([x, *others.values()])
        get_tape().collect()
        junk = [Value(-1.0) for _ in range(9)]
        assert [v.data for v in (*below, *above)] == [*range(9), *range(9)], name
        del junk
    return results


@pytest.fixture(scope="module")
def plain() -> dict[str, dict[str, Any]]:
    return {kind: outcomes(kind, {}) for kind in CLASSES}


@pytest.mark.parametrize("name", OVERRIDES)
@pytest.mark.parametrize("kind", CLASSES)
def test_results_are_those_of_the_class(kind: str, name: str, plain: dict[str, dict[str, Any]]) -> None:
    """Or an exception; where the class raises one there is nothing to compare, but the tape stays whole."""
    for operation, (result, holds) in outcomes(kind, OVERRIDES[name]).items():
        expected, held = plain[kind][operation]
        if not isinstance(result, Exception) and not isinstance(expected, Exception):
            assert repr(result) == repr(expected), operation  # repr: nan is nan
            assert repr(holds) == repr(held), operation
        assert not isinstance(result, SystemError | MemoryError), operation


def test_rows_know_their_length() -> None:
    class Long(Rows):
        def __len__(self) -> int:
            return 10**8

    with pytest.raises(IndexError, match="row 10000000 is out of range for Rows of 3 rows"):
        Long(NUMBERS["Rows"])[10**7]
    with pytest.raises(ValueError, match="none was asked for"):
        Long(NUMBERS["Rows"])[5:8]


def test_rows_take_all_of_a_vector() -> None:
    class Short(Vector):
        def __iter__(self) -> Iterator[Value]:
            return iter([self[0], self[1]])

    rows = Rows([Short([1.0, 2.0, 3.0, 4.0, 5.0])])
    assert rows.shape == (1, 5)
    assert rows.data == [[1.0, 2.0, 3.0, 4.0, 5.0]]
    assert Vector(Short([1.0, 2.0, 3.0])).data == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("wrong", [None, 3, [1.0], Value(1.0), Matrix([[1.0]]), Rows([[1.0]])])
def test_adam_steps_a_vector_only(wrong: Any) -> None:
    optimizer = Adam([Vector([1.0, 2.0])])
    optimizer.parameters = wrong
    calls: list[Callable[[], Any]] = [
        optimizer.step,
        lambda: optimizer.clip_grad_norm(1.0),
        lambda: scale_grad(wrong, 1.0),
        lambda: check_leaves(wrong),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="parameters"):
            call()


@pytest.mark.parametrize("kind", ["Vector", "Matrix", "Rows"])
def test_made_once_even_by_an_iterator_that_makes_it(kind: str) -> None:
    x = CLASSES[kind].__new__(CLASSES[kind])

    def items() -> Iterator[Any]:
        x.__init__(NUMBERS[kind])
        yield NUMBERS[kind][0]  # type: ignore[index]

    with pytest.raises(TypeError, match="made once"):
        x.__init__(items())
    assert x.data == NUMBERS[kind]


@pytest.mark.parametrize("kind", ["Vector", "Matrix", "Rows"])
def test_made_once_by_several_threads(kind: str) -> None:
    x = CLASSES[kind].__new__(CLASSES[kind])
    together = threading.Barrier(4)
    makers: list[int] = []

    def make(i: int) -> None:
        def items() -> Iterator[Any]:
            together.wait()
            yield float(i) if kind == "Vector" else [float(i)] * (i + 1)

        with contextlib.suppress(TypeError):
            x.__init__(items())
            makers.append(i)

    threads = [threading.Thread(target=make, args=(i,)) for i in range(together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first,) = makers
    assert x.data == ([float(first)] if kind == "Vector" else [[float(first)] * (first + 1)])


METHODS = [
    (name, method)
    for name, kind in [*CLASSES.items(), ("TapeView", type(get_tape()))]
    for method, member in vars(kind).items()
    if callable(member) and method not in ("__new__", "__doc__")
]


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_methods_refuse_what_is_not_of_their_class(name: str, method: str) -> None:
    kind = CLASSES.get(name, type(get_tape()))
    for other in (None, 3, "a", [1.0], *(make(NUMBERS[made]) for made, make in CLASSES.items() if made != name)):
        for arguments in ((), (1.0,), (1.0, None)):
            with pytest.raises(TypeError):
                vars(kind)[method](other, *arguments)


HUGE = 10**30


@pytest.mark.parametrize("index", [HUGE, -HUGE, 2**63, -(2**63) - 1, 2**32, -(2**32)])
def test_indices_beyond_any_range_are_told(index: int) -> None:
    vector, matrix, rows = Vector(NUMBERS["Vector"]), Matrix(NUMBERS["Matrix"]), Rows(NUMBERS["Rows"])
    calls: list[Callable[[], Any]] = [
        lambda: vector[index],
        lambda: matrix[index],
        lambda: matrix[[0, index]],
        lambda: rows[index],
        lambda: rows[[0, index]],
        lambda: microgpt.cross_entropy(vector, index),
        lambda: microgpt.cross_entropy(rows, [0, index, 1]),
    ]
    for call in calls:
        with pytest.raises(IndexError, match=str(index)):
            call()
    with pytest.raises(ValueError, match=f"n_head to divide 3, got {index}"):
        microgpt.attention(vector, rows, rows, index)
    assert vector[-abs(index) : abs(index)].data == NUMBERS["Vector"]
