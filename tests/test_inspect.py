"""microgpt.graph: the nodes below a root as buffers, their names, counts and text; copies of numbers into buffers."""

from __future__ import annotations

import gc
import random
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from process import printed_by

import microgpt
from microgpt import GPT, GPTConfig, Matrix, Rows, Value, Vector, exp, relu, rmsnorm, softmax
from microgpt._tape import get_tape
from microgpt.graphs import Graph, graph
from microgpt.trainer import Settings, Trainer

TOKENS = [4, 0, 1, 1, 0, 3, 4]


def small_model(**sizes: int) -> GPT:
    return GPT(GPTConfig(5, **{"n_layer": 2, "n_embd": 8, "n_head": 2, "block_size": 8, **sizes}), random.Random(7))


def random_root(seed: int) -> Value:
    """A graph of scalar ops, sums and dots over earlier nodes in any order, so that some sums must be split."""
    rng = random.Random(seed)
    values: list[Any] = [Value(rng.uniform(-1.5, 1.5)) for _ in range(rng.randint(2, 5))]
    for _ in range(rng.randint(4, 30)):
        some = [rng.choice(values[-8:]) for _ in range(rng.randint(2, 6))]
        x, y = some[:2]
        kind = rng.randrange(8)
        if kind < 3:
            made = [x + y, x * y, (x * 0.3).tanh()][kind]
        elif kind == 3:
            made = x * rng.uniform(-1, 1) + 0.1
        elif kind == 4:
            made = Value(x.data * y.data, (x, y), (y.data, x.data))
        elif kind < 7:
            made = Vector(some).sum() * 0.3
        else:
            made = Vector(some) @ Vector([rng.choice(values) for _ in some]) * 0.3
        values.append(made)
    values.append(Vector(values[::-1]).sum() + softmax(values[:3])[1])
    return values[-1]


def depth_first(root: Value) -> list[Value]:
    """The reference's order from the root."""
    order: list[Value] = []
    seen: set[Value] = set()

    def visit(value: Value) -> None:
        if value not in seen:
            seen.add(value)
            for child in value.children:
                visit(child)
            order.append(value)

    visit(root)
    return order[::-1]


def bits(numbers: Any) -> list[str]:
    return [float(number).hex() for number in numbers]


def pulled(g: Graph) -> list[float]:
    """Gradients from the users of each node: partial times gradient, added up in the order of `uses`."""
    grads = [1.0] + [0.0] * (len(g) - 1)
    for i in range(1, len(g)):
        for k in range(g.first_use[i], g.first_use[i + 1]):
            grads[i] += g.partials[g.uses[k]] * grads[g.parent(g.uses[k])]
    return grads


def pushed(g: Graph) -> list[float]:
    """Gradients along the steps."""
    grads = [1.0] + [0.0] * (len(g) - 1)
    for node, low, high in g.steps.tolist():
        start, end = g.first_child[node], g.first_child[node + 1]
        if g.op(node) in ("sum", "dot"):
            width = 2 if g.op(node) == "dot" else 1
            edges = [start + k * width + j for k in reversed(range(low, high)) for j in range(width)]
        else:
            edges = list(range(start, end))
        for e in edges:
            grads[g.children[e]] += g.partials[e] * grads[node]
    return grads


@pytest.mark.parametrize("seed", range(120))
def test_nodes_come_in_the_order_of_the_reference_with_the_gradients_of_backward(seed: int) -> None:
    root = random_root(seed)
    g = graph(root)
    assert list(g) == depth_first(root)
    assert not any(value.grad for value in g)
    assert bits(pulled(g)) == bits(pushed(g)) == bits(g.grad)
    root.backward()
    assert bits(g.grad) == bits(value.grad for value in g)
    for i, value in enumerate(g):
        first, last = g.first_child[i], g.first_child[i + 1]
        assert [g[child] for child in g.children[first:last]] == list(value.children)
        assert bits(g.partials[first:last]) == bits(value.local_grads)
        assert (g.op(i), g.data[i], g.index(value)) == (value.op, value.data, i)


def test_some_of_the_random_graphs_split_sums() -> None:
    split = 0
    for seed in range(120):
        g = graph(random_root(seed))
        split += len(g.steps) > len([1 for i in range(len(g)) if g.op(i) != "leaf"])
    assert split > 50


@pytest.mark.parametrize("make", [lambda m: m.loss(TOKENS), lambda m: m.trace(TOKENS).loss], ids=["loss", "trace"])
def test_graph_of_a_model_has_the_gradients_of_backward(make: Callable[[GPT], Value]) -> None:
    model = small_model()
    model.lm_head = model.wte
    loss = make(model)
    g = graph(loss)
    loss.backward()
    assert bits(g.grad) == bits(value.grad for value in g)


