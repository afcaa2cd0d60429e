"""The lesson of examples/lecture.py, on the engine and on a plain Python Value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LESSON = Path(__file__).parent.parent / "examples" / "lecture.py"
ON_MICROGRAD = """
import runpy, sys
sys.path.insert(0, sys.argv[2])
import micrograd
micrograd.nn = micrograd
sys.modules["microgpt"] = micrograd
"""
SHOW_BITS = """
names = runpy.run_path(sys.argv[1])
print(*(x.hex() for p in names["model"].parameters() for x in (p.data, p.grad)))
"""


def lesson(prepare: str, seed: str = "0") -> list[str]:
    """What the lesson prints, and the bits of the net that it ends with."""
    result = subprocess.run(
        [sys.executable, "-c", prepare + SHOW_BITS, str(LESSON), str(Path(__file__).parent)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def test_the_lesson_is_the_same_on_micrograd() -> None:
    lines = lesson("import runpy, sys")
    assert lines == lesson(ON_MICROGRAD)
    assert len(lines[-1].split()) == 2 * 41


def test_the_lesson_is_the_same_each_time() -> None:
    assert lesson("import runpy, sys", "1") == lesson("import runpy, sys", "2")


def test_the_lesson_shows_what_it_says() -> None:
    lines = lesson("import runpy, sys")
    assert lines.count("the same: True") == 2
    assert sum(line.endswith("as before") for line in lines) == 5
    assert "        goods (*): data 6.0000, grad -0.5000" in lines
    losses = [float(line.split()[-1]) for line in lines if line.startswith("step ")]
    assert len(losses) == 8
    assert losses[3] < 0.1 * losses[0]
    assert losses[-1] < 0.1 * losses[4]


def test_the_lesson_is_short() -> None:
    assert len(LESSON.read_text(encoding="utf-8").splitlines()) < 150
