"""Measure a training step of the compiled engine beside the same step of the pure-Python twin.

    python benchmarks/run.py [--rounds N]

One process, the engines in turn, the same documents, the same losses (checked). CPU time, medians with the middle half of the
values. The twin runs as it is, and with the cyclic garbage collector off, which microgpt.py never needs and pays for dearly.
"""

from __future__ import annotations

import argparse
import gc
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import microgpt
from microgpt import data, reference

STEPS = 1000  # of the run whose first steps are measured; sets the learning rate
ROUND = 2  # steps per round: the same documents for each runner
WARM_UP = 30  # steps of another model before the engine's, which would start with the twin's memory in the caches


class Times(NamedTuple):
    """CPU seconds of one step."""

    forward: float
    backward: float
    adam: float

    @property
    def total(self) -> float:
        return sum(self)


class Runner:
    """One engine in training, a step at a time."""

    def __init__(
        self,
        name: str,
        model: Any,
        optimizer: Any,
        documents: Sequence[Sequence[int]],
        *,
        collect: bool = True,
        keep: bool = False,
    ) -> None:
        self.name, self.model, self.optimizer, self.documents = name, model, optimizer, documents
        self.collect = collect  # whether the cyclic garbage collector runs
        self.keep = keep  # whether a loss lives until the next one replaces it, as a script's `loss` does
        self.kept: Any = None
        self.times: list[Times] = []
        self.losses: list[float] = []

    def run(self, steps: int) -> None:
        if not self.collect:
            gc.disable()
        for _ in range(steps):
            self.step()
        gc.enable()

    def step(self) -> None:
        s = len(self.losses)
        start = time.process_time()
        loss = self.model.loss(self.documents[s])
        made = time.process_time()
        loss.backward()
        differentiated = time.process_time()
        self.optimizer.step(0.01 * (1 - s / STEPS))
        self.losses.append(loss.data)
        if self.keep:
            self.kept = loss
        del loss  # the graph goes within the time of the step
        self.times.append(Times(made - start, differentiated - made, time.process_time() - differentiated))


def control() -> float:
    """CPU seconds of a fixed piece of plain Python, to tell a slow machine from a slow engine."""
    start = time.process_time()
    total = 0.0
    for i in range(1_000_000):
        total += i * 0.5
    return time.process_time() - start


def spread(values: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:10.3f}  [{low:.3f} .. {high:.3f}]"


def build() -> list[Runner]:
    """The runners, from the same seed, the engine first."""
    documents = data.load_names()

    def start(make: Callable[[int, random.Random], Any]) -> tuple[Any, list[list[int]]]:
        rng = random.Random(42)
        shuffled = documents.copy()
        rng.shuffle(shuffled)
        tokenizer = microgpt.CharTokenizer(shuffled)
        return make(tokenizer.vocab_size, rng), [tokenizer.encode(document) for document in shuffled[:STEPS]]

    runners = []
    for name, keep in (("engine", False), ("engine, loss kept", True)):
        model, tokens = start(lambda vocab_size, rng: microgpt.GPT(microgpt.GPTConfig(vocab_size), rng))
        runners.append(Runner(name, model, microgpt.Adam(model.parameters()), tokens, keep=keep))
    for name, collect in (("twin", True), ("twin, collector off", False)):
        twin, tokens = start(reference.GPT)
        runners.append(Runner(name, twin, reference.Adam(twin.parameters()), tokens, collect=collect))
    return runners


def report(engine: Runner, others: Sequence[Runner], controls: Sequence[float]) -> None:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"microgpt {microgpt.__version__}, {python}, {sys.platform}, {cpu()}")
    print(f"control loop: {spread([1000 * c for c in controls])} ms")
    print(f"{'CPU ms per step':24}    median  [middle half]")
    for runner in (engine, *others):
        for part in ("total", "forward", "backward", "adam"):
            times = [1000 * getattr(t, part) for t in runner.times]
            print(f"{runner.name if part == 'total' else '    ' + part:24}{spread(times)}")
    for other in others:
        ratios = [slow.total / fast.total for slow, fast in zip(other.times, engine.times, strict=True)]
        print(f"{other.name} / engine, same document: {spread(ratios)} times, {len(ratios)} steps")


def cpu() -> str:
    """Name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(": ")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a training step of the engine beside the pure-Python twin.")
    parser.add_argument("--rounds", type=int, default=15, choices=range(2, 31), metavar="N", help="2 to 30 (default: 15)")
    rounds = parser.parse_args().rounds
    warm_up = build()[0]
    engine, *others = build()
    controls = []
    for _ in range(rounds):
        controls.append(control())
        warm_up.run(WARM_UP)
        engine.run(ROUND)
        for other in others:
            other.run(ROUND)
    for other in others:
        assert other.losses == engine.losses, "the engines disagree"
    report(engine, others, controls)


if __name__ == "__main__":
    main()
