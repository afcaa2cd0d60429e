"""The GPT of microgpt.py: no biases, rmsnorm without gain, relu."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from microgpt import checkpoint
from microgpt._functions import attention, cross_entropy, relu, rmsnorm
from microgpt._matrix import Matrix, Rows
from microgpt._value import Value
from microgpt._vector import Vector
from microgpt.tokenizer import CharTokenizer

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
        for name, size in vars(self).items():
            if isinstance(size, bool) or not hasattr(size, "__index__"):
                raise TypeError(f"{name} must be a whole number, got {size!r}")
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head must divide n_embd, got n_embd {self.n_embd} and n_head {self.n_head}")
        if self.n_parameters > MAX_PARAMETERS:
            raise ValueError(f"a model has at most {MAX_PARAMETERS:,} parameters, these sizes make {self.n_parameters:,}")

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Name and (rows, columns) of every matrix, in the order of microgpt.py."""
        wide = 4 * self.n_embd
        shapes = {
            "wte": (self.vocab_size, self.n_embd),
            "wpe": (self.block_size, self.n_embd),
            "lm_head": (self.vocab_size, self.n_embd),
        }
        for i in range(self.n_layer):
            for name in ("attn_wq", "attn_wk", "attn_wv", "attn_wo"):
                shapes[f"layer{i}.{name}"] = (self.n_embd, self.n_embd)
            shapes[f"layer{i}.mlp_fc1"] = (wide, self.n_embd)
            shapes[f"layer{i}.mlp_fc2"] = (self.n_embd, wide)
        return shapes

    @property
    def n_parameters(self) -> int:
        """Number of parameters, without building them."""
        return (2 * self.vocab_size + self.block_size) * self.n_embd + 12 * self.n_layer * self.n_embd**2


Cache = list[tuple[list[Rows], list[Rows]]]  # keys and values of each layer, of the tokens of each call of `forward` in turn


class Layer:
    """The six matrices of one block."""

    def __init__(self, matrices: dict[str, Matrix], prefix: str) -> None:
        self.attn_wq = matrices[f"{prefix}.attn_wq"]
        self.attn_wk = matrices[f"{prefix}.attn_wk"]
        self.attn_wv = matrices[f"{prefix}.attn_wv"]
        self.attn_wo = matrices[f"{prefix}.attn_wo"]
        self.mlp_fc1 = matrices[f"{prefix}.mlp_fc1"]
        self.mlp_fc2 = matrices[f"{prefix}.mlp_fc2"]


