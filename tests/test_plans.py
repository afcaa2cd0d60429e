"""Plans kept from one graph to the next: the bits of the twin, wherever a graph is like the ones before, or nearly so."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import twin
from hypothesis import example, given
from hypothesis import strategies as st
from test_graphs import VECTORS, add_up, bits, dot, each, elementwise, plus, product, run_program, times, vector

import microgpt
from microgpt import GPT, GPTConfig, Matrix, Rows, Vector, reference
from microgpt._plans import forget_plans, plan_counts
from microgpt._tape import get_tape

pytestmark = pytest.mark.usefixtures("small_graphs")

Plan = list[tuple[str, int, int]]
operations = st.tuples(st.sampled_from(list(VECTORS)), st.integers(0, 30), st.integers(0, 30))
MET = 3  # graphs of a kind, of which the second takes the plan of the first
# No plans are made for graphs with listed operands, with spans of leaves and of computed nodes, or with sums that are split.
SEARCHED = ("shifted by one", "dots", "running sum", "running tanh", "attention", "dots of some")


def planned_nodes() -> int:
    """Return how many nodes, ever, took a plan made before."""
    return plan_counts()[2]


@given(
    st.integers(2, 10),
    st.lists(operations, min_size=1, max_size=9),
    st.integers(0, 8),
    operations,
    st.lists(st.integers(0, 30), min_size=1, max_size=3),
)
def test_programs_met_again_equal_reference(n: int, plan: Plan, place: int, change: Any, last: list[int]) -> None:
    """A program, one that differs from it in one operation, and the first again."""
    forget_plans()
    other = [*plan[:place], change, *plan[place + 1 :]]
    right = {False: run_program(reference, n, plan, last), True: run_program(reference, n, other, last)}
    for changed in (*[False] * MET, True, False, *[True] * MET, False):
        assert run_program(microgpt, n, other if changed else plan, last) == right[changed]


STEPS: list[Any] = [
    lambda e, x, row, rows: [e.tanh(v) for v in x],
    lambda e, x, row, rows: [v + r for v, r in zip(x, row, strict=True)],
    lambda e, x, row, rows: [v * r for v, r in zip(x, row[::-1], strict=True)],
    lambda e, x, row, rows: [dot(e, vector(e, r), vector(e, x)) for r in rows],
    lambda e, x, row, rows: [v * x[0] for v in x[1:]] + [x[0] * row[0]],
    lambda e, x, row, rows: [v * add_up(e, [row[1], *x]) for v in x],
]
steps = st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 5)), min_size=1, max_size=5)


@given(
    st.integers(3, 8), steps, st.integers(0, 5), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=6)
)
def test_any_rows_in_a_graph_met_before(n: int, plan: list[tuple[int, int]], last: int, others: list[tuple[int, int]]) -> None:
    """Nodes one by one, of the rows of one matrix: first the same ones each time, then one row is another."""

    def run(engine: Any) -> Iterator[list[str]]:
        rows = [numbers(engine, n, i) for i in range(n)]
        for first, change in [(0, 0)] * MET + others:
            x = rows[first % n]
            for k, (step, row) in enumerate(plan):
                x = STEPS[step](engine, x, rows[(row + change * (k == first)) % n], rows)
            dot(engine, vector(engine, rows[last % n]), vector(engine, x)).backward()
            yield grads(rows)

    forget_plans()
    assert list(run(microgpt)) == list(run(reference))


@pytest.mark.parametrize("name", VECTORS)
def test_every_operation_met_again_equals_reference(name: str) -> None:
    plan = [("linear", 0, 1), (name, 0, 1), ("residual", 0, 1), (name, 0, 2), ("linear of the other", 0, 0)]
    before = planned_nodes()
    for n in (2, 3, 5, 9):
        for _ in range(MET):
            assert run_program(microgpt, n, plan, [0, 0]) == run_program(reference, n, plan, [0, 0])
    assert (planned_nodes() == before) == (name in SEARCHED)


def losses_and_grads(engine: Any, model: Any, documents: Sequence[list[int]]) -> Iterator[list[str]]:
    """Train with plain gradient steps, as other numbers make other mistakes."""
    parameters = model.parameters()
    for document in documents:
        loss = model.loss(document)
        loss.backward()
        yield bits([loss.data, *[p.grad for p in parameters]])
        for p in parameters:
            p.data -= 0.1 * p.grad
            p.grad = 0.0


@pytest.mark.parametrize(("n_layer", "n_embd", "n_head"), [(1, 16, 4), (2, 6, 3), (3, 4, 1)])
def test_documents_of_every_length_and_letter(n_layer: int, n_embd: int, n_head: int) -> None:
    rng = random.Random(n_embd)
    sizes = {"n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "block_size": 6}
    documents = [[0, *rng.choices(range(1, 5), k=rng.randint(1, 5)), 0] for _ in range(25)]
    model = GPT(GPTConfig(5, **sizes), random.Random(3))
    twin = reference.GPT(5, random.Random(3), **sizes)
    before = planned_nodes()
    pairs = zip(losses_and_grads(microgpt, model, documents), losses_and_grads(reference, twin, documents), strict=True)
    assert all(ours == theirs for ours, theirs in pairs)
    # Of what a step searches, most is recalled soon.
    before, loss = planned_nodes(), model.loss(documents[0])
    loss.backward()
    assert planned_nodes() - before > 30 * n_layer * (len(documents[0]) - 1)


def test_graphs_elsewhere_on_the_tape_take_the_plan() -> None:
    """Where losses are kept, each graph is higher than the one before."""
    model = GPT(GPTConfig(5, n_embd=4, n_head=2), random.Random(3))
    twin = reference.GPT(5, random.Random(3), n_embd=4, n_head=2)
    kept, before = [], planned_nodes()
    for k in range(5):
        kept.append(model.loss([0, 1 + k % 4, 2, 0]))
        kept[-1].backward()
        before, now = planned_nodes(), before
        assert k < MET or before > now + 100
        twin.loss([0, 1 + k % 4, 2, 0]).backward()
        assert bits([p.grad for p in model.parameters()]) == bits([p.grad for p in twin.parameters()])


def leaves(engine: Any, rows: int, columns: int, phase: int = 0) -> Any:
    """A Matrix, or rows of Values."""
    data = [[math.sin(i * columns + j + phase) for j in range(columns)] for i in range(rows)]
    return Matrix(data) if engine is microgpt else [[engine.Value(item) for item in row] for row in data]


def grads(*matrices: Any) -> list[str]:
    return bits([v.grad for matrix in matrices for row in matrix for v in row])


def tied(engine: Any, token: int, target: int, e: Any, w: Any) -> list[str]:
    """One matrix embeds a token and gives its logit: where the two are the same, x[k] uses what the last dot uses before it."""
    x = each(engine, engine.tanh, product(engine, w, elementwise(engine, e[token], e[4], plus)))
    dot(engine, e[target], elementwise(engine, x, e[token][::-1], times)).backward()
    return grads(e, w)


def gated(engine: Any, token: int, target: int, e: Any, w: Any) -> list[str]:
    """Gates made of one row, and another added from its end: where the two are the same, their order shows."""
    h = elementwise(engine, product(engine, w, e[4]), each(engine, engine.tanh, e[token]), times)
    dot(engine, e[5], elementwise(engine, h, e[target][::-1], plus)).backward()
    return grads(e, w)


def embedded(engine: Any, token: int, target: int, e: Any, w: Any) -> list[str]:
    """Any token is as good as another, but for the one whose row the last dot uses, too."""
    h = elementwise(engine, e[token], e[4], plus)
    x = each(engine, engine.tanh, product(engine, w, h))
    dot(engine, e[target], elementwise(engine, x, h[0], times)).backward()
    return grads(e, w)


def gated_at_once(engine: Any, token: int, target: int, e: Any, w: Any) -> list[str]:
    """The same with the gates before everything else."""
    dot(engine, w[0], elementwise(engine, each(engine, engine.tanh, e[token]), e[target][::-1], plus)).backward()
    return grads(e, w)


def picked(engine: Any, token: int, target: int, e: Any, w: Any) -> list[str]:
    """Dots of listed operands, which are not the same ones each time."""
    x = vector(engine, [dot(engine, [e[token][k ^ 1], w[k][0]], [w[0][k], e[5][k]]) for k in range(8)])
    x = elementwise(engine, each(engine, engine.tanh, x), e[4][::-1], times)
    dot(engine, e[target], x).backward()
    return grads(e, w)


@pytest.mark.parametrize("graph", [tied, gated, gated_at_once, embedded, picked])
def test_rows_that_are_used_twice_are_told_apart(graph: Any) -> None:
    for first in range(4):
        forget_plans()
        second, third = (first + 1) % 4, (first + 2) % 4
        pairs = [(first, second)] * (MET + 1)
        pairs += [(third, second), (first, first), (second, second), (4, second), (first, 4), *pairs]
        ours, theirs = ((e, leaves(e, 6, 8), leaves(e, 8, 8, 40)) for e in (microgpt, reference))
        before = planned_nodes()
        for pair in pairs:
            assert graph(ours[0], *pair, *ours[1:]) == graph(theirs[0], *pair, *theirs[1:])
        assert planned_nodes() > before or graph is picked  # whose dots list their operands


def test_chain_of_alike_nodes_is_no_run() -> None:
    """Each one an operand of the next."""

    def run(engine: Any) -> list[list[str]]:
        w = leaves(engine, 2, 3)
        results = []
        for _ in range(MET):
            y = w[0][0]
            for _ in range(20):
                y = y * 1.1
            dot(engine, w[1], elementwise(engine, w[0], y, times)).backward()
            results.append(grads(w))
        return results

    before = planned_nodes()
    assert run(microgpt) == run(reference)
    assert planned_nodes() > before


def numbers(engine: Any, n: int, seed: int) -> list[Any]:
    """Leaves, none like another."""
    return [engine.Value(random.Random(100 * seed + i).gauss(0, 1)) for i in range(n)]


def operand_seen_before(engine: Any, changed: bool) -> Iterator[Any]:
    """One of the last dot's operands is reached from elsewhere; without that, the others come in another sequence."""
    w, u = numbers(engine, 40, 1), numbers(engine, 40, 2)
    scale, free = numbers(engine, 2, 3)
    yield [*w, *u, scale, free]
    while True:
        x = [v * scale for v in u]
        changed = yield (free if changed else x[7]) + dot(engine, vector(engine, w), vector(engine, x))


