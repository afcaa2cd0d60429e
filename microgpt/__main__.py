"""`microgpt COMMAND`, or `python -m microgpt COMMAND`: all commands by one name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

import microgpt
from microgpt.cli import Parser, run, shorten

# Of each command what its own --help says first, here because importing them all to list them would take longer.
COMMANDS = {
    "train": (
        "Train a GPT on documents, one per line, or on a text, and print new ones.",
        "microgpt train --data names.txt --steps 5000",
    ),
    "explore": (
        "Watch a model train in the browser; or, of a MODEL, write a page on which every scalar of one training step can be "
        "clicked: one HTML file to open from disk.",
        "microgpt explore MODEL --text anna --save anna.html",
    ),
    "sample": (
        "Draw documents from a model that was saved, and print one per line; or text, as it comes.",
        "microgpt sample MODEL --prompt an --temperature 0.8",
    ),
    "evaluate": (
        "Measure how well a model that was saved predicts a text.",
        "microgpt evaluate MODEL --data other.txt",
    ),
    "tokenize": (
        "Make a tokenizer for a text: byte pair encoding, by the tokenizers library.",
        "microgpt tokenize --data play.txt --vocab-size 512 --save play.json",
    ),
}


def build_parser() -> Parser:
    """Return the parser of what stands before a command."""
    lines = [f"microgpt {name}, or python -m microgpt.{name}\n  {what}\n  {how}" for name, (what, how) in COMMANDS.items()]
    parser = Parser(
        prog="microgpt",
        description="\n\n".join(["A scalar autograd and a tiny GPT. The commands, each with its own --help:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """Return a parser with those of all commands, from which shtab makes the completions of shells."""
    parser = argparse.ArgumentParser(prog="microgpt", description="A scalar autograd and a tiny GPT.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command")
    for name, (what, _) in COMMANDS.items():
        own = import_module(f"microgpt.{name}").build_parser()
        commands.add_parser(name, parents=[own], add_help=False, help=what, conflict_handler="resolve")
    return parser


def show(args: argparse.Namespace) -> None:
    """Print the version, or the commands."""
    if args.command is not None:
        raise ValueError(f"there is no command {shorten(args.command)}, there are {', '.join(COMMANDS)}")
    if args.version:
        print(f"microgpt-cython {microgpt.__version__}")
    else:
        print(build_parser().format_help(), end="")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in COMMANDS:
        status: int = import_module(f"microgpt.{arguments[0]}").main(arguments[1:])
        return status
    return run(build_parser, show, arguments)


if __name__ == "__main__":
    sys.exit(main())
