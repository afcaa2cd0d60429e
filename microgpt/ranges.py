"""What a setting may be, told once for the command line, for files and for Python."""

from __future__ import annotations

import math
import sys

MAX_COUNT = 2**31 - 1  # of steps, samples and sizes


class Whole:
    """The whole numbers from `low` to `high`: `value in Whole(1)`. True and 2.0 are none of them."""

    def __init__(self, low: int, high: int = MAX_COUNT) -> None:
        self.low, self.high = low, high

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def parse(self, text: str) -> int:
        """Return the number that `text` gives, in the range or not. ValueError if it gives none."""
        return int(text)


class Real:
    """The finite numbers of at least `low`, or above it where exclusive, and below `below`; 0 too where or_zero."""

    def __init__(self, low: float, below: float = math.inf, *, exclusive: bool = False, or_zero: bool = False) -> None:
        self.low, self.below, self.exclusive, self.or_zero = low, below, exclusive, or_zero

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        enough = value > self.low if self.exclusive else value >= self.low
        # A whole number can be below infinity and yet too large for a float.
        return (enough and value < self.below and value <= sys.float_info.max) or (self.or_zero and value == 0)

    def __str__(self) -> str:
        zero = "0 or " if self.or_zero else ""
        kind = "a finite number" if self.below == math.inf else "a number"
        low = f"{'above' if self.exclusive else 'of at least'} {self.low:g}"
        below = "" if self.below == math.inf else f" and below {self.below:g}"
        return f"{zero}{kind} {low}{below}"

    def parse(self, text: str) -> float:
        """Return the number that `text` gives, in the range or not. ValueError if it gives none."""
        return float(text)


class OneOf:
    """One of some words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words

    def __contains__(self, value: object) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(self.words)


Range = Whole | Real | OneOf
