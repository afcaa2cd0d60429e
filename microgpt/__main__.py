"""`python -m microgpt`: which commands there are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import microgpt
from microgpt.cli import Parser, run, shorten

# Of each command what its own --help says first, here because importing them all to list them would take longer.
COMMANDS = {
    "train": (
        "Train a GPT on documents, one per line, and print new ones.",
        "python -m microgpt.train --data names.txt --steps 5000",
    ),
    "explore": (
        "Watch a model train in the browser; or, of a MODEL, write a page on which every scalar of one training step can be "
        "clicked: one HTML file to open from disk.",
        "python -m microgpt.explore MODEL --text anna --save anna.html",
    ),
    "sample": (
        "Draw documents from a model that was saved, and print one per line.",
        "python -m microgpt.sample MODEL --prompt an --temperature 0.8",
    ),
}


def build_parser() -> Parser:
    """Return the parser of the command line."""
    lines = [f"microgpt-{name}, or python -m microgpt.{name}\n  {what}\n  {how}" for name, (what, how) in COMMANDS.items()]
    parser = Parser(
        prog="python -m microgpt",
        description="\n\n".join(["A scalar autograd and a tiny GPT. The commands, each with its own --help:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


def show(args: argparse.Namespace) -> None:
    """Print the version, or the commands."""
    if args.command is not None:
        one = (
            f"python -m microgpt.{args.command}"
            if args.command in COMMANDS
            else "one of the commands that python -m microgpt lists"
        )
        raise ValueError(f"there is no command {shorten(args.command)} here, use {one}")
    if args.version:
        print(f"microgpt-cython {microgpt.__version__}")
    else:
        print(build_parser().format_help(), end="")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(build_parser, show, argv)


if __name__ == "__main__":
    sys.exit(main())