def leaf_among_operands(engine: Any, changed: bool) -> Iterator[Any]:
    """A leaf between the last dot's operands is used by those after it."""
    w, (a, b) = numbers(engine, 40, 1), numbers(engine, 2, 2)
    known = [*w, a, b, a]
    yield known
    while True:
        x = [engine.tanh(a), engine.Value(0.77)]
        known[-1] = x[1]
        x += [engine.tanh(x[1] if changed else b) for _ in range(38)]
        changed = yield dot(engine, vector(engine, w), vector(engine, x))


def sums_that_go_down(engine: Any, changed: bool) -> Iterator[Any]:
    """Each of a run of sums begins one operand before the last one."""
    p, q = numbers(engine, 50, 1), numbers(engine, 50, 2)
    yield [*p, *q]
    while True:
        first = 18 if changed else 30
        sums = [add_up(engine, (q if changed else p)[first - j : first - j + 20]) for j in range(13)]
        changed = yield dot(engine, vector(engine, q[28:41]), vector(engine, sums))


def sums_of_computed(engine: Any, changed: bool) -> Iterator[Any]:
    """The same of operands that are computed, some of them seen before."""
    p, c, w = numbers(engine, 90, 1), numbers(engine, 90, 2), numbers(engine, 33, 3)
    yield [*p, *c, *w]
    while True:
        x = [v * 0.5 for v in c]
        first = add_up(engine, x[50:58])
        sums = [add_up(engine, (x if changed else p)[50 - j : 90 - j]) for j in range(33)]
        changed = yield first + dot(engine, vector(engine, w), vector(engine, sums))


