"""Both engines for every test that asks for one, and exact comparison."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Commands
from hypothesis import settings

import microgpt
from microgpt import reference
from microgpt._plans import forget_plans
from microgpt._schedule import set_worth
from microgpt._tape import get_tape

settings.register_profile("default", max_examples=150, deadline=None)
settings.register_profile("thorough", max_examples=20_000, deadline=None)
settings.load_profile("default")


@pytest.fixture(params=[microgpt, reference], ids=["engine", "reference"])
def engine(request: pytest.FixtureRequest) -> types.ModuleType:
    """The compiled engine, then its pure-Python twin: one suite for both."""
    module: types.ModuleType = request.param
    return module


@pytest.fixture
def small_graphs() -> Iterator[None]:
    """Begin without plans, and make one for each graph, however small."""
    gc.collect()
    get_tape().collect()  # while there are leaves with a `_backward` of their own, no plan is made
    forget_plans()
    set_worth(1, 1)
    yield
    forget_plans()
    set_worth()


@pytest.fixture
def refusal() -> Callable[[type[Exception], Callable[[], Any]], str]:
    """A call that must raise and leave the tape as it was, no half-made node on it; returns the message."""

    def call(exception: type[Exception], function: Callable[[], Any]) -> str:
        gc.collect()  # Values in tracebacks of earlier tests go now, not in the middle
        nodes = get_tape().nodes
        message = None
        try:  # pytest.raises would keep the traceback, whose frames hold Values
            function()
        except exception as error:
            message = str(error)
        assert message is not None, f"{exception.__name__} expected"
        assert get_tape().nodes == nodes
        return message

    return call


@pytest.fixture
def commands(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The commands, called in this process in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    return Commands(capsys)
