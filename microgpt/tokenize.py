"""Make a tokenizer for a text: `python -m microgpt.tokenize --data FILE --vocab-size N --save FILE.json`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from microgpt import data
from microgpt.bpe import BPETokenizer, library, train_bpe
from microgpt.cli import Parser, run, say, whole_number
from microgpt.files import check_writable, write_atomically

BYTES = 256  # tokens that every such tokenizer has
MAX_VOCABULARY = 65_535  # tokens beside BOS, so that two bytes hold one


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m microgpt.tokenize",
        description="Make a tokenizer for a text: byte pair encoding, by the tokenizers library.",
        epilog="Train with --tokenizer FILE.json. Every byte is a token, so that no text is unknown. "
        "Flags may stand in a file: @FILE.",
    )
    files = "files and folders, UTF-8 text, - being standard input"
    parser.add_argument("--data", metavar="FILE", nargs="+", required=True, help=files)
    sizes = whole_number(BYTES, MAX_VOCABULARY)
    parser.add_argument(
        "--vocab-size", metavar="N", type=sizes, default=512, help="tokens to make at most (default: %(default)s)"
    )
    parser.add_argument("--save", metavar="FILE.json", required=True, help="where to write it")
    return parser


def tokenize(args: argparse.Namespace) -> None:
    """Make the tokenizer that `args` ask for."""
    library()
    if os.path.exists(args.save):
        try:
            BPETokenizer.of_file(args.save)
        except ValueError:
            raise ValueError(f"--save {args.save} would replace a file that is no tokenizer: choose another file") from None
    check_writable(args.save)
    text = data.load_text(args.data)
    if not len(text):
        raise ValueError(f"{' '.join(map(data.named, args.data))}: a tokenizer needs a text that is not empty")
    content = train_bpe(text.pieces(), args.vocab_size)
    tokenizer = BPETokenizer(content)
    write_atomically(args.save, content.encode())
    n_tokens = len(tokenizer.stream(text))
    say(f"{tokenizer.vocab_size} tokens with BOS; {len(text)} characters are {n_tokens} tokens")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(build_parser, tokenize, argv)


if __name__ == "__main__":
    sys.exit(main())
