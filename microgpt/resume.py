"""Training runs in checkpoints: all it takes to go on as if nothing had been in between."""

from __future__ import annotations

import math
import os
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from microgpt import checkpoint
from microgpt.data import DATASETS, characters_of
from microgpt.files import Known
from microgpt.model import GPT, config_of
from microgpt.ranges import Real, Whole
from microgpt.settings import FIELDS, READING, Settings
from microgpt.text import Documents, Text
from microgpt.tokenizer import CharTokenizer, tokenizer_in
from microgpt.trainer import Phase, Trainer

PARTS = ("step", "finished", "settings", "source", "validations", "random", "phases")  # of the metadata's entry `training`
FINITE = Real(-math.inf)
WORD = Whole(0, 2**32 - 1)  # of the state of a Mersenne Twister


@dataclass(frozen=True)
class Source:
    """Where the text of a run came from, and what tells it from others. ValueError for what cannot be that."""

    data: tuple[str, ...] | None  # --data
    dataset: str | None  # --dataset
    documents: int  # or characters, of a text
    sha256: str  # fingerprint, empty for a run that is not saved

    def __post_init__(self) -> None:
        if self.data is not None and (not self.data or not all(map(is_path, self.data)) or self.dataset is not None):
            raise ValueError(f"data must be paths, and dataset is null then, they are {self.data!r} and {self.dataset!r}")
        if self.dataset is not None and self.dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, it is {self.dataset!r}")
        if self.documents not in Whole(2):
            raise ValueError(f"documents must be {Whole(2)}, it is {self.documents!r}")
        if not isinstance(self.sha256, str) or not re.fullmatch("(?:[0-9a-f]{64})?", self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, it is {self.sha256!r}")

    @classmethod
    def of(cls, data: object, **others: Any) -> Source:
        """Return the source that a file tells of: its data is a list, in older ones a path."""
        return cls(None if data is None else (data,) if isinstance(data, str) else tuple(listed(data)), **others)

    @property
    def name(self) -> str:
        """What errors call the text."""
        return ", ".join(self.data) if self.data is not None else self.dataset or DATASETS[0]


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


def listed(value: object) -> list[Any]:
    """Return a list. ValueError for anything else."""
    if not isinstance(value, list):
        raise ValueError(f"a list is needed, got {value!r}")
    return value


def fingerprint(text: Sequence[str] | Text) -> str:
    """Return the SHA-256 of a text, or of documents in order, a line each, in hexadecimal."""
    return (text if isinstance(text, Documents | Text) else Documents(text)).fingerprint()


class NotFiniteError(ValueError):
    """A run that diverged is not worth a file."""


def save(path: str, trainer: Trainer, source: Source, known: Known | None = None) -> None:
    """Write the run to a checkpoint, which `GPT.load` can read as well.

    Beside the weights it holds adam.m.NAME and adam.v.NAME for each, the loss of every step, and as metadata what else the run
    depends on. `known`: what stood at `path` when this process last looked.
    Errors: OSError if the file cannot be written, FileReplacedError if another stands there by now; ValueError if the optimizer
    does not train the model, or the learning rate was set on the way, NotFiniteError if weights or moments are infinite or nan.
    The file is then as before.
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
    for name in tensors:
        if not checkpoint.is_finite(tensors[name]):
            raise NotFiniteError(f"{name} is not finite after step {len(trainer.losses)}")
    if trainer.losses:
        tensors["training.losses"] = (len(trainer.losses),), trainer.losses
    metadata["training"] = {
        "step": len(trainer.losses),
        "finished": trainer.finished,
        "settings": asdict(trainer.settings),
        "source": asdict(source),
        "validations": list(trainer.validations.items()),
        "random": trainer.rng.getstate(),
        "phases": trainer.phases,
    }
    checkpoint.write(path, tensors, metadata, known)


def save_best(path: str, trainer: Trainer, known: Known) -> None:
    """Write the model with the best validation so far, how its text is read, and what that validation was. Errors: as `save`."""
    tensors, metadata = trainer.model.to_checkpoint(trainer.tokenizer)
    metadata["text"] = {name: getattr(trainer.settings, name) for name in READING}
    metadata["best"] = {"step": trainer.best_step, "validation": trainer.validations[trainer.best_step]}
    checkpoint.write(path, tensors, metadata, known)


def load(path: str) -> Saved:
    """Return the run that `save` wrote, as far as it can be judged without its documents: nothing is built.

    Errors: OSError if the file cannot be read; ValueError, `path` in it, unless it is such a run.
    """
    tensors, metadata = checkpoint.read(path)
    training = metadata.get("training")
    if training is None:
        raise ValueError(f"{path} holds a model but no training run to resume")
    with checkpoint.refusals(path):
        check_keys("its training run", training, PARTS, later=["phases"])
        later = [name for name, field in FIELDS.items() if field.metadata["later"]]
        check_keys("settings", training["settings"], list(FIELDS), later)
        settings = Settings(**training["settings"])
        check_keys("source", training["source"], [field.name for field in fields(Source)])
        source = Source.of(**training["source"])
        config = config_of(metadata)
        for name in ("n_layer", "n_embd", "n_head", "block_size"):
            if getattr(config, name) != getattr(settings, name):
                raise ValueError(f"its {name} is {getattr(config, name)} in config, {getattr(settings, name)} in settings")
        check_progress(training, settings)
        phases_of(training, settings)
        check_random(training["random"])
        check_tensors(tensors, training["step"])
    return Saved(path, settings, source, tensors, metadata)


def check_keys(what: str, value: object, names: Sequence[str], later: Sequence[str] = ()) -> None:
    """Raise ValueError unless `value` is a JSON object that holds `names` and nothing else. It may lack those in `later`."""
    if not isinstance(value, dict) or not set(names) - set(later) <= value.keys() <= set(names):
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


def phases_of(training: Mapping[str, Any], settings: Settings) -> list[Phase]:
    """Return the phases of a saved run. ValueError unless they can be those of a run of `settings`."""
    told = training.get("phases", [[0, settings.steps, settings.learning_rate]])
    phases: list[Phase] = []
    for phase in listed(told):
        start = Whole(phases[-1].start + 1, training["step"]) if phases else Whole(0, 0)
        ranges = (start, FIELDS["steps"].metadata["allowed"], FIELDS["learning_rate"].metadata["allowed"])
        if len(listed(phase)) != 3 or not all(value in allowed for value, allowed in zip(phase, ranges, strict=True)):
            raise ValueError(f"a phase must be a later step, a number of steps and a learning rate, it is {phase!r}")
        phases.append(Phase(*phase))
    if not phases or phases[-1][1:] != (settings.steps, settings.learning_rate):
        raise ValueError(f"the last of its phases must be that of its settings, they are {told!r}")
    return phases


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
        checkpoint.check_finite(tensors, name)
        if name.startswith("adam.v.") and min(tensors[name][1]) < 0:
            raise ValueError(f"{name} holds numbers below 0, it is a mean of squares")


def restore(saved: Saved, settings: Settings, text: Documents | list[str] | Text) -> Trainer:
    """Return the run where it was saved, on the same text. `settings`: the saved ones, but for what may change.

    Errors: ValueError if the run does not fit text or settings. No model is built before it is known to have their sizes.
    """
    training = saved.metadata["training"]
    with checkpoint.refusals(saved.path):
        tokenizer = tokenizer_in(saved.metadata)
        if isinstance(tokenizer, CharTokenizer) and not characters_of(text) <= set(tokenizer.characters):
            raise ValueError("its vocabulary is not that of its text")
        for name in saved.tensors:
            checkpoint.check_finite(saved.tensors, name)
        trainer = Trainer(settings, text, GPT.from_checkpoint(saved.tensors, saved.metadata), tokenizer)
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
        trainer.phases = goes_on(phases_of(training, saved.settings), training["step"], settings)
        version, state, gauss_next = training["random"]
        trainer.rng.setstate((version, tuple(state), gauss_next))
    return trainer


def goes_on(phases: list[Phase], step: int, settings: Settings) -> list[Phase]:
    """Return the phases of a run that goes on at `step` with these settings: one more where the rates are others from here on."""
    last = Phase(step, settings.steps, settings.learning_rate)
    if phases[-1].learning_rate == last.learning_rate and (settings.schedule == "constant" or phases[-1].steps == last.steps):
        last = phases[-1]._replace(steps=settings.steps)
    return [phase for phase in phases if phase.start < last.start] + [last]
