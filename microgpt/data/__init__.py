"""Documents to train on: the embedded names, your own text, and the list that microgpt.py downloads."""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, BinaryIO

from microgpt.files import write_atomically
from microgpt.text import BLANK_LINE, Documents, Text

if TYPE_CHECKING:
    from pathlib import Path

DATASETS = ("names", "makemore")

# The address and content that microgpt.py trains on. The list is not ours to ship.
MAKEMORE_URL = "https://raw.githubusercontent.com/karpathy/makemore/988aa59/names.txt"
MAKEMORE_SHA256 = "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"
MAKEMORE_SIZE = 228_145  # bytes
TIMEOUT = 60  # seconds, for the whole download
CHUNK = 1 << 17  # bytes read at once; the first hold the whole byte order mark, which has three
NAMES = os.path.join(os.path.dirname(__file__), "names.txt")
STDIN = "-"  # in place of a path
BLANK = re.compile(r"\n(?:[^\S\n]*\n)+")  # the end of a line, and lines of white space after it


def load_names() -> list[str]:
    """Return the 32,868 embedded given names (README.md beside them tells their source)."""
    return load_file(NAMES)


def load_file(path: str | PathLike[str]) -> list[str]:
    """Return the documents of a UTF-8 text file, one per line, stripped, empty ones dropped.

    A line ends at LF, CRLF or CR and nowhere else. The file may be a pipe; no more of it is held than the documents.
    Errors: OSError if it cannot be read; ValueError if it is not UTF-8, holds a NUL byte, has fewer than two documents, or fewer
    than two different characters, so that there is nothing to learn.
    """
    documents = [document for some in documents_in([path]) for document in some]
    check_documents(documents, str(path))
    return documents


def load_documents(paths: Sequence[str | PathLike[str]], *, delimiter: str | None = None, keep_spaces: bool = False) -> Documents:
    """Return the documents of files and folders, "-" being standard input, in this order.

    A document is a line, or what stands between two `delimiter`; that may be BLANK_LINE, any number of empty lines. White space
    at the ends of documents is dropped, but only line ends if `keep_spaces`, and so are empty documents. None goes on in the next
    file. Errors: as `load_file`, but for texts with little to learn.
    """
    documents = Documents()
    for some in documents_in(paths, delimiter, keep_spaces):
        documents.extend(some)
    return documents


def documents_in(
    paths: Sequence[str | PathLike[str]], delimiter: str | None = None, keep_spaces: bool = False
) -> Iterator[list[str]]:
    """Yield the documents as `load_documents` returns them, some at a time."""
    for path in files_of(paths):
        with opened(path) as file:
            for found in split(decode(file, named(path)), delimiter):
                yield [stripped for document in found if (stripped := strip(document, delimiter, keep_spaces))]


def load_text(paths: Sequence[str | PathLike[str]]) -> Text:
    """Return the text of files and folders as one, every character of it but for line ends, which become LF.

    Errors: as `load_documents`.
    """
    text = Text()
    for path in files_of(paths):
        with opened(path) as file:
            for piece in decode(file, named(path)):
                text.append(piece)
    return text


def check_documents(documents: Sequence[str], name: str, what: str = "documents, one per line") -> None:
    """Raise ValueError unless there is something to learn in the documents of `name`."""
    if len(documents) < 2:
        raise ValueError(f"{name} needs at least 2 {what}, it has {len(documents)}")
    if len(set(documents[0])) < 2:  # of most texts this is known by now
        check_characters(characters_of(documents), name)


def characters_of(text: Sequence[str] | Text) -> set[str]:
    """Return the different characters of documents or of a text."""
    return text.characters() if isinstance(text, Documents | Text) else set().union(*text)


def check_characters(characters: set[str], name: str) -> None:
    """Raise ValueError unless there are two different characters in the text of `name`."""
    if len(characters) < 2:
        has = f"only {characters.pop()!r}" if characters else "none"
        raise ValueError(f"{name} needs at least 2 different characters, it has {has}")


def files_of(paths: Sequence[str | PathLike[str]]) -> list[str]:
    """Return the files, those in place of a folder that lie in it, in order of their names, but for hidden ones.

    Errors: FileNotFoundError for what is not there; ValueError for a folder without files.
    """
    files = []
    for path in paths:
        path = os.fspath(path)  # a number would be an open file of this process
        if not os.path.isdir(path):
            files.append(path)
            continue
        inside = []
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside += [os.path.join(folder, name) for name in sorted(names) if not name.startswith(".")]
        if not inside:
            raise ValueError(f"{path} is a folder without files")
        files += inside
    return files