def operand_of_an_inner_sum(engine: Any, changed: bool) -> Iterator[Any]:
    """What is below an inner sum uses an operand that the sum has passed."""
    w, (a, b, c) = numbers(engine, 2, 1), numbers(engine, 3, 2)
    yield [*w, a, b, c]
    while True:
        tanhs = [engine.tanh(b if changed else a) for _ in range(12)]
        x = [add_up(engine, [b, *tanhs]), engine.tanh(c)]
        changed = yield dot(engine, vector(engine, w), vector(engine, x))


def row_of_an_inner_matrix(engine: Any, changed: bool) -> Iterator[Any]:
    """A row is the input of a matrix that has the row, too."""
    rows, v = [numbers(engine, 40, i + 3) for i in range(4)], numbers(engine, 2, 2)
    yield [*[item for row in rows for item in row], *v]
    while True:
        row = rows[0 if changed else 3]
        h = vector(engine, [row[39 - i] * row[(i + 13) % 40] for i in range(40)])
        dots = [dot(engine, vector(engine, r), h) for r in rows[:2]]
        x = [engine.tanh(d) for d in dots]
        changed = yield dot(engine, vector(engine, v), vector(engine, x))


@pytest.mark.parametrize(
    "graphs",
    [
        operand_seen_before,
        leaf_among_operands,
        sums_that_go_down,
        sums_of_computed,
        operand_of_an_inner_sum,
        row_of_an_inner_matrix,
    ],
)
def test_graphs_that_differ_in_an_operand(graphs: Any) -> None:
    def run(engine: Any) -> Iterator[list[str]]:
        making = graphs(engine, False)
        known = next(making)
        root = next(making)
        for changed in (*[False] * MET, True, True, False, *[True] * MET):
            root.backward()
            yield bits([v.grad for v in known])
            for v in known:
                v.grad = 0.0
            root = making.send(changed)

    assert list(run(microgpt)) == list(run(reference))


