"""The whole algorithm in plain Python, one object per scalar: what the compiled engine must equal to the last bit.

It is the oracle of the tests, the baseline of the benchmarks, and the package for interpreters without the engine (PyPy).
Source: Andrej Karpathy, microgpt.py, February 2026. Unlike there, the search of `backward` is a loop, so depth has no limit.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

__all__ = [
    "GPT",
    "Adam",
    "Run",
    "Value",
    "acos",
    "asin",
    "atan",
    "atan2",
    "attention",
    "cos",
    "cosh",
    "cross_entropy",
    "dot",
    "erf",
    "exp",
    "expm1",
    "floor",
    "gelu",
    "generate",
    "hypot",
    "lgamma",
    "linear",
    "log",
    "log1p",
    "log2",
    "log10",
    "maximum",
    "minimum",
    "relu",
    "rmsnorm",
    "sigmoid",
    "silu",
    "sin",
    "sinh",
    "softmax",
    "softplus",
    "sqrt",
    "tanh",
    "train",
    "where",
]


class Value:
    """A scalar that remembers how it was computed: children, and the derivative by each of them."""

    __slots__ = ("children", "data", "grad", "local_grads")

    def __init__(self, data: float, children: Sequence[Value] = (), local_grads: Sequence[float] = ()) -> None:
        self.data = data
        self.grad = 0.0
        self.children = tuple(children)
        self.local_grads = tuple(local_grads)

    def __add__(self, other: Value | float) -> Value:
        other = as_value(other)
        return Value(self.data + other.data, (self, other), (1, 1))

    def __mul__(self, other: Value | float) -> Value:
        other = as_value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def __pow__(self, other: Value | float) -> Value:
        if isinstance(other, Value):
            return power(self, other)
        if -math.inf < self.data < 0 and math.isfinite(other) and other % 1 != 0:  # complex for Python
            raise ValueError(f"pow needs data >= 0 for the fractional exponent {other}, got {self.data}")
        result = self.data**other
        return Value(result, (self,), (other * self.data ** (other - 1),))

    def __rpow__(self, other: float) -> Value:
        return power(as_value(other), self)

    def __neg__(self) -> Value:
        return self * -1

    def __radd__(self, other: float) -> Value:
        return self + other

    def __sub__(self, other: Value | float) -> Value:
        return self + (-other)

    def __rsub__(self, other: float) -> Value:
        return (-self) + other

    def __rmul__(self, other: float) -> Value:
        return self * other

    def __truediv__(self, other: Value | float) -> Value:
        return self * other**-1

    def __rtruediv__(self, other: float) -> Value:
        return self**-1 * other

    def __abs__(self) -> Value:
        return self.abs()

    def __float__(self) -> float:
        raise TypeError(
            "a Value does not become a float by itself, its gradient would be lost: take value.data for the number, "
            "or the functions of this module, such as exp(value), for ops"
        )

    def __int__(self) -> int:
        return int(self.data)

    def __round__(self, digits: int | None = None) -> float:
        return round(self.data, digits)

    def __format__(self, form: str) -> str:
        return format(self.data, form) if form else repr(self)

    def __lt__(self, other: Value | float) -> bool:
        return self.data < as_value(other).data

    def __le__(self, other: Value | float) -> bool:
        return self.data <= as_value(other).data

    def __gt__(self, other: Value | float) -> bool:
        return self.data > as_value(other).data

    def __ge__(self, other: Value | float) -> bool:
        return self.data >= as_value(other).data

    def __repr__(self) -> str:
        return f"Value(data={self.data}, grad={self.grad})"

    def exp(self) -> Value:
        result = math.exp(self.data)
        return Value(result, (self,), (result,))

    def log(self) -> Value:
        return Value(math.log(self.data), (self,), (1 / self.data,))

    def relu(self) -> Value:
        return Value(max(0.0, self.data), (self,), (1.0 if self.data > 0 else 0.0,))

    def tanh(self) -> Value:
        result = math.tanh(self.data)
        return Value(result, (self,), (1 - result * result,))

    def sigmoid(self) -> Value:
        e = math.exp(-abs(self.data))
        result = 1 / (1 + e) if self.data >= 0 else e / (1 + e)
        return Value(result, (self,), (e / ((1 + e) * (1 + e)),))

    def sqrt(self) -> Value:
        if self.data <= 0:
            raise ValueError(f"sqrt needs data > 0, got {self.data}")
        result = math.sqrt(self.data)
        return Value(result, (self,), (0.5 / result,))

    def sin(self) -> Value:
        return Value(math.sin(self.data), (self,), (math.cos(self.data),))

    def cos(self) -> Value:
        return Value(math.cos(self.data), (self,), (-math.sin(self.data),))

    def abs(self) -> Value:
        return Value(math.fabs(self.data), (self,), (float(self.data > 0) - float(self.data < 0),))

    def atan(self) -> Value:
        return Value(math.atan(self.data), (self,), (1 / (1 + self.data * self.data),))

    def asin(self) -> Value:
        if abs(self.data) >= 1:
            raise ValueError(f"asin needs -1 < data < 1, got {self.data}")
        return Value(math.asin(self.data), (self,), (1 / math.sqrt((1 - self.data) * (1 + self.data)),))

    def acos(self) -> Value:
        if abs(self.data) >= 1:
            raise ValueError(f"acos needs -1 < data < 1, got {self.data}")
        return Value(math.acos(self.data), (self,), (-1 / math.sqrt((1 - self.data) * (1 + self.data)),))

    def sinh(self) -> Value:
        return Value(math.sinh(self.data), (self,), (math.cosh(self.data),))

    def cosh(self) -> Value:
        return Value(math.cosh(self.data), (self,), (math.sinh(self.data),))

    def log1p(self) -> Value:
        return Value(math.log1p(self.data), (self,), (1 / (1 + self.data),))

    def expm1(self) -> Value:
        return Value(math.expm1(self.data), (self,), (math.exp(self.data),))

    def log2(self) -> Value:
        return Value(math.log2(self.data), (self,), (1.4426950408889634 / self.data,))  # log2(e)

    def log10(self) -> Value:
        return Value(math.log10(self.data), (self,), (0.4342944819032518 / self.data,))  # log10(e)

    def erf(self) -> Value:
        return Value(math.erf(self.data), (self,), (1.1283791670955126 * math.exp(-self.data * self.data),))  # 2 / sqrt(pi)

    def lgamma(self) -> Value:
        if self.data == -math.inf:
            raise ValueError("lgamma has no derivative at -inf")
        return Value(math.lgamma(self.data), (self,), (digamma(self.data),))

    def gelu(self) -> Value:
        p = 0.5 * math.erfc(-0.7071067811865476 * self.data)
        density = 0.3989422804014327 * math.exp(-0.5 * self.data * self.data)
        return Value(self.data * p if p else 0.0, (self,), (p + self.data * density if density else p,))

    def silu(self) -> Value:
        s = self.sigmoid()
        (slope,) = s.local_grads
        return Value(self.data * s.data if s.data else 0.0, (self,), (s.data + self.data * slope if slope else s.data,))

    def softplus(self) -> Value:
        result = max(self.data, 0.0) + math.log1p(math.exp(-abs(self.data)))
        return Value(result, (self,), (self.sigmoid().data,))

    def floor(self) -> Value:
        return Value(self.data // 1.0 if math.isfinite(self.data) else self.data, (self,), (0.0,))

    def atan2(self, x: Value | float) -> Value:
        return atan2(self, x)

    def hypot(self, other: Value | float) -> Value:
        return hypot(self, other)

    def detach(self) -> Value:
        return Value(self.data)

    @property
    def _children(self) -> tuple[Value, ...]:
        return self.children

    @property
    def _local_grads(self) -> tuple[float, ...]:
        return self.local_grads

    @property
    def _prev(self) -> set[Value]:
        return set(self.children)

    def backward(self) -> None:
        """Add d(self)/d(node) to the grad of every node below: depth-first order, walked from its end. Nothing is reset."""
        order = []
        seen = {self}
        path: list[tuple[Value, Iterator[Value]]] = [(self, iter(self.children))]
        while path:
            node, rest = path[-1]
            for child in rest:
                if child not in seen:
                    seen.add(child)
                    path.append((child, iter(child.children)))
                    break
            else:
                order.append(node)
                path.pop()
        self.grad = 1.0
        for node in reversed(order):
            for child, local_grad in zip(node.children, node.local_grads, strict=True):
                child.grad += local_grad * node.grad


def as_value(x: Value | float) -> Value:
    return x if isinstance(x, Value) else Value(x)


def power(x: Value, y: Value) -> Value:
    """x ** y, both differentiated. x >= 0; where x is 0, the partial by y is 0."""
    if x.data < 0:
        raise ValueError(f"pow with a Value as exponent needs a base >= 0, got {x.data}")
    result = x.data**y.data
    by_x = y.data * x.data ** (y.data - 1)
    by_y = result * math.log(x.data) if x.data > 0 else 0.0
    return Value(result, (x, y), (by_x, by_y))


def choose(x: Value | float, y: Value | float, is_better: Callable[[float, float], bool]) -> Value:
    """The better of two; nan loses against a number, a tie shares the gradient."""
    if not isinstance(x, Value):
        x, y = y, x
    x, y = as_value(x), as_value(y)
    tie = x.data == y.data or (x.data != x.data and y.data != y.data)
    if is_better(x.data, y.data) or y.data != y.data:
        return Value(x.data, (x, y), (0.5, 0.5) if tie else (1.0, 0.0))
    return Value(y.data, (x, y), (0.5, 0.5) if tie else (0.0, 1.0))


def minimum(x: Value | float, y: Value | float) -> Value:
    return choose(x, y, lambda a, b: a < b)


def maximum(x: Value | float, y: Value | float) -> Value:
    return choose(x, y, lambda a, b: a > b)


def digamma(x: float) -> float:
    """The derivative of lgamma: recurrence up to 10, then the asymptotic series; below 0 by reflection."""
    result = 0.0
    if x < 0:
        result = -math.pi / math.tan(math.pi * (x - (x + 0.5) // 1.0))
        x = 1 - x
    while x < 10:
        result -= 1 / x
        x += 1
    r = 1 / (x * x)
    series = 0.0
    for coefficient in (1 / 12, 691 / 32760, 1 / 132, 1 / 240, 1 / 252, 1 / 120, 1 / 12):
        series = r * (coefficient - series)
    return result + (math.log(x) - 0.5 / x - series)


def atan2(y: Value | float, x: Value | float) -> Value:
    """The angle of the point (x, y)."""
    y, x = as_value(y), as_value(x)
    if y.data == 0 and x.data == 0:
        raise ValueError("atan2 needs another point than the origin")
    by_y, by_x = over_square_sum(x.data, y.data), -over_square_sum(y.data, x.data)
    return Value(math.atan2(y.data, x.data), (y, x), (by_y, by_x))


def over_square_sum(x: float, y: float) -> float:
    """x / (x**2 + y**2), without squares that overflow or vanish."""
    if math.isinf(x) and math.isinf(y):
        return 0.0
    if abs(x) >= abs(y) or x != x:
        q = y / x
        return 1 / x / (1 + q * q)
    q = x / y
    return q / y / (1 + q * q)


def hypot(x: Value | float, y: Value | float) -> Value:
    """sqrt(x**2 + y**2); at (0, 0) both partials are 0."""
    if not isinstance(x, Value):
        x, y = y, x
    x, y = as_value(x), as_value(y)
    result = math.hypot(x.data, y.data)
    if math.isinf(result) and math.isfinite(x.data) and math.isfinite(y.data):
        raise OverflowError(f"hypot of {x.data} and {y.data} is too large for a float")

    def partial(z: float) -> float:
        return float(z > 0) - float(z < 0) if abs(z) == result else z / result

    return Value(result, (x, y), (partial(x.data), partial(y.data)))


def where(condition: Value | float, x: Value | float, y: Value | float) -> Value:
    """A node that passes on x where the condition is not 0, else y."""
    picked = as_value(x if as_value(condition).data != 0 else y)
    return Value(picked.data, (picked,), (1.0,))


def exp(x: Value) -> Value:
    return x.exp()


def log(x: Value) -> Value:
    return x.log()


def relu(x: Value) -> Value:
    return x.relu()


def tanh(x: Value) -> Value:
    return x.tanh()


def sigmoid(x: Value) -> Value:
    return x.sigmoid()


def sqrt(x: Value) -> Value:
    return x.sqrt()


def sin(x: Value) -> Value:
    return x.sin()


def cos(x: Value) -> Value:
    return x.cos()


def atan(x: Value) -> Value:
    return x.atan()


def asin(x: Value) -> Value:
    return x.asin()


def acos(x: Value) -> Value:
    return x.acos()


def sinh(x: Value) -> Value:
    return x.sinh()


def cosh(x: Value) -> Value:
    return x.cosh()


def log1p(x: Value) -> Value:
    return x.log1p()


def expm1(x: Value) -> Value:
    return x.expm1()


def log2(x: Value) -> Value:
    return x.log2()


def log10(x: Value) -> Value:
    return x.log10()


def erf(x: Value) -> Value:
    return x.erf()


def lgamma(x: Value) -> Value:
    return x.lgamma()


def gelu(x: Value) -> Value:
    return x.gelu()


def silu(x: Value) -> Value:
    return x.silu()


def softplus(x: Value) -> Value:
    return x.softplus()


def floor(x: Value) -> Value:
    return x.floor()


def total(values: Iterable[Value]) -> Value:
    """((0 + v0) + v1) + ..., as the built-in sum adds."""
    result: Value | float = 0
    for value in values:
        result = result + value
    return as_value(result)


def dot(w: Sequence[Value], x: Sequence[Value]) -> Value:
    return total(wi * xi for wi, xi in zip(w, x, strict=True))


def linear(x: Sequence[Value], w: Sequence[Sequence[Value]]) -> list[Value]:
    return [dot(row, x) for row in w]


def rmsnorm(x: Sequence[Value]) -> list[Value]:
    mean_square = dot(x, x) / len(x)
    scale = (mean_square + 1e-5) ** -0.5
    return [xi * scale for xi in x]


def softmax(logits: Sequence[Value]) -> list[Value]:
    top = max(z.data for z in logits)
    exps = [(z - top).exp() for z in logits]
    denominator = total(exps)
    return [e / denominator for e in exps]


def cross_entropy(logits: Sequence[Value], target: int) -> Value:
    return -softmax(logits)[target].log()


def smoothed_cross_entropy(logits: Sequence[Value], target: int, smoothing: float) -> Value:
    """The cross entropy with a target of which a share is spread evenly over all tokens."""
    logs = [p.log() for p in softmax(logits)]
    return -(logs[target] * (1 - smoothing) + total(logs) * (smoothing / len(logs)))


def attention(
    query: Sequence[Value], keys: Sequence[Sequence[Value]], values: Sequence[Sequence[Value]], n_head: int
) -> list[Value]:
    head_dim = len(query) // n_head
    out = []
    for start in range(0, len(query), head_dim):
        head = slice(start, start + head_dim)
        weights = softmax([dot(query[head], key[head]) / head_dim**0.5 for key in keys])
        out += [dot(weights, [value[j] for value in values]) for j in range(start, start + head_dim)]
    return out


class GPT:
    """The model with plain lists of Values: `state_dict` maps each name of microgpt.py to rows of leaves."""

    def __init__(
        self,
        vocab_size: int,
        rng: random.Random,
        *,
        n_layer: int = 1,
        n_embd: int = 16,
        n_head: int = 4,
        block_size: int = 16,
    ) -> None:
        def matrix(rows: int, columns: int) -> list[list[Value]]:
            return [[Value(rng.gauss(0, 0.08)) for _ in range(columns)] for _ in range(rows)]

        self.n_layer, self.n_head, self.block_size, self.vocab_size = n_layer, n_head, block_size, vocab_size
        self.state_dict = {
            "wte": matrix(vocab_size, n_embd),
            "wpe": matrix(block_size, n_embd),
            "lm_head": matrix(vocab_size, n_embd),
        }
        for i in range(n_layer):
            for name in ("attn_wq", "attn_wk", "attn_wv", "attn_wo"):
                self.state_dict[f"layer{i}.{name}"] = matrix(n_embd, n_embd)
            self.state_dict[f"layer{i}.mlp_fc1"] = matrix(4 * n_embd, n_embd)
            self.state_dict[f"layer{i}.mlp_fc2"] = matrix(n_embd, 4 * n_embd)

    def parameters(self) -> list[Value]:
        """Every parameter once: lm_head may be wte."""
        matrices = {id(matrix): matrix for matrix in self.state_dict.values()}
        return [p for matrix in matrices.values() for row in matrix for p in row]

    def new_cache(self) -> list[tuple[list[list[Value]], list[list[Value]]]]:
        """Empty keys and values of each layer."""
        return [([], []) for _ in range(self.n_layer)]

    def logits(
        self,
        token: int,
        position: int,
        cache: list[tuple[list[list[Value]], list[list[Value]]]],
        masks: Sequence[Sequence[Sequence[float]]] = (),
    ) -> list[Value]:
        """The logits of the token after `token`, given what `cache` holds of those before. `masks`: as of `dropout_masks`."""

        def drop(x: list[Value], place: int) -> list[Value]:
            return [xi * m for xi, m in zip(x, masks[place][position], strict=True)] if masks else x

        w = self.state_dict
        x = [t + p for t, p in zip(w["wte"][token], w["wpe"][position], strict=True)]
        x = rmsnorm(drop(x, 0))
        for i, (keys, values) in enumerate(cache):
            residual = x
            x = rmsnorm(x)
            query = linear(x, w[f"layer{i}.attn_wq"])
            keys.append(linear(x, w[f"layer{i}.attn_wk"]))
            values.append(linear(x, w[f"layer{i}.attn_wv"]))
            x = drop(linear(attention(query, keys, values, self.n_head), w[f"layer{i}.attn_wo"]), 2 * i + 1)
            x = [a + b for a, b in zip(x, residual, strict=True)]
            residual = x
            x = rmsnorm(x)
            x = [xi.relu() for xi in linear(x, w[f"layer{i}.mlp_fc1"])]
            x = drop(linear(x, w[f"layer{i}.mlp_fc2"]), 2 * i + 2)
            x = [a + b for a, b in zip(x, residual, strict=True)]
        return linear(x, w["lm_head"])

    def loss(
        self, tokens: Sequence[int], label_smoothing: float = 0.0, dropout: float = 0.0, rng: random.Random | None = None
    ) -> Value:
        """The mean cross entropy of the tokens after the first, in nats, over at most block_size positions."""
        n = min(self.block_size, len(tokens) - 1)
        cache = self.new_cache()
        masks = self.dropout_masks(n, dropout, rng) if rng else ()
        losses = []
        for i in range(n):
            logits = self.logits(tokens[i], i, cache, masks)
            losses.append(
                smoothed_cross_entropy(logits, tokens[i + 1], label_smoothing)
                if label_smoothing
                else cross_entropy(logits, tokens[i + 1])
            )
        return (1 / n) * total(losses)

    def dropout_masks(self, n: int, dropout: float, rng: random.Random) -> list[list[list[float]]]:
        """What the embeddings of n positions, and what attentions and MLPs add to them, are multiplied with: 0 or 1 / (1 - p)."""
        width = len(self.state_dict["wte"][0])
        scale = 1 / (1 - dropout)
        return [
            [[0.0 if rng.random() < dropout else scale for _ in range(width)] for _ in range(n)]
            for _ in range(1 + 2 * self.n_layer)
        ]


class Adam:
    """Adam (Kingma & Ba 2015), written as in microgpt.py."""

    def __init__(
        self,
        parameters: Iterable[Value],
        learning_rate: float = 0.01,
        betas: tuple[float, float] = (0.85, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate, self.betas, self.eps, self.weight_decay = learning_rate, betas, eps, weight_decay
        self.m = [0.0] * len(self.parameters)
        self.v = [0.0] * len(self.parameters)
        self.steps = 0

    def step(self, learning_rate: float | None = None) -> None:
        """Move every parameter against its gradient; set the gradient to 0."""
        rate = self.learning_rate if learning_rate is None else learning_rate
        beta1, beta2 = self.betas
        self.steps += 1
        for i, p in enumerate(self.parameters):
            if self.weight_decay:
                p.data -= rate * self.weight_decay * p.data
            self.m[i] = beta1 * self.m[i] + (1 - beta1) * p.grad
            self.v[i] = beta2 * self.v[i] + (1 - beta2) * p.grad**2
            m_hat = self.m[i] / (1 - beta1**self.steps)
            v_hat = self.v[i] / (1 - beta2**self.steps)
            p.data -= rate * m_hat / (v_hat**0.5 + self.eps)
            p.grad = 0.0

    def clip_grad_norm(self, max_norm: float) -> float:
        """Scale the gradients down to the norm `max_norm` if theirs is larger; return theirs."""
        total = 0.0
        for p in self.parameters:
            total += p.grad * p.grad
        norm = math.sqrt(total)
        if not math.isfinite(norm):
            raise OverflowError(f"the norm of the gradients is {norm}")
        if norm > max_norm:
            for p in self.parameters:
                p.grad *= max_norm / norm
        return norm


class Run(NamedTuple):
    """What a training run leaves."""

    model: GPT
    characters: str | None  # None: tokens are bytes
    losses: list[float]
    samples: list[str]
    validations: dict[int, float]  # mean loss of the held-out text, by the steps made


def encode(text: str, characters: str | None) -> list[int]:
    """The places of the characters in the vocabulary, or the bytes."""
    return list(text.encode()) if characters is None else [characters.index(c) for c in text]


def decode(tokens: Sequence[int], characters: str | None) -> str:
    return bytes(tokens).decode(errors="replace") if characters is None else "".join(characters[token] for token in tokens)


def bos_of(characters: str | None) -> int:
    return 256 if characters is None else len(characters)


def windows_of(tokens: Sequence[int], block_size: int) -> list[Sequence[int]]:
    """All of the tokens, in pieces of block_size predictions, the last one of what is left."""
    return [tokens[start : start + block_size + 1] for start in range(0, len(tokens) - 1, block_size)]


def spread_windows(tokens: Sequence[int], block_size: int, most: int = 200) -> list[Sequence[int]]:
    """Windows of block_size predictions, one after the other, or `most` of them at even distances."""
    room = len(tokens) - 1 - block_size
    count = min(most, 1 + room // block_size)
    starts = [i * room // max(1, count - 1) for i in range(count)]
    return [tokens[start : start + block_size + 1] for start in starts]


def mean_loss(
    model: GPT,
    batch: Sequence[Sequence[int]],
    label_smoothing: float = 0.0,
    dropout: float = 0.0,
    seeds: Sequence[int] | None = None,
) -> Value:
    """The mean of the losses; `seeds`: of the dropout of each."""
    rngs = [random.Random(seed) for seed in seeds] if seeds else [None] * len(batch)
    losses = [model.loss(tokens, label_smoothing, dropout, rng) for tokens, rng in zip(batch, rngs, strict=True)]
    return (1 / len(losses)) * total(losses)


def scheduled(schedule: str, learning_rate: float, step: int, steps: int, warmup: int) -> float:
    """The learning rate of a step, counted from 0."""
    if step < warmup:
        return learning_rate * ((step + 1) / warmup)
    if schedule == "constant":
        return learning_rate
    t = (step - warmup) / (steps - warmup)
    if schedule == "cosine":
        return learning_rate * (0.5 * (1 + math.cos(math.pi * t)))
    return learning_rate * (1 - t)


def train(
    text: Sequence[str] | str,
    *,
    steps: int = 1000,
    seed: int = 42,
    format: str = "lines",
    long: str = "cut",
    tokenizer: str = "characters",
    n_layer: int = 1,
    n_embd: int = 16,
    n_head: int = 4,
    block_size: int = 16,
    tie_weights: bool = False,
    learning_rate: float = 0.01,
    schedule: str = "linear",
    warmup: int = 0,
    batch_size: int = 1,
    weight_decay: float = 0.0,
    clip_grad: float | None = None,
    dropout: float = 0.0,
    label_smoothing: float = 0.0,
    validation: float = 0.0,
    validation_every: int = 100,
    patience: int | None = None,
    temperature: float = 0.5,
    samples: int = 20,
    initial: tuple[GPT, str] | None = None,
    phases: Sequence[tuple[int, int, float]] = (),
) -> Run:
    """Train on the next batch in each step, then draw samples: all that `python -m microgpt.train` does.

    `text`: documents, or one text where the format is "text". `initial`: the model to start from, and its vocabulary.
    `phases`: from which step on which number of steps and which learning rate decide the rates.
    """
    rng = random.Random(seed)
    documents: Sequence[str] = [text] if isinstance(text, str) else list(text)
    known = initial[1] if initial else ""
    characters = None if tokenizer == "bytes" else "".join(sorted({*known, *"".join(documents)}))
    bos = bos_of(characters)
    training: list[Sequence[int]] = []
    held_out: list[Sequence[int]] = []
    batch: list[Sequence[int]]
    if format == "text":
        stream = encode(documents[0], characters)
        n_training = len(stream) - (max(block_size + 1, round(validation * len(stream))) if validation else 0)
        held_out = spread_windows(stream[n_training:], block_size) if validation else []
    else:
        rng.shuffle(documents)  # type: ignore[arg-type]
        n_training = len(documents) - (max(1, round(validation * len(documents))) if validation else 0)
        encoded = [[bos, *encode(document, characters), bos] for document in documents]
        parts = [windows_of(tokens, block_size) if long == "windows" else [tokens] for tokens in encoded]
        training = [tokens for part in parts[:n_training] for tokens in part]
        held_out = [tokens for part in parts[n_training:] for tokens in part][:200]
    sizes = {"n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "block_size": block_size}
    if initial is None:
        model = GPT(bos + 1, rng, **sizes)
    else:
        model = GPT(bos + 1, random.Random(), **sizes)
        copy_weights(*initial, model, characters or "", rng)
    if tie_weights:
        model.state_dict["lm_head"] = model.state_dict["wte"]
    optimizer = Adam(model.parameters(), learning_rate, weight_decay=weight_decay)
    losses = []
    validations: dict[int, float] = {}
    for step in range(steps):
        if format == "text":
            starts = [rng.randrange(n_training - block_size) for _ in range(batch_size)]
            batch = [stream[start : start + block_size + 1] for start in starts]
        else:
            batch = [training[(step * batch_size + i) % len(training)] for i in range(batch_size)]
        seeds = [rng.getrandbits(64) for _ in batch] if dropout else None
        loss = mean_loss(model, batch, label_smoothing, dropout, seeds)
        loss.backward()
        if clip_grad is not None:
            optimizer.clip_grad_norm(clip_grad)
        _, of, rate = max((phase for phase in phases if phase[0] <= step), default=(0, steps, learning_rate))
        optimizer.step(scheduled(schedule, rate, step, of, warmup))
        losses.append(loss.data)
        if validation and ((step + 1) % validation_every == 0 or step + 1 == steps):
            validations[step + 1] = mean_loss(model, held_out).data
            best = min(validations.values())
            if patience is not None and len(validations) - 1 - list(validations.values()).index(best) >= patience:
                break
    if format == "text":
        made = [generate_text(model, characters, rng, block_size, temperature) for _ in range(samples)]
    else:
        made = [generate(model, characters, rng, temperature) for _ in range(samples)]
    return Run(model, characters, losses, made, validations)


def copy_weights(old: GPT, known: str, model: GPT, characters: str, rng: random.Random) -> None:
    """Give `model` the weights of another one, whose vocabulary is `known`, and to its other characters new ones."""
    for name, matrix in model.state_dict.items():
        if name == "lm_head" and old.state_dict["lm_head"] is old.state_dict["wte"]:
            continue
        rows: Iterable[int | None] = range(len(matrix))
        if name in ("wte", "lm_head"):
            rows = [known.index(c) if c in known else None for c in characters] + [len(known)]
        for row, of in zip(matrix, rows, strict=True):
            for i, p in enumerate(row):
                p.data = rng.gauss(0, 0.08) if of is None else old.state_dict[name][of][i].data


def evaluate(model: GPT, windows: Iterable[Sequence[int]]) -> tuple[float, int]:
    """The sum of the cross entropies of all tokens after the first of each window, in nats, and how many they are."""
    nats, count = 0.0, 0
    for tokens in windows:
        cache = model.new_cache()
        logits = [model.logits(token, i, cache) for i, token in enumerate(tokens[:-1])]
        nats += total(map(cross_entropy, logits, tokens[1:])).data
        count += len(tokens) - 1
    return nats, count


def next_token(logits: Sequence[Value], rng: random.Random, temperature: float, top_k: int | None, top_p: float | None) -> int:
    """Draw the token that follows."""
    tokens = range(len(logits))
    if temperature == 0:
        return max(tokens, key=lambda i: logits[i].data)
    weights = [p.data for p in softmax([z / temperature for z in logits])]
    best = sorted(tokens, key=lambda i: -weights[i])[:top_k]
    if top_p is not None:
        sums = list(accumulate(weights[i] for i in best))
        best = best[: 1 + next((n for n, so_far in enumerate(sums) if so_far >= top_p), len(best))]
    return rng.choices(tokens, weights=[weights[i] if i in best else 0.0 for i in tokens])[0]


def logits_after(model: GPT, tokens: Sequence[int]) -> list[Value]:
    """The logits after the last of the tokens, of which the model sees as many as it has positions for."""
    seen = tokens[-model.block_size :]
    cache = model.new_cache()
    return [model.logits(token, i, cache) for i, token in enumerate(seen)][-1]


def generate(
    model: GPT,
    characters: str | None,
    rng: random.Random,
    temperature: float = 0.5,
    top_k: int | None = None,
    prompt: str = "",
    max_length: int | None = None,
    top_p: float | None = None,
    stop: str | None = None,
) -> str:
    """Draw one document, from BOS and the prompt until BOS, `stop`, or max_length characters or block_size tokens."""
    bos = bos_of(characters)
    given = [bos, *encode(prompt, characters)]
    tokens = list(given)
    text = ""
    while len(text) < max_length - len(prompt) if max_length else len(tokens) <= model.block_size:
        token = next_token(logits_after(model, tokens), rng, temperature, top_k, top_p)
        if token == bos:
            break
        tokens.append(token)
        text = decode(tokens[len(given) :], characters)
        if stop and stop in text:
            return prompt + text.partition(stop)[0]
    return prompt + text


def generate_text(
    model: GPT, characters: str | None, rng: random.Random, length: int, temperature: float = 0.5, prompt: str = ""
) -> str:
    """Draw `length` tokens of a text that has no BOS, after the prompt, or after a line end."""
    bos = bos_of(characters)
    start = prompt or "\n"
    tokens = encode(start, characters) if characters is None or set(start) <= set(characters) else [0]
    given = len(tokens)
    for _ in range(length):
        logits = logits_after(model, tokens)
        logits[bos] = Value(min(z.data for z in logits) - 1e6)
        tokens.append(next_token(logits, rng, temperature, None, None))
    return decode(tokens[given:], characters)