def named(path: str) -> str:
    """Return what errors call a file."""
    return "standard input" if path == STDIN else path


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Yield the file, or standard input. OSError if it cannot be opened."""
    if path != STDIN:
        with open(path, "rb") as file:
            yield file
    elif sys.stdin is None or sys.stdin.closed:
        raise ValueError("standard input is closed, there is no text to read")
    else:
        yield sys.stdin.buffer


def decode(file: BinaryIO, name: str) -> Iterator[str]:
    """Yield the text of `file` piece by piece. ValueError for bytes that are no text, with their place in the file."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    offset = 0  # in the file, of the bytes that come next
    chunk = None
    while chunk != b"":
        chunk = file.read(CHUNK)
        if offset == 0 and (chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or is_utf_16(chunk)):
            raise ValueError(f"{name} is not UTF-8 text but UTF-16: convert it first, by iconv -f UTF-16 -t UTF-8 or an editor")
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


def is_utf_16(content: bytes) -> bool:
    """Return whether `content` looks like UTF-16 without its mark: 0 at most even places and no odd one, or the other way."""
    even, odd = content[:1000:2], content[1:1000:2]
    return any(0 not in text and 2 * zeros.count(0) > len(zeros) for text, zeros in ((even, odd), (odd, even)))


def split(pieces: Iterable[str], delimiter: str | None) -> Iterator[list[str]]:
    """Yield what stands between delimiters, or line ends, in a text that comes in pieces: as many at a time as a piece ends."""
    begun: list[str] = []  # the pieces of the document whose end has not come
    if delimiter == BLANK_LINE:
        pieces, delimiter = blank_lines(pieces), "\0"
    elif delimiter is None:
        delimiter = "\n"
    else:
        pieces = without_cut(pieces, delimiter)
    for piece in pieces:
        first, *others = piece.split(delimiter)
        begun.append(first)
        if others:
            last = others.pop()
            yield ["".join(begun), *others]
            begun = [last]
    yield ["".join(begun)]


def without_cut(pieces: Iterable[str], delimiter: str) -> Iterator[str]:
    """Yield the text in pieces that cut no `delimiter`: an end that may be the beginning of one waits for the next piece."""
    left = ""
    for piece in pieces:
        text = left + piece
        rest = len(text) - len(text.split(delimiter)[-1])  # after the last whole one, found from the left as split finds them
        after = max(rest, len(text) - len(delimiter) + 1)
        left = text[after:]
        yield text[:after]
    yield left


def blank_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the text with a NUL in place of each run of blank lines."""
    left = ""
    for piece in pieces:
        text = left + piece
        after = len(text.rstrip())  # the white space at the end may go on
        left = text[after:]
        yield BLANK.sub("\0", text[:after])
    yield BLANK.sub("\0", left)


def strip(document: str, delimiter: str | None, keep_spaces: bool) -> str:
    """Return a document without the white space at its ends, or without line ends there."""
    if not keep_spaces:
        return document.strip()
    return document if delimiter is None else document.strip("\n")


def load_makemore() -> list[str]:
    """Return the 32,033 names that microgpt.py trains on, downloaded once into the user's cache folder.

    Errors: OSError if they can be neither downloaded nor stored; ValueError if the content is not the known one.
    """
    return load_file(fetch_makemore())


def cache_folder() -> Path:
    """Return the folder for downloads: XDG_CACHE_HOME/microgpt, or what the platform has in its place."""
    from platformdirs import user_cache_path  # here, so that other runs do not pay for the import

    return user_cache_path("microgpt", appauthor=False)


def fetch_makemore() -> Path:
    """Return where the list is, after a download unless its known content is there. Errors: as `load_makemore`."""
    path = cache_folder() / "makemore_names.txt"
    if path.is_file():
        with open(path, "rb") as file:
            content = file.read(MAKEMORE_SIZE + 1)
        if is_makemore(content):
            return path
    content = download(MAKEMORE_URL, MAKEMORE_SIZE + 1)
    if not is_makemore(content):
        sent = f"{len(content)} bytes" if len(content) <= MAKEMORE_SIZE else f"more than {MAKEMORE_SIZE} bytes"
        raise ValueError(f"{MAKEMORE_URL} sent {sent} that are not the expected file (sha256 differs)")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


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