def test_computed_operands_that_have_become_leaves() -> None:
    """What an inner dot has beside it was computed, at a distance where now the leaves are that its other operands use."""

    def run(engine: Any, seed: int) -> Iterator[list[str]]:
        w, (c, d), leaves = numbers(engine, 2, seed), numbers(engine, 2, seed + 1), numbers(engine, 9, seed + 2)
        known = [*w, c, d, *leaves]

        def operands(beside: list[Any]) -> list[Any]:
            sums = [add_up(engine, [leaves[0], leaves[3], leaves[0]]) for _ in range(9)]
            return [dot(engine, vector(engine, beside), vector(engine, sums)), engine.tanh(c)]

        last = operands(leaves)
        for _ in range(MET):
            beside = [engine.tanh(d) for _ in range(9)]
            x = operands(beside)
            (add_up(engine, beside) + dot(engine, vector(engine, w), vector(engine, x))).backward()
            yield bits([v.grad for v in known])
            del beside, x
        dot(engine, vector(engine, w), vector(engine, last)).backward()
        yield bits([v.grad for v in known])

    for seed in range(8):
        forget_plans()
        assert list(run(microgpt, seed)) == list(run(reference, seed))


def test_what_a_sum_came_to_before_is_heeded() -> None:
    """The same graph below another sum, which uses a leaf or a node of it before."""

    def run(engine: Any) -> list[list[str]]:
        w, free, results = leaves(engine, 3, 3), engine.Value(0.7), []
        for first in (free, free, free, w[0][0], w[2][1], None, free):
            x = elementwise(engine, elementwise(engine, w[0], w[1], times), w[0], plus)
            x = each(engine, engine.tanh, x)
            add_up(engine, [x[1] if first is None else first, dot(engine, w[2], x)]).backward()
            results.append([*grads(w), *bits([free.grad])])
        return results

    assert run(microgpt) == run(reference)


def test_plans_take_bounded_memory() -> None:
    """Each graph of another length, as texts have them: those used last are kept."""
    model = GPT(GPTConfig(3, n_layer=2, n_embd=8, n_head=4, block_size=300), random.Random(3))
    for n in range(290, 200, -3):
        model.loss([0] * n).backward()
        count, nbytes, _ = plan_counts()
        assert count > 0
        assert nbytes <= 1 << 25
    before = planned_nodes()
    model.loss([0] * n).backward()
    assert planned_nodes() > before


def test_plans_are_taken_where_leaves_were_made_anew() -> None:
    """The tape has them in the same places, and whether these are leaves is looked at."""

    def run(engine: Any, computed: bool) -> list[str]:
        w = [numbers(engine, 3, i) for i in range(3)]
        known = [v for row in w for v in row]
        if computed:  # below the graph, where leaves were
            w = [[v * 1.0 for v in row] for row in w]
        x = vector(engine, each(engine, engine.tanh, vector(engine, numbers(engine, 3, 4))))
        add_up(engine, vector(engine, [dot(engine, vector(engine, row), x) for row in w])).backward()
        return bits([v.grad for v in known])

    before = planned_nodes()
    for computed in (False, False, True, False):
        assert run(microgpt, computed) == run(reference, computed)
    assert planned_nodes() > before


