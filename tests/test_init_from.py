"""--init-from and --save-best: another run's weights as a start, the best ones kept."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from commands import Commands

from microgpt import GPT, CharTokenizer, checkpoint, reference, resume
from microgpt.initial import Initial
from microgpt.settings import Settings
from microgpt.tokenizer import Tokenizer
from microgpt.trainer import Trainer

NAMES = ["anna", "hannah", "nan", "ahn", "nahnah"]
OTHERS = ["bee", "zanna", "eve", "bahn", "éa"]
SIZES: dict[str, Any] = {"n_layer": 2, "n_embd": 4, "n_head": 2, "block_size": 5}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("names").write_text("\n".join(NAMES), encoding="utf-8")
    Path("others").write_text("\n".join(OTHERS), encoding="utf-8")
    return tmp_path


def first_run(*, tied: bool) -> reference.Run:
    """Train and save a run as "a"; return the twin's."""
    settings = {**SIZES, "steps": 5, "tie_weights": tied}
    trainer = Trainer(Settings(**settings), list(NAMES))
    while not trainer.finished:
        trainer.train_step()
    resume.save("a", trainer, resume.Source(("names",), None, len(NAMES), ""))
    return reference.train(NAMES, **settings)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_run_from_another_ones_weights_equals_the_twin(tied: bool) -> None:
    before = first_run(tied=tied)
    assert before.characters is not None
    settings = {**SIZES, "steps": 6, "seed": 9, "tie_weights": tied, "dropout": 0.1}
    trainer = Trainer(Settings(**settings), list(OTHERS), initial=Initial("a"))
    assert isinstance(trainer.tokenizer, CharTokenizer)
    assert trainer.tokenizer.characters == "abehnvzé"
    while not trainer.finished:
        trainer.train_step()
    twin = reference.train(OTHERS, **settings, initial=(before.model, before.characters))
    assert [loss.hex() for loss in trainer.losses] == [loss.hex() for loss in twin.losses]
    assert [p.data.hex() for p in trainer.model.parameters()] == [p.data.hex() for p in twin.model.parameters()]
    assert (trainer.model.lm_head is trainer.model.wte) == tied


def test_known_characters_keep_their_weights_and_new_ones_are_drawn() -> None:
    first_run(tied=False)
    initial = Initial("a")
    old, rng = GPT.load("a"), random.Random(1)
    new = initial.grown(initial.extended(CharTokenizer(["bz"])), rng)
    assert new.config.vocab_size == old.config.vocab_size + 2
    for name in ("wte", "lm_head"):
        before, after = getattr(old, name).data, getattr(new, name).data
        assert [after[i] for i in (0, 2, 3, 5)] == before  # a, h, n, BOS; of abhnz and BOS
    drawn = random.Random(1)
    fresh = [[drawn.gauss(0, 0.08) for _ in range(4)] for _ in range(4)]
    assert [new.wte.data[1], new.wte.data[4], new.lm_head.data[1], new.lm_head.data[4]] == fresh
    assert new.layers[1].mlp_fc1.data == old.layers[1].mlp_fc1.data