def test_constants_are_the_numbers_in_ops() -> None:
    x = Value(3.0)
    g = graph((x + 4) ** 2 * x)
    assert [(g.op(i), g.constants[i]) for i in (1, 2)] == [("pow", 2.0), ("add", 4.0)]
    assert g.constants[0] != g.constants[0]
    assert [g.title(i) for i in range(4)] == ["mul", "pow 2", "add 4", "leaf"]
    assert [g.kind(i) for i in range(4)] == ["mul", "pow_k", "add_k", "leaf"]
    assert graph(2**x).title(0) == "2 pow"
    assert graph(2**x).kind(0) == "k_pow"


def test_count_tells_ops_edges_leaves_depth_and_bytes() -> None:
    x, w = Vector([1.0, 2.0]), Vector([0.5, 0.25])
    count = graph((x @ w).exp()).count
    assert count == (6, 4, 5, 2, {"leaf": 4, "exp": 1, "dot": 1}, 6 * 45)
    assert graph(Value(1.0)).count == (1, 1, 0, 0, {"leaf": 1}, 45)
    assert graph(Vector([x[1], x[0]]).sum()).count.nbytes == 3 * 45 + 4 * 4


def test_an_own_backward_is_called_and_leaves_no_gradient_behind() -> None:
    x, y = Value(2.0), Value(3.0)
    z = Value(6.0, (x, y), "times")

    def pass_on() -> None:
        x.grad += 10 * z.grad
        y.grad += 20 * z.grad

    z._backward = pass_on
    root = z * 2 + x
    x.grad = 0.5
    g = graph(root)
    assert {value.data: grad for value, grad in zip(g, g.grad, strict=True)} == {
        14.0: 1.0,
        12.0: 1.0,
        6.0: 2.0,
        3.0: 40.0,
        2.0: 21.0,
    }
    assert [value.grad for value in (root, z, x, y)] == [0, 0, 0.5, 0]
    assert all(p != p for p in g.partials[g.first_child[g.index(z)] : g.first_child[g.index(z) + 1]])
    assert g.title(g.index(z)) == "times"


def test_a_node_without_partials_is_refused_as_backward_refuses_it() -> None:
    x = Value(2.0)
    root = Value(4.0, (x,), "square") * 2
    x.grad = 0.25
    with pytest.raises(RuntimeError, match="the node `square` cannot pass its gradient on"):
        graph(root)
    assert x.grad == 0.25


def test_a_leaf_changed_after_its_use_is_refused() -> None:
    x = Value(2.0)
    y = x * x
    x.data = 3.0
    with pytest.raises(RuntimeError, match="a leaf used by `mul` was changed"):
        graph(y)
    x.data = 2.0
    assert graph(y).grad[1] == 4.0


@pytest.mark.parametrize("given", [None, 1.0, Vector([1.0])], ids=str)
def test_a_graph_is_that_of_a_value(given: Any) -> None:
    with pytest.raises(TypeError, match="a graph is that of a Value, got"):
        graph(given)


def test_a_graph_that_was_never_made_says_so() -> None:
    empty = Graph.__new__(Graph)
    for use in (len, iter, lambda g: g[0], lambda g: g.index(Value(1.0)), lambda g: g.indices(Value(1.0))):
        with pytest.raises(RuntimeError, match="this Graph was never made"):
            use(empty)
    for name in ("depths", "op_counts"):
        with pytest.raises(TypeError):
            getattr(empty, name)()
    for name in ("data", "steps", "partials", "uses", "tensor"):
        with pytest.raises(TypeError):
            getattr(empty, name)
    with pytest.raises(TypeError):
        empty.parent(0)
    with pytest.raises(TypeError):
        empty.name_tensors([])
    with pytest.raises(TypeError, match="made once"):
        graph(Value(1.0)).__init__(Value(2.0))  # type: ignore[misc]


def test_looking_leaves_nothing_on_the_tape() -> None:
    x = Value(0.5)
    y = (x * x).exp()
    gc.collect()
    nodes = get_tape().nodes
    g = graph(y)
    _ = g.uses, g.partials, g.count, g.tree()
    assert get_tape().nodes == nodes
    del g, y
    assert get_tape().nodes == nodes - 2


def test_a_graph_keeps_its_nodes_through_collections() -> None:
    x = Value(0.5)
    junk = [Value(1.0) for _ in range(50)]
    g = graph((x * x).exp())
    del junk
    get_tape().collect()
    assert [value.op for value in g] == ["exp", "mul", "leaf"]
    assert g[2] is x
    assert g.index(x) == 2


