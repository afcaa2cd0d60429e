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

import measure
from measure import ROOT

from microgpt.cli import Parser, run
from microgpt.files import write_atomically

README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results.json"
FIGURE = re.compile(r"<!--([a-z ]+)-->(.*?)<!--/-->", re.DOTALL)

# Operators of script.OPERATIONS, and how many nodes each makes.
ARITHMETIC = dict.fromkeys(("x + y", "x * y", "-x", "x**2", "x + 1.5", "x * 2"), 1)
ARITHMETIC |= dict.fromkeys(("x - y", "x / y", "2 - x", "1 / x"), 2)
FUNCTIONS = dict.fromkeys(("x.exp()", "x.log()", "x.tanh()", "x.relu()"), 1)
ATTRIBUTES = dict.fromkeys(("x.data", "x.data = 1.5", "x.grad = 0"), 1)


def between(values: Iterable[float]) -> str:
    """Return the range of `values` in whole numbers."""
    values = list(values)
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def nanoseconds(results: dict[str, Any], operations: dict[str, int], engine: str = "engine") -> str:
    """Return the range of nanoseconds a node over some operators."""
    return between(results["operators"][name][engine] / nodes for name, nodes in operations.items())


def times(results: dict[str, Any], operations: dict[str, int]) -> str:
    """Return the range of twin / engine over some operators."""
    rows = [results["operators"][name] for name in operations]
    return between(row["twin"] / row["engine"] for row in rows)


def middle_half(figure: measure.Spread) -> str:
    """Return the middle half of a figure over the rounds."""
    return between([figure["low"], figure["high"]])


def two_digits(figure: measure.Spread) -> str:
    """Return the median of a figure, at least 10, with two digits that count."""
    return f"{float('{median:.2g}'.format(**figure)):,.0f}"


FIGURES: dict[str, Callable[[dict[str, Any]], str]] = {
    "step": lambda r: f"{r['step']['figure']['median']:.2f} ms",
    "step middle half": lambda r: "{low:.2f} to {high:.2f} ms".format(**r["step"]["figure"]),
    "twin": lambda r: two_digits(r["twin"]["figure"]),
    "twin collector off": lambda r: two_digits(r["twin-alone"]["figure"]),
    "as microgpt": lambda r: two_digits(r["twin-microgpt"]["figure"]),
    "machine": lambda r: f"{r['machine']['cpu']}, {r['machine']['python']}".replace("(R)", ""),
    "node bytes": lambda r: f"{r['chain-bytes']['figure']['median']:.0f} bytes",
    "chain": lambda r: f"{r['chain']['own']['median']:.1f} s",
    "arithmetic": lambda r: f"{nanoseconds(r, ARITHMETIC)} ns a node, {times(r, ARITHMETIC)} times less",
    "functions": lambda r: f"{nanoseconds(r, FUNCTIONS)} ns, {times(r, FUNCTIONS)} times less",
    "attributes": lambda r: f"{nanoseconds(r, ATTRIBUTES)} ns",
    "attributes of the twin": lambda r: nanoseconds(r, ATTRIBUTES, "twin"),
    "script": lambda r: middle_half(r["script"]["figure"]),
    "script collector off": lambda r: middle_half(r["script-alone"]["figure"]),
    "whole script": lambda r: middle_half(r["script-whole"]["figure"]),
    "whole script collector off": lambda r: middle_half(r["script-whole-alone"]["figure"]),
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
        raise ValueError(
            f"{args.file} lacks {error}, which the README tells: run benchmarks/run.py with all workloads"
        ) from error
    write_atomically(README, filled.encode())


if __name__ == "__main__":
    sys.exit(run(build_parser, rewrite, None))
