"""Stop and go on, from outside: signals, files, refusals. Whatever stopped a run, the resumed one equals the straight one."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from process import printed_by

from microgpt import GPT, CharTokenizer, checkpoint, data, resume, train
from microgpt.trainer import Trainer

pytest.importorskip("fcntl", reason="signals as on Unix")

TEXT = "\n".join(data.load_names()[:80])
TINY = ["--data", "text.txt", "--n-embd", "4", "--n-head", "2", "--block-size", "6", "--samples", "3", "--temperature", "0.8"]
ALL = [
    "--batch-size", "2", "--validation", "0.2", "--validation-every", "5", "--patience", "3", "--weight-decay", "0.1",
    "--clip-grad", "1.0", "--schedule", "cosine", "--warmup", "4",
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int | str | None, list[str], str]]:
    """The command in this process: its exit status, lines of standard output, and standard error."""

    def call(*arguments: str) -> tuple[int | str | None, list[str], str]:
        capsys.readouterr()
        try:
            status: int | str | None = train.main(arguments)
        except SystemExit as exit:
            status = exit.code
        out, err = capsys.readouterr()
        return status, out.splitlines(), err

    return call


def signal_after(step: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process get a signal while it is in a training step."""
    original = Trainer.train_step

    def with_signal(self: Trainer) -> float:
        if len(self.losses) + 1 == step:
            signal.raise_signal(number)
        return original(self)

    monkeypatch.setattr(Trainer, "train_step", with_signal)


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Signals as in a terminal: a shell starts its background jobs with SIGINT ignored, nohup all with SIGHUP."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGHUP, before[1])


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        ([*ALL, "--steps", "24"], (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
        (["--steps", "110", "--n-layer", "2"], (signal.SIGTERM,)),
        (["--steps", "20", "--schedule", "constant", "--validation", "0.1"], (signal.SIGINT,)),
    ],
    ids=["all", "layers", "constant"],
)
def test_interrupted_at_every_step_then_resumed(flags: list[str], numbers: list[int], main: Any) -> None:
    files = ["--save", "a.safetensors", "--log", "a.jsonl"]
    status, straight, _ = main(*TINY, *flags, *files)
    assert status == 0
    steps = len(Path("a.jsonl").read_text().splitlines())
    tried = 0
    for number in numbers:
        for step in range(1, steps + 1, 1 if steps < 50 else 7):
            with pytest.MonkeyPatch.context() as patch:
                signal_after(step, number, patch)
                status, before, err = main(*TINY, *flags, "--save", "b.safetensors", "--log", "b.jsonl", "--quiet")
            assert status == 128 + number
            assert err.count("\n") == 1
            assert f"interrupted after step {step} of" in err
            command = shlex.split(err.split("to go on: ")[1])
            assert command[:3] == ["python", "-m", "microgpt.train"]
            # The log may have got further than the checkpoint, or be torn.
            Path("b.jsonl").write_text(Path("b.jsonl").read_text() + '{"step": 99, "lo')
            status, after, err = main(*command[3:])
            assert (status, err) == (0, "")
            assert after[:3] == before[:3] == straight[:3]
            assert before + after[3:] == straight
            assert Path("b.jsonl").read_bytes() == Path("a.jsonl").read_bytes()
            assert Path("b.safetensors").read_bytes() == Path("a.safetensors").read_bytes()
            tried += 1
    print(f"interrupted and resumed {tried} runs")
    assert tried > 15


