"""Trainer: every setting against the twin to the last bit, and a run resumed after any step against the straight one."""

from __future__ import annotations

import copy
import gc
import itertools
import math
import pickle
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from microgpt import GPT, Adam, GPTConfig, Matrix, data, generate, reference, resume
from microgpt.schedule import SCHEDULES, learning_rate
from microgpt.trainer import MAX_VALIDATED, Settings, Trainer

SMALL: dict[str, Any] = {"n_embd": 4, "n_head": 2, "block_size": 6, "samples": 3}
NAMES = data.load_names()[:60]
SOURCE = resume.Source(None, "names", len(NAMES), "")
GREEK = ["αβγ", "δ", "ααβ βγ", "γδδδδδδδδδδδδδδ", "🙂β", "é", "ba", "ab"]

CONFIGURATIONS: list[dict[str, Any]] = [
    {"batch_size": 2, "steps": 12},
    {"batch_size": 7, "steps": 8, "n_layer": 2, "seed": 7},
    {"validation": 0.3, "validation_every": 4, "steps": 10},
    {"validation": 1e-9, "steps": 5},
    {"weight_decay": 0.3, "steps": 20},
    {"clip_grad": 0.5, "steps": 20},
    {"schedule": "cosine", "steps": 20},
    {"schedule": "constant", "steps": 20, "warmup": 20},
    {"schedule": "linear", "steps": 20, "warmup": 5},
    {"schedule": "cosine", "warmup": 1, "steps": 2},
    {"validation": 0.5, "validation_every": 1, "patience": 2, "learning_rate": 0.3, "schedule": "constant", "steps": 40},
    {"validation": 0.3, "validation_every": 2, "patience": 3, "learning_rate": 1e-300, "steps": 40},
    {
        "batch_size": 3, "validation": 0.2, "validation_every": 5, "patience": 2, "weight_decay": 0.1, "clip_grad": 1.0,
        "schedule": "cosine", "warmup": 4, "steps": 24, "n_layer": 2, "seed": 3, "learning_rate": 0.05,
    },
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    """The cyclic collector takes more than half of the twin's time and finds nothing."""
    gc.disable()
    yield
    gc.enable()


def bits(numbers: Iterable[float]) -> list[str]:
    return [x.hex() for x in numbers]


def state(trainer: Trainer) -> dict[str, Any]:
    """All that a run has made."""
    rng = random.Random()
    rng.setstate(trainer.rng.getstate())
    model, tokenizer, settings = trainer.model, trainer.tokenizer, trainer.settings
    return {
        "parameters": bits(p.data for p in model.parameters()),
        "m": bits(trainer.optimizer.m),
        "v": bits(trainer.optimizer.v),
        "losses": bits(trainer.losses),
        "validations": list(trainer.validations.items()),
        "best": (trainer.best_step, trainer.waited),
        "samples": [generate(model, tokenizer, rng, temperature=settings.temperature) for _ in range(settings.samples)],
    }


def finish(trainer: Trainer) -> Trainer:
    while not trainer.finished:
        trainer.step()
    return trainer


@pytest.mark.parametrize("documents", [NAMES, GREEK], ids=["names", "unicode"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_every_setting_equals_reference(documents: list[str], configuration: dict[str, Any]) -> None:
    made = state(finish(Trainer(Settings(**SMALL, **configuration), list(documents))))
    twin = reference.train(documents, **SMALL, **configuration)
    assert made["losses"] == bits(twin.losses)
    assert made["validations"] == list(twin.validations.items())
    assert made["parameters"] == bits(p.data for p in twin.model.parameters())
    assert made["samples"] == twin.samples


def test_patience_ends_a_run_that_does_not_improve() -> None:
    still = Trainer(Settings(**SMALL, validation=0.3, validation_every=2, patience=3, learning_rate=1e-300), list(NAMES))
    finish(still)
    assert list(still.validations) == [2, 4, 6, 8]
    assert (still.best_step, still.waited, still.out_of_patience) == (2, 3, True)  # equal is no better


def test_validation_looks_at_some_of_many_documents() -> None:
    documents = ["ab", "ba", "c"] * MAX_VALIDATED
    trainer = Trainer(Settings(**SMALL, validation=0.5), list(documents))
    held_out = trainer.documents[len(documents) // 2 :][:MAX_VALIDATED]
    assert trainer.n_training == len(documents) // 2
    losses = [trainer.model.loss(trainer.tokenizer.encode(document)).data for document in held_out]
    total = 0.0
    for loss in losses:
        total += loss
    assert trainer.validation_loss() == (1 / MAX_VALIDATED) * total
    assert reference.train(documents, **SMALL, validation=0.5, steps=0).validations == {}
    twin = reference.train(documents, **SMALL, validation=0.5, steps=1)
    assert list(finish(Trainer(Settings(**SMALL, validation=0.5, steps=1), documents)).validations.items()) == [
        *twin.validations.items()
    ]


def test_held_out_documents_are_never_trained_on() -> None:
    trainer = Trainer(Settings(**SMALL, validation=0.3, batch_size=2), list(NAMES))
    assert (trainer.n_training, trainer.tokenizer.characters) == (42, "".join(sorted(set("".join(NAMES)))))
    seen = {document for step in range(100) for document in trainer.batch(step)}
    assert seen == set(trainer.documents[:42])
    assert trainer.batch(0) + trainer.batch(1) == trainer.documents[:4]
    assert trainer.batch(20) + trainer.batch(21) == trainer.documents[40:42] + trainer.documents[:2]


def test_batch_keeps_one_graph_at_a_time() -> None:
    from microgpt._tape import get_tape

    trainer = Trainer(Settings(**SMALL, batch_size=50), list(NAMES))
    nodes, size = get_tape().nodes, get_tape().nbytes
    trainer.step()
    assert get_tape().nodes == nodes
    assert get_tape().nbytes - size < 500_000  # fifty graphs take 2 MB


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"validation": 0.9}, "--validation 0.9 holds out 7 of 8 documents, at least 2 must be left to train on"),
        ({"batch_size": 9}, "--batch-size 9 is more than the 8 documents to train on"),
        ({"batch_size": 5, "validation": 0.5}, "--batch-size 5 is more than the 4 documents"),
    ],
)
def test_too_few_documents_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Trainer(Settings(**SMALL, **settings), list(GREEK))


def test_learning_rate_is_as_documented() -> None:
    for schedule, warmup, steps in itertools.product(SCHEDULES, [0, 1, 7, 40], [40, 100]):
        for step in range(steps):
            t = (step - warmup) / max(1, steps - warmup)
            falling = {"linear": 1 - t, "cosine": (1 + math.cos(math.pi * t)) / 2, "constant": 1.0}[schedule]
            expected = 0.01 * ((step + 1) / warmup) if step < warmup else 0.01 * falling
            assert learning_rate(schedule, 0.01, step, steps, warmup) == pytest.approx(expected, rel=1e-14)
            assert learning_rate(schedule, 0.01, step, steps, warmup) == reference.scheduled(schedule, 0.01, step, steps, warmup)
    assert learning_rate("linear", 0.01, 3, 7) == 0.01 * (1 - 3 / 7)


def test_resume_after_every_step_equals_the_straight_run(tmp_path: Path) -> None:
    path = str(tmp_path / "run.safetensors")
    tried = 0
    for configuration in CONFIGURATIONS:
        settings = Settings(**SMALL, **configuration)
        straight = state(finish(Trainer(settings, list(NAMES))))
        steps = len(straight["losses"])
        for k in range(steps + 1):
            trainer = Trainer(settings, list(NAMES))
            while len(trainer.losses) < k:
                trainer.step()
            resume.save(path, trainer, SOURCE)
            saved = resume.load(path)
            again = resume.restore(saved, saved.settings, list(NAMES))
            assert state(again) == state(trainer)
            assert state(finish(again)) == straight, f"resumed after step {k} of {configuration}"
            tried += 1
    print(f"resumed {tried} runs, after each of their steps")
    assert tried > 150