def test_buffers_are_numpys_and_read_only() -> None:
    g = graph(Vector([1.0, 2.0]).sum())
    assert np.asarray(g.grad).tolist() == [1.0, 1.0, 1.0]
    assert np.asarray(g.steps).tolist() == [[0, 0, 2]]
    with pytest.raises(TypeError, match="read-only"):
        g.data[0] = 1.0


def test_indices_find_elements_and_tell_what_is_not_reached() -> None:
    m, x = Matrix([[1.0, 2.0], [3.0, 4.0]]), Vector([0.5, -0.5])
    y = (m @ x)[1]
    g = graph(y)
    assert [g[i].data for i in g.indices(m[1])] == [3.0, 4.0]
    assert g.indices(m).tolist()[:2] == [-1, -1]
    assert g.indices(m[[1, 1]]).tolist() == 2 * g.indices(m[1]).tolist()
    assert g.indices(y).tolist() == [0]
    assert g.indices(Vector([Value(1.0)])).tolist() == [-1]  # a node made later
    with pytest.raises(ValueError, match="the graph does not reach Value"):
        g.index(m[0][0])
    with pytest.raises(TypeError, match="a Value, Vector, Matrix or Rows needed, got list"):
        g.indices([y])


def test_names_are_those_of_elements_then_labels() -> None:
    w, x = Matrix([[1.0, 2.0], [3.0, 4.0]]), Vector([0.5, -0.5])
    h = relu(w @ x)
    bias = Value(0.25)
    bias.label = "bias"
    loss = h.sum() + bias
    g = graph(loss, {"w": w, "x": x, "h": [h[:1], h[1:]], "again": w[0]})
    names = [g.name(i) for i in range(len(g))]
    assert sorted(filter(None, names)) == [
        "bias",
        "h[0][0]",
        "h[1][0]",
        "w[0][0]",
        "w[0][1]",
        "w[1][0]",
        "w[1][1]",
        "x[0]",
        "x[1]",
    ]
    assert g.name(g.index(w[1][0])) == "w[1][0]"
    with pytest.raises(TypeError, match="w must be a Value, Vector, Matrix, Rows or a list of them, got float"):
        graph(loss, {"w": 1.0})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="names are a dict"):
        graph(loss, [w])  # type: ignore[arg-type]


def test_a_tree_is_text_that_says_what_it_leaves_out() -> None:
    a, b = Value(2.0), Value(-3.0)
    a.label = "a"
    c = a * b + a
    assert graph(c).tree().splitlines() == [
        "add: data -4, grad 1",
        "|- mul: data -6, grad 1",
        "|  |- a: data 2, grad -2",
        "|  `- leaf: data -3, grad 2",
        "`- a: data 2, grad -2",
    ]
    assert graph(c * c).tree(depth=1).splitlines() == [
        "mul: data 16, grad 1",
        "|- add: data -4, grad -8 (more below)",
        "`- add: data -4, grad -8 (more below)",
        "(2 of 5 nodes)",
    ]
    assert graph((a * b) * (a * b) + (a * b).exp()).tree(max_nodes=2).splitlines()[-1] == "(2 of 8 nodes)"
    assert "4 more children" in graph(Vector([1.0] * 10).sum()).tree()
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        graph(c).tree(depth=0)


def test_a_shared_node_has_its_children_once() -> None:
    x = Value(2.0)
    y = x.exp()
    assert graph(y * y).tree().splitlines()[2:] == [
        "|  `- leaf: data 2, grad 109.2",
        "`- exp: data 7.389, grad 14.78 (its children are above)",
    ]


def test_a_million_nodes_in_a_row_are_counted_on_a_small_stack() -> None:
    code = """
import threading, microgpt
def count():
    x = microgpt.Value(1.0)
    for _ in range(10**6):
        x = x + 1e-6
    g = microgpt.graph(x)
    print(len(g), g.count.depth, g.tree(depth=10**6).count("add"), g.grad[10**6])
threading.stack_size(64 * 1024)
thread = threading.Thread(target=count)
thread.start()
thread.join()
"""
    assert printed_by(code).split() == ["1000001", "1000000", "60", "1.0"]


