"""A training run, step by step: batches, validation, and what both measured."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from microgpt._value import Value
from microgpt.model import GPT, GPTConfig
from microgpt.optim import Adam
from microgpt.ranges import OneOf, Range, Real, Whole
from microgpt.sampler import MIN_TEMPERATURE
from microgpt.schedule import SCHEDULES, learning_rate
from microgpt.tokenizer import CharTokenizer

MAX_VALIDATED = 200  # documents a validation looks at: it then costs about as much as 50 steps of training
SEED = Whole(0, 2**64 - 1)
TEMPERATURE = Real(MIN_TEMPERATURE, or_zero=True)


def setting(default: Any, allowed: Range) -> Any:
    """Return a field of Settings whose values are those in `allowed`, and None if that is the default."""
    return field(default=default, metadata={"allowed": allowed})


@dataclass(frozen=True)
class Settings:
    """What decides the numbers of a run, beside its documents. The flags of the training command tell what each one means.

    Errors: ValueError for a value that is not allowed, from whatever file, flag or call it comes.
    """

    steps: int = setting(1000, Whole(1))
    seed: int = setting(42, SEED)
    n_layer: int = setting(GPTConfig.n_layer, Whole(1))
    n_embd: int = setting(GPTConfig.n_embd, Whole(1))
    n_head: int = setting(GPTConfig.n_head, Whole(1))
    block_size: int = setting(GPTConfig.block_size, Whole(1))
    batch_size: int = setting(1, Whole(1))
    learning_rate: float = setting(0.01, Real(0, exclusive=True))
    schedule: str = setting("linear", OneOf(SCHEDULES))
    warmup: int = setting(0, Whole(0))
    weight_decay: float = setting(0.0, Real(0))
    clip_grad: float | None = setting(None, Real(0, exclusive=True))
    validation: float = setting(0.0, Real(0, below=1))
    validation_every: int = setting(100, Whole(1))
    patience: int | None = setting(None, Whole(1))
    temperature: float = setting(0.5, TEMPERATURE)
    samples: int = setting(20, Whole(0))

    def __post_init__(self) -> None:
        for option in fields(self):
            value, allowed = getattr(self, option.name), option.metadata["allowed"]
            if value not in allowed and not (value is None and option.default is None):
                raise ValueError(f"{option.name} must be {allowed}, got {value!r}")
        if self.warmup > self.steps:
            raise ValueError(f"--warmup {self.warmup} is more than the {self.steps} steps")
        if self.patience is not None and not self.validation:
            raise ValueError("--patience needs --validation")


class Trainer:
    """A GPT in training.

    `documents` are shuffled in place; the last of them, the share `settings.validation`, are held out. `model`: one to go on
    with, of the sizes that settings and documents make; a new one by default.
    `losses`: of every step so far. `validations`: the loss of the held-out documents by the number of steps made. `best_step`:
    where that was lowest, 0 before there is one. `waited`: validations since then. `rates`: learning rates set on the way,
    each after the step from which it holds. `before_update`: called with the trainer in each step between backward and Adam, when
    the gradients are complete, and clipped; None for nobody. It may look, not write.
    Errors: ValueError unless at least two documents and a whole batch are left to train on, and for a model of other sizes.
    """

    def __init__(self, settings: Settings, documents: list[str], model: GPT | None = None) -> None:
        self.settings = settings
        self.rng = random.Random(settings.seed)
        self.rng.shuffle(documents)
        self.documents = documents
        self.tokenizer = CharTokenizer(documents)
        held_out = max(1, round(settings.validation * len(documents))) if settings.validation else 0
        self.n_training = len(documents) - held_out
        if held_out and self.n_training < 2:
            share = f"--validation {settings.validation}"
            raise ValueError(f"{share} holds out {held_out} of {len(documents)} documents, at least 2 must be left to train on")
        if settings.batch_size > self.n_training:
            raise ValueError(f"--batch-size {settings.batch_size} is more than the {self.n_training} documents to train on")
        config = GPTConfig(self.tokenizer.vocab_size, settings.n_layer, settings.n_embd, settings.n_head, settings.block_size)
        if model is not None and model.config != config:
            raise ValueError(f"its sizes are {model.config}, its settings and documents make {config}")
        self._model = model or GPT(config, self.rng)
        self.optimizer = Adam(self.model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        self.losses = array("d")
        self.validations: dict[int, float] = {}
        self.best_step = 0
        self.waited = 0
        self.rates: list[tuple[int, float]] = []
        self.before_update: Callable[[Trainer], object] | None = None

    @property
    def model(self) -> GPT:
        """The model in training."""
        return self._model

    @property
    def config(self) -> GPTConfig:
        """The sizes of the model."""
        return self._model.config

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

    def batch(self, step: int) -> list[str]:
        """Return the documents of `step`, counted from 0: the next ones, round and round."""
        size = self.settings.batch_size
        return [self.documents[i % self.n_training] for i in range(step * size, step * size + size)]

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0."""
        settings = self.settings
        highest = settings.learning_rate
        for first, rate in self.rates:
            highest = rate if first <= step else highest
        return learning_rate(settings.schedule, highest, step, settings.steps, settings.warmup)

    def set_learning_rate(self, rate: float) -> None:
        """Let `rate` be the highest learning rate, of which the schedule takes its share, from the next step on.

        The run is no longer the one that its settings describe. ValueError for a rate that settings would refuse.
        """
        replace(self.settings, learning_rate=rate)
        self.rates.append((len(self.losses), rate))

    def step(self) -> float:
        """Train on the next batch, validate where that is due, and return the mean loss of the batch before.

        Errors: ArithmeticError or ValueError where the numbers have left the range of floats. The run cannot go on then.
        """
        settings = self.settings
        batch = self.batch(len(self.losses))
        # One document's graph at a time, the last one first. Backward over a graph of the whole batch would go through the
        # documents in that order, too, so every gradient is the same sum, and memory holds one document.
        losses = [self.backward(document, 1 / len(batch)) for document in reversed(batch)]
        loss = mean(losses[::-1])
        if settings.clip_grad is not None:
            self.optimizer.clip_grad_norm(settings.clip_grad)
        if self.before_update is not None:
            self.before_update(self)
        self.optimizer.step(self.learning_rate(len(self.losses)))
        self.losses.append(loss)
        step = len(self.losses)
        if settings.validation and (step % settings.validation_every == 0 or step == settings.steps):
            self.record_validation(step, self.validation_loss())
        return loss

    def backward(self, document: str, weight: float) -> float:
        """Add the gradients of `weight` times the loss of `document`, which is returned. The graph is gone then."""
        loss = self.loss(document)
        check_finite(loss.data)
        (loss if weight == 1 else weight * loss).backward()
        return loss.data

    def loss(self, document: str) -> Value:
        """Return the loss of `document`, of which only as much is encoded as the model has positions for."""
        return self._model.loss(self.tokenizer.encode(document[: self._model.config.block_size]))

    def validation_loss(self) -> float:
        """Return the mean loss of the held-out documents, the first MAX_VALIDATED of them if there are more."""
        documents = self.documents[self.n_training : self.n_training + MAX_VALIDATED]
        loss = mean([self.loss(document).data for document in documents])
        check_finite(loss)
        return loss

    def record_validation(self, step: int, loss: float) -> None:
        """Note a validation loss and whether it is the best so far; of equal ones the first is."""
        if not self.validations or loss < self.validations[self.best_step]:
            self.best_step, self.waited = step, 0
        else:
            self.waited += 1
        self.validations[step] = loss


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
