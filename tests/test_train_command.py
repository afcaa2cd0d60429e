"""python -m microgpt.train, from outside: what it prints where, exit statuses, refusals in one line."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from flags import VALUES, pairs_of_flags, try_arguments, try_every_flag

from microgpt import data, reference, train
from microgpt.settings import Settings
from microgpt.trainer import Trainer

pty = pytest.importorskip("pty", reason="terminals and signals as on Unix")
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")


def run(*arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "microgpt.train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}, timeout=120)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("ab\nba\ncab\nabc\nbca\n", encoding="utf-8")
    return str(path)


READING_ALONE = ("delimiter", "keep_spaces")  # settings that end with the documents: the twin is given those


def test_output_is_that_of_microgpt(text: str, tmp_path: Path) -> None:
    small = ["--n-embd", "4", "--n-head", "2"]
    result = run("--data", text, "--steps", "250", "--seed", "3", "--samples", "12", *small, cwd=tmp_path)
    twin = reference.train(data.load_file(text), steps=250, seed=3, samples=12, n_embd=4, n_head=2)
    losses = [f"step {s:4d} /  250 | loss {twin.losses[s - 1]:.4f}" for s in (100, 200, 250)]
    samples = [f"sample {i + 1:2d}: {name}" for i, name in enumerate(twin.samples)]
    params = sum(1 for _ in twin.model.parameters())
    expected = ["num docs: 5", "vocab size: 4", f"num params: {params}", *losses, "--- inference ---", *samples]
    assert result.stdout.splitlines() == expected
    assert result.returncode == 0
    assert "trained 250 steps" in result.stderr


def test_no_flags_trains_on_the_embedded_names(tmp_path: Path) -> None:
    result = run(cwd=tmp_path)
    lines = result.stdout.splitlines()
    assert lines[:3] == ["num docs: 32868", "vocab size: 27", "num params: 4192"]
    assert [line.split(" |")[0] for line in lines[3:13]] == [f"step {s:4d} / 1000" for s in range(100, 1001, 100)]
    assert len(lines) == 34
    assert run(cwd=tmp_path).stdout == result.stdout
    assert list(tmp_path.iterdir()) == []


def test_quiet_says_nothing_but_results(text: str) -> None:
    loud, quiet = run("--data", text, "--steps", "20"), run("--data", text, "--steps", "20", "--quiet")
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout


def test_every_flag_reaches_the_run(text: str, tmp_path: Path) -> None:
    settings = {
        "steps": 30, "seed": 5, "n_layer": 2, "n_embd": 6, "n_head": 3, "block_size": 2, "batch_size": 2, "learning_rate": 0.02,
        "schedule": "cosine", "warmup": 3, "weight_decay": 0.1, "clip_grad": 0.5, "validation": 0.3, "validation_every": 7,
        "patience": 50, "temperature": 0.9, "samples": 4, "format": "lines", "long": "cut", "tokenizer": "bytes",
        "dropout": 0.2, "label_smoothing": 0.1,
    }  # fmt: skip
    switches = {"tie_weights": True}
    assert {*settings, *switches, *READING_ALONE} == {field.name for field in dataclasses.fields(Settings)}
    arguments = [x for name, value in settings.items() for x in (f"--{name.replace('_', '-')}", str(value))]
    arguments += ["--tie-weights"]
    result = run("--data", text, *arguments, "--log", "log.jsonl", cwd=tmp_path)
    twin = reference.train(data.load_file(text), **settings, **switches)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["loss"].hex() for line in lines] == [loss.hex() for loss in twin.losses]
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert [line["learning_rate"] for line in lines] == [reference.scheduled("cosine", 0.02, s, 30, 3) for s in range(30)]
    assert {line["positions"] for line in lines} == {4}
    assert {line["step"]: line["validation"] for line in lines if "validation" in line} == twin.validations
    assert [line.split(": ")[1] for line in result.stdout.splitlines()[-4:]] == twin.samples
    assert "warning: 5 of 5 documents are cut, block size 2 is too short" in result.stderr


def test_help_names_every_flag_with_its_default() -> None:
    result = run("--help")
    assert result.returncode == 0
    words = " ".join(result.stdout.split())
    for field in dataclasses.fields(Settings):
        flag = f"--{field.name.replace('_', '-')} "
        meaning = words.split(flag)[-1].split(" --")[0]
        has_default = field.default is not None and field.default is not False
        assert (f"(default: {field.default})" in meaning) == has_default, flag
    for flag in (
        "--data FILE",
        "--init-from FILE",
        "--save-best FILE",
        "--save FILE",
        "--save-every N",
        "--resume FILE",
        "--log FILE",
        "--plot FILE",
        "--quiet",
    ):
        assert flag in words
    assert "(default: names)" in words


def test_settings_default_to_those_of_the_twin() -> None:
    twin = {p.name: p.default for p in inspect.signature(reference.train).parameters.values()}
    settings = dataclasses.asdict(Settings())
    assert settings.keys() - twin.keys() == set(READING_ALONE)
    assert twin.keys() - settings.keys() == {"text", "initial", "phases"}
    assert all(settings[name] == twin[name] for name in settings.keys() & twin.keys())


def test_validation_is_shown_logged_and_summed_up(text: str, tmp_path: Path) -> None:
    settings = {"steps": 110, "n_embd": 4, "n_head": 2, "validation": 0.3, "validation_every": 40, "batch_size": 2}
    flags = [x for name, value in settings.items() for x in (f"--{name.replace('_', '-')}", str(value))]
    result = run("--data", text, *flags, "--log", "log.jsonl", cwd=tmp_path)
    twin = reference.train(data.load_file(text), **settings)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {line["step"]: line["validation"] for line in lines if "validation" in line} == twin.validations
    assert list(twin.validations) == [40, 80, 110]
    expected = [f"step {s:4d} /  110 | loss {twin.losses[s - 1]:.4f}" for s in (40, 80, 100, 110)]
    for i, s in ((0, 40), (1, 80), (3, 110)):
        expected[i] += f" | validation {twin.validations[s]:.4f}"
    assert result.stdout.splitlines()[3:7] == expected
    assert [line["positions"] for line in lines[:2]] != [2, 2]
    best = min(twin.validations, key=lambda step: twin.validations[step])
    at_its_best = f"validation {twin.validations[110]:.4f}, at its best {twin.validations[best]:.4f} in step {best}"
    assert f"last loss {twin.losses[-1]:.4f}, {at_its_best}\nwrote log.jsonl\n" in result.stderr


def test_patience_says_why_it_stopped(text: str, tmp_path: Path) -> None:
    flags = ["--validation", "0.3", "--validation-every", "2", "--patience", "3", "--learning-rate", "1e-300"]
    result = run("--data", text, *flags, "--save", "run", cwd=tmp_path)
    assert "stopped at step 8: 3 validations without a better one\n" in result.stderr
    assert "in step 2\nwrote run\n" in result.stderr
    assert result.stdout.splitlines()[6].startswith("step    8 / 1000 | loss ")
    again = run("--resume", "run", cwd=tmp_path)
    assert again.stdout.splitlines()[3:] == result.stdout.splitlines()[7:]


@pytest.mark.parametrize(("extension", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")])
def test_plot_is_drawn(extension: str, magic: bytes, text: str, tmp_path: Path) -> None:
    flags = ["--steps", "60", "--validation", "0.3", "--validation-every", "20", "--plot", f"plot.{extension}"]
    result = run("--data", text, *flags, cwd=tmp_path)
    assert f"wrote plot.{extension}\n" in result.stderr
    assert (tmp_path / f"plot.{extension}").read_bytes().startswith(magic)
    if extension == "svg":
        drawn = (tmp_path / "plot.svg").read_text()
        assert all(f"<!-- {words} -->" in drawn for words in ("step", "loss (nats)", "mean loss", "validation"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"plot.{extension}", "text.txt"]


def test_plot_that_matplotlib_cannot_draw_is_refused_first(text: str) -> None:
    result = run("--data", text, "--plot", "plot.xyz")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "--plot plot.xyz must end in one of ." in result.stderr
    assert ".png" in result.stderr


def test_plot_without_matplotlib_is_refused_first(text: str) -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from microgpt.train import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "--data", text, "--plot", "plot.png"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "pip install matplotlib" in result.stderr


POSITIVE = ["1.5", "1e-9", "1e3", "1" * 30]
ZERO = ["0", "-0"]
FILES = [value for value in VALUES if value not in ("", "--", "9" * 5000)]
ACCEPTED = {
    **dict.fromkeys(("--warmup", "--seed", "--samples"), ZERO),
    **dict.fromkeys(("--learning-rate", "--clip-grad"), POSITIVE),
    "--temperature": ["0", "-0", "0.0", "1.5", "1e3", "1" * 30],
    "--weight-decay": [*POSITIVE, *ZERO, "0.0"],
    **{flag: ["1e-9", *ZERO, "0.0"] for flag in ("--validation", "--dropout", "--label-smoothing")},
    **dict.fromkeys(("--save", "--resume"), FILES),  # --resume finds what --save has written, which is no log
    "--delimiter": ["abc"],  # the others do not stand between documents of this text
}


def test_every_flag_refuses_wrong_values_in_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--data", text, "--steps", "1", "--samples", "0", "--n-embd", "4", "--quiet"]
    parser = train.build_parser()
    tried = try_every_flag(train.main, parser, small, ACCEPTED, capsys)
    print(f"tried {tried} flag values")
    assert tried == len(VALUES) * (len(parser._actions) - 1)


GOOD: dict[str, Sequence[str]] = {
    **dict.fromkeys(("--n-layer", "--n-head", "--warmup", "--save-every", "--validation-every", "--patience"), ("1", "2")),
    "--data": ["text.txt", "empty.txt"],
    "--format": ["text"],
    "--delimiter": ["a", "blank-line"],
    "--long": ["windows"],
    "--tokenizer": ["bytes", "text.txt"],
    "--init-from": ["run", "text.txt"],
    "--dropout": ["0.2"],
    "--label-smoothing": ["0.1"],
    "--save-best": ["best", "text.txt"],
    "--dataset": ["names", "makemore"],
    "--n-embd": ["4", "6"],
    "--block-size": ["1", "5"],
    "--steps": ["1", "3"],
    "--batch-size": ["2", "2147483647"],
    "--learning-rate": ["0.02", "1e308"],
    "--schedule": ["cosine", "constant"],
    "--weight-decay": ["0.1", "1e308"],
    "--clip-grad": ["1", "1e-308"],
    "--seed": ["1", "18446744073709551615"],
    "--validation": ["0.3", "0.9"],
    "--samples": ["0", "2"],
    "--temperature": ["0", "1.5"],
    "--save": ["saved", "run"],
    "--resume": ["run", "begun"],
    "--log": ["log", "text.txt"],
    "--plot": ["plot.svg"],
}
BAD = ["", "nan", "x\x1b[2J"]


def test_no_pair_of_flags_ends_in_a_traceback(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some hundred of them; all, which takes minutes, with MICROGPT_PAIRS=all in the environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").touch()

    def no_network() -> Path:
        raise OSError("cannot download it")

    monkeypatch.setattr(data, "fetch_makemore", no_network)
    base = ["--quiet", "--steps=2", "--n-embd=4", "--n-head=2", "--block-size=4", "--samples=1"]
    on_text = ["--data=text.txt"]
    for name, step in (("run", 2), ("begun", 1)):

        def interrupted(self: Trainer, step: int = step, original: Callable[[Trainer], float] = Trainer.train_step) -> float:
            if len(self.losses) + 1 == step == 1:
                signal.raise_signal(signal.SIGTERM)
            return original(self)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train_step", interrupted)
            assert train.main([*base, *on_text, "--save", name]) in (0, 128 + signal.SIGTERM)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    pairs = list(pairs_of_flags(train.build_parser(), GOOD, BAD))
    if os.environ.get("MICROGPT_PAIRS") != "all":
        pairs = random.Random(1).sample(pairs, 400)
    capsys.readouterr()
    statuses = []
    for pair in pairs:
        named = any(argument.startswith(("--data", "--resume")) for argument in pair)
        statuses.append(try_arguments(train.main, [*base, *(() if named else on_text), *pair], capsys, seconds=30))
        for path in tmp_path.iterdir():
            if path.is_file() and path not in kept:
                path.unlink()
        for path, content in kept.items():
            if path.read_bytes() != content:
                assert path.name == "run" or any(argument.endswith(f"={path.name}") for argument in pair), pair
                path.write_bytes(content)
    print(f"{len(pairs)} pairs: {statuses.count(0)} ran, {statuses.count(2)} were refused")
    assert statuses.count(0) > len(pairs) / 20


@pytest.mark.parametrize(("flag", "value"), [("--dataset", "nobody"), ("--step", "5"), ("--unknown", "1"), ("--schedule", "x")])
def test_unknown_flag_is_refused_in_one_line(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        train.main([f"{flag}={value}"])
    assert exit.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert flag in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--n-embd", "10"], "n_head must divide n_embd, got n_embd 10 and n_head 4"),
        (["--n-embd", "2000000000"], "at most 100,000,000 parameters"),
        (["--block-size", "2147483647"], "at most 100,000,000 parameters"),
        (["--data", "missing.txt"], "missing.txt: No such file or directory"),
        (["--data", "."], "./binary.txt is not UTF-8"),
        (["--data", "folder"], "folder is a folder without files"),
        (["--data", "empty.txt"], "at least 2 documents"),
        (["--data", "one.txt"], "it has 1"),
        (["--data", "aaa.txt"], "only 'a'"),
        (["--data", "binary.txt"], "not UTF-8"),
        (["--data", "good.txt", "--log", "missing/log"], "missing/log: No such file or directory"),
        (["--data", "good.txt", "--log", "good.txt"], "the same file"),
        (["--data", "good.txt", "--dataset", "makemore"], "not allowed with"),
        (["--data", "good.txt", "--save", "./good.txt"], "--data and --save are the same file, good.txt"),
        (["--data", "good.txt", "--plot", "good.txt"], "--data and --plot are the same file"),
        (["--save", "new", "--log", "folder/../new"], "--save and --log are the same file"),
        (["--log", "new", "--plot", "new"], "--log and --plot are the same file"),
        (["--save", "missing/new"], "missing/new: No such file or directory"),
        (["--save", "folder"], "folder: Is a directory"),
        (["--save", "link"], "Not an ordinary file"),
        (["--plot", "missing/new.png"], "missing/new.png: No such file or directory"),
        (["--plot", "folder"], "folder: Is a directory"),
        (["--save-every", "5"], "--save-every needs --save"),
        (["--patience", "5"], "--patience needs --validation"),
        (["--validation-every", "5"], "--validation-every needs --validation"),
        (["--validation", "1"], "--validation: needs a number of at least 0 and below 1, got '1'"),
        (["--validation", "0.5", "--data", "good.txt"], "--validation 0.5 holds out 1 of 2 documents, at least 2"),
        (["--batch-size", "3", "--data", "good.txt"], "--batch-size 3 is more than the 2 documents to train on"),
        (["--batch-size", "2147483647"], "--batch-size 2147483647 is more than the 32868 documents to train on"),
        (["--warmup", "30", "--steps", "20"], "--warmup 30 is more than the 20 steps"),
        (["--clip-grad", "1", "--learning-rate", "1e308"], "lower --learning-rate"),
        (["--learning-rate", "1e308"], "lower --learning-rate"),
        (["--learning-rate", "1e308", "--steps", "1"], "lower --learning-rate"),
        (["extra"], "unrecognized arguments: extra"),
        (["two\nlines"], "two lines"),
        (["--data", "two\nlines"], "two lines: No such file"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "one.txt").write_text("abc\n")
    (tmp_path / "aaa.txt").write_text("aaa\na\n")
    (tmp_path / "binary.txt").write_bytes(b"ab\n\xff\n")
    (tmp_path / "good.txt").write_text("ab\nba\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    files = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as exit:
        train.main([*arguments, "--quiet"])
    assert exit.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert words in err
    assert (tmp_path / "good.txt").read_text() == "ab\nba\n"
    assert sorted(tmp_path.iterdir()) == files


def test_no_network_names_the_way_out(tmp_path: Path) -> None:
    proxy = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "XDG_CACHE_HOME": str(tmp_path)}
    result = run("--dataset", "makemore", env=proxy)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "cannot download" in result.stderr
    assert "--data FILE" in result.stderr


def test_a_run_that_cannot_start_keeps_the_old_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("precious\n")
    assert run("--data", "missing.txt", "--log", str(log)).returncode == 2
    assert log.read_text() == "precious\n"


def heed_interrupts() -> None:
    """A shell starts its background jobs, and so all that they start, with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupt_ends_in_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    command = [sys.executable, "-m", "microgpt.train", "--steps", "1000000", "--log", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)
    while not (log.exists() and log.stat().st_size > 1000):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert re.fullmatch(r"interrupted after step \d+ of 1000000; nothing is saved without --save\n", err)
    assert all(json.loads(line) for line in log.read_text().splitlines())