def test_constants_may_change() -> None:
    """Numbers in the graph are no part of its shape; runs are, whose numbers are the same."""

    def run(engine: Any) -> list[list[str]]:
        x = [engine.Value(0.1 * i) for i in range(4)]
        results = []
        for k in range(6):
            y = (
                vector(engine, [v * (0.5 + k) for v in x])
                if k < 4
                else vector(engine, [v * (0.5 + i + k) for i, v in enumerate(x)])
            )
            y = each(engine, engine.tanh, y)
            dot(engine, vector(engine, x), y).backward()
            results.append(bits([v.grad for v in x]))
        return results

    assert run(microgpt) == run(reference)


def first_ones(e: Any, losses: Any, x: Any, y: Any, w: Any, m: Any) -> Any:
    x[2][0].grad = 0.5  # which the losses differentiated do not reach
    return add_up(e, losses[:2])


ENDS: dict[str, Any] = {  # what is differentiated: of losses, last vectors x and logits y of all positions, and matrices
    "sum": lambda e, losses, x, y, w, m: add_up(e, losses),
    "weighted sum": lambda e, losses, x, y, w, m: add_up(e, losses) * 0.25,
    "reversed": lambda e, losses, x, y, w, m: add_up(e, losses[::-1]),
    "last ones": lambda e, losses, x, y, w, m: add_up(e, losses[1:]),
    "first ones": first_ones,
    "one": lambda e, losses, x, y, w, m: losses[len(losses) - 1] * 1.5,
    "out of turn": lambda e, losses, x, y, w, m: losses[0] + losses[2] + losses[1],
    "out of turn, and again": lambda e, losses, x, y, w, m: losses[0] + losses[2] + losses[1] + dot(e, w[5], x[2]),
    "twice": lambda e, losses, x, y, w, m: add_up(e, losses) * 0.5 + add_up(e, losses),
    "one more": lambda e, losses, x, y, w, m: losses[0] * 0.5 + add_up(e, losses),
    "x before": lambda e, losses, x, y, w, m: dot(e, x[1], x[0]) + add_up(e, losses),
    "x after": lambda e, losses, x, y, w, m: add_up(e, losses) + dot(e, x[1], x[0]),
    "x in the middle": lambda e, losses, x, y, w, m: losses[0] + dot(e, x[2], x[1]) + losses[1] + losses[2],
    "x with logits": lambda e, losses, x, y, w, m: losses[0] + dot(e, x[2], y[1][:4]),
    "logits with x": lambda e, losses, x, y, w, m: losses[0] + dot(e, y[1][:4], x[2]),
    "row of x": lambda e, losses, x, y, w, m: dot(e, w[0], x[2]) + add_up(e, losses),
    "weights before": lambda e, losses, x, y, w, m: dot(e, w[0], m[1]) + add_up(e, losses),
    "weights after": lambda e, losses, x, y, w, m: add_up(e, losses) + dot(e, m[1], w[0]),
    "weights in the middle": lambda e, losses, x, y, w, m: losses[0] + dot(e, m[1], w[0]) + losses[1] + losses[2],
    "weights around": lambda e, losses, x, y, w, m: dot(
        e, vector(e, [w[0][0], add_up(e, losses)]), vector(e, [w[0][1], w[1][2]])
    ),
}


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ENDS)
def test_positions_taken_together(name: str, tied: bool, known: bool) -> None:
    """Cross entropies of several positions, the tokens and targets others each time, and what may use their parts as well.

    `known`: once the shape of the sum is.
    """

    def run(engine: Any) -> Iterator[list[str]]:
        rng = random.Random(4)
        embedding, w, m = (leaves(engine, rows, 4, phase) for rows, phase in ((6, 0), (6, 1), (4, 2)))
        w = embedding if tied else w
        for end in ["sum"] * (3 * MET * known) + [name] * (3 * MET):
            n = rng.choice([3, 3, 3, 4, 5])
            tokens, targets = (rng.choices(range(6), k=n) for _ in range(2))
            x: Any
            if engine is microgpt:
                h = m @ (embedding[tokens] * 0.9)
                x = h + microgpt.tanh(h)
                y: Any = w @ x
                losses: Any = microgpt.cross_entropy(y, targets)
            else:
                h = [product(engine, m, [v * 0.9 for v in embedding[token]]) for token in tokens]
                x = [elementwise(engine, v, each(engine, engine.tanh, v), plus) for v in h]
                y = [product(engine, w, v) for v in x]
                losses = [engine.cross_entropy(z, target) for z, target in zip(y, targets, strict=True)]
            ENDS[end](engine, losses, x, y, w, m).backward()
            yield grads(embedding, w, m)

    before = planned_nodes()
    assert list(run(microgpt)) == list(run(reference))
    assert (
        planned_nodes() > before or tied or name not in ("sum", "weighted sum", "twice", "one more", "x before", "weights before")
    )


