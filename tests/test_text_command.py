"""Text of any kind through the commands: streams, documents of several lines, long lines, tokenizers; bad input in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Commands, in_process

from microgpt import GPT, __main__, checkpoint, data, reference, resume
from microgpt.text import Text

PLAY = "KING:\n  Who's there, né 🙂?\n\nFOOL:\tNobody, my lord. \n" * 8
SIZES: dict[str, Any] = {"n_embd": 4, "n_head": 2, "block_size": 6, "samples": 3}
SMALL = [x for name, value in SIZES.items() for x in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "play").write_text(PLAY, encoding="utf-8", newline="")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_text_is_learnt_as_by_the_twin_and_printed(commands: Commands) -> None:
    flags = [*SMALL, "--steps", 12, "--batch-size", 2, "--validation", 0.2, "--validation-every", 5, "--quiet"]
    out = commands.good("train", "--data", "play", "--format", "text", *flags, "--log", "log")
    settings = {**SIZES, "steps": 12, "batch_size": 2, "validation": 0.2, "validation_every": 5}
    twin = reference.train(PLAY, **settings, format="text")
    assert twin.characters is not None
    lines = [json.loads(line) for line in Path("log").read_text().splitlines()]
    assert [line["loss"] for line in lines] == twin.losses
    assert {line["positions"] for line in lines} == {12}
    assert out.startswith(f"num tokens: {len(PLAY)}\nvocab size: {len(twin.characters) + 1}\n")
    samples = "".join(f"sample {i + 1:2d}: {text}\n" for i, text in enumerate(twin.samples))
    assert out.endswith(f"--- inference ---\n{samples}")


@pytest.mark.parametrize(
    "flags",
    [
        ["--format", "text", "--dropout", 0.2],
        ["--format", "text", "--tokenizer", "bytes", "--label-smoothing", 0.1, "--tie-weights"],
        ["--format", "text", "--tokenizer", "bpe.json"],
        ["--tokenizer", "bpe.json", "--long", "windows"],
        ["--delimiter", "blank-line", "--long", "windows"],
        ["--keep-spaces", "--dropout", 0.1, "--batch-size", 3],
        ["--data", "play", "folder"],
    ],
    ids=str,
)
def test_interrupted_at_every_step_then_resumed(flags: list[object], commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    from microgpt.trainer import Trainer

    Path("folder").mkdir()
    Path("folder/more").write_text("more\nlines\n")
    if "bpe.json" in flags:
        commands.good("tokenize", "--data", "play", "--vocab-size", 280, "--save", "bpe.json")
    flags = [*([] if "--data" in flags else ["--data", "play"]), *flags, *SMALL, "--steps", 8, "--quiet"]
    flags += ["--validation", 0.2, "--validation-every", 3]
    straight = commands.good("train", *flags, "--save", "a", "--log", "a.log")
    original = Trainer.train_step
    for stop in range(8):

        def stopped(self: Trainer, stop: int = stop) -> float:
            if len(self.losses) == stop:
                signal.raise_signal(signal.SIGTERM)
            return original(self)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train_step", stopped)
            before = commands("train", *flags, "--save", "b")
            assert before.status == 128 + signal.SIGTERM
        if "bpe.json" in flags:
            Path("bpe.json").rename("gone")  # the checkpoint carries it
        after = commands.good("train", "--resume", "b", "--log", "b.log")
        if "bpe.json" in flags:
            Path("gone").rename("bpe.json")
        assert straight == before.out + after[len("".join(after.splitlines(keepends=True)[:3])) :]
        assert Path("b").read_bytes() == Path("a").read_bytes()
        assert Path("b.log").read_bytes() == Path("a.log").read_bytes()
        Path("b").unlink()


def test_documents_of_several_lines_are_learnt_with_their_lines(commands: Commands) -> None:
    out = commands.good("train", "--data", "play", "--delimiter", "blank-line", *SMALL, "--steps", 5, "--save", "run", "--quiet")
    twin = reference.train(PLAY.strip().split("\n\n"), **SIZES, steps=5)
    assert list(resume.load("run").tensors["training.losses"][1]) == twin.losses
    assert out.startswith("num docs: 9\n")
    assert "\n" in (twin.characters or "")


def test_the_stream_of_a_document_model_is_documents(commands: Commands) -> None:
    Path("names").write_text("\n".join(data.load_names()[:50]))
    commands.good("train", "--data", "names", *SMALL, "--steps", 30, "--save", "run", "--quiet")
    out = commands("sample", "run", "--length", 200, "--temperature", 1, "--prompt", "ma")
    assert out.status == 0
    assert (out.out[:2], len(out.out), out.out[-1]) == ("ma", 203, "\n")
    assert "200 characters in " in out.err
    assert " characters/s\n" in out.err
    assert out.out.count("\n") > 3
    quiet = commands("sample", "run", "--length", 200, "--temperature", 1, "--prompt", "ma", "--quiet")
    assert (quiet.out, quiet.err) == (out.out, "")


def test_a_long_prompt_from_a_file_is_gone_on_from_its_end(commands: Commands) -> None:
    commands.good("train", "--data", "play", "--format", "text", *SMALL, "--steps", 30, "--save", "run", "--quiet")
    model = GPT.load("run")
    sizes = vars(model.config).copy()
    import random

    twin = reference.GPT(sizes.pop("vocab_size"), random.Random(), **sizes)
    for p, q in zip(twin.parameters(), model.parameters(), strict=True):
        p.data = q.data
    characters = checkpoint.read("run")[1]["characters"]
    expected = PLAY + reference.generate_text(twin, characters, random.Random(42), 50, 0.5, PLAY)
    out = commands.good("sample", "run", "--prompt-file", "play", "--length", 50, "--quiet")
    assert out == expected + "\n"
    made = expected[len(PLAY) :]
    stopped = commands("sample", "run", "--prompt-file", "play", "--length", 50, "--stop", made[20:24])
    assert stopped.out == PLAY + made.partition(made[20:24])[0] + "\n"
    never = commands("sample", "run", "--length", 50, "--stop", "KINGS")
    assert "50 characters in" in never.err
    assert "'KINGS' did not come\n" in never.err
    assert len(commands.good("sample", "run", "--quiet")) == 501


def test_a_stream_comes_as_it_is_drawn(commands: Commands, folder: Path) -> None:
    """And ends without a traceback when nobody reads it any more."""
    commands.good("train", "--data", "play", "--format", "text", *SMALL, "--steps", 5, "--save", "run", "--quiet")
    command = [sys.executable, "-m", "microgpt.sample", "run", "--length", "100000000", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder)
    assert process.stdout is not None
    assert process.stderr is not None
    assert len(process.stdout.read(200)) == 200
    assert process.poll() is None
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--format", "text", "--delimiter", "%"], "--delimiter is for documents, --format text takes a text as it is"),
        (["--format", "text", "--long", "windows"], "--long is for documents"),
        (["--format", "text", "--keep-spaces"], "--keep-spaces is for documents"),
        (["--format", "text", "--block-size", 1000], "--block-size 1000 needs a text of at least 1001 tokens, this one has 416"),
        (
            ["--format", "text", "--validation", 0.99],
            "needs a text of at least 7 tokens beside the 412 to hold out, this one has 416",
        ),
        (["--format", "text", "--data", "same"], "same needs at least 2 different characters, it has only 'a'"),
        (["--format", "text", "--data", "empty"], "empty needs at least 2 different characters, it has none"),
        (["--data", "binary"], "binary is not UTF-8 text: byte 0x89 at offset 0"),
        (["--data", "wide"], "wide is not UTF-8 text but UTF-16"),
        (["--data", "play", "missing"], "missing: No such file or directory"),
        (["--data", "folder"], "folder is a folder without files"),
        (["--delimiter", "%%"], "play needs at least 2 documents, it has 1"),
        (["--delimiter", ""], "needs a text that is not empty, got ''"),
        (["--long", "windows", "--batch-size", 9999], "--batch-size 9999 is more than the "),
        (["--tokenizer", "missing.json"], "missing.json: No such file or directory"),
        (["--tokenizer", "play"], "play is no file of the tokenizers library"),
        (["--data", "play", "--save", "play"], "--data and --save are the same file, play"),
        (["--data", "same", "play", "--log", "play"], "--data and --log are the same file, play"),
        (["--plot-log"], "--plot-log needs --plot"),
        (
            ["--data", "folder", "--save", "folder/deep/../run"],
            "--save folder/deep/../run is in the folder folder, all of which is",
        ),
        (["--data", "play", ".", "--log", "log"], "--log log is in the folder ., all of which is read as text"),
    ],
)
def test_bad_input_is_refused_in_one_line(flags: list[object], words: str, commands: Commands) -> None:
    Path("same").write_text("aaaa" * 30)
    Path("empty").write_text("")
    Path("binary").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    Path("wide").write_text("ab\ncd\n", encoding="utf-16")
    Path("folder").mkdir()
    files = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert words in commands.refusal("train", "--data", "play", *SMALL, "--quiet", *flags)
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == files


@pytest.mark.parametrize("flags", [["--format", "text"], []], ids=["text", "lines"])
def test_another_text_is_refused_on_resume(flags: list[str], commands: Commands) -> None:
    commands.good("train", "--data", "play", *flags, *SMALL, "--steps", 5, "--save", "run", "--quiet")
    Path("other").write_text(PLAY[:-2] + "x\n", encoding="utf-8")
    what = f"{len(PLAY)} characters of another text" if flags else "24 other documents"
    assert f"run was trained on {what} (sha256 " in commands.refusal("train", "--resume", "run", "--data", "other")


@pytest.mark.skipif(os.name != "posix", reason="a shell and pipes as on Unix")
@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("python -m microgpt.train --data - <&-", "standard input is closed, there is no text to read"),
        ("yes | (ulimit -v 400000; python -m microgpt.train --data -)", "not enough memory"),
        ("python -m microgpt.train --data - < /dev/zero", "standard input is not UTF-8 text"),
        ("python -m microgpt.train --data - < /dev/null", "standard input needs at least 2 documents"),
        ("echo | python -m microgpt.evaluate run --data -", "standard input: there is nothing to predict in it"),
        ("python -m microgpt.sample run --prompt-file - <&-", "standard input is closed, there is no text to read"),
    ],
)
def test_standard_input_that_is_no_text_is_refused_in_one_line(shell: str, words: str, commands: Commands, folder: Path) -> None:
    commands.good("train", "--data", "play", *SMALL, "--steps", 5, "--save", "run", "--quiet")
    shell = shell.replace("python", sys.executable)
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=folder, timeout=300)
    assert result.stderr.count("\n") == 1, result.stderr
    assert (result.returncode, result.stdout, words in result.stderr) == (2, "", True), result.stderr


def test_an_old_file_has_the_defaults_of_then(commands: Commands) -> None:
    """Those of version 0.1.0 tell less: of one path of data, no phases, and no settings that came later."""
    straight = commands.good("train", "--data", "play", *SMALL, "--steps", 9, "--save", "new", "--quiet")
    tensors, metadata = checkpoint.read("new")
    training = metadata["training"]
    later = {"format", "delimiter", "long", "keep_spaces", "tokenizer", "tie_weights", "dropout", "label_smoothing"}
    training["settings"] = {name: value for name, value in training["settings"].items() if name not in later}
    training["source"]["data"] = "play"
    del training["phases"]
    checkpoint.write("old", tensors, metadata)
    assert commands.good("train", "--resume", "old").splitlines()[-3:] == straight.splitlines()[-3:]
    assert len(commands.good("sample", "old", "--count", 2).splitlines()) == 2
    training["settings"].pop("seed")
    checkpoint.write("older", tensors, metadata)
    assert "settings must hold " in commands.refusal("train", "--resume", "older")


def test_one_command_has_them_all(folder: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "microgpt", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)

    small = list(map(str, SMALL))
    made = run("train", "--data", "play", *small, "--steps", "5", "--save", "run", "--quiet")
    assert made.stdout == in_process("train", "--data", "play", *small, "--steps", "5", "--quiet", cwd=folder).stdout
    assert len(run("sample", "run", "--count", "2").stdout.splitlines()) == 2
    assert run("evaluate", "run", "--data", "play").stdout.startswith("loss ")
    assert run("sample", "--nothing").stderr.startswith("python -m microgpt.sample: error: ")
    refused = run("nothing")
    assert (refused.returncode, refused.stderr) == (
        2,
        "microgpt: error: there is no command 'nothing', there are train, explore, sample, evaluate, tokenize\n",
    )


def test_shells_complete_every_flag() -> None:
    shtab = pytest.importorskip("shtab")
    for shell in ("bash", "zsh"):
        script = shtab.complete(__main__.whole_parser(), shell)
        assert all(word in script for word in ("evaluate", "--label-smoothing", "--prompt-file", "--vocab-size", "--version"))


def test_a_tokenizer_is_made_and_no_other_file_replaced(commands: Commands) -> None:
    out = commands.good("tokenize", "--data", "play", "--vocab-size", 300, "--save", "t.json")
    tokens = json.loads(Path("t.json").read_text())["model"]["vocab"]
    n_tokens = len(commands.good("train", "--data", "play", "--tokenizer", "t.json", "--format", "text", *SMALL, "--steps", 1))
    assert n_tokens > 0
    assert out.startswith(f"{len(tokens) + 1} tokens with BOS; {len(PLAY)} characters are ")
    commands.good("tokenize", "--data", "play", "--vocab-size", 280, "--save", "t.json")
    for flags, words in (
        (["--save", "play"], "--save play would replace a file that is no tokenizer"),
        (["--save", "t.json", "--vocab-size", 255], "needs a whole number from 256 to 65535, got '255'"),
        (["--save", "missing/t.json"], "missing/t.json: No such file or directory"),
        (["--save", "t.json", "--data", "empty"], "empty: a tokenizer needs a text that is not empty"),
    ):
        Path("empty").write_text("")
        assert words in commands.refusal("tokenize", "--data", "play", *flags)


def test_the_repr_of_a_text_is_short() -> None:
    assert repr(Text([PLAY])) == f"<a text of {len(PLAY)} characters, {len(PLAY.encode())} bytes>"