def heed_signals() -> None:
    """A shell starts its background jobs, and so all that they start, with SIGINT ignored, nohup with SIGHUP."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def popen(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals)


def start(*arguments: str) -> subprocess.Popen[str]:
    return popen([sys.executable, "-m", "microgpt.train", *TINY, *arguments])


def wait_for(process: subprocess.Popen[str], path: str, size: int = 1) -> None:
    while not (os.path.exists(path) and os.path.getsize(path) >= size):
        time.sleep(0.005)
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_from_outside_then_resumed(number: int, main: Any) -> None:
    flags = [*ALL[:4], "--steps", "4000", "--validation-every", "50"]
    _, straight, _ = main(*TINY, *flags, "--save", "a.safetensors", "--log", "a.jsonl")
    process = start(*flags, "--save", "b.safetensors", "--log", "b.jsonl")
    stops = 0
    out: list[str] = []
    for size in (1_000, 10_000, 30_000, 60_000, 10**9):
        if size < 10**9:
            wait_for(process, "b.jsonl", size)
            process.send_signal(number)
        lines, err = process.communicate(timeout=120)
        out += lines.splitlines()[3 if out else 0 :]
        if process.returncode == 0:
            break
        assert process.returncode == 128 + number
        stops += 1
        command = [sys.executable, *shlex.split(err.splitlines()[-1].split("to go on: ")[1])[1:]]
        Path("b.jsonl").unlink()
        process = popen(command)
    print(f"stopped {stops} times")
    assert stops >= 3
    assert out == straight
    assert Path("b.jsonl").read_bytes() == Path("a.jsonl").read_bytes()
    assert Path("b.safetensors").read_bytes() == Path("a.safetensors").read_bytes()


def test_second_interrupt_stops_at_once() -> None:
    """In the middle of a step that takes many seconds. The process tells when it is in the step, and when it noted the first."""
    code = """
import signal, sys
from pathlib import Path
from microgpt import train
from microgpt.trainer import Trainer

step, set_handler = Trainer.train_step, signal.signal

def told_step(self):
    Path("in_step").touch()
    return step(self)

def told_handler(number, handler):
    before = set_handler(number, handler)
    if number == signal.SIGINT and handler is signal.default_int_handler:
        Path("noted").touch()
    return before