def test_what_looks_like_cross_entropies(capfd: pytest.CaptureFixture[str]) -> None:
    """Powers of products and of listed dots, where a sum of exponentials and differences would be."""
    x, y, w = Vector([0.3, 0.4]), Vector([1.3, 1.4]), Matrix([[0.3, 0.4], [0.2, 0.1]])
    (-microgpt.log(x / (y + y))).sum().backward()
    assert capfd.readouterr().err == ""
    (-microgpt.log(x / y)).sum().backward()
    assert x.grad == pytest.approx([-2 / 0.3, -2 / 0.4])
    (-microgpt.log(x / (y * y))).sum().backward()
    e = microgpt.exp(w @ (y * 1.0)[::-1])
    (-microgpt.log(Vector([e[1]]) * Vector([e.sum()]) ** -1.0)).sum().backward()
    assert sum(map(sum, w.grad)) == pytest.approx(0.0)


@pytest.mark.parametrize("kind", ["learnt before", "not learnt, before", "learnt after", "not learnt, after"])
def test_positions_beside_cross_entropies_that_are_known(kind: str) -> None:
    """Two graphs in one, the second without cross entropies and, with a node of one's own in it, never learnt."""
    e, w, c = leaves(microgpt, 4, 4), leaves(microgpt, 4, 4, 1), leaves(microgpt, 1, 4, 2)

    def deep() -> Any:
        x = e[[0, 1]] + e[[2, 3]]
        for _ in range(50):
            x = microgpt.tanh(x)
        return microgpt.cross_entropy(w @ x, [2, 3]).sum()

    def beside() -> Any:
        x = e[[2, 1]] * 0.9
        if "not" in kind:
            x = Rows([[microgpt.Value(v.data * 0.9, (v,), (0.9,)) for v in row] for row in x])
        h = microgpt.tanh(x)
        y = w @ (h * h + h)
        return y[0].sum() + h[1][1] * c[0][0] + y[1].sum()

    def both() -> Any:
        return beside() + deep() if "before" in kind else deep() + beside()

    def gradients(*roots: Any) -> list[str]:
        for matrix in (e, w, c):
            matrix.grad = [[0.0] * 4] * len(matrix)
        for root in roots:
            root.backward()
        return grads(e, w, c)

    parts = (deep, beside) if "before" in kind else (beside, deep)  # what comes last in the order is differentiated first
    right = gradients(*[part() for part in parts])
    for _ in range(MET):
        gradients(deep())
    for _ in range(2 * MET):
        assert gradients(both()) == right


def test_cross_entropies_that_use_the_positions_out_of_turn() -> None:
    """Their shape is known, with x outside of it, in an order that comes to x in turn; the search does not."""

    def run(engine: Any) -> Iterator[list[str]]:
        e, a, *k, w, head = (leaves(engine, 4, 4, phase) for phase in range(7))
        u = leaves(engine, 1, 12, 7)
        for known in (*[True] * (MET + 1), *[False] * (2 * MET)):
            if engine is microgpt:
                x: Any = microgpt.tanh(a @ e[0:4])
                z = [matrix @ x[i + 1] for i, matrix in enumerate(k)]
                y: Any = microgpt.tanh(Rows(z[::-1]))
            else:
                x = [each(engine, engine.tanh, product(engine, a, row)) for row in e]
                z = [product(engine, matrix, x[i + 1]) for i, matrix in enumerate(k)]
                y = [each(engine, engine.tanh, v) for v in z[::-1]]
            if known:
                root = add_up(engine, [*x[0], *x[1], *x[2], *x[3]]) + dot(engine, u[0], vector(engine, [*y[0], *y[1], *y[2]]))
            else:
                if engine is microgpt:
                    losses: Any = microgpt.cross_entropy(head @ y, [1, 2, 0])
                else:
                    losses = [engine.cross_entropy(product(engine, head, v), t) for v, t in zip(y, [1, 2, 0], strict=True)]
                root = add_up(engine, product(engine, w, x[0])) + add_up(engine, losses)
            root.backward()
            yield grads(e, a, *k, w, head, u)

    assert list(run(microgpt)) == list(run(reference))


