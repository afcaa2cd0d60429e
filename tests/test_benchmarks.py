"""The benchmarks: that they run, count, check and refuse, and that the README tells the figures they keep."""

from __future__ import annotations

import json
import random
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

import chain  # noqa: E402
import goals  # noqa: E402
import measure  # noqa: E402
import peers  # noqa: E402
import processes  # noqa: E402
import readme  # noqa: E402
import scaling  # noqa: E402
import training  # noqa: E402

KEPT: dict[str, Any] = json.loads((BENCHMARKS / "results.json").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

not_on_windows = pytest.mark.skipif(sys.platform == "win32", reason="reads the peak of resident memory")


def run(*arguments: str, status: int = 0) -> list[str]:
    """Run a benchmark. Return the lines of standard output, or of standard error where it is to fail."""
    command = [sys.executable, str(BENCHMARKS / arguments[0]), *arguments[1:]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == status, result.stderr
    return (result.stderr if status else result.stdout).splitlines()


def test_readme_tells_the_kept_figures() -> None:
    assert readme.fill(README, KEPT) == README, "run `python benchmarks/readme.py`"
    assert {name for name, _ in readme.FIGURE.findall(README)} == set(readme.FIGURES)


def test_readme_figures_stand_inside_lines() -> None:
    """At the start of a line a comment would end the paragraph."""
    assert not [line for line in README.splitlines() if line.lstrip().startswith("<!--")]
    assert README.count("<!--") == 2 * len(readme.FIGURE.findall(README))


def test_another_result_is_another_readme() -> None:
    other = json.loads(json.dumps(KEPT))
    other["training"]["engine"]["total"]["median"] = 7.125
    assert "<!--step-->7.12 ms<!--/-->" in readme.fill(README, other)
    with pytest.raises(KeyError, match="'no figure'"):
        readme.fill("<!--no figure-->1<!--/-->", KEPT)


def test_sections_run_and_report(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    sections = ("training", "shapes", "scaling", "peers")
    lines = run("run.py", "--rounds", "2", "--only", *sections, "--json", str(file))
    results = json.loads(file.read_text())
    assert set(results) == {"machine", *sections}
    assert list(tmp_path.iterdir()) == [file]
    step = results["training"]["engine"]
    assert step["total"]["count"] == 1000
    assert 0 < step["order"]["median"] < step["backward"]["median"]
    parts = sum(step[part]["median"] for part in ("forward", "order", "propagation", "adam"))
    assert parts == pytest.approx(step["total"]["median"], rel=0.5)
    assert results["training"]["twin"]["total"]["count"] == 4
    assert {(row["n_embd"], row["n_layer"]) for row in results["scaling"]["sizes"]} >= {(256, 1), (64, 4), (16, 4)}
    shown = lines[lines.index("goals") + 1 :]
    assert len([line for line in shown if line.endswith((" met", " missed"))]) == 7
    assert sum("control loop" in line for line in lines) == len(sections)


@not_on_windows
def test_processes_run_and_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "NODES", 200_000)
    monkeypatch.setenv("PATH", "")  # PyPy takes its time
    results = processes.run(2)
    assert results["command"]["seconds"]["median"] > 0.05
    assert 10 < results["command"]["megabytes"]["median"] < 1000
    assert results["chain"]["nodes"] == 200_000
    assert 20 < results["chain"]["bytes_per_node"] < 1000
    lines = list(processes.report(results))
    assert lines[-1] == "    PyPy is not on the path: left out"
    assert sum(line.startswith("    200000 nodes") for line in lines) == 1


@not_on_windows
def test_peak_is_not_that_of_the_process_that_started_this_one() -> None:
    hold = bytearray(b"x") * 300_000_000
    _, megabytes = processes.watch_command()
    assert len(hold) == 300_000_000
    assert megabytes < 200


def test_benchmark_of_scripts_runs() -> None:
    lines = run("script.py", "--rounds", "2", "--steps", "1")
    assert sum(line.strip().startswith("x * y + z") for line in lines) == 1
    assert sum(line.strip().startswith("forward, backward") for line in lines) == 2


@not_on_windows
def test_benchmark_of_a_chain_runs() -> None:
    lines = run("chain.py", "--nodes", "100000")
    assert lines[0].startswith("100000 nodes")


def test_chart_is_a_png_of_the_kept_results() -> None:
    code = f"import json, plot, sys; sys.stdout.buffer.write(plot.draw(json.load(open({str(BENCHMARKS / 'results.json')!r}))))"
    png = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=BENCHMARKS, check=True).stdout
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(png) > 10_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run.py", "--rounds", "1"], "whole number from 2 to 30, got '1'"),
        (["run.py", "--only", "nobody"], "invalid choice: 'nobody'"),
        (["run.py", "--json", "missing/results.json"], "its folder is missing"),
        (["run.py", "--json", "."], "it is a folder"),
        (["script.py", "--steps", "0"], "whole number from 1 to 100, got '0'"),
        (["chain.py", "--nodes", "many"], "got 'many'"),
        (["readme.py", "missing.json"], "missing.json: No such file"),
        (["readme.py", str(ROOT / "README.md")], "is no JSON text"),
        (["readme.py", "partial.json"], "lacks 'training'"),
        (["readme.py", "list.json"], "run benchmarks/run.py with all sections"),
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


def test_another_loss_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin with one weight of 4,192 a little off."""
    new_twin = training.new_twin

    def a_little_off(start: measure.Start, **options: bool) -> training.Runner:
        twin = new_twin(start, **options)
        weight = twin.model.state_dict["lm_head"][0][0]
        weight.data *= 1 + 1e-9
        return twin

    monkeypatch.setattr(training, "new_twin", a_little_off)
    with pytest.raises(AssertionError, match="the engines disagree"):
        training.run(2)


def test_another_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def peer(error: float) -> Any:
        forward, backward, value, gradient = peers.on_values(reference.Value)
        return lambda: (forward, backward, value, [gradient[0] + error, *gradient[1:]])

    monkeypatch.setattr(peers, "PEERS", {"json": lambda: peer(1e-12)})
    assert set(peers.run(2)["peers"]) == {"engine", "twin", "json None"}
    monkeypatch.setattr(peers, "PEERS", {"json": lambda: peer(1e-8)})
    with pytest.raises(AssertionError, match="json None gives"):
        peers.run(2)


def test_missing_package_is_left_out_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise OSError("libnothing.so: cannot open\nshared object")

    monkeypatch.setattr(peers, "PEERS", {"nothing_of_that_name": pytest.fail, "json": broken})
    lines = [line.strip() for line in peers.report(peers.run(2))]
    assert "left out, nothing_of_that_name: not installed" in lines
    assert "left out, json: installed, but cannot be loaded: libnothing.so: cannot open shared object" in lines


@pytest.mark.parametrize("positions", [1, 5, 8])
def test_multiply_adds_are_those_of_the_twin(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0
    dot = reference.dot

    def counting(w: Any, x: Any) -> Any:
        nonlocal counted
        counted += 0 if w is x else len(w)  # w is x: the square of a norm
        return dot(w, x)

    monkeypatch.setattr(reference, "dot", counting)
    twin = reference.GPT(5, random.Random(1), n_layer=2, n_embd=6, n_head=2, block_size=8)
    twin.loss([i % 5 for i in range(positions + 1)])
    config = microgpt.GPTConfig(5, n_layer=2, n_embd=6, n_head=2, block_size=8)
    assert scaling.multiply_adds(config, positions) == counted


def test_refused_backward_propagates_nothing() -> None:
    start = measure.start()
    orders = training.Orders(training.new_engine(start).model, start.documents)
    orders.run(3)
    assert len(orders.times) == 3
    assert not any(parameter.grad for parameter in orders.model.parameters())


def test_tasks_take_turns() -> None:
    order: list[str] = []
    controls = measure.take_turns(3, [lambda: order.append("a"), lambda: order.append("b")])
    assert order == ["a", "b"] * 3
    assert controls["count"] == 3
    assert controls["low"] > 0


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
    goal = goals.Goal("name", " ms", "training", lambda results: results["x"], 2.0, at_least)
    assert [goal.met(value) for value in values] == [True, True, False]


def test_goals_are_the_ones_stated() -> None:
    bounds = {goal.name: (goal.bound, goal.unit, goal.at_least) for goal in goals.GOALS}
    assert bounds == {
        "training step, median of 1000": (0.1, " ms", False),
        "twin / engine": (2500, " times", True),
        "twin, as microgpt.py / engine": (2500, " times", True),
        "twin, collector off / engine": (900, " times", True),
        "a multiply-add, width 256 to 64": (1.3, " times", False),
        "4 layers to 1, width 16": (4.2, " times", False),
        "4 layers to 1, width 64": (4.2, " times", False),
        "training command, CPU": (0.6, " s", False),
        "training command, peak memory": (40, " MB", False),
    }


def test_no_goal_is_invented_for_what_was_not_measured() -> None:
    assert list(goals.report({"machine": {}, "shapes": {}})) == []
    assert len(list(goals.report(KEPT))) == len(goals.GOALS)


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
