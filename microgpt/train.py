"""Train a GPT on documents or on a text, and print new ones: `python -m microgpt.train`.

Standard output carries the results only, the same bytes in every run. Progress, timings and warnings go to standard error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, BinaryIO

import microgpt
from microgpt import data
from microgpt.batches import DocumentBatches, TextBatches
from microgpt.cli import print_document, run, say, tell
from microgpt.files import FileReplacedError, Known, free_name
from microgpt.initial import Initial
from microgpt.progress import Bar, bar
from microgpt.sampler import generate, generate_text
from microgpt.settings import Settings
from microgpt.signals import noted_signals
from microgpt.text import Documents, Text
from microgpt.tokenizer import CharTokenizer
from microgpt.train_flags import build_parser, prepare_files, same_file, settle, way_on
from microgpt.trainer import Snapshot, Trainer

if TYPE_CHECKING:
    from microgpt.resume import Saved, Source

REPORT_EVERY = 100  # steps between two lines of loss
SNAPSHOT_EVERY = 100  # steps; where a run diverges, it goes back to one at least half as many steps before
LOWER = 10  # times lower is the learning rate that a run which diverged is advised to go on with


class DivergedError(ValueError):
    """The numbers of a run have left the range of floats."""


class Log:
    """A file with a JSON line for each step, which is there as soon as it is written."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: BinaryIO = open(path, "wb", buffering=0)  # noqa: SIM115  # nothing is left to be written when it is closed

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def write(self, lines: Iterable[str]) -> None:
        """Add lines. OSError names the file."""
        try:
            for line in lines:
                self._file.write(line.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path) from error


