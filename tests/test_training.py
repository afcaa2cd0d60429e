"""Whole training runs: losses, parameters and samples equal the twin's and the golden run's to the last bit."""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import hashlib
import json
import pickle
import platform
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import microgpt
from microgpt import GPT, Adam, CharTokenizer, GPTConfig, Matrix, Value, Vector, data, generate, nn, reference

HERE = Path(__file__).parent
MAKEMORE = HERE.parent.parent / "shared" / "data" / "makemore_names.txt"
GREEK = ["αβγ", "δ", "ααβ βγ", "γδδδδδδδδδδδδδδ", "🙂β", "é", "ba", "ab"]


def train(
    documents: Sequence[str], *, steps: int, seed: int = 42, temperature: float = 0.5, samples: int = 20, **sizes: int
) -> tuple[GPT, list[float], list[str]]:
    """Reference.train, written with the public interface of the engine."""
    rng = random.Random(seed)
    documents = list(documents)
    rng.shuffle(documents)
    tokenizer = CharTokenizer(documents)
    model = GPT(GPTConfig(tokenizer.vocab_size, **sizes), rng)
    optimizer = Adam(model.parameters())
    losses = []
    for step in range(steps):
        loss = model.loss(tokenizer.encode(documents[step % len(documents)]))
        loss.backward()
        optimizer.step(0.01 * (1 - step / steps))
        losses.append(loss.data)
    return model, losses, [generate(model, tokenizer, rng, temperature=temperature) for _ in range(samples)]


def bits(numbers: Sequence[float]) -> list[str]:
    return [x.hex() for x in numbers]


CONFIGURATIONS: list[dict[str, Any]] = [
    {"steps": 25},
    {"steps": 15, "n_layer": 2, "seed": 7},
    {"steps": 9, "n_layer": 3, "n_embd": 12, "n_head": 3, "seed": 1},
    {"steps": 25, "n_embd": 7, "n_head": 1},
    {"steps": 25, "n_embd": 5, "n_head": 5, "block_size": 3},
    {"steps": 10, "n_embd": 30, "n_head": 2, "block_size": 9, "temperature": 1.3},
    {"steps": 30, "n_embd": 1, "n_head": 1, "block_size": 1, "seed": 0},
]


