"""Training runs in checkpoints: all it takes to go on as if nothing had been in between."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from microgpt import checkpoint
from microgpt.model import GPT
from microgpt.trainer import Settings, Trainer


@dataclass(frozen=True)
class Source:
    """Where the documents of a run came from, and what tells them from others."""

    data: str | None  # --data
    dataset: str | None  # --dataset
    documents: int
    sha256: str  # fingerprint


class Saved(NamedTuple):
    """A training run as it was written."""

    path: str
    settings: Settings
    source: Source
    tensors: dict[str, checkpoint.Tensor]
    metadata: dict[str, Any]


def fingerprint(documents: Iterable[str]) -> str:
    """Return the SHA-256 of the documents in order, a line each, in hexadecimal."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.encode() + b"\n")
    return digest.hexdigest()


def save(path: str, trainer: Trainer, source: Source) -> None:
    """Write the run to a checkpoint, which `GPT.load` can read as well.

    Beside the weights it holds adam.m.NAME and adam.v.NAME for each, the loss of every step, and as metadata what else the run
    depends on. Errors: OSError if the file cannot be written, which is then as before; ValueError if the
    optimizer does not train the model.
    """
    trainer.check_optimizer()
    tensors, metadata = trainer.model.to_checkpoint(trainer.tokenizer)
    shapes = {name: shape for name, (shape, _) in tensors.items()}
    for moment in ("m", "v"):
        values: array[float] = getattr(trainer.optimizer, moment)
        start = 0
        for name, (rows, columns) in shapes.items():
            end = start + rows * columns
            tensors[f"adam.{moment}.{name}"] = (rows, columns), values[start:end]
            start = end
    if trainer.losses:
        tensors["training.losses"] = (len(trainer.losses),), trainer.losses
    metadata["training"] = {
        "step": len(trainer.losses),
        "finished": trainer.finished,
        "settings": asdict(trainer.settings),
        "source": asdict(source),
        "validations": list(trainer.validations.items()),
        "random": trainer.rng.getstate(),
    }
    checkpoint.write(path, tensors, metadata)


def load(path: str) -> Saved:
    """Return the run that `save` wrote. OSError if the file cannot be read; ValueError, `path` in it, unless it is such a run."""
    tensors, metadata = checkpoint.read(path)
    training = metadata.get("training")
    if training is None:
        raise ValueError(f"{path} holds a model but no training run to resume")
    with refusals(path):
        if not isinstance(training["finished"], bool):
            raise TypeError(f"finished is {training['finished']!r}")
        return Saved(path, Settings(**training["settings"]), Source(**training["source"]), tensors, metadata)


def restore(trainer: Trainer, saved: Saved) -> None:
    """Bring a fresh `trainer`, on the same documents, to where the saved run was. ValueError if it is a run of other sizes."""
    training = saved.metadata["training"]
    with refusals(saved.path):
        model = GPT.from_checkpoint(saved.tensors, saved.metadata)
        if model.config != trainer.config:
            raise ValueError(f"its sizes are {model.config}, its settings and documents make {trainer.config}")
        trainer.start_from(model)
        for moment in ("m", "v"):
            values = array("d")
            for name in model.own_matrices():
                values.extend(saved.tensors[f"adam.{moment}.{name}"][1])
            needed = len(trainer.optimizer.parameters)
            if len(values) != needed:
                raise ValueError(f"it needs adam.{moment} of {needed} parameters, it has {len(values)}")
            setattr(trainer.optimizer, moment, values)
        trainer.losses = saved.tensors["training.losses"][1] if "training.losses" in saved.tensors else array("d")
        if len(trainer.losses) != training["step"]:
            raise ValueError(f"it needs the losses of {training['step']} steps, it has {len(trainer.losses)}")
        trainer.optimizer.steps = len(trainer.losses)
        for step, loss in training["validations"]:
            # A run that was given more steps since then has not validated where it ended before.
            if step % trainer.settings.validation_every == 0 or step == trainer.settings.steps:
                trainer.record_validation(step, loss)
        version, state, gauss_next = training["random"]
        trainer.rng.setstate((version, tuple(state), gauss_next))


@contextmanager
def refusals(path: str) -> Iterator[None]:
    """Say of every error that comes from what is stored that `path` is not a whole checkpoint."""
    with checkpoint.refusals(path):
        try:
            yield
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(f"its training run makes no sense ({error})") from None
