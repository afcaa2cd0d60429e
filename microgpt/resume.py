"""Training runs in checkpoints: all it takes to go on as if nothing had been in between."""

from __future__ import annotations

import hashlib
import math
import os
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from microgpt import checkpoint
from microgpt.data import DATASETS
from microgpt.model import GPT, config_of
from microgpt.ranges import Real, Whole
from microgpt.tokenizer import CharTokenizer
from microgpt.trainer import Settings, Trainer

PARTS = ("step", "finished", "settings", "source", "validations", "random")  # of the metadata's entry `training`
FINITE = Real(-math.inf)
WORD = Whole(0, 2**32 - 1)  # of the state of a Mersenne Twister


@dataclass(frozen=True)
class Source:
    """Where the documents of a run came from, and what tells them from others. ValueError for what cannot be that."""

    data: str | None  # --data
    dataset: str | None  # --dataset
    documents: int
    sha256: str  # fingerprint, empty for a run that is not saved

    def __post_init__(self) -> None:
        if self.data is not None and (not is_path(self.data) or self.dataset is not None):
            raise ValueError(f"data must be a path, and dataset is null then, they are {self.data!r} and {self.dataset!r}")
        if self.dataset is not None and self.dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, it is {self.dataset!r}")
        if self.documents not in Whole(2):
            raise ValueError(f"documents must be {Whole(2)}, it is {self.documents!r}")
        if not isinstance(self.sha256, str) or not re.fullmatch("(?:[0-9a-f]{64})?", self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, it is {self.sha256!r}")


class Saved(NamedTuple):
    """A training run as it was written."""

    path: str
    settings: Settings
    source: Source
    tensors: dict[str, checkpoint.Tensor]
    metadata: dict[str, Any]


def is_path(value: object) -> bool:
    """Return whether `value` can name a file: the system takes no other, and a number would be an open file of this process."""
    try:
        return isinstance(value, str) and value != "" and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


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
    optimizer does not train the model, or the learning rate was changed on the way.
    """
    trainer.check_optimizer()
    if trainer.rates:
        raise ValueError(f"the learning rate was changed after step {trainer.rates[0][0]}: no settings describe such a run")
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
    """Return the run that `save` wrote, as far as it can be judged without its documents: nothing is built.

    Errors: OSError if the file cannot be read; ValueError, `path` in it, unless it is such a run.
    """
    tensors, metadata = checkpoint.read(path)
    training = metadata.get("training")
    if training is None:
        raise ValueError(f"{path} holds a model but no training run to resume")
    with checkpoint.refusals(path):
        check_keys("its training run", training, PARTS)
        check_keys("settings", training["settings"], [field.name for field in fields(Settings)])
        settings = Settings(**training["settings"])
        check_keys("source", training["source"], [field.name for field in fields(Source)])
        source = Source(**training["source"])
        config = config_of(metadata)
        for name in ("n_layer", "n_embd", "n_head", "block_size"):
            if getattr(config, name) != getattr(settings, name):
                raise ValueError(f"its {name} is {getattr(config, name)} in config, {getattr(settings, name)} in settings")
        check_progress(training, settings)
        check_random(training["random"])
        check_tensors(tensors, training["step"])
    return Saved(path, settings, source, tensors, metadata)


def check_keys(what: str, value: object, names: Sequence[str]) -> None:
    """Raise ValueError unless `value` is a JSON object that holds `names` and nothing else."""
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ValueError(f"{what} must hold {', '.join(names)}, it is {value!r}")


def check_progress(training: dict[str, Any], settings: Settings) -> None:
    """Raise ValueError unless a run of `settings` can have come to this step with these validations."""
    step, finished, validations = training["step"], training["finished"], training["validations"]
    if step not in Whole(0, settings.steps):
        raise ValueError(f"step must be {Whole(0, settings.steps)}, it is {step!r}")
    if not isinstance(finished, bool) or (finished != (step == settings.steps) and settings.patience is None):
        raise ValueError(f"finished is {finished!r} at step {step} of {settings.steps}")
    if not isinstance(validations, list) or (validations and not settings.validation):
        raise ValueError(f"validations must be a list, empty without --validation, it is {validations!r}")
    last = 0
    for entry in validations:
        if not isinstance(entry, list) or len(entry) != 2 or entry[0] not in Whole(last + 1, step) or entry[1] not in FINITE:
            raise ValueError(f"a validation must be a later step, up to {step}, and a finite loss, it is {entry!r}")
        last = entry[0]


def check_random(state: object) -> None:
    """Raise ValueError unless `state` is one of `random.Random`, as JSON has it."""
    if isinstance(state, list) and len(state) == 3:
        version, words, gauss_next = state
        known = version in Whole(3, 3) and isinstance(words, list) and len(words) == 625 and words[-1] in Whole(0, 624)
        if known and all(word in WORD for word in words[:-1]) and (gauss_next is None or gauss_next in FINITE):
            return
    raise ValueError("random is no state of Python's random.Random")


def check_tensors(tensors: Mapping[str, checkpoint.Tensor], step: int) -> None:
    """Raise ValueError unless each weight has its moments, each step its loss, and their numbers can be those of a run."""
    weights = [name for name in tensors if not name.startswith(("adam.", "training."))]
    needed = {f"adam.{moment}.{name}": tensors[name][0] for moment in ("m", "v") for name in weights}
    if step:
        needed["training.losses"] = (step,)
    for name in tensors.keys() - needed.keys() - set(weights):
        raise ValueError(f"a run of its sizes and steps has no {name}")
    for name, shape in needed.items():
        if name not in tensors:
            raise ValueError(f"{name} is missing")
        if tensors[name][0] != shape:
            raise ValueError(f"{name} must have shape {shape}, it has {tensors[name][0]}")
    for name in needed:
        check_finite(tensors, name)
        if name.startswith("adam.v.") and min(tensors[name][1]) < 0:
            raise ValueError(f"{name} holds numbers below 0, it is a mean of squares")


def check_finite(tensors: Mapping[str, checkpoint.Tensor], name: str) -> None:
    """Raise ValueError if the tensor holds infinity or nan."""
    if not all(map(math.isfinite, tensors[name][1])):
        raise ValueError(f"{name} holds numbers that are not finite")


def restore(saved: Saved, settings: Settings, documents: list[str]) -> Trainer:
    """Return the run where it was saved, on the same documents. `settings`: the saved ones, but for what may change.

    Errors: ValueError if the run does not fit documents or settings. No model is built before it is known to have their sizes.
    """
    training = saved.metadata["training"]
    with checkpoint.refusals(saved.path):
        if CharTokenizer.from_checkpoint(saved.metadata).characters != CharTokenizer(documents).characters:
            raise ValueError("its vocabulary is not that of its documents")
        for name in saved.tensors:
            check_finite(saved.tensors, name)  # of a run that diverged in its last step the weights are not
        trainer = Trainer(settings, documents, GPT.from_checkpoint(saved.tensors, saved.metadata))
        for moment in ("m", "v"):
            values = array("d")
            for name in trainer.model.own_matrices():
                values.extend(saved.tensors[f"adam.{moment}.{name}"][1])
            setattr(trainer.optimizer, moment, values)
        if training["step"]:
            trainer.losses = saved.tensors["training.losses"][1]
        trainer.optimizer.steps = training["step"]
        for step, loss in training["validations"]:
            # A run that was given more steps since then has not validated where it ended before.
            if step % settings.validation_every == 0 or step == settings.steps:
                trainer.record_validation(step, loss)
        version, state, gauss_next = training["random"]
        trainer.rng.setstate((version, tuple(state), gauss_next))
    return trainer