class Command:
    """One call of the training command: a run, and the files it is kept in."""

    def __init__(self, args: argparse.Namespace) -> None:
        found = None if args.resume is None else Known(args.resume)  # before it is read: what is written after that is not known
        saved = None if args.resume is None else microgpt.resume.load(args.resume)
        initial = None if args.init_from is None or saved is not None else Initial(args.init_from)
        self.args = args
        self.settings = settle(args, saved, initial)
        self.known = prepare_files(args)
        if found is not None and same_file(args.save, found.path):
            self.known["save"].mark = found.mark
        self.trainer, self.source = start(args, self.settings, saved, initial)
        self.first = len(self.trainer.losses)  # steps that were made before
        self.snapshots: list[Snapshot] = []  # the last two
        self.written: list[str] = []
        # The log is opened last: a run that cannot start leaves the log of an earlier one alone.
        self.log = None if args.log is None else Log(args.log)
        if not args.quiet:
            self.tell_start(saved, initial)

    def tell_start(self, saved: Saved | None, initial: Initial | None) -> None:
        """Say what standard output does not: what is cut, where the run stands, what it starts from."""
        trainer, settings, step = self.trainer, self.settings, self.first
        warn_of_long(trainer)
        if initial is not None and (added := initial.added(trainer.tokenizer)):
            tell(f"{len(added)} characters that {initial.path} does not know are added: {added!r}")
        if saved is None:
            return
        if step:
            tell(f"{saved.path} is at step {step}" + (": finished, only samples remain" if trainer.finished else ""))
        if settings.steps != saved.settings.steps and step:
            rates = f"from {trainer.rate_at(step - 1):.3g} in the last step to {trainer.rate_at(step):.3g}"
            tell(f"the learning rate goes on as in a run of {settings.steps} steps: {rates}")
        elif settings.learning_rate != saved.settings.learning_rate:
            tell(f"the highest learning rate is {settings.learning_rate:g} from here on, it was {saved.settings.learning_rate:g}")

    def keep(self) -> None:
        """Save the run: beside its file where another process has written that meanwhile. OSError if neither can be written."""
        while True:
            try:
                assert self.source is not None, "a run that is saved has one"
                microgpt.resume.save(self.args.save, self.trainer, self.source, self.known["save"])
                return
            except FileReplacedError:
                path = free_name(self.args.save)
                tell(f"warning: another process has written {self.args.save} meanwhile, this run is saved to {path}")
                self.args.save, self.known["save"] = path, Known(path)

    def keep_on_the_way(self) -> None:
        """Save, and go on if that fails: the disk may have room again before the end."""
        try:
            self.keep()
        except OSError as error:
            tell(f"warning: not saved at step {len(self.trainer.losses)}: {error.filename}: {error.strerror}")

    def keep_best(self) -> None:
        """Write the best model so far, and go on if that fails, or if another process has written that file."""
        try:
            microgpt.resume.save_best(self.args.save_best, self.trainer, self.known["save_best"])
        except OSError as error:
            tell(f"warning: the best model, of step {self.trainer.best_step}, is not saved: {error.filename}: {error.strerror}")

    def fit(self, signals: Sequence[int], shown: Bar) -> None:
        """Train until the end of the run or a signal, whichever is first. DivergedError if it cannot go on."""
        args, trainer = self.args, self.trainer
        while not trainer.finished and not signals:
            step = len(trainer.losses)
            if args.save is not None and (not self.snapshots or step % SNAPSHOT_EVERY == 0):
                self.snapshots = [*self.snapshots[-1:], trainer.snapshot()]
            try:
                loss = trainer.train_step()
            except (ArithmeticError, ValueError) as error:
                raise DivergedError(f"training diverged in step {step + 1} ({error})") from error
            step += 1
            if self.log is not None:
                self.log.write([log_line(trainer, step - 1)])
            if args.save_every is not None and step % args.save_every == 0:
                self.keep_on_the_way()
            if args.save_best is not None and trainer.best_step == step:
                self.keep_best()
            if step % REPORT_EVERY == 0 or step in trainer.validations or trainer.finished:
                self.report(step, loss, shown)
            shown.update()

    def report(self, step: int, loss: float, shown: Bar) -> None:
        """Print the losses of a step, and show them beside the bar."""
        measured = {"loss": f"{loss:.4f}"}
        if step in self.trainer.validations:
            measured["validation"] = f"{self.trainer.validations[step]:.4f}"
        shown.show(measured)
        with shown.aside():
            told = " | ".join(f"{name} {value}" for name, value in measured.items())
            say(f"step {step:4d} / {self.settings.steps:4d} | {told}", flush=True)

    def diverged(self, reason: str) -> ValueError:
        """Draw the plot, save the run as it was before it went wrong, and return what to say: the reason, and a way on."""
        remedy = "try a lower --learning-rate"
        try:
            self.draw()
            if self.snapshots:
                made, (first, *later) = len(self.trainer.losses), self.snapshots
                self.trainer.go_back(later[0] if later and made - later[0].steps >= SNAPSHOT_EVERY // 2 else first)
                self.keep()
                lower = {"learning_rate": self.settings.learning_rate / LOWER}
                remedy = f"saved as it was after step {len(self.trainer.losses)}; {way_on(self.args, **lower)}"
        except OSError as error:
            remedy += f"; {error.filename}: {error.strerror}"
        except microgpt.resume.NotFiniteError:
            pass  # of a model that was not finite from the beginning
        return DivergedError(f"{reason}: {remedy}")

    def draw(self) -> None:
        """Draw the plot, where one is asked for."""
        if self.args.plot is not None and self.source is not None:
            microgpt.plot.plot(self.args.plot, self.trainer, self.source.name, log_x=self.args.plot_log)
            self.written.append(self.args.plot)

    def finish(self) -> None:
        """Write what is left to write."""
        if self.args.save is not None and (len(self.trainer.losses) > self.first or self.args.save != self.args.resume):
            self.keep()
            self.written.append(self.args.save)
        if self.args.save_best is not None and self.trainer.best_step > self.first:
            self.written.append(self.args.save_best)
        self.draw()

    def run(self) -> int:
        """Do the whole run, printing as it goes, and return the exit status."""
        started = time.perf_counter()
        args, trainer, steps = self.args, self.trainer, self.settings.steps
        print_head(trainer)
        if self.log is not None:
            # A resumed run writes the log anew from what was saved, so it is that of a straight run whatever the file holds now.
            self.log.write(log_line(trainer, step) for step in range(self.first))
            self.written.append(args.log)
        begun = time.perf_counter()
        failure = None
        with noted_signals() as signals:
            try:
                with bar(steps, self.first, "steps", quiet=args.quiet) as shown:
                    self.fit(signals, shown)
                seconds = time.perf_counter() - begun
                try:
                    self.finish()
                except OSError as error:
                    failure = error  # the samples come first: they are all that is left of the run
            except DivergedError as error:
                raise self.diverged(str(error)) from error
            except microgpt.resume.NotFiniteError as error:
                raise self.diverged(f"training diverged ({error})") from error
            except (OSError, MemoryError):
                # Nobody reads standard output, the disk of the log is full, ...: what is learned is kept all the same.
                if args.save is not None:
                    self.keep()
                    if not args.quiet:
                        tell(f"stopped after step {len(trainer.losses)} of {steps}; {way_on(args)}")
                raise
        if signals and failure is None:
            tell(f"interrupted after step {len(trainer.losses)} of {steps}; {way_on(args)}")
            return 128 + signals[0]
        if not args.quiet:
            summarise(trainer, len(trainer.losses) - self.first, seconds, self.written)
        print_samples(trainer)
        if failure is not None:
            raise failure
        if not args.quiet:
            tell(f"{time.perf_counter() - started:.2f} s in all")
        return 0


def start(
    args: argparse.Namespace, settings: Settings, saved: Saved | None, initial: Initial | None
) -> tuple[Trainer, Source | None]:
    """Return the run at its start, or where it was saved, and the source of its text, where it is saved or drawn.

    ValueError if that is another now.
    """
    try:
        text = load_text(args, settings)
    except OSError as error:
        if saved is None or args.data != saved.source.data:
            raise
        reason = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise ValueError(f"{error.filename}, the text of {saved.path}, {reason}: say where with --data") from None
    if args.save is None and args.plot is None:
        return Trainer(settings, text, initial=initial), None
    # Only a file needs the fingerprint, which takes longer than some steps.
    sha256 = "" if args.save is None else microgpt.resume.fingerprint(text)
    paths = None if args.data is None else tuple(args.data)
    source = microgpt.resume.Source(paths, args.dataset, len(text), sha256)
    if saved is not None and (saved.source.sha256, saved.source.documents) != (sha256, len(text)):
        what = "characters of another text" if isinstance(text, Text) else "other documents"
        before = f"{saved.source.documents} {what} (sha256 {saved.source.sha256[:8]}...)"
        raise ValueError(f"{saved.path} was trained on {before} than these {len(text)} ({sha256[:8]}...)")
    if saved is not None:
        return microgpt.resume.restore(saved, settings, text), source
    return Trainer(settings, text, initial=initial), source


def load_text(args: argparse.Namespace, settings: Settings) -> Documents | Text:
    """Return the text that the flags ask for. ValueError if there is nothing to learn from it."""
    paths: Sequence[str | PathLike[str]] = args.data or [data.NAMES]
    if args.dataset == "makemore":
        try:
            paths = [data.fetch_makemore()]
        except (OSError, ValueError) as error:
            raise ValueError(f"{error}; use --data FILE with a file of your own") from error
    name = data.named(str(paths[0])) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    if settings.format == "text":
        text = data.load_text(paths)
        data.check_characters(text.characters(), name)
        return text
    documents = data.load_documents(paths, delimiter=settings.delimiter, keep_spaces=settings.keep_spaces)
    data.check_documents(documents, name, "documents, one per line" if settings.delimiter is None else "documents")
    return documents


def print_head(trainer: Trainer) -> None:
    """Print the sizes of text and model."""
    if isinstance(trainer.batches, TextBatches):
        say(f"num tokens: {len(trainer.batches.stream)}")
    else:
        say(f"num docs: {len(trainer.text)}")
    say(f"vocab size: {trainer.model.config.vocab_size}")
    say(f"num params: {trainer.model.n_parameters}", flush=True)


def warn_of_long(trainer: Trainer) -> None:
    """Say how many documents are cut: those with more predictions than block_size, the closing BOS included."""
    settings = trainer.settings
    if not isinstance(trainer.batches, DocumentBatches) or settings.long != "cut":
        return
    documents = trainer.batches.documents
    if isinstance(documents, Documents) and isinstance(trainer.tokenizer, CharTokenizer):
        sizes = documents.sizes()
    else:
        sizes = (len(trainer.tokenizer.ids(document)) for document in documents)
    cut = longest = 0
    for size in sizes:
        if size + 1 > settings.block_size:
            cut += 1
            longest = max(longest, size + 1)
    if cut:
        too_short = f"block size {settings.block_size} is too short: the longest needs {longest}; or take all by --long windows"
        tell(f"warning: {cut} of {len(documents)} documents are cut, {too_short}")


def log_line(trainer: Trainer, step: int) -> str:
    """Return the line of the log for `step`, counted from 0."""
    import json  # here: only a run with a log needs it

    line = {
        "step": step + 1,
        "loss": trainer.losses[step],
        "learning_rate": trainer.rate_at(step),
        "positions": trainer.batches.positions(step),
    }
    if step + 1 in trainer.validations:
        line["validation"] = trainer.validations[step + 1]
    return json.dumps(line) + "\n"


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
    """Print new documents, or pieces of text of block_size tokens, the same ones for the same run."""
    say("--- inference ---")
    settings = trainer.settings
    several_lines = settings.format == "text" or settings.delimiter is not None
    for i in range(settings.samples):
        try:
            if settings.format == "text":
                text = generate_text(
                    trainer.model, trainer.tokenizer, trainer.rng, settings.block_size, temperature=settings.temperature
                )
            else:
                text = generate(trainer.model, trainer.tokenizer, trainer.rng, temperature=settings.temperature)
        except (ArithmeticError, ValueError) as error:
            reason = f"training diverged, there is nothing to sample from ({error})"
            raise ValueError(f"{reason}: try a lower --learning-rate") from error
        print_document(f"sample {i + 1:2d}: {text}", lines=several_lines)


def train(args: argparse.Namespace) -> int:
    """Do the whole run that `args` describes, and return the exit status."""
    command = Command(args)
    try:
        return command.run()
    finally:
        if command.log is not None:
            command.log.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run(build_parser, train, argv)


if __name__ == "__main__":
    sys.exit(main())
