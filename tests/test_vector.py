"""Vector and Matrix: shapes, views, operators, refusals. Their numbers are compared in test_graphs.py."""

from __future__ import annotations

import inspect
import operator
import sys
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import microgpt
from microgpt import Matrix, Rows, Value, Vector
from microgpt._tape import Handle, get_tape

Refusal = Callable[[type[Exception], Callable[[], Any]], str]


def test_vector_of_numbers_makes_leaves() -> None:
    v = Vector([1, 2.5, True])
    assert v.data == [1.0, 2.5, 1.0]
    assert v.grad == [0.0, 0.0, 0.0]
    assert [x.op for x in v] == ["leaf"] * 3


def test_vector_of_values_holds_those_values() -> None:
    xs = [Value(1.0), Value(2.0), Value(3.0)]
    for order in ([0, 1, 2], [2, 0, 1], [1, 1]):
        v = Vector([xs[i] for i in order])
        assert [a is xs[i] for a, i in zip(v, order, strict=True)] == [True] * len(order)
    mixed = Vector([xs[1], 7.0])
    assert mixed[0] is xs[1]
    assert mixed[1].data == 7.0


def test_indices_and_slices_are_views() -> None:
    v = Vector(range(10))
    assert len(v) == 10
    assert v[3] is v[3]
    assert v[-1] is v[9]
    assert v[2:5].data == [2, 3, 4]
    assert v[::-3].data == [9, 6, 3, 0]
    assert v[::-3][1] is v[6]
    assert v[::2][1:3].data == [2, 4]
    kept = v[4]
    (v[2:7] @ v[2:7]).backward()
    assert kept.grad == 8
    for index in (10, -11):
        with pytest.raises(IndexError, match="Vector of 10"):
            v[index]
    with pytest.raises(ValueError, match="empty"):
        v[3:3]


@pytest.mark.parametrize("other", [[4.0, 5.0, 6.0], (4.0, 5.0, 6.0), Vector([4.0, 5.0, 6.0]), 4.0, np.float64(4), Value(4.0)])
def test_operators_are_elementwise_on_either_side(other: Any) -> None:
    v = Vector([1.0, 2.0, 3.0])
    others = (
        list(other)
        if isinstance(other, list | tuple)
        else other.data
        if isinstance(other, Vector)
        else [other.data if isinstance(other, Value) else other] * 3
    )
    assert (v + other).data == [a + b for a, b in zip(v.data, others, strict=True)]
    assert (other + v).data == [a + b for a, b in zip(v.data, others, strict=True)]
    assert (v - other).data == [a - b for a, b in zip(v.data, others, strict=True)]
    assert (other - v).data == [b - a for a, b in zip(v.data, others, strict=True)]
    assert (other * v).data == [a * b for a, b in zip(v.data, others, strict=True)]
    assert (v * other).data == [a * b for a, b in zip(v.data, others, strict=True)]
    assert (v / other).data == [a * b**-1 for a, b in zip(v.data, others, strict=True)]
    assert (other / v).data == [a**-1 * b for a, b in zip(v.data, others, strict=True)]
    assert (v**other).data == [a**b for a, b in zip(v.data, others, strict=True)]
    assert (other**v).data == [b**a for a, b in zip(v.data, others, strict=True)]
    assert (-v).data == [-1.0, -2.0, -3.0]


def test_dot_sum_and_mean_are_one_node_or_two() -> None:
    v, w = Vector([1.0, 2.0, 3.0]), Vector([4.0, 5.0, 6.0])
    dot = v @ w
    assert (dot.data, dot.op) == (32.0, "dot")
    assert dot.children == (v[0], w[0], v[1], w[1], v[2], w[2])
    assert dot.local_grads == (4.0, 1.0, 5.0, 2.0, 6.0, 3.0)
    assert (v @ [4.0, 5.0, 6.0]).data == ([4.0, 5.0, 6.0] @ v).data == 32.0
    assert (v.sum().data, v.sum().op, v.sum().children) == (6.0, "sum", tuple(v))
    assert v.mean().data == 6.0 * 3**-1
    reverse = v[::-1] @ w
    assert (reverse.data, reverse.children[:3]) == (28.0, (v[2], w[0], v[1]))
    assert v[::-1].sum().children == (v[2], v[1], v[0])


