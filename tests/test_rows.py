"""Rows: what is done for each of several vectors at once, and the bits of doing it one by one."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import microgpt
from microgpt import Matrix, Rows, Value, Vector, cross_entropy, reference

PARTS: dict[str, Callable[[Any], Any]] = {
    "exp": microgpt.exp,
    "relu": microgpt.relu,
    "tanh": microgpt.tanh,
    "softmax": microgpt.softmax,
    "rmsnorm": microgpt.rmsnorm,
    "plus a number": lambda x: x + 0.5,
    "number minus": lambda x: 2.0 - x,
    "over a number": lambda x: x / 3.0,
    "number over": lambda x: 1.5 / (x * x + 1),
    "power": lambda x: (x * x + 1) ** 1.5,
    "number to the power": lambda x: 2.0**x,
    "negative": lambda x: -x,
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
@pytest.mark.parametrize("indices", [[0], [2, 0, 2], [1, 2, 3], slice(1, 4)])
def test_rows_equal_vectors(name: str, indices: Any) -> None:
    """Values and gradients, of rows that follow each other and of others, one of them twice."""
    together, one_by_one = matrix(4, 5), matrix(4, 5)
    rows = PARTS[name](together[indices])
    vectors = [PARTS[name](row) for row in list(one_by_one[indices])]
    assert isinstance(rows, Rows)
    assert rows.shape == (len(vectors), 5)
    assert bits(rows.data) == bits([vector.data for vector in vectors])
    add_up(rows).backward()
    add_up(vectors).backward()
    assert bits(rows.grad) == bits([vector.grad for vector in vectors])
    assert bits(together.grad) == bits(one_by_one.grad)


@given(st.integers(1, 20), st.integers(1, 70), st.integers(1, 19))
def test_products_equal_reference(n_rows: int, n: int, count: int) -> None:
    w, x = matrix(n_rows, n, seed=n), matrix(count, n, seed=count)
    twins = [[[reference.Value(item) for item in row] for row in m.data] for m in (w, x)]
    y, z = w @ (x[:] * 2.0), [[reference.dot(row, [v * 2.0 for v in vector]) for row in twins[0]] for vector in twins[1]]
    assert y.shape == (count, n_rows)
    assert bits(y.data) == bits([[v.data for v in row] for row in z])
    total, twin_total = Value(0.0), reference.Value(0.0)
    for row, twin_row in zip(y, z, strict=True):
        for v, u in zip(row, twin_row, strict=True):
            total, twin_total = total + v * v, twin_total + u * u
    total.backward()
    twin_total.backward()
    for m, twin in zip((w, x), twins, strict=True):
        assert bits(m.grad) == bits([[v.grad for v in row] for row in twin])


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
    kept = [Value(1.0) for _ in range(10)]
    microgpt._tape.get_tape().collect()
    assert rows.data == expected
    del kept
    (rows * 1.0).data  # noqa: B018
    assert rows.data == expected


m = matrix(3, 2)


@pytest.mark.parametrize(
    ("error", "wrong", "words"),
    [
        (ValueError, lambda: Rows([]), "at least one vector"),
        (ValueError, lambda: Rows([[1.0], [1.0, 2.0]]), "one length, got 1 and 2"),
        (TypeError, lambda: Rows(3), "list of Vectors, got int"),
        (TypeError, lambda: Rows([1.0]), "float"),
        (TypeError, lambda: Rows("ab"), "got str"),
        (TypeError, lambda: m[:].__init__([[1.0]]), "made once"),  # type: ignore[misc]
        (RuntimeError, lambda: len(Rows.__new__(Rows)), "never made"),
        (RuntimeError, lambda: microgpt.rmsnorm(Rows.__new__(Rows)), "never made"),
        (RuntimeError, lambda: m @ Rows.__new__(Rows), "never made"),
        (RuntimeError, lambda: Rows.__new__(Rows) + 1, "never made"),
        (ValueError, lambda: m[[]], "one row at least"),
        (ValueError, lambda: m[3:], "one row at least"),
        (ValueError, lambda: m[:][3:], "at least one vector"),
        (IndexError, lambda: m[[0, 3]], "row 3 is out of range for a Matrix of 3 rows"),
        (IndexError, lambda: m[:][3], "row 3 is out of range for Rows of 3 rows"),
        (TypeError, lambda: m[["a"]], "str"),
        (ValueError, lambda: m[:] + m[:2], r"one shape, got \(3, 2\) and \(2, 2\)"),
        (TypeError, lambda: m[:] + m[0], "unsupported"),
        (TypeError, lambda: m[:] + "a", "unsupported"),
        (ValueError, lambda: matrix(2, 3) @ m[:], "a Matrix of 3 columns needs a vector of 3, got 2"),
        (ValueError, lambda: cross_entropy(m[:], [0, 1]), "a target for each of 3 rows, got 2"),
        (IndexError, lambda: cross_entropy(m[:], [0, 1, 2]), "0 <= target < 2, got 2"),
        (TypeError, lambda: cross_entropy(m[:], [0, 1, 0.5]), "float"),
        (TypeError, lambda: cross_entropy(m[:], 1), "int"),
        (ValueError, lambda: microgpt.attention(m[:], [m[:2]], [m[:2]], 1), "a key for each of 3 queries, got 2"),
        (ValueError, lambda: microgpt.attention(m[:], [m[:]], [m[:2]], 1), "got 3 and 2"),
        (ValueError, lambda: microgpt.attention(m[:], [matrix(3, 4)[:]], [m[:]], 1), "got 4"),
        (TypeError, lambda: pickle.dumps(m[:]), "view"),
    ],
)
def test_mistakes_are_told(error: type[Exception], wrong: Callable[[], Any], words: str) -> None:
    with pytest.raises(error, match=words):
        wrong()
