"""python -m microgpt.sample and python -m microgpt, from outside: what they print, and refusals in one line."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import unicodedata
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
from flags import VALUES, try_every_flag

from microgpt import GPT, Adam, CharTokenizer, GPTConfig, __main__, checkpoint, reference, sample

DOCUMENTS = ["abc", "bca", "cab", "ab c", "日本"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of DOCUMENTS, saved, and those as a text."""
    folder = tmp_path_factory.mktemp("trained")
    tokenizer = CharTokenizer(DOCUMENTS)
    model = GPT(GPTConfig(tokenizer.vocab_size, n_embd=4, n_head=2, block_size=5), random.Random(1))
    optimizer = Adam(model.parameters())
    for step in range(100):
        model.loss(tokenizer.encode(DOCUMENTS[step % len(DOCUMENTS)])).backward()
        optimizer.step()
    model.save(folder / "model", tokenizer)
    model.save(folder / "mute")
    (folder / "text").write_text("\n".join(DOCUMENTS), encoding="utf-8")
    return folder


def run(*arguments: str, cwd: Path, module: str = "microgpt.sample", **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=cwd, env={**os.environ, **env}, timeout=120)


@pytest.mark.parametrize(
    ("flags", "count", "seed", "options"),
    [
        ("", 20, 42, {}),
        ("--count 3 --seed 7 --temperature 1.5 --top-k 2", 3, 7, {"temperature": 1.5, "top_k": 2}),
        ("--temperature 0 --prompt ab --count 2", 2, 42, {"temperature": 0, "prompt": "ab"}),
        ("--max-length 3 --prompt 日 --count 40", 40, 42, {"max_length": 3, "prompt": "日"}),
        ("--count 0", 0, 42, {}),
    ],
)
def test_output_is_that_of_the_twin(flags: str, count: int, seed: int, options: dict[str, float], trained: Path) -> None:
    tensors, metadata = checkpoint.read(trained / "model")
    twin = reference.GPT(len(metadata["characters"]) + 1, random.Random(1), n_embd=4, n_head=2, block_size=5)
    for p, data in zip(twin.parameters(), (x for name in twin.state_dict for x in tensors[name][1]), strict=True):
        p.data = data
    rng = random.Random(seed)
    expected = [reference.generate(twin, metadata["characters"], rng, **options) for _ in range(count)]
    result = run("model", *flags.split(), cwd=trained, PYTHONIOENCODING="ascii")
    assert result.stdout.splitlines() == expected
    assert (result.returncode, result.stderr) == (0, "")


def test_what_training_lacks_is_marked(trained: Path) -> None:
    arguments = ["model", "--count", "60", "--temperature", "1"]
    plain = run(*arguments, cwd=trained).stdout.splitlines()
    marked = run(*arguments, "--novel", "text", cwd=trained).stdout.splitlines()
    assert marked == [("known\t" if text.strip() in DOCUMENTS else "novel\t") + text for text in plain]
    assert {line.partition("\t")[0] for line in marked} == {"known", "novel"}


def test_every_flag_refuses_what_it_cannot_take(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    accepted = {
        "--count": ["0", "-0"],
        "--temperature": ["0", "-0", "0.0", "1.5", "1e3", "1" * 30],
        "--prompt": ["", " ", "abc"],
        "--seed": ["0", "-0"],
        "--top-p": ["1e-9"],
        "--stop": [value for value in VALUES if value not in ("", "--")],
    }
    tried = try_every_flag(sample.main, sample.build_parser(), ["model", "--count=2"], accepted, capsys)
    print(f"{tried} values tried")
    assert tried > 150


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "missing: No such file or directory"),
        (["."], ".: Is a directory"),
        (["text"], "text is not a whole microgpt checkpoint: "),
        (["mute"], "mute is not a whole microgpt checkpoint: it holds no vocabulary"),
        (["diverged"], "the model's logits are not finite, there is nothing to draw from"),
        (["model", "--prompt", "abx"], "character 'x' is not in the vocabulary ' abc日本'"),
        (["model", "--prompt", "abcab"], "the prompt must be shorter than the model's block_size, 5, it has 5 tokens"),
        (["model", "--length", "0"], "--length: needs a whole number from 1 to "),
        (["model", "--length", "5", "--count", "2"], "--count is for documents, --length prints one text"),
        (["model", "--length", "5", "--novel", "text"], "--novel is for documents"),
        (["model", "--prompt", "a", "--prompt-file", "text"], "not allowed with"),
        (["model", "--prompt-file", "missing"], "missing: No such file or directory"),
        (["model", "--stop", ""], "--stop needs a text that is not empty"),
        (["model", "--top-p", "0"], "needs a number above 0 and at most 1, got '0'"),
        (["model", "--novel", "missing"], "missing: No such file or directory"),
        (["model", "--novel", "model"], "model is not UTF-8 text"),
        (["model", "--temperature", "1e-4"], "needs 0 or a finite number of at least 0.001, got '1e-4'"),
        (["model", "other"], "unrecognized arguments: other"),
        ([], "required: MODEL"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], words: str, trained: Path) -> None:
    model, tokenizer, _ = sample.load(str(trained / "model"))
    model.lm_head.data = [[1e308] * 4] * len(model.lm_head)
    model.save(trained / "diverged", tokenizer)
    result = run(*arguments, cwd=trained)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def on_terminal(arguments: list[str], cwd: Path) -> str:
    """What a command shows, both streams, where they are a terminal."""
    pty = pytest.importorskip("pty", reason="terminals as on Unix")
    leader, follower = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", *arguments], stdout=follower, stderr=follower, cwd=cwd)
    os.close(follower)
    shown = b""
    with suppress(OSError):  # which ends what a terminal gives, on Linux
        while chunk := os.read(leader, 65536):
            shown += chunk
    os.close(leader)
    process.wait(timeout=120)
    return shown.decode()


