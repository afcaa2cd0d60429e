"""Checkpoints: named tensors and metadata in one safetensors file, every byte of it under a checksum.

The header's `__metadata__` has one entry, `microgpt`, a JSON object: the version of this format, the checksum, the metadata. Only
one, because safetensors writes several in random order, and equal checkpoints should be equal files. The checksum is the SHA-256
of the whole file, its own digits taken as zeros.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microgpt.files import check_ordinary, write_atomically

Tensor = tuple[tuple[int, ...], "array[float]"]  # shape, and the numbers row by row

VERSION = 1
MAX_HEADER = 100_000_000  # bytes; the safetensors library reads no longer one
NO_DIGEST = "0" * 64
DIGEST = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')  # JSON within JSON: its quotes are escaped


def write(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a checkpoint; whatever happens, `path` then holds the old file or the whole new one.

    `tensors`: shape and doubles, row by row, of each name. `metadata`: what JSON can hold.
    Errors: ValueError if numbers and shape disagree; TypeError for metadata that JSON cannot hold; OSError if the file cannot be
    written.
    """
    from safetensors import TensorSpec, serialize  # here: importing the package takes the standard library only

    stored = {}
    for name, (shape, values) in tensors.items():
        if values.typecode != "d" or len(values) != math.prod(shape):
            raise ValueError(f"{name} needs {math.prod(shape)} doubles, got {len(values)} of type {values.typecode!r}")
        stored[name] = shape, little_endian(values)
    # `stored` keeps alive what the specifications point to.
    specs = {
        name: TensorSpec(dtype="float64", shape=shape, data_ptr=values.buffer_info()[0], data_len=8 * len(values))
        for name, (shape, values) in stored.items()
    }
    header = json.dumps({"version": VERSION, "sha256": NO_DIGEST, "metadata": dict(metadata)})
    content = bytearray(serialize(specs, {"microgpt": header}))
    place = find_digest(content)
    content[place] = sha256_without(content, place)
    write_atomically(path, content)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and metadata of a checkpoint.

    Errors: OSError if the file cannot be read; ValueError, `path` in it, unless every byte is as it was written.
    """
    status = os.stat(path)
    check_ordinary(path, status)
    with refusals(path), open(path, "rb") as file:
        start = file.read(8)
        start += file.read(header_end(start, status.st_size) - 8)
        find_digest(start)  # before all of a file is read that may be large and another program's
        return parse(start + file.read())


@contextmanager
def refusals(path: str | Path) -> Iterator[None]:
    """Say of every ValueError within that `path` is not a whole checkpoint."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} is not a whole microgpt checkpoint: {error}") from None


def parse(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and metadata that `content` holds. ValueError unless all of it is as `write` made it."""
    from safetensors import SafetensorError, deserialize

    place = find_digest(content)
    if sha256_without(content, place) != content[place]:
        raise ValueError("its contents do not match its checksum")
    try:
        stored = dict(deserialize(content))
        header = json.loads(json.loads(content[8 : header_end(content, len(content))])["__metadata__"]["microgpt"])
        version, metadata = header["version"], header["metadata"]
    except (SafetensorError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"its header makes no sense ({error})") from None
    if version != VERSION:
        raise ValueError(f"it is of version {version}, this microgpt reads version {VERSION}")
    if not isinstance(metadata, dict):
        raise ValueError(f"its metadata must be a JSON object, it is {type(metadata).__name__}")
    tensors = {}
    for name, tensor in stored.items():
        if tensor["dtype"] != "F64":
            raise ValueError(f"{name} must have dtype F64, it has {tensor['dtype']}")
        values = array("d")
        values.frombytes(tensor.pop("data"))
        tensors[name] = tuple(tensor["shape"]), little_endian(values)
    return tensors, metadata


def header_end(content: bytes | bytearray, size: int) -> int:
    """Return where the header ends in a file of `size` bytes: its length comes first, as 8 bytes, little-endian."""
    if size == 0:
        raise ValueError("it is empty")
    end = 8 + int.from_bytes(content[:8], "little")
    if end > min(size, MAX_HEADER):
        raise ValueError(f"it is cut short or no safetensors file, its {size} bytes hold no whole header")
    return end


def find_digest(content: bytes | bytearray) -> slice:
    """Return where the checksum's 64 digits stand."""
    match = DIGEST.search(content, 0, header_end(content, len(content)))
    if match is None:
        raise ValueError("it carries no checksum of microgpt, so another program wrote it, or it was altered")
    return slice(*match.span(1))


def sha256_without(content: bytes | bytearray, place: slice) -> bytes:
    """Return the SHA-256 of `content`, in hexadecimal, with zeros at `place`."""
    view = memoryview(content)
    digest = hashlib.sha256(view[: place.start])
    digest.update(NO_DIGEST.encode())
    digest.update(view[place.stop :])
    return digest.hexdigest().encode()


def little_endian(values: array[float]) -> array[float]:
    """Return `values` in the byte order of the file, or back again: itself, except on the few machines of the other order."""
    if sys.byteorder == "little":
        return values
    swapped = values[:]
    swapped.byteswap()
    return swapped
