"""The benchmarks: that they run, count, check and refuse, and that the README tells the figures they keep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import microgpt
from microgpt import reference

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import by_hand  # noqa: E402
import chain  # noqa: E402
import measure  # noqa: E402
import peers  # noqa: E402
import readme  # noqa: E402
import run as runner  # noqa: E402
import script  # noqa: E402
import workloads  # noqa: E402

KEPT: dict[str, Any] = json.loads((BENCHMARKS / "results.json").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

not_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="reads the peak of resident memory")


def run(*arguments: str, status: int = 0, output: bool = False) -> list[str]:
    """Run a benchmark. Return the lines of standard output, or of standard error where it is to fail."""
    command = [sys.executable, str(BENCHMARKS / arguments[0]), *arguments[1:]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == status, result.stderr
    return (result.stdout if output or not status else result.stderr).splitlines()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps, and a compiler that takes less time."""
    monkeypatch.setattr(chain, "NODES", 200_000)
    monkeypatch.setattr(by_hand, "FLAGS", ("-O1", *by_hand.FLAGS[1:]))
    for constant, less in {"LINES": 3, "OFTEN": 1, "SELDOM": 2}.items():
        monkeypatch.setattr(workloads, constant, less)
    monkeypatch.setattr(script, "STEPS", 1)


def test_readme_tells_the_kept_figures() -> None:
    assert readme.fill(README, KEPT) == README, "run `python benchmarks/readme.py`"
    assert {name for name, _ in readme.FIGURE.findall(README)} == set(readme.FIGURES)


def test_readme_figures_stand_inside_lines() -> None:
    """At the start of a line a comment would end the paragraph."""
    assert not [line for line in README.splitlines() if line.lstrip().startswith("<!--")]
    assert README.count("<!--") == 2 * len(readme.FIGURE.findall(README))


def test_another_result_is_another_readme() -> None:
    other = json.loads(json.dumps(KEPT))
    other["step"]["figure"]["median"] = 7.125
    assert "<!--step-->7.12 ms<!--/-->" in readme.fill(README, other)
    with pytest.raises(KeyError, match="'no figure'"):
        readme.fill("<!--no figure-->1<!--/-->", KEPT)


def test_workloads_run_in_processes_and_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    names = ("step", "layers-16", "mixed", "script", "operators")
    lines = run("run.py", "--rounds", "2", "--only", *names, "--against", sys.executable, "--json", str(file))
    results = json.loads(file.read_text())
    assert set(results) == {"machine", *names}
    assert list(tmp_path.iterdir()) == [file]
    assert results["step"]["figure"]["count"] == 200  # of two rounds, the first one not counted
    assert 0.005 < results["step"]["figure"]["median"] < 10
    assert 1 < results["layers-16"]["best"] < 100
    assert 0.2 < results["mixed"]["figure"]["median"] < 5  # one microgpt, beside itself
    assert results["script"]["sides"][0]["median"] > results["script"]["sides"][1]["median"]
    assert set(results["operators"]) == set(script.OPERATIONS)
    assert len([line for line in lines if line.endswith((" met", " missed"))]) == 3
    assert sum("control loop" in line for line in lines) == 1
    assert sum(line.startswith("x * y + z") for line in lines) == 1


@pytest.mark.parametrize("name", [name for name in workloads.TABLE if not name.startswith("peer-") and "bytes" not in name])
@pytest.mark.usefixtures("small")
def test_every_workload_measures(name: str) -> None:
    measured = next(workloads.TABLE[name].make())
    match measured:
        case [*values]:
            assert all(value > 0 for value in values if not isinstance(value, str))
        case value:
            assert value > 0


@not_on_windows
def test_memory_is_that_of_the_workload() -> None:
    hold = bytearray(b"x") * 300_000_000
    assert 10 < next(workloads.job_memory()) < 200, "not that of the process that started it"
    worker = runner.Worker(sys.executable, "composite-bytes")
    assert 20 < worker.measure()["values"][0] < 200
    worker.close()
    assert len(hold) == 300_000_000


@not_on_windows
def test_a_command_that_fails_is_no_figure() -> None:
    assert 0 < next(workloads.command("-c", "pass")) < 10
    with pytest.raises(AssertionError, match="ended with"):
        next(workloads.command("-c", "1 / 0"))


def test_without_another_microgpt_no_goal_is_told() -> None:
    figure = {"median": 2.0, "low": 1.0, "high": 3.0, "count": 3}
    assert "--against" in runner.report("mixed", {"figure": figure, "best": 1.0})
    assert runner.report("mixed", {"figure": figure, "best": 1.0, "sides": []}).endswith("at most 1 times      missed")


