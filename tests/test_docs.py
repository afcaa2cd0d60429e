"""docs/text.md: its commands as printed, in order, at small size."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "text.md"
SMALL = {"n-layer": 1, "n-embd": 8, "block-size": 8, "batch-size": 2, "steps": 6, "warmup": 2, "length": 40, "vocab-size": 270}


def commands() -> list[str]:
    return [
        line
        for block in re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
        for line in block.splitlines()
    ]


def made_small(command: str) -> str:
    """The command with smaller numbers, and with the Python of these tests."""
    for flag, value in SMALL.items():
        command = re.sub(rf"--{flag} (\d+)", lambda match, value=value: f"--{match[0][2:].split()[0]} {value}", command)
    command = command.replace("--resume manual.safetensors --steps 6", "--resume manual.safetensors --steps 9")
    command = re.sub(r"(^|\| )microgpt ", rf"\1{shlex.quote(sys.executable)} -m microgpt ", command)
    return re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command).replace("topics.values()", "list(topics.values())[:4]")


@pytest.mark.skipif(not PAGE.is_file() or sys.platform == "win32", reason="only in a checkout, in a shell")
def test_every_command_runs_as_printed(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("matplotlib")
    shown = commands()
    assert len(shown) > 14
    for command in shown:
        result = subprocess.run(["bash", "-c", made_small(command)], capture_output=True, text=True, cwd=tmp_path, timeout=120)
        assert result.returncode == 0, (command, result.stderr)
        assert "Traceback" not in result.stderr
        assert result.stdout or ">" in command, command
    assert {path.name for path in tmp_path.iterdir()} >= {"manual.safetensors", "best.safetensors", "manual.png", "manual.json"}
