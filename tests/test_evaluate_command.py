"""python -m microgpt.evaluate: the figures of the twin, and refusals in one line."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from commands import Commands

from microgpt import GPT, checkpoint, reference
from microgpt.tokenizer import Tokenizer

PLAY = "KING:\n  Who's there, né 🙂?\n\nFOOL:\tNobody, my lord.\n" * 8
NAMES = "anna\nhannah\nnanannannan\nhan\n"
SMALL = ["--n-embd", 4, "--n-head", 2, "--block-size", 5, "--steps", 20, "--samples", 0, "--quiet"]
LOSS, PERPLEXITY, BITS = "loss", "perplexity", "bits_per_character"


def trained(commands: Commands, text: str, *flags: object) -> tuple[reference.GPT, str | None]:
    """Train a model, saved as "model", on a text, which is in "text"; return its twin, and its vocabulary."""
    Path("text").write_text(text, encoding="utf-8")
    commands.good("train", "--data", "text", *SMALL, "--save", "model", *flags)
    model = GPT.load("model")
    sizes = vars(model.config).copy()
    twin = reference.GPT(sizes.pop("vocab_size"), random.Random(), **sizes)
    for p, q in zip(twin.parameters(), model.parameters(), strict=True):
        p.data = q.data
    characters = checkpoint.read("model")[1].get("characters")
    return twin, characters


def figures(commands: Commands, *flags: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in commands.good("evaluate", "model", "--json", *flags).splitlines()]


@pytest.mark.parametrize("flags", [(), ("--tokenizer", "bytes")], ids=["characters", "bytes"])
def test_a_text_is_measured_as_by_the_twin(flags: tuple[str, ...], commands: Commands) -> None:
    twin, characters = trained(commands, PLAY, "--format", "text", *flags)
    tokens = reference.encode(PLAY, characters)
    nats, count = reference.evaluate(twin, reference.windows_of(tokens, 5))
    (made,) = figures(commands, "--data", "text")
    assert made[LOSS] == nats / count
    assert made[PERPLEXITY] == math.exp(nats / count)
    assert made[BITS] == nats / math.log(2) / (len(PLAY) - 1)
    assert (made["predictions"], made["characters"]) == (count, len(PLAY) - 1) == (len(tokens) - 1, len(PLAY) - 1)
    out = commands.good("evaluate", "model", "--data", "text").splitlines()
    assert out == [
        f"loss {made[LOSS]:.4f} nats, perplexity {made[PERPLEXITY]:.4f}, {made[BITS]:.4f} bits per character",
        f"{count} predictions of {len(PLAY) - 1} characters",
    ]


def test_documents_are_measured_whole_and_one_by_one(commands: Commands) -> None:
    twin, characters = trained(commands, NAMES)
    assert characters is not None
    documents = NAMES.split()
    sums = []
    for document in documents:
        tokens = [len(characters), *reference.encode(document, characters), len(characters)]
        sums.append(reference.evaluate(twin, reference.windows_of(tokens, 5)))
    *each, made = figures(commands, "--data", "text", "--documents")
    assert [(one["document"], one[LOSS]) for one in each] == [
        (document, nats / count) for document, (nats, count) in zip(documents, sums, strict=True)
    ]
    total = 0.0
    for nats, _ in sums:
        total += nats
    assert made[LOSS] == total / sum(count for _, count in sums)
    assert made["predictions"] == sum(len(document) + 1 for document in documents)
    lines = commands.good("evaluate", "model", "--data", "text", "--documents").splitlines()
    assert lines[:4] == [f"{one[LOSS]:.4f}\t{one['document']}" for one in each]
    assert lines[-1].endswith("in 4 documents")


def test_a_text_is_read_as_the_model_has_learnt_to(commands: Commands) -> None:
    trained(commands, "a\n b \n%\nc\n%d\n", "--delimiter", "%", "--keep-spaces")
    Path("other").write_text(" c\n d %a\n\n%b")
    assert [one.get("document") for one in figures(commands, "--data", "other", "--documents")] == [" c\n d ", "a", "b", None]


def test_the_best_model_is_measured_as_the_run_is(commands: Commands) -> None:
    """It tells in its own way how its text was read."""
    trained(commands, PLAY, "--format", "text", "--validation", 0.2, "--validation-every", 20, "--save-best", "best")
    run, best = (commands.good("evaluate", model, "--data", "text") for model in ("model", "best"))
    assert run == best
    assert Tokenizer.load("best") == Tokenizer.load("model")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model"], "required: --data"),
        (["missing", "--data", "text"], "missing: No such file or directory"),
        (["text", "--data", "text"], "text is not a whole microgpt checkpoint"),
        (["model", "--data", "missing"], "missing: No such file or directory"),
        (["model", "--data", "unknown"], "unknown: character 'x' is not in the vocabulary 'ahn'"),
        (["model", "--data", "empty"], "empty: there is nothing to predict in it"),
        (["model", "--data", "binary"], "binary is not UTF-8 text: NUL byte"),
        (["model", "--data", "folder"], "folder is a folder without files"),
        (["mute", "--data", "text"], "mute is not a whole microgpt checkpoint: it holds no vocabulary"),
        (["strange", "--data", "text"], "strange is not a whole microgpt checkpoint: how its text was read must be told"),
        (["other", "--data", "text"], "other is not a whole microgpt checkpoint: its model has 4 tokens, its tokenizer 3"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], words: str, commands: Commands) -> None:
    trained(commands, NAMES)
    tensors, metadata = checkpoint.read("model")
    Path("unknown").write_text("anna\nanx\n")
    Path("empty").write_text("\n\n")
    Path("binary").write_bytes(b"an\0")
    Path("folder").mkdir()
    GPT.load("model").save("mute")
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(("adam.", "training."))}
    plain = {"config": metadata["config"], "characters": "ahn"}
    checkpoint.write("strange", weights, {**plain, "text": 3})
    checkpoint.write("other", weights, {**plain, "characters": "ah"})
    assert words in commands.refusal("evaluate", *arguments)


def test_documents_of_one_text_are_refused(commands: Commands) -> None:
    trained(commands, PLAY, "--format", "text")
    assert "--documents is for models of documents" in commands.refusal("evaluate", "model", "--data", "text", "--documents")
