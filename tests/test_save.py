"""GPT.save and GPT.load: the model that comes back is the one that went, and what is no model is refused."""

from __future__ import annotations

import random
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microgpt import GPT, CharTokenizer, GPTConfig, Matrix, checkpoint

CONFIG = GPTConfig(4, n_layer=2, n_embd=6, n_head=3, block_size=5)


def model_and_tokenizer() -> tuple[GPT, CharTokenizer]:
    return GPT(CONFIG, random.Random(1)), CharTokenizer(["cab"])


def bits(model: GPT) -> list[str]:
    return [p.data.hex() for p in model.parameters()]


def test_a_loaded_model_is_the_saved_one_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model, tokenizer = model_and_tokenizer()
    model.wte.data = [[5e-324, -0.0, 0.1, 1e308, -1e-300, 1 / 3], *model.wte.data[1:]]
    model.save(path, tokenizer)
    loaded = GPT.load(path)
    assert loaded.config == CONFIG
    assert bits(loaded) == bits(model)
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert CharTokenizer.load(path).characters == "abc"
    tokens = tokenizer.encode("abba")
    assert loaded.loss(tokens).data.hex() == model.loss(tokens).data.hex()


def test_the_tensors_have_the_names_and_shapes_of_microgpt(tmp_path: Path) -> None:
    model, _ = model_and_tokenizer()
    model.save(tmp_path / "model.safetensors")
    tensors, metadata = checkpoint.read(tmp_path / "model.safetensors")
    assert {name: shape for name, (shape, _) in tensors.items()} == CONFIG.shapes
    assert metadata == {"config": vars(CONFIG)}


