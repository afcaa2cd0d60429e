"""The picture of a run: what matters is in it, in sight, and told."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest

from microgpt import plot

pytest.importorskip("matplotlib")


def run(n: int) -> tuple[list[float], dict[int, float]]:
    """Noisy losses that fall, some single ones far off, and validations that rise again at the end."""
    rng = random.Random(n)
    losses = [2 + 2 / (1 + s / 50) + rng.gauss(0, 0.4) + 30 * (s > 20 and rng.random() < 0.01) for s in range(n)]
    every = max(1, n // 30)
    return losses, {s: 2 + 2 / (1 + s / 50) + abs(s - 0.8 * n) / n for s in range(every, n + 1, every)}


@pytest.mark.parametrize("log_x", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 300, 3000, 100_000])
def test_all_that_matters_is_in_sight(n: int, log_x: bool) -> None:
    losses, validations = run(n)
    made = plot.figure(losses, validations, "text", log_x=log_x)
    (axes,) = made.axes
    low, high = axes.get_ylim()
    curve = plot.summed_up(losses, log_x=log_x)
    assert low < min(curve.mean) <= max(curve.mean) < high
    assert all(low < loss < high for loss in validations.values())
    assert axes.get_xscale() == ("log" if log_x else "linear")
    if n >= 300:  # the peaks of single steps do not squeeze the curves
        assert high - low < 8
    lines = {str(line.get_label()): line for line in axes.lines}
    best = min(validations, key=lambda step: validations[step])
    star = lines.pop(f"best validation: {validations[best]:.4f} in step {best:,}")
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([best], [validations[best]])
    assert lines.keys() == {"mean loss", "validation"}
    made.draw_without_rendering()
    (legend,) = made.legends
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    inside = made.bbox
    assert all(
        inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in (legend.get_window_extent(), axes.title.get_window_extent())
    )


@pytest.mark.parametrize("log_x", [False, True])
def test_a_curve_is_the_mean_and_the_middle_half_around_each_step(log_x: bool) -> None:
    losses = [float(s % 7 + s) for s in range(900)]
    curve = plot.summed_up(losses, log_x=log_x)
    assert curve.steps == sorted(set(curve.steps))
    assert (curve.steps[0], curve.steps[-1]) == (1, 900)
    assert len(curve.steps) <= plot.POINTS
    for i in (0, len(curve.steps) // 2, len(curve.steps) - 1):
        step = curve.steps[i]
        half = max(900 / plot.PART, plot.FEWEST) / 2
        near = (step / plot.RATIO, step * plot.RATIO) if log_x else (step - half, step + half)
        around = sorted(losses[max(1, round(near[0])) - 1 : min(900, round(near[1]))])
        assert curve.mean[i] == pytest.approx(sum(around) / len(around))
        assert (curve.low[i], curve.high[i]) == (around[len(around) // 4], around[-1 - len(around) // 4])


def test_a_run_without_steps_or_validations_is_drawn() -> None:
    for losses in ([], [3.0], [3.0] * 50):
        assert plot.draw("x.png", losses, {}, "text").startswith(b"\x89PNG")


def test_a_name_is_shown_as_it_is(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = plot.draw("x.svg", [1.0, 2.0], {}, "$a^2$ 日本 \\x1b").decode()
    assert "$a^2$ 日本" in content
