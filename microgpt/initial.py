"""Where a run may start from: the weights of another one, for the characters of another text."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import microgpt
from microgpt.model import GPT, INITIAL_STD, config_of, shared_of
from microgpt.settings import spelled
from microgpt.tokenizer import CharTokenizer, Tokenizer, tokenizer_in

if TYPE_CHECKING:
    from microgpt.checkpoint import Tensor

SIZES = ("n_layer", "n_embd", "n_head", "block_size")


class Initial:
    """The model and tokenizer of a checkpoint, as a start for a run.

    Errors: OSError if the file cannot be read; ValueError unless it is whole and holds both.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._tensors, self._metadata = microgpt.checkpoint.read(path)
        with microgpt.checkpoint.refusals(path):
            self.config = config_of(self._metadata)
            self.tokenizer = tokenizer_in(self._metadata)
            GPT.check_checkpoint(self._tensors, self._metadata)
            for name in self.config.shapes.keys() & self._tensors.keys():
                microgpt.checkpoint.check_finite(self._tensors, name)

    def settings(self) -> dict[str, Any]:
        """Return the settings that its model decides."""
        tied = shared_of(self._metadata).get("lm_head") == "wte"
        kinds = {"CharTokenizer": "characters", "ByteTokenizer": "bytes"}
        kind = kinds.get(type(self.tokenizer).__name__, self.path)
        return {name: getattr(self.config, name) for name in SIZES} | {"tie_weights": tied, "tokenizer": kind}

    def settled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a run that starts from it. ValueError for a given one that contradicts it."""
        own = self.settings()
        for name, value in own.items():
            if name in given and given[name] != value and not (name == "tokenizer" and self._is_own(given[name])):
                raise ValueError(f"{spelled(name, given[name])} contradicts {self.path}, a model with {spelled(name, value)}")
        return {**own, **given}

    def _is_own(self, path: str) -> bool:
        """Return whether a file holds the same tokenizer."""
        if path in ("characters", "bytes"):
            return False
        from microgpt.bpe import BPETokenizer  # here, because only runs with such a file need it

        return BPETokenizer.of_file(path) == self.tokenizer

    def extended(self, tokenizer: Tokenizer) -> Tokenizer:
        """Return its tokenizer, with the characters of another one added where both have such."""
        if isinstance(self.tokenizer, CharTokenizer) and isinstance(tokenizer, CharTokenizer):
            return CharTokenizer([self.tokenizer.characters, tokenizer.characters])
        return self.tokenizer

    def added(self, tokenizer: Tokenizer) -> str:
        """Return the characters that `tokenizer` has and its own has not."""
        if isinstance(self.tokenizer, CharTokenizer) and isinstance(tokenizer, CharTokenizer):
            return "".join(sorted(set(tokenizer.characters) - set(self.tokenizer.characters)))
        return ""

    def grown(self, tokenizer: Tokenizer, rng: random.Random) -> GPT:
        """Return its model for the vocabulary of `tokenizer`, which `extended` returned.

        `rng` draws the rows of new characters, as those of a new model: of wte, then, unless that is shared, of lm_head.
        """
        tensors = dict(self._tensors)
        added = self.added(tokenizer)
        if added and isinstance(tokenizer, CharTokenizer) and isinstance(self.tokenizer, CharTokenizer):
            places = {character: i for i, character in enumerate(self.tokenizer.characters)}
            rows = [places.get(character) for character in tokenizer.characters] + [self.tokenizer.bos]
            for name in ("wte", "lm_head"):
                if name in tensors:
                    tensors[name] = with_rows(tensors[name], rows, rng)
        config = {**self._metadata["config"], "vocab_size": tokenizer.vocab_size}
        return GPT.from_checkpoint(tensors, {**self._metadata, "config": config})


def with_rows(tensor: Tensor, rows: list[int | None], rng: random.Random) -> Tensor:
    """Return a matrix of some rows of `tensor`, and new ones, which `rng` draws, where there is None."""
    (_, columns), values = tensor
    chosen = array("d")
    for row in rows:
        if row is None:
            chosen.extend(rng.gauss(0, INITIAL_STD) for _ in range(columns))
        else:
            chosen.extend(values[row * columns : (row + 1) * columns])
    return (len(rows), columns), chosen
