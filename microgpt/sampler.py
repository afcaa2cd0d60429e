"""Text out of a model."""

from __future__ import annotations

import math
import random

from microgpt._functions import softmax
from microgpt._vector import Vector
from microgpt.model import GPT
from microgpt.tokenizer import CharTokenizer

MIN_TEMPERATURE = 1e-3  # but for 0 itself; logits / temperature stays far from overflow


def generate(
    model: GPT,
    tokenizer: CharTokenizer,
    rng: random.Random,
    *,
    temperature: float = 0.5,
    top_k: int | None = None,
    prompt: str = "",
    max_length: int | None = None,
) -> str:
    """Draw one document: `prompt`, then characters until BOS, or until it has `max_length` of them.

    `temperature` divides the logits: small is cautious, 1 is what the model learned, 0 takes the most likely token (the lowest id
    of several) and draws nothing from `rng`. `top_k`: draw among the k most likely tokens only; of equally likely ones the lowest
    ids count. `max_length`: characters, the prompt's included; block_size, the model's positions, by default and at most.
    Errors: ValueError for a number out of range, a prompt that holds unknown characters or leaves no room, a tokenizer of another
    model, or a model whose logits are not finite.
    """
    if temperature != 0 and not MIN_TEMPERATURE <= temperature < math.inf:
        raise ValueError(f"temperature must be 0, or at least {MIN_TEMPERATURE} and finite, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(f"the model has {model.config.vocab_size} tokens, the tokenizer {tokenizer.vocab_size}")
    length = model.config.block_size if max_length is None else max_length
    if not 1 <= length <= model.config.block_size:
        raise ValueError(f"max_length must be from 1 to {model.config.block_size}, the model's block_size, got {length}")
    if len(prompt) >= length:
        limit = "the model's block_size" if max_length is None else "max_length"
        raise ValueError(f"the prompt must be shorter than {limit}, {length}, it has {len(prompt)} characters")
    tokens = tokenizer.encode(prompt)[:-1]
    cache = model.new_cache()
    for position in range(length):
        logits = model.logits(tokens[position], position, cache)
        if position + 1 < len(tokens):
            continue  # the prompt tells the next token
        token = next_token(logits, rng, temperature, top_k)
        if token == tokenizer.bos:
            break
        tokens.append(token)
    return tokenizer.decode(tokens)


def next_token(logits: Vector, rng: random.Random, temperature: float, top_k: int | None) -> int:
    """Return the token that follows. One draw from `rng`, none at temperature 0."""
    tokens = range(len(logits))
    values = logits.data
    if not all(map(math.isfinite, values)):
        raise ValueError("the model's logits are not finite, there is nothing to draw from")
    if temperature == 0:
        return max(tokens, key=values.__getitem__)  # the first of equals
    weights = softmax(logits / temperature).data
    if top_k is not None:
        best = set(sorted(tokens, key=weights.__getitem__, reverse=True)[:top_k])  # reverse leaves equals in order
        weights = [weights[token] if token in best else 0.0 for token in tokens]
    return rng.choices(tokens, weights=weights)[0]
