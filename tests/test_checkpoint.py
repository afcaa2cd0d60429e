"""Checkpoints: what is written is read bit by bit, what was altered is refused, and no accident leaves half a file."""

from __future__ import annotations

import random
import re
import struct
from array import array
from pathlib import Path

import pytest

from microgpt import checkpoint

NUMBERS = [1.5, -0.0, 5e-324, float("inf"), float("nan"), 1.7976931348623157e308]
TENSORS = {"wte": ((2, 3), array("d", NUMBERS)), "nothing": ((0, 4), array("d")), "adam.m.wte": ((1,), array("d", [0.1]))}
METADATA = {"config": {"n": 1, "sha256": "0" * 64}, "characters": 'ab"\\é🙂\ud800', "loss": 0.1, "done": None}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path: Path) -> bytes:
    checkpoint.write(path, TENSORS, METADATA)
    return path.read_bytes()


def refusal_of(path: Path, content: bytes) -> str:
    """What read says of `content`; it must name the file, in one line."""
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"\A{re.escape(str(path))} is not a whole microgpt checkpoint: .*\Z") as refusal:
        checkpoint.read(path)
    return str(refusal.value)


def test_what_is_written_is_read_bit_by_bit(path: Path, saved: bytes) -> None:
    tensors, metadata = checkpoint.read(path)
    assert metadata == METADATA
    assert {name: (shape, values.tobytes()) for name, (shape, values) in tensors.items()} == {
        name: (shape, values.tobytes()) for name, (shape, values) in TENSORS.items()
    }
    checkpoint.write(path, dict(reversed(TENSORS.items())), METADATA)
    assert path.read_bytes() == saved


def test_others_read_it_with_safetensors_alone(path: Path, saved: bytes) -> None:
    numpy = pytest.importorskip("numpy")
    arrays = __import__("safetensors.numpy").numpy.load_file(path)
    assert {name: a.shape for name, a in arrays.items()} == {name: shape for name, (shape, _) in TENSORS.items()}
    assert arrays["wte"].dtype == numpy.float64
    assert arrays["wte"].tobytes() == TENSORS["wte"][1].tobytes()
    (header_length,) = struct.unpack("<Q", saved[:8])
    assert header_length % 8 == 0  # doubles may be read where they stand


def test_every_altered_byte_is_noticed(path: Path, saved: bytes) -> None:
    """Every bit of the header, and of each byte after it one at random."""
    rng = random.Random(1)
    header = 8 + struct.unpack("<Q", saved[:8])[0]
    flips = [(i, bit) for i in range(header) for bit in range(8)] + [(i, rng.randrange(8)) for i in range(header, len(saved))]
    for i, bit in flips:
        content = bytearray(saved)
        content[i] ^= 1 << bit
        refusal_of(path, bytes(content))
    print(f"{len(flips)} flipped bits in {len(saved)} bytes, all noticed")


def test_every_truncation_and_extension_is_noticed(path: Path, saved: bytes) -> None:
    for length in range(len(saved)):
        refusal_of(path, saved[:length])
    for extra in (b"\0", b"\n", saved, bytes(100_000)):
        refusal_of(path, saved + extra)
    print(f"{len(saved)} truncations, all noticed")
