"""What the benchmarks share: the clock, the control loop, medians, lines of a table, the main job's start, the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import random
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import microgpt
from microgpt import _tape, data

ROOT = Path(__file__).parent.parent
STEPS = 1000  # of the main job
LABEL = 74  # width of the first column
Spread = dict[str, float]  # median, low and high end of the middle half, count

# CPU time, not the time on the wall: other processes take turns on the same cores. Windows counts it in steps of 16 ms.
clock = time.perf_counter_ns if sys.platform == "win32" else time.process_time_ns


def spread(values: Sequence[float]) -> Spread:
    """Return the median of `values` and the ends of their middle half."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    return {"median": middle, "low": low, "high": high, "count": len(values)}


def line(label: str, values: Spread, unit: str = "") -> str:
    """Return one row of a table, with three digits that count or all before the point."""
    digits = next((digits for digits, bound in ((0, 100), (1, 10), (2, 1)) if values["median"] >= bound), 3)
    low, middle, high = (f"{values[key]:,.{digits}f}" for key in ("low", "median", "high"))
    return f"{label:{LABEL}}{middle + unit:>12}   {f'[{low} .. {high}]':22}"


def control() -> float:
    """Return the CPU milliseconds of a fixed piece of plain Python, which tell a slow machine from a slow engine."""
    start = clock()
    total = 0.0
    for i in range(500_000):
        total += i * 0.5
    return (clock() - start) / 1e6


class Start(NamedTuple):
    """What a training run with seed 42 on the embedded names starts from."""

    documents: list[list[int]]  # the first STEPS, as token ids
    vocab_size: int
    state: Any  # of the random numbers after the shuffle

    def rng(self) -> random.Random:
        """Return the random numbers that draw the weights."""
        rng = random.Random()
        rng.setstate(self.state)
        return rng


def start() -> Start:
    """Return the start of the main job, the run that `python -m microgpt.train` makes."""
    rng = random.Random(42)
    documents = data.load_names()
    rng.shuffle(documents)
    tokenizer = microgpt.CharTokenizer(documents)
    return Start([tokenizer.encode(document) for document in documents[:STEPS]], tokenizer.vocab_size, rng.getstate())


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, Python, compiler and its flags."""
    # What the compiler wrote into the engine: with debug information its flags as well, else its version.
    compilers = re.findall(rb"GNU C\d\d [ -~]+|clang version [ -~]+|GCC: [ -~]+", Path(_tape.__file__).read_bytes())
    return {
        "microgpt": version("microgpt-cython") or "not installed",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": " ".join([platform.system(), platform.machine(), *platform.libc_ver()]).strip(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "compiler": max(compilers, key=len).decode() if compilers else platform.python_compiler(),
    }


def version(distribution: str) -> str | None:
    """Return the version of an installed distribution, None if it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(": ")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"
