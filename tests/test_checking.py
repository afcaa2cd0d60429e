"""microgpt.gradcheck: right derivatives pass, wrong ones are found and named."""

from __future__ import annotations

import random
from typing import Any

import pytest
from op_table import COMPOSITES, ROWS, Row

import microgpt
from microgpt import GPT, GPTConfig, Matrix, Value, Vector, cross_entropy, maximum, relu, rmsnorm, where
from microgpt.checking import gradcheck

SMOOTH = [row for row in ROWS + COMPOSITES if row.id != "custom"]


@pytest.mark.parametrize("row", SMOOTH, ids=lambda row: row.id)
def test_every_op_passes(row: Row) -> None:
    for point in row.points:
        check = gradcheck(lambda v: row.function(microgpt, list(v)), Vector(point))
        assert check, check
        assert check.count == len(point)


@pytest.mark.parametrize("factor", [1.001, 0.999])
@pytest.mark.parametrize("row", [row for row in ROWS if row.op != "floor"], ids=lambda row: row.id)
def test_a_slightly_wrong_partial_of_any_op_is_found_and_named(row: Row, factor: float) -> None:
    def own(*values: Value) -> Value:
        made = Value(row.function(microgpt, values).data, values, partials)
        made._op = "mine"
        return (2.3 * made + values[0]).tanh() if abs(made.data) < 1 else 2.3 * made + values[0]

    found = 0
    for point in row.points:
        partials = [factor * partial for partial in row.partials(*point)]
        check = gradcheck(own, [Value(x) for x in point])
        if not check:
            found += 1
            assert check.op == "`mine`", check
            assert "wrong partials in `mine`" in str(check)
    assert found > 0


def test_the_worst_element_is_named_with_both_figures() -> None:
    w, x = Matrix([[0.3, -0.2, 0.5], [0.7, 0.1, -0.4]]), Vector([1.0, 2.0, -1.5])

    def f(w: Matrix, x: Vector) -> Value:
        wrong = Value(w[1][2].data ** 2, (w[1][2],), (2.5 * w[1][2].data,))
        return rmsnorm(w @ x).sum() + wrong * 10

    check = gradcheck(f, [w, x])
    assert not check
    assert (check.element, check.count, check.op) == ("input 0[1][2]", 9, "`custom`")
    assert abs(check.gradient - check.difference) == pytest.approx(10 * 0.5 * 0.4, rel=1e-6)
    assert check.error > 1
    assert str(check).startswith(
        f"wrong gradient at input 0[1][2]: gradient {check.gradient!r}, difference {check.difference!r}; "
    )


def test_a_right_check_says_how_far_it_was() -> None:
    x = Value(0.7, label="x")
    check = gradcheck(lambda x: x.exp() * x, x)
    assert check
    assert (check.element, check.op, check.kinks) == ("x", "", ())
    assert check.gradient == pytest.approx(check.difference, rel=1e-8)
    assert str(check).startswith("all 1 gradients agree; furthest apart at x: gradient ")


@pytest.mark.parametrize(
    ("f", "op", "slopes"),
    [
        (lambda x: relu(x) * 2, "`relu`", (0.0, 2.0)),
        (lambda x: abs(x), "`abs`", (-1.0, 1.0)),
        (lambda x: maximum(x, x * 3), "`maximum`", (1.0, 3.0)),
        (
            lambda x: where(x >= 0, x.exp(), 1 - x),
            "the graph is another one beside: a where, or a branch of f",
            (-1.0, 1.0),
        ),
    ],
)
def test_kinks_are_named_and_any_slope_between_is_taken(f: Any, op: str, slopes: tuple[float, float]) -> None:
    check = gradcheck(f, Value(0.0, label="x"))
    assert check, check
    (kink,) = check.kinks
    assert (kink.element, kink.op) == ("x", op)
    assert (kink.left, kink.right) == pytest.approx(slopes, rel=1e-4)
    assert "kink at x: slopes" in str(check)


def test_a_gradient_beyond_both_slopes_of_a_kink_is_wrong() -> None:
    check = gradcheck(lambda x: Value(abs(x.data), (x,), (1.5,)), Value(0.0))
    assert not check
    assert len(check.kinks) == 1
    assert check.difference == pytest.approx(1.0)


