"""Every flag of a command against every value that someone might mistype, and every pair of flags."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

VALUES = [
    *("", " ", "0", "-0", "0.0", "-1", "1.5", "-1.5", "1e-9", "1e3", "1e999", "nan", "inf", "-inf", "0x10", "1,5"),
    *("abc", "é🙂", "two\nlines", "1" * 30, "9" * 5000, "None", "--", "-"),
]


def try_every_flag(
    main: Callable[[Sequence[str]], int],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str],
    accepted: Mapping[str, Sequence[str]],
    capsys: pytest.CaptureFixture[str],
) -> int:
    """Run `main` on `arguments` with each flag of `parser` at each of VALUES; return how many runs that were.

    Those in `accepted`, the values by flag, must end with status 0. All others must be refused in one line, with status 2 and
    nothing on standard output. An argument without a flag is tried in place of `arguments`, under its metavar.
    """
    tried = 0
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        flag = action.option_strings[-1] if action.option_strings else str(action.metavar)
        for value in VALUES:
            given = [*arguments, f"{flag}={value}"] if action.option_strings else [value]
            expected = 0 if value in accepted.get(flag, ()) else 2
            try:
                status = main(given)
            except SystemExit as exit:
                status = exit.code
            out, err = capsys.readouterr()
            assert status == expected, (given, err)
            assert expected == 0 or (out == "" and err.count("\n") == 1 and "error: " in err), (given, out, err)
            tried += 1
    return tried


def pairs_of_flags(parser: argparse.ArgumentParser, good: Mapping[str, Sequence[str]], bad: Sequence[str]) -> Iterator[list[str]]:
    """Yield every two flags of `parser`, each at each of its values: those in `good`, by flag, and all in `bad`.

    A flag that takes no value stands alone. Every flag must be in `good`.
    """
    flags = []
    for action in parser._actions:
        if action.option_strings:
            flag = action.option_strings[-1]
            flags.append([flag] if action.nargs == 0 else [f"{flag}={value}" for value in (*good[flag], *bad)])
    for first, second in itertools.combinations(flags, 2):
        yield from map(list, itertools.product(first, second))


def try_arguments(
    main: Callable[[Sequence[str]], int], arguments: Sequence[str], capsys: pytest.CaptureFixture[str], seconds: float
) -> int:
    """Run `main` and return its status: 0, or 2 with one line on standard error, within `seconds` in either case."""
    begun = time.monotonic()
    try:
        status = main(arguments)
    except SystemExit as exit:
        status = int(exit.code or 0)
    taken = time.monotonic() - begun
    out, err = capsys.readouterr()
    assert status in (0, 2), (arguments, out, err)
    assert status == 0 or (err.count("\n") == 1 and "error: " in err), (arguments, out, err)
    assert taken < seconds, (arguments, taken)
    return status