@given(st.integers(0, 10**6))
@example(54)  # in these two the spans decide the bits
@example(230)
def test_overlapping_spans_met_again(seed: int) -> None:
    """Dots of parts of one computed vector, put in one order and used in another."""

    def run(engine: Any) -> Iterator[list[str]]:
        rng = random.Random(seed)
        m, u = leaves(engine, 9, 9), leaves(engine, 1, 8, 1)
        spans = [(rng.randrange(5), rng.randrange(5, 10)) for _ in range(8)]
        order = rng.sample(range(8), 8)
        for _ in range(2 * MET):
            x = each(engine, engine.tanh, product(engine, m, m[0]))
            x = vector(engine, x)
            dots = [dot(engine, m[i + 1][low:high], x[low:high]) for i, (low, high) in enumerate(spans)]
            dots = each(engine, engine.tanh, [dots[i] for i in order])
            dot(engine, u[0], vector(engine, dots)).backward()
            yield grads(m, u)

    forget_plans()
    assert list(run(microgpt)) == list(run(reference))


def test_a_chain_of_products_takes_linear_time() -> None:
    """Each of them follows the one before on the tape, as products of one matrix with several vectors do, but uses it."""
    w, start = Matrix([[0.6, -0.8], [0.8, 0.6]]), Vector([1.0, 0.5])

    def seconds(n: int) -> float:
        h = start * 1.0
        for _ in range(n):
            h = w @ h
        root, begin = h.sum(), time.process_time()
        root.backward()
        return time.process_time() - begin

    seconds(1000)
    assert min(seconds(32000) for _ in range(3)) < 64 * min(seconds(2000) for _ in range(3))  # quadratic: 256


def test_documents_of_one_length_have_one_plan() -> None:
    model = GPT(GPTConfig(6, n_embd=8, n_head=2), random.Random(3))
    for document in ([0, 2, 1, 3, 0], [0, 3, 3, 1, 0], [0, 5, 4, 3, 0]):
        before, low = planned_nodes(), get_tape().nodes
        loss = model.loss(document)
        loss.backward()
    nodes = get_tape().nodes - low
    assert planned_nodes() - before == nodes - 1
    assert plan_counts()[0] == 1


def letters(engine: Any, w: Any, tokens: Sequence[int]) -> Any:
    """The elements of rows looked up, of a Matrix or of rows of Values."""
    rows = w[list(tokens)] if engine is microgpt else [w[i] for i in tokens]
    return vector(engine, [v for row in rows for v in row])


def rows_looked_up(engine: Any, tokens: tuple[int, ...], w: Any, m: Any) -> Any:
    """Rows that follow each other by chance are as good as one."""
    return add_up(engine, each(engine, engine.tanh, vector(engine, [v * 0.9 for v in letters(engine, w, tokens)])))


def elements_picked(engine: Any, tokens: tuple[int, ...], w: Any, m: Any) -> Any:
    """Nodes put one by one, of elements that are a step apart or not."""
    x = vector(engine, [engine.tanh(w[0][i]) for i in tokens])
    return add_up(engine, vector(engine, [v * 0.9 for v in x]))


def targets_a_step_apart(engine: Any, tokens: tuple[int, ...], w: Any, m: Any) -> Any:
    """Targets of several positions, of which the next ones have others."""
    return add_up(engine, vector(engine, [engine.cross_entropy(z, t) for z, t in zip(logits(engine, w, m), tokens, strict=True)]))


