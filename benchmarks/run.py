"""Measure the engine: a training step beside the pure-Python twin, a script, other packages, graphs, sizes, the command.

    python benchmarks/run.py [--rounds N] [--full] [--only SECTION ...] [--json FILE] [--plot FILE.png]

CPU time, medians with the middle half of the values. What is compared runs in one process, in turns, on the same documents, and
gives the same numbers (checked). Ends with the goals, each met or missed.
"""

from __future__ import annotations

import argparse
import json
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

from microgpt.cli import Parser, run, whole_number
from microgpt.files import write_atomically

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
MODULES: dict[str, Any] = {
    "training": training,
    "script": script,
    "shapes": shapes,
    "scaling": scaling,
    "processes": processes,
    "peers": peers,
}
ROUNDS = 15
SCRIPT_STEPS = 20  # a round


def run_section(section: str, rounds: int, *, full: bool) -> tuple[dict[str, Any], list[str]]:
    """Measure one section. Return its results and the lines that show them."""
    fewer = max(2, rounds // 3)
    match section:
        case "training":
            results = training.run(rounds, full=full)
        case "script":
            results = script.run(fewer, SCRIPT_STEPS)
        case "processes":
            results = processes.run(fewer)
        case _:
            results = MODULES[section].run(rounds)
    return results, list(MODULES[section].report(results))


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description="Measure the engine beside the pure-Python twin and other packages.", allow_abbrev=False)
    default = f"2 to 30 (default: {ROUNDS})"
    parser.add_argument("--rounds", type=whole_number(2, 30), default=ROUNDS, metavar="N", help=default)
    parser.add_argument("--full", action="store_true", help="all 1000 steps of the twin too, which take many minutes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"some of: {', '.join(SECTIONS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw steps, sizes and packages; needs matplotlib")
    return parser


def check_files(args: argparse.Namespace) -> None:
    """Raise before the measurements what would else lose them."""
    for path in (args.json, args.plot):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise ValueError(f"{path} cannot be written: " + ("it is a folder" if path.is_dir() else "its folder is missing"))
    if args.plot is not None and measure.version("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install matplotlib")


def benchmark(args: argparse.Namespace) -> None:
    """Do what `args` ask for, printing as it goes."""
    check_files(args)
    started = time.perf_counter()
    results: dict[str, Any] = {"machine": measure.machine()}
    print(*measure.header(results["machine"]), sep="\n")
    print(f"    {'':{measure.LABEL}}{'median':>14}   [middle half]")
    for section, title in SECTIONS.items():
        if args.only is None or section in args.only:
            results[section], lines = run_section(section, args.rounds, full=args.full)
            print(f"\n{title}")
            print(measure.line("control loop, plain Python", results[section]["control"], " ms", 1))
            print(*lines, sep="\n", flush=True)
    if lines := list(goals.report(results)):
        print("\ngoals", *lines, sep="\n")
    print(f"\n{time.perf_counter() - started:.0f} s")
    if args.json is not None:
        write_atomically(args.json, (json.dumps(results, indent=1) + "\n").encode())
    if args.plot is not None:
        import plot  # here, because it needs matplotlib

        write_atomically(args.plot, plot.draw(results))


if __name__ == "__main__":
    sys.exit(run(build_parser, benchmark, None))
