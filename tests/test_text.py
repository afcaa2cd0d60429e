"""Texts in memory, and files as documents or as one text: whatever comes in pieces is what comes whole, in little memory."""

from __future__ import annotations

import io
import random
import re
import sys
import tracemalloc
from pathlib import Path

import pytest

from microgpt import data, resume, text
from microgpt.text import STRIDE, Documents, Text

LETTERS = "abé🙂\n\t 日"


def some_text(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(length))


def cut(whole: str, rng: random.Random) -> list[str]:
    places = sorted(rng.randrange(len(whole) + 1) for _ in range(5))
    return [whole[i:j] for i, j in zip([0, *places], [*places, len(whole)], strict=True)]


def test_a_slice_of_a_text_is_that_of_its_characters() -> None:
    rng = random.Random(1)
    for length in (0, 1, STRIDE - 1, STRIDE, STRIDE + 1, 5 * STRIDE + 7):
        whole = some_text(rng, length)
        made = Text(cut(whole, rng))
        assert (len(made), made[:], made.nbytes) == (length, whole, len(whole.encode()))
        assert "".join(made.pieces()) == whole
        assert made.characters() == set(whole)
        for _ in range(300):
            i, j = rng.randrange(-3, length + 3), rng.randrange(-3, length + 3)
            assert made[i:j] == whole[i:j]


def test_documents_are_shuffled_and_fingerprinted_as_a_list_is() -> None:
    rng = random.Random(2)
    documents = [some_text(rng, 1 + rng.randrange(9)) for _ in range(500)]
    made = Documents()
    for i in range(0, 500, 7):
        made.extend(documents[i : i + 7])
    assert made == documents
    assert made != documents[:-1]
    assert made[3:6] == documents[3:6]
    assert made.characters() == set("".join(documents))
    assert list(made.sizes()) == list(map(len, documents))
    assert resume.fingerprint(made) == resume.fingerprint(documents)
    random.Random(3).shuffle(documents)
    made.shuffle(random.Random(3))
    assert list(made) == documents
    with pytest.raises(IndexError):
        made[500]


@pytest.mark.parametrize("chunk", [3, 7, 1 << 20])
def test_pieces_end_where_characters_do(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CHUNK", chunk)
    whole = some_text(random.Random(4), 200)
    assert "".join(Text([whole]).pieces()) == whole
    documents = whole.split("\n")
    assert list(Documents(documents).sizes()) == list(map(len, documents))


def split_at_once(whole: str, delimiter: str) -> list[str]:
    if delimiter == "blank-line":
        return re.split(r"\n(?:[^\S\n]*\n)+", whole)
    return whole.split(delimiter)


@pytest.mark.parametrize("delimiter", ["%", "--", "\n\n", "aba", "aa", "é", "blank-line"])
@pytest.mark.parametrize("chunk", [3, 4, 9, 1 << 20])
def test_documents_between_delimiters(delimiter: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "CHUNK", chunk)
    rng = random.Random(chunk)
    path = tmp_path / "text.txt"
    for _ in range(100):
        whole = "".join(rng.choice("a b%-\n\né") for _ in range(rng.randrange(80)))
        path.write_text(whole, encoding="utf-8", newline="")
        expected = [stripped for document in split_at_once(whole, delimiter) if (stripped := document.strip())]
        assert data.load_documents([path], delimiter=delimiter) == expected
        expected = [stripped for document in split_at_once(whole, delimiter) if (stripped := document.strip("\n"))]
        assert data.load_documents([path], delimiter=delimiter, keep_spaces=True) == expected


def test_white_space_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"  if x:\r\n\n\treturn \r\n \n")
    assert data.load_documents([path]) == ["if x:", "return"]
    assert data.load_documents([path], keep_spaces=True) == ["  if x:", "\treturn ", " "]
    assert data.load_text([path])[:] == "  if x:\n\n\treturn \n \n"
    path.write_bytes(b"\n\n  a\n    b\n\n\n  c\n")
    assert data.load_documents([path], delimiter="blank-line", keep_spaces=True) == ["  a\n    b", "  c"]


def test_files_folders_and_standard_input_are_read_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder" / "b").mkdir(parents=True)
    (tmp_path / "folder" / ".hidden").mkdir()
    for name, content in (("z", "last\nend"), ("folder/b/x", "in b"), ("folder/a", "in a\n"), ("folder/.hidden/y", "no")):
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("stdin é\n".encode())))
    paths = [tmp_path / "folder", "-", tmp_path / "z"]
    assert data.load_documents(paths) == ["in a", "in b", "stdin é", "last", "end"]
    sys.stdin.seek(0)
    assert data.load_text(paths)[:] == "in a\nin bstdin é\nlast\nend"
    (tmp_path / "z").write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match="z is not UTF-8 text"):
        data.load_text(paths[2:])
    sys.stdin.close()
    with pytest.raises(ValueError, match="standard input is closed"):
        data.load_text(["-"])


def test_an_input_without_an_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_BYTES", 10_000_000)
    path = tmp_path / "text.txt"
    path.write_bytes(b"yes\n" * 3_000_000)
    for load in (data.load_documents, data.load_text):
        with pytest.raises(ValueError, match="a text has at most 10,000,000 bytes, this one has more"):
            load([path])


@pytest.mark.parametrize("kind", ["names", "text", "text of many letters", "lines of many letters"])
def test_a_large_text_takes_less_than_twice_its_file(kind: str, tmp_path: Path) -> None:
    """A str takes four bytes a character where one of them is an emoji, and a list of names some eight times its file."""
    path = tmp_path / "text.txt"
    if kind == "names":
        content = ("\n".join(data.load_names()) + "\n").encode() * 40
    else:
        content = "".join(f"the quick brown fox 🙂 {chr(0x4E00 + i)}\n" * 300 for i in range(1000)).encode()
    path.write_bytes(content)
    tracemalloc.start()
    try:
        made = data.load_text([path]) if kind.startswith("text") else data.load_documents([path])
        made.characters()
        if isinstance(made, Documents):
            made.shuffle(random.Random(1))
        assert len(made[0:3][0]) > 0
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"{kind}: {held / len(content):.2f} times the file, at its peak {peak / len(content):.2f}")
    assert peak - 8e6 < 1.8 * len(content)
