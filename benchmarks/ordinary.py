"""An ordinary text that every Python brings along: its manual as pydoc has it, then the docstrings of its library.

    python benchmarks/ordinary.py [--size CHARACTERS] > manual.txt

Another version of Python has another text.
"""

from __future__ import annotations

import argparse
import ast
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

from microgpt.cli import Parser, print_document, run, whole_number

SIZE = 1_000_000  # characters


def parts() -> Iterator[str]:
    """Yield the topics of the manual, then docstrings, file by file."""
    yield from (topics[name].strip() for name in sorted(topics))
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.glob("*.py")) + sorted(library.glob("[a-z]*/*.py")):
        if path.parent.name in ("test", "idlelib", "site-packages"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that are none
            tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield text


def ordinary_text(size: int = SIZE) -> str:
    """Return the first `size` characters. ValueError for more than there are."""
    pieces = []
    length = 0
    for part in parts():
        pieces.append(part)
        length += len(part) + 2
        if length >= size:
            break
    text = "\n\n".join(pieces)
    if len(text) < size:
        raise ValueError(f"this Python brings {len(text)} characters, not {size}")
    return text[:size]


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(description="Print an ordinary text that every Python brings along.")
    parser.add_argument("--size", type=whole_number(1), default=SIZE, metavar="N", help=f"characters (default: {SIZE})")
    return parser


def print_text(args: argparse.Namespace) -> None:
    """Print the text."""
    print_document(ordinary_text(args.size), lines=True)


if __name__ == "__main__":
    sys.exit(run(build_parser, print_text, None))
