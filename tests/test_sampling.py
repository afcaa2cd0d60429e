"""Text out of a model: every option as in the twin, and refusals that say what is allowed."""

from __future__ import annotations

import gc
import itertools
import os
import random
import tracemalloc
from typing import Any

import pytest

from microgpt import GPT, CharTokenizer, GPTConfig, generate, reference
from microgpt._tape import get_tape
from microgpt.sampler import Context, generate_text, stream, until
from microgpt.tokenizer import ByteTokenizer

CHARACTERS = "abcdé🙂"
TOKENIZER = CharTokenizer([CHARACTERS])
SIZES = {"n_layer": 1, "n_embd": 4, "n_head": 2, "block_size": 7}
OPTIONS: dict[str, list[Any]] = {
    "temperature": [0, 0.001, 1, 20.0],
    "top_k": [None, 1, 3, 1000],
    "top_p": [None, 0.4, 1],
    "prompt": ["", "🙂éa", "abcdabcdab"],
    "max_length": [None, 1, 4, 14],
    "stop": [None, "b", "cd"],
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
        assert text == reference.generate(twin, CHARACTERS, theirs, **options), options
        assert text.startswith(options["prompt"])
        assert len(text) <= (options["max_length"] or 7)
        assert options["stop"] is None or options["stop"] not in text[len(options["prompt"]) :]
        texts.add(text)
    assert ours.getstate() == theirs.getstate()
    assert len(texts) > 25
    assert max(map(len, texts)) == 14


def test_a_text_without_an_end_is_drawn_as_the_twin_does() -> None:
    model, twin = twins()
    for prompt in ("", "d🙂", "abcdabcdab"):
        rng = random.Random(3)
        expected = reference.generate_text(twin, CHARACTERS, rng, 40, 1.0, prompt)
        after = rng.getstate()
        rng = random.Random(3)
        assert generate_text(model, TOKENIZER, rng, 40, temperature=1.0, prompt=prompt) == expected
        assert rng.getstate() == after
        pieces = stream(model, TOKENIZER, random.Random(3), temperature=1.0, prompt=prompt, documents=False)
        assert "".join(itertools.islice(pieces, 40)) == expected
        assert len(expected) == 40


def test_bytes_are_drawn_as_the_twin_does() -> None:
    tokenizer = ByteTokenizer()
    model = GPT(GPTConfig(257, **SIZES), random.Random(5))
    twin = reference.GPT(257, random.Random(5), **SIZES)
    for prompt in ("", "é"):
        expected = reference.generate_text(twin, None, random.Random(3), 30, 1.0, prompt)
        assert generate_text(model, tokenizer, random.Random(3), 30, temperature=1.0, prompt=prompt) == expected
        for length in (None, 11):
            expected = reference.generate(twin, None, random.Random(3), 1.0, prompt=prompt, max_length=length)
            assert generate(model, tokenizer, random.Random(3), temperature=1.0, prompt=prompt, max_length=length) == expected
            assert "\ufffd" in expected


def test_documents_follow_each_other_in_a_stream() -> None:
    model, _ = twins()
    text = "".join(itertools.islice(stream(model, TOKENIZER, random.Random(1), temperature=1.0, prompt="ab"), 300))
    rng = random.Random(1)
    first = generate(model, TOKENIZER, rng, temperature=1.0, prompt="ab", max_length=10**6)
    second = generate(model, TOKENIZER, rng, temperature=1.0, max_length=10**6)
    assert ("ab" + text).startswith(f"{first}\n{second}\n")


def test_the_context_slides_over_the_last_tokens() -> None:
    """After many tokens the logits are those of the last block_size alone, from position 0."""
    model, _ = twins()
    tokens = [random.Random(1).randrange(7) for _ in range(30)]
    context = Context(model)
    logits = [context.follow(tokens[:3]), *(context.follow([token]) for token in tokens[3:])]
    for i, made in enumerate(logits):
        seen = tokens[: i + 3][-7:]
        assert made.data == model.forward(seen, 0, model.new_cache())[-1].data


def test_text_before_a_stop_is_told_as_soon_as_it_is_certain() -> None:
    rng = random.Random(1)
    for _ in range(500):
        text, stop = ("".join(rng.choice("ab") for _ in range(rng.randrange(1, n))) for n in (15, 5))
        told = list(until(iter(text), stop))
        assert "".join(told) == text.partition(stop)[0]
        waits = [text[: i + 1] for i in range(len(told))]
        for i, so_far in enumerate(waits):
            if stop not in so_far and i < len(text):
                kept = len(so_far) - sum(map(len, told[: i + 1]))
                assert kept == max(n for n in range(len(stop)) if so_far.endswith(stop[:n]))


def test_a_long_text_leaves_memory_as_it_was() -> None:
    """MICROGPT_LONG=1000000 draws as many characters."""
    model, _ = twins()
    gc.collect()
    weights = get_tape().nodes
    pieces = stream(model, TOKENIZER, random.Random(1), temperature=1.0, documents=False)
    length = int(os.environ.get("MICROGPT_LONG", "20000"))
    tracemalloc.start()
    try:
        for _ in range(100):
            next(pieces)
        nodes, nbytes, held = get_tape().nodes, get_tape().nbytes, tracemalloc.get_traced_memory()[0]
        for _ in itertools.islice(pieces, length):
            pass
        assert get_tape().nodes == nodes == weights  # so that the tape goes back after each window
        assert get_tape().nbytes <= nbytes
        assert tracemalloc.get_traced_memory()[0] < held + 20_000
    finally:
        tracemalloc.stop()


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
