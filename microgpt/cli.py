"""What the commands share: refusals in one line, argument types, streams, exit statuses."""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

MAX_COUNT = 2**31 - 1  # of steps, samples and sizes


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses in one line."""

    def error(self, message: str) -> NoReturn:
        """Print `message` in one line and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.splitlines())}\n")


def whole_number(low: int, high: int = MAX_COUNT) -> Callable[[str], int]:
    """Return an argument type: a whole number in [low, high]."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"needs a whole number from {low} to {high}, got {shorten(text)}")
        return value

    return parse


def real_number(low: float, *, exclusive: bool = False, or_zero: bool = False) -> Callable[[str], float]:
    """Return an argument type: a finite number of at least `low`, or above it where exclusive; 0 too where or_zero."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        enough = value > low if exclusive else value >= low
        if not ((enough and value < math.inf) or (or_zero and value == 0)):
            bound = f"{'0 or ' if or_zero else ''}a finite number {'above' if exclusive else 'of at least'} {low}"
            raise argparse.ArgumentTypeError(f"needs {bound}, got {shorten(text)}")
        return value

    return parse


def shorten(text: str) -> str:
    """Return `text` quoted, its end cut where it is long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def tell(message: str) -> None:
    """Print a line for people to standard error. That nobody can read it is no reason to lose the results."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def prepare_streams() -> None:
    """Let standard output be UTF-8 wherever it goes, so that it is the same bytes; a closed stream swallows what it gets."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")


def drop_output() -> None:
    """Where standard output cannot be written, keep the interpreter from trying again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(
    build_parser: Callable[[], Parser], command: Callable[[argparse.Namespace], int | None], argv: Sequence[str] | None
) -> int:
    """Run `command` on the arguments, as the parser reads them, and return the exit status.

    It is what `command` returns, 0 for None; 1 if the reader of standard output went away, 130 after an interrupt. What the user
    can mend ends in one line on standard error and exit status 2.
    """
    parser = Parser()
    try:
        prepare_streams()
        parser = build_parser()
        args = parser.parse_args(argv)
        for name, value in vars(args).items():
            if value in ([], "--"):  # what argparse makes of --flag=--, older ones and newer ones
                parser.error(f"argument --{name.replace('_', '-')}: expected one argument")
        status = command(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        tell("interrupted")
        return 130
    except BrokenPipeError:
        drop_output()
        return 1
    except MemoryError as error:
        parser.error(f"not enough memory: {error}")
    except OSError as error:
        drop_output()
        parser.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except ValueError as error:
        parser.error(str(error))
    return status or 0
