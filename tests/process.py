"""Code in a process of its own, for what concerns a whole process: its memory, its signals, what happened in it before."""

from __future__ import annotations

import subprocess
import sys


def printed_by(code: str) -> str:
    """What `code` prints. It must end well and print no errors."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout
