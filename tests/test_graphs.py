"""Random graphs on the engine and on its twin: every value and every gradient, bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import reduce
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from op_table import Engine, add_up, dot, vector

import microgpt
from microgpt import reference

Picks = Sequence[Any]
Build = Callable[[Engine, Picks], Any]

# From a few picked nodes to a new node, or to a list of new nodes.
SCALAR: dict[str, Build] = {
    "add": lambda e, v: v[0] + v[1],
    "sub": lambda e, v: v[0] - v[1],
    "mul": lambda e, v: v[0] * v[1],
    "div": lambda e, v: v[0] / v[1],
    "neg": lambda e, v: -v[0],
    "number": lambda e, v: (0.3 - v[0]) * 1.7 + 2 / (v[1] + 0.1),
    "square": lambda e, v: v[0] ** 2,
    "power": lambda e, v: v[0] ** -3 + v[1] ** 1,
    "power of values": lambda e, v: abs(v[0]) ** e.sigmoid(v[1]),
    "exp": lambda e, v: e.exp(v[0]),
    "log": lambda e, v: e.log(v[0] * v[0]),
    "relu": lambda e, v: e.relu(v[0]),
    "tanh": lambda e, v: e.tanh(v[0]),
    "sqrt": lambda e, v: e.sqrt(v[0]),
    "sin": lambda e, v: e.sin(v[0]) + e.cos(v[1]),
    "minimum": lambda e, v: e.minimum(v[0], v[1]) + e.maximum(v[0], 0.5),
    "custom": lambda e, v: e.Value(v[0].data * 0.7, v, [0.1 * i - 0.2 for i in range(len(v))]),
}
RUNS: dict[str, Build] = {
    "sum": add_up,
    "mean": lambda e, v: add_up(e, v) / len(v),
    "dot": lambda e, v: dot(e, v[: (len(v) + 1) // 2], v[len(v) // 2 :]),
    "dot with itself": lambda e, v: dot(e, v, v),
    "softmax": lambda e, v: e.softmax(v),
    "rmsnorm": lambda e, v: e.rmsnorm(v),
    "cross_entropy": lambda e, v: e.cross_entropy(v, len(v) // 2),
    "relu": lambda e, v: vector_or_list(e, lambda x: e.relu(x), v),
    "minus": lambda e, v: elementwise(e, v, v[::-1], lambda x, y: x - y),
    "over": lambda e, v: elementwise(e, v, v[::-1], lambda x, y: x / y),
    "times one": lambda e, v: elementwise(e, v, v[0], lambda x, y: x * y),
    "one minus": lambda e, v: elementwise(e, v, v[-1], lambda x, y: y - x),
    "attention": lambda e, v: e.attention(v * 2, [v + v[::-1], v[::-1] * 2], [v * 2, v + v[::-1]], 2),
    # dots of runs that follow each other on the tape, whole, in part and overlapping
    "dots of runs": lambda e, v: overlapping_dots(e, v),
}


def vector_or_list(engine: Engine, function: Callable[[Any], Any], values: Picks) -> Any:
    return function(vector(engine, values)) if engine is microgpt else [function(x) for x in values]


def elementwise(engine: Engine, values: Picks, other: Any, function: Callable[[Any, Any], Any]) -> Any:
    if engine is microgpt:
        return function(vector(engine, values), other)
    others = other if isinstance(other, list) else [other] * len(values)
    return [function(x, y) for x, y in zip(values, others, strict=True)]


def overlapping_dots(engine: Engine, values: Picks) -> Any:
    scaled = elementwise(engine, values, 0.9, lambda x, y: x * y)
    doubled = elementwise(engine, scaled, 1.1, lambda x, y: x * y)
    n = len(scaled)
    out = dot(engine, scaled, doubled) + dot(engine, doubled, doubled) + add_up(engine, doubled)
    return out + dot(engine, scaled[: n - 1], scaled[1:]) if n > 1 else out


Plan = tuple[list[float], list[tuple[str, list[int]]], list[int]]
numbers = st.floats(-2, 2).filter(lambda x: abs(x) > 1e-3 or x == 0)
picks = st.lists(st.integers(0, 99), min_size=2, max_size=12)


def plans(names: Sequence[str]) -> st.SearchStrategy[Plan]:
    instructions = st.lists(st.tuples(st.sampled_from(names), picks), min_size=1, max_size=25)
    return st.tuples(st.lists(numbers, min_size=2, max_size=12), instructions, picks)


def build(engine: Engine, plan: Plan) -> list[Any]:
    """All nodes that the plan makes, leaves first, the root last. An op without a value is left out."""
    data, instructions, last = plan
    nodes = [engine.Value(x) for x in data]
    for name, indices in instructions:
        picked = [nodes[i % len(nodes)] for i in indices]
        try:
            made = (SCALAR.get(name) or RUNS[name])(engine, picked)
        except (ArithmeticError, ValueError):
            continue
        nodes += [made] if isinstance(made, engine.Value) else list(made)
    nodes.append(add_up(engine, [engine.tanh(nodes[-i % len(nodes)]) for i in last]))
    return nodes


def bits(numbers: Sequence[float]) -> list[str]:
    return ["nan" if math.isnan(x) else float(x).hex() for x in numbers]


@given(plans([*SCALAR, *RUNS]))
def test_random_graph_equals_reference(plan: Plan) -> None:
    ours, theirs = build(microgpt, plan), build(reference, plan)
    assert bits([v.data for v in ours]) == bits([v.data for v in theirs])
    ours[-1].backward()
    theirs[-1].backward()
    assert bits([v.grad for v in ours]) == bits([v.grad for v in theirs])


@given(plans([*SCALAR]))
def test_second_backward_of_scalar_ops_equals_reference(plan: Plan) -> None:
    """Interior gradients persist, as in the reference. The last node but one is the root: the last is a fused sum."""
    ours, theirs = build(microgpt, plan), build(reference, plan)
    for _ in range(3):
        ours[-2].backward()
        theirs[-2].backward()
    assert bits([v.grad for v in ours]) == bits([v.grad for v in theirs])


def tied(engine: Engine) -> list[Any]:
    """Operands of a dot and of a sum are used again below a later operand of the same node: in three sums and more."""
    w = [engine.Value(0.1 * i - 0.35) for i in range(8)]
    v = [*w, w[0] + w[1], w[1] * w[2], engine.tanh(w[0] * w[3]), *w[:3]]
    logits = [dot(engine, v, v), dot(engine, w[:4] + w[:4], v[4:12]), add_up(engine, v), *engine.rmsnorm(v)]
    root = engine.cross_entropy(logits, 1)
    root.backward()
    return [*v, *logits, root]


def test_tied_operands_keep_the_order_of_the_reference() -> None:
    """Fails when a dot is one entry of the order whatever its operands are used for: that changes last bits here."""
    ours, theirs = tied(microgpt), tied(reference)
    assert bits([v.data for v in ours]) == bits([v.data for v in theirs])
    assert bits([v.grad for v in ours]) == bits([v.grad for v in theirs])


def test_room_for_split_sums_outlasts_a_larger_graph() -> None:
    """Split sums need more entries than the larger graph in between."""
    theirs = bits([v.grad for v in tied(reference)])
    assert bits([v.grad for v in tied(microgpt)]) == theirs
    many = microgpt.Vector([0.1] * 10_000)
    (many * many).sum().backward()
    kept = microgpt.Vector([0.1] * 9_000)
    assert bits([v.grad for v in tied(microgpt)]) == theirs
    assert len(kept) == 9_000


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 17, 64, 200])
def test_dots_of_every_length(n: int) -> None:
    """Blocks of eight rows, eight marks: every remainder."""

    def run(engine: Engine) -> list[float]:
        rows = [[math.sin(i * n + j) for j in range(n)] for i in range(n)]
        x = [engine.Value(math.cos(j)) for j in range(n)]
        if engine is microgpt:
            w = microgpt.Matrix(rows)
            y = w @ microgpt.Vector(x)
        else:
            w = [[engine.Value(item) for item in row] for row in rows]
            y = engine.linear(x, w)
        root = add_up(engine, [engine.tanh(yi) * yi for yi in y])
        root.backward()
        return [root.data, *[v.grad for v in x], *[v.grad for row in w for v in row]]

    assert bits(run(microgpt)) == bits(run(reference))


@example([(0, 1)])
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=60))
def test_reused_nodes_sum_every_path(edges: list[tuple[int, int]]) -> None:
    """Many paths between few nodes: sums of many contributions, where order shows in the last bit."""

    def run(engine: Engine) -> list[float]:
        nodes = [engine.Value(0.37), engine.Value(-1.21)]
        for i, j in edges:
            nodes.append(engine.tanh(nodes[-1 - i % len(nodes)] * nodes[-1 - j % len(nodes)] + nodes[0]))
        nodes[-1].backward()
        return [v.grad for v in nodes]

    assert bits(run(microgpt)) == bits(run(reference))


# Programs of vectors of one length, whose nodes follow each other on the tape: what the search takes run by run.
# From the vectors so far, two square matrices and three numbers to a new vector.
VECTORS: dict[str, Callable[[Engine, Any, Any, list[Any]], Any]] = {
    "linear": lambda e, x, y, w: product(e, w[0], x),
    "linear of the other": lambda e, x, y, w: product(e, w[1], y),
    "rows of the matrix": lambda e, x, y, w: elementwise(e, list(w[0][-1]), x, lambda a, b: a * b),
    "relu of linear": lambda e, x, y, w: each(e, e.relu, product(e, w[0], x)),
    "chain": lambda e, x, y, w: each(e, e.exp, elementwise(e, elementwise(e, x, 0.1, times), 0.3, plus)),
    "chain of linear": lambda e, x, y, w: each(e, e.tanh, elementwise(e, product(e, w[1], x), 0.3, times)),
    "residual": lambda e, x, y, w: elementwise(e, product(e, w[0], y), x, plus),
    "residual of itself": lambda e, x, y, w: elementwise(e, product(e, w[0], x), x, plus),
    "gate": lambda e, x, y, w: elementwise(e, each(e, e.sigmoid, y), x, times),
    "gate with weights": lambda e, x, y, w: elementwise(e, product(e, w[0], x), list(w[0][0]), times),
    "sum": lambda e, x, y, w: elementwise(e, x, y, plus),
    "times": lambda e, x, y, w: elementwise(e, x, y, times),
    "square": lambda e, x, y, w: elementwise(e, x, x, times),
    "backwards": lambda e, x, y, w: elementwise(e, x, list(y)[::-1], times),
    "scaled": lambda e, x, y, w: elementwise(e, x, add_up(e, y), times),
    "scaled by an element": lambda e, x, y, w: elementwise(e, x, x[len(x) // 2], times),
    "shifted by one": lambda e, x, y, w: elementwise(e, list(x)[1:] + list(y)[:1], x, plus),
    "softmax": lambda e, x, y, w: e.softmax(x),
    "rmsnorm": lambda e, x, y, w: e.rmsnorm(x),
    "attention": lambda e, x, y, w: e.attention(x, [x, y], [y, x], 1),
    "dots": lambda e, x, y, w: vector(e, [dot(e, x, y) for _ in x]),
    "running sum": lambda e, x, y, w: running(e, x, plus),
    "running tanh": lambda e, x, y, w: running(e, x, lambda a, b: e.tanh(a)),
    "numbers": lambda e, x, y, w: vector(e, [item * (0.3 + 1e-12 * i) for i, item in enumerate(x)]),
    "dots of some": lambda e, x, y, w: dots_of_some(e, x, y),
    "sum of gated": lambda e, x, y, w: sum_of_gated(e, x),
}


def plus(x: Any, y: Any) -> Any:
    return x + y


def times(x: Any, y: Any) -> Any:
    return x * y


def product(engine: Engine, matrix: Any, x: Any) -> Any:
    return matrix @ x if engine is microgpt else engine.linear(x, matrix)


def each(engine: Engine, function: Callable[[Any], Any], x: Any) -> Any:
    return function(x) if engine is microgpt else [function(item) for item in x]


def running(engine: Engine, x: Any, function: Callable[[Any, Any], Any]) -> Any:
    """Each node is an operand of the next: alike, and no run."""
    results = [x[0] * 1.0]
    for item in x:
        results.append(function(results[-1], item))
    return vector(engine, results[1:])


def dots_of_some(engine: Engine, x: Any, y: Any) -> Any:
    """Dots that are alike, but for the elements they take, of which only the first few are reached before."""
    gates = list(each(engine, engine.tanh, y))
    dots = [dot(engine, gates[:3], gates[:3])]
    dots += [dot(engine, [x[0], gates[i * i % len(gates)]], [x[1], x[0]]) for i in range(4)]
    return elementwise(engine, x, add_up(engine, dots), times)


def sum_of_gated(engine: Engine, x: Any) -> Any:
    """One of a run is reached before the others of it."""
    gates = each(engine, engine.tanh, x)
    total = add_up(engine, elementwise(engine, x, gates[0], times))
    return elementwise(engine, elementwise(engine, gates, total, lambda a, b: b * a), x, plus)


def run_program(engine: Engine, n: int, plan: Sequence[tuple[str, int, int]], last: Sequence[int]) -> list[str]:
    """Bits of the result and of every gradient. Indices count back from the newest vector."""
    rows = [[math.sin(i * n + j) for j in range(n)] for i in range(2 * n)]
    if engine is microgpt:
        w = [microgpt.Matrix(rows[:n]), microgpt.Matrix(rows[n:])]
    else:
        w = [[[engine.Value(item) for item in row] for row in part] for part in (rows[:n], rows[n:])]
    vectors = [vector(engine, [engine.Value(math.cos(i + 3 * k)) for i in range(n)]) for k in range(2)]
    for name, i, j in plan:
        with suppress(ArithmeticError, ValueError):
            vectors.append(VECTORS[name](engine, vectors[-1 - i % len(vectors)], vectors[-1 - j % len(vectors)], w))
    root = add_up(engine, [dot(engine, vectors[-1 - k % len(vectors)], vectors[-1]) for k in last])
    root.backward()
    leaves = [value for matrix in w for row in matrix for value in row]
    return bits([root.data, *[v.grad for x in vectors for v in x], *[v.grad for v in leaves]])


@pytest.mark.parametrize("name", VECTORS)
def test_every_operation_on_vectors_equals_reference(name: str) -> None:
    for plan in ([(name, 0, 1)], [(name, 0, 1), (name, 0, 1)], [("linear", 0, 1), (name, 0, 2), ("residual", 0, 1)]):
        for n in (2, 3, 5, 9):
            assert run_program(microgpt, n, plan, [0, 1, 2]) == run_program(reference, n, plan, [0, 1, 2])


@given(
    st.integers(2, 10),
    st.lists(st.tuples(st.sampled_from(list(VECTORS)), st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=9),
    st.lists(st.integers(0, 30), min_size=1, max_size=3),
)
def test_programs_of_vectors_equal_reference(n: int, plan: list[tuple[str, int, int]], last: list[int]) -> None:
    assert run_program(microgpt, n, plan, last) == run_program(reference, n, plan, last)


def test_what_the_root_does_not_reach_passes_nothing_on() -> None:
    """Gates beside the one that is used have a gradient from before, which must stay with them."""

    def run(engine: Engine) -> list[float]:
        x, y = ([engine.Value(math.sin(i + k)) for i in range(4)] for k in (1, 2))
        gates = each(engine, engine.tanh, vector(engine, y))
        add_up(engine, gates).backward()
        add_up(engine, elementwise(engine, vector(engine, x), gates[0], times)).backward()
        return [v.grad for v in [*x, *y, *gates]]

    assert bits(run(microgpt)) == bits(run(reference))


def listed_dots(engine: Engine, pairs: int, place: int, levels: int, n: int) -> list[float]:
    """Dots that are alike, with one varying operand, that of pair `place`; and dots of those, level by level."""
    fixed = [engine.Value(math.sin(i + 1)) for i in range(2 * pairs + 3)]
    varying = [engine.Value(math.cos(i)) for i in range(n)]
    leaves = [*fixed, *varying]
    for level in range(levels):
        varying = [engine.tanh(v) for v in varying]
        columns = [fixed[(7 * i + level) % len(fixed)] for i in range(2 * pairs)]
        rows = [[*columns[:place], v, *columns[place + 1 :]] for v in varying]
        varying = [dot(engine, row[::2], row[1::2]) for row in rows]
    add_up(engine, varying).backward()
    return [v.grad for v in leaves]


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize(("pairs", "place"), [(2, 1), (2, 3), (3, 0), (15, 29), (16, 7), (17, 30), (33, 65)])
def test_listed_dots_that_are_alike(pairs: int, place: int, levels: int) -> None:
    """The varying operand uses what the dots use before it, and there are as many operands as the search keeps apart."""
    for n in (2, 3, 9):
        ours, theirs = (listed_dots(engine, pairs, place, levels, n) for engine in (microgpt, reference))
        assert bits(ours) == bits(theirs)


def test_operand_used_before_and_below_a_listed_dot() -> None:
    def run(engine: Engine) -> list[float]:
        x = [engine.Value(v) for v in (0.3, 0.7, -0.1)]
        add_up(engine, [dot(engine, [x[0], engine.tanh(v)], [x[1], x[2]]) for v in x]).backward()
        h = [engine.tanh(v) for v in x]
        add_up(engine, [dot(engine, [x[0], v], [x[1], x[2]]) for v in h]).backward()
        return [v.grad for v in x]

    assert bits(run(microgpt)) == bits(run(reference))


# Dots that use leaves w, x = tanh(w) and y = sin(x), element by element.
PASSED: dict[str, Callable[[Engine, Any, Any, Any, Any, Any], Any]] = {
    "leaves": lambda e, w, x, y, c, d: [dot(e, [w[i], x[i]], [c, d]) for i in range(len(w))],
    "computed": lambda e, w, x, y, c, d: [dot(e, [x[i], y[i]], [c, d]) for i in range(len(w))],
    "second ones of a pair": lambda e, w, x, y, c, d: [dot(e, [c, y[i]], [x[i], d]) for i in range(len(w))],
    "a pair of them": lambda e, w, x, y, c, d: [dot(e, [x[i], c], [w[i], y[i]]) for i in range(len(w))],
    "values": lambda e, w, x, y, c, d: e.attention(w, [w, w[::-1]], [vector(e, x), vector(e, y)], 1),
}


@pytest.mark.parametrize("name", PASSED)
def test_operands_used_below_the_next_one_of_dots_that_are_alike(name: str) -> None:
    """Each of the dots has passed an operand of its own, which one of its next operands uses, and others do, too."""

    def run(engine: Engine, n: int) -> list[float]:
        w, c, d = [engine.Value(math.sin(i + n)) for i in range(n)], engine.Value(0.37), engine.Value(-1.21)
        for v in w:
            v.grad = v.data / 3
        x = [engine.tanh(v) for v in w]
        y = [engine.sin(v) for v in (d, *x[1:])]  # of the first dot all is searched before the others are
        dots = PASSED[name](engine, w, x, y, c, d)
        add_up(engine, [*dots, add_up(engine, x), add_up(engine, y)]).backward()
        return [v.grad for v in [*w, c, d]]

    for n in range(2, 12):
        assert bits(run(microgpt, n)) == bits(run(reference, n))


@pytest.mark.parametrize(
    "build",
    [
        lambda v: (v - 0.25) * (v - 0.5),
        lambda v: microgpt.tanh(v) * microgpt.sigmoid(v),
        lambda v: v + microgpt.tanh(v),
        lambda v: microgpt.tanh(v[::-1]),
        lambda v: reduce(lambda x, _: microgpt.sigmoid(x), range(12), v),
    ],
)
def test_cost_of_backward_is_proportional_to_the_graph(build: Callable[[Any], Any]) -> None:
    """Operands that are not alike are not looked at again and again: that took a second for 40,000."""

    def seconds(n: int) -> float:
        root = build(microgpt.Vector([i / n for i in range(n)])).sum()
        start = time.process_time()
        root.backward()
        return time.process_time() - start

    assert min(seconds(40_000) for _ in range(3)) < 16 * min(seconds(10_000) for _ in range(3)) / 2 + 0.002