def test_training_further_from_the_command_line(commands: Commands) -> None:
    first_run(tied=True)
    result = commands("train", "--data", "others", "--init-from", "a", "--steps", 4, "--save", "b", "--samples", 0)
    assert result.status == 0
    assert "5 characters that a does not know are added: 'bevzé'\n" in result.err
    saved = resume.load("b")
    assert (saved.settings.n_layer, saved.settings.tie_weights, saved.settings.block_size) == (2, True, 5)
    # It is a run like any other: resumed as it would have gone on.
    commands.good("train", "--data", "others", "--init-from", "a", "--steps", 2, "--save", "c", "--schedule", "constant")
    commands.good("train", "--data", "others", "--init-from", "a", "--steps", 4, "--save", "d", "--schedule", "constant")
    commands.good("train", "--resume", "c", "--steps", 4)
    assert Path("c").read_bytes() == Path("d").read_bytes()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--n-embd", 8], "--n-embd 8 contradicts a, a model with --n-embd 4"),
        (["--block-size", 6], "--block-size 6 contradicts a, a model with --block-size 5"),
        (["--tie-weights"], "--tie-weights contradicts a, a model with no --tie-weights"),
        (["--tokenizer", "bytes"], "--tokenizer bytes contradicts a, a model with --tokenizer characters"),
        (["--init-from", "names"], "names is not a whole microgpt checkpoint"),
        (["--init-from", "missing"], "missing: No such file or directory"),
        (["--init-from", "mute"], "mute is not a whole microgpt checkpoint: it holds no vocabulary"),
        (["--init-from", "half"], "half is not a whole microgpt checkpoint: wpe is missing"),
        (["--save", "a2", "--init-from", "a2"], "--init-from and --save are the same file, a2"),
        (["--resume", "a"], "--init-from a is for a new run, a has weights of its own"),
        (["--save-best", "b"], "--save-best needs --validation"),
        (
            ["--validation", 0.3, "--save-best", "others"],
            "--save-best others would replace a file that --save-best did not write",
        ),
        (["--validation", 0.3, "--save-best", "a2"], "--save-best a2 would replace a file that --save-best did not write"),
        (["--validation", 0.3, "--save-best", "b", "--save", "b"], "--save and --save-best are the same file, b"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(flags: list[object], words: str, commands: Commands) -> None:
    first_run(tied=False)
    Path("a2").write_bytes(Path("a").read_bytes())
    tensors, metadata = checkpoint.read("a")
    GPT.load("a").save("mute")
    lacking = {name: tensor for name, tensor in tensors.items() if name != "wpe"}
    checkpoint.write("half", lacking, {"config": metadata["config"], "characters": metadata["characters"]})
    files = {path: path.read_bytes() for path in Path().iterdir()}
    assert words in commands.refusal("train", "--data", "names", "--init-from", "a", *flags)
    assert {path: path.read_bytes() for path in Path().iterdir()} == files


def test_the_best_weights_are_kept(commands: Commands) -> None:
    """Of a run whose validation goes down and up again."""
    flags = ["--data", "names", "--n-embd", 4, "--n-head", 2, "--steps", 40, "--validation", 0.4, "--validation-every", 5]
    flags += ["--learning-rate", 0.2, "--quiet", "--samples", 0]
    commands.good("train", *flags, "--save", "run", "--save-best", "best")
    trainer = Trainer(resume.load("run").settings, list(NAMES))
    weights = {0: [p.data for p in trainer.model.parameters()]}
    while not trainer.finished:
        trainer.train_step()
        weights[len(trainer.losses)] = [p.data for p in trainer.model.parameters()]
    assert 0 < trainer.best_step < 40
    assert [p.data for p in GPT.load("best").parameters()] == weights[trainer.best_step]
    _, metadata = checkpoint.read("best")
    assert metadata["best"] == {"step": trainer.best_step, "validation": trainer.validations[trainer.best_step]}
    assert Tokenizer.load("best") == trainer.tokenizer
    # Again, over its own file, and stopped before and after the best step.
    content = Path("best").read_bytes()
    for steps in (trainer.best_step - 1, trainer.best_step, trainer.best_step + 7):
        constant = [*flags, "--schedule", "constant", "--save-best", "best2"]
        commands.good("train", *constant, "--save", "whole")
        straight = Path("best2").read_bytes()
        commands.good("train", *constant, "--steps", steps, "--save", f"part{steps}")
        commands.good("train", "--resume", f"part{steps}", "--steps", 40, "--save-best", "best2", "--samples", 0)
        assert Path("best2").read_bytes() == straight
    commands.good("train", *flags, "--save", "run", "--save-best", "best")
    assert Path("best").read_bytes() == content
    assert len(commands.good("sample", "best", "--count", 3).splitlines()) == 3
