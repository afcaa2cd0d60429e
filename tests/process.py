"""Python in a process of its own, for what concerns a whole process: its memory, its signals, what it found and where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def printed_by(code: str, cwd: Path | None = None) -> str:
    """What `code` prints. It must end well and print no errors."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def python(*arguments: str, cwd: Path, status: int = 0, path: Path | None = None) -> str:
    """What Python prints that finds only what is installed, in `cwd` or in `path`.

    Where it must end with another status than 0, the last line of its errors.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=env, timeout=120)
    assert result.returncode == status, result.stderr
    return result.stdout if status == 0 else result.stderr.splitlines()[-1]
