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

from microgpt import GPT, Adam, CharTokenizer, GPTConfig, Matrix, Value, data, generate, reference, resume
from microgpt.batches import DocumentBatches
from microgpt.sampler import generate_text
from microgpt.schedule import SCHEDULES, learning_rate
from microgpt.settings import MAX_VALIDATED, Settings
from microgpt.text import Text
from microgpt.trainer import Trainer

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
    {"long": "windows", "block_size": 3, "steps": 15},
    {"long": "windows", "block_size": 2, "batch_size": 3, "validation": 0.3, "validation_every": 4, "steps": 9},
    {"tokenizer": "bytes", "steps": 5, "long": "windows", "validation": 0.2},
    {"dropout": 0.3, "steps": 9},
    {"label_smoothing": 0.1, "steps": 9},
    {"tie_weights": True, "steps": 9, "weight_decay": 0.1},
    {
        "dropout": 0.6, "label_smoothing": 0.3, "tie_weights": True, "batch_size": 3, "validation": 0.2, "validation_every": 3,
        "clip_grad": 0.5, "n_layer": 2, "steps": 8,
    },
]  # fmt: skip

PLAY = "KING\n\tWho's there, né 🙂?\n\nFOOL:  Nobody,\tmy lord. \r\n" * 5
TEXT_CONFIGURATIONS: list[dict[str, Any]] = [
    {"steps": 12},
    {"steps": 8, "batch_size": 3, "block_size": 9, "n_layer": 2, "validation": 0.2, "validation_every": 3},
    {"steps": 6, "tokenizer": "bytes", "validation": 0.1, "temperature": 2.0},
    {"steps": 8, "dropout": 0.2, "label_smoothing": 0.1, "tie_weights": True, "batch_size": 2, "clip_grad": 1.0},
    {"steps": 20, "validation": 0.3, "validation_every": 2, "patience": 2, "learning_rate": 1e-300},
]


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

    def draw() -> str:
        if settings.format == "text":
            return generate_text(model, tokenizer, rng, settings.block_size, temperature=settings.temperature)
        return generate(model, tokenizer, rng, temperature=settings.temperature)

    return {
        "parameters": bits(p.data for p in model.parameters()),
        "m": bits(trainer.optimizer.m),
        "v": bits(trainer.optimizer.v),
        "losses": bits(trainer.losses),
        "validations": list(trainer.validations.items()),
        "best": (trainer.best_step, trainer.waited),
        "samples": [draw() for _ in range(settings.samples)],
    }


def finish(trainer: Trainer) -> Trainer:
    while not trainer.finished:
        trainer.train_step()
    return trainer


@pytest.mark.parametrize("documents", [NAMES, GREEK], ids=["names", "unicode"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_every_setting_equals_reference(documents: list[str], configuration: dict[str, Any]) -> None:
    settings = {**SMALL, **configuration}
    made = state(finish(Trainer(Settings(**settings), list(documents))))
    assert_equal(made, reference.train(documents, **settings))


@pytest.mark.parametrize("configuration", TEXT_CONFIGURATIONS, ids=str)
def test_windows_of_a_text_equal_reference(configuration: dict[str, Any]) -> None:
    settings = {**SMALL, "format": "text", **configuration}
    made = state(finish(Trainer(Settings(**settings), Text([PLAY[:40], PLAY[40:]]))))
    assert_equal(made, reference.train(PLAY, **settings))


def assert_equal(made: dict[str, Any], twin: reference.Run) -> None:
    assert made["losses"] == bits(twin.losses)
    assert made["validations"] == list(twin.validations.items())
    assert made["parameters"] == bits(p.data for p in twin.model.parameters())
    assert made["samples"] == twin.samples


def test_no_name_of_trainer_means_something_else_in_what_it_works_with() -> None:
    """`trainer.step()` would be read as that of its optimizer."""

    def public(thing: object) -> set[str]:
        return {name for name in dir(thing) if not name.startswith("_")}

    trainer = Trainer(Settings(**SMALL), list(NAMES))
    others = public(trainer.optimizer) | public(Value(0.0)) | public(trainer.model)
    assert public(trainer) & others == set()


def test_every_window_of_a_text_is_drawn_and_none_reaches_what_is_held_out() -> None:
    text = Text(["".join(chr(0x4E00 + i) for i in range(60))])
    trainer = Trainer(Settings(**SMALL, format="text", validation=0.25, batch_size=50), text)
    drawn = {tuple(tokens) for step in range(40) for tokens in trainer.batches.batch(step, trainer.rng)}
    assert drawn == {tuple(range(start, start + 7)) for start in range(45 - 6)}
    assert list(trainer.batches.held_out()) == [list(range(start, start + 7)) for start in (45, 53)]
    many = Text(["".join(chr(0x4E00 + i % 7000) for i in range(20_000))])
    held_out = list(Trainer(Settings(**SMALL, format="text", validation=0.5), many).batches.held_out())
    assert len(held_out) == MAX_VALIDATED
    assert (held_out[0][0], held_out[-1][-1]) == (10_000 % 7000, 19_999 % 7000)


def test_a_long_document_is_learnt_whole_in_windows() -> None:
    documents = ["abcdefgh", "ij", "klm"]
    trainer = Trainer(Settings(**{**SMALL, "block_size": 3}, long="windows"), list(documents))
    tokenizer = trainer.tokenizer
    parts = [trainer.batches.batch(step, trainer.rng)[0] for step in range(6)]
    assert isinstance(trainer.batches, DocumentBatches)
    expected = []
    for document in trainer.batches.documents:
        tokens = tokenizer.encode(document)
        expected += [tokens[i : i + 4] for i in range(0, len(tokens) - 1, 3)]
    assert parts == expected
    assert [part[0] for part in parts].count(tokenizer.bos) == 3
    assert trainer.batches.batch(6, trainer.rng) == parts[:1]


def test_patience_ends_a_run_that_does_not_improve() -> None:
    still = Trainer(Settings(**SMALL, validation=0.3, validation_every=2, patience=3, learning_rate=1e-300), list(NAMES))
    finish(still)
    assert list(still.validations) == [2, 4, 6, 8]
    assert (still.best_step, still.waited, still.out_of_patience) == (2, 3, True)  # equal is no better


def test_validation_looks_at_some_of_many_documents() -> None:
    documents = ["ab", "ba", "c"] * MAX_VALIDATED
    trainer = Trainer(Settings(**SMALL, validation=0.5), list(documents))
    assert isinstance(trainer.batches, DocumentBatches)
    held_out = trainer.batches.documents[len(documents) // 2 :][:MAX_VALIDATED]
    assert trainer.batches.n_training == len(documents) // 2
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
    assert isinstance(trainer.batches, DocumentBatches)
    assert isinstance(trainer.tokenizer, CharTokenizer)
    assert (trainer.batches.n_training, trainer.tokenizer.characters) == (42, "".join(sorted(set("".join(NAMES)))))
    documents = [trainer.tokenizer.encode(document)[: SMALL["block_size"] + 1] for document in trainer.batches.documents]

    def batch(step: int) -> list[list[int]]:
        return trainer.batches.batch(step, trainer.rng)

    assert {tuple(tokens) for step in range(100) for tokens in batch(step)} == set(map(tuple, documents[:42]))
    assert batch(0) + batch(1) == documents[:4]
    assert batch(20) + batch(21) == documents[40:42] + documents[:2]


def test_batch_keeps_one_graph_at_a_time() -> None:
    from microgpt._tape import get_tape

    trainer = Trainer(Settings(**SMALL, batch_size=50), list(NAMES))
    nodes, size = get_tape().nodes, get_tape().nbytes
    trainer.train_step()
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
    on_text = [{**configuration, "format": "text"} for configuration in TEXT_CONFIGURATIONS]
    for configuration in [*CONFIGURATIONS, *on_text]:
        settings = Settings(**{**SMALL, **configuration})

        def text(kind: str = settings.format) -> Text | list[str]:
            return Text([PLAY]) if kind == "text" else list(NAMES)

        straight = state(finish(Trainer(settings, text())))
        steps = len(straight["losses"])
        for k in range(steps + 1):
            trainer = Trainer(settings, text())
            while len(trainer.losses) < k:
                trainer.train_step()
            resume.save(path, trainer, SOURCE)
            saved = resume.load(path)
            again = resume.restore(saved, saved.settings, text())
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


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_more_steps_and_lower_rates_equal_a_run_of_such_phases(schedule: str, tmp_path: Path) -> None:
    path = str(tmp_path / "run.safetensors")
    settings = {**SMALL, "schedule": schedule, "warmup": 2, "validation": 0.2, "validation_every": 4}
    run = finish(Trainer(Settings(**settings, steps=6, learning_rate=0.3), list(NAMES)))
    for steps, rate, made in ((14, 0.3, 9), (14, 0.02, 11), (20, 0.02, 20)):
        resume.save(path, run, SOURCE)
        run = resume.restore(resume.load(path), Settings(**settings, steps=steps, learning_rate=rate), list(NAMES))
        while len(run.losses) < made:
            run.train_step()
    phases = [(0, 6, 0.3), (6, 14, 0.3), (9, 14, 0.02), (11, 20, 0.02)]
    if schedule == "constant":  # whose rates do not depend on the number of steps
        phases = [(0, 14, 0.3), (9, 20, 0.02)]
    assert run.phases == phases
    twin = reference.train(NAMES, **settings, steps=20, learning_rate=0.3, phases=phases)
    assert_equal(state(run), twin)


def test_a_step_that_fails_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    """Else the run that is saved then would not be the straight one after so many steps."""
    for settings in (Settings(**SMALL, format="text"), Settings(**SMALL, dropout=0.5, batch_size=3)):
        trainer = Trainer(settings, Text([PLAY]) if settings.format == "text" else list(NAMES))
        trainer.train_step()
        trainer.model.lm_head.data = [[1e308] * 4] * len(trainer.model.lm_head)
        before = trainer.rng.getstate()
        with pytest.raises((ArithmeticError, ValueError)):
            trainer.train_step()
        assert trainer.rng.getstate() == before
        assert len(trainer.losses) == 1
        trainer.model.lm_head.data = [[math.inf] * 4] * len(trainer.model.lm_head)
        with pytest.raises(resume.NotFiniteError, match="lm_head is not finite after step 1"):
            resume.save(str(tmp_path / "run"), trainer, SOURCE)
        assert list(tmp_path.iterdir()) == []


def test_a_run_goes_back_to_a_snapshot() -> None:
    settings = Settings(**SMALL, steps=20, validation=0.2, validation_every=3, dropout=0.2)
    trainer, straight = (Trainer(settings, list(NAMES)) for _ in range(2))
    for _ in range(7):
        trainer.train_step()
    snapshot, before = trainer.snapshot(), state(trainer)
    for _ in range(6):
        trainer.train_step()
    trainer.optimizer.parameters.grad = [1.0] * len(trainer.optimizer.parameters)  # a step that failed may leave some
    trainer.go_back(snapshot)
    assert state(trainer) == before
    assert state(finish(trainer)) == state(finish(straight))


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
        trainer.train_step()
    resume.save(path, trainer, SOURCE)
    again = resume.restore(resume.load(path), Settings(**SMALL, steps=12), list(NAMES))
    assert again.model.lm_head is again.model.wte
    assert (
        len(again.optimizer.m) == len(again.model.parameters()) == again.model.config.n_parameters - len(again.model.wte.data) * 4
    )
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
    trainer.train_step()
    CHANGES[words](trainer)
    with pytest.raises(ValueError, match=words):
        resume.save(str(tmp_path / "run.safetensors"), trainer, SOURCE)
    assert list(tmp_path.iterdir()) == []


def test_model_and_sizes_of_a_run_are_set_together() -> None:
    trainer = Trainer(Settings(**SMALL), list(NAMES))
    with pytest.raises(AttributeError, match="model"):
        trainer.model = None  # type: ignore[assignment, misc]
    with pytest.raises(ValueError, match="its sizes are"):
        Trainer(Settings(**SMALL), list(NAMES), GPT(GPTConfig(trainer.tokenizer.vocab_size, n_embd=8), random.Random(1)))
    model = GPT(trainer.model.config, random.Random(1))
    assert Trainer(Settings(**SMALL), list(NAMES), model).model is model


@pytest.mark.parametrize("way", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))], ids=["deepcopy", "pickle"])
def test_a_copied_run_goes_on_by_itself(way: Any) -> None:
    trainer = Trainer(Settings(**SMALL, steps=8, validation=0.2, validation_every=3), list(NAMES))
    for _ in range(4):
        trainer.train_step()
    copied = way(trainer)
    middle = state(trainer)
    finished = state(finish(copied))
    assert state(trainer) == middle
    assert state(finish(trainer)) == finished