def logits(engine: Any, w: Any, m: Any) -> list[Any]:
    if engine is microgpt:
        return list(w @ microgpt.tanh(m[:4]))
    return [product(engine, w, each(engine, engine.tanh, row)) for row in m[:4]]


def logit_used_before(engine: Any, tokens: tuple[int, ...], w: Any, m: Any) -> Any:
    """What comes to a target's logit first may be another one than its cross entropy."""
    z = logits(engine, w, m)[0]
    return z[2] + engine.cross_entropy(z, tokens[0])


def sum_used_before(engine: Any, tokens: tuple[int, ...], w: Any, m: Any) -> Any:
    z = logits(engine, w, m)[0]
    e = each(engine, engine.exp, vector(engine, [v - 0.5 for v in z]))
    total = add_up(engine, vector(engine, e))
    return total + -engine.log(e[tokens[0]] * total**-1.0)


def part_of_the_matrix_before(engine: Any, tokens: tuple[int, ...], w: Any, m: Any) -> Any:
    """What is below the logits uses the first rows of their matrix: some targets' rows, of which the search passes elements."""
    p = vector(engine, m[0])
    x = each(engine, engine.tanh, vector(engine, [dot(engine, row, p) for row in m]))
    x = vector(engine, [*x, x[0]])
    first = engine.cross_entropy(vector(engine, [dot(engine, w[i], x) for i in range(3)]), tokens[1] % 3)
    q = each(engine, engine.tanh, vector(engine, [x[0], first, *x[2:]]))
    return engine.cross_entropy(vector(engine, [dot(engine, row, q) for row in w]), tokens[0])


def rows_read_across(engine: Any, tokens: tuple[int, ...], w: Any, m: Any) -> Any:
    """Rows of nodes whose operands are two parts of others."""
    y = vector(engine, each(engine, engine.tanh, vector(engine, [*w[tokens[0]][:2], *w[tokens[1]][2:]])))
    return add_up(engine, vector(engine, elementwise(engine, y, dot(engine, y, y), times)))


@pytest.mark.parametrize(
    "graph",
    [
        rows_looked_up,
        elements_picked,
        targets_a_step_apart,
        logit_used_before,
        sum_used_before,
        part_of_the_matrix_before,
        rows_read_across,
    ],
)
def test_plans_hold_for_other_rows_and_targets(graph: Any) -> None:
    for first in ((0, 1, 2, 3), (2, 2, 2, 2), (1, 1, 3, 3), (4, 3, 2, 1)):
        forget_plans()
        ours, theirs = ((e, leaves(e, 5, 6), leaves(e, 5, 6, 40)) for e in (microgpt, reference))
        for tokens in (first, first, (4, 0, 1, 3), (0, 3, 4, 1), (3, 2, 1, 0), (0, 0, 0, 0), first):
            results = []
            for engine, w, m in (ours, theirs):
                graph(engine, tokens, w, m).backward()
                results.append(grads(w, m))
            assert results[0] == results[1]


def test_leaves_that_may_be_any_are_leaves() -> None:
    """In the place of those of the plan there are computed nodes now."""

    def run(engine: Any, computed: bool) -> list[str]:
        p = vector(engine, numbers(engine, 4, 1))
        x = vector(engine, each(engine, engine.exp, p) if computed else numbers(engine, 4, 2))
        add_up(engine, vector(engine, each(engine, engine.tanh, vector(engine, [v * 0.9 for v in x])))).backward()
        return bits([v.grad for v in p])

    for computed in (False, False, True):
        assert run(microgpt, computed) == run(reference, computed)


def test_a_task_of_two_runs_is_not_gone_on_by_either() -> None:
    """The last dot of one product and the first of the next have operands steps apart: two dots, which the rest go not on."""

    def gradients(engine: Any) -> list[Any]:
        m1 = engine.Matrix([[-0.609, -0.113], [-1.472, -0.025]])
        m2 = engine.Matrix([[-0.873, 0.554], [1.319, 0.127]])
        rows = m1 @ (m2[[0, 0, 0]] + m2[[0, 0, 0]])
        engine.Vector([engine.tanh(m2 @ row) @ (m2 @ row) for row in rows]).sum().backward()
        return [g for m in (m1, m2) for row in m for g in row.grad]

    assert bits(gradients(microgpt)) == bits(gradients(twin))
