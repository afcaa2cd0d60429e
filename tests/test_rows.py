"""Rows: what is done for each of several vectors at once, and the bits of doing it one by one."""

from __future__ import annotations

import operator
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import microgpt
from microgpt import Matrix, Rows, Value, Vector, cross_entropy


def of_positive(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: function(x * x + 0.1)


UNARY = ("exp", "log", "relu", "tanh", "sigmoid", "sqrt", "sin", "cos", "softmax", "rmsnorm")
PARTS: dict[str, Callable[[Any], Any]] = {
    **{name: of_positive(getattr(microgpt, name)) for name in UNARY},
    "plus a number": lambda x: x + 0.5,
    "number plus": lambda x: 0.5 + x,
    "minus a number": lambda x: x - 0.5,
    "number minus": lambda x: 2.0 - x,
    "number times": lambda x: 3.0 * x,
    "over a number": lambda x: x / 3.0,
    "number over": lambda x: 1.5 / (x * x + 1),
    "power": lambda x: (x * x + 1) ** 1.5,
    "number to the power": lambda x: 2.0**x,
    "powers": lambda x: (x * x + 1) ** x,
    "negative": lambda x: -x,
    "abs": lambda x: abs(x),
    "with themselves": lambda x: (x + x) * x - x / (x * x + 2),
}


def matrix(rows: int, columns: int, seed: int = 1) -> Matrix:
    rng = random.Random(seed)
    return Matrix([[rng.gauss(0, 1) for _ in range(columns)] for _ in range(rows)])


def bits(rows: list[list[float]]) -> list[list[str]]:
    return [[x.hex() for x in row] for row in rows]


def add_up(vectors: Any) -> Value:
    total = Value(0.0)
    for vector in vectors:
        total = total + (vector * vector).sum()
    return total


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("indices", [[0], [2, 0, 2], [1, 2, -1], slice(1, 4)])
def test_rows_equal_vectors(name: str, indices: Any) -> None:
    """Values and gradients, of rows that follow each other and of others, one of them twice."""
    together, one_by_one = matrix(4, 5), matrix(4, 5)
    rows = PARTS[name](together[indices])
    vectors = [one_by_one[i] for i in (range(4)[indices] if isinstance(indices, slice) else indices)]
    vectors = [PARTS[name](row) for row in vectors]
    assert isinstance(rows, Rows)
    assert rows.shape == (len(vectors), 5)
    assert bits(rows.data) == bits([vector.data for vector in vectors])
    add_up(rows).backward()
    add_up(vectors).backward()
    assert bits(rows.grad) == bits([vector.grad for vector in vectors])
    assert bits(together.grad) == bits(one_by_one.grad)


@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow])
@pytest.mark.parametrize("reflected", [False, True])
def test_rows_and_a_value(operation: Callable[[Any, Any], Any], reflected: bool) -> None:
    def run(together: bool) -> list[list[str]]:
        m, value = matrix(3, 4), Value(1.7)
        rows = m[:] * 0.1 + 2.0 if together else [row * 0.1 + 2.0 for row in m]
        results: Any
        if together:
            results = operation(value, rows) if reflected else operation(rows, value)
        else:
            results = [operation(value, row) if reflected else operation(row, value) for row in rows]
        add_up(results).backward()
        return bits([*(r.data for r in results), *m.grad, [value.grad]])

    assert run(together=True) == run(together=False)


def test_cross_entropies_of_rows() -> None:
    together, one_by_one = matrix(3, 4), matrix(3, 4)
    losses = cross_entropy(together[:], [2, 0, 2])
    single = [cross_entropy(row, target) for row, target in zip(one_by_one, [2, 0, 2], strict=True)]
    assert isinstance(losses, Vector)
    assert losses.data == [loss.data for loss in single]
    losses.sum().backward()
    Vector(single).sum().backward()
    assert bits(together.grad) == bits(one_by_one.grad)


@pytest.mark.parametrize("past", [0, 1, 3])
@pytest.mark.parametrize("listed", [False, True])
def test_attention_of_rows_looks_back_only(past: int, listed: bool) -> None:
    """Queries of the last positions, keys and values in pieces of one position and more."""

    def run(together: bool) -> list[list[str]]:
        q, k, v = (matrix(past + 3, 4, seed) for seed in (1, 2, 3))
        order = [2, 0, 3, 1] if listed else [0, 1, 2, 3]
        queries, keys, values = (Rows([[row[i] for i in order] for row in m]) for m in (q, k, v))
        if together:
            pieces = [[*m][:past] + [m[past:]] for m in (keys, values)]
            results = list(microgpt.attention(queries[past:], *pieces, 2))
        else:
            results = [microgpt.attention(queries[t], keys[: t + 1], values[: t + 1], 2) for t in range(past, past + 3)]
        add_up(results).backward()
        return bits([r.data for r in results] + q.grad + k.grad + v.grad)

    assert run(together=True) == run(together=False)


@pytest.mark.parametrize(
    "make", [list, tuple, np.array, lambda rows: [np.array(row) for row in rows], lambda rows: [Vector(rows[0]), rows[1]]]
)
@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow])
def test_lists_and_arrays_of_rows_are_operands(operation: Callable[[Any, Any], Any], make: Callable[[Any], Any]) -> None:
    numbers = [[1.5, 2.0, 0.5], [3.0, 0.25, 4.0]]
    rows, given = Rows([[0.5, 0.25, 4.0], [1.0, 2.0, 3.0]]), make(numbers)
    assert type(operation(rows, given)) is type(operation(given, rows)) is Rows
    assert operation(rows, given).data == operation(rows, Rows(numbers)).data
    assert operation(given, rows).data == operation(Rows(numbers), rows).data
    assert Rows(given).data == Rows(numbers).data == numbers


