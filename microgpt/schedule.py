"""Learning rates over a run."""

from __future__ import annotations

import math

SCHEDULES = ("linear", "cosine", "constant")


def learning_rate(schedule: str, peak: float, step: int, steps: int, warmup: int = 0) -> float:
    """Return the learning rate of `step`, counted from 0, in a run of `steps`.

    In the first `warmup` steps it is peak * (step + 1) / warmup. Over the others, of which t = (step - warmup) / (steps - warmup)
    is the share that is done, it is peak * (1 - t) where linear, peak * (1 + cos(pi * t)) / 2 where cosine, peak where constant.
    """
    if step < warmup:
        return peak * ((step + 1) / warmup)
    if schedule == "constant":
        return peak
    t = (step - warmup) / (steps - warmup)
    return peak * (0.5 * (1 + math.cos(math.pi * t)) if schedule == "cosine" else 1 - t)
