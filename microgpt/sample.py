"""Draw documents from a model that was saved: `python -m microgpt.sample MODEL`.

Standard output carries one document per line, the same bytes in every run with the same flags.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

from microgpt import checkpoint, data
from microgpt.cli import Parser, argument, print_document, run, whole_number
from microgpt.model import GPT
from microgpt.sampler import generate
from microgpt.tokenizer import CharTokenizer
from microgpt.trainer import SEED, TEMPERATURE


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m microgpt.sample",
        description="Draw documents from a model that was saved, and print one per line.",
        epilog="On a terminal, control characters in a document are shown escaped, such as \\x1b; "
        "a file or pipe gets them as they are.",
        allow_abbrev=False,
    )
    default = " (default: %(default)s)"
    novel = "begin each line with novel or known and a tab: whether FILE, one document per line, lacks or holds the document"
    parser.add_argument("model", metavar="MODEL", help="the file that training saved")
    parser.add_argument("--count", type=whole_number(0), default=20, help="documents to print" + default)
    parser.add_argument(
        "--temperature", type=argument(TEMPERATURE), default=0.5, help="0: the most likely character each time" + default
    )
    parser.add_argument("--top-k", metavar="K", type=whole_number(1), help="draw among the K most likely characters only")
    parser.add_argument("--prompt", metavar="TEXT", default="", help="let every document begin with TEXT")
    parser.add_argument("--seed", type=argument(SEED), default=42, help="seed of the draws" + default)
    length = "cut documents at N characters, TEXT included; N is at most the model's block size, which cuts in any case"
    parser.add_argument("--max-length", metavar="N", type=whole_number(1), help=length)
    parser.add_argument("--novel", metavar="FILE", help=novel)
    return parser


def load(path: str) -> tuple[GPT, CharTokenizer]:
    """Return the model and the tokenizer in one checkpoint. OSError or ValueError as `GPT.load`."""
    tensors, metadata = checkpoint.read(path)
    with checkpoint.refusals(path):
        tokenizer = CharTokenizer.from_checkpoint(metadata)
        model = GPT.from_checkpoint(tensors, metadata)
        if model.config.vocab_size != tokenizer.vocab_size:
            raise ValueError(f"its model has {model.config.vocab_size} tokens, its tokenizer {tokenizer.vocab_size}")
    return model, tokenizer


def known_documents(path: str, block_size: int) -> set[str]:
    """Return the documents of a file, cut as training cuts them. OSError or ValueError if it is no text."""
    with open(path, "rb") as file:
        return {document[:block_size].strip() for document in data.documents_of(file, path)}


def sample(args: argparse.Namespace) -> None:
    """Print the documents that `args` ask for."""
    model, tokenizer = load(args.model)
    known = None if args.novel is None else known_documents(args.novel, model.config.block_size)
    rng = random.Random(args.seed)
    options = {"temperature": args.temperature, "top_k": args.top_k, "prompt": args.prompt, "max_length": args.max_length}
    for _ in range(args.count):
        text = generate(model, tokenizer, rng, **options)
        mark = "" if known is None else "known\t" if text.strip() in known else "novel\t"
        print_document(mark + text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(build_parser, sample, argv)


if __name__ == "__main__":
    sys.exit(main())
