"""Documents to train on: the embedded names, your own text, and the list that microgpt.py downloads."""

from __future__ import annotations

import hashlib
from pathlib import Path

from microgpt.files import write_atomically

# The address and content that microgpt.py trains on. The list is not ours to ship.
MAKEMORE_URL = "https://raw.githubusercontent.com/karpathy/makemore/988aa59/names.txt"
MAKEMORE_SHA256 = "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"
TIMEOUT = 30  # seconds


def split_documents(text: str) -> list[str]:
    """Return one document per line, stripped, empty ones dropped. Lines end as Python's text files let them: LF, CRLF or CR."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [document for line in lines if (document := line.strip())]


def load_names() -> list[str]:
    """Return the 32,868 embedded given names (README.md beside them tells their source)."""
    return split_documents(Path(__file__).with_name("names.txt").read_text(encoding="utf-8"))


def load_file(path: str | Path) -> list[str]:
    """Return the documents of a UTF-8 text file, one per line.

    Errors: OSError if it cannot be read; ValueError if it is not UTF-8, has fewer than two documents, or fewer than two
    different characters, so that there is nothing to learn.
    """
    try:
        # utf-8-sig: some editors open a file with a byte order mark, which is no part of the text.
        documents = split_documents(Path(path).read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: byte 0x{error.object[error.start]:02x} at offset {error.start}") from None
    if len(documents) < 2:
        raise ValueError(f"{path} needs at least 2 documents, one per line, it has {len(documents)}")
    characters = set().union(*documents)
    if len(characters) < 2:
        raise ValueError(f"{path} needs at least 2 different characters, it has only {''.join(characters)!r}")
    return documents


def load_makemore() -> list[str]:
    """Return the 32,033 names that microgpt.py trains on, downloaded once into the user's cache folder.

    Errors: OSError if they can be neither downloaded nor stored; ValueError if the content is not the known one.
    """
    return split_documents(fetch_makemore(cache_folder() / "makemore_names.txt").decode("utf-8"))


def cache_folder() -> Path:
    """Return the folder for downloads: XDG_CACHE_HOME/microgpt, or what the platform has in its place."""
    from platformdirs import user_cache_path  # here, so that other runs do not pay for the import

    return user_cache_path("microgpt", appauthor=False)


def fetch_makemore(path: Path) -> bytes:
    """Return the content of `path` if it is the known one, else download it there."""
    import http.client  # here, so that other runs do not pay for the imports
    import urllib.request

    if path.is_file():
        content = path.read_bytes()
        if is_makemore(content):
            return content
    try:
        with urllib.request.urlopen(MAKEMORE_URL, timeout=TIMEOUT) as response:
            content = bytes(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"cannot download {MAKEMORE_URL}: {getattr(error, 'reason', error)}") from error
    if not is_makemore(content):
        raise ValueError(f"{MAKEMORE_URL} sent {len(content)} bytes that are not the expected file (sha256 differs)")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return content


def is_makemore(content: bytes) -> bool:
    """Return whether `content` is the known file."""
    return hashlib.sha256(content).hexdigest() == MAKEMORE_SHA256
