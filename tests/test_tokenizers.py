"""Tokenizers: what goes in comes out, piece by piece as at once, and a text that cannot go in says why."""

from __future__ import annotations

import copy
import pickle
import random
import sys
import unicodedata
from pathlib import Path

import pytest

from microgpt import GPT, CharTokenizer, GPTConfig
from microgpt.bpe import BPETokenizer, train_bpe, whole_lines
from microgpt.sampler import pieces_of
from microgpt.text import Text
from microgpt.tokenizer import ByteTokenizer, Tokenizer, tokenizer_in

PLAY = "KING:\n  Who's there, né 🙂? 日本\n\nFOOL:\tNobody, my lord, nobody at all. \n" * 30
tokenizers = pytest.importorskip("tokenizers")
KINDS: dict[str, Tokenizer] = {
    "characters": CharTokenizer([PLAY]),
    "bytes": ByteTokenizer(),
    "bpe": BPETokenizer(train_bpe([PLAY], 300)),
}


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return KINDS[request.param]


def test_what_goes_in_comes_out(tokenizer: Tokenizer) -> None:
    rng = random.Random(1)
    letters = sorted(set(PLAY))
    for _ in range(200):
        text = "".join(rng.choice(letters) for _ in range(rng.randrange(12)))
        tokens = tokenizer.encode(text)
        assert (tokens[0], tokens[-1]) == (tokenizer.bos, tokenizer.bos) == (tokenizer.vocab_size - 1,) * 2
        assert all(0 <= token < tokenizer.bos for token in tokens[1:-1])
        assert tokenizer.decode(tokens) == text
        assert "".join(pieces_of(tokens[1:-1], tokenizer)) == text
        for n in (1, 3, 20):
            assert tokenizer.beginning(text, n) == tokens[:n]
    for token in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"token ids are 0 to {tokenizer.bos}, got {token}"):
            tokenizer.decode([token])


def test_a_character_is_told_when_it_is_whole_and_not_before() -> None:
    for tokenizer in KINDS.values():
        told = list(pieces_of(tokenizer.ids("né 🙂?"), tokenizer))
        assert "".join(told) == "né 🙂?"
        assert not any("\ufffd" in piece for piece in told)
        assert sum(map(bool, told)) > 2
    half = ByteTokenizer().ids("🙂")[:2]
    assert "".join(pieces_of([*half, 65], ByteTokenizer())) == "\ufffdA"
    assert "".join(pieces_of(half, ByteTokenizer())) == ByteTokenizer().decode(half) == "\ufffd"


def test_the_stream_of_a_text_are_its_tokens(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream(Text([PLAY]))
    assert len(stream) == len(list(stream[0 : len(stream)]))
    assert tokenizer.decode(stream[:]) == PLAY
    assert list(stream[5:9]) == list(stream[:])[5:9]
    if not isinstance(tokenizer, BPETokenizer):  # which goes line by line
        assert list(stream[:]) == tokenizer.ids(PLAY)


def test_lines_are_not_cut() -> None:
    rng = random.Random(1)
    for _ in range(200):
        text = "".join(rng.choice("ab\n") for _ in range(30))
        pieces = list(whole_lines(text[i : i + 4] for i in range(0, 30, 4)))
        assert "".join(pieces) == text
        assert all(piece.endswith("\n") for piece in pieces[:-1])


def test_a_checkpoint_carries_the_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = GPT(GPTConfig(tokenizer.vocab_size, n_embd=4, n_head=2), random.Random(1))
    model.save(tmp_path / "model", tokenizer)
    loaded = Tokenizer.load(tmp_path / "model")
    assert (type(loaded), loaded) == (type(tokenizer), tokenizer)
    assert type(tokenizer).load(tmp_path / "model").encode(PLAY) == tokenizer.encode(PLAY)
    other = ByteTokenizer if isinstance(tokenizer, CharTokenizer) else CharTokenizer
    with pytest.raises(ValueError, match=f"model is not a whole .*: its tokenizer is a .*, no {other.__name__}"):
        other.load(tmp_path / "model")
    for copied in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert copied.encode(PLAY) == tokenizer.encode(PLAY)


def test_a_repr_says_what_it_is() -> None:
    assert repr(CharTokenizer(["cab"])) == "CharTokenizer(['abc'])"
    assert eval(repr(KINDS["bytes"]), {"ByteTokenizer": ByteTokenizer}) == ByteTokenizer()
    assert repr(KINDS["bpe"]) == "BPETokenizer(vocab_size=301)"
    assert len(repr(CharTokenizer([chr(i) for i in range(0x4E00, 0x5E00)]))) < 150


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_text_in_another_normal_form_is_told_the_code_points(form: str) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    tokenizer = CharTokenizer([unicodedata.normalize(form, "cafe é")])
    with pytest.raises(ValueError, match="is not in the vocabulary: U\\+") as refusal:
        tokenizer.encode(unicodedata.normalize(other, "é fac"))
    told = "U+0301 is part of one there" if form == "NFC" else "U+00E9 where the vocabulary has U+0065 U+0301"
    assert f"{told}; bring the text to normal form {form}" in str(refusal.value)
    with pytest.raises(ValueError, match=r"character 'x' is not in the vocabulary '"):
        tokenizer.encode(unicodedata.normalize(form, "éx"))


def test_what_is_no_tokenizer_of_the_library_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    for content, words in (
        (b"", "is no file of the tokenizers library"),
        (b"{}", "is no file of the tokenizers library"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "has no tokens"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"t\.json.*{words}"):
            BPETokenizer.of_file(path)
    with pytest.raises(ValueError, match="its tokenizer is no file of the tokenizers library"):
        tokenizer_in({"tokenizer": "{}"})
    with pytest.raises(ValueError, match="its tokenizer is no text"):
        tokenizer_in({"tokenizer": 3})


def test_a_tokenizer_that_loses_text_is_refused() -> None:
    lossy = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    lossy.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match=r"the tokenizer does not give back 'a b': it makes 'a \[UNK\]' of it"):
        BPETokenizer(lossy.to_str()).encode("a b")


def test_a_file_that_cuts_and_fills_up_texts_does_neither_here() -> None:
    tokenizer = tokenizers.Tokenizer.from_str(train_bpe([PLAY], 300))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    assert BPETokenizer(tokenizer.to_str()).encode("KING: there") == KINDS["bpe"].encode("KING: there")


def test_without_the_library_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match="pip install tokenizers"):
        BPETokenizer("{}")
