"""Text out of a model."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from itertools import islice

from microgpt._functions import softmax
from microgpt._vector import Vector
from microgpt.model import GPT
from microgpt.ranges import Real
from microgpt.tokenizer import Tokenizer

MIN_TEMPERATURE = 1e-3  # but for 0 itself; logits / temperature stays far from overflow
TEMPERATURE = Real(MIN_TEMPERATURE, or_zero=True)
TOP_P = Real(0, exclusive=True, most=1)


class Choice:
    """How the next token is drawn. ValueError for a number out of range.

    `temperature` divides the logits: small is cautious, 1 is what the model learned, 0 takes the most likely token (the lowest id
    of several) and draws nothing. `top_k`: draw among the k most likely tokens only; of equally likely ones the lowest ids count.
    `top_p`: and among the fewest of these whose probabilities add up to p, or all.
    """

    def __init__(self, temperature: float = 0.5, top_k: int | None = None, top_p: float | None = None) -> None:
        if temperature != 0 and not MIN_TEMPERATURE <= temperature < math.inf:
            raise ValueError(f"temperature must be 0, or at least {MIN_TEMPERATURE} and finite, got {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    def draw(self, logits: Vector, rng: random.Random) -> int:
        """Return the token that follows. One draw from `rng`, none at temperature 0."""
        tokens = range(len(logits))
        values = logits.data
        if not all(map(math.isfinite, values)):
            raise ValueError("the model's logits are not finite, there is nothing to draw from")
        if self.temperature == 0:
            return max(tokens, key=values.__getitem__)  # the first of equals
        weights = softmax(logits / self.temperature).data
        if self.top_k is not None or self.top_p is not None:
            ranked = sorted(tokens, key=weights.__getitem__, reverse=True)[: self.top_k]  # reverse leaves equals in order
            kept = set(ranked[: enough(map(weights.__getitem__, ranked), self.top_p)])
            weights = [weights[token] if token in kept else 0.0 for token in tokens]
        return rng.choices(tokens, weights=weights)[0]


def enough(weights: Iterable[float], share: float | None) -> int | None:
    """Return how many of the weights, added in turn, make `share`; None for all."""
    total = 0.0
    for i, weight in enumerate(weights if share is not None else ()):
        total += weight
        if total >= (share or 0.0):
            return i + 1
    return None


class Context:
    """The last tokens of a text, as many as the model has positions for, and the logits of what follows.

    Up to block_size tokens the keys and values are kept; beyond, the context slides: each token stands at another position then,
    and all is computed anew. No graph is kept.
    """

    def __init__(self, model: GPT) -> None:
        self._model = model
        self._block_size = model.config.block_size
        self._tokens: list[int] = []
        self._cache = model.new_cache()

    def follow(self, tokens: list[int]) -> Vector:
        """Add one token or more, and return the logits of the next one. Shape: [vocab_size]."""
        position = len(self._tokens)
        self._tokens += tokens
        if len(self._tokens) <= self._block_size:
            return self._model.next_logits(tokens, position, self._cache)
        self._cache = []
        del self._tokens[: -self._block_size]
        return self._model.next_logits(self._tokens)


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    rng: random.Random,
    *,
    temperature: float = 0.5,
    top_k: int | None = None,
    top_p: float | None = None,
    prompt: str = "",
    max_length: int | None = None,
    stop: str | None = None,
) -> str:
    """Draw one document: `prompt`, then text until BOS, before `stop`, or until it has `max_length` characters.

    `temperature`, `top_k`, `top_p`: as of Choice. `max_length`: characters, the prompt's included; by default it ends with the
    model's positions, after block_size tokens. The model sees the last block_size tokens.
    Errors: ValueError for a number out of range, a prompt that holds unknown characters or leaves no room, a tokenizer of another
    model, or a model whose logits are not finite.
    """
    choice = Choice(temperature, top_k, top_p)
    check_same(model, tokenizer)
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}")
    tokens = tokenizer.encode(prompt)[:-1]
    room = model.config.block_size - len(tokens) + 1 if max_length is None else max_length - len(prompt)
    if room < 1:
        limit = f"the model's block_size, {model.config.block_size}" if max_length is None else f"max_length, {max_length}"
        unit = "tokens" if max_length is None else "characters"
        has = len(tokens) - 1 if max_length is None else len(prompt)
        raise ValueError(f"the prompt must be shorter than {limit}, it has {has} {unit}")
    drawn = draw(model, tokens, rng, choice)
    if max_length is None:
        drawn = islice(drawn, room)
    ids = until_bos(drawn, tokenizer.bos)
    if max_length is None and stop is None:
        return prompt + tokenizer.text(list(ids))
    pieces = pieces_of(ids, tokenizer)
    return prompt + "".join(until(pieces if max_length is None else up_to(pieces, room), stop))


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    rng: random.Random,
    *,
    temperature: float = 0.5,
    top_k: int | None = None,
    top_p: float | None = None,
    prompt: str = "",
    documents: bool = True,
) -> Iterator[str]:
    """Yield text piece by piece, without end: what follows `prompt`, which is not told again.

    `documents`: whether the model learnt documents, each between two BOS: one follows the other, a line end between them. Else
    the text goes on and never comes to a BOS; without a prompt it begins as after a line end.
    Errors, the first time: ValueError as `generate`.
    """
    choice = Choice(temperature, top_k, top_p)
    check_same(model, tokenizer)
    if not documents:
        barred = tokenizer.bos
        yield from pieces_of(draw(model, start_of(tokenizer, prompt), rng, choice, barred), tokenizer)
    tokens = tokenizer.encode(prompt)[:-1]
    while True:
        yield from pieces_of(until_bos(draw(model, tokens, rng, choice), tokenizer.bos), tokenizer)
        yield "\n"
        tokens = [tokenizer.bos]


def generate_text(
    model: GPT, tokenizer: Tokenizer, rng: random.Random, length: int, *, temperature: float = 0.5, prompt: str = ""
) -> str:
    """Draw `length` tokens that follow `prompt` in a text without BOS, as `stream` does. Errors: as `generate`."""
    check_same(model, tokenizer)
    tokens = draw(model, start_of(tokenizer, prompt), rng, Choice(temperature), tokenizer.bos)
    return tokenizer.text(list(islice(tokens, length)))


def start_of(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Return the tokens that a text without BOS goes on from: a line end where there is no prompt, or else the first token."""
    try:
        return tokenizer.ids(prompt or "\n")
    except ValueError:
        if prompt:
            raise
        return [0]


