"""Text out of a model."""

from __future__ import annotations

import math
import random

from microgpt._functions import softmax
from microgpt.model import GPT
from microgpt.tokenizer import CharTokenizer

MIN_TEMPERATURE = 1e-3  # logits / temperature stays far from overflow


def sample(model: GPT, tokenizer: CharTokenizer, rng: random.Random, *, temperature: float = 0.5) -> str:
    """Draw one document: characters until BOS, block_size at most.

    `temperature` divides the logits; small is cautious, 1 is what the model learned.
    Errors: ValueError if temperature is below MIN_TEMPERATURE or not finite, or if the model has another vocabulary.
    """
    if not MIN_TEMPERATURE <= temperature < math.inf:
        raise ValueError(f"temperature must be at least {MIN_TEMPERATURE} and finite, got {temperature}")
    if model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(f"the model has {model.config.vocab_size} tokens, the tokenizer {tokenizer.vocab_size}")
    token = tokenizer.bos
    tokens: list[int] = []
    cache = model.new_cache()
    for position in range(model.config.block_size):
        probabilities = softmax(model.logits(token, position, cache) / temperature)
        token = rng.choices(range(tokenizer.vocab_size), weights=probabilities.data)[0]
        if token == tokenizer.bos:
            break
        tokens.append(token)
    return tokenizer.decode(tokens)
