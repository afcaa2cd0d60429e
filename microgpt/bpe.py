"""Tokenizers of the `tokenizers` library: byte pair encoding and its relatives, made once from a text and kept in a file."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt.tokenizer import Tokenizer

if TYPE_CHECKING:
    from microgpt.streams import Decoder, Stream
    from microgpt.text import Text

KEPT = 8  # tokens that the next one may still change the text of: those of one character, and the word before


def library() -> Any:
    """Return the library. ValueError if it is not installed."""
    try:
        return import_module("tokenizers")
    except ImportError as error:
        raise ValueError(f"this tokenizer needs the tokenizers library ({error}): pip install tokenizers") from None


class BPETokenizer(Tokenizer):
    """The tokens of a file that the `tokenizers` library wrote, and `bos`. It must give back each text that it takes.

    `content`: the JSON of the file. `name`: what errors call it.
    Errors: ValueError if the library is missing, or cannot read it.
    """

    def __init__(self, content: str, name: str = "the tokenizer") -> None:
        self._content = content
        try:
            self._library = library().Tokenizer.from_str(content)
        except ValueError:
            raise
        except Exception as error:  # the library's own kind, which says no more
            raise ValueError(f"{name} is no file of the tokenizers library: {error}") from None
        # A file may cut or fill up what it encodes, for models of one length.
        self._library.no_truncation()
        self._library.no_padding()
        self._size = max(self._library.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if not self._size:
            raise ValueError(f"{name} has no tokens")

    @classmethod
    def of_file(cls, path: str | Path) -> BPETokenizer:
        """Return the tokenizer in a file. OSError if it cannot be read; ValueError if it is none."""
        with open(path, "rb") as file:
            try:
                content = file.read().decode()
            except UnicodeDecodeError:
                raise ValueError(f"{path} is no file of the tokenizers library: it is not UTF-8 text") from None
        return cls(content, str(path))

    @property
    def vocab_size(self) -> int:
        """Number of tokens, and one for `bos`."""
        return self._size + 1

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text. ValueError for one that they do not give back."""
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        if self.text(ids) != text:
            raise ValueError(f"the tokenizer does not give back {text[:40]!r}: it makes {self.text(ids)[:40]!r} of it")
        return ids

    def text(self, ids: list[int]) -> str:
        """Return the text of `ids`."""
        text: str = self._library.decode(ids, skip_special_tokens=False)
        return text

    def beginning(self, document: str, n: int) -> list[int]:
        """Return the first `n` tokens of `encode(document)`: what stands later may decide about them."""
        return self.encode(document)[:n]

    def stream(self, text: Text) -> Stream:
        """Return the tokens of a text. It is encoded in pieces of a megabyte, each up to the end of its last line."""
        ids = array("H" if self.vocab_size <= 1 << 16 else "I")
        for piece in whole_lines(text.pieces()):
            ids.extend(self.ids(piece))
        return ids

    def decoder(self) -> Decoder:
        """Return what makes text of tokens."""
        return BPEDecoder(self)

    def to_checkpoint(self) -> dict[str, Any]:
        """Return the file itself."""
        return {"tokenizer": self._content}


class BPEDecoder:
    """A token may be a part of a character, and its text may depend on the tokens before it."""

    def __init__(self, tokenizer: BPETokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._told = ""  # of the text of these

    def add(self, token: int) -> str:
        """Return the text that is new and certain."""
        self._ids.append(token)
        text = self._tokenizer.text(self._ids)
        if text.endswith("\ufffd") and len(self._ids) < KEPT:
            return ""
        new = text[len(self._told) :]
        self._ids = self._ids[-KEPT // 2 :]
        self._told = self._tokenizer.text(self._ids)
        return new

    def end(self) -> str:
        """Return what is left."""
        return self._tokenizer.text(self._ids)[len(self._told) :]


def whole_lines(pieces: Iterable[str]) -> Iterable[str]:
    """Yield the text in pieces that end where lines do, the last one where the text does."""
    begun = ""
    for piece in pieces:
        end = piece.rfind("\n") + 1
        if end:
            yield begun + piece[:end]
            begun = piece[end:]
        else:
            begun += piece
    if begun:
        yield begun


def train_bpe(text: Iterable[str], vocab_size: int) -> str:
    """Return the JSON of a byte-level BPE of at most `vocab_size` tokens for the pieces of a text.

    Its first 256 tokens are the bytes, so that no text is unknown. ValueError if the library is missing.
    """
    tokenizers = library()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    content: str = tokenizer.to_str()
    return content
