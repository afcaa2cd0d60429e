"""The goals, and whether they are met."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import measure


class Goal(NamedTuple):
    """A bound on one figure of the results."""

    name: str
    unit: str
    section: str
    value: Callable[[dict[str, Any]], float]  # out of the results of the section
    bound: float
    at_least: bool = False  # else at most

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


GOALS = (
    Goal("training step, median of 1000", " ms", "training", lambda r: r["engine"]["total"]["median"], 0.10),
    Goal("twin / engine", " times", "training", lambda r: r["ratios"]["twin"]["median"], 2500, True),
    Goal(
        "twin, as microgpt.py / engine", " times", "training", lambda r: r["ratios"]["twin, as microgpt.py"]["median"], 2500, True
    ),
    Goal("twin, collector off / engine", " times", "training", lambda r: r["ratios"]["twin, collector off"]["median"], 900, True),
    Goal("a multiply-add, width 256 to 64", " times", "scaling", lambda r: r["growth"]["width 256 to 64"]["median"], 1.3),
    Goal("4 layers to 1, width 16", " times", "scaling", lambda r: r["growth"]["layers 4 to 1 at 16"]["median"], 4.2),
    Goal("4 layers to 1, width 64", " times", "scaling", lambda r: r["growth"]["layers 4 to 1 at 64"]["median"], 4.2),
    Goal("training command, CPU", " s", "processes", lambda r: r["command"]["seconds"]["median"], 0.6),
    Goal("training command, peak memory", " MB", "processes", lambda r: r["command"]["megabytes"]["median"], 40),
)


def report(results: dict[str, Any]) -> Iterator[str]:
    """Return a line for each goal whose section was measured."""
    for goal in GOALS:
        if goal.section in results:
            value = goal.value(results[goal.section])
            bound = f"{'at least' if goal.at_least else 'at most'} {goal.bound:,g}{goal.unit}"
            digits = 0 if goal.bound >= 100 else 2
            shown = f"{value:,.{digits}f}{goal.unit}"
            yield f"    {goal.name:{measure.LABEL}}{shown:>14}   {bound:22} {'met' if goal.met(value) else 'missed'}"
