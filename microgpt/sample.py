"""Draw documents or text from a model that was saved: `python -m microgpt.sample MODEL`.

Standard output carries the text only, the same bytes in every run with the same flags.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence

from microgpt import checkpoint, data
from microgpt.cli import Parser, argument, print_document, run, tell, whole_number
from microgpt.model import GPT
from microgpt.sampler import TEMPERATURE, TOP_P, generate, stream, until, up_to
from microgpt.settings import SEED, Settings, reading
from microgpt.tokenizer import Tokenizer, tokenizer_in

COUNT = 20  # documents
LENGTH = 500  # characters, of a model that learnt a text


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m microgpt.sample",
        description="Draw documents from a model that was saved, and print one per line; or text, as it comes.",
        epilog="On a terminal, control characters in a document are shown escaped, such as \\x1b; "
        "a file or pipe gets them as they are. Flags may stand in a file: @FILE.",
    )
    default = " (default: %(default)s)"
    novel = "begin each line with novel or known and a tab: whether FILE, read as the model's text, lacks or holds the document"
    parser.add_argument("model", metavar="MODEL", help="the file that training saved")
    parser.add_argument(
        "--count", type=whole_number(0), help=f"documents to print (default: {COUNT}, if the model learnt documents)"
    )
    stretch = f"print N characters in all, as they come, after TEXT (default: {LENGTH}, if the model learnt a text)"
    parser.add_argument("--length", metavar="N", type=whole_number(1), help=stretch)
    parser.add_argument(
        "--temperature", type=argument(TEMPERATURE), default=0.5, help="0: the most likely character each time" + default
    )
    parser.add_argument("--top-k", metavar="K", type=whole_number(1), help="draw among the K most likely tokens only")
    fewest = "and among the fewest of these whose probabilities add up to P"
    parser.add_argument("--top-p", metavar="P", type=argument(TOP_P), help=fewest)
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", default="", help="let every document, or the text, begin with TEXT")
    prompt.add_argument("--prompt-file", metavar="FILE", help="with the text in FILE, - being standard input")
    parser.add_argument("--stop", metavar="TEXT", help="end a document, or the text, before the first TEXT after the prompt")
    parser.add_argument("--seed", type=argument(SEED), default=42, help="seed of the draws" + default)
    length = "cut documents at N characters, the prompt included (default: the model's block size, in tokens)"
    parser.add_argument("--max-length", metavar="N", type=whole_number(1), help=length)
    parser.add_argument("--novel", metavar="FILE", help=novel)
    parser.add_argument("--quiet", action="store_true", help="nothing on standard error but errors")
    return parser


def load(path: str) -> tuple[GPT, Tokenizer, Settings]:
    """Return the model and the tokenizer in one checkpoint, and how its text was read. OSError or ValueError as `GPT.load`."""
    tensors, metadata = checkpoint.read(path)
    with checkpoint.refusals(path):
        tokenizer = tokenizer_in(metadata)
        settings = reading(metadata)
        model = GPT.from_checkpoint(tensors, metadata)
        if model.config.vocab_size != tokenizer.vocab_size:
            raise ValueError(f"its model has {model.config.vocab_size} tokens, its tokenizer {tokenizer.vocab_size}")
    return model, tokenizer, settings


def settle(args: argparse.Namespace, settings: Settings) -> None:
    """Complete `args` by what the model learnt. ValueError for flags that do not go together."""
    if args.stop == "":
        raise ValueError("--stop needs a text that is not empty")
    if args.prompt_file is not None:
        args.prompt = "".join(data.load_text([args.prompt_file]).pieces())
    if args.length is None and settings.format == "text":
        args.length = LENGTH
    if args.length is None:
        args.count = COUNT if args.count is None else args.count
        return
    for name in ("count", "max_length", "novel"):
        if getattr(args, name) is not None:
            reason = "--length prints" if settings.format == "lines" else "this model learnt"
            raise ValueError(f"--{name.replace('_', '-')} is for documents, {reason} one text")


def known_documents(path: str, settings: Settings, block_size: int) -> set[str]:
    """Return the documents of a file, cut as training cuts them. OSError or ValueError if it is no text."""
    documents = data.documents_in([path], settings.delimiter, settings.keep_spaces)
    return {document[:block_size].strip() for some in documents for document in some}


def sample(args: argparse.Namespace) -> None:
    """Print the documents, or the text, that `args` ask for."""
    model, tokenizer, settings = load(args.model)
    settle(args, settings)
    options = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p, "prompt": args.prompt}
    rng = random.Random(args.seed)
    if args.length is not None:
        print_stream(args, stream(model, tokenizer, rng, **options, documents=settings.format == "lines"))
        return
    known = None if args.novel is None else known_documents(args.novel, settings, model.config.block_size)
    for _ in range(args.count):
        text = generate(model, tokenizer, rng, **options, max_length=args.max_length, stop=args.stop)
        mark = "" if known is None else "known\t" if text.strip() in known else "novel\t"
        print_document(mark + text, lines=settings.delimiter is not None)


def print_stream(args: argparse.Namespace, pieces: Iterator[str]) -> None:
    """Print the prompt and what follows it, --length characters, as they come; then tell how fast they came."""
    begun = time.perf_counter()
    print_document(args.prompt, "", lines=True, flush=True)
    made = 0
    for piece in until(up_to(pieces, args.length), args.stop):
        print_document(piece, "", lines=True, flush=True)
        made += len(piece)
    print_document("", flush=True)
    if args.quiet:
        return
    seconds = time.perf_counter() - begun
    never = f", {args.stop!r} did not come" if args.stop is not None and made == args.length else ""
    tell(f"{made} characters in {seconds:.2f} s, {made / max(seconds, 1e-9):.0f} characters/s{never}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(build_parser, sample, argv)


if __name__ == "__main__":
    sys.exit(main())
