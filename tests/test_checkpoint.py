"""Checkpoints: what is written is read bit by bit, what was altered is refused, and no accident leaves half a file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import stat
import struct
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest
from process import printed_by

from microgpt import checkpoint, files

unix = pytest.mark.skipif(os.name != "posix", reason="pipes, permissions, limits and kills as on Unix")

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
    from safetensors.numpy import load_file

    arrays = load_file(path)
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


def test_what_another_program_wrote_is_refused(path: Path) -> None:
    from safetensors import TensorSpec, serialize

    numbers = array("f", [1.0, 2.0])
    spec = TensorSpec(dtype="float32", shape=(2,), data_ptr=numbers.buffer_info()[0], data_len=8)
    assert "another program wrote it" in refusal_of(path, serialize({"wte": spec}, {"format": "pt"}))
    assert "it is empty" in refusal_of(path, b"")
    assert "no safetensors file" in refusal_of(path, b"emma\nolivia\n")
    assert "no safetensors file" in refusal_of(path, b"\xff" * 8 + b"{}")  # a header of 2**64 - 1 bytes


def sealed(header: bytes, data: bytes = b"") -> bytes:
    """A file with a checksum that is right, whatever it holds."""
    content = bytearray(len(header).to_bytes(8, "little") + header + data)
    content[checkpoint.find_digest(content)] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def entry(version: object = 1, metadata: object = None) -> str:
    return json.dumps({"version": version, "sha256": "0" * 64, "metadata": metadata or {}})


NO_SENSE = "its header makes no sense"


@pytest.mark.parametrize(
    ("own", "tensor", "n_bytes", "words"),
    [
        ({"microgpt": entry(version=2)}, None, 0, "it is of version 2, this microgpt reads version 1"),
        ({"microgpt": entry(metadata=[1])}, None, 0, "its metadata must be a JSON object, it is list"),
        ({"other": entry()}, None, 0, NO_SENSE),
        ({"microgpt": f"[{entry()}]"}, None, 0, NO_SENSE),
        ({"microgpt": entry()[:-1]}, None, 0, "Expecting"),
        ({"microgpt": f'{entry()[:-1]}, "x": {"[" * 100_000}'}, None, 0, NO_SENSE),
        (entry(), None, 0, NO_SENSE),
        ({"microgpt": entry()}, None, 8, "its header tells of 0 bytes of numbers, it has 8"),
        ({"microgpt": entry()}, ("F32", [2], [0, 8]), 8, "w must have dtype F64, it has F32"),
        ({"microgpt": entry()}, ("F64", [2], [0, 8]), 8, NO_SENSE),
        ({"microgpt": entry()}, ("F64", [1], [8, 16]), 16, NO_SENSE),
        ({"microgpt": entry()}, ("F64", [2**62, 4], [0, 8]), 8, NO_SENSE),
        ({"microgpt": entry()}, ("F64", [1] * 100_000, [0, 8]), 8, NO_SENSE),
        ({"microgpt": entry()}, ("F64", [-1, -1], [0, 8]), 8, NO_SENSE),
        ({"microgpt": entry()}, ("F64", [True], [0, 8]), 8, NO_SENSE),
        ({"microgpt": entry()}, ("F64", [1.0], [0, 8]), 8, NO_SENSE),
        ({"microgpt": entry()}, ("F64", "1", [0, 8]), 8, NO_SENSE),
        ({"microgpt": entry()}, ("F64", None, None), 8, NO_SENSE),
        ({"microgpt": entry()}, ({}, [1], [0, 8]), 8, "w must have dtype F64, it has {}"),
        ({"microgpt": entry(version=True)}, None, 0, "it is of version True, this microgpt reads version 1"),
    ],
)
def test_a_right_checksum_does_not_help_a_wrong_header(own: Any, tensor: Any, n_bytes: int, words: str, path: Path) -> None:
    header = {"__metadata__": own}
    if tensor is not None:
        header["w"] = dict(zip(("dtype", "shape", "data_offsets"), tensor, strict=True))
    assert words in refusal_of(path, sealed(json.dumps(header).encode(), bytes(n_bytes)))


@pytest.mark.parametrize("values", [array("d", [1.0]), array("f", [1.0, 2.0])], ids=str)
def test_numbers_that_do_not_fit_the_shape_are_refused(values: array[float], path: Path) -> None:
    with pytest.raises(ValueError, match=r"wte needs 2 doubles, got \d of type"):
        checkpoint.write(path, {"wte": ((2,), values)}, {})
    with pytest.raises(TypeError, match="JSON"):
        checkpoint.write(path, {}, {"rng": random.Random(1)})
    assert not path.exists()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(OSError, match=re.escape(repr(str(path)))):
            checkpoint.read(path)
    for path in (tmp_path, tmp_path / "missing" / "model"):
        with pytest.raises(OSError, match=re.escape(repr(str(path)))):
            checkpoint.write(path, {}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory cannot be limited, or a file may take its whole size")
@pytest.mark.parametrize("header_length", [0, 1 << 26, 1 << 35, 1 << 63])
def test_a_huge_file_is_refused_before_it_is_read(header_length: int, path: Path) -> None:
    """64 GiB of zeros, which take no room on the disk, in a process that has 1 GiB of memory."""
    path.write_bytes(header_length.to_bytes(8, "little"))
    os.truncate(path, 1 << 36)
    code = f"""