@pytest.mark.parametrize("typecode", ["d", "f"])
@pytest.mark.parametrize("listed", [False, True])
def test_copies_equal_the_lists(typecode: str, listed: bool) -> None:
    m = Matrix([[0.1, -2.0, 3.5], [4.0, 5.25, -6.0]])
    rows = m[[1, 0]] if listed else m[0:2]
    v = Vector(list(m[0])[::-1]) if listed else m[0]
    (rows[0] @ rows[1] + v @ v).backward()
    for thing, n in ((m, 6), (rows, 6), (v, 3)):
        for copy, numbers in ((thing.copy_data, thing.data), (thing.copy_grad, thing.grad)):
            buffer = array(typecode, [0.0] * n)
            copy(buffer)
            assert list(buffer) == np.array(numbers, dtype=typecode).ravel().tolist()
    square = np.zeros((2, 3))
    m.copy_grad(square)
    assert square.tolist() == m.grad


@pytest.mark.parametrize(
    "thing", [Vector([1.0, 2.0]), Matrix([[1.0, 2.0]]), Rows([[1.0, 2.0]])], ids=lambda thing: type(thing).__name__
)
def test_copies_refuse_other_buffers(thing: Any) -> None:
    for copy in (thing.copy_data, thing.copy_grad):
        with pytest.raises(ValueError, match="2 elements need a buffer of as many numbers, got 3"):
            copy(array("d", [0.0] * 3))
        for other in (array("i", [0, 0]), bytearray(16)):
            with pytest.raises(TypeError, match="a buffer of doubles"):
                copy(other)
        for other in ([0.0, 0.0], b"x" * 16, np.zeros(4)[::2], None):
            with pytest.raises(TypeError, match="a writable, contiguous buffer of doubles or floats needed, got"):
                copy(other)


def test_named_parameters_are_each_matrix_once() -> None:
    model = small_model()
    model.lm_head = model.wte
    named = dict(model.named_parameters())
    assert list(named) == [name for name in model.state_dict() if name != "lm_head"]
    assert [value for matrix in named.values() for row in matrix for value in row] == model.parameters()


@pytest.mark.parametrize("tied", [False, True])
def test_a_trace_computes_the_loss_and_names_every_node(tied: bool) -> None:
    model = small_model()
    if tied:
        model.lm_head = model.wte
    for tokens in (TOKENS, TOKENS[:2], TOKENS * 3):
        trace = model.trace(tokens)
        g, h = graph(trace.loss, trace.names), graph(model.loss(tokens))
        for name in ("ops", "data", "grad", "constants", "children", "steps"):
            assert getattr(g, name).tobytes() == getattr(h, name).tobytes(), name
        names = [g.name(i) for i in range(len(g))]
        assert all(names)
        assert len(set(names)) == len(g)
    q = trace.names["layer1.q"]
    assert g.name(g.index(q[2][5])) == "layer1.q[2][5]"
    attn = trace.names["layer1.attn"]
    assert [len(query) for query in attn[1]] == list(range(1, 9))
    assert all(abs(sum(query.data) - 1) < 1e-12 for head in attn for query in head)


def test_a_trace_refuses_what_it_cannot_name() -> None:
    class Other(GPT):
        def forward(self, *args: Any) -> Rows:
            return super().forward(*args) * 2

    model = small_model()
    with pytest.raises(TypeError, match="Other has a forward pass of its own"):
        Other(model.config, random.Random(1)).trace(TOKENS)
    with pytest.raises(ValueError, match="a loss needs at least two tokens, got 1"):
        model.trace([1])


def test_a_trainer_shows_its_gradients_before_the_update_and_trains_the_same() -> None:
    documents = ["anna", "hannah", "nan", "an"]
    settings = Settings(steps=5, n_embd=8, n_head=2, batch_size=2, clip_grad=0.5)
    plain, watched = Trainer(settings, documents[:]), Trainer(settings, documents[:])
    seen = []

    def look(trainer: Trainer) -> None:
        grads = [g for matrix in trainer.model.own_matrices().values() for row in matrix.grad for g in row]
        seen.append((len(trainer.losses), sum(g * g for g in grads) ** 0.5))

    watched.before_update = look
    losses = [watched.train_step() for _ in range(5)]
    assert losses == [plain.train_step() for _ in range(5)]
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4]
    assert all(0 < norm <= 0.5 + 1e-12 for _, norm in seen)


def test_the_tools_are_loaded_when_they_are_asked_for() -> None:
    code = (
        "import sys, microgpt; print([m for m in sys.modules if m in ('microgpt.graphs', 'microgpt._inspect')])\n"
        "print(microgpt.graph)"
    )
    first, second = printed_by(code).splitlines()
    assert first == "[]"
    assert second.startswith("<function graph")
    assert microgpt.graph is graph


def test_graphs_of_composites_are_those_of_backward() -> None:
    x = Vector([0.3, -0.8, 1.1])
    root = rmsnorm(exp(x) + softmax(x))[1]
    g = graph(root)
    root.backward()
    assert bits(g.grad) == bits(value.grad for value in g)
