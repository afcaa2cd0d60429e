"""Text out of a model: every option as in the twin, and refusals that say what is allowed."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from microgpt import GPT, CharTokenizer, GPTConfig, generate, reference

CHARACTERS = "abcdé🙂"
TOKENIZER = CharTokenizer([CHARACTERS])
SIZES = {"n_layer": 1, "n_embd": 4, "n_head": 2, "block_size": 7}
OPTIONS: dict[str, list[Any]] = {
    "temperature": [0, 0.001, 0.5, 1, 20.0],
    "top_k": [None, 1, 2, 3, 7, 1000],
    "prompt": ["", "a", "🙂éa", "abcdab"],
    "max_length": [None, 1, 4, 7],
}


def twins(seed: int = 5) -> tuple[GPT, reference.GPT]:
    """One model on both engines, its weights so large that it has preferences."""
    vocab_size = len(CHARACTERS) + 1
    model = GPT(GPTConfig(vocab_size, **SIZES), random.Random(seed))
    twin = reference.GPT(vocab_size, random.Random(seed), **SIZES)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        p.data = q.data = q.data * 12
    return model, twin


def test_every_option_draws_as_the_twin_does() -> None:
    model, twin = twins()
    texts = set()
    ours, theirs = random.Random(1), random.Random(1)
    for values in itertools.product(*OPTIONS.values()):
        options = dict(zip(OPTIONS, values, strict=True))
        if len(options["prompt"]) >= (options["max_length"] or 7):
            continue
        text = generate(model, TOKENIZER, ours, **options)
        assert text == reference.generate(twin, CHARACTERS, theirs, **options)
        assert text.startswith(options["prompt"])
        assert len(text) <= (options["max_length"] or 7)
        texts.add(text)
    assert ours.getstate() == theirs.getstate()
    assert len(texts) > 25


def test_temperature_0_takes_the_most_likely_and_draws_nothing() -> None:
    model, twin = twins()
    rng = random.Random(1)
    before = rng.getstate()
    greedy = generate(model, TOKENIZER, rng, temperature=0)
    assert rng.getstate() == before
    tokens = TOKENIZER.encode(greedy)
    cache = twin.new_cache()
    for position, token in enumerate(tokens[:-1][: SIZES["block_size"]]):
        logits = [z.data for z in twin.logits(token, position, cache)]
        assert logits[tokens[position + 1]] == max(logits)
    assert generate(model, TOKENIZER, rng, temperature=1, top_k=1) == greedy


def test_of_equally_likely_tokens_the_lowest_ids_count() -> None:
    model, _ = twins()
    model.lm_head.data = [[0.0] * SIZES["n_embd"]] * len(model.lm_head)
    rng = random.Random(1)
    assert generate(model, TOKENIZER, rng, temperature=0) == "aaaaaaa"
    assert set("".join(generate(model, TOKENIZER, rng, top_k=3) for _ in range(50))) == set("abc")
    assert set("".join(generate(model, TOKENIZER, rng, top_k=9) for _ in range(50))) == set(CHARACTERS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *[({"temperature": t}, f"temperature must be 0, or at least 0.001 and finite, got {t}") for t in (-1.0, 1e-4, 1e999)],
        ({"temperature": float("nan")}, "temperature must be 0, .* got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, got 0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"prompt": "abcabca"}, "the prompt must be shorter than the model's block_size, 7, it has 7 tokens"),
        ({"prompt": "abc", "max_length": 3}, "the prompt must be shorter than max_length, 3, it has 3 characters"),
        ({"prompt": "az"}, "character 'z' is not in the vocabulary 'abcdé🙂'"),
        ({"tokenizer": CharTokenizer(["ab"])}, "the model has 7 tokens, the tokenizer 3"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    model, _ = twins()
    rng = random.Random(1)
    with pytest.raises(ValueError, match=words):
        generate(model, **{"tokenizer": TOKENIZER, "rng": rng, **options})
    assert rng.getstate() == random.Random(1).getstate()


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_model_that_diverged_is_refused(temperature: float) -> None:
    model, _ = twins()
    model.lm_head.data = [[float("nan")] * SIZES["n_embd"], *model.lm_head.data[1:]]
    with pytest.raises(ValueError, match="finite"):
        generate(model, TOKENIZER, random.Random(1), temperature=temperature)