def test_closed_pipe_is_no_traceback() -> None:
    result = subprocess.run(
        f"{sys.executable} -m microgpt.train --quiet | head -n 1", shell=True, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "num docs: 32868\n"
    assert result.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
def test_output_is_utf_8_whatever_the_locale(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("日本語\nçà\n本日\n", encoding="utf-8")
    command = [sys.executable, "-m", "microgpt.train", "--data", "text.txt", "--steps", "20"]
    outputs = set()
    for name in (encoding, "utf-8"):
        env = {**os.environ, "PYTHONIOENCODING": name}
        outputs.add(subprocess.run(command, capture_output=True, cwd=tmp_path, env=env, check=True).stdout)
    assert len(outputs) == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full"])
def test_closed_streams_are_no_traceback(closed: str, text: str) -> None:
    command = f"{sys.executable} -m microgpt.train --data {text} --steps 5 {closed}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr
    if closed.startswith("2"):
        assert len(result.stdout.splitlines()) == 25


def test_bar_on_a_terminal(text: str) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "microgpt.train", "--data", text, "--steps", "3000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, text=True)
    os.close(follower)
    out, _ = process.communicate(timeout=120)
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(leader)
    assert "loss=" in shown.decode()
    assert "steps/s" in shown.decode()
    assert out == run("--data", text, "--steps", "3000").stdout
