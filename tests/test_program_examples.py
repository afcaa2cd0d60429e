"""The examples of Programs end where they should: at what the data were made from, or at a formula; the page's code runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_a_fit_finds_what_the_data_were_made_from() -> None:
    pytest.importorskip("scipy", reason="the example uses it")
    run = example("nonlinear_fit")
    by_gradients, by_newton = run["main"]()
    assert numpy.abs(by_gradients - by_newton).max() < 1e-6
    assert numpy.abs(by_newton - run["TRUE"]).max() < 0.02


def test_rates_of_populations_are_found() -> None:
    pytest.importorskip("scipy", reason="the example uses it")
    run = example("ode_parameters")
    assert numpy.abs(run["main"](200) - run["TRUE"]).max() < 0.02


def test_sensitivities_of_an_option_are_near_the_formula() -> None:
    run = example("option_greeks")
    exact = numpy.array(run["black_scholes"](*run["MARKET"]))
    assert (numpy.abs(run["main"](40_000) / exact - 1) < 0.05).all()


def test_the_code_of_the_page_runs() -> None:
    page = (EXAMPLES.parent / "docs" / "program.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["program"]([0.5, 3.0]) == names["exp"](names["Vector"]([1.5]))[0].data + 3.0