@not_on_windows
def test_another_microgpt_with_other_results_is_noticed(tmp_path: Path) -> None:
    other = tmp_path / "python"
    answer = json.dumps({"values": [1.0], "result": "0x1p+0"})
    other.write_text(f"#!/bin/sh\nwhile read line; do echo '{answer}'; done\n")
    other.chmod(0o755)
    lines = run("run.py", "--rounds", "2", "--only", "mixed", "--against", str(other), status=1, output=True)
    assert sum("FAILED   the results of the two differ" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ("raise OSError('libnothing.so: cannot open')", 0, "left out   OSError: libnothing.so: cannot open"),
        ("raise ImportError('no torch here')", 0, "left out   ImportError: no torch here"),
        ("def set_num_threads(n): raise ValueError('of another kind')", 1, "FAILED   ValueError: of another kind"),
    ],
)
def test_what_cannot_be_loaded_is_left_out_and_what_fails_fails(
    content: str, status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lines = run("run.py", "--rounds", "2", "--only", "peer-torch", "peer-twin", status=status, output=True)
    assert sum(words in line for line in lines) == 1
    assert sum("twin beside the engine" in line for line in lines) == 1


def test_benchmark_of_a_chain_runs() -> None:
    lines = run("chain.py")
    assert lines[0].startswith("10,000,000 nodes")
    assert lines[1].startswith("build")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run.py", "--rounds", "1"], "whole number from 2 to 30, got '1'"),
        (["run.py", "--only", "nobody"], "invalid choice: 'nobody'"),
        (["run.py", "--json", "missing/results.json"], "its folder is missing"),
        (["run.py", "--json", "."], "it is a folder"),
        (["script.py", "--rounds", "many"], "got 'many'"),
        (["readme.py", "missing.json"], "missing.json: No such file"),
        (["readme.py", str(ROOT / "README.md")], "is no JSON text"),
        (["readme.py", "partial.json"], "lacks 'step'"),
        (["readme.py", "list.json"], "run benchmarks/run.py with all workloads"),
    ],
)
def test_mistake_is_refused_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "partial.json").write_text("{}")
    (tmp_path / "list.json").write_text("[]")
    (line,) = run(*arguments, status=2)
    assert words in line
    assert (ROOT / "README.md").read_text(encoding="utf-8") == README


def slightly_off(model: Any) -> None:
    """Change one weight of a GPT."""
    weight = model.state_dict()["lm_head"][0][0]
    weight.data *= 1 + 1e-6


@pytest.mark.parametrize("name", ["c", "numpy-64", "twin", "script"])
@pytest.mark.usefixtures("small")
def test_another_loss_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine's side, or for the script the twin's, starts with one weight a little off."""
    next(workloads.TABLE[name].make())
    step, loss_of = microgpt.GPT.loss, script.script.loss_of

    def loss(model: Any, tokens: Any) -> Any:
        slightly_off(model)
        return step(model, tokens)

    def script_loss(weights: Any, tokens: Any) -> Any:
        if isinstance(weights["lm_head"][0][0], reference.Value):
            weights["lm_head"][0][0].data += 1e-6
        return loss_of(weights, tokens)

    monkeypatch.setattr(microgpt.GPT, "loss", loss)
    monkeypatch.setattr(script.script, "loss_of", script_loss)
    with pytest.raises(AssertionError, match=r"disagree|differ|loss in numpy"):
        next(workloads.TABLE[name].make())


def test_another_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def peer(error: float) -> Any:
        took, value, gradient = peers.on_values(reference.Value)
        return lambda: (took, value, [gradient[0] + error, *gradient[1:]])

    monkeypatch.setitem(peers.LOADERS, "torch", lambda: peer(1e-12))
    assert next(peers.beside("torch")) > (0, 0)
    monkeypatch.setitem(peers.LOADERS, "torch", lambda: peer(1e-8))
    with pytest.raises(AssertionError, match="torch gives"):
        next(peers.beside("torch"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0], (3, 3, 3)),
        ([1.0, 2.0], (1.25, 1.5, 1.75)),
        ([5.0, 1.0, 4.0, 2.0, 3.0], (2, 3, 4)),
        ([0.0] * 9 + [100.0], (0, 0, 0)),
    ],
)
def test_spread_is_median_and_middle_half(values: list[float], expected: tuple[float, ...]) -> None:
    result = measure.spread(values)
    assert (result["low"], result["median"], result["high"], result["count"]) == (*expected, len(values))


@pytest.mark.parametrize(("at_least", "values"), [(False, [1.9, 2.0, 2.1]), (True, [2.1, 2.0, 1.9])])
def test_goal_is_met_up_to_its_bound(at_least: bool, values: list[float]) -> None:
    workload = workloads.Workload("title", lambda: iter(()), 2.0, at_least=at_least)
    assert [runner.met(workload, value) for value in values] == [True, True, False]


def test_goals_are_the_ones_stated() -> None:
    goals = {name: (w.bound, w.unit.strip(), w.at_least) for name, w in workloads.TABLE.items() if w.bound is not None}
    names = "c lengths text long numpy-64 numpy-256 batch models graph equation mixed python script-step chain first width"
    bounds = [1.8, 1.3, 0.4, 4.5, 1.0, 1.5, 5, 1.3, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 1.3]
    assert goals == {
        **{name: (bound, "times", False) for name, bound in zip(names.split(), bounds, strict=True)},
        "layers-16": (4.2, "times", False),
        "layers-64": (4.2, "times", False),
        "step": (0.1, "ms", False),
        "twin": (2500, "times", True),
        "twin-microgpt": (2500, "times", True),
        "twin-alone": (900, "times", True),
        "composite-bytes": (30, "bytes", False),
        "chain-bytes": (49, "bytes", False),
        "memory": (30, "MB", False),
        "command": (0.6, "s", False),
        "start": (0.095, "s", False),
    }


def test_an_ordinary_text_trains_to_a_validation_loss(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    lines = run("validation.py", "--steps", "30", "--sizes", "1x8x8x2", "--characters", "20000", "--json", str(file))
    result = json.loads(file.read_text())["1x8x8x2"]
    assert result["microgpt"]["step"]["count"] == 30
    assert 0 < result["microgpt"]["seconds"] < 30
    assert result["microgpt"]["last"] <= result["loss"] < 4.6  # below that of even chances
    assert any(f"{result['loss']:.4f} after" in line for line in lines)
    assert "needs LAYERSxWIDTHxBLOCKxBATCH, got '8x8'" in run("validation.py", "--sizes", "8x8", status=2)[-1]
    text = run("ordinary.py", "--size", "5000")
    assert len("\n".join(text)) == 5000
    assert run("ordinary.py", "--size", "5000") == text
    assert "this Python brings" in run("ordinary.py", "--size", "2000000000", status=2)[0]
