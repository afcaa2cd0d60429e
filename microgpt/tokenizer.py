"""Text in, token ids out: by character or by byte."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

import microgpt

if TYPE_CHECKING:  # what nobody calls need not be made by every import
    from microgpt.streams import Decoder, Stream
    from microgpt.text import Text

SHOWN = 100  # characters of a vocabulary in an error
SelfTokenizer = TypeVar("SelfTokenizer", bound="Tokenizer")


class Tokenizer(ABC):
    """Tokens 0 to vocab_size - 1, the last of which is `bos`, which opens and closes every document."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of tokens, `bos` included."""

    @abstractmethod
    def ids(self, text: str) -> list[int]:
        """Return the ids of `text`, without BOS. ValueError for a text that has none."""

    @abstractmethod
    def text(self, ids: list[int]) -> str:
        """Return the text of ids that are in the vocabulary, without BOS."""

    @abstractmethod
    def stream(self, text: Text) -> Stream:
        """Return the tokens of a text, which may be large, without BOS."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """Return what makes text of tokens that come one by one."""

    @abstractmethod
    def to_checkpoint(self) -> dict[str, Any]:
        """Return the metadata from which `tokenizer_in` makes it again."""

    @classmethod
    def load(cls: type[SelfTokenizer], path: str | PathLike[str]) -> SelfTokenizer:
        """Return the tokenizer in a checkpoint that `GPT.save(path, tokenizer)` or the training command wrote.

        Errors: OSError if the file cannot be read; ValueError, `path` in it, unless it is whole and holds such a tokenizer.
        """
        _, metadata = microgpt.checkpoint.read(path)
        with microgpt.checkpoint.refusals(path):
            return cls.from_checkpoint(metadata)

    @classmethod
    def from_checkpoint(cls: type[SelfTokenizer], metadata: Mapping[str, Any]) -> SelfTokenizer:
        """Return the tokenizer in the metadata that `checkpoint.read` returned. ValueError if there is none of this class."""
        tokenizer = tokenizer_in(metadata)
        if not isinstance(tokenizer, cls):
            raise ValueError(f"its tokenizer is a {type(tokenizer).__name__}, no {cls.__name__}")
        return tokenizer

    @property
    def bos(self) -> int:
        """Id of the token at both ends of a document."""
        return self.vocab_size - 1

    def encode(self, document: str) -> list[int]:
        """Return BOS, the ids of the document, BOS. ValueError names what is outside the vocabulary."""
        return [self.bos, *self.ids(document), self.bos]

    def beginning(self, document: str, n: int) -> list[int]:
        """Return the first `n` tokens of `encode(document)`."""
        # No token is shorter than a character, but for those of a library.
        return self.encode(document[:n])[:n]

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of `tokens`, BOS left out. ValueError names an id outside the vocabulary."""
        tokens = list(tokens)
        for token in tokens:
            if not 0 <= token <= self.bos:
                raise ValueError(f"token ids are 0 to {self.bos}, got {token}")
        return self.text([token for token in tokens if token != self.bos])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.to_checkpoint() == other.to_checkpoint()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size})"


