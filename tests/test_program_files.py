"""Programs in files: the same when read again; what is no program is refused."""

from __future__ import annotations

import json
import math
from array import array
from pathlib import Path
from typing import Any

import pytest
from program_graphs import Graph, expected, hexes
from test_hostile_files import hostile_files, put_together, taken_apart

import microgpt
from microgpt import Program, Value, Vector, checkpoint, record


def example() -> Program:
    x, k = Vector([0.5, 0.25]), Value(3.0)
    return record([microgpt.exp(x[0] * x[1]) * k, microgpt.softmax(x)[0] + 1.5], x, k)


def test_a_program_that_is_read_again_has_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "program.safetensors"
    for seed in range(60):
        graph = Graph(seed)
        if isinstance(expected(graph, graph.points[0]), type):
            continue
        inputs, output = graph.build(microgpt, graph.points[0])
        p = record(output, inputs)
        p.save(path)
        other = Program.load(path)
        value, gradient = other.value_and_grad(graph.points[0])
        assert (value.hex(), hexes(gradient)) == expected(graph, graph.points[0])[:2]
        assert repr(other) == repr(p)
        other.save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_parameters_are_saved_as_they_are_set(tmp_path: Path) -> None:
    p = example()
    p.parameters = [7.0]
    p.save(tmp_path / "p")
    assert Program.load(tmp_path / "p").parameters == (7.0,)
    assert Program.load(tmp_path / "p")([1.0, 2.0]) == p([1.0, 2.0])


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p"
    checkpoint.write(path, {"wte": ((2, 1), array("d", [1.0, 2.0]))}, {"config": {}})
    with pytest.raises(ValueError, match=rf"^{path} is no program of microgpt: 'program'$"):
        Program.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a whole microgpt checkpoint"):
        Program.load(path)
    with pytest.raises(FileNotFoundError):
        Program.load(tmp_path / "missing")


def attempt(path: Path) -> None:
    """Read and run it: it is refused in one line, or makes sense."""
    error = None
    try:
        p = Program.load(path)
    except ValueError as refusal:
        error = str(refusal)
    if error is not None:
        assert str(path) in error
        assert "\n" not in error
        return
    x = [0.5] * min(p.inputs, 1000)  # a program may have inputs that it does not use
    try:
        assert len(p.jacobian(x)) == p.outputs
        p.run_many([x] * 9, gradients=False)
    except (ArithmeticError, ValueError):
        pass


def test_programs_that_lie_are_refused(tmp_path: Path) -> None:
    """Every number of a small program changed, and every entry of its header, under a right checksum."""
    path = tmp_path / "p"
    example().save(path)
    file = taken_apart(path)
    numbers = array("d", file.numbers)
    for i in range(len(numbers)):
        for x in (-1.0, 0.0, 0.5, 1.0, 2.0, 25.0, 41.0, 60.0, 61.0, 255.0, 1e9, 2.0**31, 2.0**32, 1e300, math.nan, math.inf):
            changed = numbers[:]
            changed[i] = x
            path.write_bytes(put_together(file._replace(numbers=changed.tobytes())))
            attempt(path)
    for _, content in hostile_files(file, 2000, 1):
        path.write_bytes(content)
        attempt(path)


def test_a_number_of_inputs_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p"
    example().save(path)
    file = taken_apart(path)
    for inputs in (0, -1, 2**31, 2**40, 10**30, True, 1.0, "2"):
        own: Any = json.loads(json.dumps(file.own))
        own["metadata"]["program"]["inputs"] = inputs
        path.write_bytes(put_together(file._replace(own=own)))
        with pytest.raises(ValueError, match="is no program of microgpt"):
            Program.load(path)
