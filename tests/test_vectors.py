"""Every variant of the long loops gives the bits of the twin; those that this processor lacks are not tested here."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

import microgpt
from microgpt import _vectors, reference

DOCUMENTS = [[0, 1, 2, 3, 0], [0, 3, 3, 1, 2, 2, 0], [0, 2, 0]]


@pytest.fixture(params=_vectors.variants())
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _vectors.chosen_variant()
    _vectors.choose(request.param)
    yield request.param
    _vectors.choose(before)


def test_the_widest_variant_is_chosen() -> None:
    assert _vectors.chosen_variant() == _vectors.variants()[-1]


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"variants on this processor are baseline.*, got 'neon'"):
        _vectors.choose("neon")


@pytest.mark.parametrize(("n_embd", "n_head"), [(1, 1), (7, 1), (12, 3), (16, 4)])
def test_training_equals_reference(variant: str, n_embd: int, n_head: int) -> None:
    sizes = {"n_layer": 2, "n_embd": n_embd, "n_head": n_head, "block_size": 8}
    model = microgpt.GPT(microgpt.GPTConfig(4, **sizes), random.Random(3))
    twin = reference.GPT(4, random.Random(3), **sizes)
    ours, theirs = microgpt.Adam(model.parameters()), reference.Adam(twin.parameters())
    for step in range(6):
        losses = []
        for network, optimizer in ((model, ours), (twin, theirs)):
            loss = network.loss(DOCUMENTS[step % 3])
            loss.backward()
            optimizer.step(0.02)
            losses.append(loss.data.hex())
        assert losses[0] == losses[1]
    assert [p.data.hex() for p in model.parameters()] == [p.data.hex() for p in twin.parameters()]


@pytest.mark.parametrize("eps", [1e-8, 1e-15, 1e-200])
@pytest.mark.parametrize("n", [1, 3, 63, 64, 65, 1000])
def test_adam_equals_reference_at_any_magnitude(variant: str, n: int, eps: float) -> None:
    """Long enough that the correction of the first moment becomes 1."""
    rng = random.Random(n)
    ours = [microgpt.Value(rng.gauss(0, 1)) for _ in range(n)]
    theirs = [reference.Value(p.data) for p in ours]
    optimizers = microgpt.Adam(ours, eps=eps), reference.Adam(theirs, eps=eps)
    for _ in range(260 if n == 65 else 20):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = q.grad = rng.choice([0.0, rng.gauss(0, 1), rng.gauss(0, 1) * 10.0 ** rng.randint(-150, 100)])
        for optimizer in optimizers:
            optimizer.step()
    assert_equal_adams(ours, theirs, *optimizers)


@pytest.mark.parametrize(("learning_rate", "scale"), [(0.01, 9e-140), (1.75 * 2.0**-934, 1.0)], ids=["squares", "data"])
def test_adam_equals_reference_below_1e_280(variant: str, learning_rate: float, scale: float) -> None:
    """Where the smallest differences between doubles are as small as errors of rounding can be."""
    rng = random.Random(1)
    grads = [scale * rng.uniform(0.5, 1.5) for _ in range(100_000)]
    ours, theirs = [microgpt.Value(0.0) for _ in grads], [reference.Value(0.0) for _ in grads]
    optimizers = microgpt.Adam(ours), reference.Adam(theirs)
    for p, q, grad in zip(ours, theirs, grads, strict=True):
        p.grad = q.grad = grad
    for optimizer in optimizers:
        optimizer.step(learning_rate)
    assert_equal_adams(ours, theirs, *optimizers)


def assert_equal_adams(
    ours: list[microgpt.Value], theirs: list[reference.Value], adam: microgpt.Adam, twin: reference.Adam
) -> None:
    assert [p.data.hex() for p in ours] == [p.data.hex() for p in theirs]
    assert [m.hex() for m in adam.m] == [m.hex() for m in twin.m]
    assert [v.hex() for v in adam.v] == [v.hex() for v in twin.v]


@pytest.mark.parametrize(
    ("n_rows", "n", "count"),
    [(1, 1, 2), (3, 5, 3), (4, 4, 2), (5, 7, 6), (6, 16, 7), (7, 17, 8), (27, 16, 9), (9, 20, 15), (130, 16, 2), (20, 300, 17)],
)
def test_products_equal_reference(variant: str, n_rows: int, n: int, count: int) -> None:
    """Of one matrix and several vectors, more of them and more rows than the loops take at once."""
    rng = random.Random(n)
    data = [[[rng.gauss(0, 1) for _ in range(n)] for _ in range(rows)] for rows in (n_rows, count)]
    w, x = (microgpt.Matrix(rows) for rows in data)
    twins = [[[reference.Value(item) for item in row] for row in rows] for rows in data]
    for _ in range(3):  # the second takes the plan of the first
        ours = microgpt.Value(0.0)
        for vector in w @ (x[:] * 2.0):
            ours = ours + (vector * vector).sum()
        ours.backward()
        theirs = reference.Value(0.0)
        for row in twins[1]:
            doubled = [v * 2.0 for v in row]
            y = [reference.dot(weights, doubled) for weights in twins[0]]
            theirs = theirs + sum((v * v for v in y), reference.Value(0.0))
        theirs.backward()
        assert ours.data.hex() == theirs.data.hex()
        for matrix, twin in zip((w, x), twins, strict=True):
            assert [[g.hex() for g in row] for row in matrix.grad] == [[v.grad.hex() for v in row] for row in twin]


@pytest.mark.usefixtures("small_graphs")
@pytest.mark.parametrize("kind", ["chain", "with itself"])
@pytest.mark.parametrize("n", [2, 4, 5])
def test_products_that_are_not_taken_together(variant: str, kind: str, n: int) -> None:
    """One matrix and vectors that follow each other on the tape: each the product before, or the rows of the matrix."""
    rng = random.Random(n)
    data = [[rng.gauss(0, 0.7) for _ in range(n)] for _ in range(n)]
    w, twin = microgpt.Matrix(data), [[reference.Value(item) for item in row] for row in data]
    u = [rng.gauss(0, 1) for _ in range(n if kind == "chain" else n * n)]
    for _ in range(4):  # the second takes the plan of the first
        if kind == "chain":
            h, theirs = w[0] * 1.5, [v * 1.5 for v in twin[0]]
            for _ in range(6):
                h, theirs = w @ h, [reference.dot(row, theirs) for row in twin]
        else:
            h = microgpt.Vector([v for row in w @ w[:] for v in row])
            theirs = [reference.dot(row, x) for x in twin for row in twin]
        (microgpt.Vector(u) @ microgpt.tanh(h)).backward()
        reference.dot([reference.Value(item) for item in u], [reference.tanh(v) for v in theirs]).backward()
        assert [[g.hex() for g in row] for row in w.grad] == [[v.grad.hex() for v in row] for row in twin]
