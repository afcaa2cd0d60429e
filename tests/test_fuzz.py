"""The fuzzer: some hundred programs of each kind in every run of the suite, and that it notices what it is there for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import fuzz
import fuzz_faults
import pytest
import twin

import microgpt
from microgpt._plans import forget_plans
from microgpt._schedule import set_worth


@pytest.fixture(autouse=True)
def plans_of_the_usual_size() -> Any:
    yield
    forget_plans()
    set_worth()


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_random_programs_equal_the_twin(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    programs = 10 if kind == "models" else 300
    status = fuzz.main(["--programs", str(programs), "--seed", "1", "--kind", kind])
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_programs_are_the_same_each_time(kind: str) -> None:
    first, again = (next(fuzz.programs([kind], 5, 17)) for _ in range(2))
    assert first == again
    assert first != next(fuzz.programs([kind], 6, 17))


def test_most_instructions_do_something() -> None:
    """Else the programs would be shorter than they look."""
    done = given = backwards = 0
    for number, _, program in fuzz.programs(fuzz.IN_TURN, 3):
        if number == 150:
            break
        run = fuzz.Run()
        run.run(program)
        lines = [line for line, *_ in run.log if "yield check" not in line]
        done += sum("refused" not in line for line in lines)
        backwards += sum(line == "a.backward()" for line in lines)
        given += len(program)
    assert done > 0.6 * given
    assert backwards > 2 * 150


def wrong_tanh(x: Any) -> Any:
    """The tanh of a Value with its partial a last bit too large."""
    if not isinstance(x, microgpt.Value):
        return microgpt.Vector([wrong_tanh(v) for v in x])
    y = x.tanh()
    return microgpt.Value(y.data, (x,), ((1 - y.data * y.data) * (1 + 2**-52),))


def test_a_difference_in_a_last_bit_is_shown_as_a_small_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(microgpt, "tanh", wrong_tanh)
    assert fuzz.main(["--programs", "200", "--seed", "1", "--kind", "tied"]) == 1
    script = capsys.readouterr().out.split("\n\n\n")[1]
    lines = [line for line in script.splitlines() if line.startswith("    ")]
    assert any("e.tanh(" in line for line in lines)
    assert len(lines) <= 6
    namespace: dict[str, Any] = {}
    source = "from fuzz import check, inspect, refused\nfrom itertools import accumulate\n" + script
    exec(source, namespace)
    with pytest.raises(fuzz.Difference, match="data and grad"):
        fuzz.replay(namespace["program"])
    monkeypatch.undo()
    fuzz.replay(namespace["program"])


def test_the_script_of_a_program_runs(tmp_path: Path) -> None:
    for _, _, program in (next(fuzz.programs([kind], 2, 3)) for kind in fuzz.KINDS):
        path = tmp_path / "script.py"
        path.write_text(fuzz.script(program))
        subprocess.run([sys.executable, path], cwd=Path(__file__).parent.parent, check=True)


def test_dots_pass_on_what_a_second_backward_adds_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README says under 'The limits': of a dot there is nothing to keep. The twin alone keeps its partial sums."""

    def program(e: Any) -> Any:
        a = e.Vector([0.3, -0.7])
        s = a @ a
        root = s * s
        for _ in range(3):
            root.backward()
            yield fuzz.check, [a, s, root]
            yield fuzz.inspect, root

    fuzz.replay(program)
    monkeypatch.setattr(twin.Value, "backward", twin.Value.__mro__[1].backward)
    with pytest.raises(fuzz.Difference):
        fuzz.replay(program)


def test_guards_that_can_be_taken_out_have_names_of_their_own() -> None:
    names = fuzz_faults.faults()
    assert len(names) > 20
    assert len(set(names)) == len(names)


def test_each_kind_of_program_is_to_miss_some_guard() -> None:
    names = fuzz_faults.faults()
    assert {fuzz_faults.kind_of(name) for name in names} == set(fuzz.KINDS) - {"tied", "models"}
    assert all(any(name.startswith(start) for name in names) for start in fuzz_faults.KIND_OF)