Trainer.train_step, signal.signal = told_step, told_handler
sys.exit(train.main(sys.argv[1:]))
"""
    flags = ["--quiet", "--steps", "10", "--batch-size", "64", "--n-layer", "8000", "--save", "a.safetensors", "--log", "a.jsonl"]
    process = popen([sys.executable, "-c", code, *TINY, *flags])
    wait_for(process, "in_step", 0)
    process.send_signal(signal.SIGINT)
    wait_for(process, "noted", 0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert os.path.getsize("a.jsonl") == 0
    assert not os.path.exists("a.safetensors")


def test_killed_run_goes_on_from_its_last_save(main: Any) -> None:
    flags = [*ALL[:4], "--steps", "1500", "--validation-every", "50"]
    _, straight, _ = main(*TINY, *flags, "--save", "a.safetensors", "--log", "a.jsonl")
    saves: list[int] = []
    while len(saves) < 4:
        process = start(*flags, "--save", "b.safetensors", "--log", "b.jsonl", "--save-every", "7", "--quiet")
        wait_for(process, "b.safetensors")
        time.sleep(0.02 * len(saves))
        process.kill()
        process.communicate()
        if process.returncode == 0:
            continue  # it was done before
        saves.append(checkpoint.read("b.safetensors")[1]["training"]["step"])
        status, out, _ = main("--resume", "b.safetensors", "--log", "b.jsonl", "--save-every", "7")
        assert status == 0
        assert out[-3:] == straight[-3:]
        assert Path("b.jsonl").read_bytes() == Path("a.jsonl").read_bytes()
        assert Path("b.safetensors").read_bytes() == Path("a.safetensors").read_bytes()
        os.unlink("b.safetensors")
    print(f"killed after the saves of steps {saves}")
    assert all(step % 7 == 0 for step in saves)


def test_ignored_interrupts_stay_ignored() -> None:
    command = f"trap '' INT; exec {sys.executable} -m microgpt.train {shlex.join(TINY)} --steps 3000 --log a.jsonl --quiet"
    process = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(process, "a.jsonl", 1000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")


def test_reader_that_goes_away_does_not_cost_the_training() -> None:
    command = f"{sys.executable} -m microgpt.train {shlex.join(TINY)} --steps 100000 --save a.safetensors --quiet | head -n 4"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert (result.stdout.count("\n"), result.stderr) == (4, "")
    assert checkpoint.read("a.safetensors")[1]["training"]["step"] >= 199


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk as on Linux")
def test_full_disk_of_the_log_does_not_cost_the_training(main: Any) -> None:
    status, _, err = main(*TINY, "--steps", "9", "--save", "a.safetensors", "--log", "/dev/full", "--quiet")
    assert (status, err.count("\n")) == (2, 1)
    assert "No space left on device" in err
    status, out, _ = main("--resume", "a.safetensors", "--log", "a.jsonl")
    _, straight, _ = main(*TINY, "--steps", "9", "--save", "b.safetensors", "--log", "b.jsonl")
    assert (status, out) == (0, straight)
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()


def test_what_is_worth_keeping_is_not_replaced(main: Any) -> None:
    Path("poem.txt").write_text("not a run")
    status, _, err = main(*TINY, "--save", "poem.txt")
    assert (status, err.count("\n")) == (2, 1)
    assert "poem.txt would replace a file that is no training run" in err
    process = start("--steps", "100000", "--save", "a.safetensors", "--save-every", "10", "--quiet")
    while not os.path.exists("a.safetensors"):
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=120)
    before = Path("a.safetensors").read_bytes()
    status, _, err = main(*TINY, "--save", "a.safetensors")
    assert (status, err.count("\n")) == (2, 1)
    assert "a.safetensors would replace a run stopped at step" in err
    assert Path("a.safetensors").read_bytes() == before
    for _ in range(2):  # a finished run can be made again
        assert main(*TINY, "--steps", "2", "--save", "b.safetensors")[0] == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk as on Linux")
def test_full_disk_of_standard_output_is_told_in_one_line() -> None:
    command = [sys.executable, "-m", "microgpt.train", "--data", "text.txt", "--steps", "5", "--quiet"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr == "python -m microgpt.train: error: standard output: No space left on device\n"


def test_samples_are_printed_though_the_run_cannot_be_saved(main: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, *_: Any) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(resume, "save", full)
    status, out, err = main(*TINY, "--steps", "3", "--save", "a.safetensors", "--samples", "2", "--quiet")
    assert (status, err) == (2, "python -m microgpt.train: error: a.safetensors: No space left on device\n")
    assert out[-1].startswith("sample  2: ")


def test_interrupt_while_sampling_loses_nothing(main: Any) -> None:
    process = start("--steps", "5", "--save", "a.safetensors", "--quiet", "--samples", "100000000")
    assert process.stdout is not None
    while "sample 10:" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert "finished" in main("--resume", "a.safetensors", "--samples", "1")[2]


def test_terminal_that_goes_away_is_an_interrupt() -> None:
    import pty

    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "microgpt.train", *TINY, "--steps", "1000000", "--save", "a.safetensors", "--log", "a.jsonl"]
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True)
    os.close(follower)
    wait_for(process, "a.jsonl", 1000)
    os.close(leader)
    process.send_signal(signal.SIGHUP)  # as the kernel does where the terminal is the controlling one
    # 2 where a line of loss fails first; the signal itself where it comes after that, when the run is saved.
    assert process.wait(timeout=120) in (2, 128 + signal.SIGHUP, -signal.SIGHUP)
    assert checkpoint.read("a.safetensors")[1]["training"]["step"] > 0


def test_handlers_are_those_of_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert train.main([*TINY, "--steps", "3"]) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_training_in_another_thread_leaves_signals_alone(main: Any) -> None:
    code = f"""