def test_matrix_rows_are_vectors_of_its_leaves() -> None:
    w = Matrix([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert w.shape == (2, 3)
    assert len(w) == 2
    assert w[1].data == w[-1].data == [4.0, 5.0, 6.0]
    assert w[1][2] is w[1][2]
    assert [row.data for row in w] == w.data
    y = w @ [1.0, 0.5, 2.0]
    assert y.data == [8.0, 18.5]
    assert y[1].children[0] is w[1][0]
    y[1].backward()
    assert w.grad == [[0.0] * 3, [1.0, 0.5, 2.0]]
    x = [Value(2.0), Value(1.0), Value(0.0)]
    assert (w @ x[::-1]).data == [8.0, 17.0]
    with pytest.raises(IndexError, match="2 rows"):
        w[2]


def test_data_and_grad_can_be_set() -> None:
    w = Matrix([[1.0, 2.0], [3.0, 4.0]])
    w.data = [[5, 6], [7, 8]]
    w[1].data = [9, 10]
    assert w.data == [[5.0, 6.0], [9.0, 10.0]]
    w[0].grad = [1, 2]
    assert w.grad == [[1.0, 2.0], [0.0, 0.0]]
    for wrong in ([[1, 2]], [[1, 2], [3]], [[1, 2], [3, "a"]]):
        with pytest.raises((ValueError, TypeError)):
            w.data = wrong
    assert w.data == [[5.0, 6.0], [9.0, 10.0]]
    with pytest.raises(AttributeError, match="read-only"):
        (w[0] * 2).data = [1, 2]
    used = w @ [Value(1.0), Value(2.0)]
    w.data = w.data
    used[0].backward()  # nothing is out of date
    w.data = [[5, 6], [9, 10.5]]
    with pytest.raises(RuntimeError, match="`dot`"):
        used[1].backward()
    used[0].backward()
    w[0].data = [5, 6.5]
    with pytest.raises(RuntimeError, match="`dot`"):
        used[0].backward()


def test_vectors_keep_their_nodes() -> None:
    nodes = get_tape().nodes
    v = microgpt.relu(Vector([1.0, -2.0]) * 3)
    part = v[:1]
    held = v[0]
    del v
    assert (part.data, held.data) == ([3.0], 3.0)
    del part, held
    assert get_tape().nodes == nodes


def test_lists_of_values_do_wherever_a_vector_does() -> None:
    xs = [Value(0.3), Value(-0.2), Value(0.9), Value(1.4)]
    v = Vector(xs)
    assert microgpt.exp(xs).data == microgpt.exp(v).data
    assert microgpt.softmax(xs[::-1]).data == microgpt.softmax(v[::-1]).data
    assert microgpt.rmsnorm(xs).data == microgpt.rmsnorm(v).data
    assert microgpt.cross_entropy(xs, 2).data == microgpt.cross_entropy(v, 2).data
    assert microgpt.attention(xs, [xs, xs], [xs, xs[::-1]], 2).data == microgpt.attention(v, [v, v], [v, v[::-1]], 2).data


def test_attention_takes_the_keys_that_it_has_checked() -> None:
    """Making a Vector of the last value changes the list of keys."""
    keys = [Vector([0.2] * 8) for _ in range(3)]

    class Value8:
        def __iter__(self) -> Iterator[float]:
            keys[2] = Vector([1.0])
            return iter([0.3] * 8)

    values = [Vector([0.1] * 8), Vector([0.1] * 8), Value8()]
    assert microgpt.attention(Vector([0.1] * 8), keys, values, 2).data == [pytest.approx(0.5 / 3)] * 8
    assert len(keys[2]) == 1


def test_numpy_leaves_operators_to_the_vector() -> None:
    v = Vector([1.0, 2.0])
    assert isinstance(np.float64(2) * v, Vector)
    with pytest.raises(TypeError, match="ufunc"):
        np.exp(v)


ARRAYS: dict[str, Callable[[], Any]] = {
    "float64": lambda: np.array([1.5, 2.0, 3.0]),
    "float32": lambda: np.array([1.5, 2.0, 3.0], dtype=np.float32),
    "view": lambda: np.array([[1.5, 9.0], [2.0, 9.0], [3.0, 9.0]])[:, 0],
    "Values": lambda: np.array([Value(1.5), 2.0, Value(3.0)]),
    "array": lambda: array("d", [1.5, 2.0, 3.0]),
    "memoryview": lambda: memoryview(array("d", [1.5, 2.0, 3.0])),
}
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_operands_as_lists_are(name: str) -> None:
    v, given, listed = Vector([0.5, 0.25, 4.0]), ARRAYS[name](), [1.5, 2.0, 3.0]
    for operation in OPERATORS:
        for left, right in ((v, given), (given, v)):
            result = operation(left, right)
            assert type(result) is Vector
            assert result.data == operation(*(listed if x is given else x for x in (left, right))).data
    assert (v @ given).data == (given @ v).data == (v @ listed).data
    assert (Matrix([listed, listed]) @ given).data == (Matrix([listed, listed]) @ listed).data
    assert Vector(given).data == listed
    assert microgpt.exp(given).data == microgpt.exp(listed).data
    assert microgpt.softmax(given).data == microgpt.softmax(listed).data
    assert Rows([given, v]).data == [listed, v.data]


def test_arrays_of_no_dimension_are_numbers() -> None:
    v, x = Vector([1.0, 2.0]), Value(3.0)
    for number in (np.array(2.0), np.bool_(True), np.int64(2), np.array(2), np.float16(2)):
        for operation in OPERATORS:
            assert operation(v, number).data == operation(v, float(number)).data
            assert operation(number, v).data == operation(float(number), v).data
            assert operation(x, number).data == operation(x, float(number)).data
        assert Value(number).data == float(number)
        assert Vector([number]).data == Matrix([[number]]).data[0] == [float(number)]
        x.grad = number
        assert x.grad == float(number)


@pytest.mark.parametrize("wrong", [np.array([1.0]), np.array([[1.0]]), np.array(1j), np.array("1"), np.complex128(1)])
def test_other_arrays_are_no_numbers(wrong: Any) -> None:
    with pytest.raises(TypeError, match="Value needs a number, got"):
        Value(wrong)


def test_numpys_integers_are_indices() -> None:
    v, w = Vector([1.0, 2.0, 3.0]), Matrix([[1.0, 2.0], [3.0, 4.0]])
    one = np.int64(1)
    assert v[one].data == 2.0
    assert v[np.int8(-1)].data == 3.0
    assert w[one].data == [3.0, 4.0]
    for rows in (w, w[:]):
        assert rows[[one, np.int64(0)]].data == rows[np.array([1, 0])].data == [[3.0, 4.0], [1.0, 2.0]]
        for mask in ([True, False], np.array([True, False])):
            with pytest.raises(TypeError, match="by their numbers, got True"):
                rows[mask]
    assert microgpt.cross_entropy(w[:], np.array([1, 0])).data == microgpt.cross_entropy(w[:], [1, 0]).data
    assert microgpt.attention(v, [v], [v], np.int64(3)).data == microgpt.attention(v, [v], [v], 3).data


@pytest.mark.parametrize("x", [Vector([1.0, 2.0]), Matrix([[1.0]]), Rows([[1.0]])])
def test_no_array_is_made_silently(x: Any) -> None:
    makers: list[Callable[[Any], Any]] = [
        np.asarray,
        np.array,
        np.linalg.norm,
        lambda x: np.array([x, x]),
        lambda x: np.array(x, float),
    ]
    for make in makers:
        with pytest.raises(TypeError, match=r"np\.array\(x\.data\)"):
            make(x)
    assert np.asarray(x.data).tolist() == x.data


def test_long_vectors_matrices_and_rows_are_shown_in_part() -> None:
    assert "..." not in repr(Vector(range(1000)))
    assert repr(Vector(range(1001))) == (
        "Vector(data=[0.0, 1.0, 2.0, ..., 998.0, 999.0, 1000.0], grad=[0.0, 0.0, 0.0, ..., 0.0, 0.0, 0.0])"
    )
    wide = [[float(i) for i in range(600)] for _ in range(2)]
    shown = "[0.0, 1.0, 2.0, ..., 597.0, 598.0, 599.0]"
    assert repr(Matrix(wide)) == f"Matrix(data=[{shown}, {shown}])"
    assert repr(Rows(wide)) == f"Rows(data=[{shown}, {shown}])"
    tall = Matrix([[float(i), 0.5] for i in range(600)])
    ends = "[0.0, 0.5], [1.0, 0.5], [2.0, 0.5], ..., [597.0, 0.5], [598.0, 0.5], [599.0, 0.5]"
    assert repr(tall) == f"Matrix(data=[{ends}])"
    assert repr(tall[:]) == f"Rows(data=[{ends}])"
    assert repr(tall[:500]) == f"Rows(data={tall.data[:500]})"


def test_classes_show_their_signature() -> None:
    of_value = "(data, children=(), local_grads=(), label='', *, _children=(), _op='')"
    shown = {Vector: "(items)", Matrix: "(rows)", Rows: "(vectors)", Value: of_value, Handle: "()"}
    for kind, text in shown.items():
        assert str(inspect.signature(kind)) == text
        assert kind.__doc__ is not None
        assert kind.__doc__[0].isupper()


LEAVES = Matrix([[1.0], [2.0]])


@pytest.mark.parametrize(
    ("exception", "function", "words"),
    [
        (ValueError, lambda: Vector([]), "at least one"),
        (TypeError, lambda: Vector(["a"]), "got str"),
        (TypeError, lambda: Vector("ab"), "got str"),
        (TypeError, lambda: Vector(3), "got int"),
        (ValueError, lambda: Vector([1.0, 2.0]) + Vector([1.0, 2.0, 3.0]), "2 and 3"),
        (ValueError, lambda: Vector([1.0, 2.0]) @ Vector([1.0, 2.0, 3.0]), "2 and 3"),
        (ValueError, lambda: Vector([1.0, 2.0]) + np.ones(3), "2 and 3"),
        (ValueError, lambda: Vector([1.0, 2.0]) * np.ones((2, 2)), "one dimension, got (2, 2): Rows or a Matrix"),
        (ValueError, lambda: np.ones((3, 2)) @ Vector([1.0, 2.0]), "(3, 2) @ a Vector of 2: write Matrix(rows) @ vector"),
        (ValueError, lambda: Vector(np.ones((2, 3))), "got (2, 3)"),
        (ValueError, lambda: Matrix(np.ones((2, 3, 4))), "two dimensions, got (2, 3, 4)"),
        (TypeError, lambda: Matrix(np.ones(2)), "a row of a Matrix needs a list of numbers, got float"),
        (TypeError, lambda: Matrix([[1.0], [2.0]])[[True, False]], "chosen by their numbers, got True"),
        (TypeError, lambda: Matrix([[1.0], [2.0]])[[0, np.False_]], "chosen by their numbers, got False"),
        (TypeError, lambda: Matrix([[1.0], [2.0]])[np.array([True, False])], "chosen by their numbers, got True"),
        (ValueError, lambda: Matrix([[1.0, 2.0]]) @ np.ones((1, 2)), "a Matrix of (1, 2) @ (1, 2): write matrix @ Rows(x)"),
        (TypeError, lambda: Vector(np.array(1.0)), "got float"),
        (TypeError, lambda: Vector([1.0]) + np.array(1j), ""),
        (TypeError, lambda: Vector([1.0]) + "a", ""),
        (TypeError, lambda: Vector([1.0]) + ["a"], "got str"),
        (TypeError, lambda: Vector([1.0]) @ 3.0, ""),
        (TypeError, lambda: Vector([1.0])["a"], ""),
        (ZeroDivisionError, lambda: Vector([1.0, 0.0]) ** -1, "0.0"),
        (ZeroDivisionError, lambda: 1 / Vector([1.0, 0.0]), "0.0"),
        (ZeroDivisionError, lambda: Vector([1.0]) / 0, "zero"),
        (ValueError, lambda: microgpt.log(Vector([1.0, -1.0])), "-1.0"),
        (OverflowError, lambda: microgpt.exp(Vector([1.0, 800.0])), "800.0"),
        (ValueError, lambda: Matrix([]), "at least one"),
        (ValueError, lambda: Matrix([[]]), "at least one"),
        (ValueError, lambda: Matrix([[1.0], [1.0, 2.0]]), "1 in row 0 and 2 in row 1"),
        (TypeError, lambda: Matrix([["a"]]), "got str"),
        (TypeError, lambda: Matrix([1.0]), "a row of a Matrix needs a list of numbers, got float"),
        (TypeError, lambda: Matrix(5), "rows of numbers needed for a Matrix, got int"),  # type: ignore[arg-type]
        (TypeError, lambda: Matrix(None), "rows of numbers needed for a Matrix, got NoneType"),  # type: ignore[arg-type]
        (TypeError, lambda: setattr(LEAVES, "data", 5), "rows of numbers needed for a Matrix, got int"),
        (TypeError, lambda: setattr(LEAVES, "grad", None), "rows of numbers needed for a Matrix, got NoneType"),
        (ValueError, lambda: setattr(LEAVES, "data", [[1.0]] * 3), "2 rows of numbers needed for a Matrix, got 3"),
        (TypeError, lambda: setattr(LEAVES[0], "data", 5), "a Vector's data or grad needs a list of numbers, got int"),
        (ValueError, lambda: Matrix([[1.0, 2.0]]) @ Vector([1.0]), "2, got 1"),
        (TypeError, lambda: Matrix([[1.0, 2.0]]) @ 3.0, ""),
        (IndexError, lambda: microgpt.cross_entropy([1.0, 2.0], 2), "got 2"),
        (TypeError, lambda: microgpt.cross_entropy([1.0, 2.0], 1.0), "float"),
        (TypeError, lambda: microgpt.cross_entropy([1.0, 2.0], "a"), "str"),
        (TypeError, lambda: microgpt.attention([1.0, 2.0], [[1.0] * 2], [[1.0] * 2], 1.0), "float"),
        (TypeError, lambda: microgpt.exp(1.0), "got float"),
        (TypeError, lambda: microgpt.softmax(Value(1.0)), "got Value"),
        (IndexError, lambda: microgpt.cross_entropy([1.0, 2.0], -1), "got -1"),
        (ValueError, lambda: microgpt.cross_entropy([0.0, 1000.0], 0), "log needs data > 0"),
        (ValueError, lambda: microgpt.attention([1.0, 2.0], [], [], 1), "at least one"),
        (ValueError, lambda: microgpt.attention([1.0, 2.0], [[1.0, 2.0]], [], 1), "1 and 0"),
        (ValueError, lambda: microgpt.attention([1.0, 2.0], [[1.0]], [[1.0, 2.0]], 1), "got 1"),
        (ValueError, lambda: microgpt.attention([1.0, 2.0, 3.0], [[1.0] * 3], [[1.0] * 3], 2), "divide 3"),
        (ValueError, lambda: microgpt.attention([1.0, 2.0], [[1.0] * 2], [[1.0] * 2], 0), "got 0"),
    ],
)
def test_wrong_input_gets_a_sentence_and_leaves_no_node(
    exception: type[Exception], function: Callable[[], Any], words: str, refusal: Refusal
) -> None:
    assert words in refusal(exception, function)


def copied(matrix: Matrix) -> Matrix:
    """What copy.deepcopy does of ours.

    Itself it makes a generator, and where its function gets no memory CPython 3.12.1 and 3.13.0 release the code of that twice:
    after a few such failures the process crashes.
    """
    rebuild, arguments, state = matrix.__reduce__()
    result = rebuild(*arguments)
    result.__setstate__(state)
    return result


ALLOCATING: dict[str, Callable[[Vector, Value], Any]] = {
    "Vector": lambda v, x: Vector([x, 2.0, x, x, x]),
    "Matrix": lambda v, x: Matrix([[1.0, 2.0]] * 5),
    "Rows": lambda v, x: Rows([v, [1.0, x], v, v, v, v]),
    "row list": lambda v, x: Rows([v, v])[[0, 1, 0, 1, 0]],
    "data": lambda v, x: Rows([v] * 9).data,
    "set data": lambda v, x: setattr(v, "data", [1.0, 2.0]),
    "copy": lambda v, x: copied(Matrix([[1.0, 2.0]] * 5)),
    "cross_entropy": lambda v, x: microgpt.cross_entropy(Rows([v, v]), [0, 1]),
}


@pytest.mark.parametrize("name", ALLOCATING)
def test_allocation_failure_loses_no_reference(name: str) -> None:
    """Each allocation of Python's objects fails in turn."""
    testcapi = pytest.importorskip("_testcapi")
    v, x = Vector([1.0, 2.0]), Value(3.0)
    references = sys.getrefcount(v), sys.getrefcount(x)
    failed = True
    failures = 0
    while failed:
        testcapi.set_nomemory(failures, failures + 1)
        try:
            ALLOCATING[name](v, x)
            failed = False
        except MemoryError:
            failures += 1
        finally:
            testcapi.remove_mem_hooks()
        assert (sys.getrefcount(v), sys.getrefcount(x)) == references
    assert failures > 0
    assert (v.data, x.data) == ([1.0, 2.0], 3.0)
