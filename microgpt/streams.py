"""What tokenizers give for large texts, and for tokens one by one: their types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Stream(Protocol):
    """The tokens of a whole text, without BOS: `stream[i:j]`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> Iterable[int]: ...


class Decoder(Protocol):
    """Text from tokens that come one by one."""

    def add(self, token: int) -> str:
        """Return what text is certain now, '' in the middle of a character."""

    def end(self) -> str:
        """Return what is left."""
