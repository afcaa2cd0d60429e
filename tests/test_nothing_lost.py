"""What a run has is kept: from other runs with the same file, from divergence, from full disks, from files of others."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Commands, in_process

from microgpt import checkpoint, data, files, progress, reference, resume, train
from microgpt.cli import run as run_command
from microgpt.train_flags import build_parser
from microgpt.trainer import Trainer

NAMES = "\n".join(data.load_names()[:60]) + "\n"
TINY = ["--data", "text", "--n-embd", 4, "--n-head", 2, "--block-size", 6, "--samples", 2, "--quiet"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "text").write_text(NAMES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def before_step(step: int, action: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen in the middle of a run."""
    original = Trainer.train_step

    def with_action(self: Trainer) -> float:
        if len(self.losses) + 1 == step:
            action()
        return original(self)

    monkeypatch.setattr(Trainer, "train_step", with_action)


def step_of(path: str) -> int:
    step: int = checkpoint.read(path)[1]["training"]["step"]
    return step


@pytest.mark.parametrize("save_every", [None, 4])
@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_a_file_that_another_run_has_written_is_not_replaced(
    save_every: int | None, resumed: bool, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.good("train", *TINY, "--steps", 10, "--save", "straight")
    if resumed:
        with monkeypatch.context() as patch:
            before_step(5, lambda: signal.raise_signal(signal.SIGTERM), patch)
            assert commands("train", *TINY, "--steps", 10, "--save", "run").status == 128 + signal.SIGTERM
    commands.good("train", *TINY, "--steps", 3, "--seed", 7, "--save", "other")
    other = Path("other").read_bytes()
    before_step(7, lambda: Path("run").write_bytes(other), monkeypatch)
    flags = ["--resume", "run", "--quiet"] if resumed else [*TINY, "--steps", 10, "--save", "run"]
    flags += [] if save_every is None else ["--save-every", save_every]
    result = commands("train", *flags)
    assert result.status == 0
    warning = "warning: another process has written run meanwhile, this run is saved to run-2\n"
    assert result.err == warning
    assert Path("run").read_bytes() == other
    assert Path("run-2").read_bytes() == Path("straight").read_bytes()
    assert sorted(os.listdir()) == ["other", "run", "run-2", "straight", "text"]


def test_a_file_that_was_written_since_it_was_read_is_not_replaced(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    commands.good("train", *TINY, "--steps", 5, "--save", "run")
    commands.good("train", *TINY, "--steps", 3, "--seed", 7, "--save", "other")
    other, settle = Path("other").read_bytes(), train.settle

    def while_it_starts(*arguments: Any) -> Any:
        Path("run").write_bytes(other)
        return settle(*arguments)

    monkeypatch.setattr(train, "settle", while_it_starts)
    result = commands("train", "--resume", "run", "--steps", 9, "--quiet")
    assert (result.status, "saved to run-2" in result.err) == (0, True)
    assert (Path("run").read_bytes(), step_of("run-2")) == (other, 9)


def test_two_runs_of_one_file_end_as_two_files(folder: Path) -> None:
    """In two shells: each goes on with the same interrupted run."""
    base = [str(x) for x in TINY]
    in_process("train", *base, "--steps", "400", "--schedule", "constant", "--save", "run", cwd=folder)
    command = [sys.executable, "-m", "microgpt.train", "--resume", "run", "--steps", "4000", "--save-every", "50", "--quiet"]
    both = [subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outcomes = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("this run is saved to run-2" in err for _, err in outcomes) == 1
    assert Path("run").read_bytes() == Path("run-2").read_bytes()
    assert step_of("run") == 4000


def test_a_known_file_is_known_by_more_than_its_name(folder: Path) -> None:
    path = folder / "file"
    known = files.Known(str(path))
    files.write_atomically(path, b"one", known)
    files.write_atomically(path, b"two", known)
    os.utime(path, ns=(0, 0))
    with pytest.raises(files.FileReplacedError, match=r"Another process has written this file meanwhile: '.*file'"):
        files.write_atomically(path, b"new", known)
    assert path.read_bytes() == b"two"
    path.unlink()
    files.write_atomically(path, b"new", known)  # nothing can be lost
    assert path.read_bytes() == b"new"
    assert os.listdir(folder) == ["file", "text"] or sorted(os.listdir(folder)) == ["file", "text"]


# The rate rises until a step takes away more than twice each weight: some 300 steps are well.
DIVERGE = ["--learning-rate", 0.1, "--weight-decay", 50.0, "--schedule", "constant", "--warmup", 800]


def test_a_run_that_diverges_is_kept_as_it_was_and_goes_on_with_a_lower_rate(commands: Commands) -> None:
    result = commands("train", *TINY, *DIVERGE, "--steps", 900, "--save", "run", "--plot", "plot.svg", "--log", "log")
    assert (result.status, result.err.count("\n")) == (2, 1)
    step = step_of("run")
    assert f"error: training diverged in step {len(Path('log').read_text().splitlines()) + 1} (" in result.err
    assert (
        f": saved as it was after step {step}; to go on: python -m microgpt.train --resume run --learning-rate 0.01 "
        in result.err
    )
    assert step >= 100
    tensors, _ = checkpoint.read("run")
    assert all(math.isfinite(x) for _, values in tensors.values() for x in values)
    assert b"mean loss" in Path("plot.svg").read_bytes()
    on = shlex.split(result.err.split("to go on: ")[1])[3:]
    assert commands("train", *on).status == 0
    assert step_of("run") == 900
    saved = resume.load("run")
    assert saved.metadata["training"]["phases"] == [[0, 900, 0.1], [step, 900, 0.01]]
    rates = [json.loads(line)["learning_rate"] for line in Path("log").read_text().splitlines()]
    assert rates == [reference.scheduled("constant", 0.1 if s < step else 0.01, s, 900, 800) for s in range(900)]
    settings: dict[str, Any] = {"n_embd": 4, "n_head": 2, "block_size": 6, "samples": 2, "weight_decay": 50.0, "warmup": 800}
    phases = [(0, 900, 0.1), (step, 900, 0.01)]
    twin = reference.train(NAMES.split(), **settings, steps=step + 3, schedule="constant", phases=phases)
    assert list(saved.tensors["training.losses"][1][: step + 3]) == twin.losses


def test_a_run_that_diverges_at_once_is_kept_at_its_start(commands: Commands) -> None:
    result = commands("train", *TINY, "--learning-rate", "1e300", "--steps", 9, "--save", "run")
    assert (result.status, step_of("run")) == (2, 0)
    on = shlex.split(result.err.split("to go on: ")[1])[3:]
    assert on[:4] == ["--resume", "run", "--learning-rate", "1e+299"]
    straight = commands.good("train", *TINY, "--steps", 9, "--save", "straight")
    assert commands.good("train", "--resume", "run", "--learning-rate", 0.01) == straight
    assert Path("run").read_bytes() == Path("straight").read_bytes()


def test_weights_that_are_not_finite_replace_no_file(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last step that diverges is noticed before the file is written."""
    original = Trainer.train_step

    def broken(self: Trainer) -> float:
        loss = original(self)
        if len(self.losses) == 8:
            self.model.wpe.data = [[math.nan] * 4] * 6
        return loss

    monkeypatch.setattr(Trainer, "train_step", broken)
    for flags in (["--steps", 8], ["--steps", 12, "--save-every", 8]):
        result = commands("train", *TINY, *flags, "--save", "new")
        assert (result.status, step_of("new")) == (2, 0)
        assert "training diverged (wpe is not finite after step 8): saved as it was after step 0" in result.err
        Path("new").unlink()
    result = commands("train", *TINY, "--steps", 8)
    assert (result.status, result.out.count("\n")) == (2, 5)


def test_more_steps_are_made_after_any_schedule_and_the_rates_are_told(commands: Commands) -> None:
    flags = [flag for flag in TINY if flag != "--quiet"]
    commands.good("train", *flags, "--steps", 10, "--save", "run")
    result = commands("train", "--resume", "run", "--steps", 20, "--log", "log")
    assert "the learning rate goes on as in a run of 20 steps: from 0.001 in the last step to 0.005\n" in result.err
    rates = [json.loads(line)["learning_rate"] for line in Path("log").read_text().splitlines()]
    assert rates == [0.01 * (1 - s / 10) for s in range(10)] + [0.01 * (1 - s / 20) for s in range(10, 20)]
    assert "--steps 19 contradicts run, a run with --steps 20; more can be asked for" in commands.refusal(
        "train", "--resume", "run", "--steps", 19
    )


def test_a_run_on_standard_input_says_what_it_takes_to_go_on(folder: Path) -> None:
    code = (
        "import signal, sys; from microgpt import train; from microgpt.trainer import Trainer; step = Trainer.train_step\n"
        "def stop(self):\n    if len(self.losses) == 4: signal.raise_signal(signal.SIGTERM)\n    return step(self)\n"
        "Trainer.train_step = stop; sys.exit(train.main(sys.argv[1:]))"
    )
    flags = ["--data", "-", *map(str, TINY[2:]), "--steps", "9", "--save", "run"]
    result = subprocess.run([sys.executable, "-c", code, *flags], input=NAMES, capture_output=True, text=True, timeout=60)
    assert result.returncode == 128 + signal.SIGTERM
    hint = "to go on, with the same text in a FILE, since standard input is gone: python -m microgpt.train --resume run --quiet"
    assert result.stderr == f"interrupted after step 5 of 9; {hint} --data FILE\n"
    again = in_process("train", "--resume", "run", cwd=folder)
    assert "error: -, the text of run, was standard input: say where with --data\n" in again.stderr
    piped = in_process("train", "--resume", "run", "--data", "-", "--quiet", cwd=folder, text=NAMES)
    assert (piped.returncode, piped.stderr) == (0, "")
    straight = in_process("train", *map(str, TINY), "--steps", "9", cwd=folder)
    assert piped.stdout == straight.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk as on Linux")
def test_the_stream_that_is_full_is_named(folder: Path) -> None:
    result = in_process("train", *map(str, TINY), "--steps", "9", "--log", "/dev/full", cwd=folder)
    assert (result.returncode, result.stderr) == (2, "python -m microgpt.train: error: /dev/full: No space left on device\n")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "microgpt.train", *map(str, TINY), "--steps", "9"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (
        2,
        "python -m microgpt.train: error: standard output: No space left on device",
    )


@pytest.mark.parametrize(("name", "content"), [("log", b"precious\n"), ("log", b'{"a": 1}\n'), ("log", b"\xff\xfe")])
def test_a_log_replaces_logs_only(name: str, content: bytes, commands: Commands) -> None:
    Path(name).write_bytes(content)
    words = "--log log would replace a file that is no log of a run: choose another file, or remove it first"
    assert words in commands.refusal("train", *TINY, "--steps", 2, "--log", name)
    assert Path(name).read_bytes() == content
    for content in (b"", b'{"step": 1, "loss": 3.2, "learning_rate": 0.01, "positions": 3}\n{"ste'):
        Path(name).write_bytes(content)
        commands.good("train", *TINY, "--steps", 2, "--log", name)
        assert len(Path(name).read_text().splitlines()) == 2


@pytest.mark.parametrize("extension", ["png", "svg", "pdf", "eps", "jpg"])
def test_a_plot_replaces_plots_only(extension: str, commands: Commands) -> None:
    path = Path(f"plot.{extension}")
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.savefig(path)
    content = path.read_bytes()
    words = f"--plot {path} would replace a file "
    assert words in commands.refusal("train", *TINY, "--steps", 2, "--plot", path)
    assert path.read_bytes() == content
    path.unlink()
    commands.good("train", *TINY, "--steps", 2, "--plot", path)
    again = commands("train", *TINY, "--steps", 3, "--plot", path)
    assert again.status == (2 if extension == "jpg" else 0)  # which keeps no mark, so nothing tells it from other pictures


@pytest.mark.parametrize(("name", "value"), [("MININTERVAL", "abc"), ("BAR_FORMAT", "{nothing}"), ("NCOLS", "x"), ("ASCII", "")])
def test_no_variable_of_tqdm_ends_in_a_traceback(name: str, value: str, folder: Path) -> None:
    pty = pytest.importorskip("pty", reason="terminals as on Unix")
    leader, follower = pty.openpty()
    env = {**os.environ, f"TQDM_{name}": value}
    command = [sys.executable, "-m", "microgpt.train", *map(str, TINY[:-1]), "--steps", "50"]
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=follower, text=True)
    os.close(follower)
    out, _ = process.communicate(timeout=120)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert (process.returncode, "Traceback" in shown) == (0, False), shown
    assert len(out.splitlines()) == 7
    if name in ("MININTERVAL", "BAR_FORMAT"):
        assert f"warning: no bar, because of TQDM_{name}: " in shown


def test_in_a_notebook_the_bar_is_its_widget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    made: list[bool] = []

    class Drawn:
        def __init__(self, **options: Any) -> None:
            assert options["total"] == 7

        def __enter__(self) -> Drawn:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: int) -> None:
            made.append(True)

    monkeypatch.setattr(progress, "bar_class", lambda notebook: Drawn if notebook else None)
    with progress.bar(7, 0, "steps", quiet=False) as shown:
        shown.update()
    assert made == [True]
    with progress.bar(7, 0, "steps", quiet=True) as shown:
        shown.update()
    assert made == [True]


def test_nobody_pays_for_a_bar_that_is_not_seen(folder: Path) -> None:
    code = "import sys; from microgpt import train; train.main(sys.argv[1:]); assert 'tqdm' not in sys.modules"
    command = [sys.executable, "-c", code, *map(str, TINY[:-1]), "--steps", "2"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60)
    assert result.returncode == 0, result.stderr


def test_flags_may_stand_in_a_file(commands: Commands) -> None:
    flags = " ".join(map(str, TINY))
    Path("flags.txt").write_text(f"{flags}  # the model\n\n--steps 3\n--data 'text'\n")
    expected = commands.good("train", *TINY, "--steps", 3, "--seed", 5)
    assert commands.good("train", "@flags.txt", "--seed", 5) == expected
    Path("flags.txt").write_text("--data 'text\n")
    assert "in a file of flags: No closing quotation" in commands.refusal("train", "@flags.txt")
    assert "No such file" in commands.refusal("train", "@missing")
    Path("deep.txt").write_text("@flags.txt\n")
    assert "No closing quotation" in commands.refusal("train", "@deep.txt")


def test_an_error_without_a_file_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(SystemExit, match="2"):
        run_command(build_parser, fail, [])
    assert capsys.readouterr().err == "python -m microgpt.train: error: [Errno 5] Input/output error\n"
