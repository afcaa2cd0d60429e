"""What the commands share: refusals in one line, argument types, streams, exit statuses."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from microgpt.ranges import MAX_COUNT, Real, Whole, Words

# What moves the cursor, colours, or turns the direction of what follows: controls but for the tab, line and paragraph separators,
# bidirectional marks, and halves of characters, which cannot be written at all.
CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, *, lines: bool = False) -> str:
    """Return `text` with control characters escaped as in Python, such as \\x1b: a terminal shows them and does not obey.

    `lines`: line ends stay as they are.
    """
    if lines:
        return "\n".join(map(printable, text.split("\n")))
    return CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def say(text: str, end: str = "\n", *, flush: bool = False) -> None:
    """Print results. OSError names standard output where it cannot be written; BrokenPipeError if nobody reads it."""
    try:
        print(text, end=end, flush=flush)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def print_document(text: str, end: str = "\n", *, lines: bool = False, flush: bool = False) -> None:
    """Print results: as they are to a file or pipe; to a terminal with control characters escaped, but line ends if `lines`."""
    say(printable(text, lines=lines) if sys.stdout.isatty() else text, end, flush=flush)


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses in one line, takes no abbreviations, and reads @FILE as the flags in FILE."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "fromfile_prefix_chars": "@", **options})

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """Return the words of a line of a file of flags, as a shell reads them."""
        import shlex  # here, so that other calls do not pay for the import

        try:
            return shlex.split(arg_line, comments=True)
        except ValueError as error:
            self.error(f"{shorten(arg_line)} in a file of flags: {error}")

    def error(self, message: str) -> NoReturn:
        """Print `message` in one line and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {printable(' '.join(message.splitlines()))}\n")


def argument(allowed: Whole | Real | Words) -> Callable[[str], float | str]:
    """Return an argument type: a number or text in `allowed`."""

    def parse(text: str) -> float | str:
        try:
            value: float | str | None = allowed.parse(text)
        except ValueError:
            value = None
        if value is None or value not in allowed:
            raise argparse.ArgumentTypeError(f"needs {allowed}, got {shorten(text)}")
        return value

    return parse


def whole_number(low: int, high: int = MAX_COUNT) -> Callable[[str], float | str]:
    """Return an argument type: a whole number in [low, high]."""
    return argument(Whole(low, high))


def shorten(text: str) -> str:
    """Return `text` quoted, its end cut where it is long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def tell(message: str) -> None:
    """Print a line for people to standard error. That nobody can read it is no reason to lose the results."""
    with suppress(OSError):
        print(printable(message), file=sys.stderr, flush=True)


def prepare_streams() -> None:
    """Let standard output be UTF-8 wherever it goes, so that it is the same bytes; a closed stream swallows what it gets."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


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
            if value in ([], "--", ["--"]):  # what argparse makes of --flag=--, older ones and newer ones
                parser.error(f"argument --{name.replace('_', '-')}: expected one argument")
        status = command(args)
        say("", "", flush=True)
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