@pytest.fixture
def no_collector() -> Iterator[None]:
    """The cyclic collector takes more than half of the twin's time and finds nothing."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("documents", [data.load_names()[:2000], GREEK], ids=["names", "unicode"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_training_equals_reference(documents: list[str], configuration: dict[str, Any]) -> None:
    model, losses, samples = train(documents, samples=3, **configuration)
    twin = reference.train(documents, samples=3, **configuration)
    assert bits(losses) == bits(twin.losses)
    assert bits([p.data for p in model.parameters()]) == bits([p.data for p in twin.model.parameters()])
    assert samples == twin.samples


@pytest.mark.skipif(not MAKEMORE.exists(), reason=f"the names of microgpt.py are not at {MAKEMORE}; they are not ours to ship")
def test_golden_run() -> None:
    golden = json.loads((HERE / "golden_seed42.json").read_text())
    documents = data.load_file(MAKEMORE)
    assert len(documents) == golden["documents"]
    rng = random.Random(42)
    rng.shuffle(documents)
    fresh = GPT(GPTConfig(golden["vocab_size"]), rng)
    assert bits([p.data for p in fresh.parameters()]) == golden["initial_parameters_hex"]
    model, losses, samples = train(data.load_file(MAKEMORE), steps=1000)
    assert bits(losses) == golden["loss_hex"]
    assert bits([p.data for p in model.parameters()]) == golden["final_parameters_hex"]
    assert samples == golden["samples"]
    assert f"{losses[-1]:.4f}" == "2.6497"


def test_golden_run_on_the_embedded_names() -> None:
    """1000 steps of the twin, recorded once with glibc 2.36; elsewhere the last bits of exp, log and pow may differ."""
    golden = json.loads((HERE / "golden_names.json").read_text())
    model, losses, samples = train(data.load_names(), steps=1000)
    assert samples == golden["samples"]
    assert f"{losses[-1]:.4f}" == f"{float.fromhex(golden['last_loss']):.4f}"
    if platform.libc_ver()[0] == "glibc":
        assert digest(losses) == golden["losses_sha256"]
        assert digest([p.data for p in model.parameters()]) == golden["parameters_sha256"]


def digest(numbers: Sequence[float]) -> str:
    return hashlib.sha256("\n".join(bits(numbers)).encode()).hexdigest()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1, 30.0])
@pytest.mark.parametrize("max_norm", [None, 1e-3, 2.0, 1e140])
def test_adam_equals_reference_on_wild_gradients(weight_decay: float, max_norm: float | None) -> None:
    """Gradients of every magnitude, zeros, and both kinds of parameter storage: one run, and scattered leaves."""
    rng = random.Random(3)
    n = 500
    start = [-0.0, *(rng.gauss(0, 1) for _ in range(n - 1))]
    clipped = 0
    for order in (list(range(n)), rng.sample(range(n), n)):
        ours, theirs = [Value(x) for x in start], [reference.Value(x) for x in start]
        ours, theirs = [ours[i] for i in order], [theirs[i] for i in order]
        optimizer, twin = Adam(ours, weight_decay=weight_decay), reference.Adam(theirs, weight_decay=weight_decay)
        for step in range(30):
            for p, q in zip(ours, theirs, strict=True):
                p.grad = q.grad = rng.choice([0.0, rng.gauss(0, 1), rng.gauss(0, 1) * 10 ** rng.uniform(-200, 150)])
            if max_norm is not None:
                norm = optimizer.clip_grad_norm(max_norm)
                assert norm.hex() == twin.clip_grad_norm(max_norm).hex()
                assert bits([p.grad for p in ours]) == bits([p.grad for p in theirs])
                clipped += norm > max_norm
            optimizer.step(0.1 / (step + 1))
            twin.step(0.1 / (step + 1))
            assert bits([p.data for p in ours]) == bits([p.data for p in theirs])
        assert bits(optimizer.m) == bits(twin.m)
        assert bits(optimizer.v) == bits(twin.v)
        assert all(p.grad == 0 for p in ours)
    assert clipped > 0 or max_norm is None


def test_minus_zero_survives_a_step_without_decay() -> None:
    p = Value(-0.0)
    Adam([p]).step(0.0)
    assert str(p.data) == "-0.0"


def test_weight_decay_is_apart_from_the_gradient() -> None:
    p = Value(2.0)
    Adam([p], learning_rate=0.1, weight_decay=0.5).step()
    assert p.data == 2.0 - 0.1 * 0.5 * 2.0


def test_clip_grad_norm_scales_down_only() -> None:
    w, v, x = Matrix([[1.0, 2.0]]), Vector([3.0]), Value(4.0)
    optimizer = Adam([w, v, x])
    w.grad, v.grad, x.grad = [[1.0, -2.0]], [2.0], 4.0
    assert optimizer.clip_grad_norm(5.0) == 5.0
    assert (w.grad, v.grad, x.grad) == ([[1.0, -2.0]], [2.0], 4.0)
    assert optimizer.clip_grad_norm(2.5) == 5.0
    assert (w.grad, v.grad, x.grad) == ([[0.5, -1.0]], [1.0], 2.0)


@pytest.mark.parametrize("grad", [float("inf"), float("nan"), 1e200])
def test_clip_grad_norm_refuses_what_has_no_norm(grad: float) -> None:
    p = [Value(1.0), Value(2.0)]
    p[0].grad, p[1].grad = 3.0, grad
    with pytest.raises(OverflowError, match=r"norm of the gradients is (inf|nan)"):
        Adam(p).clip_grad_norm(1.0)
    assert p[0].grad == 3.0


def test_adam_takes_any_mixture_of_leaves() -> None:
    w, v, x = Matrix([[1.0, 2.0]]), Vector([3.0]), Value(4.0)
    optimizer = Adam([w, v, x], learning_rate=0.5)
    ((w @ [x, v[0]])[0] * x).backward()
    optimizer.step()
    assert w.data == [[pytest.approx(0.5), pytest.approx(1.5)]]
    assert (v.data, x.data) == ([pytest.approx(2.5)], pytest.approx(3.5))
    x.grad = 3
    optimizer.zero_grad()
    assert x.grad == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Adam([]), "at least one"),
        (lambda: Adam([Value(1.0) * 2]), "computed"),
        (lambda: Adam([1.0]), "got float"),
        (lambda: Adam(Value(1.0)), "Adam needs a list of parameters, got Value$"),
        (lambda: Adam(small_model()), r"Adam needs a list of parameters, got GPT: take its parameters\(\)"),
        (lambda: Adam([Value(1.0)], learning_rate="fast"), "learning_rate must be a number, got str"),
        (lambda: Adam([Value(1.0)], betas=0.9), "betas must be two numbers, got float"),
        (lambda: Adam([Value(1.0)], betas=(0.9, None)), "each of betas must be a number, got NoneType"),
        (lambda: Adam([Value(1.0)], eps=None), "eps must be a number, got NoneType"),
        (lambda: Adam([Value(1.0)], weight_decay=Value(0.1)), "take value.data for the number"),
        (lambda: Adam([Value(1.0)]).step("fast"), "learning_rate must be a number, got str"),
        (lambda: Adam([Value(1.0)]).clip_grad_norm("a"), "max_norm must be a number, got str"),
        (lambda: Adam([Value(1.0)], betas=(1.0, 0.99)), "below 1"),
        (lambda: Adam([Value(1.0)], eps=0.0), "above 0"),
        (lambda: Adam([Value(1.0)], learning_rate=float("nan")), "finite"),
        (lambda: Adam([Value(1.0)], learning_rate=-1), "at least 0"),
        (lambda: Adam([Value(1.0)]).step(float("inf")), "finite"),
        (lambda: Adam([Value(1.0)], weight_decay=-0.1), "weight_decay must be finite and at least 0, got -0.1"),
        (lambda: Adam([Value(1.0)], weight_decay=float("nan")), "got nan"),
        (lambda: Adam([Value(1.0)]).clip_grad_norm(0), "max_norm must be finite and above 0, got 0"),
        (lambda: Adam([Value(1.0)]).clip_grad_norm(float("inf")), "got inf"),
    ],
)
def test_adam_refuses(make: Any, words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        make()


@pytest.mark.parametrize("moments", [array("d"), array("d", [0.0]), array("f", [0.0] * 2), array("d", [0.0] * 3)], ids=str)
def test_adam_refuses_moments_of_another_size(moments: array[float]) -> None:
    optimizer = Adam([Value(1.0), Value(2.0)])
    optimizer.m = moments
    with pytest.raises(ValueError, match="need 2 doubles"):
        optimizer.step()


def test_adam_step_that_overflows_changes_nothing() -> None:
    p = [Value(1.0) for _ in range(100)]
    optimizer = Adam(p)
    for v in p:
        v.grad = 1.0
    p[90].grad = 1e200
    with pytest.raises(OverflowError, match="parameter 90"):
        optimizer.step()
    assert [v.data for v in p] == [1.0] * 100
    assert list(optimizer.m) == [0.0] * 100
    assert optimizer.steps == 0
    assert p[0].grad == 1.0


def nn_model() -> nn.MLP:
    random.seed(1)
    return nn.MLP(2, [3, 1])


def nn_loss(model: nn.MLP) -> Value:
    return (model([0.3, -0.7]) - 1.0) ** 2


def gpt_loss(model: GPT) -> Value:
    return model.loss([1, 2, 0, 3])


def tied_model() -> GPT:
    model = small_model()
    model.lm_head = model.wte
    return model


def one_step(model: Any, optimizer: Adam, loss: Callable[[Any], Value]) -> str:
    value = loss(model)
    value.backward()
    optimizer.step()
    return value.data.hex()


@pytest.mark.parametrize(("make", "loss"), [(tied_model, gpt_loss), (nn_model, nn_loss)], ids=["gpt", "nn"])
@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("first", ["model", "optimizer"])
def test_a_model_and_its_optimizer_are_copied_together(
    make: Callable[[], Any], loss: Callable[[Any], Value], way: Callable[[Any], Any], first: str
) -> None:
    model = make()
    optimizer = Adam(model.parameters(), weight_decay=0.1)
    for _ in range(3):
        one_step(model, optimizer, loss)
    loss(model).backward()  # gradients are copied, too
    if first == "model":
        model2, optimizer2 = way([model, optimizer])
    else:
        optimizer2, model2 = way([optimizer, model])
    assert list(optimizer2.parameters) == model2.parameters()
    assert not set(optimizer2.parameters) & set(optimizer.parameters)
    before = bits([p.data for p in model.parameters()])
    there = [one_step(model2, optimizer2, loss) for _ in range(3)]
    assert bits([p.data for p in model.parameters()]) == before
    assert there == [one_step(model, optimizer, loss) for _ in range(3)]
    assert bits(list(optimizer2.m)) == bits(list(optimizer.m))
    assert (optimizer2.steps, optimizer2.weight_decay) == (6, 0.1)


def test_a_shallow_copy_of_an_optimizer_trains_the_same_parameters_with_means_of_its_own() -> None:
    p = Value(1.0)
    optimizer = Adam([p])
    copied = copy.copy(optimizer)
    p.grad = 1.0
    copied.step()
    assert copied.parameters[0] is p
    assert (list(copied.m), list(optimizer.m), copied.steps, optimizer.steps) == ([pytest.approx(0.15)], [0.0], 1, 0)


def test_an_optimizer_copied_alone_has_parameters_of_its_own() -> None:
    model = small_model()
    optimizer = Adam([*model.parameters(), Value(1.0), Vector([2.0, 3.0])])
    copied = copy.deepcopy(copy.deepcopy(optimizer))
    assert copied.parameters.data == optimizer.parameters.data
    assert not set(copied.parameters) & set(optimizer.parameters)


def test_an_optimizer_of_a_part_of_a_matrix_is_not_copied() -> None:
    model = small_model()
    for parameters in (model.parameters()[1:], model.parameters()[:-1], model.parameters()[::-1], [model.wte[0]]):
        for way in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match=r"some elements of a Matrix cannot be copied or pickled.*copy its state_dict"):
                way(Adam(parameters))


def test_numbers_of_numpy_are_floats_to_adam() -> None:
    tenth = np.float32(0.1)
    ours, theirs = Value(1.0), reference.Value(1.0)
    optimizer = Adam([ours], tenth, np.array([0.8, 0.9], dtype=np.float32), tenth, tenth)  # type: ignore[arg-type]
    twin = reference.Adam([theirs], float(tenth), (float(np.float32(0.8)), float(np.float32(0.9))), float(tenth), float(tenth))
    for _ in range(3):
        ours.grad = theirs.grad = 0.7
        norm = optimizer.clip_grad_norm(tenth)
        assert norm == twin.clip_grad_norm(float(tenth))
        assert ours.grad.hex() == theirs.grad.hex()
        optimizer.step()
        twin.step()
        assert ours.data.hex() == theirs.data.hex()
    assert json.loads(json.dumps(optimizer.state_dict())) == optimizer.state_dict()


def test_the_state_of_an_optimizer_goes_through_json() -> None:
    model, straight = tied_model(), tied_model()
    optimizer, other = (Adam(m.parameters(), 0.02, (0.8, 0.95), 1e-7, 0.1) for m in (model, straight))
    for _ in range(3):
        assert one_step(model, optimizer, gpt_loss) == one_step(straight, other, gpt_loss)
    state = json.loads(json.dumps(optimizer.state_dict()))
    fresh = Adam(model.parameters())
    fresh.load_state_dict(state)
    assert fresh.state_dict() == state
    assert fresh.betas == (0.8, 0.95)
    state["m"][0] = 9.0
    assert fresh.m[0] != 9.0
    for _ in range(3):
        assert one_step(model, fresh, gpt_loss) == one_step(straight, other, gpt_loss)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"m": [0.0]}, ValueError, "2 parameters need as many m and v, got 1 and 2"),
        ({"v": [0.0] * 3}, ValueError, "got 2 and 3"),
        ({"v": [0.0, -1.0]}, ValueError, "v are means of squares, got -1.0"),
        ({"v": [float("nan"), 0.0]}, ValueError, "v are means of squares, got nan"),
        ({"m": ["a", "b"]}, TypeError, "must be real number"),
        ({"steps": -1}, ValueError, "steps must be at least 0, got -1"),
        ({"steps": 1.5}, TypeError, "float"),
        ({"betas": [0.9, 1.0]}, ValueError, "below 1"),
        ({"betas": [0.9]}, ValueError, "two numbers"),
        ({"eps": 0.0}, ValueError, "eps"),
        ({"learning_rate": float("inf")}, ValueError, "learning_rate"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
        ({"momentum": 0.9}, ValueError, "the state of an Adam has learning_rate, betas, .*, got .*momentum"),
        ({"eps": None, "steps": None}, ValueError, "the state of an Adam has"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    optimizer = Adam([Value(1.0), Value(2.0)])
    before = optimizer.state_dict()
    good = {**before, "m": [1.0, 2.0], "v": [3.0, 4.0], "steps": 7, "eps": 1e-3}
    with pytest.raises(error, match=words):
        optimizer.load_state_dict({name: value for name, value in {**good, **change}.items() if value is not None})
    assert optimizer.state_dict() == before
    optimizer.load_state_dict(good)
    assert optimizer.state_dict() == good


@pytest.mark.parametrize(
    ("sizes", "error", "words"),
    [
        ({"vocab_size": 0}, ValueError, "vocab_size must be at least 1, got 0"),
        ({"vocab_size": 3, "n_embd": 10, "n_head": 3}, ValueError, "n_head must divide n_embd"),
        ({"vocab_size": 3, "n_layer": -1}, ValueError, "n_layer must be at least 1"),
        ({"vocab_size": 3, "n_embd": 16.0}, TypeError, "n_embd must be a whole number, got 16.0"),
        ({"vocab_size": True}, TypeError, "vocab_size must be a whole number, got True"),
        ({"vocab_size": np.True_}, TypeError, "vocab_size must be a whole number, got .*True"),
        ({"vocab_size": np.float64(3)}, TypeError, "vocab_size must be a whole number, got .*3.0"),
        ({"vocab_size": np.array([3, 4])}, TypeError, "vocab_size must be a whole number, got array"),
        ({"vocab_size": np.int64(-3)}, ValueError, "vocab_size must be at least 1, got -3"),
        ({"vocab_size": 3, "n_embd": 100_000}, ValueError, "at most 100,000,000 parameters"),
    ],
)
def test_config_refuses(sizes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        GPTConfig(**sizes)


@pytest.mark.parametrize("pieces", [(5,), (1, 4), (2, 3), (4, 1), (1, 1, 1, 1, 1)])
def test_forward_in_pieces_equals_the_twin(pieces: tuple[int, ...]) -> None:
    tokens, sizes = [0, 3, 3, 1, 2], {"n_layer": 2, "n_embd": 6, "n_head": 3, "block_size": 5}
    model, twin = GPT(GPTConfig(4, **sizes), random.Random(1)), reference.GPT(4, random.Random(1), **sizes)
    cache, twin_cache = model.new_cache(), twin.new_cache()
    position, logits = 0, []
    for count in pieces:
        rows = model.forward(tokens[position : position + count], position, cache)
        assert rows.shape == (count, 4)
        logits += rows.data
        position += count
    expected = [[z.data for z in twin.logits(token, i, twin_cache)] for i, token in enumerate(tokens)]
    assert [[z.hex() for z in row] for row in logits] == [[z.hex() for z in row] for row in expected]


@pytest.mark.parametrize("kind", [list, tuple, bytes, functools.partial(array, "i")])
def test_tokens_may_come_in_any_sequence(kind: Callable[[list[int]], Any]) -> None:
    model = GPT(GPTConfig(4, n_embd=4, n_head=2), random.Random(1))
    assert model.loss(kind([0, 2, 1])).data == model.loss([0, 2, 1]).data


def test_model_refuses_what_it_does_not_have() -> None:
    model = GPT(GPTConfig(5, n_embd=4, n_head=2, block_size=3), random.Random(0))
    with pytest.raises(IndexError, match="row 5"):
        model.logits(5, 0, model.new_cache())
    with pytest.raises(IndexError, match="position 3 is out of range for a model of 3 positions"):
        model.logits(0, 3, model.new_cache())
    for token, position in ((-1, 0), (0, -1)):
        with pytest.raises(IndexError, match="at least 0"):
            model.logits(token, position, model.new_cache())
    with pytest.raises(IndexError, match="position 3 is out of range for a model of 3 positions"):
        model.forward([0, 1], 2, model.new_cache())
    with pytest.raises(IndexError, match="row 5"):
        model.forward([0, 5], 0, model.new_cache())
    with pytest.raises(IndexError, match=r"at least 0, got \[0, -1\] and 0"):
        model.forward([0, -1], 0, model.new_cache())
    with pytest.raises(ValueError, match="at least one token"):
        model.forward([], 0, model.new_cache())
    with pytest.raises(ValueError, match="has 1 layers, got 2"):
        model.forward([0], 0, model.new_cache() * 2)
    with pytest.raises(ValueError, match="two tokens"):
        model.loss([1])
    with pytest.raises(IndexError, match="got 7"):
        model.loss([1, 7])


def test_state_dict_has_the_names_and_order_of_microgpt() -> None:
    model = GPT(GPTConfig(5, n_layer=2, n_embd=4, n_head=2, block_size=3), random.Random(0))
    layer = ["attn_wq", "attn_wk", "attn_wv", "attn_wo", "mlp_fc1", "mlp_fc2"]
    state = model.state_dict()
    assert list(state) == ["wte", "wpe", "lm_head", *[f"layer{i}.{name}" for i in range(2) for name in layer]]
    assert {name: matrix.shape for name, matrix in state.items()} == model.config.shapes
    assert [p.data for p in model.parameters()] == [x for m in state.values() for row in m.data for x in row]
    assert len(model.parameters()) == model.config.n_parameters


def small_model(**sizes: int) -> GPT:
    return GPT(GPTConfig(5, **{"n_layer": 2, "n_embd": 4, "n_head": 2, "block_size": 3, **sizes}), random.Random(0))


def matrix(rows: int, columns: int) -> Matrix:
    return Matrix([[0.1 * i - 0.2 * j for j in range(columns)] for i in range(rows)])


REPLACEMENTS: dict[str, Callable[[GPT], Any]] = {
    "lm_head": lambda m: setattr(m, "lm_head", m.wte),
    "wte": lambda m: setattr(m, "wte", matrix(5, 4)),
    "wpe": lambda m: setattr(m, "wpe", matrix(3, 4)),
    "layer1.attn_wq": lambda m: setattr(m.layers[1], "attn_wq", matrix(4, 4)),
    "layer0.mlp_fc1": lambda m: setattr(m.layers[0], "mlp_fc1", m.layers[1].mlp_fc1),
    "layer1.mlp_fc2": lambda m: m.layers.__setitem__(1, m.layers[0]),
}


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_what_the_model_holds_is_listed_trained_and_computed(name: str) -> None:
    model = small_model()
    before = model.state_dict()
    REPLACEMENTS[name](model)
    state, parameters = model.state_dict(), model.parameters()
    assert list(state) == list(before)
    assert state[name] is not before[name]
    assert state[name][0][0] in parameters
    assert len(set(parameters)) == len(parameters)
    loss = model.loss([1, 2, 0, 3])
    loss.backward()
    start, kept = state[name].data, loss.data
    Adam(parameters).step()
    assert state[name].data != start
    assert model.loss([1, 2, 0, 3]).data < kept


def test_tied_weights_add_up_both_gradients() -> None:
    model, twin = small_model(), reference.GPT(5, random.Random(0), n_layer=2, n_embd=4, n_head=2, block_size=3)
    model.lm_head = model.wte
    twin.state_dict["lm_head"] = twin.state_dict["wte"]
    model.loss([1, 2, 0]).backward()
    twin.loss([1, 2, 0]).backward()
    twins = dict.fromkeys(twin.parameters())
    assert bits([p.grad for p in model.parameters()]) == bits([float(p.grad) for p in twins])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda m: setattr(m, "lm_head", matrix(6, 4)), ValueError, r"lm_head must have shape \(5, 4\) .*, it has \(6, 4\)"),
        (lambda m: setattr(m.layers[1], "mlp_fc1", matrix(4, 16)), ValueError, r"layer1.mlp_fc1 must have shape \(16, 4\)"),
        (lambda m: setattr(m, "wpe", [[0.0] * 4] * 3), TypeError, "wpe must be a Matrix, got list"),
        (
            lambda m: m.layers.append(m.layers[0]),
            ValueError,
            "the model has 3 layers, its config says n_layer 2: set model.config",
        ),
        (lambda m: m.layers.pop(), ValueError, "the model has 1 layers, its config says n_layer 2"),
    ],
)
def test_a_model_that_is_not_its_config_is_refused(
    change: Callable[[GPT], Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    model = small_model()
    change(model)
    for use in (model.state_dict, model.parameters, lambda: model.save(tmp_path / "model")):
        with pytest.raises(error, match=words):
            use()
    assert list(tmp_path.iterdir()) == []
    if "layers" in words:
        with pytest.raises(ValueError, match=words):
            model.loss([1, 2])


def test_layers_can_be_added_with_their_number(tmp_path: Path) -> None:
    model = small_model()
    model.layers.append(copy.deepcopy(model.layers[0]))
    model.config = dataclasses.replace(model.config, n_layer=3)
    assert model.loss([1, 2]).data > 0
    model.save(tmp_path / "model")
    assert GPT.load(tmp_path / "model").loss([1, 2]).data == model.loss([1, 2]).data


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_of_a_model_are_equal_and_independent(way: Callable[[GPT], GPT]) -> None:
    model = small_model()
    model.lm_head = model.wte
    model.loss([1, 2, 0]).backward()
    copied = way(model)
    assert copied.lm_head is copied.wte
    assert bits([p.data for p in copied.parameters()]) == bits([p.data for p in model.parameters()])
    assert bits([p.grad for p in copied.parameters()]) == bits([p.grad for p in model.parameters()])
    loss = model.loss([1, 2, 0]).data
    Adam(copied.parameters()).step()
    assert copied.loss([1, 2, 0]).data != loss == model.loss([1, 2, 0]).data


def test_tokens_of_numpy_are_tokens() -> None:
    model = small_model()
    tokens = np.array([1, 2, 0, 4])
    for kind in (np.int64, np.int32, np.uint8):
        assert model.loss(tokens.astype(kind)).data == model.loss([1, 2, 0, 4]).data
        assert model.loss(list(tokens.astype(kind))).data == model.loss([1, 2, 0, 4]).data
    cache = model.new_cache()
    assert model.forward(tokens[:2], np.int64(0), cache).shape == (2, 5)
    assert model.logits(tokens[2], np.int64(2), cache).data == model.forward([1, 2, 0], 0, model.new_cache())[2].data


def test_the_vocabulary_of_a_tokenizer_is_fixed() -> None:
    tokenizer = CharTokenizer(["abc"])
    with pytest.raises(AttributeError, match="characters"):
        tokenizer.characters = "xyz"  # type: ignore[misc]
    assert copy.deepcopy(tokenizer).encode("cab") == tokenizer.encode("cab")


def test_tokenizer_goes_there_and_back() -> None:
    tokenizer = CharTokenizer(["ba", "ac"])
    assert (tokenizer.characters, tokenizer.vocab_size, tokenizer.bos) == ("abc", 4, 3)
    assert tokenizer.encode("cab") == [3, 2, 0, 1, 3]
    assert tokenizer.decode([3, 2, 0, 1, 3]) == tokenizer.decode(iter([2, 0, 1])) == "cab"
    with pytest.raises(ValueError, match=r"'z'.*'abc'"):
        tokenizer.encode("az")
    with pytest.raises(ValueError, match=r"'z'.*'[^'a-z]{100}' and 900 more"):
        CharTokenizer([chr(0x4E00 + i) for i in range(1000)]).encode("z")
    with pytest.raises(ValueError, match="0 to 3, got 9"):
        tokenizer.decode([9])
    with pytest.raises(ValueError, match="at least one character"):
        CharTokenizer(["", ""])


def test_training_step_leaves_the_tape_as_it_was() -> None:
    for _ in range(600):  # rewinds, by which the tape gives back what larger graphs of other tests have left
        Value(1.0) * 2.0
    model = GPT(GPTConfig(5, n_embd=4, n_head=2), random.Random(0))
    nodes = microgpt._tape.get_tape().nodes
    size = 0
    for step in range(50):
        model.loss([1, 2, 3, 4, 1]).backward()
        assert microgpt._tape.get_tape().nodes == nodes
        size = size or microgpt._tape.get_tape().nbytes
        assert step == 0 or microgpt._tape.get_tape().nbytes == size