def test_rows_are_views_of_their_nodes() -> None:
    m = matrix(3, 2)
    rows = m[[2, 0]]
    assert rows[0][1] is m[2][1]
    assert rows[-1][0] is m[0][0]
    assert [row.data for row in rows] == rows.data == [m.data[2], m.data[0]]
    assert rows[1:].data == [m.data[0]]
    assert m[1:].data == m.data[1:]
    assert m[range(3)].data == m.data
    assert len(rows) == 2
    assert rows.shape == (2, 2)
    assert Rows(rows)[0][0] is rows[0][0]
    assert Rows([[Value(1.0), 2.0], Vector([3.0, 4.0])]).data == [[1.0, 2.0], [3.0, 4.0]]
    assert repr(Rows([[1.0]])) == "Rows(data=[[1.0]])"


def test_rows_keep_their_nodes_alive() -> None:
    rows = matrix(2, 3)[:] * 2.0
    expected = rows.data
    microgpt._tape.get_tape().collect()
    assert rows.data == expected
    assert (rows * 1.0).data == expected


def test_gradients_can_be_set() -> None:
    rows = matrix(2, 3)[[1, 0]] * 2.0
    rows.grad = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert rows.grad == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def test_a_list_that_lies_about_its_items() -> None:
    class Liar(list):  # type: ignore[type-arg]
        def __getitem__(self, index: Any) -> Any:
            return [0] * 100_000

    assert matrix(3, 2)[Liar([2])].shape == (1, 2)


@pytest.mark.parametrize(
    ("error", "wrong", "words"),
    [
        (ValueError, lambda m: Rows([]), "at least one vector"),
        (ValueError, lambda m: Rows([[1.0], [1.0, 2.0]]), "one length, got 1 and 2"),
        (TypeError, lambda m: Rows(3), "list of Vectors, got int"),
        (TypeError, lambda m: Rows([1.0]), "float"),
        (TypeError, lambda m: Rows("ab"), "got str"),
        (TypeError, lambda m: m[:].__init__([[1.0]]), "made once"),  # type: ignore[misc]
        (RuntimeError, lambda m: len(Rows.__new__(Rows)), "never made"),
        (RuntimeError, lambda m: microgpt.rmsnorm(Rows.__new__(Rows)), "never made"),
        (RuntimeError, lambda m: m @ Rows.__new__(Rows), "never made"),
        (RuntimeError, lambda m: Rows.__new__(Rows) + 1, "never made"),
        (ValueError, lambda m: m[[]], "one row at least"),
        (ValueError, lambda m: m[3:], "one row at least"),
        (ValueError, lambda m: m[:][3:], "one row at least"),
        (IndexError, lambda m: m[[0, 3]], "row 3 is out of range for a Matrix of 3 rows"),
        (IndexError, lambda m: m[:][3], "row 3 is out of range for Rows of 3 rows"),
        (TypeError, lambda m: m[["a"]], "str"),
        (ValueError, lambda m: m[:] + m[:2], r"one shape, got \(3, 2\) and \(2, 2\)"),
        (TypeError, lambda m: m[:] + m[0], "write Rows"),
        (ValueError, lambda m: m[:] + [1.0, 2.0], r"got \(3, 2\) and \(2,\): write Rows\(\[row \+ v for row in rows\]\)"),
        (ValueError, lambda m: np.ones(2) * m[:], r"got \(3, 2\) and \(2,\): write Rows"),
        (ValueError, lambda m: m[:] + np.ones((2, 2)), r"got \(3, 2\) and \(2, 2\)"),
        (ValueError, lambda m: m[:] + np.ones((3, 2, 1)), r"got \(2, 1\)"),
        (ValueError, lambda m: m[:] + [], r"and \(0,\)"),
        (TypeError, lambda m: m[:] + "a", "unsupported"),
        (ValueError, lambda m: matrix(2, 3) @ m[:], "a Matrix of 3 columns needs a vector of 3, got 2"),
        (ValueError, lambda m: cross_entropy(m[:], [0, 1]), "a target for each of 3 rows, got 2"),
        (IndexError, lambda m: cross_entropy(m[:], [0, 1, 2]), "0 <= target < 2, got 2"),
        (TypeError, lambda m: cross_entropy(m[:], [0, 1, 0.5]), "float"),
        (TypeError, lambda m: cross_entropy(m[:], 1), "a target for each row, got int"),
        (ValueError, lambda m: setattr(m[:], "grad", [[1.0, 2.0]]), "3 rows of numbers needed for Rows, got 1"),
        (ValueError, lambda m: microgpt.attention(m[:], [m[:2]], [m[:2]], 1), "a key for each of 3 queries, got 2"),
        (ValueError, lambda m: microgpt.attention(m[:], [m[:]], [m[:2]], 1), "got 3 and 2"),
        (ValueError, lambda m: microgpt.attention(m[:], [matrix(3, 4)[:]], [m[:]], 1), "got 4"),
        (TypeError, lambda m: pickle.dumps(m[:]), "view"),
        (TypeError, lambda m: m[0, 1], r"x\[i\]\[j\] is an element, x\[\[i, j\]\] are two rows, got \(0, 1\)"),
        (TypeError, lambda m: m[:][0, 1], r"x\[i\]\[j\] is an element, x\[\[i, j\]\] are two rows, got \(0, 1\)"),
        (TypeError, lambda m: m[:, 0], r"x\[i\]\[j\] is an element"),
    ],
)
def test_mistakes_are_told(error: type[Exception], wrong: Callable[[Matrix], Any], words: str) -> None:
    with pytest.raises(error, match=words):
        wrong(matrix(3, 2))
