"""Train a GPT on documents, one per line, and print new ones: `python -m microgpt.train`.

Standard output carries the results only, the same bytes in every run. Progress, timings and warnings go to standard error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NoReturn, TextIO

import microgpt
from microgpt import data
from microgpt.cli import print_document, run, tell
from microgpt.sampler import generate
from microgpt.signals import noted_signals
from microgpt.train_flags import build_parser, prepare_files, settle, way_on
from microgpt.trainer import Settings, Trainer

if TYPE_CHECKING:
    from tqdm import tqdm

    from microgpt.resume import Saved, Source

REPORT_EVERY = 100  # steps between two lines of loss
REMEDY = "try a lower --learning-rate"


def train(args: argparse.Namespace) -> int:
    """Do the whole run that `args` describes, printing as it goes, and return the exit status."""
    started = time.perf_counter()
    saved = None if args.resume is None else microgpt.resume.load(args.resume)
    settings = settle(args, saved)
    prepare_files(args)
    trainer, source = start(args, settings, saved)
    first = len(trainer.losses)
    # The log is opened last: a run that cannot start leaves the log of an earlier one alone.
    with nullcontext() if args.log is None else open(args.log, "w", encoding="utf-8", buffering=1) as log:
        print(f"num docs: {len(trainer.documents)}")
        print(f"vocab size: {trainer.config.vocab_size}")
        print(f"num params: {trainer.config.n_parameters}", flush=True)
        if not args.quiet:
            warn_of_long(trainer.documents, settings.block_size)
            if first:
                tell(f"{args.resume} is at step {first}" + (": finished, only samples remain" if trainer.finished else ""))
        if log is not None:
            # A resumed run writes the log anew from what was saved, so it is that of a straight run whatever the file holds now.
            log.writelines(log_line(trainer, step) for step in range(first))
        begun = time.perf_counter()
        with noted_signals() as signals:
            try:
                fit(trainer, args, source, log, signals)
            except (OSError, MemoryError):
                # Nobody reads standard output, the disk of the log is full, ...: what is learned is kept all the same.
                if source is not None:
                    microgpt.resume.save(args.save, trainer, source)
                    if not args.quiet:
                        tell(f"stopped after step {len(trainer.losses)} of {settings.steps}; {way_on(args)}")
                raise
            seconds = time.perf_counter() - begun
            written = [] if log is None else [args.log]
            failure = None
            try:
                if source is not None and (len(trainer.losses) > first or args.save != args.resume):
                    microgpt.resume.save(args.save, trainer, source)
                    written.append(args.save)
                if args.plot is not None:
                    microgpt.plot.plot(args.plot, trainer.losses, trainer.validations)
                    written.append(args.plot)
            except OSError as error:
                failure = error  # the samples come first: they are all that is left of the run
    if signals and failure is None:
        tell(f"interrupted after step {len(trainer.losses)} of {settings.steps}; {way_on(args)}")
        return 128 + signals[0]
    if not args.quiet:
        summarise(trainer, len(trainer.losses) - first, seconds, written)
    print_samples(trainer)
    if failure is not None:
        raise failure
    if not args.quiet:
        tell(f"{time.perf_counter() - started:.2f} s in all")
    return 0


def start(args: argparse.Namespace, settings: Settings, saved: Saved | None) -> tuple[Trainer, Source | None]:
    """Return the run at its start, or where it was saved, and the source of its documents where it will be saved.

    ValueError if they are others now.
    """
    try:
        documents = load_documents(args)
    except OSError as error:
        if saved is None or args.data != saved.source.data:
            raise
        reason = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise ValueError(f"{args.data}, the text of {saved.path}, {reason}: say where with --data") from None
    if args.save is None:
        return Trainer(settings, documents), None
    sha256 = microgpt.resume.fingerprint(documents)
    source = microgpt.resume.Source(args.data, args.dataset, len(documents), sha256)
    if saved is None:
        return Trainer(settings, documents), source
    if (saved.source.sha256, saved.source.documents) != (sha256, len(documents)):
        before = f"{saved.source.documents} other documents (sha256 {saved.source.sha256[:8]}...)"
        raise ValueError(f"{saved.path} was trained on {before} than these {len(documents)} ({sha256[:8]}...)")
    return microgpt.resume.restore(saved, settings, documents), source


def load_documents(args: argparse.Namespace) -> list[str]:
    """Return the documents that the flags ask for."""
    if args.data is not None:
        return data.load_file(args.data)
    if args.dataset != "makemore":
        return data.load_names()
    try:
        return data.load_makemore()
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; use --data FILE with a file of your own") from error


def warn_of_long(documents: Sequence[str], block_size: int) -> None:
    """Say how many documents are cut: those with more predictions than block_size, the closing BOS included."""
    cut = sum(len(document) + 1 > block_size for document in documents)
    if cut:
        longest = max(map(len, documents)) + 1
        too_short = f"block size {block_size} is too short: the longest needs {longest}"
        tell(f"warning: {cut} of {len(documents)} documents are cut, {too_short}")


def fit(trainer: Trainer, args: argparse.Namespace, source: Source | None, log: TextIO | None, signals: Sequence[int]) -> None:
    """Train until the end of the run or a signal, whichever is first."""
    steps = trainer.settings.steps
    step = len(trainer.losses)
    with nullcontext() if args.quiet or not sys.stderr.isatty() else new_bar(steps, step) as bar:
        while not trainer.finished and not signals:
            try:
                loss = trainer.step()
            except (ArithmeticError, ValueError) as error:
                raise ValueError(f"training diverged in step {step + 1} ({error}): {REMEDY}") from error
            step += 1
            if log is not None:
                log.write(log_line(trainer, step - 1))
            if source is not None and args.save_every is not None and step % args.save_every == 0:
                save_on_the_way(trainer, args, source)
            if step % REPORT_EVERY == 0 or step in trainer.validations or trainer.finished:
                measured = {"loss": f"{loss:.4f}"}
                if step in trainer.validations:
                    measured["validation"] = f"{trainer.validations[step]:.4f}"
                if bar is not None:
                    bar.set_postfix(measured, refresh=False)
                with nullcontext() if bar is None else bar.external_write_mode(sys.stdout):
                    told = " | ".join(f"{name} {value}" for name, value in measured.items())
                    print(f"step {step:4d} / {steps:4d} | {told}", flush=True)
            if bar is not None:
                bar.update()


def new_bar(steps: int, step: int) -> tqdm[NoReturn]:
    """Return the bar of a run that has come to `step`, drawn on standard error."""
    from tqdm import tqdm  # here, because the import takes as long as that of all the rest

    return tqdm(total=steps, initial=step, unit=" steps", dynamic_ncols=True)


def log_line(trainer: Trainer, step: int) -> str:
    """Return the line of the log for `step`, counted from 0."""
    import json  # here: only a run with a log needs it

    block_size = trainer.settings.block_size
    line = {
        "step": step + 1,
        "loss": trainer.losses[step],
        "learning_rate": trainer.learning_rate(step),
        "positions": sum(min(block_size, len(document) + 1) for document in trainer.batch(step)),
    }
    if step + 1 in trainer.validations:
        line["validation"] = trainer.validations[step + 1]
    return json.dumps(line) + "\n"


def save_on_the_way(trainer: Trainer, args: argparse.Namespace, source: Source) -> None:
    """Save, and go on if that fails: the disk may have room again before the end."""
    try:
        microgpt.resume.save(args.save, trainer, source)
    except OSError as error:
        tell(f"warning: not saved at step {len(trainer.losses)}: {error.filename}: {error.strerror}")


def summarise(trainer: Trainer, made: int, seconds: float, written: Sequence[str]) -> None:
    """Say how long the `made` steps took, where the run ended and what it wrote."""
    step, best = len(trainer.losses), trainer.best_step
    if trainer.out_of_patience:
        tell(f"stopped at step {step}: {trainer.waited} validations without a better one")
    if made:
        tell(f"trained {made} steps in {seconds:.2f} s, {made / seconds:.0f} steps/s")
    validated = f", validation {list(trainer.validations.values())[-1]:.4f}" if best else ""
    lowest = f", at its best {trainer.validations[best]:.4f} in step {best}" if best else ""
    tell(f"last loss {trainer.losses[-1]:.4f}{validated}{lowest}")
    if written:
        tell(f"wrote {', '.join(written)}")


def print_samples(trainer: Trainer) -> None:
    """Print new documents, the same ones for the same run."""
    print("--- inference ---")
    for i in range(trainer.settings.samples):
        try:
            text = generate(trainer.model, trainer.tokenizer, trainer.rng, temperature=trainer.settings.temperature)
        except (ArithmeticError, ValueError) as error:
            raise ValueError(f"training diverged, there is nothing to sample from ({error}): {REMEDY}") from error
        print_document(f"sample {i + 1:2d}: {text}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(build_parser, train, argv)


if __name__ == "__main__":
    sys.exit(main())