import threading
from microgpt import train
thread = threading.Thread(target=train.main, args=({[*TINY, "--steps", "3", "--quiet"]!r},))
thread.start()
thread.join()
"""
    lines = printed_by(code).splitlines()
    assert len(lines) == 8
    assert main(*TINY, "--steps", "3")[1] == lines


def test_finished_run_prints_its_samples_again(main: Any) -> None:
    _, straight, _ = main(*TINY, *ALL, "--steps", "12", "--save", "a.safetensors")
    content, changed = Path("a.safetensors").read_bytes(), os.stat("a.safetensors").st_mtime_ns
    status, again, err = main("--resume", "a.safetensors", "--log", "a.jsonl")
    assert status == 0
    assert again == straight[:3] + straight[-4:]
    assert "a.safetensors is at step 12: finished, only samples remain" in err
    assert [json.loads(line)["step"] for line in Path("a.jsonl").read_text().splitlines()] == list(range(1, 13))
    status, again, _ = main("--resume", "a.safetensors", "--samples", "1")
    assert again == straight[:3] + straight[-4:-2]
    assert (Path("a.safetensors").read_bytes(), os.stat("a.safetensors").st_mtime_ns) == (content, changed)


def test_resume_can_save_elsewhere(main: Any) -> None:
    main(*TINY, "--steps", "9", "--save", "a.safetensors")
    main(*TINY, "--steps", "9", "--resume", "a.safetensors", "--save", "b.safetensors")
    assert Path("b.safetensors").read_bytes() == Path("a.safetensors").read_bytes()


def test_more_steps_where_the_schedule_is_constant(main: Any) -> None:
    flags = [*TINY, "--schedule", "constant", "--validation", "0.2", "--validation-every", "4"]
    _, straight, _ = main(*flags, "--steps", "20", "--save", "a.safetensors", "--log", "a.jsonl")
    main(*flags, "--steps", "10", "--save", "b.safetensors")
    status, out, err = main("--resume", "b.safetensors", "--steps", "9")
    assert (status, out) == (2, [])
    assert "--steps 9 contradicts b.safetensors, a run with --steps 10" in err
    status, out, _ = main("--resume", "b.safetensors", "--steps", "20", "--log", "b.jsonl")
    assert (status, out) == (0, straight[:3] + straight[5:])
    assert Path("b.jsonl").read_bytes() == Path("a.jsonl").read_bytes()
    assert Path("b.safetensors").read_bytes() == Path("a.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "19"], "--steps 19 contradicts a.safetensors, a run with --steps 20; more can be asked for"),
        (["--seed", "1"], "--seed 1 contradicts a.safetensors, a run with --seed 42"),
        (["--n-embd", "8"], "--n-embd 8 contradicts a.safetensors, a run with --n-embd 4"),
        (["--patience", "3"], "--patience 3 contradicts a.safetensors, a run with no --patience"),
        (
            ["--learning-rate", "0.1"],
            "--learning-rate 0.1 contradicts a.safetensors, a run with --learning-rate 0.01; less can be asked for",
        ),
        (["--tie-weights"], "--tie-weights contradicts a.safetensors, a run with no --tie-weights"),
        (["--format", "text"], "--format text contradicts a.safetensors, a run with --format lines"),
        (["--init-from", "model.safetensors"], "--init-from model.safetensors is for a new run"),
        (["--schedule", "cosine"], "--schedule cosine contradicts a.safetensors, a run with --schedule linear"),
        (["--data", "other.txt"], "a.safetensors was trained on 80 other documents (sha256 "),
        (["--data", "order.txt"], "a.safetensors was trained on 80 other documents (sha256 "),
        (["--dataset", "names"], "than these 32868 ("),
        (["--log", "a.safetensors"], "--resume and --log are the same file, a.safetensors"),
        (["--resume", "model.safetensors"], "model.safetensors holds a model but no training run to resume"),
        (["--resume", "text.txt"], "text.txt is not a whole microgpt checkpoint: "),
        (["--resume", "missing"], "missing: No such file or directory"),
        (["--resume", "."], "Is a directory"),
        (["--resume", "half.safetensors"], "half.safetensors is not a whole microgpt checkpoint: "),
        (["--save", "missing/b"], "missing/b: No such file or directory"),
    ],
)
def test_resume_refuses_in_one_line(arguments: list[str], words: str, main: Any) -> None:
    main(*TINY, "--steps", "20", "--save", "a.safetensors")
    GPT.load("a.safetensors").save("model.safetensors")
    content = Path("a.safetensors").read_bytes()
    Path("half.safetensors").write_bytes(content[: len(content) // 2])
    Path("other.txt").write_text(TEXT + "\nanna\n", encoding="utf-8")
    Path("order.txt").write_text("\n".join(reversed(TEXT.split("\n"))), encoding="utf-8")
    files = sorted(os.listdir())
    status, out, err = main("--resume", "a.safetensors", *arguments)
    assert (status, out, err.count("\n")) == (2, [], 1)
    assert words in err
    assert Path("a.safetensors").read_bytes() == content
    assert sorted(os.listdir()) == files


def test_data_that_moved_are_named_anew(main: Any) -> None:
    _, straight, _ = main(*TINY, "--steps", "10", "--save", "a.safetensors")
    os.rename("text.txt", "moved.txt")
    assert "text.txt, the text of a.safetensors, is not there: say where with --data" in main("--resume", "a.safetensors")[2]
    assert main("--resume", "a.safetensors", "--data", "moved.txt")[1][-4:] == straight[-4:]


def test_run_whose_state_makes_no_sense_is_refused(main: Any) -> None:
    main(*TINY, *ALL, "--steps", "6", "--save", "a.safetensors")
    tensors, metadata = checkpoint.read("a.safetensors")
    run = metadata["training"]
    wrong: list[dict[str, Any]] = [{**run, name: value} for name in run for value in (None, 7, "x")]
    wrong += [{key: value for key, value in run.items() if key != name} for name in run if name != "phases"]  # of 0.1.0
    phases = [[], [[0, 6]], [[0, 7, 0.01]], [[1, 6, 0.01]], [[0, 9, 0.1], [7, 6, 0.01]], [[0, 9, -1.0], [2, 6, 0.01]], [3]]
    wrong += [{**run, "phases": value} for value in phases]
    wrong += [{**run, "settings": {**run["settings"], name: 2}} for name in ("unknown", "n_layer")]
    for training in wrong:
        checkpoint.write("b.safetensors", tensors, {**metadata, "training": training})
        status, out, err = main("--resume", "b.safetensors")
        assert (status, out, err.count("\n")) == (2, [], 1), (training, err)
    for name in [name for name in tensors if name.startswith(("adam.", "training."))]:
        checkpoint.write("b.safetensors", {key: t for key, t in tensors.items() if key != name}, metadata)
        status, out, err = main("--resume", "b.safetensors")
        assert (status, out, err.count("\n")) == (2, [], 1), (name, err)
    print(f"refused {len(wrong)} states and {len(tensors)} sets of tensors")


def test_checkpoint_is_a_model_as_well(main: Any) -> None:
    main(*TINY, *ALL, "--steps", "6", "--save", "a.safetensors")
    saved = resume.load("a.safetensors")
    documents = TEXT.split("\n")
    trainer = resume.restore(saved, saved.settings, documents)
    model, tokenizer = GPT.load("a.safetensors"), CharTokenizer.load("a.safetensors")
    assert [p.data for p in model.parameters()] == [p.data for p in trainer.model.parameters()]
    assert tokenizer.characters == trainer.tokenizer.characters
    names = [f"adam.{moment}.{name}" for moment in "mv" for name in model.state_dict()]
    assert sorted(saved.tensors) == sorted([*model.state_dict(), *names, "training.losses"])


def test_save_that_fails_on_the_way_is_told_and_the_run_goes_on(main: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = resume.save, []

    def full(*arguments: Any) -> None:
        calls.append(len(arguments[1].losses))
        if calls[-1] == 5:
            raise OSError(28, "No space left on device", "a.safetensors")
        original(*arguments)

    monkeypatch.setattr(resume, "save", full)
    status, out, err = main(*TINY, "--steps", "12", "--save", "a.safetensors", "--save-every", "5", "--quiet")
    assert (status, len(out), calls) == (0, 8, [5, 10, 12])
    assert err == "warning: not saved at step 5: a.safetensors: No space left on device\n"
