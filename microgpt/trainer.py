"""A training run, step by step: batches, validation, and what both measured."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from microgpt._value import Value
from microgpt.batches import batches_of
from microgpt.data import characters_of
from microgpt.initial import Initial
from microgpt.model import GPT, Dropout, GPTConfig
from microgpt.optim import Adam
from microgpt.schedule import learning_rate
from microgpt.settings import Settings
from microgpt.text import Documents, Text
from microgpt.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer


class Phase(NamedTuple):
    """From `start` on, counted from 0, the rates are those of a run of `steps` with the highest rate `learning_rate`."""

    start: int
    steps: int
    learning_rate: float


class Snapshot(NamedTuple):
    """A run as it was."""

    weights: list[list[list[float]]]  # of each matrix, row by row
    m: array[float]
    v: array[float]
    steps: int
    validations: dict[int, float]
    best: tuple[int, int]  # best_step and waited
    random: Any


class Trainer:
    """A GPT in training.

    `text`: documents, which are shuffled in place, or a Text where `settings.format` is "text". `tokenizer`: that of the settings
    by default, whose vocabulary are the characters of the text. `model`: one to go on with, of the sizes that settings and
    tokenizer make; a new one by default. `initial`: the model and vocabulary to start a new one from.
    `losses`: of every step so far. `validations`: the loss of the held-out text by the number of steps made. `best_step`:
    where that was lowest, 0 before there is one. `waited`: validations since then. `phases`: one, and one more for every time
    that steps were added or the rate was lowered on the way. `rates`: learning rates set on the way, each after the step from
    which it holds. `before_update`: called with the trainer in each step between backward and Adam, when the gradients are
    complete, and clipped; None for nobody. It may look, not write.
    Errors: ValueError unless the text has enough to train on, and for a model of other sizes.
    """

    def __init__(
        self,
        settings: Settings,
        text: Documents | list[str] | Text,
        model: GPT | None = None,
        tokenizer: Tokenizer | None = None,
        initial: Initial | None = None,
    ) -> None:
        self.settings = settings
        self.rng = random.Random(settings.seed)
        self.text = text
        self.tokenizer = tokenizer or new_tokenizer(settings.tokenizer, text)
        if initial is not None:
            self.tokenizer = initial.extended(self.tokenizer)
        self.batches = batches_of(text, self.tokenizer, settings, self.rng)
        config = GPTConfig(self.tokenizer.vocab_size, settings.n_layer, settings.n_embd, settings.n_head, settings.block_size)
        if model is None:
            model = GPT(config, self.rng) if initial is None else initial.grown(self.tokenizer, self.rng)
            if settings.tie_weights:
                model.lm_head = model.wte
        if model.config != config:
            raise ValueError(f"its sizes are {model.config}, its settings and documents make {config}")
        if settings.tie_weights and model.lm_head is not model.wte:
            raise ValueError("its settings say --tie-weights, its lm_head is not its wte")
        self._model = model
        self.optimizer = Adam(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        self.losses = array("d")
        self.validations: dict[int, float] = {}
        self.best_step = 0
        self.waited = 0
        self.phases = [Phase(0, settings.steps, settings.learning_rate)]
        self.rates: list[tuple[int, float]] = []
        self.before_update: Callable[[Trainer], object] | None = None

    @property
    def model(self) -> GPT:
        """The model in training."""
        return self._model

    def check_optimizer(self) -> None:
        """Raise ValueError unless the optimizer trains the model, as the settings say, and has made the steps of the run."""
        optimizer, start = self.optimizer, 0
        for matrix in self.model.own_matrices().values():
            # The leaves of a Matrix follow each other and are its own: the first stands for them all.
            if start >= len(optimizer.parameters) or optimizer.parameters[start] is not matrix[0][0]:
                raise ValueError("the optimizer trains other parameters than the model's")
            start += matrix.shape[0] * matrix.shape[1]
        made = Adam([Value(0.0)], self.settings.learning_rate, weight_decay=self.settings.weight_decay)
        for name in ("betas", "eps", "weight_decay"):
            if getattr(optimizer, name) != getattr(made, name):
                raise ValueError(f"the optimizer has {name} {getattr(optimizer, name)}, the run {getattr(made, name)}")
        sizes = {"parameters": len(optimizer.parameters), "m": len(optimizer.m), "v": len(optimizer.v)}
        if set(sizes.values()) != {start} or optimizer.steps != len(self.losses):
            raise ValueError(
                f"the run has {start} parameters and has made {len(self.losses)} steps, its optimizer has {sizes} and "
                f"has made {optimizer.steps}"
            )

    @property
    def finished(self) -> bool:
        """Whether all steps are made, or the validation loss has not improved for long enough."""
        return len(self.losses) >= self.settings.steps or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Whether the validation loss has not improved for `settings.patience` validations."""
        return self.settings.patience is not None and self.waited >= self.settings.patience

    def rate_at(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0."""
        phase = next(phase for phase in reversed(self.phases) if phase.start <= step)
        highest = phase.learning_rate
        for first, rate in self.rates:
            highest = rate if first <= step else highest
        return learning_rate(self.settings.schedule, highest, step, phase.steps, self.settings.warmup)

    def set_learning_rate(self, rate: float) -> None:
        """Let `rate` be the highest learning rate, of which the schedule takes its share, from the next step on.

        The run is no longer the one that its settings describe. ValueError for a rate that settings would refuse.
        """
        replace(self.settings, learning_rate=rate)
        self.rates.append((len(self.losses), rate))

    def train_step(self) -> float:
        """Train on the next batch, validate where that is due, and return the mean loss of the batch before.

        Errors: ArithmeticError or ValueError where the numbers have left the range of floats. The run cannot go on then: see
        `go_back`.
        """
        settings, step = self.settings, len(self.losses)
        drawn = self.rng.getstate() if settings.format == "text" or settings.dropout else None
        try:
            loss = self._learn(self.batches.batch(step, self.rng))
            if self.before_update is not None:
                self.before_update(self)
            self.optimizer.step(self.rate_at(step))
        except BaseException:
            if drawn is not None:
                self.rng.setstate(drawn)
            raise
        self.losses.append(loss)
        step += 1
        if settings.validation and (step % settings.validation_every == 0 or step == settings.steps):
            self.record_validation(step, self.validation_loss())
        return loss

    def _learn(self, batch: Sequence[Sequence[int]]) -> float:
        """Fill in the gradients of the mean loss of the batch, which is returned."""
        # Each document has the masks of a generator of its own, so that they may be drawn in any order.
        seeds = [self.rng.getrandbits(64) if self.settings.dropout else None for _ in batch]
        # One document's graph at a time, the last one first. Backward over a graph of the whole batch would go through the
        # documents in that order, too, so every gradient is the same sum, and memory holds one document.
        parts = [self._add_gradients(tokens, seed, 1 / len(batch)) for tokens, seed in zip(batch[::-1], seeds[::-1], strict=True)]
        if self.settings.clip_grad is not None:
            self.optimizer.clip_grad_norm(self.settings.clip_grad)
        return mean(parts[::-1])

    def _add_gradients(self, tokens: Sequence[int], seed: int | None, weight: float) -> float:
        """Add the gradients of `weight` times the loss of `tokens`, which is returned. The graph is gone then."""
        dropout = None if seed is None else Dropout(self.settings.dropout, random.Random(seed))
        loss = self._model.loss(tokens, label_smoothing=self.settings.label_smoothing, dropout=dropout)
        check_finite(loss.data)
        (loss if weight == 1 else weight * loss).backward()
        return loss.data

    def validation_loss(self) -> float:
        """Return the mean loss of what is held out, without dropout and label smoothing; of MAX_VALIDATED parts if it is more."""
        loss = mean([self._model.loss(tokens).data for tokens in self.batches.held_out()])
        check_finite(loss)
        return loss

    def snapshot(self) -> Snapshot:
        """Return what it takes to go back to this step."""
        weights = [matrix.data for matrix in self.model.own_matrices().values()]
        moments = self.optimizer.m[:], self.optimizer.v[:]
        best = self.best_step, self.waited
        return Snapshot(weights, *moments, len(self.losses), dict(self.validations), best, self.rng.getstate())

    def go_back(self, snapshot: Snapshot) -> None:
        """Be again as at the time of the snapshot."""
        for matrix, data in zip(self.model.own_matrices().values(), snapshot.weights, strict=True):
            matrix.data = data
        self.optimizer.m, self.optimizer.v, self.optimizer.steps = snapshot.m[:], snapshot.v[:], snapshot.steps
        self.optimizer.zero_grad()
        self.losses = self.losses[: snapshot.steps]
        self.validations = dict(snapshot.validations)
        self.best_step, self.waited = snapshot.best
        self.rng.setstate(snapshot.random)

    def record_validation(self, step: int, loss: float) -> None:
        """Note a validation loss and whether it is the best so far; of equal ones the first is."""
        if not self.validations or loss < self.validations[self.best_step]:
            self.best_step, self.waited = step, 0
        else:
            self.waited += 1
        self.validations[step] = loss


def new_tokenizer(kind: str, text: Documents | list[str] | Text) -> Tokenizer:
    """Return the tokenizer that a setting names, for a text. OSError or ValueError for a file that is none."""
    if kind == "characters":
        return CharTokenizer(["".join(characters_of(text))])
    if kind == "bytes":
        return ByteTokenizer()
    from microgpt.bpe import BPETokenizer  # here, because only runs with such a file need it

    return BPETokenizer.of_file(kind)


def mean(losses: Sequence[float]) -> float:
    """Return the mean as the reference computes it, added left to right. (The built-in sum of floats corrects its roundings.)"""
    total = 0.0
    for loss in losses:
        total += loss
    return (1 / len(losses)) * total


def check_finite(loss: float) -> None:
    """Raise ArithmeticError unless `loss` is finite."""
    if not math.isfinite(loss):
        raise ArithmeticError(f"the loss is {loss}")
