"""The flags of the training command, and which of them go together."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import microgpt
from microgpt.cli import Parser, argument, whole_number
from microgpt.data import DATASETS
from microgpt.files import check_writable
from microgpt.ranges import OneOf
from microgpt.trainer import MAX_VALIDATED, Settings

if TYPE_CHECKING:
    from microgpt.resume import Saved

PROGRAM = "python -m microgpt.train"
GOES_ON = "go on with the run in FILE, whose flags need not be given again, and save to it unless --save says otherwise"
FREE_ON_RESUME = ("samples", "temperature")  # they decide what is printed at the end, not what is learned


def build_parser() -> Parser:
    """Return the parser of the command line. A flag of Settings that is not given is not in what it returns."""
    parser = Parser(
        prog=PROGRAM,
        description="Train a GPT on documents, one per line, and print new ones.",
        epilog="Step s of S, counted from 0, has the learning rate R * (s + 1) / W while s < W, where R is the highest and W the "
        "warmup. Then, with t = (s - W) / (S - W), it is R * (1 - t) where linear, R * (1 + cos(pi * t)) / 2 where cosine, "
        "R where constant. Ctrl-C ends a run after its current step, a second one at once. On a terminal, control characters in "
        "a sample are shown escaped, such as \\x1b; a file or pipe gets them as they are.",
        allow_abbrev=False,
    )
    add_run_flags(parser)
    group = parser.add_argument_group("samples")
    add_setting(group, "--samples", "documents to print at the end")
    add_setting(group, "--temperature", "of the samples; low is cautious, 0 takes the likeliest character each time", "T")

    group = parser.add_argument_group("files")
    group.add_argument("--save", metavar="FILE", help="write the run to FILE (safetensors) at the end and when interrupted")
    group.add_argument("--save-every", metavar="N", type=whole_number(1), help="write it every N steps, too")
    group.add_argument("--resume", metavar="FILE", help=GOES_ON)
    line = "step, loss, learning_rate, positions and, where it is measured, validation"
    group.add_argument("--log", metavar="FILE", help=f"write a JSON line per step: {line}")
    group.add_argument("--plot", metavar="FILE", help="draw the losses into FILE: .png, .svg, .pdf, ...; needs matplotlib")
    group.add_argument("--quiet", action="store_true", help="nothing on standard error but errors")
    return parser


def add_setting(group: Any, flag: str, meaning: str, metavar: str | None = "N") -> None:
    """Add the flag of one of Settings to a group of a parser."""
    option = next(option for option in fields(Settings) if flag_of(option.name) == flag)
    default, allowed = option.default, option.metadata["allowed"]
    meaning += "" if default is None else f" (default: {default})"
    values = {"choices": allowed.words} if isinstance(allowed, OneOf) else {"type": argument(allowed)}
    group.add_argument(flag, default=argparse.SUPPRESS, help=meaning, metavar=metavar, **values)


def add_run_flags(parser: Parser) -> None:
    """Add the flags that decide what is learned."""
    group = parser.add_argument_group("text")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="FILE", help="train on FILE, UTF-8 text, a document per line, instead of a dataset")
    datasets = "names: 32,868 given names inside the package; makemore: the 32,033 of microgpt.py, downloaded once"
    source.add_argument("--dataset", choices=DATASETS, help=f"{datasets} (default: names)")

    group = parser.add_argument_group("model")
    add_setting(group, "--n-layer", "transformer blocks")
    add_setting(group, "--n-embd", "width of the model")
    add_setting(group, "--n-head", "attention heads, a divisor of n-embd")
    add_setting(group, "--block-size", "longest context in tokens")

    group = parser.add_argument_group("training")
    add_setting(group, "--steps", "training steps, one batch each")
    add_setting(group, "--batch-size", "documents in a batch; its loss is the mean of theirs")
    add_setting(group, "--learning-rate", "the highest; the schedule lowers it", "RATE")
    add_setting(group, "--schedule", "how the learning rate falls to 0, if it does", None)
    add_setting(group, "--warmup", "steps in which the learning rate rises first")
    add_setting(group, "--weight-decay", "a step first takes away this share of each weight, times the rate", "SHARE")
    add_setting(group, "--clip-grad", "scale gradients down to the norm NORM where theirs is larger", "NORM")
    add_setting(group, "--seed", "seed of shuffle, weights and samples")

    group = parser.add_argument_group("validation")
    held_out = f"share of the documents to hold out; their mean loss is shown, that of {MAX_VALIDATED} if they are more"
    add_setting(group, "--validation", held_out, "FRACTION")
    add_setting(group, "--validation-every", "validate every N steps, and after the last")
    add_setting(group, "--patience", "stop when N validations in a row are no better than the best")


def settle(args: argparse.Namespace, saved: Saved | None) -> Settings:
    """Return the settings of the run, and complete `args` by what a saved run knows.

    ValueError for flags that contradict each other or the saved run.
    """
    given = {field.name: getattr(args, field.name) for field in fields(Settings) if hasattr(args, field.name)}
    if saved is None:
        settings = Settings(**given)
    else:
        check_same_run(given, saved)
        settings = replace(saved.settings, **given)
        args.save = args.save or args.resume
        if args.data is None and args.dataset is None:
            args.data, args.dataset = saved.source.data, saved.source.dataset
            if args.data is not None and os.path.exists(args.data) and not os.path.isfile(args.data):
                # A pipe would be waited for, one of /dev/fd is another run's.
                raise ValueError(f"{args.data}, the text of {saved.path}, is no ordinary file: say where with --data")
    if "validation_every" in given and not settings.validation:
        raise ValueError("--validation-every needs --validation")
    if args.save_every is not None and args.save is None:
        raise ValueError("--save-every needs --save")
    return settings


def check_same_run(given: Mapping[str, Any], saved: Saved) -> None:
    """Raise ValueError for a flag that would make another run of the saved one."""
    for name, value in given.items():
        before = getattr(saved.settings, name)
        more_steps = name == "steps" and saved.settings.schedule == "constant" and value > before
        if value != before and name not in FREE_ON_RESUME and not more_steps:
            run = f"no {flag_of(name)}" if before is None else f"{flag_of(name)} {before}"
            remedy = "; more steps can be asked for where the schedule is constant" if name == "steps" else ""
            raise ValueError(f"{flag_of(name)} {value} contradicts {saved.path}, a run with {run}{remedy}")


def flag_of(name: str) -> str:
    """Return how the command line spells a setting."""
    return "--" + name.replace("_", "-")


def prepare_files(args: argparse.Namespace) -> None:
    """See that the files can be written and are different ones, before any time is spent. ValueError or OSError if not."""
    files = [(name, path) for name in ("data", "resume", "save", "log", "plot") if (path := getattr(args, name)) is not None]
    for (name, path), (other, other_path) in combinations(files, 2):
        if (name, other) != ("resume", "save") and same_file(path, other_path):
            raise ValueError(f"--{name} and --{other} are the same file, {path}")
    if args.save is not None:
        check_writable(args.save)
        if args.resume is None or not same_file(args.save, args.resume):
            check_replaceable(args.save)
    if args.plot is not None:
        check_writable(args.plot)
        microgpt.plot.check_plot(args.plot)


def check_replaceable(path: str) -> None:
    """Raise ValueError if saving to `path` would lose something else than a finished run."""
    if not os.path.exists(path):
        return
    remedy = "choose another file, or remove it first"
    try:
        training = microgpt.resume.load(path).metadata["training"]
    except ValueError:
        raise ValueError(f"--save {path} would replace a file that is no training run: {remedy}") from None
    if not training["finished"]:
        raise ValueError(
            f"--save {path} would replace a run stopped at step {training['step']}: go on with --resume, or {remedy}"
        )


def same_file(path: str, other: str) -> bool:
    """Return whether two paths lead to one file, be it there or not."""
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)


def way_on(args: argparse.Namespace) -> str:
    """Return how to go on with an interrupted run."""
    if args.save is None:
        return "nothing is saved without --save"
    words = ["--resume", as_argument(args.save)]
    for name in ("save_every", "log", "plot"):
        if getattr(args, name) is not None:
            words += [flag_of(name), as_argument(str(getattr(args, name)))]
    return f"to go on: {PROGRAM} {shlex.join(words + ['--quiet'] * args.quiet)}"


def as_argument(path: str) -> str:
    """Return `path` so that it is not taken for a flag."""
    return os.path.join(os.curdir, path) if path.startswith("-") else path