def test_shared_matrices_are_written_once_and_shared_again(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model, tokenizer = model_and_tokenizer()
    model.lm_head = model.wte
    model.layers[1] = model.layers[0]
    model.layers[0].attn_wk = model.layers[0].attn_wq
    model.save(path)
    tensors, metadata = checkpoint.read(path)
    assert sorted(tensors) == sorted(model.own_matrices())
    assert not any(name.startswith("layer1") for name in tensors)
    assert metadata["shared"]["lm_head"] == "wte"
    loaded = GPT.load(path)
    assert loaded.lm_head is loaded.wte
    assert loaded.layers[1].attn_wk is loaded.layers[0].attn_wq
    assert bits(loaded) == bits(model)
    tokens = tokenizer.encode("abba")
    assert loaded.loss(tokens).data.hex() == model.loss(tokens).data.hex()


def test_replaced_matrices_are_what_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model, tokenizer = model_and_tokenizer()
    model.wte = Matrix([[0.1 * i - 0.01 * j for j in range(6)] for i in range(4)])
    model.layers[1].mlp_fc2 = Matrix([[0.3] * 24 for _ in range(6)])
    model.layers[0], model.layers[1] = model.layers[1], model.layers[0]
    model.save(path)
    tokens = tokenizer.encode("abba")
    assert GPT.load(path).loss(tokens).data.hex() == model.loss(tokens).data.hex()


def test_sizes_of_numpy_are_saved_as_others(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    config = GPTConfig(np.int64(4), n_layer=np.uint8(2), n_embd=np.array(6), n_head=np.int32(3), block_size=np.int16(5))
    assert config == CONFIG
    assert {type(size) for size in vars(config).values()} == {int}
    GPT(config, random.Random(1)).save(path)
    assert GPT.load(path).config == CONFIG


def test_the_optimisers_tensors_and_other_metadata_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model, tokenizer = model_and_tokenizer()
    tensors, metadata = model.to_checkpoint(tokenizer)
    moments: dict[str, checkpoint.Tensor] = {
        f"adam.{moment}.{name}": (shape, array("d", bytes(8 * len(values))))
        for moment in "mv"
        for name, (shape, values) in tensors.items()
    }
    checkpoint.write(path, {**tensors, **moments}, {**metadata, "steps": 7})
    assert bits(GPT.load(path)) == bits(model)
    assert CharTokenizer.load(path).characters == "abc"


WTE = (4, 6), array("d", [0.0] * 24)
SIZES = vars(CONFIG)


@pytest.mark.parametrize(
    ("tensors", "metadata", "words"),
    [
        ({}, {"config": None}, "its config must hold vocab_size, n_layer, n_embd, n_head, block_size, it is None"),
        ({}, {"config": {**SIZES, "n_ctx": 3}}, "its config must hold"),
        ({}, {"config": {**SIZES, "n_embd": 6.0}}, "n_embd must be a whole number, got 6.0"),
        ({}, {"config": {**SIZES, "n_head": 4}}, "n_head must divide n_embd, got n_embd 6 and n_head 4"),
        ({}, {"config": {**SIZES, "n_embd": 1, "n_head": 1, "n_layer": 8_000_000}}, "make 96000013 parameters, it holds "),
        ({"wte": None}, {}, "its sizes make 942 parameters, it holds 918 numbers"),
        ({"wte": None, "adam.m.wte": WTE}, {}, "wte is missing"),
        ({"wte": ((6, 4), WTE[1])}, {}, r"wte must have shape \(4, 6\), it has \(6, 4\)"),
        ({"wte": ((24,), WTE[1])}, {}, r"wte must have shape \(4, 6\), it has \(24,\)"),
        ({"layer2.attn_wq": WTE}, {}, "the GPT of its sizes has no layer2.attn_wq"),
        ({}, {"shared": ["wte"]}, r"its shared matrices must be named by name, they are \['wte'\]"),
        ({}, {"shared": {"lm_head": ["wte"]}}, "its shared matrices must be named by name"),
        ({}, {"shared": {"lm_tail": "wte"}}, "the GPT of its sizes has no lm_tail"),
        ({}, {"shared": {"lm_head": "wte"}}, "lm_head cannot be shared with wte: that must"),
        ({"lm_head": None}, {"shared": {"lm_head": "wpe"}}, "lm_head cannot be shared with wpe: that must"),
        ({"lm_head": None}, {"shared": {"lm_head": "lm_head"}}, "lm_head cannot be shared with lm_head: that must"),
        ({"lm_head": None}, {"shared": {"lm_head": "layer0.attn_wq"}}, "come before it and have its shape"),
        ({"lm_head": None}, {"shared": {"lm_head": "nothing"}}, "lm_head cannot be shared with nothing"),
        ({"lm_head": None}, {"shared": {"wpe": "wte"}}, "wpe cannot be shared with wte"),
        (
            {},
            {"config": {**SIZES, "n_embd": 1, "n_head": 1, "n_layer": 8_000_000}, "shared": {"lm_head": "wte"}},
            "its sizes make 8000000 layers, it holds 15 matrices, 1 shared",
        ),
    ],
)
def test_what_is_no_model_is_refused(tensors: dict[str, Any], metadata: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    good_tensors, good_metadata = model_and_tokenizer()[0].to_checkpoint()
    changed = {name: tensor for name, tensor in {**good_tensors, **tensors}.items() if tensor is not None}
    checkpoint.write(path, changed, {**good_metadata, **metadata})
    with pytest.raises(ValueError, match=rf"\A.*model.safetensors is not a whole microgpt checkpoint: .*{words}"):
        GPT.load(path)


@pytest.mark.parametrize(
    ("characters", "words"),
    [(None, "holds no vocabulary"), (3, "no string"), ("", "no string"), ("ba", "in order"), ("aab", "different")],
)
def test_what_is_no_vocabulary_is_refused(characters: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    checkpoint.write(path, {}, {"characters": characters})
    with pytest.raises(ValueError, match=rf"model.safetensors is not a whole microgpt checkpoint: .*{words}"):
        CharTokenizer.load(path)


def test_the_tokenizer_of_another_model_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the model has 4 tokens, the tokenizer 3"):
        model_and_tokenizer()[0].save(tmp_path / "model.safetensors", CharTokenizer(["ab"]))
    assert list(tmp_path.iterdir()) == []
