"""Measure the engine: a training step beside the pure-Python twin, a script, other packages, graphs, sizes, the command.

    python benchmarks/run.py [--rounds N] [--full] [--only SECTION ...] [--json FILE] [--plot FILE.png]

CPU time, medians with the middle half of the values. What is compared runs in one process, in turns, on the same documents, and
gives the same numbers (checked). Ends with the goals, each met or missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import goals
import measure
import peers
import processes
import scaling
import script
import shapes
import training

SECTIONS = {  # title of each
    "training": "a training step, CPU ms",
    "script": "a script that was written for the pure-Python Value",
    "shapes": "shapes of graphs",
    "scaling": "sizes of the model, a training step",
    "processes": "processes of their own",
    "peers": "other packages, a small expression",  # last: what they import stays in the process
}
if sys.platform == "win32":
    del SECTIONS["processes"]  # reads the peak of resident memory
ROUNDS = 15
SCRIPT_STEPS = 5  # a round


def run(section: str, rounds: int, *, full: bool) -> tuple[dict[str, Any], list[str]]:
    """Measure one section. Return its results and the lines that show them."""
    fewer = max(2, rounds // 3)
    if section == "training":
        results = training.run(rounds, full=full)
        return results, list(training.report(results))
    if section == "script":
        results = script.run(fewer, SCRIPT_STEPS)
        return results, list(script.report(results))
    if section == "processes":
        results = processes.run(fewer)
        return results, list(processes.report(results))
    module = {"shapes": shapes, "scaling": scaling, "peers": peers}[section]
    results = module.run(rounds)
    return results, list(module.report(results))


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Measure the engine beside the pure-Python twin and other packages.")
    default = f"2 to 30 (default: {ROUNDS})"
    parser.add_argument("--rounds", type=int, default=ROUNDS, choices=range(2, 31), metavar="N", help=default)
    parser.add_argument("--full", action="store_true", help="all 1000 steps of the twin too, which take many minutes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"some of: {', '.join(SECTIONS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw steps and sizes; needs matplotlib")
    return parser


def main() -> None:
    parser = build_parser()
    args = parser.parse_args()
    for path in (args.json, args.plot):
        if path is not None and not path.parent.is_dir():
            parser.exit(2, f"{parser.prog}: error: {path.parent}: no such folder\n")
    if args.plot is not None and measure.version("matplotlib") is None:
        parser.exit(2, f"{parser.prog}: error: --plot needs matplotlib: pip install 'microgpt-cython[benchmark]'\n")
    started = time.perf_counter()
    results: dict[str, Any] = {"machine": measure.machine()}
    print(*measure.header(results["machine"]), sep="\n")
    print(f"    {'':34}{'median':>14}   [middle half]")
    for section, title in SECTIONS.items():
        if args.only is None or section in args.only:
            results[section], lines = run(section, args.rounds, full=args.full)
            print(f"\n{title}")
            print(measure.line("control loop, plain Python", results[section]["control"], " ms", 1))
            print(*lines, sep="\n", flush=True)
    print("\ngoals")
    print(*goals.report(results), sep="\n")
    print(f"\n{time.perf_counter() - started:.0f} s")
    if args.json is not None:
        write_atomically(args.json, json.dumps(results, indent=1) + "\n")
    if args.plot is not None:
        import plot  # here, because it needs matplotlib

        plot.draw(results, args.plot)


if __name__ == "__main__":
    main()
