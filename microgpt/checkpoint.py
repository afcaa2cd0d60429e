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
from os import PathLike
from typing import Any

from microgpt.files import Known, check_ordinary, write_atomically
from microgpt.ranges import Whole

Tensor = tuple[tuple[int, ...], "array[float]"]  # shape, and the numbers row by row

VERSION = 1
MAX_HEADER = 100_000_000  # bytes; the safetensors library reads no longer one
MAX_REASON = 300  # characters
NO_DIGEST = "0" * 64
DIGEST = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')  # JSON within JSON: its quotes are escaped


def write(
    path: str | PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], known: Known | None = None
) -> None:
    """Write a checkpoint; whatever happens, `path` then holds the old file or the whole new one.

    `tensors`: shape, of one or two sizes, and doubles, row by row, of each name. `metadata`: what JSON can hold. `known`: what
    stood at `path` when this process last looked; FileReplacedError if that is another by now.
    Errors: ValueError if numbers and shape disagree; TypeError for metadata that JSON cannot hold; OSError if the file cannot be
    written.
    """
    from safetensors import TensorSpec, serialize  # here: importing the package takes the standard library only

    stored = {}
    for name, (shape, values) in tensors.items():
        if len(shape) not in (1, 2):
            raise ValueError(f"{name} must be a vector or a matrix, its shape is {shape}")
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
    content[find_digest(content)] = hashlib.sha256(content).hexdigest().encode()
    write_atomically(path, content, known)


def read(path: str | PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and metadata of a checkpoint. What they mean is not looked at.

    Errors: OSError if the file cannot be read; ValueError, `path` in it, unless every byte is as it was written.
    Memory: the tensors and the header; no more is read of a file whose size is not the one that its header tells.
    """
    path = os.fspath(path)  # a number would be an open file of this process
    status = os.stat(path)
    check_ordinary(path, status)
    with refusals(path), open(path, "rb") as file:
        header = file.read(8)
        header += file.read(header_end(header, status.st_size) - 8)
        place = find_digest(header)
        lengths, metadata = parse(header, status.st_size - len(header))
        digest = hashlib.sha256(without_digest(header, place))
        tensors = {}
        for name, shape in lengths.items():
            values = array("d")
            try:
                values.fromfile(file, math.prod(shape))
            except EOFError:
                raise ValueError("it was cut short while it was read") from None
            digest.update(values)
            tensors[name] = shape, little_endian(values)
        if digest.hexdigest().encode() != header[place] or file.read(1):
            raise ValueError("its contents do not match its checksum")
    return tensors, metadata


@contextmanager
def refusals(path: str | PathLike[str]) -> Iterator[None]:
    """Say of every ValueError within that `path` is not a whole checkpoint. What is quoted from it may be long, and is cut."""
    try:
        yield
    except ValueError as error:
        reason = str(error)
        reason = reason if len(reason) <= MAX_REASON else reason[:MAX_REASON] + "..."
        raise ValueError(f"{path} is not a whole microgpt checkpoint: {reason}") from None


def parse(header: bytes, size: int) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Return the shapes of the tensors, in the order of their numbers, and the metadata.

    ValueError unless `header`, its length included, is as `write` made it and `size` bytes of numbers belong to it.
    """
    try:
        named = json.loads(header[8:].decode())
        own = json.loads(named.pop("__metadata__")["microgpt"])
        version, metadata = own["version"], own["metadata"]
        stored = sorted((tensor["data_offsets"], name, tensor["dtype"], tensor["shape"]) for name, tensor in named.items())
    except (AttributeError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"its header makes no sense ({error})") from None
    if type(version) is not int or version != VERSION:
        raise ValueError(f"it is of version {version!r}, this microgpt reads version {VERSION}")
    if not isinstance(metadata, dict):
        raise ValueError(f"its metadata must be a JSON object, it is {type(metadata).__name__}")
    shapes = {}
    sizes = Whole(0, size)
    end = 0
    for offsets, name, dtype, shape in stored:
        if dtype != "F64":
            raise ValueError(f"{name} must have dtype F64, it has {dtype}")
        if not isinstance(shape, list) or len(shape) not in (1, 2) or not all(n in sizes for n in shape):
            raise ValueError(f"its header makes no sense (shape {shape!r} of {name})")
        begin, end = end, end + 8 * math.prod(shape)
        if offsets != [begin, end] or end > size:
            raise ValueError(f"its header makes no sense (bytes {offsets!r} of {name})")
        shapes[name] = tuple(shape)
    if end != size:
        raise ValueError(f"its header tells of {end} bytes of numbers, it has {size}")
    return shapes, metadata


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


def without_digest(content: bytes | bytearray, place: slice) -> bytes:
    """Return `content` with zeros at `place`."""
    return bytes(content[: place.start]) + NO_DIGEST.encode() + bytes(content[place.stop :])


def little_endian(values: array[float]) -> array[float]:
    """Return `values` in the byte order of the file, or back again: itself, except on the few machines of the other order."""
    if sys.byteorder == "little":
        return values
    swapped = values[:]
    swapped.byteswap()
    return swapped


def check_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise ValueError if the tensor holds infinity or nan."""
    if not is_finite(tensors[name]):
        raise ValueError(f"{name} holds numbers that are not finite")


def is_finite(tensor: Tensor) -> bool:
    """Return whether no number of the tensor is infinity or nan."""
    return all(map(math.isfinite, tensor[1]))