EVIL = "\x1b]0;x\x07\x9b2J\x7f\x08\x0b\u202e\u2028"
ESCAPED = "\\x1b]0;x\\x07\\x9b2J\\x7f\\x08\\x0b\\u202e\\u2028"


def obeyed(shown: str) -> set[str]:
    """The control characters that a terminal got, but for ends of lines."""
    return {c for c in shown.replace("\r\n", "") if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}


def test_a_terminal_shows_control_characters_of_documents_and_a_pipe_gets_them(tmp_path: Path) -> None:
    document = f"a{EVIL}\té\u3000🙂b"
    (tmp_path / "text").write_text(f"{document}\n{document}\n", encoding="utf-8")
    train_flags = ["--data", "text", "--steps", "120", "--n-embd", "8", "--block-size", "24", "--temperature", "0", "--quiet"]
    train = ["microgpt.train", *train_flags]
    sample = ["microgpt.sample", "model", "--temperature", "0", "--count", "1"]
    piped = run(*train_flags, "--save", "model", "--samples", "1", cwd=tmp_path, module="microgpt.train").stdout
    assert piped.endswith(f"sample  1: {document}\n")
    assert run(*sample[1:], cwd=tmp_path).stdout == document + "\n"
    shown = document.replace(EVIL, ESCAPED)
    for command in ([*train, "--samples", "1"], sample):
        text = on_terminal(command, tmp_path)
        assert text.endswith(f"{shown}\r\n")
        assert obeyed(text) == {"\t"}


def test_a_terminal_shows_the_lines_of_a_text_and_no_other_control_character(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a\x1b[2J\n" * 40, encoding="utf-8")
    flags = ["--data", "text", "--format", "text", "--steps", "150", "--n-embd", "8", "--block-size", "6", "--temperature", "0"]
    train = ["microgpt.train", *flags, "--quiet", "--samples", "1", "--save", "model"]
    shown = on_terminal(train, tmp_path)
    assert shown.endswith("sample  1: a\\x1b[2J\r\n\r\n")
    sample = ["microgpt.sample", "model", "--temperature", "0", "--length", "12", "--prompt", "a", "--quiet"]
    assert on_terminal(sample, tmp_path) == "a\\x1b[2J\r\na\\x1b[2J\r\na\r\n"
    assert run(*sample[1:], cwd=tmp_path).stdout == "a\x1b[2J\na\x1b[2J\na\n"
    assert obeyed(shown) == set()


def test_no_message_carries_a_control_character(trained: Path) -> None:
    """From names of files, arguments, and a vocabulary."""
    (trained / f"e{EVIL}").write_bytes(b"x")
    tokenizer = CharTokenizer([EVIL])
    GPT(GPTConfig(tokenizer.vocab_size, n_embd=4, n_head=2), random.Random(1)).save(trained / "evil", tokenizer)
    for arguments in (
        ["microgpt.sample", f"missing{EVIL}"],
        ["microgpt.sample", f"e{EVIL}"],
        ["microgpt.sample", "evil", "--prompt", "\x1b[31m"],
        ["microgpt.sample", "model", f"--{EVIL}"],
        ["microgpt.sample", "model", "--novel", f"missing{EVIL}"],
        ["microgpt.sample", "model", "--count", EVIL],
        ["microgpt.train", "--data", f"missing{EVIL}"],
        ["microgpt.train", "--dataset", EVIL],
        ["microgpt.train", "--resume", f"e{EVIL}"],
        ["microgpt.train", "--plot", f"p{EVIL}"],
        ["microgpt.train", "--save", f"none{EVIL}/x"],
        ["microgpt.train", "--data", "text", "--steps", "1", "--save", f"s{EVIL}", "--samples", "0"],
        ["microgpt", EVIL],
    ):
        shown = on_terminal(arguments, trained)
        assert obeyed(re.sub(r"\A.*\r(?!\n)", "", shown, flags=re.DOTALL)) <= {"\t"}, shown
        assert "\\x1b" in shown, shown


@pytest.mark.skipif(os.name != "posix", reason="a shell and pipes as on Unix")
@pytest.mark.parametrize("rest", ["| head -n 1", ">&-", "2>&-"])
def test_a_reader_that_goes_away_is_no_traceback(rest: str, trained: Path) -> None:
    command = f"{sys.executable} -m microgpt.sample model --count 5000 {rest}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=trained, timeout=120)
    assert result.stderr == ""


def test_the_package_lists_its_commands(tmp_path: Path) -> None:
    result = run(cwd=tmp_path, module="microgpt")
    assert (result.returncode, result.stderr) == (0, "")
    assert run("--help", cwd=tmp_path, module="microgpt").stdout == result.stdout
    for name, (what, how) in __main__.COMMANDS.items():
        parser = import_module(f"microgpt.{name}").build_parser()
        assert f"microgpt {name}, or python -m microgpt.{name}\n  {what}\n  {how}\n" in result.stdout
        assert (what, f"python -m microgpt.{name}") == (parser.description, parser.prog)
        parser.parse_args(how.removeprefix(f"microgpt {name} ").split())
    assert re.fullmatch(r"microgpt-cython \d+\.\d+\.\d+\n", run("--version", cwd=tmp_path, module="microgpt").stdout)
    refused = run("nothing", cwd=tmp_path, module="microgpt")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