def test_more_steps_of_a_constant_schedule_equal_the_long_run(tmp_path: Path) -> None:
    path = str(tmp_path / "run.safetensors")
    settings: dict[str, Any] = {**SMALL, "schedule": "constant", "validation": 0.2, "validation_every": 4, "warmup": 3}
    straight = state(finish(Trainer(Settings(**settings, steps=21), list(NAMES))))
    for steps in range(3, 21):
        resume.save(path, finish(Trainer(Settings(**settings, steps=steps), list(NAMES))), SOURCE)
        again = resume.restore(resume.load(path), Settings(**settings, steps=21), list(NAMES))
        assert state(finish(again)) == straight


def test_random_state_comes_from_the_file(tmp_path: Path) -> None:
    path = str(tmp_path / "run.safetensors")
    trainer = Trainer(Settings(**SMALL), list(NAMES))
    trainer.rng.random()
    resume.save(path, trainer, SOURCE)
    again = resume.restore(resume.load(path), Settings(**SMALL), list(NAMES))
    assert again.rng.getstate() == trainer.rng.getstate()


def test_tied_weights_are_resumed_tied(tmp_path: Path) -> None:
    path = str(tmp_path / "run.safetensors")

    def tied() -> Trainer:
        model = Trainer(Settings(**SMALL, steps=12), list(NAMES)).model
        model.lm_head = model.wte
        return Trainer(Settings(**SMALL, steps=12), list(NAMES), model)

    straight = state(finish(tied()))
    trainer = tied()
    for _ in range(5):
        trainer.step()
    resume.save(path, trainer, SOURCE)
    again = resume.restore(resume.load(path), Settings(**SMALL, steps=12), list(NAMES))
    assert again.model.lm_head is again.model.wte
    assert len(again.optimizer.m) == len(again.model.parameters()) == again.config.n_parameters - len(again.model.wte.data) * 4
    assert state(finish(again)) == straight


CHANGES: dict[str, Any] = {
    "trains other parameters than the model's": lambda t: setattr(t.model, "lm_head", t.model.wte),
    "trains other parameters": lambda t: setattr(t.model, "wpe", Matrix(t.model.wpe.data)),
    "other parameters than the model's": lambda t: setattr(t, "optimizer", Adam(copy.deepcopy(t.model).parameters())),
    "has weight_decay 0.5, the run 0.0": lambda t: setattr(t.optimizer, "weight_decay", 0.5),
    r"has betas \(0.9, 0.99\), the run \(0.85, 0.99\)": lambda t: setattr(t.optimizer, "betas", (0.9, 0.99)),
    "has made 1 steps, its optimizer has .* and has made 2": lambda t: t.optimizer.step(),
    "its optimizer has .*'m': 3": lambda t: setattr(t.optimizer, "m", t.optimizer.m[:3]),
    "lm_head must have shape": lambda t: setattr(t.model, "lm_head", Matrix([[0.0] * 4])),
}


@pytest.mark.parametrize("words", CHANGES)
def test_a_run_whose_optimizer_does_not_train_its_model_is_not_saved(words: str, tmp_path: Path) -> None:
    trainer = Trainer(Settings(**SMALL), list(NAMES))
    trainer.step()
    CHANGES[words](trainer)
    with pytest.raises(ValueError, match=words):
        resume.save(str(tmp_path / "run.safetensors"), trainer, SOURCE)
    assert list(tmp_path.iterdir()) == []


def test_model_and_sizes_of_a_run_are_set_together() -> None:
    trainer = Trainer(Settings(**SMALL), list(NAMES))
    for name in ("model", "config"):
        with pytest.raises(AttributeError, match=name):
            setattr(trainer, name, None)
    with pytest.raises(ValueError, match="its sizes are"):
        Trainer(Settings(**SMALL), list(NAMES), GPT(GPTConfig(trainer.tokenizer.vocab_size, n_embd=8), random.Random(1)))
    model = GPT(trainer.config, random.Random(1))
    assert Trainer(Settings(**SMALL), list(NAMES), model).model is model


@pytest.mark.parametrize("way", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))], ids=["deepcopy", "pickle"])
def test_a_copied_run_goes_on_by_itself(way: Any) -> None:
    trainer = Trainer(Settings(**SMALL, steps=8, validation=0.2, validation_every=3), list(NAMES))
    for _ in range(4):
        trainer.step()
    copied = way(trainer)
    middle = state(trainer)
    finished = state(finish(copied))
    assert state(trainer) == middle
    assert state(finish(trainer)) == finished