def draw(model: GPT, tokens: list[int], rng: random.Random, choice: Choice, barred: int | None = None) -> Iterator[int]:
    """Yield the tokens that follow `tokens`, without end. `barred` is never drawn."""
    context = Context(model)
    while True:
        # No name holds the logits: only when nothing is left of one window does the tape go back for the next.
        if barred is None:
            tokens = [choice.draw(context.follow(tokens), rng)]
        else:
            tokens = [choice.draw(without(context.follow(tokens), barred), rng)]
        yield tokens[0]


def without(logits: Vector, token: int) -> Vector:
    """Return the logits with that of `token` so low that it is never drawn, and not the most likely."""
    values = logits.data
    values[token] = min(values) - 1e6
    return Vector(values)


def until_bos(tokens: Iterable[int], bos: int) -> Iterator[int]:
    """Yield the tokens before BOS."""
    for token in tokens:
        if token == bos:
            return
        yield token


def pieces_of(tokens: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the text of tokens as soon as it is certain."""
    decoder = tokenizer.decoder()
    for token in tokens:
        yield decoder.add(token)
    yield decoder.end()


def up_to(pieces: Iterable[str], length: int) -> Iterator[str]:
    """Yield the first `length` characters, and ask for no more pieces than that takes."""
    left = length
    for piece in pieces:
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            return


def until(pieces: Iterable[str], stop: str | None) -> Iterator[str]:
    """Yield the text before the first `stop`. What may be its beginning waits for the next piece."""
    if stop is None:
        yield from pieces
        return
    left = ""
    for piece in pieces:
        left += piece
        if stop in left:
            yield left[: left.index(stop)]
            return
        waiting = next(n for n in range(min(len(stop) - 1, len(left)), -1, -1) if left.endswith(stop[:n]))
        yield left[: len(left) - waiting]
        left = left[len(left) - waiting :]
    yield left


def check_same(model: GPT, tokenizer: Tokenizer) -> None:
    """Raise ValueError unless the tokenizer has as many tokens as the model."""
    if model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(f"the model has {model.config.vocab_size} tokens, the tokenizer {tokenizer.vocab_size}")
