"""Measure the engine, workload by workload, and tell which goals are met.

    python benchmarks/run.py [--rounds N] [--only WORKLOAD ...] [--against PYTHON] [--json FILE]

CPU time. What is compared runs in turns, round by round, on the same documents, and gives the same numbers (checked). A figure is
the median over the rounds, beside it the middle half and that of the fastest rounds. Each workload has a process of its own;
those that are compared with another microgpt, such as that of an older commit, have a second one under the Python that finds it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import measure
import script
from workloads import TABLE, Workload

from microgpt.cli import Parser, whole_number
from microgpt.cli import run as run_command
from microgpt.files import write_atomically

OPERATORS = "operators"  # a table of its own
ROUNDS = 10
HERE = Path(__file__).parent


class Worker:
    """A process that measures one workload, round by round."""

    def __init__(self, python: str, name: str) -> None:
        # One thread for numpy; compiled modules are kept, as they are for whoever has installed the package.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [python, str(HERE / "workloads.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def measure(self) -> dict[str, Any]:
        """Return what one round measures. RuntimeError if its checks or the process fail."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(file=self.process.stdin, flush=True)
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            _, errors = self.process.communicate()
            raise RuntimeError(errors.strip().rpartition("\n")[2] or f"ended with {self.process.returncode}") from None
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def measure_workload(name: str, rounds: int, against: str | None) -> dict[str, Any]:
    """Return the figures of a workload."""
    workload = TABLE[name]
    pythons = [sys.executable, against] if workload.against and against is not None else [sys.executable]
    values: list[float] = []
    pairs: list[tuple[float, float]] = []
    controls = []
    workers: list[Worker] = []
    try:
        for i in range(min(rounds, workload.most) + (not workload.fresh)):
            if workload.fresh or not workers:
                while workers:
                    workers.pop().close()
                workers = [Worker(python, name) for python in pythons]
            controls.append(measure.control())
            answers = [worker.measure() for worker in workers]
            if i == 0 and not workload.fresh:
                continue
            ours, beside = answers[0], answers[-1]
            if ours.get("result") != beside.get("result"):
                raise RuntimeError("the results of the two differ")
            if len(answers) > 1 or "beside" in ours:
                pairs.append((ours["values"][0], ours["beside"] if "beside" in ours else beside["values"][0]))
            values += ours["values"]
    finally:
        while workers:
            workers.pop().close()
    results: dict[str, Any] = {"control": measure.spread(controls), "own": measure.spread(values)}
    results["figure"], results["best"] = results["own"], min(values)
    if pairs:
        results["figure"] = measure.spread([a / b for a, b in pairs])
        results["sides"] = [measure.spread(side) for side in zip(*pairs, strict=True)]
        results["best"] = min(a for a, _ in pairs) / min(b for _, b in pairs)
    return results


def met(workload: Workload, figure: float) -> bool:
    """Return whether a figure meets its goal."""
    assert workload.bound is not None
    return figure >= workload.bound if workload.at_least else figure <= workload.bound


def report(name: str, results: dict[str, Any]) -> str:
    """Return the row of a workload."""
    workload = TABLE[name]
    compared = not workload.against or "sides" in results
    row = measure.line(workload.title, results["figure"], workload.unit if compared else "")
    row += f"{results['best']:>9,.{0 if results['best'] >= 100 else 3}f}"
    if workload.bound is None:
        return row
    if not compared:
        return f"{row}   by itself: compare --against PYTHON"
    bound = f"{'at least' if workload.at_least else 'at most'} {workload.bound:,g}{workload.unit}"
    return f"{row}   {bound:20} {'met' if met(workload, results['figure']['median']) else 'missed'}"


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description="Measure the engine, workload by workload, and tell which goals are met.", allow_abbrev=False)
    default = f"2 to 30 (default: {ROUNDS})"
    parser.add_argument("--rounds", type=whole_number(2, 30), default=ROUNDS, metavar="N", help=default)
    names = [*TABLE, OPERATORS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="WORKLOAD", help=f"some of: {', '.join(names)}"
    )
    parser.add_argument("--against", metavar="PYTHON", help="an interpreter whose microgpt is another one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    return parser


def tables(args: argparse.Namespace, results: dict[str, Any]) -> Iterator[str]:
    """Measure what `args` ask for, into `results`, and yield the lines that tell it."""
    machine = results["machine"] = measure.machine()
    yield f"microgpt {machine['microgpt']}, {machine['python']}, {machine['platform']}"
    yield f"{machine['cpu']}, {machine['cores']} cores; {machine['compiler']}"
    chosen = [name for name in TABLE if name in args.only]
    if chosen:
        yield f"\n{'':{measure.LABEL}}{'median':>12}   {'[middle half]':22}{'fastest':>9}   goal"
    for name in chosen:
        try:
            results[name] = measure_workload(name, args.rounds, args.against)
            yield report(name, results[name])
        except RuntimeError as error:
            missing = str(error).startswith(("ImportError", "ModuleNotFoundError", "FileNotFoundError", "OSError"))
            if missing:
                args.only.remove(name)
            yield f"{TABLE[name].title:{measure.LABEL}}{'left out' if missing else 'FAILED':>12}   {error}"
    controls = [results[name]["control"]["median"] for name in chosen if name in results]
    if controls:
        yield measure.line("control loop, plain Python", measure.spread(controls), " ms").rstrip()
    if OPERATORS in args.only:
        results[OPERATORS] = script.run(args.rounds)
        yield from ["", *script.report(results[OPERATORS])]


def benchmark(args: argparse.Namespace) -> int:
    """Do what `args` ask for, printing as it goes. Return 1 where a workload failed, 0 else."""
    if args.json is not None and (args.json.is_dir() or not args.json.parent.is_dir()):
        reason = "it is a folder" if args.json.is_dir() else "its folder is missing"
        raise ValueError(f"{args.json} cannot be written: {reason}")
    started = time.perf_counter()
    results: dict[str, Any] = {}
    for text in tables(args, results):
        print(text, flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")
    if args.json is not None:
        write_atomically(args.json, (json.dumps(results, indent=1) + "\n").encode())
    return int(any(name not in results for name in args.only))  # what is not installed is no longer among them


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_command(build_parser, benchmark, argv)


if __name__ == "__main__":
    sys.exit(main())
