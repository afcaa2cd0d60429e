"""python -m microgpt.train, from outside: what it prints where, exit statuses, refusals in one line."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from microgpt import data, reference, train

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
    log = tmp_path / "log.jsonl"
    flags = {"steps": 30, "seed": 5, "n_layer": 2, "n_embd": 6, "n_head": 3, "block_size": 2, "samples": 4}
    arguments = [x for name, value in flags.items() for x in (f"--{name.replace('_', '-')}", str(value))]
    result = run("--data", text, *arguments, "--learning-rate", "0.02", "--temperature", "0.9", "--log", str(log))
    twin = reference.train(data.load_file(text), **flags, learning_rate=0.02, temperature=0.9)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["loss"].hex() for line in lines] == [loss.hex() for loss in twin.losses]
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert [line["learning_rate"] for line in lines] == [0.02 * (1 - s / 30) for s in range(30)]
    assert {line["positions"] for line in lines} == {2}
    assert [line.split(": ")[1] for line in result.stdout.splitlines()[-4:]] == twin.samples
    assert "warning: 5 of 5 documents are cut, block size 2 is too short" in result.stderr


def test_help_names_every_flag_with_its_default() -> None:
    result = run("--help")
    assert result.returncode == 0
    words = " ".join(result.stdout.split())
    for flag, default in [
        ("--steps", 1000), ("--seed", 42), ("--n-layer", 1), ("--n-embd", 16), ("--n-head", 4), ("--block-size", 16),
        ("--learning-rate", 0.01), ("--temperature", 0.5), ("--samples", 20), ("--dataset", "names"),
    ]:  # fmt: skip
        assert flag in words
        assert f"(default: {default})" in words
    assert "--data FILE" in words
    assert "--log FILE" in words
    assert "--quiet" in words


NOT_COUNTS = ["0", "-1", "1.5", "nan", "inf", "abc", "", "1" * 30, "1e3"]
NOT_POSITIVE = ["0", "-1", "nan", "inf", "-inf", "abc", "", "1e999"]


@pytest.mark.parametrize(
    ("flag", "value"),
    [(f"--{flag}", value) for flag in ("steps", "n-layer", "n-embd", "n-head", "block-size") for value in NOT_COUNTS]
    + [("--seed", value) for value in NOT_COUNTS[1:]]
    + [("--samples", value) for value in NOT_COUNTS[1:]]
    + [(f"--{flag}", value) for flag in ("learning-rate", "temperature") for value in NOT_POSITIVE]
    + [("--dataset", "nobody"), ("--step", "5"), ("--unknown", "1")],
)
def test_wrong_flag_is_refused_in_one_line(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
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
        (["--data", "."], "Is a directory"),
        (["--data", "empty.txt"], "at least 2 documents"),
        (["--data", "one.txt"], "it has 1"),
        (["--data", "aaa.txt"], "only 'a'"),
        (["--data", "binary.txt"], "not UTF-8"),
        (["--data", "good.txt", "--log", "missing/log"], "missing/log: No such file or directory"),
        (["--data", "good.txt", "--log", "good.txt"], "the same file"),
        (["--data", "good.txt", "--dataset", "makemore"], "not allowed with"),
        (["--learning-rate", "1e308"], "lower --learning-rate"),
        (["--learning-rate", "1e308", "--steps", "1"], "lower --learning-rate"),
        (["extra"], "unrecognized arguments: extra"),
        (["two\nlines"], "two lines"),
        (["--data", "two\nlines"], "two lines: No such file"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "one.txt").write_text("abc\n")
    (tmp_path / "aaa.txt").write_text("aaa\na\n")
    (tmp_path / "binary.txt").write_bytes(b"ab\n\xff\n")
    (tmp_path / "good.txt").write_text("ab\nba\n")
    result = run(*arguments, "--quiet", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert (tmp_path / "good.txt").read_text() == "ab\nba\n"


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
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "interrupted\n")
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
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
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
    out, _ = process.communicate(timeout=60)
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
