"""What a setting may be, told once for the command line, for files and for Python."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

MAX_COUNT = 2**31 - 1  # of steps, samples and sizes


@dataclass(frozen=True)
class Whole:
    """The whole numbers from `low` to `high`: `value in Whole(1)`. True and 2.0 are none of them."""

    low: int
    high: int = MAX_COUNT

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def parse(self, text: str) -> int:
        """Return the number that `text` gives, in the range or not. ValueError if it gives none."""
        return int(text)


@dataclass(frozen=True)
class Real:
    """The finite numbers of at least `low`, or above it where exclusive, below `below` and up to `most`; 0 too where or_zero."""

    low: float
    below: float = math.inf
    most: float = sys.float_info.max  # a whole number can be below infinity and yet too large for a float
    exclusive: bool = False
    or_zero: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        enough = value > self.low if self.exclusive else value >= self.low
        return (enough and value < self.below and value <= self.most) or (self.or_zero and value == 0)

    def __str__(self) -> str:
        zero = "0 or " if self.or_zero else ""
        high = "" if self.most == sys.float_info.max else f" and at most {self.most:g}"
        high += "" if self.below == math.inf else f" and below {self.below:g}"
        low = f"{'above' if self.exclusive else 'of at least'} {self.low:g}"
        return f"{zero}{'a number' if high else 'a finite number'} {low}{high}"

    def parse(self, text: str) -> float:
        """Return the number that `text` gives, in the range or not. ValueError if it gives none."""
        return float(text)


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(self.words)


class Words:
    """Any text of at least one character."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and value != ""

    def __str__(self) -> str:
        return "a text that is not empty"

    def parse(self, text: str) -> str:
        """Return `text`."""
        return text


class Switch:
    """True or False."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


Range = Whole | Real | OneOf | Words | Switch