import resource
from microgpt import checkpoint
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    checkpoint.read({path.name!r})
except ValueError as error:
    print(error)
"""
    assert " is not a whole microgpt checkpoint: it " in printed_by(code, cwd=path.parent)


@unix
def test_a_pipe_is_refused_and_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    for call in (checkpoint.read, lambda path: checkpoint.write(path, {}, {})):
        with pytest.raises(OSError, match="Not an ordinary file"):
            call(path)
    assert path.is_fifo()


@unix
def test_permissions_and_symbolic_links_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    (tmp_path / "folder").mkdir()
    umask = os.umask(0o027)
    try:
        files.write_atomically(path, b"new")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    link.symlink_to("file")
    files.write_atomically(link, b"newer")
    assert link.is_symlink()
    assert path.read_bytes() == b"newer"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    dangling = tmp_path / "dangling"
    dangling.symlink_to("folder/elsewhere")
    files.write_atomically(dangling, b"x")
    assert dangling.is_symlink()
    assert (tmp_path / "folder" / "elsewhere").read_bytes() == b"x"


@unix
def test_a_name_as_long_as_a_file_may_have_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    files.write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(
    failing: str, path: Path, saved: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (OSError(errno.EIO, "Input/output error", "temporary name"), KeyboardInterrupt()):

        def fail(*arguments: object, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(files.os, failing, fail)
            with pytest.raises(type(error)) as raised:
                checkpoint.write(path, {}, {})
        assert getattr(raised.value, "filename", str(path)) == str(path)
        assert path.read_bytes() == saved
        assert list(path.parent.iterdir()) == [path]


@unix
def test_full_disk_and_unwritable_places_end_in_one_line_and_keep_the_old_file(path: Path, saved: bytes) -> None:
    """In a process of its own: a limit on the size of files, and no rights of the superuser."""
    code = f"""
import os, resource
from array import array
from pathlib import Path
from microgpt import checkpoint, data

path = Path({path.name!r})

def attempt(path):
    try:
        checkpoint.write(path, {{"wte": ((4096,), array("d", bytes(8 * 4096)))}}, {{}})
    except OSError as error:
        print(f"{{Path(error.filename).name}}: {{error.strerror}}")

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
attempt(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
if os.geteuid() == 0:
    os.chown(path, 65534, 65534)
    os.chown(path.parent, 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
path.chmod(0o444)
attempt(path)
path.chmod(0o644)
path.parent.chmod(0o555)
attempt(path)
attempt(path.with_name("other"))
path.parent.chmod(0o755)
path.chmod(0o000)
for read in (checkpoint.read, data.load_file):
    try:
        read(path)
    except OSError as error:
        print(f"{{Path(error.filename).name}}: {{error.strerror}}")
path.chmod(0o644)
"""
    # By a relative path, since the folders above stay the superuser's alone.
    result = printed_by(code, cwd=path.parent)
    denied = f"{path.name}: Permission denied"
    expected = [f"{path.name}: File too large", denied, denied, "other: Permission denied", denied, denied]
    assert result.splitlines() == expected
    assert path.read_bytes() == saved
    assert list(path.parent.iterdir()) == [path]


@unix
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(path: Path) -> None:
    """Processes that do nothing but save are killed, 300 and until 30 of the kills fell within a write.

    What each leaves is the save before or the one after.
    """
    code = f"""
import os, random, signal, time
from array import array
from pathlib import Path
from microgpt import checkpoint

path, kills, inside, written = Path({path.name!r}), 0, 0, set()
n = 20_000

def save(number):
    checkpoint.write(path, {{"wte": ((n,), array("d", [number]) * n)}}, {{"number": number}})

save(0.0)
rng = random.Random(1)
while kills < 300 or inside < 30:
    kills += 1
    ready, report = os.pipe()
    child = os.fork()
    if child == 0:
        number = 1000.0 * kills
        while True:
            number += 1
            save(number)
            os.write(report, b".")
    os.read(ready, 1)  # the first save is done
    os.close(ready), os.close(report)
    time.sleep(rng.uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    tensors, metadata = checkpoint.read(path)
    assert tensors["wte"] == ((n,), array("d", [metadata["number"]]) * n)
    written.add(metadata["number"])
    others = [other for other in path.parent.iterdir() if other != path]
    assert len(others) <= 1
    inside += len(others)
    for other in others:
        other.unlink()
print(kills, inside, len(written))
"""
    kills, inside, written = map(int, printed_by(code, cwd=path.parent).split())
    print(f"{kills} kills survived, {inside} of them within a write, {written} different checkpoints left")
    assert kills >= 300
    assert inside >= 30
    assert written == kills
