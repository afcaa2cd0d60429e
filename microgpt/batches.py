"""What a run learns from: documents, whole or in windows, or a text of which windows are drawn; and what it holds out."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from microgpt.settings import MAX_VALIDATED, Settings
from microgpt.text import Documents, Text
from microgpt.tokenizer import Tokenizer


class DocumentBatches:
    """Documents, shuffled in place by `rng`; the last of them, the share `settings.validation`, are held out.

    A step takes the next ones, round and round. With `settings.long` "windows" a long document is several, one after the other,
    of block_size predictions each and a last one of what is left; what is held out is still whole documents.
    Errors: ValueError unless at least two documents and a whole batch are left to train on.
    """

    def __init__(self, documents: Documents | list[str], tokenizer: Tokenizer, settings: Settings, rng: random.Random) -> None:
        if isinstance(documents, Documents):
            documents.shuffle(rng)
        else:
            rng.shuffle(documents)
        self.documents = documents
        self.tokenizer = tokenizer
        self.settings = settings
        held_out = max(1, round(settings.validation * len(documents))) if settings.validation else 0
        self.n_training = len(documents) - held_out
        if held_out and self.n_training < 2:
            share = f"--validation {settings.validation}"
            raise ValueError(f"{share} holds out {held_out} of {len(documents)} documents, at least 2 must be left to train on")
        # With windows: how many there are of all documents up to each one.
        self._ends = array("Q", accumulate(map(self._n_windows, range(self.n_training)))) if settings.long == "windows" else None
        parts, what = (self.n_training, "documents") if self._ends is None else (self._ends[-1], "windows")
        if settings.batch_size > parts:
            raise ValueError(f"--batch-size {settings.batch_size} is more than the {parts} {what} to train on")

    def _n_windows(self, i: int) -> int:
        predictions = len(self.tokenizer.encode(self.documents[i])) - 1
        return -(-predictions // self.settings.block_size)

    def _part(self, i: int) -> list[int]:
        """Return the tokens of the document or window `i`, counted round and round."""
        block_size = self.settings.block_size
        if self._ends is None:
            return self.tokenizer.beginning(self.documents[i % self.n_training], block_size + 1)
        i %= self._ends[-1]
        document = bisect_right(self._ends, i)
        start = (i - (self._ends[document - 1] if document else 0)) * block_size
        return self.tokenizer.encode(self.documents[document])[start : start + block_size + 1]

    def batch(self, step: int, _: random.Random) -> list[list[int]]:
        """Return the tokens of each document or window of `step`, counted from 0."""
        size = self.settings.batch_size
        return [self._part(i) for i in range(step * size, step * size + size)]

    def positions(self, step: int) -> int:
        """Return how many predictions `step` makes."""
        return sum(len(tokens) - 1 for tokens in self.batch(step, random.Random()))

    def held_out(self) -> Iterator[list[int]]:
        """Yield the tokens of the held-out documents, or of their windows, the first MAX_VALIDATED of them if there are more."""
        documents = (self.documents[i] for i in range(self.n_training, len(self.documents)))
        parts = (part for document in documents for part in self._parts_of(document))
        for _, part in zip(range(MAX_VALIDATED), parts):  # noqa: B905  # whichever ends first
            yield part

    def _parts_of(self, document: str) -> Iterator[list[int]]:
        block_size = self.settings.block_size
        if self._ends is None:
            yield self.tokenizer.beginning(document, block_size + 1)
        else:
            yield from windows(self.tokenizer.encode(document), block_size)


class TextBatches:
    """Windows of one text, block_size predictions each, drawn anew in every step; the end of it, the share
    `settings.validation`, is held out.

    Errors: ValueError for a text without room for a window, or for two that differ.
    """

    def __init__(self, text: Text, tokenizer: Tokenizer, settings: Settings) -> None:
        self.stream = tokenizer.stream(text)
        self.settings = settings
        size = len(self.stream)
        held_out = max(settings.block_size + 1, round(settings.validation * size)) if settings.validation else 0
        self.n_training = size - held_out
        if self.n_training < settings.block_size + 1:
            of = f" beside the {held_out} to hold out" if held_out else ""
            raise ValueError(
                f"--block-size {settings.block_size} needs a text of at least {settings.block_size + 1} tokens{of}, "
                f"this one has {size}"
            )

    def _window(self, start: int) -> list[int]:
        return list(self.stream[start : start + self.settings.block_size + 1])

    def batch(self, _: int, rng: random.Random) -> list[list[int]]:
        """Return the tokens of each window of a step. One draw from `rng` for each."""
        starts = [rng.randrange(self.n_training - self.settings.block_size) for _ in range(self.settings.batch_size)]
        return [self._window(start) for start in starts]

    def positions(self, _: int) -> int:
        """Return how many predictions a step makes."""
        return self.settings.batch_size * self.settings.block_size

    def held_out(self) -> Iterator[list[int]]:
        """Yield windows of the held-out text, one after the other, or MAX_VALIDATED at even distances if that would be more."""
        room = len(self.stream) - self.n_training - 1 - self.settings.block_size  # of the start of a window
        count = min(MAX_VALIDATED, 1 + room // self.settings.block_size)
        for i in range(count):
            yield self._window(self.n_training + i * room // max(1, count - 1))


Batches = DocumentBatches | TextBatches


def windows(tokens: Sequence[int], block_size: int) -> Iterator[list[int]]:
    """Yield tokens in pieces of block_size predictions, the last one of what is left: each begins where the one before ends."""
    for start in range(0, len(tokens) - 1, block_size):
        yield list(tokens[start : start + block_size + 1])


def batches_of(text: Documents | list[str] | Text, tokenizer: Tokenizer, settings: Settings, rng: random.Random) -> Batches:
    """Return what a run of `settings` learns from."""
    if isinstance(text, Text):
        return TextBatches(text, tokenizer, settings)
    return DocumentBatches(text, tokenizer, settings, rng)
