"""Train a GPT on documents, one per line, and print new ones: `python -m microgpt.train`.

Standard output carries the results only, the same bytes in every run. Progress, timings and warnings go to standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TextIO

from tqdm import tqdm

from microgpt import data
from microgpt.cli import Parser, real_number, run, tell, whole_number
from microgpt.model import GPT, GPTConfig
from microgpt.optim import Adam
from microgpt.sampler import MIN_TEMPERATURE, generate
from microgpt.tokenizer import CharTokenizer

REPORT_EVERY = 100  # steps between two lines of loss
REMEDY = "try a lower --learning-rate"


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m microgpt.train",
        description="Train a GPT on documents, one per line, and print new ones.",
        allow_abbrev=False,
    )
    default = " (default: %(default)s)"
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="FILE", help="train on FILE, UTF-8 text, a document per line, instead of a dataset")
    datasets = "names: 32,868 given names inside the package; makemore: the 32,033 of microgpt.py, downloaded once"
    source.add_argument("--dataset", choices=("names", "makemore"), default="names", help=datasets + default)
    size = whole_number(1)
    seed = whole_number(0, 2**64 - 1)
    rate = real_number(0, exclusive=True)
    parser.add_argument("--steps", type=size, default=1000, help="training steps, one document each" + default)
    parser.add_argument("--seed", type=seed, default=42, help="seed of shuffle, weights and samples" + default)
    parser.add_argument("--n-layer", type=size, default=1, help="transformer blocks" + default)
    parser.add_argument("--n-embd", type=size, default=16, help="width of the model" + default)
    parser.add_argument("--n-head", type=size, default=4, help="attention heads, a divisor of n-embd" + default)
    parser.add_argument("--block-size", type=size, default=16, help="longest context in tokens" + default)
    parser.add_argument("--learning-rate", type=rate, default=0.01, help="of step 1; it falls linearly to 0" + default)
    temperature = real_number(MIN_TEMPERATURE)
    parser.add_argument("--temperature", type=temperature, default=0.5, help="of the samples; below 1 is more cautious" + default)
    parser.add_argument("--samples", type=whole_number(0), default=20, help="documents to print at the end" + default)
    parser.add_argument("--log", metavar="FILE", help="write a JSON line per step: step, loss, learning_rate, positions")
    parser.add_argument("--quiet", action="store_true", help="nothing on standard error but errors")
    return parser


def load_documents(args: argparse.Namespace) -> list[str]:
    """Return the documents that the flags ask for."""
    if args.data is not None:
        return data.load_file(args.data)
    if args.dataset == "names":
        return data.load_names()
    try:
        return data.load_makemore()
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; use --data FILE with a file of your own") from error


def train(args: argparse.Namespace) -> None:
    """Do the whole run that `args` describes, printing as it goes."""
    started = time.perf_counter()
    documents = load_documents(args)
    rng = random.Random(args.seed)
    rng.shuffle(documents)
    tokenizer = CharTokenizer(documents)
    config = GPTConfig(tokenizer.vocab_size, args.n_layer, args.n_embd, args.n_head, args.block_size)
    model = GPT(config, rng)
    # The log is opened last: a run that cannot start leaves the log of an earlier one alone.
    with nullcontext() if args.log is None else open_log(args) as log:
        print(f"num docs: {len(documents)}")
        print(f"vocab size: {config.vocab_size}")
        print(f"num params: {config.n_parameters}", flush=True)
        if not args.quiet:
            warn_of_long(documents, config.block_size)
        fit(model, tokenizer, documents, args, log)
    trained = time.perf_counter()
    print("--- inference ---")
    for i in range(args.samples):
        try:
            text = generate(model, tokenizer, rng, temperature=args.temperature)
        except (ArithmeticError, ValueError) as error:
            raise ValueError(f"training diverged, there is nothing to sample from ({error}): {REMEDY}") from error
        print(f"sample {i + 1:2d}: {text}")
    if not args.quiet:
        seconds = time.perf_counter() - started
        rest = time.perf_counter() - trained
        tell(f"{seconds:.2f} s in all, {rest:.2f} s of it for {args.samples} samples")


def open_log(args: argparse.Namespace) -> TextIO:
    """Open the log for whole lines, so that it can be read at any time. ValueError if it is the text to train on."""
    if args.data is not None and os.path.exists(args.log) and os.path.samefile(args.log, args.data):
        raise ValueError(f"--log and --data are the same file, {args.log}")
    return open(args.log, "w", encoding="utf-8", buffering=1)


def warn_of_long(documents: Sequence[str], block_size: int) -> None:
    """Say how many documents are cut: those with more predictions than block_size, the closing BOS included."""
    cut = sum(len(document) + 1 > block_size for document in documents)
    if cut:
        tell(f"warning: {cut} of {len(documents)} documents are cut, block size {block_size} is too short")


def fit(model: GPT, tokenizer: CharTokenizer, documents: Sequence[str], args: argparse.Namespace, log: TextIO | None) -> None:
    """Train `model`, one document per step, the learning rate falling linearly to 0."""
    optimizer = Adam(model.parameters(), args.learning_rate)
    started = time.perf_counter()
    # disable=None: a bar on a terminal only.
    with tqdm(total=args.steps, unit=" steps", disable=True if args.quiet else None, dynamic_ncols=True) as bar:
        for s in range(args.steps):
            tokens = tokenizer.encode(documents[s % len(documents)])
            learning_rate = args.learning_rate * (1 - s / args.steps)
            try:
                loss = step(model, optimizer, tokens, learning_rate)
            except (ArithmeticError, ValueError) as error:
                raise ValueError(f"training diverged in step {s + 1} ({error}): {REMEDY}") from error
            if log is not None:
                positions = min(model.config.block_size, len(tokens) - 1)
                line = {"step": s + 1, "loss": loss, "learning_rate": learning_rate, "positions": positions}
                log.write(json.dumps(line) + "\n")
            if (s + 1) % REPORT_EVERY == 0 or s + 1 == args.steps:
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                with tqdm.external_write_mode(sys.stdout):
                    print(f"step {s + 1:4d} / {args.steps:4d} | loss {loss:.4f}", flush=True)
            bar.update()
    if not args.quiet:
        seconds = time.perf_counter() - started
        tell(f"trained {args.steps} steps in {seconds:.2f} s, {args.steps / seconds:.0f} steps/s")


def step(model: GPT, optimizer: Adam, tokens: Sequence[int], learning_rate: float) -> float:
    """Train on one document and return the loss before. As a function: its graph is gone when it returns."""
    loss = model.loss(tokens)
    if not math.isfinite(loss.data):
        raise ArithmeticError(f"the loss is {loss.data}")
    loss.backward()
    optimizer.step(learning_rate)
    return loss.data


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(build_parser(), train, argv)


if __name__ == "__main__":
    sys.exit(main())
