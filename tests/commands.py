"""The commands, called in this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest


class Result(NamedTuple):
    """What a command gave back."""

    status: int
    out: str
    err: str


class Commands:
    """Calls commands in this process: `commands("train", "--steps", "5")`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, name: str, *arguments: object) -> Result:
        self.capsys.readouterr()
        try:
            status = import_module(f"microgpt.{name}").main([str(argument) for argument in arguments])
        except SystemExit as exit:
            status = int(exit.code or 0)
        return Result(status, *self.capsys.readouterr())

    def good(self, name: str, *arguments: object) -> str:
        """What a command prints that must end well."""
        result = self(name, *arguments)
        assert result.status == 0, result.err
        return result.out

    def refusal(self, name: str, *arguments: object) -> str:
        """The one line of a command that must be refused, without results."""
        result = self(name, *arguments)
        assert (result.status, result.out, result.err.count("\n")) == (2, "", 1), result
        assert result.err.startswith(f"python -m microgpt.{name}: error: ")
        return result.err


def in_process(
    name: str, *arguments: str, cwd: Path, text: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, with `text` on its standard input."""
    command: Sequence[str] = [sys.executable, "-m", f"microgpt.{name}", *arguments]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, cwd=cwd, env={**os.environ, **(env or {})}, timeout=120
    )
