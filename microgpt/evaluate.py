"""Measure a model on a text: `python -m microgpt.evaluate MODEL --data FILE`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from microgpt import data
from microgpt._functions import cross_entropy
from microgpt._no_grad import no_grad
from microgpt.batches import windows
from microgpt.cli import Parser, print_document, printable, run, say
from microgpt.model import GPT
from microgpt.progress import bar
from microgpt.sample import load
from microgpt.settings import Settings
from microgpt.tokenizer import CharTokenizer, Tokenizer


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m microgpt.evaluate",
        description="Measure how well a model that was saved predicts a text.",
        epilog="The text is read as the model's own was, by line or as one; what is longer than its block is taken in windows, "
        "one after the other, each without a memory of the one before. The loss is the mean over all predictions, the end of "
        "each document included. Flags may stand in a file: @FILE.",
    )
    parser.add_argument("model", metavar="MODEL", help="the file that training saved")
    files = "files and folders, UTF-8 text, - being standard input"
    parser.add_argument("--data", metavar="FILE", nargs="+", required=True, help=files)
    parser.add_argument("--documents", action="store_true", help="a line for each document first: its loss and its text")
    parser.add_argument("--json", action="store_true", help="the same as JSON, one object a line")
    parser.add_argument("--quiet", action="store_true", help="no bar on standard error")
    return parser


def nats_of(model: GPT, parts: Iterable[Sequence[int]]) -> tuple[float, int]:
    """Return the sum of the cross entropies of all tokens after the first of each part, in nats, and how many they are."""
    nats, count = 0.0, 0
    for tokens in parts:
        with no_grad():
            logits = model.forward(tokens[:-1], 0, model.new_cache())
            nats += cross_entropy(logits, tokens[1:]).sum().data
        count += len(tokens) - 1
    return nats, count


def measured(nats: float, predictions: int, characters: int) -> dict[str, float | int]:
    """Return the figures of a text: perplexity is exp(loss), a bit is log(2) nats."""
    loss = nats / predictions
    try:
        perplexity = math.exp(loss)
    except OverflowError:
        perplexity = math.inf
    return {
        "loss": loss,
        "perplexity": perplexity,
        "bits_per_character": nats / math.log(2) / characters,
        "predictions": predictions,
        "characters": characters,
    }


class Parts:
    """A text, document by document, as a model is measured on it. A text that is one stream is one document, without BOS."""

    def __init__(self, paths: Sequence[str], tokenizer: Tokenizer, settings: Settings, block_size: int) -> None:
        self.tokenizer, self.block_size = tokenizer, block_size
        self.whole = settings.format == "text"
        if self.whole:
            self.text = data.load_text(paths)
            self.stream = tokenizer.stream(self.text)
            self.n_windows = max(0, -(-(len(self.stream) - 1) // block_size))
        else:
            self.documents = data.load_documents(paths, delimiter=settings.delimiter, keep_spaces=settings.keep_spaces)
            self.n_windows = len(self.documents)  # of most documents

    def check_known(self) -> None:
        """Raise ValueError for a character outside the vocabulary, before anything is printed."""
        if isinstance(self.tokenizer, CharTokenizer):
            known = set(self.tokenizer.characters)
            for part in self.text.pieces() if self.whole else self.documents:
                if not known.issuperset(part):
                    self.tokenizer.ids(part)

    def __iter__(self) -> Iterator[tuple[str, int, Iterator[list[int]]]]:
        """Yield of each document its text, '' where it is one stream, its number of characters, and its windows."""
        if self.whole:
            starts = range(0, len(self.stream) - 1, self.block_size)
            first = self.tokenizer.text(list(self.stream[:1]))  # which nothing predicts
            yield "", len(self.text) - len(first), (list(self.stream[start : start + self.block_size + 1]) for start in starts)
            return
        for document in self.documents:
            yield document, len(document), windows(self.tokenizer.encode(document), self.block_size)


def evaluate(args: argparse.Namespace) -> None:
    """Print the figures that `args` ask for."""
    model, tokenizer, settings = load(args.model)
    if args.documents and settings.format == "text":
        raise ValueError("--documents is for models of documents, this one learnt one text")
    name = " ".join(map(data.named, args.data))
    parts = Parts(args.data, tokenizer, settings, model.config.block_size)
    with of_text(name):
        parts.check_known()
    total, predictions, characters = 0.0, 0, 0
    with bar(parts.n_windows, 0, "windows" if parts.whole else "documents", quiet=args.quiet) as shown:
        for text, length, pieces in parts if parts.whole else shown.each(parts):
            with of_text(name):
                nats, n = nats_of(model, shown.each(pieces) if parts.whole else pieces)
            total, predictions, characters = total + nats, predictions + n, characters + length
            if args.documents:
                with shown.aside():
                    print_one(measured(nats, n, length), text, as_json=args.json)
    if not predictions:
        raise ValueError(f"{name}: there is nothing to predict in it")
    figures = measured(total, predictions, characters)
    if args.json:
        say(json.dumps(as_json(figures)))
        return
    bits = f"{figures['bits_per_character']:.4f} bits per character"
    say(f"loss {figures['loss']:.4f} nats, perplexity {figures['perplexity']:.4f}, {bits}")
    what = "" if parts.whole else f" in {len(parts.documents)} documents"
    say(f"{predictions} predictions of {characters} characters{what}")


@contextmanager
def of_text(name: str) -> Iterator[None]:
    """Say of every error within which text it is about."""
    try:
        yield
    except (ArithmeticError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def print_one(figures: dict[str, float | int], text: str, *, as_json: bool) -> None:
    """Print the figures of one document."""
    if as_json:
        say(json.dumps({**figures, "document": text}))
    else:
        print_document(f"{figures['loss']:.4f}\t{printable(text)}")


def as_json(figures: dict[str, float | int]) -> dict[str, Any]:
    """Return the figures, with null for infinity, which JSON has not."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(build_parser, evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