class CharTokenizer(Tokenizer):
    """One token per character of the vocabulary, sorted, and one more, `bos`, that opens and closes every document.

    The vocabulary is every character in `documents`: one that holds them all will do, `CharTokenizer(["abc"])`.
    Errors: ValueError if `documents` have no character.
    """

    def __init__(self, documents: Iterable[str]) -> None:
        characters: set[str] = set()
        for document in documents:
            characters.update(document)
        self._characters = "".join(sorted(characters))
        if not self._characters:
            raise ValueError("a vocabulary needs at least one character, the documents have none")
        self._ids = {character: id for id, character in enumerate(self._characters)}

    @property
    def characters(self) -> str:
        """The vocabulary, in the order of the ids."""
        return self._characters

    @property
    def vocab_size(self) -> int:
        """Number of characters, and one for `bos`."""
        return len(self._characters) + 1

    def ids(self, text: str) -> list[int]:
        """Return the ids of the characters. ValueError names a character outside the vocabulary."""
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise ValueError(self._unknown(error.args[0], text)) from None

    def _unknown(self, character: str, text: str) -> str:
        import unicodedata  # here, because an import of the package would pay for it

        more = len(self.characters) - SHOWN
        vocabulary = repr(self.characters[:SHOWN]) + (f" and {more} more" if more > 0 else "")
        for form in ("NFC", "NFD"):
            other = unicodedata.normalize(form, text)
            if other != text and self._ids.keys() >= set(other):
                now, then = code_points(character), code_points(unicodedata.normalize(form, character))
                hint = f"{now} where the vocabulary has {then}" if then != now else f"{now} is part of one there"
                return f"character {character!r} is not in the vocabulary: {hint}; bring the text to normal form {form}"
        return f"character {character!r} is not in the vocabulary {vocabulary}"

    def text(self, ids: list[int]) -> str:
        """Return the characters of `ids`."""
        return "".join(map(self._characters.__getitem__, ids))

    def stream(self, text: Text) -> Stream:
        """Return the tokens of a text. ValueError, when they are asked for, for a character outside the vocabulary."""
        return CharStream(self, text)

    def decoder(self) -> Decoder:
        """Return what makes characters of tokens."""
        return CharDecoder(self)

    def to_checkpoint(self) -> dict[str, Any]:
        """Return the vocabulary."""
        return {"characters": self.characters}

    def __repr__(self) -> str:
        shown = self.characters if len(self.characters) <= SHOWN else self.characters[:SHOWN] + "..."
        return f"CharTokenizer([{shown!r}])"


class CharStream:
    """The tokens of a text, read when they are asked for."""

    def __init__(self, tokenizer: CharTokenizer, text: Text) -> None:
        self._tokenizer, self._text = tokenizer, text

    def __len__(self) -> int:
        return len(self._text)

    def __getitem__(self, index: slice, /) -> list[int]:
        return self._tokenizer.ids(self._text[index])


class CharDecoder:
    """A token is a character."""

    def __init__(self, tokenizer: CharTokenizer) -> None:
        self._tokenizer = tokenizer

    def add(self, token: int) -> str:
        """Return the character."""
        return self._tokenizer.text([token])

    def end(self) -> str:
        """Return nothing: every token was told."""
        return ""


class ByteTokenizer(Tokenizer):
    """One token per byte of UTF-8, so that no text is unknown, and `bos`: 257 in all. What is no UTF-8 is decoded as U+FFFD."""

    @property
    def vocab_size(self) -> int:
        """256, and one for `bos`."""
        return 257

    def ids(self, text: str) -> list[int]:
        """Return the bytes of the text in UTF-8. ValueError for halves of characters, which have none."""
        return list(text.encode())

    def text(self, ids: list[int]) -> str:
        """Return the text of UTF-8 bytes, U+FFFD where they are none."""
        return bytes(ids).decode(errors="replace")

    def stream(self, text: Text) -> Stream:
        """Return the bytes of a text."""
        return text.encoded()

    def decoder(self) -> Decoder:
        """Return what makes characters of bytes."""
        return ByteDecoder()

    def to_checkpoint(self) -> dict[str, Any]:
        """Return its name."""
        return {"tokenizer": "bytes"}

    def __repr__(self) -> str:
        return "ByteTokenizer()"


class ByteDecoder:
    """A character is told with its last byte."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """Return the characters that end with this byte."""
        return self._decoder.decode(bytes([token]))

    def end(self) -> str:
        """Return U+FFFD in the middle of a character."""
        return self._decoder.decode(b"", final=True)


def tokenizer_in(metadata: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer in the metadata that `checkpoint.read` returned. ValueError if there is none."""
    kind = metadata.get("tokenizer")
    if kind == "bytes":
        return ByteTokenizer()
    if isinstance(kind, str):
        from microgpt.bpe import BPETokenizer  # here, because other modules than these are needed for it only

        return BPETokenizer(kind, "its tokenizer")
    characters = metadata.get("characters")
    if kind is not None:
        raise ValueError("its tokenizer is no text")
    if characters is None:
        raise ValueError("it holds no vocabulary, GPT.save was called without a tokenizer")
    if not isinstance(characters, str) or not characters or characters != "".join(sorted(set(characters))):
        raise ValueError("its vocabulary is no string of different characters in order")
    return CharTokenizer([characters])


def code_points(text: str) -> str:
    """Return the characters by number, such as U+0065 U+0301."""
    return " ".join(f"U+{ord(character):04X}" for character in text)
