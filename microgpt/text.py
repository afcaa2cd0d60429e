"""Texts in memory: their UTF-8 bytes and an index into them, so that a large text takes little more than its file."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import overload

MAX_BYTES = 2**31 - 1  # of a text; more would be years of training, and an input without an end is noticed
STRIDE = 256  # characters between two entries of the index of a Text
CHUNK = 1 << 18  # bytes that are decoded at once
BLANK_LINE = "blank-line"  # in place of a delimiter of documents: any number of empty lines


class _Buffer:
    """UTF-8 text that grows at its end."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def _add(self, content: bytes) -> None:
        if len(self._buffer) + len(content) > MAX_BYTES:
            raise ValueError(f"a text has at most {MAX_BYTES:,} bytes, this one has more")
        self._buffer += content

    @property
    def nbytes(self) -> int:
        """Bytes of the text in UTF-8."""
        return len(self._buffer)

    def pieces(self) -> Iterator[str]:
        """Yield the text in pieces of about CHUNK bytes, in the order in which it was read."""
        begin = 0
        while begin < len(self._buffer):
            end = min(begin + CHUNK, len(self._buffer))
            while end < len(self._buffer) and self._buffer[end] & 0xC0 == 0x80:  # in the middle of a character
                end += 1
            yield self._buffer[begin:end].decode()
            begin = end

    def characters(self) -> set[str]:
        """Return the different characters."""
        characters: set[str] = set()
        for piece in self.pieces():
            characters.update(piece)
        return characters


class Documents(_Buffer, Sequence[str]):
    """Documents, each read from its bytes when it is asked for. Equal to any sequence of the same texts.

    Memory: the bytes, one more that ends each, a NUL, and four for its place.
    """

    def __init__(self, documents: Iterable[str] = ()) -> None:
        super().__init__()
        self._starts = array("I")
        self.extend(list(documents))

    def extend(self, documents: Sequence[str]) -> None:
        """Add documents, which hold no NUL. ValueError for more than a text can have."""
        if not documents:
            return
        text = "\0".join(documents) + "\0"
        begin = len(self._buffer)
        self._add(text.encode())
        sizes = map(len, documents) if text.isascii() else (len(document.encode()) for document in documents)
        self._starts.extend(accumulate((size + 1 for size in sizes), initial=begin))
        self._starts.pop()  # where the next one would begin

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self._starts[index]
        return self._buffer[start : self._buffer.index(0, start)].decode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} documents, {self.nbytes} bytes>"

    def sizes(self) -> Iterator[int]:
        """Yield the number of characters of each document, in the order in which they were read."""
        begun = 0  # characters of the document whose end has not come
        for piece in self.pieces():
            first, *others = piece.split("\0")
            begun += len(first)
            if others:
                yield begun
                yield from map(len, others[:-1])
                begun = len(others[-1])

    def shuffle(self, rng: random.Random) -> None:
        """Put the documents in another order, that in which `rng.shuffle` puts a list of as many."""
        rng.shuffle(self._starts)

    def characters(self) -> set[str]:
        """Return the different characters."""
        return super().characters() - {"\0"}

    def fingerprint(self) -> str:
        """Return the SHA-256 of the documents as they were read, a line each, in hexadecimal."""
        import hashlib  # here: only a run that is saved needs it

        digest = hashlib.sha256()
        for begin in range(0, len(self._buffer), CHUNK):
            digest.update(self._buffer[begin : begin + CHUNK].replace(b"\0", b"\n"))
        return digest.hexdigest()


class Text(_Buffer):
    """One text, of which slices are taken: `text[i:j]` are its characters from i to j.

    Memory: its bytes, and four for every 256th character.
    """

    def __init__(self, pieces: Iterable[str] = ()) -> None:
        super().__init__()
        self._places = array("I")  # of the characters 0, STRIDE, 2 * STRIDE, ... in the bytes
        self._length = 0
        for piece in pieces:
            self.append(piece)

    def append(self, piece: str) -> None:
        """Add characters at the end. ValueError for more than a text can have."""
        begin = len(self._buffer)
        self._add(piece.encode())
        first = -self._length % STRIDE  # in the piece
        if piece.isascii():
            self._places.extend(range(begin + first, begin + len(piece), STRIDE))
        else:
            place = begin + len(piece[:first].encode())
            for i in range(first, len(piece), STRIDE):
                self._places.append(place)
                place += len(piece[i : i + STRIDE].encode())
        self._length += len(piece)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: slice) -> str:
        start, stop, _ = index.indices(self._length)
        if start >= stop:
            return ""
        first, last = start // STRIDE, -(-stop // STRIDE)
        end = self._places[last] if last < len(self._places) else len(self._buffer)
        return self._buffer[self._places[first] : end].decode()[start - first * STRIDE : stop - first * STRIDE]

    def __repr__(self) -> str:
        return f"<a text of {len(self)} characters, {self.nbytes} bytes>"

    def encoded(self) -> bytearray:
        """Return the bytes themselves, which must not be changed."""
        return self._buffer

    def fingerprint(self) -> str:
        """Return the SHA-256 of the text in UTF-8, in hexadecimal."""
        import hashlib  # here: only a run that is saved needs it

        return hashlib.sha256(self._buffer).hexdigest()
