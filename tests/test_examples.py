"""The examples that look at graphs run as they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from process import python

EXAMPLES = Path(__file__).parent.parent / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="only in a checkout")


def test_the_neuron_is_drawn_with_the_gradients_of_the_lecture(tmp_path: Path) -> None:
    out = python(str(EXAMPLES / "neuron.py"), cwd=tmp_path)
    assert "w1: data -3, grad 1\n" in out
    assert "x2: data 0, grad 0.5\n" in out
    assert out.endswith("wrote neuron.svg\n")
    assert "x1*w1 + x2*w2" in (tmp_path / "neuron.svg").read_text()


def test_the_own_op_passes_and_the_wrong_one_is_named(tmp_path: Path) -> None:
    right, wrong = python(str(EXAMPLES / "own_op.py"), cwd=tmp_path).splitlines()
    assert right.startswith("all 3 gradients agree")
    assert wrong.startswith("wrong gradient at input 0[1]")
    assert wrong.endswith("wrong partials in `wrong_swish`")


def test_two_moons_are_told_apart_in_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    python(str(EXAMPLES / "two_moons.py"), "--steps", "2", "--plot", "moons.png", cwd=tmp_path)
    assert (tmp_path / "moons.png").read_bytes().startswith(b"\x89PNG")
