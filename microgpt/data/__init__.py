"""Documents to train on: the embedded names, your own text, and the list that microgpt.py downloads."""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Iterable, Iterator
from itertools import chain
from os import PathLike
from typing import TYPE_CHECKING, BinaryIO

from microgpt.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

DATASETS = ("names", "makemore")

# The address and content that microgpt.py trains on. The list is not ours to ship.
MAKEMORE_URL = "https://raw.githubusercontent.com/karpathy/makemore/988aa59/names.txt"
MAKEMORE_SHA256 = "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"
MAKEMORE_SIZE = 228_145  # bytes
TIMEOUT = 60  # seconds, for the whole download
CHUNK = 1 << 20  # bytes read at once; the first hold the whole byte order mark, which has three


def load_names() -> list[str]:
    """Return the 32,868 embedded given names (README.md beside them tells their source)."""
    return load_file(os.path.join(os.path.dirname(__file__), "names.txt"))


def load_file(path: str | PathLike[str]) -> list[str]:
    """Return the documents of a UTF-8 text file, one per line, stripped, empty ones dropped.

    A line ends at LF, CRLF or CR and nowhere else. The file may be a pipe; no more of it is held than the documents.
    Errors: OSError if it cannot be read; ValueError if it is not UTF-8, holds a NUL byte, has fewer than two documents, or fewer
    than two different characters, so that there is nothing to learn.
    """
    with open(os.fspath(path), "rb") as file:  # a number would be an open file of this process
        documents = documents_of(file, str(path))
    if len(documents) < 2:
        raise ValueError(f"{path} needs at least 2 documents, one per line, it has {len(documents)}")
    first = documents[0][0]
    if not any(document.strip(first) for document in documents):
        raise ValueError(f"{path} needs at least 2 different characters, it has only {first!r}")
    return documents


def documents_of(file: BinaryIO, name: str) -> list[str]:
    """Return the documents in the bytes of `file`, called `name` in errors."""
    lines = chain.from_iterable(split_lines(decode(file, name)))
    return list(filter(None, map(str.strip, lines)))


def decode(file: BinaryIO, name: str) -> Iterator[str]:
    """Yield the text of `file` piece by piece. ValueError for bytes that are no text, with their place in the file."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset = 0  # in the file, of the bytes that come next
    chunk = None
    while chunk != b"":
        chunk = file.read(CHUNK)
        begun, _ = decoder.getstate()  # the first bytes of a character that the last chunk ended within
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            place = offset - len(begun) + error.start
            raise ValueError(f"{name} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at offset {place}") from None
        if b"\0" in chunk:
            raise ValueError(f"{name} is not UTF-8 text: NUL byte at offset {offset + chunk.index(0)}")
        if offset == 0:
            text = text.removeprefix("\ufeff")  # some editors open a file with a byte order mark, which is no part of the text
        offset += len(chunk)
        yield newlines.decode(text, final=not chunk)


def split_lines(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines of a text that comes in pieces, those that end in one piece together."""
    begun: list[str] = []  # the pieces of the line whose end has not come
    for piece in pieces:
        lines = piece.split("\n")
        begun.append(lines[0])
        if len(lines) > 1:
            lines[0] = "".join(begun)
            begun = [lines.pop()]
            yield lines
    yield ["".join(begun)]


def load_makemore() -> list[str]:
    """Return the 32,033 names that microgpt.py trains on, downloaded once into the user's cache folder.

    Errors: OSError if they can be neither downloaded nor stored; ValueError if the content is not the known one.
    """
    content = fetch_makemore(cache_folder() / "makemore_names.txt")
    return documents_of(io.BytesIO(content), MAKEMORE_URL)


def cache_folder() -> Path:
    """Return the folder for downloads: XDG_CACHE_HOME/microgpt, or what the platform has in its place."""
    from platformdirs import user_cache_path  # here, so that other runs do not pay for the import

    return user_cache_path("microgpt", appauthor=False)


def fetch_makemore(path: Path) -> bytes:
    """Return the content of `path` if it is the known one, else download it there."""
    if path.is_file():
        with open(path, "rb") as file:
            content = file.read(MAKEMORE_SIZE + 1)
        if is_makemore(content):
            return content
    content = download(MAKEMORE_URL, MAKEMORE_SIZE + 1)
    if not is_makemore(content):
        sent = f"{len(content)} bytes" if len(content) <= MAKEMORE_SIZE else f"more than {MAKEMORE_SIZE} bytes"
        raise ValueError(f"{MAKEMORE_URL} sent {sent} that are not the expected file (sha256 differs)")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return content


def download(url: str, limit: int) -> bytes:
    """Return what `url` sends, its first `limit` bytes if it is more. OSError if that fails or takes longer than TIMEOUT."""
    import http.client  # here, so that other runs do not pay for the imports
    import threading
    import urllib.request

    outcome: list[bytes | str] = []  # the content, or why there is none

    def fetch() -> None:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                content = bytes(response.read(limit))
                if response.length and len(content) < limit:
                    raise http.client.IncompleteRead(content, response.length)
                outcome.append(content)
        except (OSError, http.client.HTTPException, ValueError) as error:
            outcome.append(str(getattr(error, "reason", error)))

    # The timeout of a socket begins anew with every byte, so a thread is waited for, and left alone where it takes too long.
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    result = outcome[0] if outcome else f"not done within {TIMEOUT} s"
    if isinstance(result, str):
        raise OSError(f"cannot download {url}: {result}")
    return result


def is_makemore(content: bytes) -> bool:
    """Return whether `content` is the known file."""
    import hashlib  # here, so that other runs do not pay for the import

    return hashlib.sha256(content).hexdigest() == MAKEMORE_SHA256