def test_strong_curvature_is_no_kink() -> None:
    assert gradcheck(lambda x: (x * 2e3).tanh(), Value(1e-4)).kinks == ()


def test_an_own_backward_is_checked_and_suspected() -> None:
    def f(factor: float) -> Any:
        def square(x: Value) -> Value:
            out = Value(x.data**2, (x,), "square")

            def pass_on() -> None:
                x.grad += factor * 2 * x.data * out.grad

            out._backward = pass_on
            return out.exp()

        return square

    assert gradcheck(f(1.0), Value(0.6))
    check = gradcheck(f(1.001), Value(0.6))
    assert not check
    assert check.op == "`square`, which has a _backward of its own"


def test_a_whole_model_passes() -> None:
    model = GPT(GPTConfig(4, n_embd=4, n_head=2, block_size=4), random.Random(1))
    check = gradcheck(lambda *_: model.loss([3, 0, 1, 3]), list(model.own_matrices().values()))
    assert check, check
    assert check.count == model.config.n_parameters


def test_inputs_and_gradients_are_as_before() -> None:
    x = Vector([0.5, -0.25])
    x.grad = [3.0, 4.0]
    before = (x * x).sum()
    gradcheck(lambda x: (x * x).sum(), x)

    def fails(x: Vector) -> Value:
        if x[1].data != -0.25:
            raise ArithmeticError("beside")
        return x.sum()

    with pytest.raises(ArithmeticError, match="beside"):
        gradcheck(fails, x)
    assert (x.data, x.grad) == ([0.5, -0.25], [3.0, 4.0])
    before.backward()
    assert x.grad == [4.0, 3.5]


def test_an_input_that_is_not_used_has_gradient_0() -> None:
    check = gradcheck(lambda x, y: x * 2, [Value(1.0), Value(5.0)])
    assert check
    assert check.count == 2


@pytest.mark.parametrize("beside", [float("inf"), float("nan")])
def test_differences_that_are_not_finite_do_not_pass(beside: float) -> None:
    check = gradcheck(lambda x: Value(beside if x.data > 1 else x.data, (x,), (1.0,)), Value(1.0))
    assert not check
    assert check.error == float("inf")


def test_large_numbers_are_judged_by_what_differences_can_tell() -> None:
    assert gradcheck(lambda x: x * 1e-3 + 1e9, Value(1.0))


@pytest.mark.parametrize(
    ("f", "inputs", "options", "error", "words"),
    [
        (lambda x: x, 1.0, {}, TypeError, "inputs are Values, Vectors and Matrices, got float"),
        (lambda x: x, [1.0], {}, TypeError, "inputs are Values, Vectors and Matrices, got float"),
        (lambda x: x, [], {}, ValueError, "gradcheck needs at least one input"),
        (lambda x: x.data, Value(1.0), {}, TypeError, "f must return a Value, it returned float"),
        (lambda x: x * 2, Value(1.0) * 2, {}, ValueError, r"inputs must be leaves, input 0 is computed \(`mul`\)"),
        (lambda x: x * float("inf"), Value(1.0), {}, ValueError, "f must be finite at its inputs, it is inf"),
        (lambda x: x * random.random(), Value(1.0), {}, ValueError, "f must return the same for the same inputs"),
        (lambda x: x, Value(1.0), {"eps": 0.0}, ValueError, "eps must be above 0 and finite, got 0.0"),
        (lambda x: x, Value(1.0), {"rtol": -1.0}, ValueError, "rtol must be at least 0 and finite, got -1.0"),
        (lambda x: x, Value(1.0), {"atol": float("nan")}, ValueError, "atol must be at least 0 and finite, got nan"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    f: Any, inputs: Any, options: dict[str, float], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        gradcheck(f, inputs, **options)


def test_it_is_there_by_its_public_name() -> None:
    assert microgpt.gradcheck is gradcheck
    assert gradcheck(lambda z: cross_entropy(z, 1), Vector([0.1, 0.2, -0.3]))
