"""The flags of the training command, and which of them go together."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import Field, replace
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import microgpt
from microgpt import data
from microgpt.cli import Parser, argument, whole_number
from microgpt.files import Known, check_writable
from microgpt.initial import Initial
from microgpt.ranges import OneOf, Switch
from microgpt.settings import FIELDS, GROUPS, Settings, flag_of, spelled

if TYPE_CHECKING:
    from microgpt.resume import Saved

PROGRAM = "python -m microgpt.train"
GOES_ON = "go on with the run in FILE, whose flags need not be given again, and save to it unless --save says otherwise"
MAX_LINE = 10_000  # bytes that the first line of a log may have


def build_parser() -> Parser:
    """Return the parser of the command line. A flag of Settings that is not given is not in what it returns."""
    parser = Parser(
        prog=PROGRAM,
        description="Train a GPT on documents, one per line, or on a text, and print new ones.",
        epilog="Step s of S, counted from 0, has the learning rate R * (s + 1) / W while s < W, where R is the highest and W the "
        "warmup. Then, with t = (s - W) / (S - W), it is R * (1 - t) where linear, R * (1 + cos(pi * t)) / 2 where cosine, "
        "R where constant. Ctrl-C ends a run after its current step, a second one at once. On a terminal, control characters in "
        "a sample are shown escaped, such as \\x1b; a file or pipe gets them as they are. Flags may stand in a file, a line of "
        "them or more, # before a comment: @FILE.",
    )
    add_run_flags(parser, GROUPS)
    group = parser.add_argument_group("files")
    group.add_argument("--save", metavar="FILE", help="write the run to FILE (safetensors) at the end and when interrupted")
    group.add_argument("--save-every", metavar="N", type=whole_number(1), help="write it every N steps, too")
    group.add_argument(
        "--save-best", metavar="FILE", help="write the model to FILE each time that its validation is the best so far"
    )
    group.add_argument("--resume", metavar="FILE", help=GOES_ON)
    line = "step, loss, learning_rate, positions and, where it is measured, validation"
    group.add_argument("--log", metavar="FILE", help=f"write a JSON line per step: {line}")
    group.add_argument("--plot", metavar="FILE", help="draw the losses into FILE: .png, .svg, .pdf, ...; needs matplotlib")
    group.add_argument("--plot-log", action="store_true", help="with a logarithmic axis of steps")
    group.add_argument("--quiet", action="store_true", help="nothing on standard error but errors")
    return parser


def add_run_flags(parser: Parser, names: Sequence[str]) -> None:
    """Add the flags of these groups of settings, with those of the text and of the model to start from."""
    groups = {name: parser.add_argument_group(name) for name in names}
    source = groups["text"].add_mutually_exclusive_group()
    files = "train on these files and folders, UTF-8 text, - being standard input, instead of a dataset"
    source.add_argument("--data", metavar="FILE", nargs="+", help=files)
    datasets = "names: 32,868 given names inside the package; makemore: the 32,033 of microgpt.py, downloaded once"
    source.add_argument("--dataset", choices=data.DATASETS, help=f"{datasets} (default: names)")
    for field in FIELDS.values():
        if field.metadata["group"] in groups:
            add_setting(groups[field.metadata["group"]], field)
    start = "start from the weights of another run or model, whose sizes need not be given; new characters are added"
    groups["model"].add_argument("--init-from", metavar="FILE", help=start)


def add_setting(group: argparse._ArgumentGroup, field: Field[Any]) -> None:
    """Add the flag of a setting."""
    allowed, meaning = field.metadata["allowed"], field.metadata["meaning"]
    flag, default = flag_of(field.name), argparse.SUPPRESS
    if isinstance(allowed, Switch):
        group.add_argument(flag, action="store_true", default=default, help=meaning)
        return
    meaning += "" if field.default is None else f" (default: {field.default})"
    values: dict[str, Any] = {"choices": allowed.words} if isinstance(allowed, OneOf) else {"type": argument(allowed)}
    group.add_argument(flag, default=default, help=meaning, metavar=field.metadata["metavar"], **values)


def settle(args: argparse.Namespace, saved: Saved | None, initial: Initial | None) -> Settings:
    """Return the settings of the run, and complete `args` by what a saved run knows.

    ValueError for flags that contradict each other, the saved run, or the model to start from.
    """
    given = {name: getattr(args, name) for name in FIELDS if hasattr(args, name)}
    if saved is not None:
        if args.init_from is not None:
            raise ValueError(f"--init-from {args.init_from} is for a new run, {args.resume} has weights of its own")
        check_same_run(given, saved)
        settings = replace(saved.settings, **given)
        args.save = args.save or args.resume
        if args.data is None and args.dataset is None:
            args.data, args.dataset = saved.source.data, saved.source.dataset
            if hidden := [path for path in args.data or () if is_gone_after(path)]:
                # A pipe would be waited for, one of /dev/fd is another run's.
                kind = "was standard input" if hidden[0] == data.STDIN else "is no ordinary file"
                raise ValueError(f"{hidden[0]}, the text of {saved.path}, {kind}: say where with --data")
    else:
        settings = Settings(**(given if initial is None else initial.settled(given)))
    if "validation_every" in given and not settings.validation:
        raise ValueError("--validation-every needs --validation")
    if args.save_best is not None and not settings.validation:
        raise ValueError("--save-best needs --validation")
    if args.save_every is not None and args.save is None:
        raise ValueError("--save-every needs --save")
    if args.plot_log and args.plot is None:
        raise ValueError("--plot-log needs --plot")
    return settings


def is_gone_after(path: str) -> bool:
    """Return whether what `path` gives can be read once only."""
    return path == data.STDIN or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


def check_same_run(given: Mapping[str, Any], saved: Saved) -> None:
    """Raise ValueError for a flag that would make another run of the saved one."""
    for name, value in given.items():
        before, rule = getattr(saved.settings, name), FIELDS[name].metadata["on_resume"]
        if value == before or rule == "any" or (rule == "more" and value > before) or (rule == "less" and value < before):
            continue
        remedy = f"; {rule} can be asked for" if rule in ("more", "less") else ""
        raise ValueError(f"{spelled(name, value)} contradicts {saved.path}, a run with {spelled(name, before)}{remedy}")


def prepare_files(args: argparse.Namespace) -> dict[str, Known]:
    """See that the files can be written and are different ones, before any time is spent. ValueError or OSError if not.

    Return what stands now at those that are written more than once, by flag.
    """
    files = [("data", path) for path in args.data or () if path != data.STDIN]
    for name in ("init_from", "resume", "save", "save_best", "log", "plot"):
        if (path := getattr(args, name)) is not None:
            files.append((name, path))
    known = {name: Known(path) for name, path in files if name in ("save", "save_best")}
    for (name, path), folder in product(files, filter(os.path.isdir, args.data or ())):
        inside = os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), ""))
        if inside and name in ("save", "save_best", "log", "plot"):
            raise ValueError(f"{flag_of(name)} {path} is in the folder {folder}, all of which is read as text")
    for (name, path), (other, other_path) in combinations(files, 2):
        if (name, other) not in (("resume", "save"), ("data", "data")) and same_file(path, other_path):
            raise ValueError(f"{flag_of(name)} and {flag_of(other)} are the same file, {path}")
    if args.save is not None:
        check_writable(args.save)
        if args.resume is None or not same_file(args.save, args.resume):
            check_replaceable(args.save)
    if args.save_best is not None:
        check_writable(args.save_best)
        check_replaceable_best(args.save_best)
    if args.log is not None:
        check_log(args.log)
    if args.plot is not None:
        check_writable(args.plot)
        microgpt.plot.check_plot(args.plot)
    return known


REMEDY = "choose another file, or remove it first"


def check_replaceable(path: str) -> None:
    """Raise ValueError if saving to `path` would lose something else than a finished run."""
    if not os.path.exists(path):
        return
    try:
        training = microgpt.resume.load(path).metadata["training"]
    except ValueError:
        raise ValueError(f"--save {path} would replace a file that is no training run: {REMEDY}") from None
    if not training["finished"]:
        raise ValueError(
            f"--save {path} would replace a run stopped at step {training['step']}: go on with --resume, or {REMEDY}"
        )


def check_replaceable_best(path: str) -> None:
    """Raise ValueError if saving to `path` would lose something else than the best model of a run."""
    if not os.path.exists(path):
        return
    try:
        _, metadata = microgpt.checkpoint.read(path)
    except ValueError:
        metadata = {}
    if "best" not in metadata:
        raise ValueError(f"--save-best {path} would replace a file that --save-best did not write: {REMEDY}")


def check_log(path: str) -> None:
    """Raise ValueError if a log in `path` would lose something else than a log. A device has nothing to lose."""
    if not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        first = file.readline(MAX_LINE)
    if first and not (first.startswith(b'{"step": ') and b'"loss": ' in first):
        raise ValueError(f"--log {path} would replace a file that is no log of a run: {REMEDY}")


def same_file(path: str, other: str) -> bool:
    """Return whether two paths lead to one file, be it there or not."""
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.realpath(path) == os.path.realpath(other)


def way_on(args: argparse.Namespace, **more: float) -> str:
    """Return how to go on with an interrupted run, with `more` flags."""
    if args.save is None:
        return "nothing is saved without --save"
    words = ["--resume", as_argument(args.save)]
    for name, value in more.items():
        words += [flag_of(name), f"{value:g}"]
    for name in ("save_every", "save_best", "log", "plot"):
        if getattr(args, name) is not None:
            words += [flag_of(name), as_argument(str(getattr(args, name)))]
    words += [flag for flag in ("--plot-log", "--quiet") if getattr(args, flag[2:].replace("-", "_"))]
    if any(map(is_gone_after, args.data or ())):
        return f"to go on, with the same text in a FILE, since standard input is gone: {PROGRAM} {shlex.join(words)} --data FILE"
    return f"to go on: {PROGRAM} {shlex.join(words)}"


def as_argument(path: str) -> str:
    """Return `path` so that it is not taken for a flag, or for a file of flags."""
    return os.path.join(os.curdir, path) if path.startswith(("-", "@")) else path
