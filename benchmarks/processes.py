"""What takes a process of its own: the training command, a chain of ten million nodes, the twin on PyPy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chain
import measure
import training
from measure import STEPS, spread

import microgpt

HERE = Path(__file__).parent
COMMAND = ("-m", "microgpt.train", "--quiet")
PYPY_STEPS = 60  # half of them for its compiler to warm up
TOLERANCE = 1e-9  # relative, of PyPy's losses: its C library may be another one

# Runs the command that follows; then tells the CPU seconds since the process started and the highest resident memory.
WATCH = """
import atexit, sys, time
def tell():
    seconds = time.process_time()
    sys.path.insert(0, {here!r})
    from memory import peak_memory
    print(seconds, peak_memory(), file=sys.stderr)
atexit.register(tell)
import runpy
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def watch_command() -> tuple[float, float]:
    """Return the CPU seconds of the training command, from the start of the process to its last sample, and its peak in MB."""
    code = WATCH.format(here=str(HERE))
    result = subprocess.run([sys.executable, "-c", code, *COMMAND[1:]], capture_output=True, text=True, check=True)
    seconds, peak = result.stderr.split()
    return float(seconds), int(peak) / 1e6


def run_chain() -> dict[str, Any]:
    """Return what chain.py measures, in a process of its own."""
    code = f"import chain, json; print(json.dumps(chain.run({chain.NODES})))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    results: dict[str, Any] = json.loads(result.stdout)
    return results


def run_pypy() -> dict[str, Any] | str:
    """Return milliseconds per step of the twin on PyPy, warm, or why there are none."""
    pypy = shutil.which("pypy3") or shutil.which("pypy")
    if pypy is None:
        return "PyPy is not on the path: left out"
    code = "import sys; print(*sys.version_info[:2])"
    major, minor = map(int, subprocess.run([pypy, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    if (major, minor) < (3, 10):
        return f"PyPy on the path is Python {major}.{minor}, the twin needs 3.10: left out"
    start = measure.start()
    documents = start.documents[:PYPY_STEPS]
    given = {"vocab_size": start.vocab_size, "state": start.state, "steps": STEPS, "documents": documents}
    environment = {**os.environ, "PYTHONPATH": str(Path(microgpt.__file__).parent.parent)}
    command = [pypy, str(HERE / "twin.py")]
    result = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=True, env=environment)
    out = json.loads(result.stdout)
    engine = training.new_engine(start)
    engine.run(PYPY_STEPS)
    for ours, theirs in zip(engine.losses, out["losses"], strict=True):
        assert abs(ours - theirs) <= TOLERANCE * abs(ours), f"PyPy's loss is {theirs}, the engine's {ours}"
    return {"total": spread(out["milliseconds"][PYPY_STEPS // 2 :])}


def run(rounds: int) -> dict[str, Any]:
    """Measure, the command `rounds` times."""
    watched: list[tuple[float, float]] = []
    controls = measure.take_turns(rounds, [lambda: watched.append(watch_command())])
    seconds, megabytes = zip(*watched, strict=True)
    return {
        "control": controls,
        "command": {"seconds": spread(seconds), "megabytes": spread(megabytes)},
        "chain": run_chain(),
        "pypy": run_pypy(),
    }


def report(results: dict[str, Any]) -> Iterator[str]:
    """Return the lines of the results."""
    yield f"    python {' '.join(COMMAND)}, from the start of the process to the last sample"
    yield measure.line("  CPU", results["command"]["seconds"], " s")
    yield measure.line("  peak of resident memory", results["command"]["megabytes"], " MB", 1)
    for text in chain.report(results["chain"]):
        yield f"    {text}"
    if isinstance(results["pypy"], str):
        yield f"    {results['pypy']}"
    else:
        yield measure.line("twin on PyPy, warm, a step", results["pypy"]["total"], " ms", 1)
