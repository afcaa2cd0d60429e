"""The room beyond the tape's top, closed to an engine built with AddressSanitizer (.ci/sanitize)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif("libasan" not in os.environ.get("LD_PRELOAD", ""), reason="needs AddressSanitizer")

# The sanitizer looks at memmove, which it replaces, as at an access compiled with it.
ACCESS = """
import ctypes, sys
from microgpt import Value, _tape
array, beyond, access = sys.argv[1], int(sys.argv[2]), sys.argv[3]
class Tape(ctypes.Structure):  # its first members, as in _tape.pxd
    _fields_ = [(name, ctypes.c_void_p) for name in ("data", "grad", "seen", "record_of", "handle")]
    _fields_ += [(name, ctypes.c_uint32) for name in ("top", "capacity", "limit")]
    _fields_ += [("record", ctypes.c_void_p), ("record_top", ctypes.c_uint32)]
name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
x = Value(0.625)
capsule = _tape.__pyx_capi__["tape"]
tape = ctypes.POINTER(Tape).from_address(pointer_of(capsule, name_of(capsule))).contents
assert ctypes.c_double.from_address(tape.data + 8 * (tape.top - 1)).value == x.data
size = {"data": 8, "grad": 8, "seen": 1, "record_of": 4, "record": 16}[array]
top = tape.record_top if array == "record" else tape.top
place, other = getattr(tape, array) + size * (top - 1 + beyond), ctypes.create_string_buffer(size)
ctypes.memmove(*((other, place) if access == "READ" else (place, other)), size)
"""


@pytest.mark.parametrize("access", ["READ", "WRITE"])
@pytest.mark.parametrize("array", ["data", "grad", "seen", "record_of", "record"])
def test_access_beyond_the_top_is_reported(array: str, access: str, tmp_path: Path) -> None:
    def report(beyond: int, poisoning: int = 1) -> str:
        command = [sys.executable, "-c", ACCESS, array, str(beyond), access]
        env = {**os.environ, "ASAN_OPTIONS": f"{os.environ['ASAN_OPTIONS']}:allow_user_poisoning={poisoning}"}
        result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (result.returncode == 0) == (result.stderr == "")
        return result.stderr

    assert report(0) == ""
    assert report(1, poisoning=0) == ""
    found = report(1)
    assert "AddressSanitizer: use-after-poison" in found
    assert f"{access} of size" in found