class GPT:
    """A GPT whose every weight and activation is a scalar node.

    `rng` draws the initial weights: `rng.gauss(0, 0.08)`, matrix by matrix in the order of `state_dict`, row by row.
    """

    def __init__(self, config: GPTConfig, rng: random.Random) -> None:
        matrices = {
            name: Matrix([[rng.gauss(0, INITIAL_STD) for _ in range(columns)] for _ in range(rows)])
            for name, (rows, columns) in config.shapes.items()
        }
        self._hold(config, matrices)

    def _hold(self, config: GPTConfig, matrices: dict[str, Matrix]) -> None:
        self.config = config
        self._matrices = matrices
        self.wte = matrices["wte"]
        self.wpe = matrices["wpe"]
        self.lm_head = matrices["lm_head"]
        self.layers = [Layer(matrices, f"layer{i}") for i in range(config.n_layer)]

    def state_dict(self) -> dict[str, Matrix]:
        """Return the matrices by name: wte, wpe, lm_head, layer0.attn_wq, ..."""
        return dict(self._matrices)

    def parameters(self) -> list[Value]:
        """Return every parameter, in the order of `state_dict`, row by row."""
        return [value for matrix in self._matrices.values() for row in matrix for value in row]

    def new_cache(self) -> Cache:
        """Return the empty keys and values to start a document with."""
        return [([], []) for _ in self.layers]

    def forward(self, tokens: Sequence[int], position: int, cache: Cache) -> Rows:
        """Return the logits of the token after each of `tokens`, which stand at `position` and on.

        Add the keys and values of the tokens to `cache`, which has those of the positions before. Shape: [tokens][vocab_size].
        Errors: IndexError for a token or position that the model does not have; ValueError for no tokens, or the cache of another
        model.
        """
        tokens = list(tokens)
        if not tokens:
            raise ValueError("forward needs at least one token, got none")
        if position < 0 or min(tokens) < 0:
            raise IndexError(f"tokens and position must be at least 0, got {tokens} and {position}")
        end = position + len(tokens)
        if end > self.config.block_size:
            raise IndexError(f"position {end - 1} is out of range for a model of {self.config.block_size} positions")
        if len(cache) != len(self.layers):
            raise ValueError(f"the cache of this model has {len(self.layers)} layers, got {len(cache)}")
        n_head = self.config.n_head
        x = rmsnorm(self.wte[tokens] + self.wpe[position:end])
        for layer, (keys, values) in zip(self.layers, cache):  # noqa: B905  # strict=True takes 0.2 us
            h = rmsnorm(x)
            keys.append(layer.attn_wk @ h)
            values.append(layer.attn_wv @ h)
            x = layer.attn_wo @ attention(layer.attn_wq @ h, keys, values, n_head) + x
            x = layer.mlp_fc2 @ relu(layer.mlp_fc1 @ rmsnorm(x)) + x
        return self.lm_head @ x

    def logits(self, token: int, position: int, cache: Cache) -> Vector:
        """Return the logits of the token that follows `token`, and add its keys and values to `cache`.

        Shape: [vocab_size]. Errors: as `forward`.
        """
        return self.forward([token], position, cache)[0]

    def loss(self, tokens: Sequence[int]) -> Value:
        """Return the mean cross entropy of the tokens after the first, in nats, over at most block_size positions.

        Errors: ValueError for fewer than two tokens; IndexError for a token that the model does not have.
        """
        n = min(self.config.block_size, len(tokens) - 1)
        if n < 1:
            raise ValueError(f"a loss needs at least two tokens, got {len(tokens)}")
        logits = self.forward(tokens[:n], 0, self.new_cache())
        return (1 / n) * cross_entropy(logits, tokens[1 : n + 1]).sum()

    def save(self, path: str | Path, tokenizer: CharTokenizer | None = None) -> None:
        """Write the weights, the sizes and, where given, the vocabulary to a safetensors file, which is replaced whole.

        Errors: ValueError if `tokenizer` is that of another model; OSError if the file cannot be written.
        """
        checkpoint.write(path, *self.to_checkpoint(tokenizer))

    @classmethod
    def load(cls, path: str | Path) -> GPT:
        """Return the model that `save` or the training command wrote, every weight as it was.

        `CharTokenizer.load` returns the tokenizer beside it.
        Errors: OSError if the file cannot be read; ValueError, `path` in it, unless it is whole and holds a GPT.
        """
        tensors, metadata = checkpoint.read(path)
        with checkpoint.refusals(path):
            return cls.from_checkpoint(tensors, metadata)

    def to_checkpoint(self, tokenizer: CharTokenizer | None = None) -> tuple[dict[str, checkpoint.Tensor], dict[str, Any]]:
        """Return the tensors and metadata that `save` writes. ValueError if `tokenizer` is that of another model."""
        metadata: dict[str, Any] = {"config": asdict(self.config)}
        if tokenizer is not None:
            if tokenizer.vocab_size != self.config.vocab_size:
                raise ValueError(f"the model has {self.config.vocab_size} tokens, the tokenizer {tokenizer.vocab_size}")
            metadata["characters"] = tokenizer.characters
        tensors: dict[str, checkpoint.Tensor] = {
            name: (matrix.shape, array("d", chain.from_iterable(matrix.data))) for name, matrix in self._matrices.items()
        }
        return tensors, metadata

    @classmethod
    def from_checkpoint(cls, tensors: Mapping[str, checkpoint.Tensor], metadata: Mapping[str, Any]) -> GPT:
        """Return the model in what `checkpoint.read` returned.

        Of other tensors it may hold those named adam. and training. and so on. ValueError if they do not make one GPT.
        """
        config = config_of(metadata)
        stored = sum(len(values) for _, values in tensors.values())
        if config.n_parameters > stored:  # before a list is made as long as a wrong n_layer says
            raise ValueError(f"its sizes make {config.n_parameters} parameters, it holds {stored} numbers")
        if 6 * config.n_layer > len(tensors):
            raise ValueError(f"its sizes make {config.n_layer} layers of 6 matrices, it holds {len(tensors)} tensors")
        shapes = config.shapes
        unknown = sorted(name for name in tensors.keys() - shapes.keys() if not name.startswith(("adam.", "training.")))
        if unknown:
            raise ValueError(f"the GPT of its sizes has no {unknown[0]}")
        for name, shape in shapes.items():
            if name not in tensors:
                raise ValueError(f"{name} is missing")
            if tensors[name][0] != shape:
                raise ValueError(f"{name} must have shape {shape}, it has {tensors[name][0]}")
        model = cls.__new__(cls)
        model._hold(config, {name: Matrix(rows_of(*tensors[name])) for name in shapes})
        return model


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


def rows_of(shape: tuple[int, ...], values: array[float]) -> list[array[float]]:
    """Return the rows of a matrix."""
    rows, columns = shape
    return [values[i * columns : (i + 1) * columns] for i in range(rows)]
