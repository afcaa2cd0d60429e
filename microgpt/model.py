"""The GPT of microgpt.py: no biases, rmsnorm without gain, relu."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from operator import index
from os import PathLike
from typing import TYPE_CHECKING, Any

import microgpt
from microgpt._functions import attention, cross_entropy, log, relu, rmsnorm, softmax
from microgpt._matrix import Matrix, Rows
from microgpt._no_grad import no_grad
from microgpt._value import Value
from microgpt._vector import Vector
from microgpt.tokenizer import Tokenizer

if TYPE_CHECKING:
    from microgpt.checkpoint import Tensor
    from microgpt.tracing import Trace

MODEL_MATRICES = ("wte", "wpe", "lm_head")
LAYER_MATRICES = ("attn_wq", "attn_wk", "attn_wv", "attn_wo", "mlp_fc1", "mlp_fc2")
INITIAL_STD = 0.08  # standard deviation of the initial weights, as in microgpt.py
MAX_PARAMETERS = 100_000_000  # some 15 GB with gradients, Adam's moments and a handle each


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a GPT.

    `vocab_size`: number of tokens. `n_layer`: blocks of attention and MLP. `n_embd`: width. `n_head`: attention heads, a divisor
    of n_embd. `block_size`: positions, the longest context.
    Errors: TypeError unless all are whole numbers; ValueError unless they are at least 1, n_head divides n_embd, and the model
    has at most MAX_PARAMETERS parameters.
    """

    vocab_size: int
    n_layer: int = 1
    n_embd: int = 16
    n_head: int = 4
    block_size: int = 16

    def __post_init__(self) -> None:
        for name, size in list(vars(self).items()):
            object.__setattr__(self, name, whole(name, size))
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head must divide n_embd, got n_embd {self.n_embd} and n_head {self.n_head}")
        if self.n_parameters > MAX_PARAMETERS:
            raise ValueError(f"a model has at most {MAX_PARAMETERS:,} parameters, these sizes make {self.n_parameters:,}")

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Name and (rows, columns) of every matrix, in the order of microgpt.py."""
        n, wide = self.n_embd, 4 * self.n_embd
        shapes = {"wte": (self.vocab_size, n), "wpe": (self.block_size, n), "lm_head": (self.vocab_size, n)}
        for i in range(self.n_layer):
            for name in LAYER_MATRICES:
                shapes[f"layer{i}.{name}"] = (wide, n) if name == "mlp_fc1" else (n, wide) if name == "mlp_fc2" else (n, n)
        return shapes

    @property
    def n_parameters(self) -> int:
        """Number of parameters, without building them, of a model that shares none."""
        return (2 * self.vocab_size + self.block_size) * self.n_embd + 12 * self.n_layer * self.n_embd**2


Cache = list[tuple[list[Rows], list[Rows]]]  # keys and values of each layer, of the tokens of each call of `forward` in turn


class Dropout:
    """Sets a share of the numbers that pass through to 0 and scales the others up, so that the mean stays: `dropout(x)`.

    `share`: of the numbers, at least 0 and below 1. `rng` draws one number for each, row by row.
    Source: Srivastava et al. 2014.
    """

    def __init__(self, share: float, rng: random.Random) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"the share of dropout must be at least 0 and below 1, got {share}")
        self.share = share
        self.rng = rng

    def __call__(self, x: Rows) -> Rows:
        """Return x with some numbers 0. Shape: [n][width] -> [n][width]."""
        rows, columns = x.shape
        draw, share, scale = self.rng.random, self.share, 1 / (1 - self.share)
        return x * [[0.0 if draw() < share else scale for _ in range(columns)] for _ in range(rows)]


class Layer:
    """The six matrices of one block."""

    def __init__(self, matrices: Mapping[str, Matrix], prefix: str) -> None:
        self.attn_wq = matrices[f"{prefix}.attn_wq"]
        self.attn_wk = matrices[f"{prefix}.attn_wk"]
        self.attn_wv = matrices[f"{prefix}.attn_wv"]
        self.attn_wo = matrices[f"{prefix}.attn_wo"]
        self.mlp_fc1 = matrices[f"{prefix}.mlp_fc1"]
        self.mlp_fc2 = matrices[f"{prefix}.mlp_fc2"]


class GPT:
    """A GPT whose every weight and activation is a scalar node.

    `rng` draws the initial weights: `rng.gauss(0, 0.08)`, matrix by matrix in the order of `state_dict`, row by row.
    Matrices and layers may be replaced by others of the same shape, and shared: `model.lm_head = model.wte`. What the model holds
    is what is computed, listed and saved; an optimizer made before trains what it was given. `config` must say the number of
    layers: set it to `dataclasses.replace(model.config, n_layer=2)` when one is added.
    """

    def __init__(self, config: GPTConfig, rng: random.Random) -> None:
        matrices = {
            name: Matrix([[rng.gauss(0, INITIAL_STD) for _ in range(columns)] for _ in range(rows)])
            for name, (rows, columns) in config.shapes.items()
        }
        self._hold(config, matrices)

    def _hold(self, config: GPTConfig, matrices: Mapping[str, Matrix]) -> None:
        self.config = config
        self.wte = matrices["wte"]
        self.wpe = matrices["wpe"]
        self.lm_head = matrices["lm_head"]
        self.layers = [Layer(matrices, f"layer{i}") for i in range(config.n_layer)]

    def state_dict(self) -> dict[str, Matrix]:
        """Return the matrices by name: wte, wpe, lm_head, layer0.attn_wq, ... A shared one has several.

        Errors: ValueError if layers or shapes are no longer those of `config`; TypeError for what is no Matrix.
        """
        self._check_layers()
        matrices = {name: getattr(self, name) for name in MODEL_MATRICES}
        for i, layer in enumerate(self.layers):
            matrices.update({f"layer{i}.{name}": getattr(layer, name) for name in LAYER_MATRICES})
        for name, shape in self.config.shapes.items():
            if not isinstance(matrices[name], Matrix):
                raise TypeError(f"{name} must be a Matrix, got {type(matrices[name]).__name__}")
            if matrices[name].shape != shape:
                raise ValueError(f"{name} must have shape {shape} by the model's config, it has {matrices[name].shape}")
        return matrices

    def own_matrices(self) -> dict[str, Matrix]:
        """Return the matrices as `state_dict`, each one once, under the first of its names."""
        return {name: matrix for matrix, name in first_names(self.state_dict()).items()}

    def parameters(self) -> list[Value]:
        """Return every parameter once, in the order of `state_dict`, row by row."""
        return [value for matrix in self.own_matrices().values() for row in matrix for value in row]

    def named_parameters(self) -> Iterator[tuple[str, Matrix]]:
        """Yield name and Matrix of all parameters, each matrix once, in the order of `parameters`.

        `matrix[3][5]` of layer0.attn_wq is called layer0.attn_wq[3][5].
        """
        yield from self.own_matrices().items()

    def _check_layers(self) -> None:
        if len(self.layers) != self.config.n_layer:
            raise ValueError(
                f"the model has {len(self.layers)} layers, its config says n_layer {self.config.n_layer}: "
                "set model.config to dataclasses.replace(model.config, n_layer=...)"
            )

    def new_cache(self) -> Cache:
        """Return the empty keys and values to start a document with."""
        return [([], []) for _ in self.layers]

    def forward(self, tokens: Sequence[int], position: int, cache: Cache, dropout: Dropout | None = None) -> Rows:
        """Return the logits of the token after each of `tokens`, which stand at `position` and on.

        Add the keys and values of the tokens to `cache`, which has those of the positions before. Shape: [tokens][vocab_size].
        `dropout` is applied to the embeddings, and to what each attention and MLP adds to them.
        Errors: IndexError for a token or position that the model does not have; ValueError for no tokens, or the cache of another
        model.
        """
        return self.lm_head @ self._residual(tokens, position, cache, dropout)

    def _residual(self, tokens: Sequence[int], position: int, cache: Cache, dropout: Dropout | None = None) -> Rows:
        tokens = list(tokens)
        if not tokens:
            raise ValueError("forward needs at least one token, got none")
        if position < 0 or min(tokens) < 0:
            raise IndexError(f"tokens and position must be at least 0, got {tokens} and {position}")
        end = position + len(tokens)
        if end > self.config.block_size:
            raise IndexError(f"position {end - 1} is out of range for a model of {self.config.block_size} positions")
        if not len(cache) == len(self.layers) == self.config.n_layer:
            self._check_layers()
            raise ValueError(f"the cache of this model has {len(self.layers)} layers, got {len(cache)}")
        n_head = self.config.n_head
        x = self.wte[tokens] + self.wpe[position:end]
        x = rmsnorm(x if dropout is None else dropout(x))
        for layer, (keys, values) in zip(self.layers, cache):  # noqa: B905  # strict=True takes 0.2 us
            h = rmsnorm(x)
            keys.append(layer.attn_wk @ h)
            values.append(layer.attn_wv @ h)
            added = layer.attn_wo @ attention(layer.attn_wq @ h, keys, values, n_head)
            x = (added if dropout is None else dropout(added)) + x
            added = layer.mlp_fc2 @ relu(layer.mlp_fc1 @ rmsnorm(x))
            x = (added if dropout is None else dropout(added)) + x
        return x

    def logits(self, token: int, position: int, cache: Cache) -> Vector:
        """Return the logits of the token that follows `token`, and add its keys and values to `cache`.

        Shape: [vocab_size]. Errors: as `forward`.
        """
        return self.forward([token], position, cache)[0]

    def next_logits(self, tokens: Sequence[int], position: int = 0, cache: Cache | None = None) -> Vector:
        """Return the logits of the token after the last of `tokens`, as `forward` does, without a graph, in `cache` neither.

        Shape: [vocab_size]. Errors: as `forward`.
        """
        if cache is None:
            # A graph that is dropped at once, not no_grad: the tape would look for what is dead in the middle of each window, and
            # take four times as long at 4 layers of width 64.
            return (self.lm_head @ self._residual(tokens, position, self.new_cache())[-1]).detach()
        with no_grad():
            return self.lm_head @ self._residual(tokens, position, cache)[-1]

    def loss(self, tokens: Sequence[int], *, label_smoothing: float = 0.0, dropout: Dropout | None = None) -> Value:
        """Return the mean cross entropy of the tokens after the first, in nats, over at most block_size positions.

        `label_smoothing`: the share of each target that is spread evenly over all tokens. `dropout`: as of `forward`.
        Errors: ValueError for fewer than two tokens; IndexError for a token that the model does not have.
        """
        n = min(self.config.block_size, len(tokens) - 1)
        if n < 1:
            raise ValueError(f"a loss needs at least two tokens, got {len(tokens)}")
        logits = self.forward(tokens[:n], 0, self.new_cache(), dropout)
        targets = tokens[1 : n + 1]
        losses = smoothed(logits, targets, label_smoothing) if label_smoothing else cross_entropy(logits, targets)
        return (1 / n) * losses.sum()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={size}" for name, size in vars(self.config).items())
        return f"<GPT {sizes}: {self.n_parameters:,} parameters>"

    @property
    def n_parameters(self) -> int:
        """Number of parameters, those of a shared matrix once."""
        return sum(rows * columns for rows, columns in (matrix.shape for matrix in self.own_matrices().values()))

    def trace(self, tokens: Sequence[int]) -> Trace:
        """Return the loss of `tokens`, as `loss` computes it, with the names of all that is computed on the way.

        Errors: as `loss`; TypeError for a subclass with a forward pass of its own, whose parts have no names here.
        """
        from microgpt.tracing import trace  # here: only who looks needs it

        return trace(self, tokens)

    def save(self, path: str | PathLike[str], tokenizer: Tokenizer | None = None) -> None:
        """Write the weights, the sizes and, where given, the tokenizer to a safetensors file, which is replaced whole.

        A shared matrix is written once, under the first of its names.
        Errors: ValueError if `tokenizer` is that of another model; OSError if the file cannot be written.
        """
        microgpt.checkpoint.write(path, *self.to_checkpoint(tokenizer))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> GPT:
        """Return the model that `save` or the training command wrote, every weight as it was.

        `Tokenizer.load` returns the tokenizer beside it.
        Errors: OSError if the file cannot be read; ValueError, `path` in it, unless it is whole and holds a GPT.
        """
        tensors, metadata = microgpt.checkpoint.read(path)
        with microgpt.checkpoint.refusals(path):
            return cls.from_checkpoint(tensors, metadata)

    def to_checkpoint(self, tokenizer: Tokenizer | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and metadata that `save` writes. ValueError if `tokenizer` is that of another model."""
        metadata: dict[str, Any] = {"config": asdict(self.config)}
        if tokenizer is not None:
            if tokenizer.vocab_size != self.config.vocab_size:
                raise ValueError(f"the model has {self.config.vocab_size} tokens, the tokenizer {tokenizer.vocab_size}")
            metadata |= tokenizer.to_checkpoint()
        matrices = self.state_dict()
        first = first_names(matrices)
        shared = {name: first[matrix] for name, matrix in matrices.items() if name != first[matrix]}
        if shared:
            metadata["shared"] = shared
        tensors: dict[str, Tensor] = {
            name: (matrix.shape, array("d", chain.from_iterable(matrix.data))) for matrix, name in first.items()
        }
        return tensors, metadata

    @staticmethod
    def check_checkpoint(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Raise ValueError unless what `checkpoint.read` returned makes one GPT. Nothing is built.

        Of other tensors it may hold those named adam. and training. and so on.
        """
        config = config_of(metadata)
        shared = shared_of(metadata)
        stored = sum(len(values) for _, values in tensors.values())
        # Before a list is made as long as a wrong n_layer says.
        if config.n_parameters > stored and not shared:
            raise ValueError(f"its sizes make {config.n_parameters} parameters, it holds {stored} numbers")
        if len(LAYER_MATRICES) * config.n_layer > len(tensors) + len(shared):
            raise ValueError(f"its sizes make {config.n_layer} layers, it holds {len(tensors)} matrices, {len(shared)} shared")
        shapes = config.shapes
        unknown = sorted(name for name in tensors.keys() - shapes.keys() if not name.startswith(("adam.", "training.")))
        unknown += sorted(shared.keys() - shapes.keys())
        if unknown:
            raise ValueError(f"the GPT of its sizes has no {unknown[0]}")
        before = set()
        for name, shape in shapes.items():
            if name in shared:
                if name in tensors or shared[name] not in before or shapes[shared[name]] != shape:
                    raise ValueError(f"{name} cannot be shared with {shared[name]}: that must come before it and have its shape")
            elif name not in tensors:
                raise ValueError(f"{name} is missing")
            elif tensors[name][0] != shape:
                raise ValueError(f"{name} must have shape {shape}, it has {tensors[name][0]}")
            before.add(name)

    @classmethod
    def from_checkpoint(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> GPT:
        """Return the model in what `checkpoint.read` returned. ValueError as `check_checkpoint`."""
        cls.check_checkpoint(tensors, metadata)
        config, shared = config_of(metadata), shared_of(metadata)
        matrices: dict[str, Matrix] = {}
        for name in config.shapes:
            matrices[name] = matrices[shared[name]] if name in shared else Matrix(rows_of(*tensors[name]))
        model = cls.__new__(cls)
        model._hold(config, matrices)
        return model


def smoothed(logits: Rows, targets: Sequence[int], smoothing: float) -> Vector:
    """Return the cross entropy with targets of which a share is spread evenly over all tokens.

    Shape: [n][vocab_size], [n] -> [n]. Source: Szegedy et al. 2016.
    """
    share = smoothing / len(logits[0])
    return Vector(
        [-(row[target] * (1 - smoothing) + row.sum() * share) for row, target in zip(log(softmax(logits)), targets, strict=True)]
    )


def whole(name: str, size: Any) -> int:
    """Return `size` as a plain int. TypeError unless it is a whole number, ValueError unless it is at least 1."""
    truth = isinstance(size, bool) or str(getattr(size, "dtype", "")) == "bool"  # before numpy 2.3 its bool is an index
    try:
        number = None if truth else index(size)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be a whole number, got {size!r}")
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def first_names(matrices: Mapping[str, Matrix]) -> dict[Matrix, str]:
    """Return each matrix once, with the first of its names."""
    first: dict[Matrix, str] = {}
    for name, matrix in matrices.items():
        first.setdefault(matrix, name)
    return first


def config_of(metadata: Mapping[str, Any]) -> GPTConfig:
    """Return the sizes that the metadata of a checkpoint hold. ValueError if they make no GPTConfig."""
    sizes = metadata.get("config")
    names = [field.name for field in fields(GPTConfig)]
    if not isinstance(sizes, dict) or sizes.keys() != set(names):
        raise ValueError(f"its config must hold {', '.join(names)}, it is {sizes!r}")
    try:
        return GPTConfig(**sizes)
    except TypeError as error:
        raise ValueError(f"its config is wrong: {error}") from None


def shared_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return of each matrix that is another one as well the name of that one. ValueError if the metadata make no sense."""
    shared = metadata.get("shared", {})
    if not isinstance(shared, dict) or not all(isinstance(name, str) for pair in shared.items() for name in pair):
        raise ValueError(f"its shared matrices must be named by name, they are {shared!r}")
    return shared


def rows_of(shape: tuple[int, ...], values: array[float]) -> list[array[float]]:
    """Return the rows of a matrix."""
    rows, columns = shape
    return [values[i * columns : (i + 1) * columns] for i in range(rows)]
