"""Write the figures of the README from the results that benchmarks/run.py keeps.

    python benchmarks/run.py --json benchmarks/results.json
    python benchmarks/readme.py [FILE.json]

In the README each figure stands between two comments, which a page does not show: <!--step-->0.22 ms<!--/-->.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from measure import ROOT

from microgpt.cli import Parser, run
from microgpt.files import write_atomically

README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results.json"
FIGURE = re.compile(r"<!--([a-z ]+)-->(.*?)<!--/-->", re.DOTALL)

# Operators of script.OPERATIONS, and how many nodes each makes.
ARITHMETIC = {
    "x + y": 1,
    "x * y": 1,
    "x - y": 2,
    "x / y": 2,
    "-x": 1,
    "x**2": 1,
    "x + 1.5": 1,
    "x * 2": 1,
    "2 - x": 2,
    "1 / x": 2,
}
FUNCTIONS = {"x.exp()": 1, "x.log()": 1, "x.tanh()": 1, "x.relu()": 1}
ATTRIBUTES = {"x.data": 1, "x.data = 1.5": 1, "x.grad = 0": 1}


def between(values: Iterable[float]) -> str:
    """Return the range of `values` in whole numbers."""
    values = list(values)
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def nanoseconds(results: dict[str, Any], operations: dict[str, int], engine: str = "engine") -> str:
    """Return the range of nanoseconds a node over some operators."""
    return between(results["script"]["operations"][name][engine] / nodes for name, nodes in operations.items())


def times(results: dict[str, Any], operations: dict[str, int]) -> str:
    """Return the range of twin / engine over some operators."""
    rows = [results["script"]["operations"][name] for name in operations]
    return between(row["twin"] / row["engine"] for row in rows)


def script_times(results: dict[str, Any], collector: str, part: str) -> str:
    """Return the middle half of twin / engine over the rounds of the script."""
    ratio = results["script"][f"collector {collector}"][part]["ratio"]
    return between([ratio["low"], ratio["high"]])


def two_digits(value: float) -> str:
    """Return `value`, at least 10, with two digits that count."""
    return f"{float(f'{value:.2g}'):,.0f}"


FIGURES: dict[str, Callable[[dict[str, Any]], str]] = {
    "step": lambda r: f"{r['training']['engine']['total']['median']:.2f} ms",
    "step middle half": lambda r: "{low:.2f} to {high:.2f} ms".format(**r["training"]["engine"]["total"]),
    "twin": lambda r: two_digits(r["training"]["ratios"]["twin"]["median"]),
    "twin collector off": lambda r: two_digits(r["training"]["ratios"]["twin, collector off"]["median"]),
    "as microgpt": lambda r: two_digits(r["training"]["ratios"]["twin, as microgpt.py"]["median"]),
    "machine": lambda r: f"{r['machine']['cpu']}, {r['machine']['python']}".replace("(R)", ""),
    "node bytes": lambda r: f"{r['processes']['chain']['bytes_per_node']:.0f} bytes",
    "chain": lambda r: f"{r['processes']['chain']['total']:.1f} s",
    "arithmetic": lambda r: f"{nanoseconds(r, ARITHMETIC)} ns a node, {times(r, ARITHMETIC)} times less",
    "functions": lambda r: f"{nanoseconds(r, FUNCTIONS)} ns, {times(r, FUNCTIONS)} times less",
    "attributes": lambda r: f"{nanoseconds(r, ATTRIBUTES)} ns",
    "attributes of the twin": lambda r: nanoseconds(r, ATTRIBUTES, "twin"),
    "script": lambda r: script_times(r, "on", "forward, backward"),
    "script collector off": lambda r: script_times(r, "off", "forward, backward"),
    "whole script": lambda r: script_times(r, "on", "whole step"),
    "whole script collector off": lambda r: script_times(r, "off", "whole step"),
}


def fill(text: str, results: dict[str, Any]) -> str:
    """Return `text` with every marked figure as `results` have it. KeyError for an unknown figure."""
    return FIGURE.sub(lambda match: f"<!--{match[1]}-->{FIGURES[match[1]](results)}<!--/-->", text)


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description="Write the figures of the README from the results of benchmarks/run.py.")
    parser.add_argument("file", type=Path, nargs="?", default=RESULTS, metavar="FILE.json", help="default: the kept results")
    return parser


def rewrite(args: argparse.Namespace) -> None:
    """Write the README anew."""
    try:
        filled = fill(README.read_text(encoding="utf-8"), json.loads(args.file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{args.file} is no JSON text: {error}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{args.file} lacks {error}, which the README tells: run benchmarks/run.py with all sections") from error
    write_atomically(README, filled.encode())


if __name__ == "__main__":
    sys.exit(run(build_parser, rewrite, None))
